package adapters

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/testfile"
	"github.com/graftml/graft/safetensors"
)

const goldenCombine = golden + "/combine"

func openGolden(t *testing.T, name string) *Adapter {
	t.Helper()
	a, err := Open(filepath.Join(goldenCombine, name))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustCombine(t *testing.T, o CombineOptions, list ...Weighted) (*Adapter, *CombineReport) {
	t.Helper()
	a, r, err := Combine(list, o)
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

// TestCombineGolden compares every method with PEFT's add_weighted_adapter, on modules that both
// adapters change, that one does, and on an embedding table.
func TestCombineGolden(t *testing.T) {
	var cases []struct {
		Name, Method, Majority string
		Weights                []float64
		Density                float64
		Rank                   int
	}
	testfile.ReadJSON(t, filepath.Join(goldenCombine, "cases.json"), &cases)
	seen := map[string]bool{}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			seen[c.Method] = true
			got, report := mustCombine(t, CombineOptions{Method: c.Method, Density: c.Density, MajoritySign: c.Majority, Rank: c.Rank, Seed: 11},
				Weighted{openGolden(t, "one"), c.Weights[0]}, Weighted{openGolden(t, "two"), c.Weights[1]})
			f, err := safetensors.Open(filepath.Join(goldenCombine, c.Name+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if len(f.Tensors()) != 2*len(got.Pairs) {
				t.Fatalf("%d modules, want %d", len(got.Pairs), len(f.Tensors())/2)
			}
			for i := range got.Pairs {
				p := &got.Pairs[i]
				tensor := func(name string) ([]float32, []int) {
					info, ok := f.Tensor(p.Module + name)
					if !ok {
						t.Fatalf("PEFT does not change %q", p.Module)
					}
					x, err := floats(f, info)
					if err != nil {
						t.Fatal(err)
					}
					return x, info.Shape
				}
				a, shape := tensor(".A")
				b, _ := tensor(".B")
				want := product(b, a, p.Out, p.In, shape[0])
				limit := 2e-6
				if strings.Contains(c.Method, "svd") {
					limit = 1e-5 // torch's decomposition is of float32
				}
				if far := apart(delta(p), want); far > limit {
					t.Errorf("%s: %g apart", p.Module, far)
				}
				if strings.Contains(c.Method, "svd") || p.Scale != 1 {
					continue // directions of singular vectors are free; a lone pair keeps its scale
				}
				if far := math.Max(largest(p.A, a), largest(p.B, b)); len(a) == len(p.A) && far > 1e-6 {
					t.Errorf("%s: factors differ by %g", p.Module, far)
				}
			}
			if c.Rank > 0 {
				for _, m := range report.Modules {
					if m.Rank != c.Rank || m.Residual < 0.01 {
						t.Errorf("%s: rank %d, residual %g", m.Module, m.Rank, m.Residual)
					}
				}
			}
		})
	}
	for _, m := range Methods() {
		if !seen[m] {
			t.Errorf("no golden for %s", m)
		}
	}
}

// largest is the largest difference of two tensors.
func largest(x, y []float32) float64 {
	d := 0.0
	for i := range x {
		d = math.Max(d, math.Abs(float64(x[i]-y[i])))
	}
	return d
}

// sumOf is Σ wᵢ·sᵢ·Bᵢ·Aᵢ of a module, by the definition.
func sumOf(module string, list ...Weighted) []float64 {
	var sum []float64
	for _, w := range list {
		p := w.Adapter.Pair(module)
		if p == nil {
			continue
		}
		d := delta(p)
		if sum == nil {
			sum = make([]float64, len(d))
		}
		for i, v := range d {
			sum[i] += w.Weight * v
		}
	}
	return sum
}

// TestCombineWherePEFTIsWrong takes the adapters that PEFT's add_weighted_adapter adds up wrongly, as
// wrong.json says, and compares with the sum of the changes.
func TestCombineWherePEFTIsWrong(t *testing.T) {
	var wrong map[string]any
	testfile.ReadJSON(t, filepath.Join(goldenCombine, "wrong.json"), &wrong)
	checked := 0
	peft := func(name string) {
		t.Helper()
		checked++
		switch v := wrong[name].(type) {
		case float64:
			if v < 0.1 {
				t.Errorf("%s: PEFT is right within %g now; it is no case for this test", name, v)
			}
		case nil:
			t.Errorf("%s: no case in wrong.json", name)
		}
	}
	three := openGolden(t, "three")
	for _, name := range []string{"rslora", "first_layer", "lora_bias", "head", "tokens"} {
		peft(name + "+three cat")
		first := openGolden(t, name)
		list := []Weighted{{first, 1}, {three, 1}}
		for _, method := range []string{"cat", "svd"} {
			got, _ := mustCombine(t, CombineOptions{Method: method, Rank: map[string]int{"svd": 8}[method]}, list...)
			dir := t.TempDir() // as another program would load it
			if err := WritePEFT(dir, got); err != nil {
				t.Fatal(err)
			}
			got, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Pairs) != 4 {
				t.Errorf("%s %s: %d pairs, want 4", name, method, len(got.Pairs))
			}
			for i := range got.Pairs {
				p := &got.Pairs[i]
				if far := apart(delta(p), sumOf(p.Module, list...)); far > 2e-6 {
					t.Errorf("%s %s: %s is %g from the sum", name, method, p.Module, far)
				}
				want := make([]float64, p.Out)
				for _, w := range list {
					if q := w.Adapter.Pair(p.Module); q != nil && q.Bias != nil {
						for j, v := range q.Bias {
							want[j] += w.Weight * q.Scale * float64(v)
						}
					}
				}
				for j, v := range want {
					has := 0.0
					if p.Bias != nil {
						has = p.Scale * float64(p.Bias[j])
					}
					if math.Abs(has-v) > 1e-5 {
						t.Fatalf("%s %s: %s adds %g to feature %d, want %g", name, method, p.Module, has, j, v)
					}
				}
			}
			if len(first.Whole) > 0 && (len(got.Whole) != len(first.Whole) || !slices.Equal(got.Whole[0].Data, first.Whole[0].Data)) {
				t.Errorf("%s: the trained module is lost", name)
			}
			if len(first.Rows) > 0 && (len(got.Rows) != 1 || !slices.Equal(got.Rows[0].Data, first.Rows[0].Data)) {
				t.Errorf("%s: the trained rows are lost", name)
			}
		}
	}

	peft("patterns+three linear")
	patterns := openGolden(t, "patterns")
	list := []Weighted{{patterns, 0.5}, {three, 2}}
	got, _ := mustCombine(t, CombineOptions{Method: "linear"}, list...)
	for i := range got.Pairs {
		p := &got.Pairs[i]
		var both int
		sum := [2][]float64{make([]float64, p.R*p.In), make([]float64, p.Out*p.R)}
		for _, w := range list {
			q := w.Adapter.Pair(p.Module)
			if q == nil {
				continue
			}
			both++
			root := math.Sqrt(w.Weight * q.Scale)
			for k := range q.R {
				for j := range q.In {
					sum[0][k*q.In+j] += root * float64(q.A[k*q.In+j])
				}
				for o := range q.Out {
					sum[1][o*p.R+k] += root * float64(q.B[o*q.R+k])
				}
			}
		}
		want := make([]float64, p.Out*p.In)
		for o := range p.Out {
			for k := range p.R {
				for j := range p.In {
					want[o*p.In+j] += sum[1][o*p.R+k] * sum[0][k*p.In+j]
				}
			}
		}
		if far := apart(delta(p), want); far > 2e-6 {
			t.Errorf("patterns: %s, which %d adapters change, is %g apart", p.Module, both, far)
		}
	}
	peft("patterns linear")
	alone, _ := mustCombine(t, CombineOptions{Method: "linear"}, Weighted{patterns, 1})
	if !sameValues(alone, patterns) {
		t.Error("patterns: alone it is not itself")
	}

	peft("dora+three cat")
	dora := openGolden(t, "dora")
	if _, _, err := Combine([]Weighted{{dora, 1}, {three, 1}}, CombineOptions{Method: "cat"}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "graft adapter extract") {
		t.Errorf("DoRA on a module of both: error %v", err)
	}
	apartFromIt := &Adapter{Name: "apart", Pairs: []Pair{*three.Pair("model.layers.0.self_attn.q_proj")}}
	kept, _ := mustCombine(t, CombineOptions{Method: "cat"}, Weighted{dora, 1}, Weighted{apartFromIt, 1})
	for i := range dora.Pairs {
		p, q := &dora.Pairs[i], kept.Pair(dora.Pairs[i].Module)
		if q.Scale != p.Scale || !slices.Equal(q.Magnitude, p.Magnitude) || !slices.Equal(q.B, p.B) {
			t.Errorf("DoRA on %s, which no other changes, is not kept", p.Module)
		}
	}

	if wrong["rank 1 of three svd"] != 4.0 {
		t.Errorf("PEFT cuts a single adapter to %v", wrong["rank 1 of three svd"])
	}
	checked++
	cut, report := mustCombine(t, CombineOptions{Rank: 1}, Weighted{three, 1})
	for i := range cut.Pairs {
		if cut.Pairs[i].R != 1 || report.Modules[i].Residual < 0.1 {
			t.Errorf("a single adapter has rank %d, residual %g", cut.Pairs[i].R, report.Modules[i].Residual)
		}
	}
	if checked != len(wrong) {
		t.Errorf("%d cases of %d in wrong.json are checked", checked, len(wrong))
	}
}

// sparse reports whether a method takes a density.
func sparse(method string) bool { return method != "svd" && method != "cat" && method != "linear" }

// TestCombineLaws: one adapter with weight 1 is itself, at density 1 and full rank, and a weight of a
// weighted one is the product of weights.
func TestCombineLaws(t *testing.T) {
	for _, name := range []string{"one", "patterns", "rslora", "lora_bias", "dora", "head", "tokens"} {
		a := openGolden(t, name)
		for _, method := range Methods() {
			o := CombineOptions{Method: method}
			if sparse(method) {
				o.Density = 1
			}
			one, _ := mustCombine(t, o, Weighted{a, 1})
			if !sameValues(one, a) {
				t.Errorf("%s %s: one adapter with weight 1 is not itself", name, method)
			}
			if d := one.Config; d.R != a.Config.R || d.Alpha != a.Config.Alpha || d.RSLoRA != a.Config.RSLoRA {
				t.Errorf("%s %s: configuration %+v", name, method, d)
			}
			if len(a.Whole)+len(a.Rows) > 0 {
				continue
			}
			half, _ := mustCombine(t, o, Weighted{a, 0.5})
			twice, _ := mustCombine(t, o, Weighted{half, -3})
			at, _ := mustCombine(t, o, Weighted{a, -1.5})
			for i := range at.Pairs {
				if far := apart(delta(&twice.Pairs[i]), delta(&at.Pairs[i])); far > 1e-6 {
					t.Errorf("%s %s: %s is %g from the product of weights", name, method, at.Pairs[i].Module, far)
				}
			}
		}
	}
}

// TestCombineLawsPruned: a weight of what is pruned is that of the whole, for methods whose pruning looks
// at no other adapter.
func TestCombineLawsPruned(t *testing.T) {
	a := openGolden(t, "one")
	for _, method := range Methods() {
		if !sparse(method) {
			continue
		}
		o := CombineOptions{Method: method, Density: 0.5}
		whole, _ := mustCombine(t, o, Weighted{a, 1})
		less, _ := mustCombine(t, o, Weighted{a, -0.25})
		for i := range whole.Pairs {
			if far := apart(delta(&less.Pairs[i]), delta(whole.Scaled(-0.25).Pair(less.Pairs[i].Module))); far > 1e-5 {
				t.Errorf("%s: %s is %g apart", method, less.Pairs[i].Module, far)
			}
			if apart(delta(&whole.Pairs[i]), delta(&a.Pairs[i])) < 0.05 {
				t.Errorf("%s: nothing is pruned", method)
			}
		}
	}
}

// TestCombineOrder: the order of adapters does not matter to what the combination does.
func TestCombineOrder(t *testing.T) {
	list := []Weighted{{openGolden(t, "rslora"), 0.5}, {openGolden(t, "patterns"), -1}, {openGolden(t, "one"), 0.25}}
	for _, method := range Methods() {
		o := CombineOptions{Method: method}
		if sparse(method) {
			o.Density = 0.7
		}
		first, _ := mustCombine(t, o, list...)
		for _, order := range [][3]int{{2, 1, 0}, {1, 2, 0}} {
			again, _ := mustCombine(t, o, list[order[0]], list[order[1]], list[order[2]])
			for i := range first.Pairs {
				p, q := &first.Pairs[i], &again.Pairs[i]
				if far := apart(delta(q), delta(p)); p.Module != q.Module || far > 1e-5 {
					t.Errorf("%s %v: %s is %g apart", method, order, p.Module, far)
				}
			}
		}
	}
}

// TestCombineSeed: DARE keeps the same values for the same seed, others for another, and about as many
// as the density says.
func TestCombineSeed(t *testing.T) {
	list := []Weighted{{openGolden(t, "one"), 1}, {openGolden(t, "two"), 1}}
	for _, method := range []string{"dare_linear", "dare_ties_svd"} {
		make := func(seed uint64) *Adapter {
			a, _ := mustCombine(t, CombineOptions{Method: method, Density: 0.5, Seed: seed}, list...)
			return a
		}
		a := make(1)
		if !sameValues(a, make(1)) || sameValues(a, make(2)) {
			t.Errorf("%s: the seed does not decide what is kept", method)
		}
	}
	x := slices.Repeat([]float32{1}, 1<<16)
	pruneRandom(x, 0.3, 5)
	n := 0
	for _, v := range x {
		if v != 0 {
			n++
		}
	}
	if math.Abs(float64(n)/(1<<16)-0.3) > 0.01 {
		t.Errorf("%d of %d values are kept at density 0.3", n, len(x))
	}
}

func TestCombineWhole(t *testing.T) {
	tensor := func(name string, v ...float32) *Adapter {
		return &Adapter{Name: name, Whole: []Tensor{{Name: "norm.weight", Shape: []int{len(v)}, Data: v}},
			Rows: []TokenRows{{Module: "embed", Indices: []int{int(v[0]), 9}, Width: 1, Data: []float32{v[0], v[1]}}}}
	}
	one, two := tensor("one", 1, 2), tensor("two", 5, 10)
	two.Rows[0].Indices[0] = 1
	got, _ := mustCombine(t, CombineOptions{Method: "cat"}, Weighted{one, 0.75}, Weighted{two, 0.25})
	if !slices.Equal(got.Whole[0].Data, []float32{2, 4}) || !slices.Equal(got.Rows[0].Data, []float32{2, 4}) || !slices.Equal(got.Rows[0].Indices, []int{1, 9}) {
		t.Errorf("got %v and %v", got.Whole, got.Rows)
	}
	if _, _, err := Combine([]Weighted{{one, 1}, {two, 1}}, CombineOptions{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), `norm.weight is replaced as a whole by "one", and the weights of those that replace it sum to 2`) {
		t.Errorf("weights that sum to 2: error %v", err)
	}
	base := func(name string, lo, hi int, dst []float32) error { // row or value i of any parameter is i
		for i := range dst {
			dst[i] = float32(lo + i)
		}
		return nil
	}
	got, _ = mustCombine(t, CombineOptions{Method: "cat", Base: base}, Weighted{one, 1}, Weighted{two, 0.5})
	// Σ wᵢ·xᵢ − x₀/2, but for row 1, which one and two have with 1 and 5: 1 + 2.5 − 0.5.
	if !slices.Equal(got.Whole[0].Data, []float32{3.5, 6.5}) || !slices.Equal(got.Rows[0].Data, []float32{3, 2.5}) {
		t.Errorf("with the base: %v and %v", got.Whole, got.Rows)
	}
	pair := random(1, "embed")
	if _, _, err := Combine([]Weighted{{one, 1}, {pair, 1}}, CombineOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("rows and a pair: error %v", err)
	}
}

func TestCombineErrors(t *testing.T) {
	a, b := random(1, "m.a", "m.b"), random(2, "m.a", "m.b")
	other := random(3, "m.x", "m.a") // m.a has another shape
	copied := *a
	copied.Pairs = slices.Clone(a.Pairs)
	broken := random(4, "m.a")
	broken.Pairs[0].A = broken.Pairs[0].A[1:]
	double := &Adapter{Name: "double", Pairs: slices.Concat(b.Pairs, b.Pairs)}
	nan := random(5, "m.a")
	nan.Pairs[0].A[3] = float32(math.NaN())
	for _, c := range []struct {
		name string
		list []Weighted
		o    CombineOptions
		want string
	}{
		{"no adapters", nil, CombineOptions{}, "there are no adapters"},
		{"empty", []Weighted{{&Adapter{Name: "e"}, 1}}, CombineOptions{}, `"e" changes nothing`},
		{"NaN weight", []Weighted{{a, math.NaN()}}, CombineOptions{}, `the weight of "random" is NaN`},
		{"infinite weight", []Weighted{{a, math.Inf(-1)}}, CombineOptions{}, "is -Inf"},
		{"twice", []Weighted{{a, 1}, {a, 1}}, CombineOptions{}, "are the same adapter; name it once"},
		{"a copy", []Weighted{{a, 1}, {b, 1}, {&copied, 1}}, CombineOptions{}, "are the same adapter"},
		{"other base", []Weighted{{a, 1}, {other, 1}}, CombineOptions{}, "they are of different bases"},
		{"broken", []Weighted{{broken, 1}}, CombineOptions{}, "holds 23 and 20 values"},
		{"two pairs", []Weighted{{double, 1}}, CombineOptions{}, "two pairs for"},
		{"unknown method", []Weighted{{a, 1}}, CombineOptions{Method: "slerp"}, `there is no method "slerp"`},
		{"no density", []Weighted{{a, 1}}, CombineOptions{Method: "ties"}, "density is 0"},
		{"density above 1", []Weighted{{a, 1}}, CombineOptions{Method: "ties", Density: 1.5}, "density is 1.5"},
		{"NaN density", []Weighted{{a, 1}}, CombineOptions{Method: "dare_ties", Density: math.NaN()}, "density is NaN"},
		{"density of cat", []Weighted{{a, 1}}, CombineOptions{Method: "cat", Density: 0.5}, "cat prunes nothing"},
		{"rank of linear", []Weighted{{a, 1}}, CombineOptions{Method: "linear", Rank: 4}, "linear has no rank"},
		{"negative rank", []Weighted{{a, 1}}, CombineOptions{Rank: -1}, "rank is -1"},
		{"rank too high", []Weighted{{a, 1}, {b, 1}}, CombineOptions{Rank: 99}, "rank 99 is above 7"},
		{"majority", []Weighted{{a, 1}}, CombineOptions{Method: "ties", Density: 1, MajoritySign: "most"}, `majority sign method "most"`},
		{"no vote", []Weighted{{a, 1}}, CombineOptions{Method: "svd", MajoritySign: "total"}, "has no vote"},
		{"NaN values", []Weighted{{nan, 1}, {b, 1}}, CombineOptions{}, "do not converge"},
	} {
		got, _, err := Combine(c.list, c.o)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// TestCombineRandom: cat is the sum for adapters of any ranks, scales and sets of modules, and svd of full
// rank is too, the order aside.
func TestCombineRandom(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 77))
		shapes := map[string][2]int{}
		var list []Weighted
		for n := range 1 + rng.IntN(4) {
			a := &Adapter{Name: string(rune('a' + n))}
			for m := range 4 {
				module := fmt.Sprint("m.", m)
				if _, ok := shapes[module]; !ok {
					shapes[module] = [2]int{1 + rng.IntN(20), 1 + rng.IntN(20)}
				}
				if s, r := shapes[module], 1+rng.IntN(6); m == n || rng.IntN(2) == 0 {
					a.Pairs = append(a.Pairs, Pair{Module: module, Table: m == 3, Out: s[0], In: s[1], R: r, Scale: rng.NormFloat64(),
						A: gaussian(rng, r*s[1], 1), B: gaussian(rng, s[0]*r, 1)})
				}
			}
			list = append(list, Weighted{a, rng.NormFloat64()})
		}
		turned := slices.Clone(list)
		slices.Reverse(turned)
		for _, method := range []string{"cat", "svd"} {
			o := CombineOptions{Method: method}
			for m := range shapes {
				rank := 0
				for _, w := range list {
					if p := w.Adapter.Pair(m); p != nil {
						rank += p.R
					}
				}
				if rank = min(rank, shapes[m][0], shapes[m][1]); method == "svd" {
					o.Rank = max(o.Rank, rank) // the highest that is allowed is enough for every module
				}
			}
			got, _ := mustCombine(t, o, list...)
			again, _ := mustCombine(t, o, turned...)
			for i := range got.Pairs {
				p := &got.Pairs[i]
				want := sumOf(p.Module, list...)
				if far := apart(delta(p), want); far > 1e-4 {
					t.Errorf("seed %d, %s: %s is %g from the sum", seed, method, p.Module, far)
				}
				if far := apart(delta(&again.Pairs[i]), want); far > 1e-4 || again.Pairs[i].Table != p.Table {
					t.Errorf("seed %d, %s: %s is %g from the sum in another order", seed, method, p.Module, far)
				}
			}
		}
	}
}
