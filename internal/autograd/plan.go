package autograd

import (
	"cmp"
	"slices"
)

// This file decides, before anything runs, in which order operations run forward and backward,
// which values are computed twice, and where in the arena everything lies.
//
// A buffer is alive over runs of steps, its segments. A value that backward reads has one segment
// from its making to its last use; one that is cheap, or of a block that is computed again (remat.go),
// has two, and is computed again at the start of the second. Segments that are never alive together
// share memory, so gradients cost a few buffers for the whole model. All sizes are columns: bytes are
// columns times tokens times four.

type phase int

const (
	forward phase = iota
	recompute
	resave // recompute only what the operation keeps for itself
	backward
)

type step struct {
	phase phase
	op    int
	binds []bind // where buffers lie from this step on
}

type bind struct{ buffer, column int }

type segment struct {
	buffer      int
	first, last int // steps
	columns     int
	column      int // decided by place
}

type plan struct {
	half    []bool // by buffer: held in bfloat16
	steps   []step
	split   int // number of forward steps
	columns int // columns of the arena
	calls   []call
	buffers int

	segs    []segment
	current []int  // buffer → segment alive now, −1 before the first
	again   []bool // operation → what it makes is not kept but made again
	dropped []bool // operation → neither is what it saves for itself
	made    []bool // operation → it has been made again
}

// pad returns the columns set aside for a buffer: whole cache lines for any number of tokens.
func pad(width int) int { return (width + 15) &^ 15 }

// newPlan lays out forward and, with training, backward.
func newPlan(t *Tape, training bool) *plan {
	g := t.graph
	p := &plan{}
	p.number(t)
	for i := range g.ops {
		p.touchForward(t, forward, i)
	}
	p.split = len(p.steps)
	if training {
		p.planBackward(t)
	}
	p.place()
	return p
}

// number gives every buffer a number: values, their gradients, then what operations have privately.
func (p *plan) number(t *Tape) {
	g := t.graph
	n := len(g.values)
	p.calls = make([]call, len(g.ops))
	p.buffers = 2 * n
	for i, o := range g.ops {
		c := &p.calls[i]
		c.tape, c.op = t, o
		b := o.base()
		for _, v := range b.ins {
			c.ins = append(c.ins, operand{value: g.values[v].store, grad: n + int(v), width: g.values[v].width})
		}
		for _, v := range b.outs {
			c.outs = append(c.outs, operand{value: g.values[v].store, grad: n + int(v), width: g.values[v].width})
		}
		for _, buf := range o.private(t) {
			c.private = append(c.private, slot{buffer: buf, id: p.buffers})
			p.buffers++
		}
	}
	p.current = make([]int, p.buffers)
	for i := range p.current {
		p.current[i] = -1
	}
	p.half = make([]bool, p.buffers)
	if t.half {
		p.chooseTypes(g)
	}
}

// chooseTypes decides what is held in bfloat16: values that products, attention and gated units make
// or norms make for them, but not the residual stream, whose sums would lose what single blocks add;
// and the gradients of those that one operation alone reads, so that they are written once.
func (p *plan) chooseTypes(g *Graph) {
	n := len(g.values)
	for v := range g.values {
		p.half[v] = true
	}
	for _, val := range g.values { // several may have one store
		switch g.ops[val.from].(type) {
		case *embedOp, *addOp:
			p.half[val.store] = false
		}
		for _, use := range val.uses {
			if _, sum := g.ops[use].(*addOp); sum {
				p.half[val.store] = false
			}
		}
	}
	for v, val := range g.values {
		grad := p.half[val.store] && len(val.uses) == 1
		for _, use := range val.uses {
			switch o := g.ops[use].(type) {
			case *headOp:
				grad = false
			case *linearOp:
				grad = grad && len(o.outs) == 1
			}
		}
		p.half[n+v] = grad
	}
	for i := range p.calls {
		for _, s := range p.calls[i].private {
			p.half[s.id] = s.like >= 0 && p.half[g.values[s.like].store]
		}
	}
}

// begin starts a segment of a buffer at the step being planned, the last of p.steps.
func (p *plan) begin(buffer, width int) {
	s := len(p.steps) - 1
	p.current[buffer] = len(p.segs)
	if p.half[buffer] {
		width = (width + 1) / 2
	}
	p.segs = append(p.segs, segment{buffer: buffer, first: s, last: s, columns: pad(width)})
}

func (p *plan) extend(buffer int) { p.segs[p.current[buffer]].last = len(p.steps) - 1 }

// touchForward plans running operation i forward, the first time or again.
func (p *plan) touchForward(t *Tape, ph phase, i int) {
	p.steps = append(p.steps, step{phase: ph, op: i})
	c := &p.calls[i]
	p.touchInputs(i)
	for _, out := range c.outs {
		if !slices.ContainsFunc(c.ins, func(in operand) bool { return in.value == out.value }) { // else computed in place
			p.begin(out.value, out.width)
		}
	}
	p.touchPrivate(i)
}

func (p *plan) touchInputs(i int) {
	for _, in := range p.calls[i].ins {
		p.extend(in.value)
	}
}

// touchPrivate begins the buffers that operation i has for itself and that forward writes.
func (p *plan) touchPrivate(i int) {
	for _, b := range p.calls[i].private {
		if b.life != backwardScratch {
			p.begin(b.id, b.width)
		}
	}
}

// planBackward appends the backward steps: those operations alone whose output's gradient reaches
// something trained.
func (p *plan) planBackward(t *Tape) {
	g := t.graph
	needs := differentiated(t)
	p.chooseAgain(t, needs)
	p.made = make([]bool, len(g.ops))
	written := make([]bool, len(g.values))
	for i := len(g.ops) - 1; i >= 0; i-- {
		b := g.ops[i].base()
		if out := b.out(); out != none && !needs[out] || out == none && !needs[b.ins[0]] && !g.ops[i].trained(t) {
			continue
		}
		for k, v := range b.ins {
			p.calls[i].ins[k].wants = needs[v] || b.joint
		}
		reads := g.ops[i].reads(t)
		for _, v := range reads {
			p.makeAgain(t, v)
		}
		if p.dropped[i] && !p.made[i] {
			p.makeSavedAgain(t, i)
		}
		p.steps = append(p.steps, step{phase: backward, op: i})
		for _, v := range reads {
			p.extend(g.values[v].store)
		}
		p.touchBackward(t, i, written)
	}
}

// makeAgain plans computing v, and what it takes, again if it was not kept.
func (p *plan) makeAgain(t *Tape, v Var) {
	g := t.graph
	i := g.values[v].from
	if !p.again[i] || p.made[i] {
		return
	}
	p.made[i] = true
	for _, in := range g.ops[i].base().ins {
		p.makeAgain(t, in)
	}
	p.touchForward(t, recompute, i)
}

func (p *plan) touchBackward(t *Tape, i int, written []bool) {
	g, c := t.graph, &p.calls[i]
	b := g.ops[i].base()
	for _, out := range c.outs {
		p.extend(out.grad)
	}
	for _, s := range c.private {
		switch s.life {
		case saved:
			p.extend(s.id)
		case backwardScratch:
			p.begin(s.id, s.width)
		}
	}
	for k, v := range b.ins {
		in := &c.ins[k]
		if !in.wants {
			continue
		}
		if !written[v] && p.shares(t, i, k) {
			p.rename(in.grad, c.outs[0].grad)
			in.grad, in.shared, written[v] = c.outs[0].grad, true, true
			p.extend(in.grad)
			continue
		}
		in.add = written[v]
		if in.add && b.joint && len(b.ins) > 1 {
			panic("autograd: an operand of attention or of a gated unit has another user")
		}
		if !written[v] {
			p.begin(in.grad, in.width)
			written[v] = true
		}
		p.extend(in.grad)
	}
}

// shares reports whether the gradient of input k of operation i may be the gradient of the output
// itself: nothing to compute, no memory. That holds for what works in place, and for sums, whose
// first operand goes on to collect gradients from its other users, if the second operand's has been
// read by then.
func (p *plan) shares(t *Tape, i, k int) bool {
	g := t.graph
	switch o := g.ops[i].(type) {
	case *ropeOp:
		return true
	case *addOp:
		a, b := o.ins[0], o.ins[1]
		maker := g.values[b].from
		if len(g.values[b].uses) != 1 || a == b {
			return false
		}
		switch g.ops[maker].(type) {
		case *addOp, *ropeOp: // these hand the same buffer on
			return k == 0 && !p.calls[i].ins[1].shared
		}
		if !p.calls[i].ins[0].wants || !p.calls[i].ins[1].wants {
			return true
		}
		// The second operand's maker must come before, in the backward order, whatever else touches
		// the first one's gradient: its other users, and its own maker.
		if g.values[a].from > maker {
			return k == 0
		}
		for _, use := range g.values[a].uses {
			if use != i && use >= maker {
				return k == 0
			}
		}
		return true
	}
	return false
}

// rename makes every operand that stands for gradient buffer from stand for buffer to.
func (p *plan) rename(from, to int) {
	for i := range p.calls {
		c := &p.calls[i]
		for k := range c.outs {
			if c.outs[k].grad == from {
				c.outs[k].grad = to
			}
		}
		for k := range c.ins {
			if c.ins[k].grad == from {
				c.ins[k].grad = to
			}
		}
	}
}

// place gives every segment its columns, the widest first, each at the lowest place where nothing
// lies that is alive at the same time.
func (p *plan) place() {
	order := make([]int, len(p.segs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.segs[b].columns, p.segs[a].columns),
			cmp.Compare(p.segs[b].last-p.segs[b].first, p.segs[a].last-p.segs[a].first))
	})
	var placed []*segment // by column
	for _, i := range order {
		s := &p.segs[i]
		at := 0
		for _, o := range placed {
			if o.last < s.first || s.last < o.first {
				continue
			}
			if o.column >= at+s.columns {
				break
			}
			at = max(at, o.column+o.columns)
		}
		s.column = at
		p.columns = max(p.columns, at+s.columns)
		k, _ := slices.BinarySearchFunc(placed, s, func(a, b *segment) int { return cmp.Compare(a.column, b.column) })
		placed = slices.Insert(placed, k, s)
	}
	for i := range p.segs {
		s := &p.segs[i]
		p.steps[s.first].binds = append(p.steps[s.first].binds, bind{s.buffer, s.column})
	}
	p.segs, p.current, p.again, p.dropped, p.made = nil, nil, nil, nil, nil
}
