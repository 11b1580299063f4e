package adapters

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// random returns an adapter with values that a sum in another order would round differently.
func random(seed uint64, modules ...string) *Adapter {
	rng := rand.New(rand.NewPCG(seed, 1))
	a := &Adapter{Name: "random", Config: Config{R: 4, Alpha: 8, TaskType: "CAUSAL_LM"}}
	for i, m := range modules {
		p := Pair{Module: m, R: 4, In: 6 + i, Out: 5 + 2*i, Scale: 2}
		p.A, p.B = make([]float32, p.R*p.In), make([]float32, p.Out*p.R)
		for j := range p.A {
			p.A[j] = rng.Float32() - 0.5
		}
		for j := range p.B {
			p.B[j] = rng.Float32() - 0.5
		}
		a.Pairs = append(a.Pairs, p)
	}
	return a
}

// delta is s·B·A by the definition, in float64.
func delta(p *Pair) []float64 {
	out := make([]float64, p.Out*p.In)
	for o := range p.Out {
		for i := range p.In {
			sum := 0.0
			for k := range p.R {
				sum += float64(p.B[o*p.R+k]) * float64(p.A[k*p.In+i])
			}
			out[o*p.In+i] = p.Scale * sum
		}
	}
	return out
}

// baseOf is a base that has just what an adapter changes, its table and head being of their own.
func baseOf(a *Adapter) Base {
	b := Base{Table: "model.embed_tokens", Head: "lm_head"}
	b.Linear = func(module string) (int, int, bool) {
		if p := a.Pair(module); p != nil {
			return p.Out, p.In, true
		}
		return 0, 0, false
	}
	b.Shape = func(name string) ([]int, bool) {
		module, ok := strings.CutSuffix(name, ".bias")
		if p := a.Pair(module); ok && p != nil {
			return []int{p.Out}, true
		}
		if w := a.WholeOf(name); w != nil {
			return w.Shape, true
		}
		if module := strings.TrimSuffix(name, ".weight"); a.TokenRows(module) != nil {
			return []int{1 << 20, a.TokenRows(module).Width}, true
		}
		return nil, false
	}
	return b
}

func change(t *testing.T, list ...*Adapter) *Change {
	t.Helper()
	c, err := NewChange(baseOf(list[0]), nil, list...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestApply(t *testing.T) {
	a := random(1, "model.layers.0.q", "model.layers.0.v")
	c := change(t, a)
	for i := range a.Pairs {
		p := &a.Pairs[i]
		want := delta(p)
		for lo := 0; lo <= p.Out; lo++ {
			for hi := lo; hi <= p.Out; hi++ {
				rows := make([]float32, (hi-lo)*p.In)
				for j := range rows {
					rows[j] = float32(j)
				}
				if !c.Changes(p.Weight()) {
					t.Fatalf("Changes(%q) = false", p.Weight())
				}
				c.Apply(p.Weight(), lo, hi, rows)
				for j, v := range rows {
					if w := float64(j) + want[lo*p.In+j]; math.Abs(float64(v)-w) > 1e-5 {
						t.Fatalf("%s rows %d to %d, value %d: %v, want %v", p.Module, lo, hi, j, v, w)
					}
				}
			}
		}
	}
	rows := []float32{7}
	for _, name := range []string{"model.layers.0.k.weight", "model.layers.0.q", "model.layers.0.q.bias", ""} {
		if c.Apply(name, 0, 1, rows); c.Changes(name) || rows[0] != 7 {
			t.Errorf("Apply(%q) changed a weight that the adapter leaves alone", name)
		}
	}
}

func TestApplyConcurrent(t *testing.T) {
	a := random(2, "m.a", "m.b", "m.c")
	c := change(t, a)
	want := map[string][]float32{}
	for i := range a.Pairs {
		w := make([]float32, a.Pairs[i].Out*a.Pairs[i].In)
		c.Apply(a.Pairs[i].Weight(), 0, a.Pairs[i].Out, w)
		want[a.Pairs[i].Module] = w
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			p := &a.Pairs[g%3]
			for range 50 {
				w := make([]float32, p.Out*p.In)
				c.Apply(p.Weight(), 0, p.Out, w)
				if !slices.Equal(w, want[p.Module]) {
					t.Errorf("%s: another result beside other goroutines", p.Module)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestApplyAllocatesNothing(t *testing.T) {
	a := random(3, "m.a")
	c := change(t, a)
	rows := make([]float32, a.Pairs[0].Out*a.Pairs[0].In)
	c.Apply("m.a.weight", 0, a.Pairs[0].Out, rows)
	if n := testing.AllocsPerRun(100, func() { c.Apply("m.a.weight", 0, a.Pairs[0].Out, rows) }); n > 0.5 {
		t.Errorf("Apply allocates %v times a call", n)
	}
}

func TestResolveFits(t *testing.T) {
	a := random(4, "m.a", "m.b")
	shapes := func(module string) (int, int, bool) {
		p := a.Pair(module)
		return p.Out, p.In, true
	}
	resolve := func(a *Adapter, shapes func(string) (int, int, bool)) error {
		_, err := a.Resolve(Base{Linear: shapes})
		return err
	}
	if err := resolve(a, shapes); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		shapes func(string) (int, int, bool)
		want   string
	}{
		{"no such module", func(m string) (int, int, bool) { return 5, 6, m == "m.a" },
			`adapters: checking "random": adapter does not fit the base model: it adapts "m.b", which the base does not have as a linear product; was it trained on another model?`},
		{"other shape", func(string) (int, int, bool) { return 5, 6, true },
			`adapters: checking "random": adapter does not fit the base model: "m.b" has A (4, 7) and B (7, 4) there, but the base's weight is (5, 6), not (7, 7)`},
	} {
		err := resolve(a, c.shapes)
		if !errors.Is(err, ErrMismatch) || err.Error() != c.want {
			t.Errorf("%s: error %v, want %s", c.name, err, c.want)
		}
	}
	a.Pairs[1].B = a.Pairs[1].B[1:]
	if err := resolve(a, shapes); !errors.Is(err, ErrFormat) {
		t.Errorf("a pair with too few values: error %v", err)
	}
	if err := resolve(&Adapter{}, shapes); !errors.Is(err, ErrFormat) {
		t.Errorf("no pairs: error %v", err)
	}
}

func TestSortPairs(t *testing.T) {
	want := []string{"lm_head", "model.layers.2.mlp.up", "model.layers.2.self_attn.q", "model.layers.10.mlp.up"}
	var pairs []Pair
	for _, m := range []string{want[3], want[2], want[0], want[1]} {
		pairs = append(pairs, Pair{Module: m})
	}
	SortPairs(pairs)
	for i, p := range pairs {
		if p.Module != want[i] {
			t.Errorf("place %d: %s, want %s", i, p.Module, want[i])
		}
	}
}

func TestScaled(t *testing.T) {
	a := random(5, "m.a")
	b := a.Scaled(0.5)
	if a.Pairs[0].Scale != 2 || b.Pairs[0].Scale != 1 || b.Config.Alpha != 4 {
		t.Errorf("scales %v and %v, alpha %v", a.Pairs[0].Scale, b.Pairs[0].Scale, b.Config.Alpha)
	}
}
