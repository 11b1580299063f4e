package evaluate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// Sequence is a model that runs one sequence of tokens.
type Sequence interface {
	// EvalEach appends tokens and hands over the logits (vocabulary) behind each; the slice is valid
	// during the call only.
	EvalEach(tokens []int32, each func(at int, logits []float32) error) error
	// Truncate forgets all but the first n tokens.
	Truncate(n int)
}

// Divergence says how far model B is from model A over the tokens of a text. Differences and
// divergences are over the rows that both vocabularies have: one may be padded, its further rows
// standing for no token.
type Divergence struct {
	Tokens       int     `json:"tokens"`
	Vocabulary   int     `json:"vocabulary"` // rows compared
	MaxDiff      float64 `json:"max_logit_difference"`
	MeanDiff     float64 `json:"mean_logit_difference"` // of the magnitudes
	MeanKL       float64 `json:"mean_kl"`               // KL(A‖B), nats a token
	KL           Spread  `json:"kl"`
	Top1         float64 `json:"top1"` // share of tokens with the same most likely next one
	ReferenceNLL float64 `json:"reference_nll"`
	NLL          float64 `json:"nll"` // of B, mean, nats a token
	ReferencePPL float64 `json:"reference_perplexity"`
	PPL          float64 `json:"perplexity"`
}

// Spread is the divergences of single tokens, in nats, and the place of the largest.
type Spread struct {
	Median float64 `json:"p50"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
	MaxAt  int     `json:"max_at"` // index of the token it stands behind
}

// heldLogits is about how many logits of each model exist at a time: 32 MiB, whatever the vocabulary.
const heldLogits = 8 << 20

// most is the number of tokens run at a time where the vocabulary is small.
const most = 256

// Compare runs both models on tokens, in windows of at most the given length, each as from the
// beginning, and measures b against a. It fails with ErrText on fewer than two tokens, where a token
// is in one vocabulary only, and where logits are not finite, naming the model.
func Compare(ctx context.Context, a, b Sequence, tokens []int32, window int, progress func(done, total int)) (Divergence, error) {
	if len(tokens) < 2 || window < 2 {
		return Divergence{}, fmt.Errorf("evaluate: comparing: %w: %d tokens in windows of %d, and a comparison wants at least 2", ErrText, len(tokens), window)
	}
	d := Divergence{Tokens: len(tokens)}
	c := comparison{kl: make([]float64, len(tokens)), step: 1}
	for lo := 0; lo < len(tokens); lo += window {
		a.Truncate(0)
		b.Truncate(0)
		part := tokens[lo:min(lo+window, len(tokens))]
		for at := 0; at < len(part); {
			if ctx.Err() != nil {
				return d, ctx.Err()
			}
			n := min(c.step, len(part)-at)
			if err := c.run(a, b, part, at, n, lo); err != nil {
				return d, fmt.Errorf("evaluate: comparing: %w", err)
			}
			at += n
			c.step = max(1, min(most, heldLogits/max(c.common, 1)))
			if progress != nil {
				progress(lo+at, len(tokens))
			}
		}
	}
	n := float64(len(tokens))
	d.Vocabulary, d.MaxDiff, d.MeanDiff = c.common, c.max, c.diff/(n*float64(c.common))
	for i, v := range c.kl {
		d.MeanKL += v / n
		if v > d.KL.Max {
			d.KL.Max, d.KL.MaxAt = v, i
		}
	}
	slices.Sort(c.kl)
	at := func(p float64) float64 { return c.kl[min(len(c.kl)-1, int(p*n))] }
	d.KL.Median, d.KL.P90, d.KL.P99 = at(0.5), at(0.9), at(0.99)
	d.Top1 = float64(c.same) / n
	d.ReferenceNLL, d.NLL = c.nllA/float64(c.scored), c.nllB/float64(c.scored)
	d.ReferencePPL, d.PPL = perplexity(d.ReferenceNLL), perplexity(d.NLL)
	return d, nil
}

// perplexity is exp(nll), or the largest number there is: JSON has no infinity.
func perplexity(nll float64) float64 { return min(math.Exp(nll), math.MaxFloat64) }

// comparison is a Compare under way.
type comparison struct {
	step, common   int
	held           [2][]float32 // logits of the tokens at hand
	rows           []rowFigures // of those tokens
	kl             []float64    // by token
	diff, max      float64
	same, scored   int
	nllA, nllB     float64
	vocabA, vocabB int
	next           []int32 // the token behind each at hand, −1 for none
}

// rowFigures is what one token adds.
type rowFigures struct {
	kl, diff, max, nllA, nllB float64
	same                      bool
	bad                       string // which model's logits are not finite
}

// run compares n tokens of a window, of which those before at have been run; first is the window's
// first token in the text.
func (c *comparison) run(a, b Sequence, window []int32, at, n, first int) error {
	part := window[at : at+n]
	for i, s := range []Sequence{a, b} {
		c.held[i] = c.held[i][:0]
		if err := s.EvalEach(part, func(_ int, logits []float32) error {
			c.held[i] = append(c.held[i], logits...)
			return nil
		}); err != nil {
			return err
		}
	}
	c.vocabA, c.vocabB = len(c.held[0])/n, len(c.held[1])/n
	c.common = min(c.vocabA, c.vocabB)
	c.next = c.next[:0]
	for i := range n {
		next := int32(-1)
		if at+i+1 < len(window) {
			next = window[at+i+1]
		}
		if int(next) >= c.common {
			return fmt.Errorf("%w: token %d of the text is %d, and one of the vocabularies has only %d rows", ErrText, first+at+i+1, next, c.common)
		}
		c.next = append(c.next, next)
	}
	c.rows = slices.Grow(c.rows[:0], n)[:n]
	kernel.Parallel(n, 1, c)
	for i, r := range c.rows {
		if r.bad != "" {
			return fmt.Errorf("the logits of %s behind token %d are not all finite; its weights are damaged (graft inspect --check names the tensor)", r.bad, first+at+i)
		}
		c.kl[first+at+i] = r.kl
		c.diff, c.max = c.diff+r.diff, max(c.max, r.max)
		if r.same {
			c.same++
		}
		if c.next[i] >= 0 {
			c.nllA, c.nllB, c.scored = c.nllA+r.nllA, c.nllB+r.nllB, c.scored+1
		}
	}
	return nil
}

// Run compares rows [lo, hi); it makes comparison a kernel.Task.
func (c *comparison) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		p, q := c.held[0][i*c.vocabA:(i+1)*c.vocabA], c.held[1][i*c.vocabB:(i+1)*c.vocabB]
		c.rows[i] = compareRow(p, q, c.common, c.next[i])
	}
}

// compareRow compares two rows of logits over their first n; next is the token that follows, −1 for none.
func compareRow(p, q []float32, n int, next int32) (r rowFigures) {
	wholeP, wholeQ := logSum(p), logSum(q)
	switch {
	case wholeP-wholeP != 0:
		return rowFigures{bad: "A"}
	case wholeQ-wholeQ != 0:
		return rowFigures{bad: "B"}
	}
	if next >= 0 {
		r.nllA, r.nllB = wholeP-float64(p[next]), wholeQ-float64(q[next])
	}
	lp, lq := wholeP, wholeQ
	if len(p) != n {
		lp = logSum(p[:n])
	}
	if len(q) != n {
		lq = logSum(q[:n])
	}
	topP, topQ := 0, 0
	for i, x := range p[:n] {
		y := q[i]
		a, b := float64(x)-lp, float64(y)-lq
		r.kl += math.Exp(a) * (a - b)
		d := math.Abs(float64(x) - float64(y))
		r.diff, r.max = r.diff+d, max(r.max, d)
		if x > p[topP] {
			topP = i
		}
		if y > q[topQ] {
			topQ = i
		}
	}
	if r.diff-r.diff != 0 { // −Inf somewhere, which the sums do not show
		if math.IsInf(float64(slices.Min(p[:n])), 0) {
			return rowFigures{bad: "A"}
		}
		return rowFigures{bad: "B"}
	}
	r.kl = max(r.kl, 0) // rounding can leave a little less than nothing
	r.same = topP == topQ
	return r
}

// logSum is log Σ exp(x), summed in float64: a divergence is a small difference of such sums. It is
// not finite where a value is NaN or +Inf, or all are −Inf.
func logSum(x []float32) float64 {
	top := slices.Max(x)
	if t := float64(top); t-t != 0 {
		return t
	}
	var s float64
	for _, v := range x {
		s += math.Exp(float64(v - top))
	}
	return float64(top) + math.Log(s)
}
