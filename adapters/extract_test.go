package adapters

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// twoModels is a base and what an adapter makes of it, in memory.
type twoModels struct {
	shapes      map[string][]int
	base, tuned map[string][]float32
}

func newTwoModels(seed uint64) *twoModels {
	rng := rand.New(rand.NewPCG(seed, 2))
	m := &twoModels{map[string][]int{"embed.weight": {30, 8}, "m.0.q.weight": {70, 80}, "m.0.q.bias": {70}, "m.1.q.weight": {90, 70}, "m.2.q.weight": {6, 9}, "norm.weight": {8}},
		map[string][]float32{}, map[string][]float32{}}
	for _, name := range sortedKeys(m.shapes) {
		n := 1
		for _, d := range m.shapes[name] {
			n *= d
		}
		m.base[name] = gaussian(rng, n, 0.1)
		m.tuned[name] = slices.Clone(m.base[name])
	}
	return m
}

func (m *twoModels) Base() Base {
	return Base{Table: "embed", Head: "lm_head", Tied: true,
		Shape: func(name string) ([]int, bool) { s, ok := m.shapes[name]; return s, ok },
		Linear: func(module string) (out, in int, ok bool) {
			s, ok := m.shapes[module+".weight"]
			return s[0], s[len(s)-1], ok && len(s) == 2
		}}
}

func rowsOf(values map[string][]float32, shapes map[string][]int) ReadRows {
	return func(name string, lo, hi int, dst []float32) error {
		cols := len(values[name]) / shapes[name][0]
		copy(dst, values[name][lo*cols:hi*cols])
		return nil
	}
}

func (m *twoModels) extract(o ExtractOptions) (*Adapter, *ExtractReport, error) {
	return Extract(context.Background(), m.Base(), sortedKeys(m.shapes), rowsOf(m.base, m.shapes), rowsOf(m.tuned, m.shapes), o)
}

// apply is a tuned model with an adapter, as the difference from what it should be.
func (m *twoModels) apart(t *testing.T, a *Adapter) float64 {
	t.Helper()
	change, err := NewChange(m.Base(), rowsOf(m.base, m.shapes), a)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for name, base := range m.base {
		got := slices.Clone(base)
		change.Apply(name, 0, m.shapes[name][0], got)
		worst = math.Max(worst, largest(got, m.tuned[name]))
	}
	return worst
}

// TestExtract: merging what was extracted from a merged adapter gives the merged weights again.
func TestExtract(t *testing.T) {
	for seed := range uint64(20) {
		extractedAgain(t, seed)
	}
}

func extractedAgain(t *testing.T, seed uint64) {
	m := newTwoModels(seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	needed := map[string]int{"m.0.q.weight": 3, "m.1.q.weight": 5, "m.2.q.weight": 2}
	for _, name := range sortedKeys(needed) {
		s, r := m.shapes[name], needed[name]
		for i, v := range product(gaussian(rng, s[0]*r, 0.1), gaussian(rng, r*s[1], 0.3), s[0], s[1], r) {
			m.tuned[name][i] += float32(v)
		}
	}
	a, report, err := m.extract(ExtractOptions{Rank: 5})
	if err != nil {
		t.Fatal(err)
	}
	if report.Equal != 3 || len(report.Modules) != 3 || len(report.Left) > 0 {
		t.Fatalf("report %+v", report)
	}
	if d := m.apart(t, a); d > 1e-6 {
		t.Errorf("merged again it is %g apart", d)
	}
	for _, r := range report.Modules {
		if r.Residual > 1e-5 {
			t.Errorf("%s: residual %g", r.Module, r.Residual)
		}
	}
	// Every difference gets the rank it needs.
	if a, _, err = m.extract(ExtractOptions{Energy: 1 - 1e-9}); err != nil {
		t.Fatal(err)
	}
	var ranks []int
	for i := range a.Pairs {
		ranks = append(ranks, a.Pairs[i].R)
	}
	if !slices.Equal(ranks, []int{3, 5, 2}) {
		t.Errorf("ranks %v, want [3 5 2]", ranks)
	}
	dir := t.TempDir() // the ranks go into rank_pattern
	if err := WritePEFT(dir, a); err != nil {
		t.Fatal(err)
	}
	if a, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if d := m.apart(t, a); d > 1e-6 {
		t.Errorf("written and read it is %g apart", d)
	}
}

// TestExtractResidual compares the residual with the definition, and the one of energy with what was asked.
func TestExtractResidual(t *testing.T) {
	m := newTwoModels(4)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range m.tuned["m.0.q.weight"] {
		m.tuned["m.0.q.weight"][i] += float32(0.01 * rng.NormFloat64())
	}
	for _, o := range []ExtractOptions{{Rank: 7}, {Energy: 0.8}, {Energy: 0.99, Rank: 20}} {
		a, report, err := m.extract(o)
		if err != nil {
			t.Fatal(err)
		}
		p := &a.Pairs[0]
		want := make([]float64, p.Out*p.In)
		for i := range want {
			want[i] = float64(m.tuned["m.0.q.weight"][i] - m.base["m.0.q.weight"][i])
		}
		lost := apart(delta(p), want)
		if math.Abs(lost-report.Modules[0].Residual) > 1e-5 {
			t.Errorf("%+v: residual %g, it is %g", o, report.Modules[0].Residual, lost)
		}
		if o.Rank > 0 && p.R != o.Rank {
			t.Errorf("%+v: rank %d", o, p.R)
		}
		if o.Rank == 0 && (1-lost*lost < o.Energy || p.R > 40) {
			t.Errorf("%+v: rank %d keeps %g", o, p.R, 1-lost*lost)
		}
	}
}

func TestExtractWhole(t *testing.T) {
	m := newTwoModels(6)
	m.tuned["norm.weight"][3] += 1
	m.tuned["embed.weight"][5] *= 2
	m.tuned["m.0.q.bias"][0] += 0.5
	if _, _, err := m.extract(ExtractOptions{Rank: 2}); err == nil || !strings.Contains(err.Error(), `only 3 others, such as "embed.weight"`) {
		t.Errorf("without whole: error %v", err)
	}
	m.tuned["m.2.q.weight"][1] += 1
	a, report, err := m.extract(ExtractOptions{Rank: 2})
	if err != nil || len(a.Whole) > 0 || len(report.Left) != 3 || report.Left[2].Relative == 0 {
		t.Errorf("left %v, error %v", report.Left, err)
	}
	a, report, err = m.extract(ExtractOptions{Rank: 2, Whole: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Whole) != 3 || !a.Config.TieWeights {
		t.Errorf("whole %v, tied %v", report.Whole, a.Config.TieWeights)
	}
	if d := m.apart(t, a); d > 1e-6 {
		t.Errorf("merged again it is %g apart", d)
	}
}

func TestExtractErrors(t *testing.T) {
	m := newTwoModels(7)
	for want, o := range map[string]ExtractOptions{
		"the two models are the same":           {Rank: 1},
		"neither a rank nor an energy":          {},
		"rank is -1":                            {Rank: -1},
		"energy is 1.5":                         {Energy: 1.5},
		"energy is NaN":                         {Energy: math.NaN()},
		"rank 71 is above 70, the shorter side": {Rank: 71},
	} {
		if _, _, err := m.extract(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", o, err, want)
		}
	}
	m.tuned["m.1.q.weight"][70*3+4] = float32(math.NaN())
	if _, _, err := m.extract(ExtractOptions{Rank: 1}); err == nil || !strings.Contains(err.Error(), `"m.1.q.weight" holds`) || !strings.Contains(err.Error(), "at row 3, column 4") {
		t.Errorf("NaN: error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := Extract(ctx, m.Base(), sortedKeys(m.shapes), rowsOf(m.base, m.shapes), rowsOf(m.tuned, m.shapes), ExtractOptions{Rank: 1}); err == nil {
		t.Error("it does not stop")
	}
}

// TestResize: the best approximation of each rank, and itself where nothing is cut.
func TestResize(t *testing.T) {
	for _, name := range []string{"one", "rslora", "patterns", "lora_bias", "dora"} {
		a := openGolden(t, name)
		same, report, err := Resize(a, 4, 0)
		if err != nil || !sameValues(a, same) || report[0].Residual != 0 {
			t.Errorf("%s: of the same rank it is not itself; error %v", name, err)
		}
		for _, rank := range []int{1, 2, 3} {
			small, report, err := Resize(a, rank, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i := range small.Pairs {
				p, q := &small.Pairs[i], &a.Pairs[i]
				lost := apart(delta(p), delta(q))
				if math.Abs(lost-report[i].Residual) > 1e-6 || p.R != min(rank, q.R) {
					t.Errorf("%s: %s of rank %d is %g apart, residual %g", name, p.Module, p.R, lost, report[i].Residual)
				}
				if d := report[i].Values; len(d) > rank && lost > 0 && math.Abs(lost*norm(d)-norm(d[rank:])) > 1e-5 {
					t.Errorf("%s: %s loses %g, the values say %g", name, p.Module, lost*norm(d), norm(d[rank:]))
				}
				for j := range q.Bias {
					if math.Abs(p.Scale*float64(p.Bias[j])-q.Scale*float64(q.Bias[j])) > 1e-6 {
						t.Fatalf("%s: %s has another bias", name, p.Module)
					}
				}
				if !slices.Equal(p.Magnitude, q.Magnitude) {
					t.Errorf("%s: %s has other magnitudes", name, p.Module)
				}
			}
		}
	}
	a := openGolden(t, "one")
	small, report, err := Resize(a, 0, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range report {
		if kept := 1 - r.Residual*r.Residual; kept < 0.9 || r.Rank != small.Pairs[i].R {
			t.Errorf("%s: rank %d keeps %g", r.Module, r.Rank, kept)
		}
	}
	for want, c := range map[string]struct {
		rank   int
		energy float64
	}{"rank 5 is above 4": {5, 0}, "neither": {0, 0}, "energy is -1": {0, -1}, "rank is -3": {-3, 0}} {
		if _, _, err := Resize(a, c.rank, c.energy); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one with %q", c, err, want)
		}
	}
	if _, _, err := Resize(&Adapter{}, 1, 0); err == nil {
		t.Error("an adapter without pairs is resized")
	}
}

func norm(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

// TestOverlaps compares cosines and conflicts with those of the dense changes.
func TestOverlaps(t *testing.T) {
	list := []Weighted{{openGolden(t, "one"), 0.5}, {openGolden(t, "rslora"), -2}, {openGolden(t, "three"), 1}}
	_, report := mustCombine(t, CombineOptions{Method: "cat", Report: true}, list...)
	seen := map[string]bool{}
	for _, o := range report.Overlaps {
		x, y := sumOf(o.Module, list[o.First]), sumOf(o.Module, list[o.Second])
		dot, against := 0.0, 0
		for i := range x {
			dot += x[i] * y[i]
			if x[i]*y[i] < 0 {
				against++
			}
		}
		if cos := dot / norm(x) / norm(y); math.Abs(cos-o.Cosine) > 1e-5 {
			t.Errorf("%+v: the cosine is %g", o, cos)
		}
		if share := float64(against) / float64(len(x)); math.Abs(share-o.Conflicts) > 2/float64(len(x)) {
			t.Errorf("%+v: %g of the signs are opposite", o, share)
		}
		seen[fmt.Sprint(o.Module, o.First, o.Second)] = true
	}
	if len(seen) != len(report.Overlaps) || len(seen) != 8 { // two layers of q_proj in three and of up_proj in two
		t.Errorf("%d overlaps of %d are different, want 8", len(seen), len(report.Overlaps))
	}
	self, _ := mustCombine(t, CombineOptions{Method: "cat"}, list[0])
	back := self.Scaled(-3)
	back.Pairs = slices.Clone(back.Pairs)
	_, report = mustCombine(t, CombineOptions{Method: "cat", Report: true}, list[0], Weighted{back, 1})
	for _, o := range report.Overlaps {
		if math.Abs(o.Cosine+1) > 1e-5 || o.Conflicts < 0.99 {
			t.Errorf("an adapter against its opposite: %+v", o)
		}
	}
}

// TestLinearResidual measures what the products of different adapters add.
func TestLinearResidual(t *testing.T) {
	list := []Weighted{{openGolden(t, "one"), 1}, {openGolden(t, "three"), 1}}
	got, report := mustCombine(t, CombineOptions{Method: "linear", Report: true}, list...)
	for i, r := range report.Modules {
		if want := apart(delta(&got.Pairs[i]), sumOf(r.Module, list...)); math.Abs(want-r.Residual) > 1e-5*(1+want) {
			t.Errorf("%s: residual %g, it is %g", r.Module, r.Residual, want)
		}
	}
}

// TestPruneMagnitude compares with a sort.
func TestPruneMagnitude(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{1, 2, 7, 100, 5000} {
		for _, density := range []float64{1e-9, 0.1, 0.35, 0.5, 0.999, 1} {
			x := gaussian(rng, n, 1)
			for i := range x {
				if i%3 == 0 {
					x[i] = float32(math.Copysign(0.5, float64(x[i]))) // many equal ones
				}
			}
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int { return int(int64(magnitude(x[b])) - int64(magnitude(x[a]))) })
			want := make([]float32, n)
			for _, i := range order[:int(density*float64(n))] {
				want[i] = x[i]
			}
			if pruneMagnitude(x, density); !slices.Equal(x, want) {
				t.Errorf("%d values at density %v: other ones are kept than the largest", n, density)
			}
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	rng := rand.New(rand.NewPCG(9, 9))
	var list []Weighted
	for range 2 { // a layer of SmolLM2-135M
		a := &Adapter{}
		for i, s := range [][2]int{{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}} {
			a.Pairs = append(a.Pairs, Pair{Module: fmt.Sprint("m.", i), R: 16, Out: s[0], In: s[1], Scale: 1, A: gaussian(rng, 16*s[1], 1), B: gaussian(rng, s[0]*16, 1)})
		}
		list = append(list, Weighted{a, 0.5})
	}
	for _, method := range Methods() {
		b.Run(method, func(b *testing.B) {
			o := CombineOptions{Method: method}
			if sparse(method) {
				o.Density = 0.5
			}
			for b.Loop() {
				if _, _, err := Combine(list, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
