package autograd

import (
	"sync"
	"sync/atomic"

	"github.com/graftml/graft/internal/kernel"
)

// Angles holds the cosines and sines of rotary positions, made as far as they are needed.
type Angles struct {
	half  int
	fill  func(cos, sin []float32)
	table atomic.Pointer[angleTable]
	grows sync.Mutex
}

type angleTable struct{ cos, sin []float32 } // (positions, half) each

// NewAngles returns the angles of half frequencies. Fill sets cos and sin, (positions, half) each,
// from position 0 on.
func NewAngles(half int, fill func(cos, sin []float32)) *Angles {
	return &Angles{half: half, fill: fill}
}

// upTo returns tables of at least n positions.
func (a *Angles) upTo(n int) *angleTable {
	if t := a.table.Load(); t != nil && len(t.cos) >= n*a.half {
		return t
	}
	a.grows.Lock()
	defer a.grows.Unlock()
	t := a.table.Load()
	if t != nil && len(t.cos) >= n*a.half {
		return t
	}
	size := 256
	for size < n {
		size *= 2
	}
	t = &angleTable{make([]float32, size*a.half), make([]float32, size*a.half)}
	a.fill(t.cos, t.sin)
	a.table.Store(t)
	return t
}

// ropeOp rotates the heads of x (T, heads·headDim) by their positions, in place. Its gradient is the
// opposite rotation.
type ropeOp struct {
	node
	untrained
	heads, headDim int
	angles         *Angles
}

// Rope records a rotation by positions, in the halves layout: feature i of a head with i + headDim/2.
// x must have no other user.
func (g *Graph) Rope(heads, headDim int, angles *Angles, x Var) Var {
	g.want("Rope", x, heads*headDim)
	o := &ropeOp{node: node{ins: []Var{x}}, heads: heads, headDim: headDim, angles: angles}
	if len(g.values[x].uses) > 0 {
		panic("autograd: Rope of a value that has another user")
	}
	o.out = g.value(heads * headDim)
	g.values[o.out].store = g.values[x].store
	return g.add(o)
}

func (o *ropeOp) reads(*Tape) []Var { return nil }

func (o *ropeOp) rotate(c *call, x kernel.Vec, inverse bool) {
	last := int32(0)
	for _, p := range c.tape.positions {
		last = max(last, p)
	}
	t := o.angles.upTo(int(last) + 1)
	kernel.Rope(x, c.rows(), o.heads, o.headDim, c.tape.positions, t.cos, t.sin, 2*o.angles.half, inverse)
}

func (o *ropeOp) forward(c *call) { o.rotate(c, c.output(), false) }

func (o *ropeOp) backward(c *call) { o.rotate(c, c.outGrad(), true) }
