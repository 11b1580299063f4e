package engine

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testfile"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// golden is what testdata/golden/gradient/make.py wrote about one case.
type golden struct {
	Config    json.RawMessage
	R         int
	Alpha     float64
	Sequences [][]int32
	Loss      float64
	Quant     string
	Beta      float64
	Rows      []struct {
		Tokens     []int32
		Completion int
	}
	Logs    map[string]float64
	Adapter AdapterOptions // of variants

	tensors map[string][]float32
}

func readGolden(t *testing.T, name string) *golden {
	t.Helper()
	dir := filepath.Join("..", "..", "testdata", "golden", "gradient")
	g := &golden{tensors: map[string][]float32{}}
	testfile.ReadJSON(t, filepath.Join(dir, name+".json"), g)
	f, err := safetensors.Open(filepath.Join(dir, name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, s := range f.Tensors() {
		b := make([]byte, s.Size())
		if err := f.ReadAt(s, b, 0); err != nil {
			t.Fatal(err)
		}
		v := make([]float32, len(b)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		g.tensors[s.Name] = v
	}
	return g
}

// families are the goldens of every other architecture, and of the ways in which configurations differ.
func families(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "golden", "gradient", "families", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens of families: %v", err)
	}
	for i, f := range files {
		files[i] = "families/" + strings.TrimSuffix(filepath.Base(f), ".json")
	}
	return files
}

func (g *golden) load(t *testing.T, bf16 bool) *Model {
	t.Helper()
	c, err := model.ParseConfig(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{BF16: bf16}
	if g.Quant != "" {
		o.Quant = &quantize.Options4{Type: g.Quant, Double: true}
	}
	m, err := Load(src, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// adapter makes the adapter that the script filled under PEFT's names.
func (g *golden) adapter(t *testing.T, m *Model) *adapters.Adapter {
	t.Helper()
	var modules []string
	for _, l := range m.Targets() {
		modules = append(modules, l.Module)
	}
	a, err := m.NewAdapter(modules, g.R, g.Alpha/float64(g.R), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		name := "base_model.model." + p.Module
		p.A = testmodel.Weights(name+".lora_A.weight", model.KindLinear, len(p.A))
		p.B = testmodel.Weights(name+".lora_B.weight", model.KindLinear, len(p.B))
	}
	return a
}

// pack lays sequences one after the other with the next token as the target, from place first on.
func pack(sequences [][]int32, first func(i int) int) Batch {
	b := Batch{Seq: []int32{0}}
	for i, s := range sequences {
		for k, tok := range s {
			target := int32(-1)
			if k+1 < len(s) && k+1 >= first(i) {
				target = s[k+1]
			}
			b.Tokens = append(b.Tokens, tok)
			b.Targets = append(b.Targets, target)
		}
		b.Seq = append(b.Seq, int32(len(b.Tokens)))
	}
	return b
}

func all(int) int { return 1 }

// apart returns the largest difference relative to the largest entry of want.
func apart(got, want []float32) float64 {
	var diff, top float64
	if len(got) != len(want) {
		return math.Inf(1)
	}
	for i := range want {
		diff = max(diff, math.Abs(float64(got[i])-float64(want[i])))
		top = max(top, math.Abs(float64(want[i])))
		if got[i] != got[i] {
			return math.NaN()
		}
	}
	return diff / top
}

// forEachImpl runs test on every implementation of the kernels that the processor offers.
func forEachImpl(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, name := range kernel.Impls() {
		t.Run(name, func(t *testing.T) {
			restore, err := kernel.SetImpl(name)
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			test(t)
		})
	}
}

func TestGradientsEqualPEFT(t *testing.T) {
	for _, name := range append(families(t), "lora", "lora_nf4", "lora_bias") {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			forEachImpl(t, func(t *testing.T) {
				m := g.load(t, false)
				s, err := m.NewSession(SessionOptions{Adapter: g.adapter(t, m)})
				if err != nil {
					t.Fatal(err)
				}
				checkLossAndGradients(t, g, s)
			})
		})
	}
}

func TestGradientsEqualTransformers(t *testing.T) {
	for _, name := range []string{"full", "full_bias", "full_qwen2", "full_qwen3", "full_gemma2-softcap", "full_gemma3-pattern", "full_granite-bias",
		"full_olmo2-groups", "full_phi3-long"} {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			forEachImpl(t, func(t *testing.T) {
				s, err := g.load(t, false).NewSession(SessionOptions{Full: true})
				if err != nil {
					t.Fatal(err)
				}
				checkLossAndGradients(t, g, s)
			})
		})
	}
}

// TestBF16NearPEFT compares losses and gradients in bfloat16, in every way that the processor offers,
// with PEFT's in float32. What is rounded to 8 bits may move a loss by one part in 500, the gradient by
// 8 % of its length, and that of one matrix by 12 %: by so much PyTorch's autocast moves those of gemma3,
// the deepest of the models.
func TestBF16NearPEFT(t *testing.T) {
	for _, name := range append(families(t), "lora", "lora_nf4", "lora_bias") {
		g := readGolden(t, name)
		for _, half := range kernel.Halves() {
			t.Run(name+"/"+half, func(t *testing.T) {
				restore, err := kernel.SetHalf(half)
				if err != nil {
					t.Fatal(err)
				}
				defer restore()
				m := g.load(t, true)
				s, err := m.NewSession(SessionOptions{Adapter: g.adapter(t, m)})
				if err != nil {
					t.Fatal(err)
				}
				nearGolden(t, g, s)
			})
		}
	}
}

// nearGolden compares what bfloat16 gives.
func nearGolden(t *testing.T, g *golden, s *Session) {
	t.Helper()
	sum, n, err := s.Loss(pack(g.Sequences, all))
	if err != nil {
		t.Fatal(err)
	}
	s.Backward(1 / n)
	var worst, apart, length float64
	for _, p := range s.Params() {
		var diff, size float64
		for i, w := range g.tensors[p.Name] {
			d := float64(p.Grad[i]) - float64(w)
			diff, size = diff+d*d, size+float64(w)*float64(w)
		}
		worst = max(worst, math.Sqrt(diff/size))
		apart, length = apart+diff, length+size
	}
	whole := math.Sqrt(apart / length)
	loss := math.Abs(sum/n-g.Loss) / g.Loss
	t.Logf("loss apart by %.2g, the gradient by %.2g of its length, that of a matrix by up to %.2g", loss, whole, worst)
	if !(loss < 2e-3) || !(whole < 0.08) || !(worst < 0.12) {
		t.Errorf("loss apart by %.2g, the gradient by %.2g of its length, that of a matrix by up to %.2g", loss, whole, worst)
	}
}

func checkLossAndGradients(t *testing.T, g *golden, s *Session) {
	t.Helper()
	sum, n, err := s.Loss(pack(g.Sequences, all))
	if err != nil {
		t.Fatal(err)
	}
	if d := math.Abs(sum/n-g.Loss) / g.Loss; !(d < 1e-5) {
		t.Errorf("loss %.7f, want %.7f", sum/n, g.Loss)
	}
	s.Backward(1 / n)
	worst := checkGradients(t, g, s)
	t.Logf("largest relative difference of a gradient: %.2g", worst)
	// Sequences one by one add up to the same gradients.
	s.ZeroGrad()
	for _, q := range g.Sequences {
		if _, _, err := s.Loss(pack([][]int32{q}, all)); err != nil {
			t.Fatal(err)
		}
		s.Backward(1 / n)
	}
	checkGradients(t, g, s)
}

func checkGradients(t *testing.T, g *golden, s *Session) (worst float64) {
	t.Helper()
	for _, p := range s.Params() {
		want, ok := g.tensors[p.Name]
		if !ok {
			t.Errorf("no golden gradient of %s", p.Name)
			continue
		}
		d := apart(p.Grad, want)
		if !(d < 1e-5) {
			t.Errorf("gradient of %s: differs by %.2g of the largest entry", p.Name, d)
		}
		worst = max(worst, d)
	}
	matrices := 0
	for name := range g.tensors {
		if !strings.HasPrefix(name, "logits") {
			matrices++
		}
	}
	if matrices != len(s.Params()) {
		t.Errorf("%d parameters have gradients, want %d", len(s.Params()), matrices)
	}
	return worst
}
