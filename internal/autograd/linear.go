package autograd

import (
	"math"

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
	hidden     = iota // x·Aᵀ (T, r)
	hiddenGrad        // gradient of the product before scaling (T, r)
	dropped           // drop(x) (T, in)
	droppedAgain
	perAdapter
)

func (o *linearOp) private(t *Tape) []buffer {
	var out []buffer
	for _, l := range t.adapters[o.place] {
		keep := forwardScratch
		if l.trained() {
			keep = saved
		}
		drop := 0
		if l.Dropout > 0 && t.training {
			drop = l.A.K
		}
		out = append(out, buffer{l.A.N, keep}, buffer{l.A.N, backwardScratch}, buffer{drop, forwardScratch}, buffer{drop, backwardScratch})
	}
	return out
}

func (o *linearOp) forward(c *call) {
	x, y, m := c.in(0), c.output(), c.rows()
	w := &o.weight.Matrix
	if o.bias != nil {
		for i := range m {
			copy(y[i*w.N:(i+1)*w.N], o.bias.Matrix.F32)
		}
	}
	kernel.MulT(y, w.N, x, w.K, m, w, o.bias != nil)
	if c.tape.off {
		return
	}
	for k, l := range c.tape.adapters[o.place] {
		o.makeHidden(c, k, l)
		kernel.ScaledMulT(y, w.N, c.own(k*perAdapter+hidden), l.A.N, m, &l.B, l.Scale, true)
	}
}

// makeHidden makes drop(x)·Aᵀ of one adapter.
func (o *linearOp) makeHidden(c *call, k int, l *LowRank) {
	in := c.in(0)
	if o.drops(c, l) {
		in = c.own(k*perAdapter + dropped)
		o.drop(c, k, l, in, c.in(0))
	}
	kernel.MulT(c.own(k*perAdapter+hidden), l.A.N, in, l.A.K, c.rows(), &l.A, false)
}

// resave makes what backward reads of the adapters, and not y.
func (o *linearOp) resave(c *call) {
	for k, l := range c.tape.adapters[o.place] {
		if l.trained() {
			o.makeHidden(c, k, l)
		}
	}
}

func (o *linearOp) backward(c *call) {
	dy, m := c.outGrad(), c.rows()
	w := &o.weight.Matrix
	if o.weight.Grad != nil {
		kernel.MulTN(o.weight.Grad, w.K, dy, w.N, c.in(0), w.K, m, w.N, w.K, 1, true)
	}
	if o.bias != nil && o.bias.Grad != nil {
		for i := range m {
			kernel.Add(o.bias.Grad, o.bias.Grad, dy[i*w.N:(i+1)*w.N])
		}
	}
	var dx []float32
	if c.ins[0].wants {
		dx = c.inGrad(0)
		kernel.Mul(dx, w.K, dy, w.N, m, w, c.ins[0].add)
	}
	if c.tape.off {
		return
	}
	for k, l := range c.tape.adapters[o.place] {
		if dx != nil || l.trained() {
			o.backwardAdapter(c, k, l, dx)
		}
	}
}

// backwardAdapter adds to the gradients of one adapter and, unless nil, to dx.
func (o *linearOp) backwardAdapter(c *call, k int, l *LowRank, dx []float32) {
	dy, m, r := c.outGrad(), c.rows(), l.A.N
	n, in := o.weight.Matrix.N, o.weight.Matrix.K
	dh := c.own(k*perAdapter + hiddenGrad)
	kernel.ScaledMul(dh, r, dy, n, m, &l.B, l.Scale, false)
	drops := o.drops(c, l)
	if l.trained() {
		x := c.in(0)
		if drops {
			x = c.own(k*perAdapter + droppedAgain)
			o.drop(c, k, l, x, c.in(0))
		}
		kernel.MulTN(l.GradA, in, dh, r, x, in, m, r, in, 1, true)
		kernel.MulTN(l.GradB, r, dy, n, c.own(k*perAdapter+hidden), r, m, n, r, l.Scale, true)
	}
	switch {
	case dx == nil:
	case drops:
		d := c.own(k*perAdapter + droppedAgain)
		kernel.Mul(d, in, dh, r, m, &l.A, false)
		o.drop(c, k, l, d, d)
		kernel.Add(dx, dx, d)
	default:
		kernel.Mul(dx, in, dh, r, m, &l.A, true)
	}
}

func (o *linearOp) drops(c *call, l *LowRank) bool { return l.Dropout > 0 && c.tape.dropKey != 0 }

// drop sets dst = src ∘ mask / (1 − p) with the mask of adapter k at this place. dst may be src.
func (o *linearOp) drop(c *call, k int, l *LowRank, dst, src []float32) {
	d := &c.tape.dropping
	*d = dropTask{
		dst: dst, src: src,
		key:       mix(c.tape.dropKey + mix(uint64(o.place)<<16+uint64(k)+1)),
		threshold: uint32(min(float64(l.Dropout)*(1<<32), math.MaxUint32)),
		scale:     1 / (1 - l.Dropout),
	}
	kernel.Parallel(len(dst), dropGrain, d)
	d.dst, d.src = nil, nil
}

// dropTask applies a dropout mask (Srivastava et al. 2014): element i is decided by half i%2 of the
// hash of key and i/2, whoever computes it and whatever was computed before.
type dropTask struct {
	dst, src  []float32
	key       uint64
	threshold uint32
	scale     float32
}

const dropGrain = 4096 // even, so that two elements of one hash meet in one range

func (d *dropTask) Run(lo, hi int) {
	for i := lo; i < hi; i += 2 {
		h := mix(d.key + uint64(i/2))
		d.set(i, uint32(h))
		if i+1 < hi {
			d.set(i+1, uint32(h>>32))
		}
	}
}

func (d *dropTask) set(i int, u uint32) {
	if u < d.threshold {
		d.dst[i] = 0
	} else {
		d.dst[i] = d.src[i] * d.scale
	}
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood 2014) after one step of its counter.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
