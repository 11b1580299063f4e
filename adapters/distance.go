package adapters

// How far two adapters are apart, to see that one was written as it was.

import (
	"math"
	"math/rand/v2"
	"slices"
)

// probes is how many vectors the changes of a module are compared on.
const probes = 3

// Distance compares what two adapters do, whatever their ranks and scales, and returns the largest relative
// difference and the module or parameter where it is: 0 and "" where they do the same bit by bit, infinity
// where only one of them changes something. The changes of pairs are compared on random vectors.
func Distance(a, b *Adapter) (worst float64, where string) {
	note := func(d float64, at string) {
		if d > worst || d != d {
			worst, where = d, at
		}
	}
	for i := range a.Pairs {
		p, q := &a.Pairs[i], b.Pair(a.Pairs[i].Module)
		if q == nil || p.In != q.In || p.Out != q.Out || p.Table != q.Table || (p.Magnitude == nil) != (q.Magnitude == nil) || (p.Bias == nil) != (q.Bias == nil) {
			note(math.Inf(1), p.Module)
			continue
		}
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		x := make([]float64, p.In)
		for range probes {
			for k := range x {
				x[k] = rng.NormFloat64()
			}
			note(parted(p.times(x), q.times(x)), p.Module)
		}
		note(parted(wide(p.Magnitude), wide(q.Magnitude)), p.Module)
		note(parted(scaled(p.Bias, p.Scale), scaled(q.Bias, q.Scale)), p.Module)
	}
	for i := range b.Pairs {
		if a.Pair(b.Pairs[i].Module) == nil {
			note(math.Inf(1), b.Pairs[i].Module)
		}
	}
	for i := range a.Whole {
		if w := b.WholeOf(a.Whole[i].Name); w == nil || !slices.Equal(w.Shape, a.Whole[i].Shape) {
			note(math.Inf(1), a.Whole[i].Name)
		} else {
			note(parted(wide(a.Whole[i].Data), wide(w.Data)), w.Name)
		}
	}
	for i := range a.Rows {
		if r := b.TokenRows(a.Rows[i].Module); r == nil || !slices.Equal(r.Indices, a.Rows[i].Indices) || len(r.Data) != len(a.Rows[i].Data) {
			note(math.Inf(1), a.Rows[i].Module)
		} else {
			note(parted(wide(a.Rows[i].Data), wide(r.Data)), r.Module)
		}
	}
	if len(b.Whole) != len(a.Whole) || len(b.Rows) != len(a.Rows) {
		note(math.Inf(1), "whole parameters or token rows")
	}
	return worst, where
}

// times is Scale·B·A·x.
func (p *Pair) times(x []float64) []float64 {
	h, y := make([]float64, p.R), make([]float64, p.Out)
	for k := range h {
		for i, v := range p.A[k*p.In : (k+1)*p.In] {
			h[k] += float64(v) * x[i]
		}
	}
	for o := range y {
		for k, v := range p.B[o*p.R : (o+1)*p.R] {
			y[o] += float64(v) * h[k]
		}
		y[o] *= p.Scale
	}
	return y
}

// parted is ‖a − b‖ / ‖a‖, and where a is zero ‖b‖.
func parted(a, b []float64) float64 {
	var d, n float64
	for i := range a {
		d += (a[i] - b[i]) * (a[i] - b[i])
		n += a[i] * a[i]
	}
	if n == 0 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / n)
}

func wide(x []float32) []float64 { return scaled(x, 1) }

func scaled(x []float32, by float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v) * by
	}
	return out
}
