package autograd

import (
	"github.com/graftml/graft/internal/kernel"
)

// linearOp is a product with the adapters that stand at its place:
//
//	y = x·Wᵀ + b + Σ s·(drop(x)·Aᵀ)·Bᵀ        x is (T, in), y is (T, out)
//
// W itself gets a gradient only in full training.
type linearOp struct {
	node
	weight *Weight // (out, in)
	bias   *Weight // (1, out), or nil
	place  int
}

// Linear records x·Wᵀ, plus bias where it is not nil, plus what the adapters at the next place add.
func (g *Graph) Linear(weight, bias *Weight, x Var) Var {
	g.want("product", x, weight.Matrix.K)
	o := &linearOp{node: node{ins: []Var{x}}, weight: weight, bias: bias, place: g.products}
	g.products++
	o.out = g.value(weight.Matrix.N)
	return g.add(o)
}

func (l *LowRank) trained() bool { return l.GradA != nil }

func (o *linearOp) adapterTrained(t *Tape) bool {
	for _, l := range t.adapters[o.place] {
		if l.trained() {
			return true
		}
	}
	return false
}

func (o *linearOp) trained(t *Tape) bool {
	return o.weight.Grad != nil || o.bias != nil && o.bias.Grad != nil || o.adapterTrained(t)
}

func (o *linearOp) reads(t *Tape) []Var {
	if o.weight.Grad != nil || o.adapterTrained(t) {
		return o.ins
	}
	return nil
}

// The private buffers of one adapter.
const (
	hidden     = iota + 1 // x·Aᵀ (T, r)
	hiddenGrad            // gradient of the product before scaling (T, r)
	dropped               // drop(x) (T, in)
	droppedAgain
	perAdapter = droppedAgain
)

// private: dy in the type of x, then the buffers of each adapter.
func (o *linearOp) private(t *Tape) []buffer {
	out := []buffer{{0, backwardScratch, o.ins[0]}}
	if t.half && t.training && o.weight.Grad == nil {
		out[0].width = o.weight.Matrix.N
	}
	for _, l := range t.adapters[o.place] {
		keep := forwardScratch
		if l.trained() {
			keep = saved
		}
		drop := 0
		if l.Dropout > 0 && t.training {
			drop = l.A.K
		}
		out = append(out, buffer{l.A.N, keep, none}, buffer{l.A.N, backwardScratch, none},
			buffer{drop, forwardScratch, o.ins[0]}, buffer{drop, backwardScratch, o.ins[0]})
	}
	return out
}

func (o *linearOp) forward(c *call) {
	x, y, m := c.in(0), c.output(), c.rows()
	w := &o.weight.Matrix
	if c.tape.watch != nil {
		c.tape.watch(o.place, x, m)
	}
	if o.bias != nil {
		bias := kernel.F32Vec(o.bias.Matrix.F32)
		for i := range m {
			kernel.Copy(y.Slice(i*w.N, (i+1)*w.N), bias)
		}
	}
	c.terms = c.terms[:0]
	if !c.tape.off {
		for k, l := range c.tape.adapters[o.place] {
			c.terms = append(c.terms, kernel.Term{H: o.makeHidden(c, k, l).F32, W: &l.B, Scale: l.Scale})
		}
	}
	kernel.Linear(y, x, m, w, o.bias != nil, c.terms)
}

// makeHidden makes drop(x)·Aᵀ of one adapter.
func (o *linearOp) makeHidden(c *call, k int, l *LowRank) kernel.Vec {
	in, h := c.in(0), c.own(k*perAdapter+hidden)
	if o.drops(c, l) {
		in = c.own(k*perAdapter + dropped)
		o.drop(c, k, l, in, c.in(0))
	}
	kernel.Linear(h, in, c.rows(), &l.A, false, nil)
	return h
}

// resave makes what backward reads of the adapters, and not y.
func (o *linearOp) resave(c *call) {
	for k, l := range c.tape.adapters[o.place] {
		if l.trained() {
			o.makeHidden(c, k, l)
		}
	}
}

// gradient is that of y, rounded once for all who read it where the products round it anyway.
func (o *linearOp) gradient(c *call) kernel.Vec {
	dy := c.outGrad()
	if c.private[0].width == 0 || dy.Half() || !c.own(0).Half() {
		return dy
	}
	kernel.Copy(c.own(0), dy)
	return c.own(0)
}

func (o *linearOp) backward(c *call) {
	dy, m := o.gradient(c), c.rows()
	w := &o.weight.Matrix
	if o.weight.Grad != nil {
		kernel.WeightGradient(o.weight.Grad, w.K, dy, w.N, c.in(0), w.K, m, w.N, w.K, 1, true)
	}
	if o.bias != nil && o.bias.Grad != nil {
		bias := kernel.F32Vec(o.bias.Grad)
		for i := range m {
			kernel.Accumulate(bias, dy.Slice(i*w.N, (i+1)*w.N))
		}
	}
	c.terms = c.terms[:0]
	wants := c.ins[0].wants
	if !c.tape.off {
		for k, l := range c.tape.adapters[o.place] {
			if wants || l.trained() {
				o.backwardPair(c, dy, k, l)
			}
		}
	}
	if !wants {
		return
	}
	dx := c.inGrad(0)
	kernel.LinearBackward(dx, dy, m, w, c.ins[0].add, c.terms)
	if c.tape.off {
		return
	}
	for k, l := range c.tape.adapters[o.place] {
		if o.drops(c, l) {
			d := c.own(k*perAdapter + droppedAgain)
			kernel.LinearBackward(d, c.own(k*perAdapter+hiddenGrad), m, &l.A, false, nil)
			o.drop(c, k, l, d, d)
			kernel.Accumulate(dx, d)
		}
	}
}

// backwardPair adds to the gradients of one adapter, and names what it adds to dx where no mask comes
// in between.
func (o *linearOp) backwardPair(c *call, dy kernel.Vec, k int, l *LowRank) {
	m, r := c.rows(), l.A.N
	n, in := o.weight.Matrix.N, o.weight.Matrix.K
	dh := c.own(k*perAdapter + hiddenGrad)
	kernel.LinearBackward(dh, dy, m, &l.B, false, nil)
	kernel.Scale(dh.F32, dh.F32, l.Scale)
	drops := o.drops(c, l)
	if l.trained() {
		x := c.in(0)
		if drops {
			x = c.own(k*perAdapter + droppedAgain)
			o.drop(c, k, l, x, c.in(0))
		}
		kernel.WeightGradient(l.GradA, in, dh, r, x, in, m, r, in, 1, true)
		kernel.WeightGradient(l.GradB, r, dy, n, c.own(k*perAdapter+hidden), r, m, n, r, l.Scale, true)
	}
	if !drops {
		c.terms = append(c.terms, kernel.Term{H: dh.F32, W: &l.A, Scale: 1})
	}
}

func (o *linearOp) drops(c *call, l *LowRank) bool { return l.Dropout > 0 && c.tape.dropKey != 0 }

// drop sets dst = src ∘ mask / (1 − p) with the mask of adapter k at this place. dst may be src.
func (o *linearOp) drop(c *call, k int, l *LowRank, dst, src kernel.Vec) {
	kernel.Dropout(dst, src, l.Dropout, mix(c.tape.dropKey+mix(uint64(o.place)<<16+uint64(k)+1)))
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014) after one step of its counter.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
