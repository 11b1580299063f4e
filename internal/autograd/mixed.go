package autograd

import "github.com/graftml/graft/internal/kernel"

// This file runs a batch whose sequences choose their adapters themselves. What is frozen is computed for
// all of them at once, what an adapter adds for the rows of those that chose it. Nothing is differentiated.

// Choice is adapters and weights in place of a tape's own. It must not change while a pass runs.
type Choice struct {
	Adapters [][]*LowRank // by place; nil is none anywhere
	Replaced map[*Weight]*Weight
}

// run is rows [lo, hi) of neighbouring sequences that made the same choice.
type run struct {
	lo, hi int
	*Choice
}

func (r *run) pairs(place int) []*LowRank {
	if r.Adapters == nil {
		return nil
	}
	return r.Adapters[place]
}

func (r *run) weight(w *Weight) *Weight {
	if by := r.Replaced[w]; by != nil {
		return by
	}
	return w
}

// divide finds the runs of a batch.
func (t *Tape) divide(b Batch) {
	t.runs = t.runs[:0]
	if b.Choices == nil {
		return
	}
	if len(b.Choices) != len(b.Seq)-1 || t.training || t.cache != nil {
		panic("autograd: choices of sequences in a pass that trains, continues a cache, or has another number of them")
	}
	for s, choice := range b.Choices {
		lo, hi := int(b.Seq[s]), int(b.Seq[s+1])
		if n := len(t.runs); n > 0 && t.runs[n-1].Choice == choice {
			t.runs[n-1].hi = hi
		} else if hi > lo {
			t.runs = append(t.runs, run{lo, hi, choice})
		}
	}
}

// scratch is room for n values; there is one of each number.
func (t *Tape) scratch(k, n int) []float32 {
	for len(t.hidden) <= k {
		t.hidden = append(t.hidden, nil)
	}
	t.hidden[k] = zeros(t.hidden[k], n)
	return t.hidden[k]
}

// addTerms adds the call's terms to y (rows, n).
func (c *call) addTerms(y kernel.Vec, rows, n int) {
	if len(c.terms) > 0 {
		c.parts = append(c.parts, kernel.Matrix{N: n}) // nothing but the terms
		kernel.Linear(y, kernel.Vec{}, rows, &c.parts[len(c.parts)-1], true, c.terms)
	}
}

// hiddenOf makes terms of a run's adapters on x (rows, in), all of them frozen.
func (c *call) hiddenOf(list []*LowRank, x kernel.Vec, rows int) {
	c.terms = c.terms[:0]
	for k, l := range list {
		h := c.tape.scratch(k, rows*l.A.N)
		kernel.Linear(kernel.F32Vec(h), x, rows, &l.A, false, nil)
		c.terms = append(c.terms, kernel.Term{H: h, W: &l.B, Scale: l.Scale})
	}
}

func (o *linearOp) forwardMixed(c *call) {
	x, in := c.in(0), o.weight.Matrix.K
	c.parts = c.parts[:0]
	lo := 0
	for k := range c.outs {
		n := c.outs[k].width
		kernel.Linear(c.output(k), x, c.rows(), c.part(&o.weight.Matrix, lo, lo+n), false, nil)
		lo += n
	}
	for i := range c.tape.runs {
		r := &c.tape.runs[i]
		list, rows, w := r.pairs(o.place), r.hi-r.lo, r.weight(o.weight)
		own := x.Slice(r.lo*in, r.hi*in)
		c.hiddenOf(list, own, rows)
		var bias, gain []float32
		if o.bias != nil {
			bias = r.weight(o.bias).Matrix.F32
		}
		bias = c.addBiases(bias, list, o.weight.Matrix.N)
		if g := gainOf(list); g != nil {
			gain = g.Values
		}
		lo = 0
		for k := range c.outs {
			n := c.outs[k].width
			y := c.output(k).Slice(r.lo*n, r.hi*n)
			if w != o.weight {
				kernel.Linear(y, own, rows, c.part(&w.Matrix, lo, lo+n), false, nil)
			}
			o.aim(c, list, lo, n)
			c.addTerms(y, rows, n)
			if gain != nil || bias != nil {
				kernel.ScaleColumns(y, y, rows, part(gain, lo, lo+n), part(bias, lo, lo+n))
			}
			lo += n
		}
	}
}

// part is x[lo:hi], nil where x is.
func part(x []float32, lo, hi int) []float32 {
	if x == nil {
		return nil
	}
	return x[lo:hi]
}

func (o *embedOp) forwardMixed(c *call) {
	y, width, tokens := c.output(0).F32, c.outs[0].width, c.tape.batch.Tokens
	kernel.EmbedRows(y, &o.table.Matrix, tokens)
	for i := range c.tape.runs {
		r := &c.tape.runs[i]
		own, ids, list := y[r.lo*width:r.hi*width], tokens[r.lo:r.hi], r.pairs(c.tape.graph.TablePlace())
		if w := r.weight(o.table); w != o.table {
			kernel.EmbedRows(own, &w.Matrix, ids)
		}
		for k, l := range list {
			u := c.tape.scratch(k, len(ids)*l.A.N)
			kernel.GatherColumns(u, l.A.F32, l.A.N, l.A.K, ids)
			kernel.ScaledMulT(own, width, u, l.A.N, len(ids), &l.B, l.Scale, true)
		}
		if g := gainOf(list); g != nil {
			kernel.ScaleColumns(kernel.F32Vec(own), kernel.F32Vec(own), len(ids), g.Values, nil)
		}
	}
}

func (o *normOp) forwardMixed(c *call) {
	k, groups := o.gain.Matrix.K, o.groups(c)
	width := k * groups
	for i := range c.tape.runs {
		r := &c.tape.runs[i]
		kernel.RMSNorm(c.output(0).Slice(r.lo*width, r.hi*width), c.in(0).Slice(r.lo*width, r.hi*width), r.weight(o.gain).Matrix.F32,
			(r.hi-r.lo)*groups, k, o.eps, c.own(0).F32[r.lo*groups:r.hi*groups], o.offset)
	}
}

// forwardMixed makes the losses of the targets, whose rows are gathered: rows (M, C).
func (o *headOp) forwardMixed(c *call, rows kernel.Vec) {
	t, k := c.tape, o.weight.Matrix.K
	lo := 0
	for i := range t.runs {
		r := &t.runs[i]
		hi := lo
		for hi < len(t.targetAt) && int(t.targetAt[hi]) < r.hi {
			hi++
		}
		if hi == lo {
			continue
		}
		own, list := rows.Slice(lo*k, hi*k), r.pairs(t.graph.HeadPlace())
		kernel.CrossEntropy(t.nll[lo:hi], t.lse[lo:hi], nil, nil, own, &r.weight(o.weight).Matrix, o.adaptedRun(c, list, own, hi-lo), t.targets[lo:hi])
		lo = hi
	}
}

// adaptedRun is what adapters do to the products of x (rows, C).
func (o *headOp) adaptedRun(c *call, list []*LowRank, x kernel.Vec, rows int) kernel.LogitSpec {
	for k, l := range list {
		kernel.Linear(kernel.F32Vec(c.tape.scratch(k, rows*l.A.N)), x, rows, &l.A, false, nil)
	}
	return o.adapted(c, list, func(k, _ int) []float32 { return c.tape.hidden[k] })
}

// runOf is the run that a token is in, nil where there are none.
func (t *Tape) runOf(token int) *run {
	for i := range t.runs {
		if token < t.runs[i].hi {
			return &t.runs[i]
		}
	}
	return nil
}
