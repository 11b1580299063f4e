package train

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
)

var variantsDir = filepath.Join("..", "testdata", "golden", "train", "variants")

// variantGolden is what PEFT and transformers' Trainer make of ten steps; see variants.py.
type variantGolden struct {
	Config        json.RawMessage
	Text          string
	Length, Batch int
	Recipe        map[string]json.RawMessage
	Losses, Norms []float64
}

func readVariant(t *testing.T, name string) (g variantGolden, want map[string][]float32) {
	t.Helper()
	if err := json.Unmarshal(read(t, variantsDir, name+".json"), &g); err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(variantsDir, name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want = map[string][]float32{}
	reader := &tensorReader{File: f}
	for _, s := range f.Tensors() {
		want[s.Name] = make([]float32, s.Elements())
		if err := reader.read(s.Name, want[s.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return g, want
}

// recipe makes the recipe of a golden: its keys are Graft's, its values YAML as JSON is.
func (g *variantGolden) recipe(t *testing.T, out string) Recipe {
	r := recipeFor(t, writeModel(t, testModel(t, g.Config)), "data="+write(t, "text.txt", g.Text), "out="+out, "packing=stream")
	r.MaxLength, r.BatchSize = g.Length, g.Batch
	for _, key := range slices.Sorted(maps.Keys(g.Recipe)) {
		if err := r.Set(key + "=" + strings.Trim(string(g.Recipe[key]), `"`)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// runDrawn is Run, of which the first values of what is trained are drawn where redraw says so.
func runDrawn(t *testing.T, recipe Recipe, redraw bool) *run {
	t.Helper()
	recipe.resolve()
	if err := recipe.Validate(); err != nil {
		t.Fatal(err)
	}
	base, err := checkpoint.Open(recipe.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	r := &run{recipe: &recipe}
	if _, err := prepareAll(context.Background(), []*run{r}, base); err != nil {
		t.Fatal(err)
	}
	m, err := loadBase(&recipe, base)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.start(m); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.optimizer.params {
		name, kind := p.Name, model.KindLinear
		switch {
		case strings.HasSuffix(name, "norm.weight"):
			kind = model.KindNorm
		case strings.HasSuffix(name, "magnitude_vector"):
			name, kind = name+".norm.weight", model.KindNorm
		}
		if redraw {
			copy(p.Value, testmodel.Weights(name, kind, len(p.Value)))
		}
	}
	if _, err := r.run(context.Background(), time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

// relative is the root of the mean square of a difference, relative to that of want.
func relative(got, want []float32) float64 {
	var d, n float64
	for i, w := range want {
		d += (float64(got[i]) - float64(w)) * (float64(got[i]) - float64(w))
		n += float64(w) * float64(w)
	}
	return math.Sqrt(d / n)
}

func TestVariantsEqualPEFT(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(variantsDir, "*.safetensors"))
	if err != nil || len(files) != 11 {
		t.Fatalf("%d goldens, %v", len(files), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".safetensors")
		t.Run(name, func(t *testing.T) {
			g, want := readVariant(t, name)
			out := filepath.Join(t.TempDir(), "run")
			recipe := g.recipe(t, out)
			taken := recipe.takes()
			r := runDrawn(t, recipe, !taken)
			for i, m := range lines(t, out) {
				if d := math.Abs(*m.Loss/g.Losses[i] - 1); !(d < 1e-5) {
					t.Errorf("step %d: loss %v, want %v", i+1, *m.Loss, g.Losses[i])
				}
				if d := math.Abs(*m.GradNorm/g.Norms[i] - 1); !(d < 1e-4) {
					t.Errorf("step %d: norm %v, want %v", i+1, *m.GradNorm, g.Norms[i])
				}
			}
			a, err := adapters.ReadPEFT(out)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]float32{}
			if taken {
				for i := range a.Pairs {
					p := &a.Pairs[i]
					if p.R != 2*recipe.R {
						t.Errorf("%s has rank %d", p.Module, p.R)
					}
					got["base_model.model."+p.Module] = product(p)
				}
			} else {
				for _, p := range r.optimizer.params {
					got[p.Name] = p.Value
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d parameters, want %d", len(got), len(want))
			}
			worst := 0.0
			for key, w := range want {
				if len(got[key]) != len(w) {
					t.Errorf("%s: %d values, want %d", key, len(got[key]), len(w))
					continue
				}
				d := relative(got[key], w)
				if worst = max(worst, d); !(d < 1e-4) {
					t.Errorf("%s is %.2g apart", key, d)
				}
			}
			t.Logf("parameters are at most %.2g apart", worst)
			if (a.Config.BaseHash == "") || a.Config.BaseModel != recipe.Model {
				t.Errorf("its base is %q, %q", a.Config.BaseHash, a.Config.BaseModel)
			}
		})
	}
}

// product is s·B·A (Out, In).
func product(p *adapters.Pair) []float32 {
	out := make([]float32, p.Out*p.In)
	for i := range p.Out {
		for k := range p.R {
			for j := range p.In {
				out[i*p.In+j] += float32(p.Scale) * p.B[i*p.R+k] * p.A[k*p.In+j]
			}
		}
	}
	return out
}

// TestInitsEqualPEFT compares the sizes of random first values, which is all that two generators have in
// common.
func TestInitsEqualPEFT(t *testing.T) {
	var g struct {
		Config json.RawMessage
		R      int
		Found  map[string][3]float64 // init.module: mean squares of A, B and B·A
	}
	if err := json.Unmarshal(read(t, variantsDir, "inits.json"), &g); err != nil {
		t.Fatal(err)
	}
	tm := testModel(t, g.Config)
	m, err := engine.Load(tm, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range g.Found {
		init, name, _ := strings.Cut(key, ".")
		r := Recipe{R: g.R, LoraAlpha: 8, Seed: 5, TargetModules: Targets{Modules: []string{name}}, InitLoraWeights: Init(init), Bias: "none"}
		d, err := r.design(tm.Config())
		if err != nil {
			t.Fatal(err)
		}
		a, err := m.MakeAdapter(d.AdapterOptions)
		if err != nil {
			t.Fatal(err)
		}
		var sums [3]float64
		var n [3]int
		for i := range a.Pairs {
			p := &a.Pairs[i]
			for k, list := range [][]float32{p.A, p.B, product(p)} {
				n[k] += len(list)
				for _, v := range list {
					sums[k] += float64(v) * float64(v)
				}
			}
		}
		for k, what := range []string{"A", "B", "B·A"} {
			got := sums[k] / float64(n[k])
			if want[k] < 1e-14 { // zero, or what rounding leaves
				if got > 1e-14 {
					t.Errorf("%s: the mean square of %s is %v, want 0", key, what, got)
				}
			} else if r := got / want[k]; !(r > 0.85 && r < 1.18) {
				t.Errorf("%s: the mean square of %s is %v, PEFT's %v", key, what, got, want[k])
			}
		}
	}
	if len(g.Found) != 12 {
		t.Error(fmt.Sprint(len(g.Found), " ways"))
	}
}
