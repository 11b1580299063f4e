package train

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
	"github.com/graftml/graft/train/dataset"
)

// The golden step is TRL's: see testdata/golden/gradient/make.py.
func TestPreferencesEqualTRL(t *testing.T) {
	dir := filepath.Join("..", "testdata", "golden", "gradient")
	text, err := os.ReadFile(filepath.Join(dir, "dpo.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Config      json.RawMessage
		R           int
		Alpha, Beta float64
		Rows        []struct {
			Tokens     []int32
			Completion int
		}
		Logs map[string]float64
	}
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	s := goldenSession(t, g.Config, g.R, g.Alpha)
	n := len(g.Rows) / 2
	example := func(i int) (x dataset.Example) {
		x.Tokens, x.Loss = g.Rows[i].Tokens, make([]bool, len(g.Rows[i].Tokens))
		for k := g.Rows[i].Completion; k < len(x.Loss); k++ {
			x.Loss[k] = true
		}
		return x
	}
	d := &dpo{beta: g.Beta}
	for i := range n {
		d.pairs = append(d.pairs, dataset.Pair{Chosen: example(i), Rejected: example(n + i)})
	}
	check := func(batches ...[]int) {
		t.Helper()
		s.ZeroGrad()
		var f figures
		for _, b := range batches {
			if err := d.train(s, b, float64(n), &f); err != nil {
				t.Fatal(err)
			}
		}
		near := func(name string, got, want float64) {
			if !(math.Abs(got-want) <= 1e-5*math.Max(1, math.Abs(want))) {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		w := f.rewards()
		near("loss", f.mean(), g.Logs["loss"])
		near("rewards/chosen", *w.Chosen, g.Logs["rewards/chosen"])
		near("rewards/rejected", *w.Rejected, g.Logs["rewards/rejected"])
		near("rewards/accuracies", *w.Accuracies, g.Logs["rewards/accuracies"])
		near("rewards/margins", *w.Margins, g.Logs["rewards/margins"])
		near("logps/chosen", *w.LogpsChosen, g.Logs["logps/chosen"])
		near("logps/rejected", *w.LogpsRejected, g.Logs["logps/rejected"])
		near("gradient's norm", newOptimizer(s.Params()).norm(), g.Logs["grad_norm"])
		checkGradients(t, s, filepath.Join(dir, "dpo.safetensors"))
	}
	check([]int{0, 1})
	d.known = nil
	check([]int{1}, []int{0})
	check([]int{1, 0}) // from what is known
}

// TestReferenceIsKept: what the reference says of a pair is computed once, and the same bits whatever else is in the batch.
func TestReferenceIsKept(t *testing.T) {
	config := []byte(`{"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,
"num_key_value_heads":2,"vocab_size":131,"max_position_embeddings":256,"tie_word_embeddings":true}`)
	s := goldenSession(t, config, 4, 8)
	var pairs []dataset.Pair
	for i := range 5 {
		example := func(n, seed int) (x dataset.Example) {
			for k := range n {
				x.Tokens, x.Loss = append(x.Tokens, int32((seed+k*k)%131)), append(x.Loss, k > 3)
			}
			return x
		}
		pairs = append(pairs, dataset.Pair{Chosen: example(9+7*i, i), Rejected: example(31-2*i, 50+i)})
	}
	run := func(d *dpo, batches ...[]int) (references map[int][2]float64, f figures) {
		references = map[int][2]float64{}
		for _, b := range batches {
			if err := d.train(s, b, 1, &f); err != nil {
				t.Fatal(err)
			}
			for k, i := range b {
				references[i] = [2]float64{d.reference[k], d.reference[len(b)+k]}
			}
		}
		return references, f
	}
	kept := &dpo{beta: 0.1, pairs: pairs}
	want, first := run(kept, []int{0, 1, 2, 3, 4})
	for _, batches := range [][][]int{{{4, 2}, {1, 0, 3}}, {{0}, {1}, {2}, {3}, {4}}} {
		if got, _ := run(&dpo{beta: 0.1, pairs: pairs}, batches...); !maps.Equal(got, want) {
			t.Errorf("in batches %v the reference is %v, want %v", batches, got, want)
		}
		if got, _ := run(kept, batches...); !maps.Equal(got, want) {
			t.Errorf("kept, in batches %v the reference is %v, want %v", batches, got, want)
		}
	}
	if _, again := run(kept, []int{0, 1, 2, 3, 4}); again != first {
		t.Errorf("the figures of a second pass are %+v, of the first %+v", again, first)
	}
	kept.known[3] = [2]float64{1, 2}
	if got, _ := run(kept, []int{2, 3}); got[3] != [2]float64{1, 2} {
		t.Errorf("the reference was computed again: %v", got[3])
	}
}

func goldenSession(t *testing.T, config []byte, r int, alpha float64) *engine.Session {
	t.Helper()
	c, err := model.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := engine.Load(src, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	modules, err := chooseModules(Targets{Pattern: "all-linear"}, m.Targets())
	if err != nil {
		t.Fatal(err)
	}
	a, err := m.NewAdapter(modules, r, alpha/float64(r), 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		p.A = testmodel.Weights("base_model.model."+p.Module+".lora_A.weight", model.KindLinear, len(p.A))
		p.B = testmodel.Weights("base_model.model."+p.Module+".lora_B.weight", model.KindLinear, len(p.B))
	}
	s, err := m.NewSession(engine.SessionOptions{Adapter: a})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkGradients(t *testing.T, s *engine.Session, path string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range s.Params() {
		tensor, ok := f.Tensor(p.Name)
		if !ok {
			t.Fatalf("no golden gradient of %s", p.Name)
		}
		raw := make([]byte, tensor.Size())
		if err := f.ReadAt(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		var diff, top float64
		for i, got := range p.Grad {
			want := float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
			diff, top = max(diff, math.Abs(float64(got)-want)), max(top, math.Abs(want))
		}
		if !(diff <= 1e-5*top) {
			t.Errorf("gradient of %s differs by %.2g of the largest entry", p.Name, diff/top)
		}
	}
}

// With labels taken to be wrong half of the time nothing is preferred; the slope is checked by
// differences.
func TestLabelSmoothing(t *testing.T) {
	pair := dataset.Pair{Chosen: dataset.Example{Tokens: []int32{1, 2}, Loss: []bool{false, true}}, Rejected: dataset.Example{Tokens: []int32{1, 3}, Loss: []bool{false, true}}}
	for _, smoothing := range []float64{0, 0.1, 0.4} {
		d := &dpo{pairs: []dataset.Pair{pair}, beta: 0.5, smoothing: smoothing, reference: []float64{-2, -3}}
		loss := func(chosen float64) (float64, float64) {
			var f figures
			d.policy = []float64{chosen, -2.5}
			return d.count([]int{0}, &f)[0], f.loss
		}
		const h = 1e-5
		slope, _ := loss(-1)
		_, up := loss(-1 + h)
		_, down := loss(-1 - h)
		if want := (up - down) / (2 * h); math.Abs(slope-want) > 1e-8 {
			t.Errorf("smoothing %v: slope %v, want %v", smoothing, slope, want)
		}
	}
	if got := logSigmoid(-800); got != -800 {
		t.Errorf("log σ(−800) = %v", got)
	}
}
