package autograd

// This file says what of a pass is not kept for backward but computed again, besides what is cheap:
// whole blocks, of which only the input survives the forward pass (Chen et al. 2016).

// block is a run of operations, up to the next block, whose only input from before is one value.
type block struct {
	input Var
	first int // operation
}

// Block records that a block begins here whose only input is x. It ends where the next one begins;
// the last one reaches to the end of the graph.
func (g *Graph) Block(x Var) { g.blocks = append(g.blocks, block{input: x, first: len(g.ops)}) }

// SetRemat makes the tape compute the first n blocks that backward passes through again, n at most
// RematBlocks. The first ones, because backward comes to them when what the others kept is free.
func (t *Tape) SetRemat(n int) {
	t.remat = n
	t.plan = nil
}

// RematBlocks returns how many blocks there are to compute again: all that backward passes through
// but the last, whose values are the first that backward reads, so that making them twice would
// free no memory.
func (t *Tape) RematBlocks() int {
	first, n := t.rematFirst(differentiated(t))
	return n - first
}

// rematFirst returns the first block that backward passes through, and the number of blocks that
// can be computed again with those before it.
func (t *Tape) rematFirst(needs []bool) (first, n int) {
	blocks := t.graph.blocks
	n = max(0, len(blocks)-1)
	for first < n {
		for i := blocks[first].first; i < blocks[first+1].first; i++ {
			if out := t.graph.ops[i].base().out(); out != none && needs[out] {
				return first, n
			}
		}
		first++
	}
	return first, n
}

// differentiated reports for each value whether its gradient is computed: it leads to something
// trained.
func differentiated(t *Tape) []bool {
	needs := make([]bool, len(t.graph.values))
	for _, o := range t.graph.ops {
		b := o.base()
		need := o.trained(t)
		for _, v := range b.ins {
			need = need || needs[v]
		}
		for _, v := range b.outs {
			needs[v] = need
		}
	}
	return needs
}

// chooseAgain decides which operations' outputs are made again where backward reads them: p.again,
// and among those the ones whose private buffers are not kept either: p.dropped.
func (p *plan) chooseAgain(t *Tape, needs []bool) {
	g := t.graph
	p.again, p.dropped = make([]bool, len(g.ops)), make([]bool, len(g.ops))
	for i, o := range g.ops {
		p.again[i] = o.base().cheap
	}
	first, n := t.rematFirst(needs)
	n = min(n, first+t.remat)
	for k := first; k < n; k++ {
		for i := g.blocks[k].first; i < g.blocks[k+1].first; i++ {
			p.again[i], p.dropped[i] = true, true
		}
	}
	for k := first; k <= n && k < len(g.blocks); k++ { // what survives: the input of each, and what follows the last
		p.again[g.values[g.blocks[k].input].from] = false
	}
}

// resaver is an operation that can make its saved private buffers again without making its output.
type resaver interface {
	resave(c *call)
}

// makeSavedAgain plans making what operation i saved, but for its output, which nobody reads. An
// operation that cannot do so keeps what it saved.
func (p *plan) makeSavedAgain(t *Tape, i int) {
	if _, ok := t.graph.ops[i].(resaver); !ok {
		return
	}
	saves := false
	for _, b := range p.calls[i].private {
		saves = saves || b.life == saved
	}
	if saves {
		p.steps = append(p.steps, step{phase: resave, op: i})
		p.touchInputs(i)
		p.touchPrivate(i)
	}
}
