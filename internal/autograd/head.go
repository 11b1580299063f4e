package autograd

import (
	"fmt"

	"github.com/graftml/graft/internal/kernel"
)

// headOp is the last product and the loss on it. Logits exist for a chunk of rows at a time, and
// only for rows that have a target:
//
//	nll[i] = −log softmax(spec(x[i]·Wᵀ))[target[i]]        x is (M, C), W is (V, C)
//
// The gradient of each nll in x is made in the same pass over the logits. A loss is a weighted sum of
// the nll, so backward only multiplies rows by their weights, whatever the objective made of them.
type headOp struct {
	node
	weight *Weight // (V, C)
	spec   kernel.LogitSpec
}

// Head records the last operation: the product that makes logits, and what is done to them. It makes no value: Forward leaves
// the loss of each target (Tape.NLL), and Tape.Logits computes logits where they are wanted.
func (g *Graph) Head(weight *Weight, spec kernel.LogitSpec, x Var) {
	g.want("head", x, weight.Matrix.K)
	o := &headOp{node: node{ins: []Var{x}}, weight: weight, spec: spec}
	g.head = o
	g.add(o)
}

func (o *headOp) trained(*Tape) bool { return o.weight.Grad != nil }
func (o *headOp) reads(*Tape) []Var  { return nil }

// The private buffers of the head.
const (
	targetRows  = iota // the rows that have a target (M, C)
	targetGrads        // the gradients of their nll (M, C)
	keptLogits         // (M, V), of width 0 where they are made again
)

func (o *headOp) private(t *Tape) []buffer {
	c := o.weight.Matrix.K
	switch {
	case !t.training:
		return []buffer{{c, forwardScratch, o.ins[0]}}
	case o.weight.Grad != nil: // the rows are wanted again
		logits := 0
		if t.keepLogits {
			logits = o.weight.Matrix.N
		}
		return []buffer{{c, saved, o.ins[0]}, {c, saved, none}, {logits, saved, none}}
	}
	return []buffer{{c, forwardScratch, o.ins[0]}, {c, saved, none}}
}

func (o *headOp) forward(c *call) {
	t, w := c.tape, &o.weight.Matrix
	t.nll, t.targetAt, t.targets = t.nll[:0], t.targetAt[:0], t.targets[:0]
	if t.batch.Targets == nil {
		return
	}
	hidden, rows := c.in(0), c.own(targetRows)
	for i, target := range t.batch.Targets {
		if target >= 0 {
			k := len(t.targets)
			kernel.Copy(rows.Slice(k*w.K, (k+1)*w.K), hidden.Slice(i*w.K, (i+1)*w.K))
			t.targets, t.targetAt, t.nll = append(t.targets, target), append(t.targetAt, int32(i)), append(t.nll, 0)
		}
	}
	var grads, kept []float32
	m := len(t.targets)
	if !t.lossOnly {
		grads, kept = c.own(targetGrads).F32[:m*w.K], o.kept(c)
	}
	if cap(t.lse) < m {
		t.lse = make([]float32, m)
	}
	t.lse = t.lse[:m]
	kernel.CrossEntropy(t.nll, t.lse, grads, kept, rows.Slice(0, m*w.K), w, o.spec, t.targets)
}

// kept is where the logits of the targets stay for backward, nil where they are made again.
func (o *headOp) kept(c *call) []float32 {
	if len(c.private) <= keptLogits || c.private[keptLogits].width == 0 {
		return nil
	}
	return c.own(keptLogits).F32[:len(c.tape.targets)*o.weight.Matrix.N]
}

func (o *headOp) backward(c *call) {
	t, w := c.tape, &o.weight.Matrix
	if o.weight.Grad != nil {
		// Forward did not know the coefficients.
		kernel.HeadGradient(o.weight.Grad, o.kept(c), c.own(targetRows).Slice(0, len(t.targets)*w.K), w, o.spec, t.targets, t.lse, t.coef)
	}
	if !c.ins[0].wants {
		return
	}
	grads, dx := c.own(targetGrads).F32, c.inGrad(0).F32
	clear(dx)
	for i, row := range t.targetAt {
		kernel.Scale(dx[int(row)*w.K:][:w.K], grads[i*w.K:][:w.K], t.coef[i])
	}
}

// NLL returns the negative log likelihoods of the targets of the last Forward, in the order of the
// tokens that have one, and the token each stands at. The slices are valid until the next Forward.
func (t *Tape) NLL() (nll []float32, at []int32) { return t.nll, t.targetAt }

// Logits computes the logits (hi−lo, vocabulary) of tokens [lo, hi) of the last Forward, which must
// have run on a tape for generating.
func (t *Tape) Logits(dst []float32, lo, hi int) {
	o := t.graph.head
	c := &t.plan.calls[len(t.plan.calls)-1]
	if t.training || t.half || lo < 0 || hi > t.rows || lo > hi {
		panic(fmt.Sprintf("autograd: logits of tokens [%d, %d) of %d on a tape that trains (%v) or scores", lo, hi, t.rows, t.training))
	}
	w := &o.weight.Matrix
	kernel.Logits(dst, c.in(0).Slice(lo*w.K, hi*w.K), hi-lo, w, o.spec)
}

// Backward adds the gradient of Σ coef[i]·nll[i] to every trained parameter; coef has one value for
// each target of the last Forward, which must have run with targets.
func (t *Tape) Backward(coef []float32) {
	if !t.ran || len(coef) != len(t.nll) {
		panic(fmt.Sprintf("autograd: backward with %d coefficients for %d targets, after a forward pass to differentiate: %v", len(coef), len(t.nll), t.ran))
	}
	t.coef = coef
	t.run(t.plan.steps[t.plan.split:])
	t.ran = false
}
