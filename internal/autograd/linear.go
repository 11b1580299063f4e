package autograd

import (
	"github.com/graftml/graft/internal/kernel"
)

// linearOp is a product with the adapters that stand at its place:
//
//	y = x·Wᵀ + b + Σ s·(drop(x)·Aᵀ)·Bᵀ        x is (T, in), y is (T, out)
//
// and with a gain as gain.go says.
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
	o := &linearOp{node: node{ins: []Var{x}}, weight: weight, bias: bias, place: len(g.products)}
	g.products = append(g.products, weight)
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

func (o *linearOp) adapterTrained(t *Tape) bool { return anyTrained(t.adapters[o.place]) }

func (o *linearOp) trained(t *Tape) bool {
	return t.param(o.weight).Grad != nil || o.bias != nil && t.param(o.bias).Grad != nil || o.adapterTrained(t)
}

func (o *linearOp) reads(t *Tape) []Var {
	if t.param(o.weight).Grad != nil || o.adapterTrained(t) {
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

// private: dy in the type of x, then the buffers of each adapter, then, with a gain, one for the product
// made again and for gradients.
func (o *linearOp) private(t *Tape) []buffer {
	out := []buffer{{0, backwardScratch, o.ins[0]}}
	widest := 0
	for _, v := range o.outs {
		widest = max(widest, t.graph.Width(v))
	}
	if t.half && t.training && t.param(o.weight).Grad == nil {
		out[0].width = widest
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
	if gainOf(t.adapters[o.place]) != nil && t.training {
		out = append(out, buffer{widest, backwardScratch, none})
	}
	return out
}

func (o *linearOp) forward(c *call) {
	x, m := c.in(0).Keeping(&c.tape.kept), c.rows()
	c.terms, c.parts = c.terms[:0], c.parts[:0]
	if c.tape.watch != nil {
		c.tape.watch(o.place, x, m)
	}
	if len(c.tape.runs) > 0 {
		o.forwardMixed(c)
		return
	}
	list := c.pairs(o.place)
	for k, l := range list {
		c.terms = append(c.terms, kernel.Term{H: o.makeHidden(c, k, l).F32, Scale: l.Scale})
	}
	bias, w := o.addend(c, list), &c.weight(o.weight).Matrix
	if g := gainOf(list); g != nil {
		o.forwardGain(c, list, g, bias)
		return
	}
	lo := 0
	for k := range c.outs {
		y, n := c.output(k), c.outs[k].width
		if bias != nil {
			row := kernel.F32Vec(bias[lo : lo+n])
			for i := range m {
				kernel.Copy(y.Slice(i*n, (i+1)*n), row)
			}
		}
		o.aim(c, list, lo, n)
		kernel.Linear(y, x, m, c.part(w, lo, lo+n), bias != nil, c.terms)
		lo += n
	}
}

// addend is what is added to every row, nil where nothing is.
func (o *linearOp) addend(c *call, list []*LowRank) (bias []float32) {
	if o.bias != nil {
		bias = c.weight(o.bias).Matrix.F32
	}
	return c.addBiases(bias, list, o.weight.Matrix.N)
}

// addBiases is bias (n), or zeros where that is nil, with those of adapters; bias itself where they have none.
func (c *call) addBiases(bias []float32, list []*LowRank, n int) []float32 {
	own := false
	for _, l := range list {
		if l.Bias == nil {
			continue
		}
		if !own {
			c.bias, own = zeros(c.bias, n), true
			copy(c.bias, bias)
			bias = c.bias
		}
		kernel.AddScaled(bias, l.Bias, l.Scale)
	}
	return bias
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
	in, h := c.in(0).Keeping(&c.tape.kept), c.own(k*perAdapter+hidden)
	if c.drops(l) {
		in = c.own(k*perAdapter + dropped)
		c.drop(o.place, k, l, in, c.in(0))
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
	m, in, w := c.rows(), o.weight.Matrix.K, c.weight(o.weight)
	c.terms, c.parts = c.terms[:0], c.parts[:0]
	wants, list := c.ins[0].wants, c.pairs(o.place)
	if g := gainOf(list); g != nil {
		o.backwardGain(c, list, g)
		return
	}
	lo := 0
	for k := range c.outs {
		c.tape.kept.Drop()
		dy, n := o.gradient(c, k).Keeping(&c.tape.kept), c.outs[k].width
		if w.Grad != nil {
			kernel.WeightGradient(w.Grad[lo*in:(lo+n)*in], in, dy, n, c.in(0), in, m, n, in, 1, true)
		}
		o.backwardBias(c, dy, lo, n)
		for i, l := range list {
			if wants || l.trained() {
				o.backwardPair(c, dy, i, l, lo, n)
			}
		}
		if wants {
			kernel.LinearBackward(c.inGrad(0), dy, m, c.part(&w.Matrix, lo, lo+n), c.ins[0].add || lo > 0, c.terms)
		}
		lo += n
	}
	if !wants {
		return
	}
	for k, l := range list {
		if c.drops(l) {
			d := c.own(k*perAdapter + droppedAgain)
			kernel.LinearBackward(d, c.own(k*perAdapter+hiddenGrad), m, &l.A, false, nil)
			c.drop(o.place, k, l, d, d)
			kernel.Accumulate(c.inGrad(0), d)
		}
	}
}

// backwardBias adds to the gradient of the product's own bias what columns [lo, lo+n) give.
func (o *linearOp) backwardBias(c *call, dy kernel.Vec, lo, n int) {
	if o.bias == nil || c.weight(o.bias).Grad == nil {
		return
	}
	bias := kernel.F32Vec(c.weight(o.bias).Grad[lo : lo+n])
	for i := range c.rows() {
		kernel.Accumulate(bias, dy.Slice(i*n, (i+1)*n))
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
	if l.GradBias != nil {
		c.sums = zeros(c.sums, n)
		kernel.ColumnDots(c.sums, dy, kernel.Vec{}, m)
		kernel.AddScaled(l.GradBias[lo:lo+n], c.sums, l.Scale)
	}
	if lo+n < o.weight.Matrix.N {
		return
	}
	kernel.Scale(dh.F32, dh.F32, l.Scale)
	drops := c.drops(l)
	if l.trained() {
		x := c.in(0)
		if drops {
			x = c.own(k*perAdapter + droppedAgain)
			c.drop(o.place, k, l, x, c.in(0))
		}
		kernel.WeightGradient(l.GradA, in, dh, r, x, in, m, r, in, 1, true)
	}
	if !drops {
		c.terms = append(c.terms, kernel.Term{H: dh.F32, W: &l.A, Scale: 1})
	}
}

func (c *call) drops(l *LowRank) bool { return l.Dropout > 0 && c.tape.dropKey != 0 }

// drop sets dst = src ∘ mask / (1 − p) with the mask of adapter k at a place. dst may be src.
func (c *call) drop(place, k int, l *LowRank, dst, src kernel.Vec) {
	kernel.Dropout(dst, src, l.Dropout, mix(c.tape.dropKey+mix(uint64(place)<<16+uint64(k)+1)))
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014) after one step of its counter.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
