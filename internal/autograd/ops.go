package autograd

import (
	"github.com/graftml/graft/internal/kernel"
)

// This file holds the operations that are a few lines each way.

// untrained is embedded by operations without parameters and private memory.
type untrained struct{}

func (untrained) trained(*Tape) bool     { return false }
func (untrained) private(*Tape) []buffer { return nil }

// normOp is a root-mean-square norm over groups of width features: x (T, C) → (T, C). It is
// computed again for the backward pass: two passes over x cost less than keeping y.
type normOp struct {
	node
	gain        *Weight // (1, width)
	eps, offset float32
}

// RMSNorm records x / sqrt(mean(x²) + eps) · (gain + offset), over groups of as many features as gain
// has.
func (g *Graph) RMSNorm(gain *Weight, eps, offset float32, x Var) Var {
	if g.Width(x)%gain.Matrix.K != 0 {
		g.want("norm", x, gain.Matrix.K)
	}
	o := &normOp{node: node{ins: []Var{x}, cheap: true, joint: true}, gain: gain, eps: eps, offset: offset}
	g.makes(&o.node, g.Width(x))
	return g.add(o)
}

func (o *normOp) trained(t *Tape) bool { return t.param(o.gain).Grad != nil }
func (o *normOp) reads(*Tape) []Var    { return o.ins }

// groups is the number of rows of the gain's width in a token's features.
func (o *normOp) groups(c *call) int { return c.outs[0].width / o.gain.Matrix.K }

// private: the reciprocal root mean squares, (T, groups).
func (o *normOp) private(t *Tape) []buffer {
	return []buffer{{t.graph.Width(o.out()) / o.gain.Matrix.K, saved, none}}
}

func (o *normOp) forward(c *call) {
	if len(c.tape.runs) > 0 {
		o.forwardMixed(c)
		return
	}
	kernel.RMSNorm(c.output(0), c.in(0), c.weight(o.gain).Matrix.F32, c.rows()*o.groups(c), o.gain.Matrix.K, o.eps, c.own(0).F32, o.offset)
}

func (o *normOp) backward(c *call) {
	gain := c.weight(o.gain)
	kernel.RMSNormBackward(c.inGrad(0), c.outGrad(0), c.in(0), gain.Matrix.F32, c.own(0).F32, c.rows()*o.groups(c), gain.Matrix.K, o.offset, c.ins[0].add, gain.Grad)
}

// gatedOp is act(gate) ∘ up, (T, C) each. Like a norm it is computed again.
type gatedOp struct {
	node
	untrained
	act kernel.Act
}

// Gated records act(gate) ∘ up. The operands must have no other users.
func (g *Graph) Gated(act kernel.Act, gate, up Var) Var {
	g.want("gated unit", up, g.Width(gate))
	o := &gatedOp{node: node{ins: []Var{gate, up}, cheap: true, joint: true}, act: act}
	g.makes(&o.node, g.Width(gate))
	return g.add(o)
}

func (o *gatedOp) reads(*Tape) []Var { return o.ins }

func (o *gatedOp) forward(c *call) { kernel.GLU(o.act, c.output(0), c.in(0), c.in(1)) }

func (o *gatedOp) backward(c *call) {
	kernel.GLUBackward(o.act, c.inGrad(0), c.inGrad(1), c.outGrad(0), c.in(0), c.in(1))
}

// scaleOp is x·by: in place, unless the operation that made x reads it backward. Its gradient has a
// buffer of its own, for that of its value may be that of a sum, which others read.
type scaleOp struct {
	node
	untrained
	by float32
}

// Scale records x·by. x must have no other user.
func (g *Graph) Scale(by float32, x Var) Var {
	g.wantAlone("Scale", x)
	o := &scaleOp{node: node{ins: []Var{x}}, by: by}
	if _, reads := g.ops[g.values[x].from].(*attentionOp); reads {
		g.makes(&o.node, g.Width(x))
	} else {
		g.inPlace(&o.node)
	}
	return g.add(o)
}

func (o *scaleOp) reads(*Tape) []Var { return nil }

func (o *scaleOp) forward(c *call) { kernel.ScaleVec(c.output(0), c.in(0), o.by) }

func (o *scaleOp) backward(c *call) { kernel.ScaleVec(c.inGrad(0), c.outGrad(0), o.by) }

// addOp is a + b. Where the plan can arrange it, the gradients of both are that of the sum itself.
type addOp struct {
	node
	untrained
}

// Add records a + b.
func (g *Graph) Add(a, b Var) Var {
	g.want("sum", b, g.Width(a))
	o := &addOp{node: node{ins: []Var{a, b}}}
	g.makes(&o.node, g.Width(a))
	return g.add(o)
}

func (o *addOp) reads(*Tape) []Var { return nil }

func (o *addOp) forward(c *call) { kernel.Add(c.output(0).F32, c.in(0).F32, c.in(1).F32) }

func (o *addOp) backward(c *call) {
	dy := c.outGrad(0).F32
	for k := range c.ins {
		in := &c.ins[k]
		switch {
		case !in.wants || in.shared:
		case in.add:
			dx := c.inGrad(k).F32
			kernel.Add(dx, dx, dy)
		default:
			copy(c.inGrad(k).F32, dy)
		}
	}
}
