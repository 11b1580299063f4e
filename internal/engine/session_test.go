package engine

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// TestDPOEqualsTRL takes the engine's part of a preference step: log probabilities with the adapter
// on and off, and the gradient of a function of them.
func TestDPOEqualsTRL(t *testing.T) {
	g := readGolden(t, "dpo")
	m := g.load(t, false)
	s, err := m.NewSession(SessionOptions{Adapter: g.adapter(t, m)})
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]int32
	for _, r := range g.Rows {
		rows = append(rows, r.Tokens)
	}
	b := pack(rows, func(i int) int { return g.Rows[i].Completion })
	sums := func(logps []float32) []float64 { // of each row
		out := make([]float64, len(rows))
		at := 0
		for i, r := range g.Rows {
			for range len(r.Tokens) - r.Completion {
				out[i] += float64(logps[at])
				at++
			}
		}
		if at != len(logps) {
			t.Fatalf("%d log probabilities, want %d", len(logps), at)
		}
		return out
	}
	logps, err := s.ReferenceLogProbs(b)
	if err != nil {
		t.Fatal(err)
	}
	reference := sums(logps)
	if logps, err = s.LogProbs(b); err != nil {
		t.Fatal(err)
	}
	policy := sums(logps)

	pairs := len(rows) / 2
	var loss, chosen, rejected, logpChosen, logpRejected float64
	slopes := make([]float64, len(rows)) // of the loss in each row's log probability
	for i := range pairs {
		c, r := g.Beta*(policy[i]-reference[i]), g.Beta*(policy[pairs+i]-reference[pairs+i])
		loss += math.Log1p(math.Exp(r-c)) / float64(pairs)
		slope := g.Beta / (1 + math.Exp(c-r)) / float64(pairs)
		slopes[i], slopes[pairs+i] = -slope, slope
		chosen += c / float64(pairs)
		rejected += r / float64(pairs)
		logpChosen += policy[i] / float64(pairs)
		logpRejected += policy[pairs+i] / float64(pairs)
	}
	for key, got := range map[string]float64{"loss": loss, "rewards/chosen": chosen, "rewards/rejected": rejected,
		"logps/chosen": logpChosen, "logps/rejected": logpRejected} {
		if want := g.Logs[key]; math.Abs(got-want) > 1e-5*math.Abs(want)+1e-5 {
			t.Errorf("%s is %.6f, TRL's is %.6f", key, got, want)
		}
	}
	var coef []float32
	for i, r := range g.Rows {
		for range len(r.Tokens) - r.Completion {
			coef = append(coef, float32(slopes[i]))
		}
	}
	s.BackwardLogProbs(coef)
	t.Logf("largest relative difference of a gradient: %.2g", checkGradients(t, g, s))
}

// TestWeights: a weight of 2 is the token twice, 0 is no target.
func TestWeights(t *testing.T) {
	m := named(t, "llama")
	s := newSession(t, m, 0, 4)
	for _, p := range s.Params() {
		copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
	}
	grads := func(b Batch) (out []float32, sum, weight float64) {
		s.ZeroGrad()
		sum, weight, err := s.Loss(b)
		if err != nil {
			t.Fatal(err)
		}
		s.Backward(1)
		for _, p := range s.Params() {
			out = append(out, p.Grad...)
		}
		return out, sum, weight
	}
	one := someBatch(m, 6)
	one.Weights = []float32{2, 0, 2, 0, 2, 0}
	two := someBatch(m, 6)
	two.Tokens, two.Seq = append(two.Tokens, two.Tokens...), []int32{0, 6, 12}
	two.Targets = append(two.Targets, two.Targets...)
	for i := 1; i < 12; i += 2 {
		two.Targets[i] = -1
	}
	got, sum, n := grads(one)
	want, wantSum, wantN := grads(two)
	if d := apart(got, want); !(d < 1e-6) || math.Abs(sum-wantSum) > 1e-5 || n != 6 || wantN != 6 {
		t.Errorf("weights: loss %v over %v, want %v over %v; gradients differ by %v", sum, n, wantSum, wantN, d)
	}
}

// trainStep is one step of gradient descent on all parameters, of a length that does not depend on
// the model's factors.
func trainStep(t *testing.T, s *Session, b Batch) float64 {
	t.Helper()
	s.ZeroGrad()
	sum, n, err := s.Loss(b)
	if err != nil {
		t.Fatal(err)
	}
	s.Backward(1 / n)
	length := 0.0
	for _, p := range s.Params() {
		length += kernel.SumSquares(p.Grad)
	}
	for _, p := range s.Params() {
		kernel.AddScaled(p.Value, p.Grad, float32(-1/math.Sqrt(length)))
	}
	return sum / n
}

func newSession(t *testing.T, m *Model, dropout float64, r int) *Session {
	t.Helper()
	var modules []string
	for _, l := range m.Targets() {
		modules = append(modules, l.Module)
	}
	a, err := m.NewAdapter(modules, r, 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewSession(SessionOptions{Adapter: a, Dropout: dropout, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func someBatch(m *Model, sizes ...int) Batch {
	var q [][]int32
	for i, n := range sizes {
		q = append(q, testmodel.Tokens(string(rune('a'+i)), n, m.config.Vocab))
	}
	return pack(q, all)
}

func TestTrainingLowersLoss(t *testing.T) {
	for _, name := range testmodel.Names() {
		m := named(t, name)
		s := newSession(t, m, 0, 4)
		b := someBatch(m, 20, 9)
		first := trainStep(t, s, b)
		var last float64
		for range 30 {
			last = trainStep(t, s, b)
		}
		if !(last < 0.9*first) {
			t.Errorf("%s: the loss went from %.4f to %.4f", name, first, last)
		}
	}
}

// TestSameBits: neither threads nor what ran before changes a bit, with dropout too.
func TestSameBits(t *testing.T) {
	train := func(threads int, passes uint64) []float32 {
		defer kernel.SetThreads(kernel.Threads())
		kernel.SetThreads(threads)
		m := named(t, "llama")
		s := newSession(t, m, 0.1, 4)
		trainStep(t, s, someBatch(m, 30)) // memory that is not fresh
		s = newSession(t, m, 0.1, 4)
		s.SetPass(passes)
		for range 3 {
			trainStep(t, s, someBatch(m, 25, 8))
		}
		var out []float32
		for _, p := range s.Params() {
			out = append(out, p.Value...)
		}
		return out
	}
	want := train(1, 5)
	for threads := 2; threads <= 4; threads++ {
		if !slices.Equal(train(threads, 5), want) {
			t.Errorf("%d threads give other bits", threads)
		}
	}
	if slices.Equal(train(1, 6), want) {
		t.Error("the pass does not change the dropout masks")
	}
}

func TestDropout(t *testing.T) {
	m := named(t, "llama")
	s := newSession(t, m, 0.5, 4)
	for _, p := range s.Params() {
		copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
	}
	b := someBatch(m, 16)
	loss := func(f func(Batch) (float64, float64, error)) float64 {
		sum, n, err := f(b)
		if err != nil {
			t.Fatal(err)
		}
		return sum / n
	}
	if loss(s.Evaluate) != loss(s.Evaluate) {
		t.Error("evaluation is not repeatable")
	}
	if loss(s.Loss) == loss(s.Loss) {
		t.Error("two training passes drop the same values")
	}
	// The gradient is that of the very masks of its pass.
	pass := s.Pass()
	s.ZeroGrad()
	sum, n, err := s.Loss(b)
	if err != nil {
		t.Fatal(err)
	}
	s.Backward(1 / n)
	_ = sum
	for _, p := range s.Params()[:6] {
		// Along the gradient itself the slope is its squared length.
		grad := slices.Clone(p.Grad)
		square := kernel.SumSquares(grad)
		at := func(step float64) float64 {
			value := slices.Clone(p.Value)
			kernel.AddScaled(p.Value, grad, float32(step))
			s.SetPass(pass)
			v := loss(s.Loss)
			copy(p.Value, value)
			return v
		}
		h := 2e-3 / math.Sqrt(square)
		slope := (at(h) - at(-h)) / (2 * h)
		if math.Abs(slope-square) > 2e-2*square {
			t.Errorf("%s: slope %.6g along the gradient, want %.6g", p.Name, slope, square)
		}
	}
}

// TestBF16 compares losses and gradients in bfloat16, in every way that the processor offers, dense and in 4 bits, with
// those in float32: the same but for the rounding of operands, which is one part in 512.
func TestBF16(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	for name, quant := range map[string]*quantize.Options4{"dense": nil, "nf4": {Double: true}} {
		run := func(bf16 bool) (loss float64, params []Param) {
			m, err := Load(src, Options{Quant: quant, BF16: bf16})
			if err != nil {
				t.Fatal(err)
			}
			s := newSession(t, m, 0, 4)
			for _, p := range s.Params() {
				copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
			}
			sum, n, err := s.Loss(someBatch(m, 40, 9))
			if err != nil {
				t.Fatal(err)
			}
			s.Backward(1 / n)
			return sum / n, s.Params()
		}
		want, exact := run(false)
		for _, half := range kernel.Halves() {
			restore, err := kernel.SetHalf(half)
			if err != nil {
				t.Fatal(err)
			}
			got, params := run(true)
			restore()
			if d := math.Abs(got-want) / want; !(d < 2e-3) || d == 0 {
				t.Errorf("%s, by %s: loss %v, in float32 %v", name, half, got, want)
			}
			worst := 0.0
			for i, p := range params {
				worst = max(worst, apart(p.Grad, exact[i].Grad))
			}
			if !(worst < 0.08) {
				t.Errorf("%s, by %s: a gradient is apart by %v", name, half, worst)
			}
			t.Logf("%s, by %s: loss apart by %.2g, gradients by up to %.2g", name, half, math.Abs(got-want)/want, worst)
		}
	}
}

// TestLayouts: how matrices lie in memory changes no bit of losses and gradients, where a batch is long,
// short or a few tokens, and the head is the table or not.
func TestLayouts(t *testing.T) {
	for _, tied := range []bool{false, true} {
		c, err := model.ParseConfig(fmt.Appendf(nil, `{"model_type":"llama","hidden_size":64,"intermediate_size":160,"num_hidden_layers":2,
			"num_attention_heads":4,"num_key_value_heads":1,"vocab_size":224,"max_position_embeddings":512,"tie_word_embeddings":%v}`, tied))
		if err != nil {
			t.Fatal(err)
		}
		src, err := testmodel.New(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, half := range append(kernel.Halves(), "none") {
			restore, err := kernel.SetHalf(cmp.Or(strings.TrimSuffix(half, "none"), "float32"))
			if err != nil {
				t.Fatal(err)
			}
			for _, sizes := range [][]int{{100, 200}, {9}, {3}} {
				run := func(l kernel.Layout) (out []float32) {
					m, err := Load(src, Options{BF16: half != "none", Layout: l})
					if err != nil {
						t.Fatal(err)
					}
					s := newSession(t, m, 0, 4)
					for _, p := range s.Params() {
						copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
					}
					sum, n, err := s.Loss(someBatch(m, sizes...))
					if err != nil {
						t.Fatal(err)
					}
					s.Backward(1 / n)
					for _, p := range s.Params() {
						out = append(out, p.Grad...)
					}
					return append(out, float32(sum))
				}
				want := run(kernel.ByRows)
				for _, l := range []kernel.Layout{kernel.ForForward, kernel.ForBackward} {
					if !slices.Equal(run(l), want) {
						t.Errorf("tied %v, %s, sequences of %v: layout %d gives other bits", tied, half, sizes, l)
					}
				}
			}
			restore()
		}
	}
}

// TestSteadyStepAllocatesNothing trains in float32, over 4-bit weights and in bfloat16.
func TestSteadyStepAllocatesNothing(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Quant: &quantize.Options4{Double: true}}, {BF16: true}, {Quant: &quantize.Options4{Double: true}, BF16: true}} {
		m, err := Load(src, o)
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(t, m, 0.1, 4)
		b, small := someBatch(m, 40, 9), someBatch(m, 11)
		trainStep(t, s, b)
		trainStep(t, s, small)
		if n := testing.AllocsPerRun(10, func() {
			trainStep(t, s, b)
			trainStep(t, s, small)
		}); n > 0 {
			t.Errorf("%.1f allocations in a steady step", n)
		}
	}
}

func TestGenerationAllocatesNothing(t *testing.T) {
	m := named(t, "llama")
	hold(t, m, kinds)
	for _, name := range append(m.Adapters(), "") {
		s := m.NewState()
		if name != "" {
			if err := s.Use(Use{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Eval(testmodel.Tokens("p", 64, m.config.Vocab)); err != nil {
			t.Fatal(err)
		}
		next := []int32{5}
		if n := testing.AllocsPerRun(20, func() {
			s.Truncate(40)
			if _, err := s.Eval(next); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%.1f allocations a token with adapter %q", n, name)
		}
	}
}

// TestPlannedMemory compares the plan with the memory that a pass takes and with the values that
// must be kept.
func TestPlannedMemory(t *testing.T) {
	m := named(t, "llama")
	s := newSession(t, m, 0, 4)
	b := someBatch(m, 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	trainStep(t, s, b)
	runtime.ReadMemStats(&after)
	planned := s.ActivationBytes(100)
	if got := int64(after.TotalAlloc - before.TotalAlloc); got < planned {
		t.Errorf("a first pass took %d bytes, fewer than the planned %d", got, planned)
	}
	// Per token and layer: two residuals, q, k, v, the attention's output, gate and up, seven
	// products of rank 4 padded to 16, softmax sums padded to 16; then what one layer needs at a time.
	c := m.config
	kept := c.Layers * (2*c.Hidden + 2*c.Heads*c.HeadDim + 2*c.KVHeads*c.HeadDim + 2*c.Intermediate + 7*16 + 16)
	working := 8 * c.Intermediate
	if limit := int64(4 * 100 * (kept + working)); planned > limit {
		t.Errorf("the plan takes %d bytes, more than %d", planned, limit)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *testmodel.Model)
		quant  bool
		want   string
	}{
		{"missing", func(m *testmodel.Model) { m.Remove("model.layers.1.mlp.up_proj.weight") }, false, `"model.layers.1.mlp.up_proj.weight" is missing`},
		{"NaN", func(m *testmodel.Model) { m.Tensor("model.norm.weight")[3] = float32(math.NaN()) }, false, `"model.norm.weight"`},
		{"infinity", func(m *testmodel.Model) { m.Tensor("model.embed_tokens.weight")[64] = float32(math.Inf(1)) }, false, "row 1, column 0 is +Inf"},
		{"NaN quantized", func(m *testmodel.Model) {
			m.Tensor("model.layers.0.self_attn.k_proj.weight")[70] = float32(math.NaN())
		}, true, `"model.layers.0.self_attn.k_proj.weight"`},
	} {
		src, err := testmodel.Named("llama")
		if err != nil {
			t.Fatal(err)
		}
		c.change(src)
		var o Options
		if c.quant {
			o.Quant = &quantize.Options4{}
		}
		_, err = Load(src, o)
		if !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// packedSource holds the products of a test model in 4 bits, and may lie about a shape.
type packedSource struct {
	*testmodel.Model
	lie string
}

func (s packedSource) Packed4(name string) (*quantize.Tensor4, error) {
	if !strings.HasSuffix(name, "proj.weight") {
		return nil, nil
	}
	for _, p := range s.Model.Tensors() {
		if p.Name == name {
			return quantize.Quantize4(s.Tensor(name), p.Shape, quantize.Options4{Type: "fp4", Double: true})
		}
	}
	return nil, errors.New("no such tensor")
}

func (s packedSource) Tensors() []checkpoint.Tensor {
	out := s.Model.Tensors()
	for i := range out {
		if out[i].Name == s.lie {
			out[i].Shape = []int{out[i].Shape[0], out[i].Shape[1] + 1}
		}
	}
	return out
}

// TestPackedSource: a checkpoint that is in 4 bits is taken as it is, and is what quantizing while
// loading, piece by piece, makes of the original.
func TestPackedSource(t *testing.T) {
	c, err := testmodel.Config("llama")
	if err != nil {
		t.Fatal(err)
	}
	c.Intermediate = 4224 // more than is quantized at a time
	if c.Intermediate*c.Hidden <= loadChunk {
		t.Fatal("the model is too small to be quantized in pieces")
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	logits := func(src checkpoint.Source, o Options) []float32 {
		m, err := Load(src, o)
		if err != nil {
			t.Fatal(err)
		}
		out, err := m.NewState().Eval([]int32{5, 6, 7})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	packed := logits(packedSource{Model: src}, Options{})
	if !slices.Equal(packed, logits(src, Options{Quant: &quantize.Options4{Type: "fp4", Double: true}})) {
		t.Error("a stored 4-bit model and one quantized while loading differ")
	}
	if !slices.Equal(packed, logits(packedSource{Model: src}, Options{Quant: &quantize.Options4{Type: "nf4"}})) {
		t.Error("a stored 4-bit model is quantized again")
	}
	if slices.Equal(packed, logits(src, Options{})) {
		t.Error("4 bits change nothing")
	}
	lie := "model.layers.0.mlp.up_proj.weight"
	if _, err := Load(packedSource{src, lie}, Options{}); !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), lie) {
		t.Errorf("another shape: %v", err)
	}
}

func TestSessionRefuses(t *testing.T) {
	m := named(t, "llama")
	q := "model.layers.0.self_attn.q_proj"
	a, err := m.NewAdapter([]string{q}, 4, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewSession(SessionOptions{}); !errors.Is(err, ErrAdapter) {
		t.Errorf("nothing to train: %v", err)
	}
	if _, err := m.NewSession(SessionOptions{Adapter: a, Dropout: 1}); !errors.Is(err, ErrAdapter) {
		t.Errorf("dropout 1: %v", err)
	}
	for _, modules := range [][]string{{"model.norm"}, {q + "x"}} {
		if _, err := m.NewAdapter(modules, 4, 1, 0); !errors.Is(err, ErrAdapter) {
			t.Errorf("adapter of %v: %v", modules, err)
		}
	}
	for _, r := range []int{0, 65} {
		if _, err := m.NewAdapter([]string{q}, r, 1, 0); !errors.Is(err, ErrAdapter) {
			t.Errorf("rank %d: %v", r, err)
		}
	}
	wrong := *a
	wrong.Pairs = slices.Clone(a.Pairs)
	wrong.Pairs[0].Module = "model.layers.0.mlp.down_proj"
	if err := m.AddAdapter("wrong", &wrong); !errors.Is(err, ErrAdapter) || !strings.Contains(err.Error(), "down_proj") {
		t.Errorf("adapter of another shape: %v", err)
	}
	s, err := m.NewSession(SessionOptions{Adapter: a})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]Batch{
		"empty":      {},
		"no targets": {Tokens: []int32{1}, Seq: []int32{0, 1}},
		"offsets":    {Tokens: []int32{1, 2}, Seq: []int32{0, 1}, Targets: []int32{2, -1}},
		"token":      {Tokens: []int32{300}, Seq: []int32{0, 1}, Targets: []int32{-1}},
		"target":     {Tokens: []int32{3}, Seq: []int32{0, 1}, Targets: []int32{300}},
	} {
		if _, _, err := s.Loss(b); !errors.Is(err, ErrBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A batch without targets is no mistake: it adds nothing.
	s.ZeroGrad()
	sum, n, err := s.Loss(Batch{Tokens: []int32{1, 2}, Seq: []int32{0, 2}, Targets: []int32{-1, -1}})
	if err != nil || sum != 0 || n != 0 {
		t.Errorf("no targets: loss %v over %v, %v", sum, n, err)
	}
	s.Backward(1)
	for _, p := range s.Params() {
		if kernel.SumSquares(p.Grad) != 0 {
			t.Errorf("no targets: gradient of %s", p.Name)
		}
	}
	// 4-bit and bfloat16 weights are not trained.
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Quant: &quantize.Options4{}}, {BF16: true}} {
		m, err := Load(src, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.NewSession(SessionOptions{Full: true}); !errors.Is(err, ErrModel) {
			t.Errorf("full training with %+v: %v", o, err)
		}
	}
}

// TestOnlyWhatIsTrained adapts one product of the last layer: nothing below it is differentiated,
// and what is, is right.
func TestOnlyWhatIsTrained(t *testing.T) {
	m := named(t, "llama")
	whole := newSession(t, m, 0, 4)
	for _, p := range whole.Params() {
		if !strings.Contains(p.Name, "layers.1.mlp.down_proj") {
			continue
		}
		copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
	}
	module := "model.layers.1.mlp.down_proj"
	a, err := m.NewAdapter([]string{module}, 4, 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	one, err := m.NewSession(SessionOptions{Adapter: a})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range one.Params() {
		copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
	}
	b := someBatch(m, 13)
	grads := func(s *Session) map[string][]float32 {
		out := map[string][]float32{}
		if _, _, err := s.Loss(b); err != nil {
			t.Fatal(err)
		}
		s.Backward(1)
		for _, p := range s.Params() {
			out[p.Name] = slices.Clone(p.Grad)
		}
		return out
	}
	want := grads(whole)
	for name, g := range grads(one) {
		if !slices.Equal(g, want[name]) {
			t.Errorf("gradient of %s differs from that of training everything", name)
		}
	}
	if small, large := one.ActivationBytes(100), whole.ActivationBytes(100); 2*small > large {
		t.Errorf("training one product plans %d bytes, everything %d", small, large)
	}
}
