package autograd

import (
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// fused is a unit and attention whose products are cut.
func fused(b *bench, x Var) Var {
	qkv := b.g.Split(b.g.Linear(b.weight("qkv", 16, 6, 0.6, 0), b.weight("bias", 1, 16, 0.5, 0), x), 8, 4, 4)
	a := angles(2)
	y := b.g.Attention(kernel.AttentionSpec{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5}, b.g.Rope(2, 4, a, qkv[0]), b.g.Rope(1, 4, a, qkv[1]), qkv[2])
	x = b.g.Add(x, b.g.Linear(b.weight("o", 6, 8, 0.6, 0), nil, y))
	unit := b.g.Split(b.g.Linear(b.weight("gate_up", 18, 6, 0.5, 0), nil, x), 9, 9)
	return b.g.Add(x, b.g.Linear(b.weight("down", 6, 9, 0.5, 0), nil, b.g.Gated(kernel.SiLU, unit[0], unit[1])))
}

func TestSplit(t *testing.T) {
	b := newBench()
	b.head(fused(b, b.embed(6)))
	b.check(t, nil, Mode{})
}

// TestSplitLowRank trains adapters on products that are cut, one of two at a place, with dropout.
func TestSplitLowRank(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		b := newBench()
		b.head(fused(b, b.embed(6)))
		if frozen {
			for _, w := range b.weights {
				w.Grad = nil
			}
		}
		first, second, still := b.lowRank(6, 16, 3, true), b.lowRank(6, 18, 2, true), b.lowRank(6, 18, 2, false)
		first.Dropout = 0.3
		b.check(t, map[int][]*LowRank{0: {first}, 2: {still, second}}, Mode{DropKey: 77})
	}
}

// TestSplitIsProduct: values of a product that is cut are those of the product itself, bit for bit.
func TestSplitIsProduct(t *testing.T) {
	b := newBench()
	w, bias, l := b.weight("W", 15, 6, 0.4, 0), b.weight("bias", 1, 15, 0.5, 0), b.lowRank(6, 15, 2, true)
	table := b.weight("embed", vocab, 6, 1, 0)
	run := func(cut bool) [][]float32 {
		g := &Graph{}
		y := []Var{g.Linear(w, bias, g.Embed(table))}
		if cut {
			y = g.Split(y[0], 4, 1, 10)
		}
		tape := NewTape(g, Generating)
		tape.SetAdapters(0, []*LowRank{l})
		tape.Forward(b.batch, Mode{})
		var out [][]float32
		c := &tape.plan.calls[1]
		for k := range y {
			out = append(out, slices.Clone(c.output(k).F32))
		}
		return out
	}
	whole, parts := run(false)[0], run(true)
	for i := range b.batch.Tokens {
		row := slices.Concat(parts[0][4*i:4*i+4], parts[1][i:i+1], parts[2][10*i:10*i+10])
		if !slices.Equal(row, whole[15*i:15*i+15]) {
			t.Fatalf("token %d: %v, want %v", i, row, whole[15*i:15*i+15])
		}
	}
}
