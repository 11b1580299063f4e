package autograd

import (
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds what DoRA (Liu et al. 2024) does to a product: its features are multiplied by
// m/‖W + s·B·A‖, the length of each row a constant in backward.

// Gain multiplies the features of a product and of all that adapters add to it, but not a bias.
type Gain struct {
	Magnitude []float32 // (out), m
	Values    []float32 // (out), m/norm; see Normalize
	Grad      []float32 // in m; nil where it is frozen

	norm []float32 // (out), lengths of the rows of W + s·B·A
	rest []float32 // (out), Values − 1
}

// gainOf is the gain at a place, nil where there is none.
func gainOf(list []*LowRank) *Gain {
	for _, l := range list {
		if l.Gain != nil {
			return l.Gain
		}
	}
	return nil
}

func anyTrained(list []*LowRank) bool { return slices.ContainsFunc(list, (*LowRank).trained) }

func (l *LowRank) trained() bool { return l.GradA != nil }

// Normalize makes the gain what it is for a weight, as products hold it, and the pair's matrices as they
// are now. Tapes do so before every pass for pairs that are trained. table says whether the weight is
// that of a table, (in, out). A row of length 0 stays 0.
func (l *LowRank) Normalize(w *kernel.Matrix, table bool) {
	g := l.Gain
	if len(g.norm) != len(g.Magnitude) {
		n := len(g.Magnitude)
		g.norm, g.rest, g.Values = make([]float32, n), make([]float32, n), make([]float32, n)
	}
	if table {
		kernel.ColumnNorms(g.norm, w, l.A.F32, l.B.F32, l.A.N, l.Scale)
	} else {
		kernel.RowNorms(g.norm, w, l.A.F32, l.B.F32, l.A.N, l.Scale)
	}
	for i, n := range g.norm {
		g.Values[i] = 0
		if n > 0 {
			g.Values[i] = g.Magnitude[i] / n
		}
		g.rest[i] = g.Values[i] - 1
	}
}

// normalize brings the gains of trained adapters up to date.
func (t *Tape) normalize() {
	for place, list := range t.adapters {
		for _, l := range list {
			if l.Gain != nil && l.Gain.Grad != nil {
				l.Normalize(&t.param(t.graph.at(place)).Matrix, place == t.graph.TablePlace())
			}
		}
	}
}

// backward adds to the gradient of the magnitudes of features [lo, lo+n): z (T, n) is the product before
// the gain, dy the gradient of the result.
func (g *Gain) backward(c *call, dy, z kernel.Vec, lo, n int) {
	c.sums = zeros(c.sums, n)
	kernel.ColumnDots(c.sums, dy, z, c.rows())
	g.add(c.sums, lo)
}

// add adds to the gradient of magnitudes from lo on, from that of the values.
func (g *Gain) add(values []float32, lo int) {
	for i, v := range values {
		if n := g.norm[lo+i]; n > 0 {
			g.Grad[lo+i] += v / n
		}
	}
}

// zeros returns n zeros in the memory of x where it is large enough.
func zeros(x []float32, n int) []float32 {
	if cap(x) < n {
		return make([]float32, n)
	}
	x = x[:n]
	clear(x)
	return x
}

// forwardGain makes (x·Wᵀ + Σ terms)∘gain + bias. With dropout, the gain acts on drop(x)·Wᵀ, as PEFT
// has it: x·Wᵀ + (gain − 1)∘(drop(x)·Wᵀ) is gain∘(drop(x)·Wᵀ) + (x − drop(x))·Wᵀ.
func (o *linearOp) forwardGain(c *call, list []*LowRank, g *Gain, bias []float32) {
	x, m, w := c.in(0), c.rows(), &c.weight(o.weight).Matrix
	drops := c.drops(list[0])
	in := x
	if drops {
		in = c.own(dropped)
	}
	lo := 0
	for k := range c.outs {
		y, n := c.output(k), c.outs[k].width
		o.aim(c, list, lo, n)
		kernel.Linear(y, in, m, c.part(w, lo, lo+n), false, c.terms)
		var add []float32
		if bias != nil {
			add = bias[lo : lo+n]
		}
		kernel.ScaleColumns(y, y, m, g.Values[lo:lo+n], add)
		lo += n
	}
	if !drops {
		return
	}
	kernel.Subtract(in, x, in)
	lo = 0
	for k := range c.outs {
		n := c.outs[k].width
		kernel.Linear(c.output(k), in, m, c.part(w, lo, lo+n), true, nil)
		lo += n
	}
}

// aim makes the terms those of columns [lo, lo+n).
func (o *linearOp) aim(c *call, list []*LowRank, lo, n int) {
	for i := range c.terms {
		c.terms[i].W = c.part(&list[i].B, lo, lo+n)
	}
}

// backwardGain is backward with a gain, whose gradient takes the product made again.
func (o *linearOp) backwardGain(c *call, list []*LowRank, g *Gain) {
	m, w := c.rows(), &c.weight(o.weight).Matrix
	wants, drops := c.ins[0].wants, c.drops(list[0])
	lo := 0
	for k := range c.outs {
		dy, n := o.gradient(c, k), c.outs[k].width
		z := c.own(1+len(list)*perAdapter).Slice(0, m*n)
		o.backwardBias(c, dy, lo, n)
		if g.Grad != nil {
			x := c.in(0)
			if drops {
				x = c.own(droppedAgain)
				c.drop(o.place, 0, list[0], x, c.in(0))
			}
			c.terms = c.terms[:0]
			for i, l := range list {
				c.terms = append(c.terms, kernel.Term{H: c.own(i*perAdapter + hidden).F32, Scale: l.Scale})
			}
			o.aim(c, list, lo, n)
			kernel.Linear(z, x, m, c.part(w, lo, lo+n), false, c.terms)
			g.backward(c, dy, z, lo, n)
		}
		c.terms = c.terms[:0]
		kernel.ScaleColumns(z, dy, m, g.Values[lo:lo+n], nil)
		for i, l := range list {
			if wants || l.trained() {
				o.backwardPair(c, z, i, l, lo, n)
			}
		}
		switch {
		case !wants:
		case drops:
			kernel.LinearBackward(c.inGrad(0), dy, m, c.part(w, lo, lo+n), c.ins[0].add || lo > 0, nil)
		default:
			kernel.LinearBackward(c.inGrad(0), z, m, c.part(w, lo, lo+n), c.ins[0].add || lo > 0, c.terms)
		}
		lo += n
	}
	if !wants || !drops {
		return
	}
	d := c.own(droppedAgain)
	lo = 0
	for k := range c.outs {
		dy, n := o.gradient(c, k), c.outs[k].width
		z := c.own(1+len(list)*perAdapter).Slice(0, m*n)
		kernel.ScaleColumns(z, dy, m, g.rest[lo:lo+n], nil)
		kernel.LinearBackward(d, z, m, c.part(w, lo, lo+n), lo > 0, nil)
		lo += n
	}
	kernel.LinearBackward(d, c.own(hiddenGrad), m, &list[0].A, true, nil)
	c.drop(o.place, 0, list[0], d, d)
	kernel.Accumulate(c.inGrad(0), d)
}
