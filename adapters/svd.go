package adapters

// Singular values of what adapters do: of a product of thin factors exactly, through the triangular
// factors of their LQ decompositions, and of a dense change by a randomized range finder (Halko,
// Martinsson and Tropp 2011) where the change is too large for that. Thin factors are decomposed in
// float64 (gonum's LAPACK), products with large matrices are made in float32.

import (
	"errors"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/graftml/graft/internal/kernel"
)

const (
	// negligible is the share of the largest singular value below which one is rounding of float32.
	negligible = 1.0 / (1 << 24)
	// smallSide is the shorter side up to which a dense matrix is decomposed exactly.
	smallSide = 64
)

var errSVD = errors.New("the singular values do not converge; does a matrix hold NaN or infinity?")

// spectrum is a matrix D (Out, In) taken apart: D = B·A for some B (Out, N) and A (N, In), not kept here.
// With D = U·Σ·Vᵀ, the columns of B·left are those of U·Σ, and the rows of right·A those of Vᵀ.
type spectrum struct {
	values []float64 // Σ, descending
	energy float64   // squared Frobenius norm of D, more than the values hold where they are not all
	left   []float64 // (N, len(values))
	right  []float64 // (len(values), N)
	n      int
}

// matrix returns a zero matrix.
func matrix(rows, cols int) blas64.General {
	return blas64.General{Rows: rows, Cols: cols, Stride: max(cols, 1), Data: make([]float64, rows*cols)}
}

// lq decomposes X (r, n), r ≤ n, as L·Q: l is L (r, r), lower triangular. With wantQ it writes Q, whose
// rows are orthonormal, over x.
func lq(x []float32, r, n int, wantQ bool) (l blas64.General) {
	a := matrix(r, n)
	for i, v := range x[:r*n] {
		a.Data[i] = float64(v)
	}
	tau, query := make([]float64, r), make([]float64, 1)
	lapack64.Gelqf(a, tau, query, -1)
	work := make([]float64, int(query[0]))
	lapack64.Gelqf(a, tau, work, len(work))
	l = matrix(r, r)
	for i := range r {
		copy(l.Data[i*r:i*r+i+1], a.Data[i*n:i*n+i+1])
	}
	if !wantQ {
		return l
	}
	lapack64.Orglq(a, tau, query, -1)
	if need := int(query[0]); need > len(work) {
		work = make([]float64, need)
	}
	lapack64.Orglq(a, tau, work, len(work))
	for i, v := range a.Data {
		x[i] = float32(v)
	}
	return l
}

// triangle is the factor L (r, m) of X (r, n) = L·Q with m = min(r, n). A matrix with more rows than
// columns is its own L.
func triangle(x []float32, r, n int) blas64.General {
	if r <= n {
		return lq(x, r, n, false)
	}
	l := matrix(r, n)
	for i, v := range x[:r*n] {
		l.Data[i] = float64(v)
	}
	return l
}

// multiply returns a·b, with ta of the transpose of a.
func multiply(ta bool, a, b blas64.General) blas64.General {
	rows, t := a.Rows, blas.NoTrans
	if ta {
		rows, t = a.Cols, blas.Trans
	}
	c := matrix(rows, b.Cols)
	blas64.Gemm(t, blas.NoTrans, 1, a, b, 0, c)
	return c
}

// svd returns the thin singular value decomposition of a, which it destroys: U, Σ and, if asked for, Vᵀ,
// which takes as long again.
func svd(a blas64.General, right bool) (u blas64.General, s []float64, vt blas64.General, err error) {
	k, job := min(a.Rows, a.Cols), lapack.SVDNone
	u, s = matrix(a.Rows, k), make([]float64, k)
	if right {
		vt, job = matrix(k, a.Cols), lapack.SVDStore
	}
	for _, v := range a.Data {
		if v-v != 0 {
			return u, s, vt, errSVD
		}
	}
	query := make([]float64, 1)
	lapack64.Gesvd(lapack.SVDStore, job, a, u, vt, s, query, -1)
	work := make([]float64, int(query[0]))
	if !lapack64.Gesvd(lapack.SVDStore, job, a, u, vt, s, work, len(work)) {
		return u, s, vt, errSVD
	}
	return u, s, vt, nil
}

// factorSpectrum decomposes B·A, B (out, r) and A (r, in), without ever making it: with Bᵀ = L₁·Q₁ and
// A = L₂·Q₂ the singular values are those of L₁ᵀ·L₂, which is no larger than (r, r).
func factorSpectrum(b, a []float32, out, in, r int) (*spectrum, error) {
	l1, l2 := triangle(transpose(b, out, r), r, out), triangle(a, r, in)
	u, s, vt, err := svd(multiply(true, l1, l2), true)
	if err != nil {
		return nil, err
	}
	d := &spectrum{values: s, n: r}
	for _, v := range s {
		d.energy += v * v
	}
	// B·(L₂·V) = D·Q₂ᵀ·V = U·Σ, and Σ⁻¹·(Uᵀ·L₁ᵀ)·A = Σ⁻¹·Uᵀ·Q₁·D = Vᵀ.
	k := len(s)
	v := matrix(vt.Cols, k)
	for i := range k {
		for j := range vt.Cols {
			v.Data[j*k+i] = vt.Data[i*vt.Cols+j]
		}
	}
	d.left = multiply(false, l2, v).Data
	lu := multiply(false, l1, u) // (r, k)
	d.right = make([]float64, k*r)
	for i := range k {
		if s[i] <= negligible*s[0] {
			continue
		}
		for j := range r {
			d.right[i*r+j] = lu.Data[j*k+i] / s[i]
		}
	}
	return d, nil
}

// truncate returns the best approximation of rank k of D = B·A, b being (out, n) and a (n, in): factors
// U·Σ (out, k) and Vᵀ (k, in), as PEFT shares them out. Directions of negligible size are zeros.
func (d *spectrum) truncate(k int, b, a []float32, out, in int) (ub, va []float32) {
	all := len(d.values)
	left, right := make([]float32, d.n*k), make([]float32, k*d.n)
	for i := range min(k, all) {
		if d.values[i] <= negligible*d.values[0] {
			break
		}
		for j := range d.n {
			left[j*k+i] = float32(d.left[j*all+i])
			right[i*d.n+j] = float32(d.right[i*d.n+j])
		}
	}
	ub, va = make([]float32, out*k), make([]float32, k*in)
	kernel.Mul(ub, k, b, d.n, out, &kernel.Matrix{N: d.n, K: k, F32: left}, false)
	kernel.Mul(va, in, right, d.n, k, &kernel.Matrix{N: d.n, K: in, F32: a}, false)
	return ub, va
}

// residual is the share of D, in the Frobenius norm, that the best approximation of rank k leaves out.
func (d *spectrum) residual(k int) float64 {
	lost := 0.0
	for _, v := range d.values[min(k, len(d.values)):] {
		lost += v * v
	}
	if lost == 0 {
		return 0
	}
	return math.Sqrt(lost / d.energy)
}

// rank is the smallest number of singular values that hold a share of the energy, at most most.
func (d *spectrum) rank(share float64, most int) int {
	sum := 0.0
	for i, v := range d.values {
		if i >= most {
			break
		}
		if sum += v * v; sum >= share*d.energy {
			return i + 1
		}
	}
	return max(1, min(most, len(d.values)))
}

// factored is a dense matrix D (out, in) as B·A up to what its spectrum leaves out.
type factored struct {
	spectrum
	b, a []float32
}

// effort is how well the leading directions of a dense matrix are found.
type effort struct {
	passes    int     // at most so many times over the matrix and back
	tolerance float64 // done when a pass adds less than this share of the energy to the leading k values
}

// matched is the effort at which the leading part agrees with a full decomposition's to float32 where
// the values fall off behind it, and has as small a residual where they do not.
var matched = effort{passes: 24, tolerance: 1e-9}

// quick is the effort whose residual is within a few thousandths of the least.
var quick = effort{passes: 8, tolerance: 3e-4}

// denseSpectrum finds the leading k singular directions of D (out, in), in float32.
func denseSpectrum(d []float32, out, in, k int, e effort) (*factored, error) {
	side := min(out, in)
	sample := k + max(16, k/2)
	total := squares(d, out, in)
	if side <= smallSide || 2*sample >= side {
		return denseExact(d, out, in)
	}
	w := kernel.Matrix{N: out, K: in, F32: d}
	z, y := make([]float32, sample*in), make([]float32, sample*out)
	rng := rand.New(rand.NewPCG(uint64(out), uint64(in)))
	for i := range z {
		z[i] = float32(rng.NormFloat64())
	}
	last := 0.0
	for pass := 1; ; pass++ {
		kernel.MulT(y, out, z, in, sample, &w, false) // (sample, out): what D makes of the directions
		lq(y, sample, out, true)
		kernel.Mul(z, in, y, out, sample, &w, false) // (sample, in): D within the span of y
		l := lq(z, sample, in, false)
		u, s, _, err := svd(l, false)
		if err != nil {
			return nil, err
		}
		found := 0.0
		for _, v := range s[:k] {
			found += v * v
		}
		if pass >= e.passes || found-last <= e.tolerance*total {
			return &factored{withinSpan(u, s, total), transpose(y, sample, out), z}, nil
		}
		last = found
		lq(z, sample, in, true)
	}
}

// withinSpan is the spectrum of B·A where the columns of B are orthonormal and u, s are of A.
func withinSpan(u blas64.General, s []float64, total float64) spectrum {
	d := spectrum{values: s, energy: total, n: u.Rows, left: make([]float64, u.Rows*len(s)), right: make([]float64, len(s)*u.Rows)}
	k := len(s)
	for i := range k {
		for j := range u.Rows {
			d.left[j*k+i] = u.Data[j*k+i] * s[i]
			if s[i] > negligible*s[0] {
				d.right[i*d.n+j] = u.Data[j*k+i] / s[i]
			}
		}
	}
	return d
}

// denseExact decomposes D (out, in) wholly, through the triangle of its shorter side. Its energy is
// that of its values, which have it but for the rounding of float32 on the way there: shares of it add
// up to one.
func denseExact(d []float32, out, in int) (*factored, error) {
	n := min(out, in)
	f := &factored{a: d}
	if out <= in { // D = I·D
		f.b = make([]float32, n*n)
		for i := range n {
			f.b[i*n+i] = 1
		}
	} else { // the columns of Q from Dᵀ = L·Q span those of D, and D = Qᵀ·Lᵀ
		q := transpose(d, out, in)
		lq(q, n, out, true)
		f.b = transpose(q, n, out)
		f.a = make([]float32, n*in)
		kernel.MulTN(f.a, in, f.b, n, d, in, out, n, in, 1, false)
	}
	u, s, _, err := svd(triangle(f.a, n, in), false)
	if err != nil {
		return nil, err
	}
	energy := 0.0
	for _, v := range s {
		energy += v * v
	}
	f.spectrum = withinSpan(u, s, energy)
	return f, nil
}

// truncate returns the best approximation of rank k, as that of a spectrum.
func (f *factored) truncate(k, out, in int) (b, a []float32) {
	return f.spectrum.truncate(k, f.b, f.a, out, in)
}

// subtract takes B·A from D (out, in) and returns the share of D, of which energy is the squared
// Frobenius norm, that is left.
func subtract(d, b, a []float32, out, in, r int, energy float64) float64 {
	if energy == 0 {
		return 0
	}
	kernel.ScaledMul(d, in, b, r, out, &kernel.Matrix{N: r, K: in, F32: a}, -1, true)
	return math.Sqrt(squares(d, out, in) / energy)
}

// squares is the squared Frobenius norm of D (out, in).
func squares(d []float32, out, in int) float64 {
	sum := 0.0
	for i := range out {
		sum += kernel.SumSquares(d[i*in : (i+1)*in])
	}
	return sum
}
