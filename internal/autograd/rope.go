package autograd

import (
	"sync"
	"sync/atomic"

	"github.com/graftml/graft/internal/kernel"
)

// Angles holds the cosines and sines of rotary positions, made as far as they are needed.
type Angles struct {
	half     int
	original int
	fill     func(cos, sin []float32)
	table    atomic.Pointer[angleTable]
	grows    sync.Mutex
}

type angleTable struct{ cos, sin []float32 } // (rows, half) each

// NewAngles returns the angles of half frequencies. Fill sets cos and sin, (rows, half) each; row p
// is position p. Where original is not 0, that holds for sequences of up to so many positions, and
// position p of a longer one is row original + p.
func NewAngles(half, original int, fill func(cos, sin []float32)) *Angles {
	return &Angles{half: half, original: original, fill: fill}
}

// upTo returns tables of at least n rows.
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

// ropeOp rotates the heads of x (T, heads·headDim) by their positions, in place: of each the first
// 2·half features. Its gradient is the opposite rotation, times what lengthened the first.
type ropeOp struct {
	node
	untrained
	heads, headDim int
	angles         *Angles
}

// Rope records a rotation by positions, in the halves layout: feature i of a head with i + half.
// x must have no other user.
func (g *Graph) Rope(heads, headDim int, angles *Angles, x Var) Var {
	g.want("Rope", x, heads*headDim)
	o := &ropeOp{node: node{ins: []Var{x}}, heads: heads, headDim: headDim, angles: angles}
	g.wantAlone("Rope", x)
	g.inPlace(&o.node)
	return g.add(o)
}

func (o *ropeOp) reads(*Tape) []Var { return nil }

func (o *ropeOp) rotate(c *call, x kernel.Vec, inverse bool) {
	places := c.tape.positions
	if o.angles.original > 0 {
		places = c.tape.placesIn(o.angles.original)
	}
	last := int32(0)
	for _, p := range places {
		last = max(last, p)
	}
	t := o.angles.upTo(int(last) + 1)
	kernel.Rope(x, c.rows(), o.heads, o.headDim, places, t.cos, t.sin, 2*o.angles.half, inverse)
}

// placesIn is the row of each token in tables whose sequences of more than original positions have
// rows of their own. The length of one in a cache is that which it will reach.
func (t *Tape) placesIn(original int) []int32 {
	t.places = append(t.places[:0], t.positions...)
	for s, lo := range t.batch.Seq[:len(t.batch.Seq)-1] {
		hi := t.batch.Seq[s+1]
		if lo == hi {
			continue
		}
		length := int(t.positions[hi-1]) + 1
		if t.cache != nil {
			length = max(length, t.cache.reach)
		}
		if length > original {
			for i := lo; i < hi; i++ {
				t.places[i] += int32(original)
			}
		}
	}
	return t.places
}

func (o *ropeOp) forward(c *call) { o.rotate(c, c.output(0), false) }

func (o *ropeOp) backward(c *call) { o.rotate(c, c.outGrad(0), true) }
