package autograd

import (
	"fmt"

	"github.com/graftml/graft/internal/kernel"
)

// headOp is the last product and the loss on it. Logits exist for a chunk of rows at a time, and
// only for rows that have a target:
//
//	nll[i] = −log softmax(x[i]·Wᵀ)[target[i]]        x is (M, C), W is (V, C)
//
// The gradient of each nll in x is made in the same pass over the logits. A loss is a weighted sum of
// the nll, so backward only multiplies rows by their weights, whatever the objective made of them.
type headOp struct {
	node
	weight *Weight // (V, C)
}

// Head records the last operation: the product that makes logits. It makes no value: Forward leaves
// the loss of each target (Tape.NLL), and Tape.Logits computes logits where they are wanted.
func (g *Graph) Head(weight *Weight, x Var) {
	g.want("head", x, weight.Matrix.K)
	o := &headOp{node: node{ins: []Var{x}, out: none}, weight: weight}
	g.head = o
	g.add(o)
}

func (o *headOp) trained(*Tape) bool { return o.weight.Grad != nil }
func (o *headOp) reads(*Tape) []Var  { return nil }

// The private buffers of the head.
const (
	targetRows  = iota // the rows that have a target (M, C)
	targetGrads        // the gradients of their nll (M, C)
)

func (o *headOp) private(t *Tape) []buffer {
	c := o.weight.Matrix.K
	switch {
	case !t.training:
		return []buffer{{c, forwardScratch}}
	case o.weight.Grad != nil: // the rows are wanted again
		return []buffer{{c, saved}, {c, saved}}
	}
	return []buffer{{c, forwardScratch}, {c, saved}}
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
			copy(rows[len(t.targets)*w.K:][:w.K], hidden[i*w.K:])
			t.targets, t.targetAt, t.nll = append(t.targets, target), append(t.targetAt, int32(i)), append(t.nll, 0)
		}
	}
	var grads []float32
	m := len(t.targets)
	if !t.lossOnly {
		grads = c.own(targetGrads)[:m*w.K]
	}
	kernel.CrossEntropy(t.nll, grads, nil, rows[:m*w.K], w, t.targets, nil, kernel.LossSpec{GradScale: 1})
}

func (o *headOp) backward(c *call) {
	t, w := c.tape, &o.weight.Matrix
	if o.weight.Grad != nil {
		// Forward did not know the coefficients, so the logits are made again.
		kernel.CrossEntropyBackward(nil, o.weight.Grad, c.own(targetRows)[:len(t.targets)*w.K], w, t.targets, t.coef)
	}
	if !c.ins[0].wants {
		return
	}
	grads, dx := c.own(targetGrads), c.inGrad(0)
	clear(dx)
	for i, row := range t.targetAt {
		kernel.Scale(dx[int(row)*w.K:][:w.K], grads[i*w.K:][:w.K], t.coef[i])
	}
}

// NLL returns the negative log likelihoods of the targets of the last Forward, in the order of the
// tokens that have one, and the token each stands at. The slices are valid until the next Forward.
func (t *Tape) NLL() (nll []float32, at []int32) { return t.nll, t.targetAt }

// Logits computes the logits (hi−lo, vocabulary) of tokens [lo, hi) of the last Forward, which must
// have run on a tape that does not train.
func (t *Tape) Logits(dst []float32, lo, hi int) {
	o := t.graph.head
	c := &t.plan.calls[len(t.plan.calls)-1]
	if t.training || lo < 0 || hi > t.rows || lo > hi {
		panic(fmt.Sprintf("autograd: logits of tokens [%d, %d) of %d, training %v", lo, hi, t.rows, t.training))
	}
	w := &o.weight.Matrix
	kernel.MulT(dst, w.N, c.in(0)[lo*w.K:hi*w.K], w.K, hi-lo, w, false)
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
