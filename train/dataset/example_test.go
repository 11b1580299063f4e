package dataset_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/graftml/graft/train/dataset"
)

// words is a tokenizer of bytes.
type words struct{}

func (words) Encode(text string, special bool) ([]int32, error) {
	var ids []int32
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	return ids, nil
}

func (words) Pieces(ids []int32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(rune(id))
	}
	return out
}

func (words) EOS() (int32, bool) { return 0, true }

// A file of prompts and completions becomes examples, in which only the completions carry a loss.
func Example() {
	dir, err := os.MkdirTemp("", "dataset")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sums.jsonl")
	os.WriteFile(path, []byte(`{"prompt": "1+1=", "completion": "2"}
{"prompt": "2+2=", "completion": "4"}`), 0o666)

	file, err := dataset.Read(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	enc := dataset.Encoder{Tokenizer: words{}, MaxLength: 16}
	examples, report, err := enc.Examples(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(file.Form, report.Kept, "rows,", report.Targets, "of", report.Tokens, "tokens have a loss")
	batches, err := dataset.NewBatches(dataset.Lengths(examples), dataset.BatchOptions{Size: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(batches.Epoch(0))
	// Output:
	// prompt/completion 2 rows, 4 of 12 tokens have a loss
	// [[0 1]]
}
