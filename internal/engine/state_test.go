package engine

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/graftml/graft/internal/testmodel"
)

func TestLogitsEqualTransformers(t *testing.T) {
	for _, name := range append(families(t), "lora", "lora_nf4", "lora_bias", "full_bias") {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			m := g.load(t, false)
			s := m.NewState()
			checkLogits(t, s, g, "logits.base")
			if g.R == 0 {
				return
			}
			if err := m.AddAdapter("a", g.adapter(t, m)); err != nil {
				t.Fatal(err)
			}
			if err := s.Use(Use{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, s, g, "logits.adapter")
			// Two halves of an adapter are the adapter.
			if err := s.Use(Use{"a", 0.25}, Use{"a", 0.75}); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, s, g, "logits.adapter")
			if err := s.Use(); err != nil {
				t.Fatal(err)
			}
			checkLogits(t, s, g, "logits.base")
		})
	}
}

// checkLogits evaluates every sequence in one piece, in pieces, and token by token. Where rotations
// depend on the length, pieces know of it at the end only: then the last logits count.
func checkLogits(t *testing.T, s *State, g *golden, key string) {
	t.Helper()
	vocab := s.model.config.Vocab
	scaling := s.model.config.RopeScaling
	for _, size := range []int{1 << 20, 3, 1} {
		var got []float32
		last := size < 1<<20 && scaling != nil && scaling.Type == "longrope"
		want := g.tensors[key]
		if last {
			want = lastRows(want, g.Sequences, vocab)
		}
		for _, q := range g.Sequences {
			s.Truncate(0)
			for piece := range slices.Chunk(q, size) {
				err := s.EvalEach(piece, func(at int, logits []float32) error {
					if len(logits) != vocab {
						t.Fatalf("%d logits, want %d", len(logits), vocab)
					}
					got = append(got, logits...)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if last {
				got = append(got[:len(got)-len(q)*vocab], got[len(got)-vocab:]...)
			}
			if !slices.Equal(s.Tokens(), q) {
				t.Fatalf("the state holds %v, want %v", s.Tokens(), q)
			}
		}
		if d := apart(got, want); !(d < 1e-5) {
			t.Errorf("%s in pieces of %d: differ by %.2g of the largest", key, size, d)
		}
	}
}

// lastRows are the logits behind each sequence.
func lastRows(x []float32, sequences [][]int32, vocab int) (out []float32) {
	at := 0
	for _, q := range sequences {
		at += len(q) * vocab
		out = append(out, x[at-vocab:at]...)
	}
	return out
}

func TestScoreEqualsLoss(t *testing.T) {
	g := readGolden(t, "lora")
	m := g.load(t, false)
	if err := m.AddAdapter("a", g.adapter(t, m)); err != nil {
		t.Fatal(err)
	}
	s := m.NewState()
	if err := s.Use(Use{Name: "a"}); err != nil {
		t.Fatal(err)
	}
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
}

// TestLongSequence takes a state past the length from which frequencies are others, and back: what it
// then says is what a fresh state says of the same tokens.
func TestLongSequence(t *testing.T) {
	m := named(t, "phi3-long")
	tokens := testmodel.Tokens("long", 40, m.config.Vocab)
	fresh := func(n int) []float32 {
		out, err := m.NewState().Eval(tokens[:n])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(out)
	}
	s := m.NewState()
	at := 0
	for _, n := range []int{9, 16, 17, 18, 40, 12, 13, 17} { // the length is 16
		s.Truncate(min(at, n-1))
		got, err := s.Eval(tokens[len(s.Tokens()):n])
		if err != nil {
			t.Fatal(err)
		}
		if d := apart(got, fresh(n)); !(d < 1e-5) {
			t.Errorf("%d tokens after %d: differ by %.2g of the largest", n, at, d)
		}
		if !slices.Equal(s.Tokens(), tokens[:n]) {
			t.Fatalf("the state holds %v, want %v", s.Tokens(), tokens[:n])
		}
		at = n
	}
}

func TestScoreText(t *testing.T) {
	m := named(t, "llama")
	s := m.NewState()
	text := testmodel.Tokens("text", 70, m.config.Vocab)
	sum, n, err := s.ScoreText(text, 16, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, count := 0.0, 0
	for piece := range slices.Chunk(text, 16) {
		nll, err := s.Score(pack([][]int32{piece}, all))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range nll {
			want += float64(v)
		}
		count += len(nll)
	}
	if n != count || math.Abs(sum-want) > 1e-4 {
		t.Errorf("%v over %d tokens, want %v over %d", sum, n, want, count)
	}
	if n != 70-5 {
		t.Errorf("%d tokens scored, want 65", n)
	}
	stop := errors.New("stop")
	if _, _, err := s.ScoreText(text, 16, func(int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of progress", err)
	}
	if _, _, err := s.ScoreText(text, 1000, nil); !errors.Is(err, ErrBatch) {
		t.Errorf("window beyond the context: %v", err)
	}
}

func TestGenerate(t *testing.T) {
	m := named(t, "llama")
	prompt := testmodel.Tokens("prompt", 5, m.config.Vocab)
	run := func(o GenerateOptions) ([]int32, End) {
		t.Helper()
		var out []int32
		o.Context = m.config.Context
		end, err := Generate(context.Background(), m.NewState(), prompt, o, func(token int32) error {
			out = append(out, token)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out, end
	}
	greedy, end := run(GenerateOptions{MaxTokens: 12})
	if len(greedy) != 12 || end != EndLength {
		t.Fatalf("%d tokens, ended by %q", len(greedy), end)
	}
	// Greedy means that each token has the largest logit of a fresh evaluation.
	for i, token := range greedy {
		logits, err := m.NewState().Eval(append(slices.Clone(prompt), greedy[:i]...))
		if err != nil {
			t.Fatal(err)
		}
		if best, _ := (&Sampler{}).Pick(logits); best != token {
			t.Fatalf("token %d is %d, want %d", i, token, best)
		}
	}
	if out, end := run(GenerateOptions{MaxTokens: 12, Stop: []int32{greedy[4]}}); end != EndStop || len(out) > 4 {
		t.Errorf("%d tokens, ended by %q, want a stop", len(out), end)
	}
	if out, end := run(GenerateOptions{}); end != EndContext || len(out) != m.config.Context-len(prompt)+1 {
		t.Errorf("%d tokens, ended by %q, want the end of the context", len(out), end)
	}
	warm := func(seed uint64) []int32 {
		out, _ := run(GenerateOptions{MaxTokens: 12, Sampler: &Sampler{Temperature: 1.5, Seed: seed}})
		return out
	}
	if !slices.Equal(warm(1), warm(1)) || slices.Equal(warm(1), warm(2)) {
		t.Error("samples do not follow the seed")
	}
	if out, _ := run(GenerateOptions{MaxTokens: 12, Sampler: &Sampler{Temperature: 1, TopK: 1}}); !slices.Equal(out, greedy) {
		t.Error("the best of one is not greedy")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Generate(ctx, m.NewState(), prompt, GenerateOptions{Context: m.config.Context}, func(int32) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSampler compares frequencies with the distribution that the options leave.
func TestSampler(t *testing.T) {
	logits := []float32{1, 3, 2, -1, 0, 2.5}
	for _, c := range []struct {
		s    Sampler
		keep []int
	}{
		{Sampler{Temperature: 1}, []int{0, 1, 2, 3, 4, 5}},
		{Sampler{Temperature: 0.5, TopK: 3}, []int{1, 2, 5}},
		{Sampler{Temperature: 1, TopP: 0.7}, []int{1, 5}}, // 0.47 + 0.28
		{Sampler{Temperature: 1, TopK: 4, TopP: 0.9}, []int{1, 2, 5}},
	} {
		s := c.s
		want := make([]float64, len(logits))
		total := 0.0
		for _, i := range c.keep {
			want[i] = math.Exp(float64(logits[i]) / s.Temperature)
			total += want[i]
		}
		const n = 20000
		counts := make([]float64, len(logits))
		for range n {
			token, err := s.Pick(logits)
			if err != nil {
				t.Fatal(err)
			}
			counts[token]++
		}
		for i := range want {
			p := want[i] / total
			if math.Abs(counts[i]/n-p) > 4*math.Sqrt(p*(1-p)/n) {
				t.Errorf("%+v: token %d drawn %.4f of the time, want %.4f", c.s, i, counts[i]/n, p)
			}
		}
	}
	if _, err := (&Sampler{}).Pick([]float32{float32(math.NaN())}); !errors.Is(err, ErrModel) {
		t.Errorf("logits that are not numbers: %v", err)
	}
}

// TestStatesRunTogether runs states with different adapters at the same time, while adapters come
// and go: each computes what it would alone.
func TestStatesRunTogether(t *testing.T) {
	g := readGolden(t, "lora")
	m := g.load(t, false)
	a := g.adapter(t, m)
	if err := m.AddAdapter("a", a); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 4 {
		key, uses := "logits.base", []Use(nil)
		if i%2 == 0 {
			key, uses = "logits.adapter", []Use{{Name: "a"}}
		}
		wait.Go(func() {
			s := m.NewState()
			for range 3 {
				if err := s.Use(uses...); err != nil {
					t.Error(err)
					return
				}
				checkLogits(t, s, g, key)
			}
		})
	}
	for range 20 {
		if err := m.AddAdapter("b", a.Scaled(2)); err != nil {
			t.Error(err)
		}
		if got := m.Adapters(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("adapters %q", got)
		}
		if err := m.RemoveAdapter("b"); err != nil {
			t.Error(err)
		}
	}
	wait.Wait()
}

// TestReplacedAdapter: a state keeps what it chose until it chooses again.
func TestReplacedAdapter(t *testing.T) {
	g := readGolden(t, "lora")
	m := g.load(t, false)
	s := m.NewState()
	if err := m.AddAdapter("a", g.adapter(t, m)); err != nil {
		t.Fatal(err)
	}
	if err := s.Use(Use{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := m.AddAdapter("a", g.adapter(t, m).Scaled(0)); err != nil {
		t.Fatal(err)
	}
	checkLogits(t, s, g, "logits.adapter")
	if err := s.Use(Use{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	checkLogits(t, s, g, "logits.base")
}

func TestEvalRefuses(t *testing.T) {
	m := named(t, "llama")
	s := m.NewState()
	for name, tokens := range map[string][]int32{"none": {}, "negative": {-1}, "large": {300}, "too many": make([]int32, 129)} {
		if _, err := s.Eval(tokens); !errors.Is(err, ErrBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Use(Use{Name: "missing"}); !errors.Is(err, ErrAdapter) {
		t.Errorf("missing adapter: %v", err)
	}
	if err := m.RemoveAdapter("missing"); !errors.Is(err, ErrAdapter) {
		t.Errorf("removing a missing adapter: %v", err)
	}
}

func named(t *testing.T, name string) *Model {
	t.Helper()
	src, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
