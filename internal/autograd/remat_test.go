package autograd

import (
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// TestRemat compares gradients with finite differences where blocks are computed again, and their
// bits with those of a tape that keeps everything: several adapters at a place, frozen ones among
// them, parts that are not trained, and a value that two blocks use.
func TestRemat(t *testing.T) {
	linear := func(b *bench, name string, n int, x Var) Var {
		return b.g.Linear(b.weight(name, n, b.g.Width(x), 0.4, 0), nil, x)
	}
	block := func(b *bench, x Var) Var {
		b.g.Block(x)
		a := angles(2)
		h := b.g.RMSNorm(b.weight("gain", 1, 6, 0.3, 1), 1e-3, 0, x)
		q, k, v := b.g.Rope(2, 4, a, linear(b, "q", 8, h)), b.g.Rope(1, 4, a, linear(b, "k", 4, h)), linear(b, "v", 4, h)
		y := b.g.Attention(kernel.AttentionSpec{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5}, q, k, v)
		x = b.g.Add(x, linear(b, "o", 6, y))
		h = b.g.RMSNorm(b.weight("gain", 1, 6, 0.3, 1), 1e-3, 0, x)
		return b.g.Add(x, linear(b, "down", 6, b.g.Gated(kernel.SiLU, linear(b, "gate", 9, h), linear(b, "up", 9, h))))
	}
	// With norms on heads and behind products, factors, products that are cut, and caps.
	other := func(b *bench, x Var) Var {
		b.g.Block(x)
		a := stretched(1, 3)
		norm := func(n int, x Var) Var { return b.g.RMSNorm(b.weight("gain", 1, n, 0.3, 0), 1e-3, 1, x) }
		qkv := b.g.Split(linear(b, "qkv", 16, norm(6, x)), 8, 4, 4)
		q, k := b.g.Rope(2, 4, a, norm(4, qkv[0])), b.g.Rope(1, 4, a, norm(4, qkv[1]))
		y := b.g.Attention(kernel.AttentionSpec{Heads: 2, KVHeads: 1, HeadDim: 4, Scale: 0.5, Window: 3, Softcap: 2}, q, k, qkv[2])
		x = b.g.Add(x, norm(6, linear(b, "o", 6, y)))
		unit := b.g.Split(linear(b, "gate_up", 18, x), 9, 9)
		return b.g.Add(x, b.g.Scale(0.6, linear(b, "down", 6, b.g.Gated(kernel.GELUTanh, unit[0], unit[1]))))
	}
	for name, c := range map[string]struct {
		build    func(b *bench, x Var) Var
		frozen   bool // all weights
		adapters func(b *bench) map[int][]*LowRank
	}{
		"full":             {build: func(b *bench, x Var) Var { return block(b, block(b, block(b, x))) }},
		"other operations": {build: func(b *bench, x Var) Var { return other(b, other(b, other(b, b.g.Scale(2, x)))) }},
		"adapters of other operations": {
			build:  func(b *bench, x Var) Var { return other(b, other(b, other(b, x))) },
			frozen: true,
			adapters: func(b *bench) map[int][]*LowRank {
				// Places of a block: qkv, o, gate_up, down.
				out := map[int][]*LowRank{
					0: {b.lowRank(6, 16, 2, true)}, 2: {b.lowRank(6, 18, 2, true), b.lowRank(6, 18, 3, false)},
					5: {b.lowRank(8, 6, 2, true)}, 7: {b.lowRank(9, 6, 1, true)}, 8: {b.lowRank(6, 16, 2, true)},
				}
				for _, list := range out {
					for _, l := range list {
						l.Dropout = 0.2
					}
				}
				return out
			},
		},
		"adapters": {
			build:  func(b *bench, x Var) Var { return block(b, block(b, block(b, x))) },
			frozen: true,
			adapters: func(b *bench) map[int][]*LowRank {
				// Places of a block: q, k, v, o, gate, up, down.
				out := map[int][]*LowRank{
					0: {b.lowRank(6, 8, 2, true)}, 3: {b.lowRank(8, 6, 2, true)},
					6: {b.lowRank(9, 6, 2, true), b.lowRank(9, 6, 3, false), b.lowRank(9, 6, 1, true)},
					9: {b.lowRank(6, 4, 2, false)}, 13: {b.lowRank(9, 6, 2, true)}, 18: {b.lowRank(6, 9, 2, true)},
				}
				for _, list := range out {
					for _, l := range list {
						l.Dropout = 0.2
					}
				}
				return out
			},
		},
		"adapters above": {
			build:    func(b *bench, x Var) Var { return block(b, block(b, block(b, x))) },
			frozen:   true,
			adapters: func(b *bench) map[int][]*LowRank { return map[int][]*LowRank{8: {b.lowRank(6, 4, 2, true)}} },
		},
		"value of two blocks": {build: func(b *bench, x Var) Var {
			b.g.Block(x)
			u := linear(b, "u", 6, x)
			x = b.g.Add(x, linear(b, "t", 6, u))
			b.g.Block(x)
			x = b.g.Add(linear(b, "s", 6, u), x)
			return block(b, x)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			b.head(c.build(b, b.embed(6)))
			for _, w := range b.weights {
				if c.frozen {
					w.Grad = nil
				}
			}
			var adapters map[int][]*LowRank
			if c.adapters != nil {
				adapters = c.adapters(b)
			}
			b.remat = 2
			b.check(t, adapters, Mode{DropKey: 77})

			run := func(remat int) (bits []float32) {
				tape := NewTape(&b.g, Training)
				var grads [][]float32
				for _, w := range b.weights {
					grads = append(grads, w.Grad)
				}
				for place, list := range adapters {
					tape.SetAdapters(place, list)
				}
				for place := range b.g.products {
					for _, l := range adapters[place] {
						grads = append(grads, l.GradA, l.GradB)
					}
				}
				for _, g := range grads {
					clear(g)
				}
				tape.SetRemat(remat)
				tape.Forward(b.batch, Mode{DropKey: 77})
				nll, _ := tape.NLL()
				bits = slices.Clone(nll)
				tape.Backward(b.random(len(nll), 0, 1))
				for _, g := range grads {
					bits = append(bits, g...)
				}
				return bits
			}
			want := run(0)
			for n := 1; n < 5; n++ {
				if !slices.Equal(run(n), want) {
					t.Errorf("%d blocks computed again give other bits", n)
				}
			}
		})
	}
}

// TestRematRecomputesNoMore: the last product of a block is not computed again, only what its
// adapter reads; and the last block not at all.
func TestRematRecomputesNoMore(t *testing.T) {
	b := newBench()
	x := b.embed(6)
	for range 3 {
		b.g.Block(x)
		h := b.g.Linear(b.weight("W", 9, 6, 0.4, 0), nil, x)
		x = b.g.Add(x, b.g.Linear(b.weight("V", 6, 9, 0.4, 0), nil, h))
	}
	b.head(x)
	for _, w := range b.weights {
		w.Grad = nil
	}
	tape := NewTape(&b.g, Training)
	for place := range b.g.products {
		w := b.weights[1+place].Matrix
		tape.SetAdapters(place, []*LowRank{b.lowRank(w.K, w.N, 2, true)})
	}
	if got := tape.RematBlocks(); got != 2 {
		t.Errorf("%d blocks can be computed again, want 2", got)
	}
	tape.SetRemat(9)
	type run struct {
		phase phase
		op    int
	}
	var again []run
	for _, s := range newPlan(tape, true).steps {
		if s.phase == recompute || s.phase == resave {
			again = append(again, run{s.phase, s.op})
		}
	}
	// Operations: embed, then W, V and the sum of each block.
	if want := []run{{recompute, 4}, {resave, 5}, {recompute, 1}, {resave, 2}}; !slices.Equal(again, want) {
		t.Errorf("computed again are %v, want %v", again, want)
	}
}
