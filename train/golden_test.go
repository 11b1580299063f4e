package train

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/train/dataset"
)

// The goldens are what TRL and transformers make; see testdata/golden/train/make.py.

func golden(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "golden", "train", name))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func goldenEncoder(t *testing.T) *dataset.Encoder {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", "golden", "train", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	eos, ok := tok.ID("<|im_end|>")
	if !ok {
		t.Fatal("no <|im_end|>")
	}
	chatml, _ := chat.Builtin("chatml")
	return &dataset.Encoder{Tokenizer: &texts{tok, -1, eos}, Template: &template{chatml, "", "<|im_end|>"}}
}

func readRow(t *testing.T, row json.RawMessage) *dataset.File {
	t.Helper()
	f, err := dataset.Read(write(t, "row.jsonl", string(row)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// goldenExample is a row and what TRL makes of it for supervised training.
type goldenExample struct {
	Row  json.RawMessage
	IDs  []int32
	Loss []int
}

func (g *goldenExample) check(t *testing.T, e *dataset.Encoder, name string) {
	t.Helper()
	list, _, err := e.Examples(readRow(t, g.Row))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	want := dataset.Example{Tokens: g.IDs}
	for k, l := range g.Loss {
		want.Loss = append(want.Loss, l == 1 && k > 0) // nothing predicts the first
	}
	if !slices.Equal(list[0].Tokens, want.Tokens) || !slices.Equal(list[0].Loss, want.Loss) {
		t.Errorf("%s:\n%v\n%v\nwant\n%v\n%v", name, list[0].Tokens, list[0].Loss, want.Tokens, want.Loss)
	}
}

// goldenPair is a preference row and what TRL makes of it.
type goldenPair struct {
	Row                      json.RawMessage
	Prompt, Chosen, Rejected []int32
}

func (g *goldenPair) check(t *testing.T, e *dataset.Encoder, name string) {
	t.Helper()
	list, _, err := e.Pairs(readRow(t, g.Row))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, s := range []struct {
		got  *dataset.Example
		want []int32
	}{{&list[0].Chosen, g.Chosen}, {&list[0].Rejected, g.Rejected}} {
		first := slices.Index(s.got.Loss, true)
		if !slices.Equal(s.got.Tokens, slices.Concat(g.Prompt, s.want)) || first != len(g.Prompt) || s.got.Targets() != len(s.want) {
			t.Errorf("%s: %v from %d on, want %v and %v", name, s.got.Tokens, first, g.Prompt, s.want)
		}
	}
}

// TestToolsEqualTRL: tools, calls, results and reasoning reach the chat template as they do in TRL, and
// what the assistant says carries the loss.
func TestToolsEqualTRL(t *testing.T) {
	var rows struct {
		SFT []goldenExample
		DPO []goldenPair
	}
	golden(t, "tools.json", &rows)
	if len(rows.SFT) < 7 || len(rows.DPO) < 2 {
		t.Fatalf("only %d and %d rows", len(rows.SFT), len(rows.DPO))
	}
	source, err := os.ReadFile(filepath.Join("..", "testdata", "golden", "chat", "steps.jinja"))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := chat.Parse(string(source))
	if err != nil {
		t.Fatal(err)
	}
	e := goldenEncoder(t)
	e.Template = &template{steps, "", "<|im_end|>"}
	for i, g := range rows.SFT {
		g.check(t, e, fmt.Sprint("sft ", i))
	}
	for i, g := range rows.DPO {
		g.check(t, e, fmt.Sprint("dpo ", i))
	}
}

func TestExamplesEqualTRL(t *testing.T) {
	var forms map[string][]goldenExample
	golden(t, "sft.json", &forms)
	e := goldenEncoder(t)
	for name, rows := range forms {
		for i, g := range rows {
			g.check(t, e, fmt.Sprint(name, " ", i))
		}
	}
	if len(forms) != 5 {
		t.Errorf("%d forms", len(forms))
	}
}

func TestPairsEqualTRL(t *testing.T) {
	var forms map[string][]goldenPair
	golden(t, "dpo.json", &forms)
	e := goldenEncoder(t)
	for name, rows := range forms {
		for i, g := range rows {
			g.check(t, e, fmt.Sprint(name, " ", i))
		}
	}
	if len(forms) != 4 {
		t.Errorf("%d forms", len(forms))
	}
}

func TestRatesEqualTransformers(t *testing.T) {
	var rates map[string][]float64
	golden(t, "rates.json", &rates)
	for name, want := range rates {
		r := Recipe{LRScheduler: name, LearningRate: 3e-4, WarmupSteps: 5}
		for step, w := range want {
			if got := r.rate(step, len(want)); math.Abs(got-w) > 1e-12*3e-4 {
				t.Errorf("%s, step %d: %v, want %v", name, step, got, w)
			}
		}
	}
	if len(rates) != 3 {
		t.Error(fmt.Sprint(len(rates), " schedules"))
	}
}
