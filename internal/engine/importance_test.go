package engine

import (
	"errors"
	"math"
	"testing"

	"github.com/graftml/graft/internal/testmodel"
)

// TestImportance: the first block's inputs are computed here once more, from the embedding; what the products of one
// input see is the same; and rows are counted, bos and the end of the text treated, as llama.cpp does.
func TestImportance(t *testing.T) {
	m, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	c := m.Config()
	tokens := testmodel.Tokens("importance", 37, c.Vocab)
	const window, bos = 8, 1
	for _, half := range []bool{false, true} {
		loaded, err := Load(m, Options{BF16: half})
		if err != nil {
			t.Fatal(err)
		}
		var seen int
		got, err := loaded.Importance(tokens, window, bos, func(done, total int) error {
			if seen += window; done != seen || total != 32 {
				t.Errorf("%d of %d tokens done, want %d of 32", done, total, seen)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Entries) != 7*c.Layers || got.Chunks != 4 || got.ChunkSize != window {
			t.Errorf("%d entries from %d windows of %d", len(got.Entries), got.Chunks, got.ChunkSize)
		}
		want := make([]float64, c.Hidden)
		for i, token := range tokens[:32] {
			if i%window == 0 {
				token = bos
			}
			x := m.Tensor("model.embed_tokens.weight")[int(token)*c.Hidden:][:c.Hidden]
			var square float64
			for _, v := range x {
				square += float64(v) * float64(v)
			}
			r := 1 / math.Sqrt(square/float64(c.Hidden)+c.RMSEps)
			for j, v := range x {
				y := float64(v) * r * float64(m.Tensor("model.layers.0.input_layernorm.weight")[j])
				want[j] += y * y
			}
		}
		tolerance := 1e-5
		if half {
			tolerance = 0.02
		}
		e := got.Entries["blk.0.attn_q.weight"]
		if e.Count != 32 || len(e.Sums) != c.Hidden {
			t.Fatalf("%d sums over %v rows", len(e.Sums), e.Count)
		}
		for j, v := range want {
			if math.Abs(float64(e.Sums[j])-v) > tolerance*v || math.Abs(float64(e.Mean[j])-v/32) > tolerance*v {
				t.Fatalf("bfloat16 %v: column %d has a sum of squares of %v and a mean of %v, want %v", half, j, e.Sums[j], e.Mean[j], v)
			}
			if k := got.Entries["blk.0.attn_k.weight"].Sums[j]; k != e.Sums[j] {
				t.Fatalf("column %d of attn_k is %v, of attn_q %v", j, k, e.Sums[j])
			}
		}
		if n := len(got.Entries["blk.1.ffn_down.weight"].Sums); n != c.Intermediate {
			t.Errorf("ffn_down has %d columns", n)
		}
	}
}

func TestImportanceRefused(t *testing.T) {
	m, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := []int32{1, 2, 3}
	for what, run := range map[string]func() error{
		"no tokens":      func() error { _, err := loaded.Importance(nil, 8, -1, nil); return err },
		"a long window":  func() error { _, err := loaded.Importance(text, 1<<20, -1, nil); return err },
		"another's text": func() error { _, err := loaded.Importance([]int32{1 << 20}, 8, -1, nil); return err },
	} {
		if err := run(); !errors.Is(err, ErrBatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	stop := errors.New("stop")
	if _, err := loaded.Importance(text, 8, -1, func(int, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a stopped run: %v", err)
	}
	if got, err := loaded.Importance(text, 8, -1, nil); err != nil || got.Chunks != 1 || got.Entries["blk.0.attn_q.weight"].Count != 3 {
		t.Errorf("a text shorter than a window: %+v, %v", got, err)
	}
}
