package autograd

import (
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// attentionOp is causal grouped-query attention: q (T, Heads·HeadDim), k and v
// (T, KVHeads·HeadDim) → (T, Heads·HeadDim). Scores are never stored: backward computes them again
// from the logarithms of the softmax sums (Dao et al. 2022).
type attentionOp struct {
	node
	untrained
	spec  kernel.AttentionSpec
	layer int
}

// Attention records attention; k and v of a cached pass go to the next layer of the cache. The
// operands must have no other users.
func (g *Graph) Attention(spec kernel.AttentionSpec, q, k, v Var) Var {
	g.want("attention", q, spec.Heads*spec.HeadDim)
	g.want("attention", k, spec.KVHeads*spec.HeadDim)
	g.want("attention", v, spec.KVHeads*spec.HeadDim)
	o := &attentionOp{node: node{ins: []Var{q, k, v}, joint: true}, spec: spec, layer: g.layers}
	g.layers++
	g.makes(&o.node, spec.Heads*spec.HeadDim)
	return g.add(o)
}

func (o *attentionOp) reads(*Tape) []Var { return append(o.ins[:3:3], o.out()) }

// private: logarithms of the softmax sums, (Heads, T).
func (o *attentionOp) private(t *Tape) []buffer {
	if !t.training {
		return nil
	}
	return []buffer{{o.spec.Heads, saved, none}}
}

func (o *attentionOp) forward(c *call) {
	q, k, v, y := c.in(0), c.in(1), c.in(2), c.output(0)
	t := c.tape
	switch {
	case t.cache != nil:
		l := &t.cache.layers[o.layer]
		l.put(k.F32, v.F32, t.cache.length, c.rows())
		kernel.AttentionCached(y.F32, q.F32, l.k, l.v, c.rows(), t.cache.length, t.cache.capacity, o.spec)
	case t.training:
		kernel.Attention(y, c.own(0).F32, q, k, v, t.batch.Seq, o.spec)
	default:
		kernel.Attention(y, nil, q, k, v, t.batch.Seq, o.spec)
	}
}

func (o *attentionOp) backward(c *call) {
	kernel.AttentionBackward(c.inGrad(0), c.inGrad(1), c.inGrad(2), c.outGrad(0),
		c.in(0), c.in(1), c.in(2), c.output(0), c.own(0).F32, c.tape.batch.Seq, o.spec)
}

// Cache holds the keys and values of one sequence, in every layer.
type Cache struct {
	layers           []cacheLayer
	length, capacity int   // tokens
	reach            int   // length that the sequence is taken to have, where rotations depend on it
	switches         []int // lengths above which they do
}

// cacheLayer is (KVHeads, capacity, HeadDim) each.
type cacheLayer struct {
	k, v  []float32
	heads int
	dim   int
}

// NewCache returns an empty cache for a graph. It grows as tokens are added.
func (g *Graph) NewCache() *Cache {
	c := &Cache{}
	for _, o := range g.ops {
		switch o := o.(type) {
		case *attentionOp:
			c.layers = append(c.layers, cacheLayer{heads: o.spec.KVHeads, dim: o.spec.HeadDim})
		case *ropeOp:
			if n := o.angles.original; n > 0 && !slices.Contains(c.switches, n) {
				c.switches = append(c.switches, n)
			}
		}
	}
	return c
}

// Reach says that the sequence will have n tokens, which decides by which frequencies it is rotated.
// It reports false, and forgets what is held, where that was rotated by others: the caller runs it
// again.
func (c *Cache) Reach(n int) bool {
	fits := true
	for _, s := range c.switches {
		fits = fits && (c.length == 0 || n > s == (c.reach > s))
	}
	if !fits {
		c.length = 0
	}
	c.reach = n
	return fits
}

// Len returns the number of tokens held.
func (c *Cache) Len() int { return c.length }

// Truncate forgets all tokens but the first n.
func (c *Cache) Truncate(n int) { c.length = min(n, c.length) }

// grow makes room for n more tokens and returns the number held.
func (c *Cache) grow(n int) int {
	if need := c.length + n; need > c.capacity {
		capacity := max(need, 2*c.capacity, 64)
		for i := range c.layers {
			c.layers[i].move(c.length, c.capacity, capacity)
		}
		c.capacity = capacity
	}
	return c.length
}

func (l *cacheLayer) move(used, from, to int) {
	k, v := aligned(l.heads*to*l.dim), aligned(l.heads*to*l.dim)
	for h := range l.heads {
		copy(k[h*to*l.dim:][:used*l.dim], l.k[h*from*l.dim:])
		copy(v[h*to*l.dim:][:used*l.dim], l.v[h*from*l.dim:])
	}
	l.k, l.v = k, v
}

// put stores n rows of keys and values (n, KVHeads·HeadDim) behind the first at.
func (l *cacheLayer) put(k, v []float32, at, n int) {
	capacity := len(l.k) / (l.heads * l.dim)
	for i := range n {
		for h := range l.heads {
			from, to := (i*l.heads+h)*l.dim, (h*capacity+at+i)*l.dim
			copy(l.k[to:to+l.dim], k[from:from+l.dim])
			copy(l.v[to:to+l.dim], v[from:from+l.dim])
		}
	}
}
