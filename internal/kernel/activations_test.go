package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// halfVec is x in bfloat16.
func halfVec(x []float32) Vec {
	v := HalfVec(make([]float32, (len(x)+1)/2), len(x))
	F32ToBF16(v.BF16, x)
	return v
}

// values32 is v as float32.
func (v Vec) values32() []float32 {
	x := make([]float32, v.Len())
	Copy(F32Vec(x), v)
	return x
}

// TestLinear compares products with low-rank terms, of operands and results of either
// type, with float64.
func TestLinear(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		r := seeded(21)
		for at, s := range append(productShapes, [3]int{100, 290, 1200}, [3]int{300, 650, 96}, [3]int{40, 3000, 700}) {
			m, n, k := s[0], s[1], s[2]
			if slow(m, n, k) {
				continue
			}
			for i := range 3 { // all 16 in turn
				variant := (at*3 + i) % 16
				inHalf, outHalf, acc := variant&1 != 0, variant&2 != 0, variant&4 != 0
				w := normal(r, n*k)
				weight := &Matrix{N: n, K: k, F32: w}
				if variant&8 != 0 {
					weight = halfMatrices(n, k, w)[at%5]
					w = rounded(w)
				}
				if n*k == 0 {
					weight.F32, weight.BF16, weight.Decode = nil, nil, nil
				}
				var ranks []int
				for i := range (at + variant) % 3 {
					ranks = append(ranks, []int{16, 3}[i])
				}
				what := fmt.Sprintf("m=%d n=%d k=%d, bfloat16 in %v, out %v, weight %v, acc=%v, ranks %d", m, n, k, inHalf, outHalf, weight.Half, acc, ranks)
				checkLinear(t, "Linear "+what, m, n, k, view{w, k, 1}, inHalf, outHalf, acc, ranks, weight.Half, r.NormFloat64,
					func(y, x Vec, terms []Term) { Linear(y, x, m, weight, acc, terms) }, func(rank int) *Matrix { return &Matrix{N: n, K: rank, F32: normal(r, n*rank)} },
					func(w *Matrix, j, q int) float32 { return w.F32[j*w.K+q] })
				checkLinear(t, "LinearBackward "+what, m, k, n, view{w, 1, k}, inHalf, outHalf, acc, ranks, weight.Half, r.NormFloat64,
					func(y, x Vec, terms []Term) { LinearBackward(y, x, m, weight, acc, terms) }, func(rank int) *Matrix { return &Matrix{N: rank, K: k, F32: normal(r, k*rank)} },
					func(w *Matrix, j, q int) float32 { return w.F32[q*w.K+j] })
			}
		}
	})
}

// checkLinear runs y (m, n) = x (m, k)·Wᵀ + terms, w being (n, k) and element (j, q) of a
// term's matrix at low.
func checkLinear(t *testing.T, what string, m, n, k int, w view, inHalf, outHalf, acc bool, ranks []int, half bool, draw func() float64,
	run func(y, x Vec, terms []Term), matrix func(rank int) *Matrix, low func(w *Matrix, j, q int) float32) {
	t.Helper()
	random := func(n int, half bool) (Vec, []float32) {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(draw())
		}
		if half {
			v := halfVec(x)
			return v, v.values32()
		}
		return F32Vec(x), x
	}
	y, before := random(m*n, outHalf)
	before = slices.Clone(before)
	x, xs := random(m*k, inHalf)
	if half {
		xs = rounded(xs)
	}
	var terms []Term
	for _, rank := range ranks {
		h, _ := random(m*rank, false)
		terms = append(terms, Term{H: h.F32, W: matrix(rank), Scale: 0.7})
	}
	run(y, x, terms)
	step := 1
	if m*n*k > 4<<20 {
		step = 7 // prime to the widths of all tiles: the slow reference still meets each of their places
	}
	for i, got := range y.values32() {
		if i%step != 0 {
			continue
		}
		row, col := i/max(n, 1), i%max(n, 1)
		var sum, size float64
		add := func(p float64) { sum, size = sum+p, size+math.Abs(p) }
		for q := range k {
			add(float64(xs[row*k+q]) * w.at(col, q))
		}
		loose := 0.0 // of terms in bfloat16, whose operands are rounded
		for _, l := range terms {
			r := len(l.H) / m
			for q := range r {
				p := 0.7 * float64(l.H[row*r+q]) * float64(low(l.W, col, q))
				add(p)
				if half {
					loose += math.Abs(p) / 100
				}
			}
		}
		if acc {
			add(float64(before[i]))
		}
		if outHalf {
			loose += math.Abs(sum) / 250
		}
		if e := math.Abs(float64(got) - sum); !(e <= 2e-6*size+loose) {
			t.Fatalf("%s: y[%d,%d] = %g, want %g (sum of magnitudes %g)", what, row, col, got, sum, size)
		}
	}
}

// TestWeightGradientHalf: of bfloat16 it is that of the same values in float32.
func TestWeightGradientHalf(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		r := seeded(22)
		for _, s := range [][3]int{{300, 16, 600}, {300, 600, 16}, {70, 5, 33}, {70, 200, 150}, {513, 33, 7}} {
			m, n, k := s[0], s[1], s[2]
			a, b := rounded(normal(r, m*n)), rounded(normal(r, m*k))
			want, got := normal(r, n*k), make([]float32, n*k)
			copy(got, want)
			WeightGradient(want, k, F32Vec(a), n, F32Vec(b), k, m, n, k, 0.5, true)
			WeightGradient(got, k, halfVec(a), n, halfVec(b), k, m, n, k, 0.5, true)
			near(t, fmt.Sprint(s), got, want, 3e-6) // a wide gradient takes another driver
			copy(got, want)
			WeightGradient(want, k, F32Vec(a), n, F32Vec(b), k, m, n, k, 0.5, true)
			if n < k {
				WeightGradient(got, k, F32Vec(a), n, halfVec(b), k, m, n, k, 0.5, true)
			} else {
				WeightGradient(got, k, halfVec(a), n, F32Vec(b), k, m, n, k, 0.5, true)
			}
			near(t, fmt.Sprint(s, " of a rank"), got, want, 3e-6)
		}
	})
}

// TestHalfRows: operations on bfloat16 are those on float32 of the same values, rounded.
func TestHalfRows(t *testing.T) {
	r := seeded(23)
	const rows, heads, kv, dim = 150, 6, 2, 32
	const c, width = heads * dim, kv * dim
	seq := []int32{0, 37, 37, 140, 150}
	spec := AttentionSpec{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 0.3}
	gain := normal(r, c)
	positions := make([]int32, rows)
	cos, sin := normal(r, rows*dim/2), normal(r, rows*dim/2)
	for i := range positions {
		positions[i] = int32(i)
	}
	a, b, d := normal(r, rows*c), normal(r, rows*c), normal(r, rows*c)
	k, v := normal(r, rows*width), normal(r, rows*width)
	for _, x := range [][]float32{a, b, d, k, v} {
		RoundBF16(x)
	}
	ops := map[string]func(of func([]float32) Vec) []Vec{
		"norm": func(of func([]float32) Vec) []Vec {
			y, rstd := of(make([]float32, rows*c)), make([]float32, rows)
			RMSNorm(y, of(a), gain, rows, c, 1e-5, rstd, 0)
			dx, dw := of(a), make([]float32, c)
			RMSNormBackward(dx, of(b), of(a), gain, rstd, rows, c, 0, true, dw)
			return []Vec{y, dx, F32Vec(dw)}
		},
		"unit": func(of func([]float32) Vec) []Vec {
			y, dgate, dup := of(make([]float32, rows*c)), of(make([]float32, rows*c)), of(make([]float32, rows*c))
			GLU(SiLU, y, of(a), of(b))
			GLUBackward(SiLU, dgate, dup, of(d), of(a), of(b))
			return []Vec{y, dgate, dup}
		},
		"unit of GELU": func(of func([]float32) Vec) []Vec {
			y, dgate, dup := of(make([]float32, rows*c)), of(make([]float32, rows*c)), of(make([]float32, rows*c))
			GLU(GELUTanh, y, of(a), of(b))
			GLUBackward(GELUTanh, dgate, dup, of(d), of(a), of(b))
			return []Vec{y, dgate, dup}
		},
		"factor": func(of func([]float32) Vec) []Vec {
			y := of(make([]float32, rows*c))
			ScaleVec(y, of(a), 0.37)
			return []Vec{y}
		},
		"rope": func(of func([]float32) Vec) []Vec {
			x := of(a)
			Rope(x, rows, heads, dim, positions, cos, sin, dim, false)
			return []Vec{x}
		},
		"attention": func(of func([]float32) Vec) []Vec {
			y, lse := of(make([]float32, rows*c)), make([]float32, rows*heads)
			Attention(y, lse, of(a), of(k), of(v), seq, spec)
			out := of(d) // any values: the gradient takes what the forward wrote as it is
			dq, dk, dv := of(make([]float32, rows*c)), of(make([]float32, rows*width)), of(make([]float32, rows*width))
			AttentionBackward(dq, dk, dv, of(b), of(a), of(k), of(v), out, lse, seq, spec)
			return []Vec{y, F32Vec(lse), dq, dk, dv}
		},
	}
	defer setHalf(widened)() // attention in pairs has a test of its own
	forEachImpl(t, func(t *testing.T) {
		for name, op := range ops {
			want := op(func(x []float32) Vec { return F32Vec(slices.Clone(x)) })
			got := op(halfVec)
			for i := range want {
				x := want[i].values32()
				if got[i].Half() {
					RoundBF16(x)
				}
				sameBits(t, fmt.Sprintf("%s, result %d", name, i), got[i].values32(), x)
			}
		}
	})
}

// TestCrossEntropyHalf: in bfloat16 losses and gradients are near those of float32, and
// the part of the target is not rounded.
func TestCrossEntropyHalf(t *testing.T) {
	for _, spec := range []LogitSpec{{}, {Scale: 1.2, Softcap: 300}} {
		crossEntropyHalf(t, spec)
	}
}

func crossEntropyHalf(t *testing.T, spec LogitSpec) {
	forEachHalf(t, func(t *testing.T) {
		const p, c, vocab = 150, 24, 900
		r := seeded(24)
		w, h, targets := rounded(normal(r, vocab*c)), rounded(normal(r, p*c)), make([]int32, p)
		for i := range targets {
			targets[i] = int32(i * 6)
		}
		copy(h, w[:c]) // row 0 is sure of its target
		Scale(h[:c], h[:c], 4)
		loss, dh := make([]float32, p), make([]float32, p*c)
		wantLoss, want := make([]float32, p), make([]float32, p*c)
		CrossEntropy(wantLoss, nil, want, nil, F32Vec(h), &Matrix{N: vocab, K: c, F32: w}, spec, targets)
		CrossEntropy(loss, nil, dh, nil, halfVec(h), halfMatrices(vocab, c, w)[1], spec, targets)
		near(t, "loss", loss, wantLoss, 3e-6)
		near(t, "dh", dh, want, 4e-3)
		for j := range c {
			if math.Abs(float64(dh[j]-want[j])) > 1e-6 {
				t.Errorf("dh[0,%d] is %g, want %g", j, dh[j], want[j])
			}
		}
	})
}
