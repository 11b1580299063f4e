package adapters

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// randomMatrix has singular values that fall off.
func randomMatrix(out, in int) []float32 {
	rng := rand.New(rand.NewPCG(3, uint64(out*in)))
	w := make([]float32, out*in)
	for k := range 12 {
		u, v := make([]float64, out), make([]float64, in)
		for i := range u {
			u[i] = rng.NormFloat64()
		}
		for j := range v {
			v[j] = rng.NormFloat64() * math.Pow(0.6, float64(k))
		}
		for i := range u {
			for j := range v {
				w[i*in+j] += float32(u[i] * v[j])
			}
		}
	}
	return w
}

// left is the squared norm of W − s·B·A.
func left(w, b, a []float32, out, in, r int, s float64) (sum float64) {
	for i := range out {
		for j := range in {
			d := float64(w[i*in+j])
			for k := range r {
				d -= s * float64(b[i*r+k]) * float64(a[k*in+j])
			}
			sum += d * d
		}
	}
	return sum
}

// TestPrincipal: what is left is the energy of the singular values behind the first r, each of which is
// shared out evenly.
func TestPrincipal(t *testing.T) {
	for _, size := range [][2]int{{24, 40}, {40, 24}, {200, 150}} {
		out, in, r, s := size[0], size[1], 5, 2.5
		w := randomMatrix(out, in)
		all, err := denseExact(append([]float32{}, w...), out, in)
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for _, v := range all.values[r:] {
			want += v * v
		}
		for _, iterations := range []int{0, 8} {
			b, a, err := Principal(w, out, in, r, s, iterations)
			if err != nil {
				t.Fatal(err)
			}
			if got := left(w, b, a, out, in, r, s); math.Abs(got/want-1) > 1e-3 {
				t.Errorf("%v, %d iterations: %v is left, want %v", size, iterations, got, want)
			}
			for k := range r {
				var nb, na float64
				for i := range out {
					nb += float64(b[i*r+k]) * float64(b[i*r+k])
				}
				for j := range in {
					na += float64(a[k*in+j]) * float64(a[k*in+j])
				}
				if sigma := all.values[k] / s; math.Abs(nb/sigma-1) > 1e-3 || math.Abs(na/sigma-1) > 1e-3 {
					t.Errorf("%v: direction %d has %v in B and %v in A, want %v in each", size, k, nb, na, sigma)
				}
			}
		}
		if _, _, err := Principal(w, out, in, min(out, in)+1, 1, 0); !errors.Is(err, ErrMismatch) {
			t.Errorf("%v: a rank that is too large: %v", size, err)
		}
	}
}

// TestLeading: the columns of B are orthonormal, and those of W up to the rank lie in them.
func TestLeading(t *testing.T) {
	const out, in, r = 30, 20, 6
	w := randomMatrix(out, in)
	b, a, err := Leading(w, out, in, r)
	if err != nil {
		t.Fatal(err)
	}
	for k := range r {
		for l := range r {
			dot := 0.0
			for i := range out {
				dot += float64(b[i*r+k]) * float64(b[i*r+l])
			}
			if k == l {
				dot--
			}
			if math.Abs(dot) > 1e-5 {
				t.Errorf("columns %d and %d: %v", k, l, dot)
			}
		}
	}
	for i := range out {
		for j := range r {
			d := float64(w[i*in+j])
			for k := range r {
				d -= float64(b[i*r+k]) * float64(a[k*in+j])
			}
			if math.Abs(d) > 1e-4 {
				t.Fatalf("row %d, column %d is %v off", i, j, d)
			}
		}
	}
	if _, _, err := Leading(w, out, in, in+1); !errors.Is(err, ErrMismatch) {
		t.Errorf("a rank that is too large: %v", err)
	}
}
