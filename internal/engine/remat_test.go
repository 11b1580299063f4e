package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// deeper loads a test model of five blocks.
func deeper(t *testing.T, name string, o Options) *Model {
	t.Helper()
	c, err := testmodel.Config(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := c.Layers; i < 5; i++ { // each as the one two before it: what it attends to, and where it has positions
		for _, list := range []*[]bool{&c.Sliding, &c.NoRope} {
			if *list != nil {
				*list = append(*list, (*list)[i-2])
			}
		}
	}
	c.Layers = 5
	for _, list := range []*[]bool{&c.Sliding, &c.NoRope} {
		*list = (*list)[:min(5, len(*list))]
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(src, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRematSameBits: losses and gradients are the same bits however many blocks are computed again,
// in every way of training, with packed sequences.
func TestRematSameBits(t *testing.T) {
	nf4 := &quantize.Options4{Double: true}
	for at, way := range []struct {
		name    string
		load    Options
		full    bool
		dropout float64
		modules func(l model.Linear) bool // nil: all
	}{
		{name: "lora"},
		{name: "lora with dropout", dropout: 0.3},
		{name: "qlora", load: Options{Quant: nf4}, dropout: 0.1},
		{name: "qlora in bf16", load: Options{Quant: nf4, BF16: true}},
		{name: "full", full: true},
		{name: "last product of a block", modules: func(l model.Linear) bool { return strings.HasSuffix(l.Module, "down_proj") }, dropout: 0.3},
		{name: "upper blocks", modules: func(l model.Linear) bool { return l.Module >= "model.layers.2" }},
	} {
		for i, name := range testmodel.Names() {
			// Every family's graph is computed again with adapters and without. What else a way changes
			// is the same code for all: a third of the families each, in turn.
			if way.name != "lora" && way.name != "full" && (i+at)%3 != 0 {
				continue
			}
			t.Run(way.name+"/"+name, func(t *testing.T) {
				train := func(remat int) (bits []float32, activations int64) {
					m := deeper(t, name, way.load)
					o := SessionOptions{Full: way.full, Dropout: way.dropout, Seed: 3, Remat: remat}
					if !way.full {
						var modules []string
						for _, l := range m.Targets() {
							if way.modules == nil || way.modules(l) {
								modules = append(modules, l.Module)
							}
						}
						var err error
						if o.Adapter, err = m.NewAdapter(modules, 4, 2, 7); err != nil {
							t.Fatal(err)
						}
					}
					s, err := m.NewSession(o)
					if err != nil {
						t.Fatal(err)
					}
					b := someBatch(m, 20, 1, 37)
					for range 2 { // B is zero at first
						s.ZeroGrad()
						sum, n, err := s.Loss(b)
						if err != nil {
							t.Fatal(err)
						}
						s.Backward(1 / n)
						bits = append(bits, float32(sum))
						for _, p := range s.Params() {
							bits = append(bits, p.Grad...)
							kernel.AddScaled(p.Value, p.Grad, -0.5)
						}
					}
					return bits, s.ActivationBytes(len(b.Tokens))
				}
				want, all := train(0)
				most := all
				for _, n := range []int{1, 3, 99} { // of five
					got, activations := train(n)
					if !slices.Equal(got, want) {
						t.Errorf("with %d blocks computed again, losses and gradients have other bits", n)
					}
					if activations > most || n == 99 && activations >= all {
						t.Errorf("activations take %d bytes with %d blocks computed again, %d with fewer", activations, n, most)
					}
					most = activations
				}
			})
		}
	}
}

// TestRematAllocatesNothing: computing again is a steady step like any other.
func TestRematAllocatesNothing(t *testing.T) {
	m := deeper(t, "llama", Options{})
	s := newSession(t, m, 0.1, 4)
	s.tape.SetRemat(4)
	b := someBatch(m, 40, 9)
	trainStep(t, s, b)
	if n := testing.AllocsPerRun(10, func() { trainStep(t, s, b) }); n > 0 {
		t.Errorf("%.1f allocations in a steady step", n)
	}
}

// TestPlannerFits: a limit gets the fewest blocks that meet it, and the plan is that of a session.
func TestPlannerFits(t *testing.T) {
	m := deeper(t, "llama", Options{})
	ranks := map[string]int{}
	for _, l := range m.Targets() {
		ranks[l.Module] = 4
	}
	p, err := NewPlanner(m.Config(), MemoryOptions{Ranks: ranks, Lengths: []int{64, 64}})
	if err != nil {
		t.Fatal(err)
	}
	if p.Blocks() != 4 {
		t.Errorf("%d blocks can be computed again, want all but the last of 5", p.Blocks())
	}
	for n := range p.Blocks() + 1 {
		total := p.Memory(n).Total()
		if got, ok := p.Fit(total); got != n || !ok {
			t.Errorf("%d bytes: %d blocks, %v; want %d", total, got, ok, n)
		}
		if n > 0 && total >= p.Memory(n-1).Total() {
			t.Errorf("block %d saves nothing", n)
		}
		s := newSession(t, m, 0, 4)
		s.tape.SetRemat(n)
		if got, want := s.ActivationBytes(128), p.Memory(n).Activations; got != want {
			t.Errorf("%d blocks: a session takes %d bytes, %d are planned", n, got, want)
		}
	}
	if _, ok := p.Fit(p.Memory(4).Total() - 1); ok {
		t.Error("what is too little is said to fit")
	}
}

// TestRematCost: blocks of one size take memory for their inputs alone.
func TestRematCost(t *testing.T) {
	m := deeper(t, "llama", Options{})
	s := newSession(t, m, 0, 4)
	bytes := func(n int) int64 {
		s.tape.SetRemat(n)
		return s.ActivationBytes(1)
	}
	c := m.Config()
	// Kept of a block besides its input: see TestPlannedMemory.
	kept := int64(4 * (c.Hidden + 2*c.Heads*c.HeadDim + 2*c.KVHeads*c.HeadDim + 2*c.Intermediate + 7*16 + 16))
	for n := 1; n < 4; n++ { // the fourth is where the block being computed again decides
		if saved := bytes(n-1) - bytes(n); saved != kept {
			t.Errorf("computing block %d again saves %d bytes a token, want %d", n, saved, kept)
		}
	}
}
