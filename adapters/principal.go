package adapters

// Factors of a weight to begin training with: what is in them is taken out of the weight.

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/graftml/graft/internal/kernel"
)

// Principal returns B (out, r) and A (r, in) with s·B·A the best approximation of rank r of W (out, in):
// PiSSA's start (Meng et al. 2024), each singular value shared out evenly. iterations are passes over W
// and back, of which PEFT's pissa_niter_N has N; 0 is as many as it takes.
func Principal(w []float32, out, in, r int, s float64, iterations int) (b, a []float32, err error) {
	if r < 1 || r > min(out, in) {
		return nil, nil, fmt.Errorf("adapters: singular vectors: %w: rank %d of a weight (%d, %d)", ErrMismatch, r, out, in)
	}
	e := matched
	if iterations > 0 {
		e = effort{passes: iterations + 1, tolerance: -1}
	}
	d, err := denseSpectrum(w, out, in, r, e)
	if err != nil {
		return nil, nil, fmt.Errorf("adapters: singular vectors: %w", err)
	}
	b, a = d.truncate(r, out, in)
	for i := range r {
		if d.values[i] <= negligible*d.values[0] {
			continue // zeros, in both
		}
		left, right := float32(1/math.Sqrt(s*d.values[i])), float32(math.Sqrt(d.values[i]/s))
		for j := range out {
			b[j*r+i] *= left
		}
		kernel.Scale(a[i*in:(i+1)*in], a[i*in:(i+1)*in], right)
	}
	return b, a, nil
}

// Leading returns B (out, r), orthonormal columns, and A (r, in), the first of W = Q·R (out, in): OLoRA's
// start (Büyükakyüz 2024). r is at most out and in.
func Leading(w []float32, out, in, r int) (b, a []float32, err error) {
	if r < 1 || r > min(out, in) {
		return nil, nil, fmt.Errorf("adapters: orthonormal columns: %w: rank %d of a weight (%d, %d)", ErrMismatch, r, out, in)
	}
	m := matrix(out, r) // the first columns of W decide those of Q
	for i := range out {
		for j := range r {
			m.Data[i*r+j] = float64(w[i*in+j])
		}
	}
	orthonormal(m)
	b, a = make([]float32, out*r), make([]float32, r*in)
	for i, v := range m.Data {
		b[i] = float32(v)
	}
	kernel.MulTN(a, in, b, r, w, in, out, r, in, 1, false) // Qᵀ·W
	return b, a, nil
}

// orthonormal replaces the columns of m, which has no fewer rows, by the Q of m = Q·R.
func orthonormal(m blas64.General) {
	tau, query := make([]float64, m.Cols), make([]float64, 1)
	lapack64.Geqrf(m, tau, query, -1)
	work := make([]float64, int(query[0]))
	lapack64.Geqrf(m, tau, work, len(work))
	lapack64.Orgqr(m, tau, query, -1)
	if need := int(query[0]); need > len(work) {
		work = make([]float64, need)
	}
	lapack64.Orgqr(m, tau, work, len(work))
}

// RandomOrthogonal returns an orthogonal matrix (n, n): the Q of one of numbers that normal gives.
func RandomOrthogonal(n int, normal func() float64) []float64 {
	m := matrix(n, n)
	for i := range m.Data {
		m.Data[i] = normal()
	}
	orthonormal(m)
	return m.Data
}
