package train

import (
	"encoding/binary"
	"io"
	"math"
	"slices"

	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/train/dataset"
)

// This file is the objectives: a loss, its gradient and the figures that describe it.

// objective is data together with the loss on it. The loss of a step is a mean over the examples'
// weights, of the whole effective batch.
type objective interface {
	lengths() []int
	// lay lays a batch out, valid until the next.
	lay(batch []int) engine.Batch
	// weight is what a batch counts in the mean: target tokens, or pairs.
	weight(batch []int) float64
	// train adds the gradients of the batch's part of a mean over total, and its figures.
	train(s *engine.Session, batch []int, total float64, f *figures) error
	// evaluate adds the figures of a batch.
	evaluate(s *engine.Session, batch []int, f *figures) error
	// subset has some of the examples.
	subset(indexes []int) objective
	// digest writes all examples, for a fingerprint.
	digest(w io.Writer)
}

// figures add up over passes.
type figures struct {
	loss, weight    float64 // sum of losses, and what to divide it by
	tokens, targets int

	pairs                      int
	chosen, rejected           float64 // sums of rewards
	correct                    float64
	logpsChosen, logpsRejected float64
}

func (f *figures) mean() float64 { return f.loss / f.weight }

// batcher lays examples out for the engine. Its memory is used again.
type batcher struct{ b engine.Batch }

func (l *batcher) reset() {
	l.b.Tokens, l.b.Targets, l.b.Seq = l.b.Tokens[:0], l.b.Targets[:0], append(l.b.Seq[:0], 0)
}

func (l *batcher) add(x *dataset.Example) {
	l.b.Tokens = append(l.b.Tokens, x.Tokens...)
	for i := range x.Tokens {
		target := int32(-1)
		if i+1 < len(x.Tokens) && x.Loss[i+1] {
			target = x.Tokens[i+1]
		}
		l.b.Targets = append(l.b.Targets, target)
	}
	l.b.Seq = append(l.b.Seq, int32(len(l.b.Tokens)))
}

// sft is the mean negative log likelihood of the target tokens.
type sft struct {
	examples []dataset.Example
	batcher
}

func (d *sft) lengths() []int { return dataset.Lengths(d.examples) }

func (d *sft) weight(batch []int) (n float64) {
	for _, i := range batch {
		n += float64(d.examples[i].Targets())
	}
	return n
}

func (d *sft) lay(batch []int) engine.Batch {
	d.reset()
	for _, i := range batch {
		d.add(&d.examples[i])
	}
	return d.b
}

func (d *sft) train(s *engine.Session, batch []int, total float64, f *figures) error {
	sum, n, err := s.Loss(d.lay(batch))
	if err != nil {
		return err
	}
	s.Backward(1 / total)
	d.count(sum, n, f)
	return nil
}

func (d *sft) evaluate(s *engine.Session, batch []int, f *figures) error {
	sum, n, err := s.Evaluate(d.lay(batch))
	if err != nil {
		return err
	}
	d.count(sum, n, f)
	return nil
}

func (d *sft) count(sum, n float64, f *figures) {
	f.loss += sum
	f.weight += n
	f.tokens += len(d.b.Tokens)
	f.targets += int(n)
}

func (d *sft) subset(indexes []int) objective {
	out := &sft{}
	for _, i := range indexes {
		out.examples = append(out.examples, d.examples[i])
	}
	return out
}

func (d *sft) digest(w io.Writer) {
	for i := range d.examples {
		digestExample(w, &d.examples[i])
	}
}

func digestExample(w io.Writer, x *dataset.Example) {
	binary.Write(w, binary.LittleEndian, int64(len(x.Tokens)))
	binary.Write(w, binary.LittleEndian, x.Tokens)
	binary.Write(w, binary.LittleEndian, x.Loss)
}

// dpo is the loss of Rafailov et al. 2023, −log σ(β·Δ), Δ being how much more than the reference the
// model prefers the chosen answer to the rejected one. With smoothing ε, labels are taken to be wrong
// with that probability (Mitchell 2023): −(1−ε)·log σ(β·Δ) − ε·log σ(−β·Δ).
type dpo struct {
	pairs     []dataset.Pair
	beta      float64
	smoothing float64
	batcher
	known     map[int][2]float64 // by pair: log probabilities of its answers without the adapter, which stay
	reference []float64          // those of the batch, (2·pairs)
	policy    []float64
	coef      []float32
}

func (d *dpo) lengths() []int { return dataset.PairLengths(d.pairs) }

func (d *dpo) weight(batch []int) float64 { return float64(len(batch)) }

// lay puts all chosen answers first and the rejected behind.
func (d *dpo) lay(batch []int) engine.Batch {
	d.reset()
	for _, i := range batch {
		d.add(&d.pairs[i].Chosen)
	}
	for _, i := range batch {
		d.add(&d.pairs[i].Rejected)
	}
	return d.b
}

// answer returns the i-th sequence of a batch as laid out.
func (d *dpo) answer(batch []int, i int) *dataset.Example {
	if i < len(batch) {
		return &d.pairs[batch[i]].Chosen
	}
	return &d.pairs[batch[i-len(batch)]].Rejected
}

// sums adds the log probabilities of each sequence's tokens.
func (d *dpo) sums(dst []float64, batch []int, logps []float32) []float64 {
	dst = dst[:0]
	for i := range 2 * len(batch) {
		n, sum := d.answer(batch, i).Targets(), 0.0
		for _, l := range logps[:n] {
			sum += float64(l)
		}
		dst, logps = append(dst, sum), logps[n:]
	}
	return dst
}

// refer fills in the reference of a batch. The model runs for it where a pair is new: in the first epoch,
// and the first evaluation.
func (d *dpo) refer(s *engine.Session, batch []int, b engine.Batch) error {
	n := len(batch)
	if slices.ContainsFunc(batch, func(i int) bool { _, ok := d.known[i]; return !ok }) {
		logps, err := s.ReferenceLogProbs(b)
		if err != nil {
			return err
		}
		d.reference = d.sums(d.reference, batch, logps)
		if d.known == nil {
			d.known = map[int][2]float64{}
		}
		for k, i := range batch {
			d.known[i] = [2]float64{d.reference[k], d.reference[n+k]}
		}
		return nil
	}
	d.reference = append(d.reference[:0], make([]float64, 2*n)...)
	for k, i := range batch {
		d.reference[k], d.reference[n+k] = d.known[i][0], d.known[i][1]
	}
	return nil
}

func (d *dpo) train(s *engine.Session, batch []int, total float64, f *figures) error {
	b := d.lay(batch)
	if err := d.refer(s, batch, b); err != nil {
		return err
	}
	logps, err := s.LogProbs(b)
	if err != nil {
		return err
	}
	d.policy = d.sums(d.policy, batch, logps)
	slopes := d.count(batch, f)
	d.coef = d.coef[:0]
	for i := range 2 * len(batch) {
		slope := slopes[i%len(batch)] / total
		if i >= len(batch) {
			slope = -slope
		}
		for range d.answer(batch, i).Targets() {
			d.coef = append(d.coef, float32(slope))
		}
	}
	s.BackwardLogProbs(d.coef)
	return nil
}

func (d *dpo) evaluate(s *engine.Session, batch []int, f *figures) error {
	b := d.lay(batch)
	if err := d.refer(s, batch, b); err != nil {
		return err
	}
	logps, err := s.EvaluateLogProbs(b)
	if err != nil {
		return err
	}
	d.policy = d.sums(d.policy, batch, logps)
	d.count(batch, f)
	return nil
}

// count adds the figures of a batch, whose log probabilities are known, and returns the derivative of
// each pair's loss in the log probability of its chosen answer.
func (d *dpo) count(batch []int, f *figures) []float64 {
	slopes, n := make([]float64, len(batch)), len(batch)
	for i := range batch {
		chosen := d.beta * (d.policy[i] - d.reference[i])
		rejected := d.beta * (d.policy[n+i] - d.reference[n+i])
		margin := chosen - rejected
		f.loss -= (1-d.smoothing)*logSigmoid(margin) + d.smoothing*logSigmoid(-margin)
		slopes[i] = -d.beta * ((1-d.smoothing)*sigmoid(-margin) - d.smoothing*sigmoid(margin))
		f.weight++
		f.pairs++
		f.chosen += chosen
		f.rejected += rejected
		if chosen > rejected {
			f.correct++
		}
		f.logpsChosen += d.policy[i]
		f.logpsRejected += d.policy[n+i]
		f.targets += d.pairs[batch[i]].Chosen.Targets() + d.pairs[batch[i]].Rejected.Targets()
	}
	f.tokens += len(d.b.Tokens)
	return slopes
}

func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

func logSigmoid(x float64) float64 { return min(x, 0) - math.Log1p(math.Exp(-math.Abs(x))) }

func (d *dpo) subset(indexes []int) objective {
	out := &dpo{beta: d.beta, smoothing: d.smoothing}
	for _, i := range indexes {
		out.pairs = append(out.pairs, d.pairs[i])
	}
	return out
}

func (d *dpo) digest(w io.Writer) {
	for i := range d.pairs {
		digestExample(w, &d.pairs[i].Chosen)
		digestExample(w, &d.pairs[i].Rejected)
	}
}
