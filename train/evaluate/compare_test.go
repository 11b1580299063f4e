package evaluate

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/testmodel"
)

// drawn is a model whose logits behind a token depend on its place and are drawn.
type drawn struct {
	name  string
	vocab int
	scale float32
	at    int
	bad   int // the place whose logits are not finite, −1 for none
}

func (d *drawn) Truncate(n int) { d.at = n }

func (d *drawn) EvalEach(tokens []int32, each func(at int, logits []float32) error) error {
	for i := range tokens {
		x := testmodel.Draw(d.name+string(rune('a'+d.at)), d.vocab)
		y := testmodel.Draw("noise"+string(rune('a'+d.at)), d.vocab)
		for k := range x {
			x[k] = 8*x[k] + d.scale*y[k]
		}
		if d.at == d.bad {
			x[3] = float32(math.NaN())
		}
		if err := each(i, x); err != nil {
			return err
		}
		d.at++
	}
	return nil
}

// TestCompare: the figures are those of their definitions over all tokens, however they are cut into
// windows, and rows that pad one vocabulary count for nothing.
func TestCompare(t *testing.T) {
	const vocab, n = 50, 23
	tokens := testmodel.Tokens("text", n, vocab)
	for _, window := range []int{64, 23, 10} {
		for _, pad := range []int{0, 7} {
			a, b := &drawn{"m", vocab, 0, 0, -1}, &drawn{"m", vocab + pad, 0.5, 0, -1}
			got, err := Compare(context.Background(), a, b, tokens, window, nil)
			if err != nil {
				t.Fatal(err)
			}
			var kl, diff, top, nllA, nllB, scored, largest float64
			for i := range n {
				at := i % window
				p := testmodel.Draw("m"+string(rune('a'+at)), vocab+pad)
				q := testmodel.Draw("noise"+string(rune('a'+at)), vocab+pad)
				var za, zb, zbAll float64
				bestA, bestB := 0, 0
				la, lb := make([]float64, vocab), make([]float64, vocab+pad)
				first := testmodel.Draw("m"+string(rune('a'+at)), vocab)
				for k := range vocab + pad {
					lb[k] = float64(8*p[k] + 0.5*q[k])
					zbAll += math.Exp(lb[k])
				}
				for k := range vocab {
					la[k] = float64(8 * first[k])
					za, zb = za+math.Exp(la[k]), zb+math.Exp(lb[k])
					if la[k] > la[bestA] {
						bestA = k
					}
					if lb[k] > lb[bestB] {
						bestB = k
					}
					diff += math.Abs(la[k] - lb[k])
				}
				var token float64
				for k := range vocab {
					x, y := la[k]-math.Log(za), lb[k]-math.Log(zb)
					token += math.Exp(x) * (x - y)
				}
				kl, largest = kl+token, max(largest, token)
				if bestA == bestB {
					top++
				}
				if at+1 < window && i+1 < n {
					nllA, nllB, scored = nllA+math.Log(za)-la[tokens[i+1]], nllB+math.Log(zbAll)-lb[tokens[i+1]], scored+1
				}
			}
			near := func(what string, got, want float64) {
				if math.Abs(got-want) > 1e-5*(1+math.Abs(want)) {
					t.Errorf("windows of %d, %d rows more: %s is %v, want %v", window, pad, what, got, want)
				}
			}
			near("mean KL", got.MeanKL, kl/n)
			near("largest KL", got.KL.Max, largest)
			near("mean difference", got.MeanDiff, diff/(n*vocab))
			near("agreement", got.Top1, top/n)
			near("A's likelihood", got.ReferenceNLL, nllA/scored)
			near("B's likelihood", got.NLL, nllB/scored)
			near("B's perplexity", got.PPL, math.Exp(nllB/scored))
			if got.Vocabulary != vocab || got.Tokens != n || got.KL.Median > got.KL.P90 || got.KL.P90 > got.KL.P99 || got.KL.P99 > got.KL.Max {
				t.Errorf("windows of %d: %+v", window, got)
			}
		}
	}
}

// TestCompareProcessors: the figures are the same whatever the number of processors, and those of a model
// against itself are nothing.
func TestCompareProcessors(t *testing.T) {
	const vocab = 3000
	tokens := testmodel.Tokens("text", 40, vocab)
	var first Divergence
	for i, procs := range []int{1, 2, 5} {
		was := runtime.GOMAXPROCS(procs)
		d, err := Compare(context.Background(), &drawn{"m", vocab, 0, 0, -1}, &drawn{"m", vocab, 0.5, 0, -1}, tokens, 16, nil)
		runtime.GOMAXPROCS(was)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = d
		} else if d != first {
			t.Errorf("on %d processors %+v, on one %+v", procs, d, first)
		}
	}
	d, err := Compare(context.Background(), &drawn{"m", vocab, 0, 0, -1}, &drawn{"m", vocab, 0, 0, -1}, tokens, 16, nil)
	if err != nil || d.MeanKL != 0 || d.KL != (Spread{}) || d.MaxDiff != 0 || d.MeanDiff != 0 || d.Top1 != 1 || d.NLL != d.ReferenceNLL || !(d.NLL > 0) {
		t.Errorf("against itself: %+v, %v", d, err)
	}
}

func TestCompareRefuses(t *testing.T) {
	ctx := context.Background()
	sound := func() Sequence { return &drawn{"m", 10, 0, 0, -1} }
	if _, err := Compare(ctx, sound(), sound(), []int32{1}, 8, nil); !errors.Is(err, ErrText) {
		t.Errorf("one token: %v", err)
	}
	if _, err := Compare(ctx, sound(), &drawn{"m", 5, 0, 0, -1}, []int32{1, 7}, 8, nil); !errors.Is(err, ErrText) {
		t.Errorf("a token that one vocabulary lacks: %v", err)
	}
	if _, err := Compare(ctx, sound(), &drawn{"m", 10, 0, 0, 1}, []int32{1, 2, 3}, 8, nil); err == nil || !strings.Contains(err.Error(), "logits of B behind token 1") {
		t.Errorf("logits that are not finite: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Compare(done, sound(), sound(), []int32{1, 2, 3}, 8, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
