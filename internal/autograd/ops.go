package autograd

import (
	"github.com/graftml/graft/internal/kernel"
)

// This file holds the operations that are a few lines each way.

// untrained is embedded by operations without parameters and private memory.
type untrained struct{}

func (untrained) trained(*Tape) bool     { return false }
func (untrained) private(*Tape) []buffer { return nil }

// embedOp is a lookup in a table: tokens (T) → (T, C).
type embedOp struct {
	node
	table *Weight // (V, C)
}

// Embed records a lookup of the batch's tokens in a table (vocabulary, width).
func (g *Graph) Embed(table *Weight) Var {
	o := &embedOp{table: table}
	o.out = g.value(table.Matrix.K)
	return g.add(o)
}

func (o *embedOp) trained(*Tape) bool     { return o.table.Grad != nil }
func (o *embedOp) reads(*Tape) []Var      { return nil }
func (o *embedOp) private(*Tape) []buffer { return nil }

func (o *embedOp) forward(c *call) {
	kernel.EmbedRows(c.output().F32, &o.table.Matrix, c.tape.batch.Tokens)
}

func (o *embedOp) backward(c *call) {
	if o.table.Grad != nil {
		kernel.EmbedBackward(o.table.Grad, c.outGrad().F32, c.tape.batch.Tokens, c.out.width)
	}
}

// normOp is a root-mean-square norm over groups of width features: x (T, C) → (T, C). It is
// computed again for the backward pass: two passes over x cost less than keeping y.
type normOp struct {
	node
	gain *Weight // (1, width)
	eps  float32
}

// RMSNorm records x / sqrt(mean(x²) + eps) · gain, over groups of as many features as gain has.
func (g *Graph) RMSNorm(gain *Weight, eps float32, x Var) Var {
	if g.Width(x)%gain.Matrix.K != 0 {
		g.want("norm", x, gain.Matrix.K)
	}
	o := &normOp{node: node{ins: []Var{x}, cheap: true, joint: true}, gain: gain, eps: eps}
	o.out = g.value(g.Width(x))
	return g.add(o)
}

func (o *normOp) trained(*Tape) bool { return o.gain.Grad != nil }
func (o *normOp) reads(*Tape) []Var  { return o.ins }

// groups is the number of rows of the gain's width in a token's features.
func (o *normOp) groups(c *call) int { return c.out.width / o.gain.Matrix.K }

// private: the reciprocal root mean squares, (T, groups).
func (o *normOp) private(t *Tape) []buffer {
	return []buffer{{t.graph.Width(o.out) / o.gain.Matrix.K, saved, none}}
}

func (o *normOp) forward(c *call) {
	kernel.RMSNorm(c.output(), c.in(0), o.gain.Matrix.F32, c.rows()*o.groups(c), o.gain.Matrix.K, o.eps, c.own(0).F32, 0)
}

func (o *normOp) backward(c *call) {
	kernel.RMSNormBackward(c.inGrad(0), c.outGrad(), c.in(0), o.gain.Matrix.F32, c.own(0).F32, c.rows()*o.groups(c), o.gain.Matrix.K, 0, c.ins[0].add, o.gain.Grad)
}

// gatedOp is silu(gate) ∘ up, (T, C) each. Like a norm it is computed again.
type gatedOp struct {
	node
	untrained
}

// SwiGLU records silu(gate) ∘ up. The operands must have no other users.
func (g *Graph) SwiGLU(gate, up Var) Var {
	g.want("SwiGLU", up, g.Width(gate))
	o := &gatedOp{node: node{ins: []Var{gate, up}, cheap: true, joint: true}}
	o.out = g.value(g.Width(gate))
	return g.add(o)
}

func (o *gatedOp) reads(*Tape) []Var { return o.ins }

func (o *gatedOp) forward(c *call) { kernel.GLU(kernel.SiLU, c.output(), c.in(0), c.in(1)) }

func (o *gatedOp) backward(c *call) {
	kernel.GLUBackward(kernel.SiLU, c.inGrad(0), c.inGrad(1), c.outGrad(), c.in(0), c.in(1))
}

// addOp is a + b. Where the plan can arrange it, the gradients of both are that of the sum itself.
type addOp struct {
	node
	untrained
}

// Add records a + b.
func (g *Graph) Add(a, b Var) Var {
	g.want("sum", b, g.Width(a))
	o := &addOp{node: node{ins: []Var{a, b}}}
	o.out = g.value(g.Width(a))
	return g.add(o)
}

func (o *addOp) reads(*Tape) []Var { return nil }

func (o *addOp) forward(c *call) { kernel.Add(c.output().F32, c.in(0).F32, c.in(1).F32) }

func (o *addOp) backward(c *call) {
	dy := c.outGrad().F32
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
