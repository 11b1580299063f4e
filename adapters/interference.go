package adapters

// How much adapters stand in each other's way.

import (
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// Overlap compares what two adapters, each times its weight, do to one module.
type Overlap struct {
	Module string `json:"module"`
	First  int    `json:"first"`  // place of an adapter in the list
	Second int    `json:"second"` // place of another
	// Cosine is that of the angle between the two changes: 1 where they are the same but for their size,
	// 0 where they have nothing in common, −1 where one takes the other back. It is 0 where one is zero.
	Cosine float64 `json:"cosine"`
	// Conflicts is the share of values whose signs are opposite, 0.5 for changes that have nothing in
	// common. What ties settles.
	Conflicts float64 `json:"sign_conflicts"`
}

// overlaps compares every two adapters in every module that both change, by their pairs alone.
func overlaps(modules []shares) []Overlap {
	var all []Overlap
	var pairs [][2]share
	for _, s := range modules {
		for i := range s {
			for j := range i {
				pairs = append(pairs, [2]share{s[j], s[i]})
				all = append(all, Overlap{Module: s[i].Module, First: s[j].adapter, Second: s[i].adapter})
			}
		}
	}
	kernel.Parallel(len(all), 1, task(func(lo, hi int) {
		for i := lo; i < hi; i++ {
			p, q := &pairs[i][0], &pairs[i][1]
			if norm := inner(p.Pair, p.Pair) * inner(q.Pair, q.Pair); norm > 0 {
				all[i].Cosine = max(-1, min(1, inner(p.Pair, q.Pair)/math.Sqrt(norm))) * p.sign() * q.sign()
			}
			all[i].Conflicts = conflicts(p, q)
		}
	}))
	return all
}

// sign is that of what the share is multiplied by.
func (s *share) sign() float64 {
	switch w := s.weight * s.Scale; {
	case w > 0:
		return 1
	case w < 0:
		return -1
	}
	return 0
}

// inner is the inner product of B₁·A₁ and B₂·A₂ as vectors, Σ (B₁ᵀ·B₂)∘(A₁·A₂ᵀ), without either product.
func inner(p, q *Pair) float64 {
	b, a := make([]float32, p.R*q.R), make([]float32, p.R*q.R)
	kernel.MulTN(b, q.R, p.B, p.R, q.B, q.R, p.Out, p.R, q.R, 1, false)
	kernel.MulT(a, q.R, p.A, p.In, p.R, &kernel.Matrix{N: q.R, K: p.In, F32: q.A}, false)
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// conflicts is the share of values at which the two changes have opposite signs, a few rows at a time.
func conflicts(p, q *share) float64 {
	step := max(1, min(p.Out, (1<<17)/p.In))
	x, y := make([]float32, step*p.In), make([]float32, step*p.In)
	turned := p.sign()*q.sign() < 0
	n := 0
	if p.sign()*q.sign() == 0 {
		return 0
	}
	for lo := 0; lo < p.Out; lo += step {
		rows := min(step, p.Out-lo)
		kernel.Mul(x, p.In, p.B[lo*p.R:], p.R, rows, &kernel.Matrix{N: p.R, K: p.In, F32: p.A}, false)
		kernel.Mul(y, p.In, q.B[lo*q.R:], q.R, rows, &kernel.Matrix{N: q.R, K: p.In, F32: q.A}, false)
		for i, v := range x[:rows*p.In] {
			if w := y[i]; v != 0 && w != 0 && ((v < 0) != (w < 0)) != turned {
				n++
			}
		}
	}
	return float64(n) / float64(p.Out) / float64(p.In)
}
