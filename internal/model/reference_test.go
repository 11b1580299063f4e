package model_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
)

// reference is the interpreter that says what an operation means: float64, one sequence, one value at
// a time, nothing shared. Activations are rows of features, one a token.
type reference struct {
	weights *testmodel.Model
	tokens  []int32
}

type rows [][]float64

func (r *reference) weight(name string) []float32 { return r.weights.Tensor(name) }

func each(x rows, f func(t int, row []float64) []float64) rows {
	out := make(rows, len(x))
	for t, row := range x {
		out[t] = f(t, row)
	}
	return out
}

func (r *reference) Embed(p model.Linear, _ rows) rows {
	out := make(rows, len(r.tokens))
	for t, id := range r.tokens {
		for _, v := range r.weight(p.Weight())[int(id)*p.Out:][:p.Out] {
			out[t] = append(out[t], float64(v))
		}
	}
	return out
}

func (r *reference) Block(_ int, x rows) rows { return x }

func (r *reference) Linear(p model.Linear, x rows) rows {
	w := r.weight(p.Weight())
	return each(x, func(_ int, row []float64) []float64 {
		out := make([]float64, p.Out)
		for o := range out {
			for i, v := range row {
				out[o] += float64(w[o*p.In+i]) * v
			}
			if p.Bias {
				out[o] += float64(r.weight(p.Module + ".bias")[o])
			}
		}
		return out
	})
}

func (r *reference) Split(x rows, widths ...int) []rows {
	parts, at := make([]rows, len(widths)), 0
	for i, n := range widths {
		parts[i] = each(x, func(_ int, row []float64) []float64 { return row[at : at+n] })
		at += n
	}
	return parts
}

func (r *reference) Scale(by float64, x rows) rows {
	return each(x, func(_ int, row []float64) []float64 {
		out := make([]float64, len(row))
		for i, v := range row {
			out[i] = by * v
		}
		return out
	})
}

func (r *reference) RMSNorm(p model.Norm, x rows) rows {
	w := r.weight(p.Weight())
	return each(x, func(_ int, row []float64) []float64 {
		out := make([]float64, len(row))
		for g := 0; g < len(row); g += p.Width {
			var sum float64
			for _, v := range row[g : g+p.Width] {
				sum += v * v
			}
			for i := range p.Width {
				gain := float64(w[i])
				if p.Offset {
					gain++
				}
				out[g+i] = row[g+i] / math.Sqrt(sum/float64(p.Width)+p.Eps) * gain
			}
		}
		return out
	})
}

func (r *reference) Rope(p model.Rope, x rows) rows {
	freq := p.Table.InvFreq
	if p.Table.Long != nil && len(x) > p.Table.Original {
		freq = p.Table.Long
	}
	return each(x, func(t int, row []float64) []float64 {
		out := append([]float64(nil), row...)
		for h := range p.Heads {
			for i, f := range freq {
				sin, cos := math.Sincos(float64(t) * float64(f))
				sin, cos = sin*float64(p.Table.Scale), cos*float64(p.Table.Scale)
				a, b := h*p.HeadDim+i, h*p.HeadDim+i+len(freq)
				out[a], out[b] = row[a]*cos-row[b]*sin, row[b]*cos+row[a]*sin
			}
		}
		return out
	})
}

func (r *reference) Attention(a model.Attention, q, k, v rows) rows {
	return each(q, func(t int, row []float64) []float64 {
		first := 0
		if a.Window > 0 {
			first = max(0, t-a.Window+1)
		}
		out := make([]float64, len(row))
		for h := range a.Heads {
			at, from := h*a.HeadDim, h/(a.Heads/a.KVHeads)*a.HeadDim
			scores, sum := make([]float64, t+1), 0.0
			for s := first; s <= t; s++ {
				for i := range a.HeadDim {
					scores[s] += row[at+i] * k[s][from+i]
				}
				scores[s] *= a.Scale
				if a.Softcap != 0 {
					scores[s] = a.Softcap * math.Tanh(scores[s]/a.Softcap)
				}
				scores[s] = math.Exp(scores[s])
				sum += scores[s]
			}
			for s := first; s <= t; s++ {
				for i := range a.HeadDim {
					out[at+i] += scores[s] / sum * v[s][from+i]
				}
			}
		}
		return out
	})
}

func (r *reference) Gated(act model.Activation, gate, up rows) rows {
	return each(gate, func(t int, row []float64) []float64 {
		out := make([]float64, len(row))
		for i, x := range row {
			y := x / (1 + math.Exp(-x))
			if act == model.GELUTanh {
				y = x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
			}
			out[i] = y * up[t][i]
		}
		return out
	})
}

func (r *reference) Add(a, b rows) rows {
	return each(a, func(t int, row []float64) []float64 {
		out := append([]float64(nil), row...)
		for i, v := range b[t] {
			out[i] += v
		}
		return out
	})
}

func (r *reference) Head(p model.Head, x rows) rows {
	return each(r.Linear(p.Linear, x), func(_ int, row []float64) []float64 {
		for i := range row {
			if p.Scale != 0 {
				row[i] *= p.Scale
			}
			if p.Softcap != 0 {
				row[i] = p.Softcap * math.Tanh(row[i]/p.Softcap)
			}
		}
		return row
	})
}

// TestDefinitionsEqualTransformers runs every family's definition and compares logits with those of
// transformers, sequences longer than windows and than the context that longrope starts from included.
func TestDefinitionsEqualTransformers(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "golden", "gradient", "families")
	goldens, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(goldens) == 0 {
		t.Fatalf("no goldens in %s: %v", dir, err)
	}
	seen := map[string]bool{}
	for _, path := range goldens {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".json"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var g struct {
				Config    json.RawMessage
				Sequences [][]int32
			}
			if err := json.Unmarshal(data, &g); err != nil {
				t.Fatal(err)
			}
			c, err := model.ParseConfig(g.Config)
			if err != nil {
				t.Fatal(err)
			}
			seen[c.Arch] = true
			m, err := testmodel.New(c)
			if err != nil {
				t.Fatal(err)
			}
			want := logits(t, strings.TrimSuffix(path, ".json")+".safetensors")
			worst, top, at := 0.0, 0.0, 0
			for _, s := range g.Sequences {
				got, err := model.Forward(c, &reference{m, s}, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, row := range got {
					for _, v := range row {
						worst, top = max(worst, math.Abs(v-float64(want[at]))), max(top, math.Abs(float64(want[at])))
						at++
					}
				}
			}
			t.Logf("logits to %.3g, differing by up to %.2g", top, worst)
			if at != len(want) || !(worst < 1e-4) {
				t.Errorf("%d logits differ by up to %.2g, want %d within 1e-4", at, worst, len(want))
			}
		})
	}
	for _, name := range testmodel.Names() {
		if c, err := testmodel.Config(name); err != nil || !seen[c.Arch] && c.Arch != "llama" {
			t.Errorf("no golden of %s (%v)", name, err)
		}
	}
}

func logits(t *testing.T, path string) []float32 {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, ok := f.Tensor("logits.base")
	if !ok {
		t.Fatalf("%s has no logits", path)
	}
	b := make([]byte, s.Size())
	if err := f.ReadAt(s, b, 0); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}
