package checkpoint_test

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/internal/tokenizer"
)

// A folder whose tokenizer is a SentencePiece model goes to GGUF and back with the ids that
// SentencePiece gives.
func TestSentencePiece(t *testing.T) {
	f, err := os.Open("../../testdata/golden/tokenizer/model-llama2.json.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	var golden struct {
		Model []byte `json:"model"`
		Cases []struct {
			Text  string  `json:"text"`
			Plain []int32 `json:"plain"`
		} `json:"cases"`
	}
	must(t, json.NewDecoder(z).Decode(&golden))

	config, err := testmodel.Config("llama")
	must(t, err)
	config.Vocab = 700 // as many pieces
	m, err := testmodel.New(config)
	must(t, err)
	dir := t.TempDir()
	must(t, m.WriteFolder(dir))
	must(t, os.WriteFile(filepath.Join(dir, "tokenizer.model"), golden.Model, 0o666))
	must(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(`{"bos_token":"<s>","eos_token":"</s>","add_bos_token":true}`), 0o666))
	a := open(t, dir)
	b := write(t, a, filepath.Join(t.TempDir(), "b.gguf"), checkpoint.Options{})
	c := write(t, b, filepath.Join(t.TempDir(), "c"), checkpoint.Options{})
	d := write(t, c, filepath.Join(t.TempDir(), "d.gguf"), checkpoint.Options{})
	for i, x := range []*checkpoint.Checkpoint{a, b, c, d} {
		tok, err := x.Tokenizer()
		must(t, err)
		if len(golden.Cases) == 0 || tok.BOS() != 1 || tok.EOS() != 2 {
			t.Errorf("copy %d: BOS %d, EOS %d", i, tok.BOS(), tok.EOS())
		}
		for _, g := range golden.Cases {
			if got := tok.Encode(g.Text, tokenizer.Options{}); !slices.Equal(got, g.Plain) {
				t.Errorf("copy %d: Encode(%q) = %v, want %v", i, g.Text, got, g.Plain)
			}
			with := tok.Encode(g.Text, tokenizer.Options{AddSpecial: true})
			if want := append([]int32{1}, g.Plain...); !slices.Equal(with, want) {
				t.Errorf("copy %d: with special tokens %q is %v, want %v", i, g.Text, with, want)
			}
		}
	}
}

// A GGUF file of a vocabulary alone, without tensors and of an architecture that no model here has, tokenizes.
func TestOpenTokenizerOfAVocabularyAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vocab.gguf")
	must(t, gguf.Write(path, []gguf.KV{
		gguf.Entry("general.architecture", "unheard-of"),
		gguf.Entry("tokenizer.ggml.model", "gpt2"),
		gguf.Entry("tokenizer.ggml.pre", "gpt-2"),
		gguf.Entry("tokenizer.ggml.tokens", []string{"h", "e", "n", "en"}),
		gguf.Entry("tokenizer.ggml.merges", []string{"e n"}),
		gguf.Entry("tokenizer.ggml.bos_token_id", uint32(0)),
		gguf.Entry("tokenizer.ggml.eos_token_id", uint32(0)),
	}, nil))
	tok, err := checkpoint.OpenTokenizer(path)
	must(t, err)
	if got := tok.Encode("hen", tokenizer.Options{}); !slices.Equal(got, []int32{0, 3}) {
		t.Errorf("hen is %v, want [0 3]", got)
	}
	if _, err := checkpoint.Open(path); err == nil {
		t.Error("a vocabulary alone opens as a model")
	}
}
