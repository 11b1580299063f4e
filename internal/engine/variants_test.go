package engine

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// These tests take what PEFT's LoRA trains besides pairs on products: DoRA, tables, heads, whole
// parameters, token rows.

// variants are the goldens of such adapters.
func variants(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "golden", "gradient", "variants", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens of variants: %v", err)
	}
	for i, f := range files {
		files[i] = "variants/" + strings.TrimSuffix(filepath.Base(f), ".json")
	}
	return files
}

// variant makes the adapter of a golden, filled as the script filled it.
func (g *golden) variant(t *testing.T, m *Model) *adapters.Adapter {
	t.Helper()
	a, err := m.MakeAdapter(g.Adapter)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(SessionOptions{Adapter: a})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Params() {
		name, kind := p.Name, model.KindLinear
		switch {
		case strings.HasSuffix(name, "norm.weight"):
			kind = model.KindNorm
		case strings.HasSuffix(name, "magnitude_vector"):
			name, kind = name+".norm.weight", model.KindNorm
		}
		copy(p.Value, testmodel.Weights(name, kind, len(p.Value)))
	}
	return a
}

func TestVariantsEqualPEFT(t *testing.T) {
	for _, name := range variants(t) {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			forEachImpl(t, func(t *testing.T) {
				m := g.load(t, false)
				a := g.variant(t, m)
				for _, remat := range []int{0, 9} {
					s, err := m.NewSession(SessionOptions{Adapter: a, Remat: remat})
					if err != nil {
						t.Fatal(err)
					}
					checkLossAndGradients(t, g, s)
				}
			})
		})
	}
}

func TestVariantLogitsEqualPEFT(t *testing.T) {
	for _, name := range variants(t) {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			m := g.load(t, false)
			if err := m.AddAdapter("a", g.variant(t, m)); err != nil {
				t.Fatal(err)
			}
			s := m.NewState()
			checkLogits(t, s, g, "logits.base")
			if err := s.Use(Use{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, s, g, "logits.adapter")
			nll, err := s.Score(pack(g.Sequences, all))
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for _, v := range nll {
				sum += float64(v)
			}
			if got := sum / float64(len(nll)); math.Abs(got-g.Loss) > 1e-5*g.Loss {
				t.Errorf("mean score %v, want %v", got, g.Loss)
			}
			if err := s.Use(); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, s, g, "logits.base")
		})
	}
}

// TestVariantsInBF16 holds the bounds of TestBF16NearPEFT.
func TestVariantsInBF16(t *testing.T) {
	for _, name := range variants(t) {
		g := readGolden(t, name)
		for _, half := range kernel.Halves() {
			t.Run(name+"/"+half, func(t *testing.T) {
				restore, err := kernel.SetHalf(half)
				if err != nil {
					t.Fatal(err)
				}
				defer restore()
				m := g.load(t, true)
				s, err := m.NewSession(SessionOptions{Adapter: g.variant(t, m)})
				if err != nil {
					t.Fatal(err)
				}
				nearGolden(t, g, s)
			})
		}
	}
}

func TestVariantStepAllocatesNothing(t *testing.T) {
	for _, name := range variants(t) {
		g := readGolden(t, name)
		for _, bf16 := range []bool{false, true} {
			m := g.load(t, bf16)
			s, err := m.NewSession(SessionOptions{Adapter: g.variant(t, m)})
			if err != nil {
				t.Fatal(err)
			}
			b := pack(g.Sequences, all)
			trainStep(t, s, b)
			if n := testing.AllocsPerRun(5, func() { trainStep(t, s, b) }); n > 0 {
				t.Errorf("%s, bf16 %v: %.1f allocations in a steady step", name, bf16, n)
			}
		}
	}
}
