package autograd

import (
	"github.com/graftml/graft/internal/kernel"
)

// linearOp is a product with the adapters that stand at its place:
//
//	y = x·Wᵀ + b + Σ s·(drop(x)·Aᵀ)·Bᵀ        x is (T, in), y is (T, out)
//
// W itself gets a gradient only in full training. A product that is cut makes several values, each
// from the rows of W, b and B that belong to it, so that the whole never exists.
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
	g.makes(&o.node, weight.Matrix.N)
	return g.add(o)
}

// Split makes a product, which has no user yet, make values of the given widths in its stead: its
// columns in order.
func (g *Graph) Split(x Var, widths ...int) []Var {
	g.wantAlone("Split", x)
	o, ok := g.ops[g.values[x].from].(*linearOp)
	if !ok {
		panic("autograd: Split of what is no product")
	}
	o.outs = nil
	sum := 0
	for _, w := range widths {
		g.values = append(g.values, value{width: w, store: len(g.values), from: g.values[x].from})
		o.outs = append(o.outs, Var(len(g.values)-1))
		sum += w
	}
	g.want("Split", x, sum)
	return o.outs
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
		for _, v := range o.outs {
			out[0].width = max(out[0].width, t.graph.Width(v))
		}
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
	x, m := c.in(0), c.rows()
	c.terms, c.parts = c.terms[:0], c.parts[:0]
	if c.tape.watch != nil {
		c.tape.watch(o.place, x, m)
	}
	if !c.tape.off {
		for k, l := range c.tape.adapters[o.place] {
			c.terms = append(c.terms, kernel.Term{H: o.makeHidden(c, k, l).F32, Scale: l.Scale})
		}
	}
	lo := 0
	for k := range c.outs {
		y, n := c.output(k), c.outs[k].width
		if o.bias != nil {
			bias := kernel.F32Vec(o.bias.Matrix.F32[lo : lo+n])
			for i := range m {
				kernel.Copy(y.Slice(i*n, (i+1)*n), bias)
			}
		}
		for i := range c.terms {
			c.terms[i].W = c.part(&c.tape.adapters[o.place][i].B, lo, lo+n)
		}
		kernel.Linear(y, x, m, c.part(&o.weight.Matrix, lo, lo+n), o.bias != nil, c.terms)
		lo += n
	}
}

// part is rows [lo, hi) of w.
func (c *call) part(w *kernel.Matrix, lo, hi int) *kernel.Matrix {
	if lo == 0 && hi == w.N {
		return w
	}
	c.parts = append(c.parts, w.Rows(lo, hi))
	return &c.parts[len(c.parts)-1]
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

// gradient is that of value k, rounded once for all who read it where the products round it anyway.
func (o *linearOp) gradient(c *call, k int) kernel.Vec {
	dy := c.outGrad(k)
	if c.private[0].width == 0 || dy.Half() || !c.own(0).Half() {
		return dy
	}
	rounded := c.own(0).Slice(0, dy.Len())
	kernel.Copy(rounded, dy)
	return rounded
}

func (o *linearOp) backward(c *call) {
	m, in := c.rows(), o.weight.Matrix.K
	c.terms, c.parts = c.terms[:0], c.parts[:0]
	wants := c.ins[0].wants
	lo := 0
	for k := range c.outs {
		dy, n := o.gradient(c, k), c.outs[k].width
		if o.weight.Grad != nil {
			kernel.WeightGradient(o.weight.Grad[lo*in:(lo+n)*in], in, dy, n, c.in(0), in, m, n, in, 1, true)
		}
		if o.bias != nil && o.bias.Grad != nil {
			bias := kernel.F32Vec(o.bias.Grad[lo : lo+n])
			for i := range m {
				kernel.Accumulate(bias, dy.Slice(i*n, (i+1)*n))
			}
		}
		if !c.tape.off {
			for i, l := range c.tape.adapters[o.place] {
				if wants || l.trained() {
					o.backwardPair(c, dy, i, l, lo, n)
				}
			}
		}
		if wants {
			kernel.LinearBackward(c.inGrad(0), dy, m, c.part(&o.weight.Matrix, lo, lo+n), c.ins[0].add || lo > 0, c.terms)
		}
		lo += n
	}
	if !wants || c.tape.off {
		return
	}
	for k, l := range c.tape.adapters[o.place] {
		if o.drops(c, l) {
			d := c.own(k*perAdapter + droppedAgain)
			kernel.LinearBackward(d, c.own(k*perAdapter+hiddenGrad), m, &l.A, false, nil)
			o.drop(c, k, l, d, d)
			kernel.Accumulate(c.inGrad(0), d)
		}
	}
}

// backwardPair adds to the gradients of one adapter what the value of columns [lo, lo+n) gives. With
// the last of the values, it names what the adapter adds to dx where no mask comes in between.
func (o *linearOp) backwardPair(c *call, dy kernel.Vec, k int, l *LowRank, lo, n int) {
	m, r := c.rows(), l.A.N
	in := o.weight.Matrix.K
	dh := c.own(k*perAdapter + hiddenGrad)
	kernel.LinearBackward(dh, dy, m, c.part(&l.B, lo, lo+n), lo > 0, nil)
	if l.trained() {
		kernel.WeightGradient(l.GradB[lo*r:(lo+n)*r], r, dy, n, c.own(k*perAdapter+hidden), r, m, n, r, l.Scale, true)
	}
	if lo+n < o.weight.Matrix.N {
		return
	}
	kernel.Scale(dh.F32, dh.F32, l.Scale)
	drops := o.drops(c, l)
	if l.trained() {
		x := c.in(0)
		if drops {
			x = c.own(k*perAdapter + droppedAgain)
			o.drop(c, k, l, x, c.in(0))
		}
		kernel.WeightGradient(l.GradA, in, dh, r, x, in, m, r, in, 1, true)
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
