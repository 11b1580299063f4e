package adapters

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// tiny is a base with a table, a head of its own or tied, and one product with a bias.
type tiny struct {
	params map[string][]float32
	shapes map[string][]int
	tied   bool
}

func newTiny(tied bool) *tiny {
	rng := rand.New(rand.NewPCG(5, 6))
	b := &tiny{params: map[string][]float32{}, shapes: map[string][]int{
		"embed_tokens.weight": {11, 6}, "lm_head.weight": {11, 6}, "q.weight": {8, 6}, "q.bias": {8}, "norm.weight": {6},
	}, tied: tied}
	for _, name := range []string{"embed_tokens.weight", "lm_head.weight", "q.weight", "q.bias", "norm.weight"} {
		n := 1
		for _, d := range b.shapes[name] {
			n *= d
		}
		for range n {
			b.params[name] = append(b.params[name], float32(rng.NormFloat64()))
		}
	}
	if tied {
		b.params["lm_head.weight"] = b.params["embed_tokens.weight"]
	}
	return b
}

func (b *tiny) base() Base {
	return Base{Table: "embed_tokens", Head: "lm_head", Tied: b.tied,
		Linear: func(module string) (out, in int, ok bool) {
			s, ok := b.shapes[module+".weight"]
			if !ok || len(s) != 2 {
				return 0, 0, false
			}
			if module == "embed_tokens" {
				return s[1], s[0], true
			}
			return s[0], s[1], true
		},
		Shape: func(name string) ([]int, bool) { s, ok := b.shapes[name]; return s, ok },
	}
}

func (b *tiny) rows(name string, lo, hi int, dst []float32) error {
	cols := len(b.params[name]) / b.shapes[name][0]
	copy(dst, b.params[name][lo*cols:hi*cols])
	return nil
}

// pair makes a random pair of a module of the base.
func (b *tiny) pair(seed uint64, module string, r int, dora bool) Pair {
	rng := rand.New(rand.NewPCG(seed, 7))
	out, in, _ := b.base().Linear(module)
	p := Pair{Module: module, Table: module == "embed_tokens", R: r, In: in, Out: out, Scale: 0.5 + rng.Float64()}
	values := func(n int) (x []float32) {
		for range n {
			x = append(x, float32(rng.NormFloat64()))
		}
		return x
	}
	p.A, p.B = values(r*in), values(out*r)
	if dora {
		p.Magnitude = values(out)
	}
	return p
}

// dense is what a list of pairs on one module makes of its weight, straight from the definition.
func (b *tiny) dense(module string, pairs []Pair) []float64 {
	out, in, _ := b.base().Linear(module)
	w := b.params[module+".weight"]
	at := func(o, i int) float64 {
		if module == "embed_tokens" {
			return float64(w[i*out+o])
		}
		return float64(w[o*in+i])
	}
	sum := make([]float64, out*in)
	for o := range out {
		for i := range in {
			sum[o*in+i] = at(o, i)
		}
	}
	for _, p := range pairs {
		for o := range out {
			row, squares := make([]float64, in), 0.0
			for i := range in {
				delta := 0.0
				for k := range p.R {
					delta += float64(p.B[o*p.R+k]) * float64(p.A[k*in+i])
				}
				row[i] = at(o, i) + p.Scale*delta
				squares += row[i] * row[i]
			}
			g := 1.0
			if p.Magnitude != nil {
				g = float64(p.Magnitude[o]) / math.Sqrt(squares)
			}
			for i := range in {
				sum[o*in+i] += g*row[i] - at(o, i)
			}
		}
	}
	if module != "embed_tokens" {
		return sum
	}
	stored := make([]float64, len(sum))
	for o := range out {
		for i := range in {
			stored[i*out+o] = sum[o*in+i]
		}
	}
	return stored
}

// apply runs a change over a parameter in pieces of some rows.
func (b *tiny) apply(c *Change, name string, step int) []float32 {
	out := slices.Clone(b.params[name])
	rows := b.shapes[name][0]
	cols := len(out) / rows
	for lo := 0; lo < rows; lo += step {
		hi := min(lo+step, rows)
		c.Apply(name, lo, hi, out[lo*cols:hi*cols])
	}
	return out
}

func TestChange(t *testing.T) {
	b := newTiny(false)
	for _, module := range []string{"q", "embed_tokens", "lm_head"} {
		for name, pairs := range map[string][]Pair{
			"plain":      {b.pair(1, module, 3, false)},
			"dora":       {b.pair(2, module, 3, true)},
			"plain+dora": {b.pair(1, module, 3, false), b.pair(2, module, 2, true)},
			"dora+dora":  {b.pair(2, module, 2, true), b.pair(3, module, 4, true), b.pair(4, module, 1, false)},
		} {
			var list []*Adapter
			for _, p := range pairs {
				list = append(list, &Adapter{Name: name, Pairs: []Pair{p}})
			}
			c, err := NewChange(b.base(), b.rows, list...)
			if err != nil {
				t.Fatal(err)
			}
			want, weight := b.dense(module, pairs), module+".weight"
			got := b.apply(c, weight, 100)
			for i := range want {
				if math.Abs(float64(got[i])-want[i]) > 2e-5*(1+math.Abs(want[i])) {
					t.Fatalf("%s %s: value %d is %v, want %v", module, name, i, got[i], want[i])
				}
			}
			for _, step := range []int{1, 3} {
				if !slices.Equal(b.apply(c, weight, step), got) {
					t.Errorf("%s %s: in pieces of %d rows the change is another", module, name, step)
				}
			}
			slices.Reverse(list)
			if c, err = NewChange(b.base(), b.rows, list...); err != nil {
				t.Fatal(err)
			}
			for i, v := range b.apply(c, weight, 100) {
				if math.Abs(float64(v-got[i])) > 1e-5*(1+math.Abs(float64(v))) {
					t.Fatalf("%s %s: in another order value %d is %v, not %v", module, name, i, v, got[i])
				}
			}
			if got := c.Names(); !slices.Equal(got, []string{weight}) || c.Unties() {
				t.Errorf("%s %s: it changes %q, unties %v", module, name, got, c.Unties())
			}
		}
	}
}

func TestChangeReplaces(t *testing.T) {
	b := newTiny(false)
	norm := Tensor{"norm.weight", []int{6}, []float32{1, 2, 3, 4, 5, 6}}
	bias := b.pair(8, "q", 2, false)
	bias.Bias = []float32{1, 2, 3, 4, 5, 6, 7, 8}
	rows := TokenRows{Module: "lm_head", Indices: []int{10, 0}, Width: 6, Data: make([]float32, 12)}
	c, err := NewChange(b.base(), b.rows, &Adapter{Pairs: []Pair{bias}, Whole: []Tensor{norm}, Rows: []TokenRows{rows}})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.apply(c, "norm.weight", 4); !slices.Equal(got, norm.Data) {
		t.Errorf("the norm is %v", got)
	}
	for i, v := range b.apply(c, "q.bias", 3) {
		if want := b.params["q.bias"][i] + float32(bias.Scale)*bias.Bias[i]; v != want {
			t.Errorf("bias %d is %v, want %v", i, v, want)
		}
	}
	got := b.apply(c, "lm_head.weight", 4)
	for row := range 11 {
		want := b.params["lm_head.weight"][row*6 : row*6+6]
		if row == 10 || row == 0 {
			want = make([]float32, 6)
		}
		if !slices.Equal(got[row*6:row*6+6], want) {
			t.Errorf("row %d of the head is %v", row, got[row*6:row*6+6])
		}
	}
	if c.Changes("embed_tokens.weight") {
		t.Error("more is changed than the adapter says")
	}
}

// Of a tied base the head and the table part where only one of them changes, or both do differently.
func TestChangeUnties(t *testing.T) {
	b := newTiny(true)
	rows := TokenRows{Module: "embed_tokens", Indices: []int{3}, Width: 6, Data: []float32{1, 2, 3, 4, 5, 6}}
	headRows := rows
	headRows.Module = "lm_head"
	headRows.Data = []float32{6, 5, 4, 3, 2, 1}
	whole := Tensor{"embed_tokens.weight", []int{11, 6}, make([]float32, 66)}
	for name, c := range map[string]struct {
		a      Adapter
		names  []string
		unties bool
	}{
		"table":        {Adapter{Pairs: []Pair{b.pair(1, "embed_tokens", 2, false)}}, []string{"embed_tokens.weight"}, true},
		"head":         {Adapter{Pairs: []Pair{b.pair(1, "lm_head", 2, false)}}, []string{"lm_head.weight"}, true},
		"tied table":   {Adapter{Config: Config{TieWeights: true}, Pairs: []Pair{b.pair(1, "embed_tokens", 2, false)}}, []string{"embed_tokens.weight", "lm_head.weight"}, true},
		"product":      {Adapter{Pairs: []Pair{b.pair(1, "q", 2, false)}}, []string{"q.weight"}, false},
		"rows":         {Adapter{Rows: []TokenRows{rows}}, []string{"embed_tokens.weight", "lm_head.weight"}, false},
		"rows of both": {Adapter{Rows: []TokenRows{rows, headRows}}, []string{"embed_tokens.weight", "lm_head.weight"}, true},
		"whole":        {Adapter{Whole: []Tensor{whole}}, []string{"embed_tokens.weight"}, true},
		"tied whole":   {Adapter{Config: Config{TieWeights: true}, Whole: []Tensor{whole}}, []string{"embed_tokens.weight", "lm_head.weight"}, false},
	} {
		got, err := NewChange(b.base(), b.rows, &c.a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(got.Names(), c.names) || got.Unties() != c.unties {
			t.Errorf("%s: it changes %q and unties: %v; want %q, %v", name, got.Names(), got.Unties(), c.names, c.unties)
		}
		if name == "tied table" && !slices.Equal(b.apply(got, "embed_tokens.weight", 4), b.apply(got, "lm_head.weight", 4)) {
			t.Error("the head and the table differ with ensure_weight_tying")
		}
	}
}

func TestChangeRefused(t *testing.T) {
	b := newTiny(false)
	other := b.pair(1, "q", 2, false)
	other.Module = "k"
	wide := b.pair(1, "q", 2, false)
	wide.In, wide.A = 3, wide.A[:6]
	biased := b.pair(1, "lm_head", 2, false)
	biased.Bias = make([]float32, 11)
	one := Adapter{Name: "one", Whole: []Tensor{{"norm.weight", []int{6}, make([]float32, 6)}}}
	two := Adapter{Name: "two", Whole: []Tensor{{"norm.weight", []int{6}, []float32{1, 1, 1, 1, 1, 1}}}}
	rows := func(name string, value float32) *Adapter {
		return &Adapter{Name: name, Rows: []TokenRows{{"embed_tokens", []int{4}, 6, []float32{value, 0, 0, 0, 0, 0}}}}
	}
	for want, list := range map[string][]*Adapter{
		"it changes nothing":           {{}},
		`"k"`:                          {{Pairs: []Pair{other}}},
		"(8, 6), not (8, 3)":           {{Pairs: []Pair{wide}}},
		"no bias there":                {{Pairs: []Pair{biased}}},
		"both replace \"norm.weight\"": {&one, &two},
		"both replace row 4":           {rows("a", 1), rows("b", 2)},
		"row 11 of":                    {{Rows: []TokenRows{{"embed_tokens", []int{11}, 6, make([]float32, 6)}}}},
		"named twice":                  {{Rows: []TokenRows{{"embed_tokens", []int{1, 1}, 6, make([]float32, 12)}}}},
		`replaces "absent.weight"`:     {{Whole: []Tensor{{"absent.weight", []int{1}, []float32{1}}}}},
		"of shape [5]":                 {{Whole: []Tensor{{"norm.weight", []int{5}, make([]float32, 5)}}}},
	} {
		_, err := NewChange(b.base(), b.rows, list...)
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrFormat) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := NewChange(b.base(), b.rows, rows("a", 1), rows("b", 1)); err != nil {
		t.Errorf("two that replace a row by the same: %v", err)
	}
}
