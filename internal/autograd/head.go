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

// logitFloats bounds the logits that exist at a time, 64 MiB.
const logitFloats = 16 << 20

func (o *headOp) trained(*Tape) bool { return o.weight.Grad != nil }
func (o *headOp) reads(*Tape) []Var  { return nil }

// private: the rows that have a target, (M, C), and the gradients of their nll. Where W is frozen the
// gradients take the place of the rows.
func (o *headOp) private(t *Tape) []buffer {
	c := o.weight.Matrix.K
	switch {
	case !t.training:
		return []buffer{{c, forwardScratch}}
	case o.weight.Grad != nil:
		return []buffer{{c, saved}, {c, saved}}
	}
	return []buffer{{c, saved}}
}

// chunk is the number of rows whose logits are made at a time.
func (o *headOp) chunk() int { return max(16, logitFloats/o.weight.Matrix.N) }

func (o *headOp) forward(c *call) {
	t := c.tape
	t.nll, t.targetRows = t.nll[:0], t.targetRows[:0]
	if t.batch.Targets == nil {
		return
	}
	w := &o.weight.Matrix
	hidden, rows := c.in(0), c.own(0)
	for i, target := range t.batch.Targets {
		if target < 0 {
			continue
		}
		if int(target) >= w.N {
			panic(fmt.Sprintf("autograd: target %d of a vocabulary of %d", target, w.N))
		}
		copy(rows[len(t.targetRows)*w.K:][:w.K], hidden[i*w.K:])
		t.targetRows = append(t.targetRows, int32(i))
		t.nll = append(t.nll, 0)
	}
	grads := rows
	if len(c.private) > 1 {
		grads = c.own(1)
	}
	for lo := 0; lo < len(t.nll); lo += o.chunk() {
		hi := min(lo+o.chunk(), len(t.nll))
		z := o.logits(t, rows[lo*w.K:], hi-lo)
		t.losses = lossTask{z: z, v: w.N, at: t.targetRows[lo:hi], targets: t.batch.Targets, nll: t.nll[lo:hi], gradient: t.training}
		kernel.Parallel(hi-lo, 1, &t.losses)
		if t.training {
			kernel.Mul(grads[lo*w.K:], w.K, z, w.N, hi-lo, w, false)
		}
	}
}

// logits computes the logits of m rows into the tape's scratch.
func (o *headOp) logits(t *Tape, rows []float32, m int) []float32 {
	w := &o.weight.Matrix
	if need := m * w.N; len(t.logits) < need {
		t.logits = nil
		t.logits = aligned(need)
	}
	z := t.logits[:m*w.N]
	kernel.MulT(z, w.N, rows, w.K, m, w, false)
	return z
}

func (o *headOp) backward(c *call) {
	t := c.tape
	w := &o.weight.Matrix
	if o.weight.Grad != nil {
		o.weightGrad(c)
	}
	if !c.ins[0].wants {
		return
	}
	grads := c.own(len(c.private) - 1)
	dx := c.inGrad(0)
	clear(dx)
	for i, row := range t.targetRows {
		kernel.Scale(dx[int(row)*w.K:][:w.K], grads[i*w.K:][:w.K], t.coef[i])
	}
}

// weightGrad makes the logits again, since forward did not know the weights of the rows.
func (o *headOp) weightGrad(c *call) {
	t, rows := c.tape, c.own(0)
	w := &o.weight.Matrix
	for lo := 0; lo < len(t.nll); lo += o.chunk() {
		hi := min(lo+o.chunk(), len(t.nll))
		z := o.logits(t, rows[lo*w.K:], hi-lo)
		t.losses = lossTask{z: z, v: w.N, at: t.targetRows[lo:hi], targets: t.batch.Targets, nll: t.nll[lo:hi], gradient: true, coef: t.coef[lo:hi]}
		kernel.Parallel(hi-lo, 1, &t.losses)
		kernel.MulTN(o.weight.Grad, w.K, z, w.N, rows[lo*w.K:], w.K, hi-lo, w.N, w.K, 1, true)
	}
}

// lossTask turns rows of logits z (m, v) into losses and, in place, into their gradients
// softmax(z) − onehot(target), times coef where it is given.
type lossTask struct {
	z        []float32
	v        int
	at       []int32 // where the row's target stands in targets
	targets  []int32
	nll      []float32
	gradient bool
	coef     []float32
}

func (l *lossTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		z := l.z[i*l.v : (i+1)*l.v]
		target := l.targets[l.at[i]]
		kernel.LogSoftmax(z, z)
		l.nll[i] = -z[target]
		if l.gradient {
			kernel.Exp(z, z)
			z[target]--
		}
		if l.coef != nil {
			kernel.Scale(z, z, l.coef[i])
		}
	}
}

// NLL returns the negative log likelihoods of the targets of the last Forward, in the order of the
// tokens that have one, and the token each stands at. The slices are valid until the next Forward.
func (t *Tape) NLL() (nll []float32, at []int32) { return t.nll, t.targetRows }

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
