package adapters

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

func gaussian(rng *rand.Rand, n int, sd float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(sd * rng.NormFloat64())
	}
	return x
}

// product is B·A, B (out, r) and A (r, in), in float64.
func product(b, a []float32, out, in, r int) []float64 {
	d := make([]float64, out*in)
	for o := range out {
		for k := range r {
			v := float64(b[o*r+k])
			for i := range in {
				d[o*in+i] += v * float64(a[k*in+i])
			}
		}
	}
	return d
}

// apart is the relative distance of two matrices in the Frobenius norm.
func apart(got, want []float64) float64 {
	diff, norm := 0.0, 0.0
	for i := range want {
		diff += (got[i] - want[i]) * (got[i] - want[i])
		norm += want[i] * want[i]
	}
	return math.Sqrt(diff / max(norm, 1e-300))
}

// TestFactorSpectrum: at full rank the product comes back, at a lower one what is lost is what the
// residual says, and the rows of A are orthonormal, as those of PEFT's svd.
func TestFactorSpectrum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ out, in, r int }{{1, 1, 1}, {7, 5, 3}, {5, 40, 9}, {40, 5, 9}, {64, 48, 16}, {6, 6, 20}} {
		b, a := gaussian(rng, c.out*c.r, 1), gaussian(rng, c.r*c.in, 1)
		want := product(b, a, c.out, c.in, c.r)
		s, err := factorSpectrum(b, a, c.out, c.in, c.r)
		if err != nil {
			t.Fatal(err)
		}
		full := min(c.out, c.in, c.r)
		for k := 1; k <= full; k++ {
			ub, va := s.truncate(k, b, a, c.out, c.in)
			if d := apart(product(ub, va, c.out, c.in, k), want); math.Abs(d-s.residual(k)) > 1e-6 {
				t.Errorf("%v rank %d: %g apart, residual %g", c, k, d, s.residual(k))
			}
			for i := range k {
				for j := range k {
					dot := float64(kernel.Dot(va[i*c.in:(i+1)*c.in], va[j*c.in:(j+1)*c.in]))
					if i == j {
						dot--
					}
					if math.Abs(dot) > 1e-4 {
						t.Errorf("%v rank %d: rows %d and %d of A have product %g more than orthonormal ones", c, k, i, j, dot)
					}
				}
			}
		}
		if r := s.residual(full); r > 1e-7 {
			t.Errorf("%v: residual %g at full rank", c, r)
		}
	}
}

// TestFactorSpectrumCancels takes one adapter from a nearly equal one: what is left is small against
// the factors, whose own directions are nearly dependent.
func TestFactorSpectrumCancels(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	const out, in, r = 50, 60, 4
	b, a := make([]float32, out*2*r), make([]float32, 2*r*in)
	for o := range out {
		for k := range r {
			v := rng.NormFloat64()
			b[o*2*r+k], b[o*2*r+r+k] = float32(v), float32(-v*(1+1e-3*rng.NormFloat64()))
		}
	}
	copy(a, gaussian(rng, r*in, 1))
	copy(a[r*in:], a[:r*in])
	want := product(b, a, out, in, 2*r)
	s, err := factorSpectrum(b, a, out, in, 2*r)
	if err != nil {
		t.Fatal(err)
	}
	ub, va := s.truncate(r, b, a, out, in)
	if d := apart(product(ub, va, out, in, r), want); d > 1e-3 { // the factors are a thousand times as large
		t.Errorf("%g apart", d)
	}
	if s.residual(r) > 1e-6 {
		t.Errorf("rank %d leaves %g", r, s.residual(r))
	}
}

// TestDenseSpectrum compares the leading part that the range finder finds with that of the full
// decomposition.
func TestDenseSpectrum(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		out, in, k int
		fall       float64 // of singular value i: e^(−fall·i)
		noise      float64
	}{
		{100, 300, 8, 0.3, 0}, {300, 100, 8, 0.3, 1e-3}, {160, 160, 16, 0.05, 0}, {40, 90, 5, 0.2, 0}, {90, 40, 5, 0.2, 0}, {200, 150, 8, 0, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			n := 60
			b, a := gaussian(rng, c.out*n, 1), gaussian(rng, n*c.in, 1)
			for k := range n {
				for i := range c.in {
					a[k*c.in+i] *= float32(math.Exp(-c.fall * float64(k)))
				}
			}
			d := make([]float32, c.out*c.in)
			for i, v := range product(b, a, c.out, c.in, n) {
				d[i] = float32(v + c.noise*rng.NormFloat64())
			}
			full, err := denseExact(d, c.out, c.in)
			if err != nil {
				t.Fatal(err)
			}
			if sum := full.residual(0); math.Abs(sum-1) > 1e-6 {
				t.Errorf("the values hold %g of the norm", sum)
			}
			fb, fa := full.truncate(c.k, c.out, c.in)
			want := product(fb, fa, c.out, c.in, c.k)
			got, err := denseSpectrum(d, c.out, c.in, c.k, matched)
			if err != nil {
				t.Fatal(err)
			}
			gb, ga := got.truncate(c.k, c.out, c.in)
			if far := apart(product(gb, ga, c.out, c.in, c.k), want); c.fall > 0 && far > 1e-4 {
				t.Errorf("%g apart from the full decomposition's", far)
			}
			left := subtract(d, gb, ga, c.out, c.in, c.k, full.energy)
			if best := full.residual(c.k); left < best-1e-5 || left > best*(1+1e-4)+1e-5 {
				t.Errorf("leaves %g, the best leave %g", left, best)
			}
		})
	}
}

func TestSpectrumRank(t *testing.T) {
	s := spectrum{values: []float64{3, 2, 1}, energy: 14}
	for _, c := range []struct {
		share float64
		most  int
		want  int
	}{{0.5, 3, 1}, {0.65, 3, 2}, {0.95, 3, 3}, {0.95, 2, 2}, {1, 3, 3}, {1e-9, 3, 1}} {
		if got := s.rank(c.share, c.most); got != c.want {
			t.Errorf("rank(%v, %d) = %d, want %d", c.share, c.most, got, c.want)
		}
	}
}

func BenchmarkFactorSpectrum(b *testing.B) {
	for _, c := range []struct{ out, in, r int }{{576, 1536, 32}, {4096, 4096, 128}} {
		b.Run(fmt.Sprintf("%dx%d/r%d", c.out, c.in, c.r), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(7, 8))
			p, q := gaussian(rng, c.out*c.r, 1), gaussian(rng, c.r*c.in, 1)
			for b.Loop() {
				s, err := factorSpectrum(p, q, c.out, c.in, c.r)
				if err != nil {
					b.Fatal(err)
				}
				s.truncate(c.r/2, p, q, c.out, c.in)
			}
		})
	}
}

func BenchmarkDenseSpectrum(b *testing.B) {
	for name, e := range map[string]effort{"matched": matched, "quick": quick} {
		b.Run(name, func(b *testing.B) {
			rng := rand.New(rand.NewPCG(9, 10))
			const out, in = 576, 1536
			d := gaussian(rng, out*in, 1) // no value stands out: the most passes
			for b.Loop() {
				if _, err := denseSpectrum(d, out, in, 16, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDenseExact(b *testing.B) {
	const out, in = 576, 1536
	d := gaussian(rand.New(rand.NewPCG(11, 12)), out*in, 1)
	for b.Loop() {
		if _, err := denseExact(d, out, in); err != nil {
			b.Fatal(err)
		}
	}
}
