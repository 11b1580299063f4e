package checkpoint_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/quantize"
)

// Rounding gives the values that a model written in 4 bits has.
func TestRounded(t *testing.T) {
	a := folder(t, "llama")
	o := quantize.Options4{Type: "nf4", Double: true}
	four := write(t, a, filepath.Join(t.TempDir(), "nf4"), checkpoint.Options{Type: "nf4", FourBit: o})
	r, err := checkpoint.Rounded(a, o)
	must(t, err)
	moved := 0
	for i, x := range r.Tensors() {
		if !slices.Equal(values(t, r, x), values(t, four, four.Tensors()[i])) {
			t.Errorf("%s: other values than in the folder of 4 bits", x.Name)
		}
		if x.Codec != a.Tensors()[i].Codec {
			t.Errorf("%s is %s", x.Name, x.Codec)
		}
		if !slices.Equal(values(t, r, x), values(t, a, x)) {
			moved++
		}
	}
	if moved != 14 {
		t.Errorf("%d tensors were rounded, want the 14 products", moved)
	}
	again, err := checkpoint.Rounded(four, o)
	must(t, err)
	for _, x := range four.Tensors() {
		if !slices.Equal(values(t, again, x), values(t, four, x)) {
			t.Errorf("%s: rounded once more", x.Name)
		}
	}
	if _, err := checkpoint.Rounded(a, quantize.Options4{Type: "nf4", BlockSize: 3}); err == nil {
		t.Error("blocks of 3 are taken")
	}
}

// A merge that changes the table of a model with a tied head alone leaves the head what it was, as a
// weight of its own, in both forms.
func TestMergeUnties(t *testing.T) {
	a := folder(t, "smollm3")
	if !a.Config().Tied {
		t.Fatal("the model's head is its own")
	}
	c := a.Config()
	p := adapters.Pair{Module: "model.embed_tokens", Table: true, R: 1, In: c.Vocab, Out: c.Hidden, Scale: 1, A: make([]float32, c.Vocab), B: make([]float32, c.Hidden)}
	p.A[5], p.B[2] = 1, 0.5
	m, err := checkpoint.MergeAdapters(a, &adapters.Adapter{Name: "table", Pairs: []adapters.Pair{p}})
	must(t, err)
	dir := t.TempDir()
	table := values(t, a, checkpoint.Tensor{Name: "model.embed_tokens.weight", Shape: []int{c.Vocab, c.Hidden}})
	for _, name := range []string{"m", "m.gguf"} {
		b := write(t, m, filepath.Join(dir, name), checkpoint.Options{})
		if b.Config().Tied {
			t.Fatalf("%s: the head is tied", name)
		}
		for _, x := range b.Tensors() {
			got := values(t, b, x)
			switch x.Name {
			case "lm_head.weight":
				if !slices.Equal(got, table) {
					t.Errorf("%s: the head is not what the table was", name)
				}
			case "model.embed_tokens.weight":
				want := slices.Clone(table)
				want[5*c.Hidden+2] += 0.5
				if !slices.Equal(got, want) {
					t.Errorf("%s: the table is not the changed one", name)
				}
			}
		}
	}
}
