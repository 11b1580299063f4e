package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestAdamWGolden compares five steps with torch.optim.AdamW, to 2 ulp.
func TestAdamWGolden(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		p, m, v := values(14, 100), make([]float32, 100), make([]float32, 100)
		compare := func(name string, got []float32) {
			t.Helper()
			worst := int64(0)
			for i, want := range golden(t, "adamw/"+name) {
				d := ulps(got[i], want)
				worst = max(worst, d)
				if d > 2 {
					t.Fatalf("%s[%d] = %v, want %v", name, i, got[i], want)
				}
			}
			t.Logf("%s: worst %d ulp", name, worst)
		}
		for step := 1; step <= 5; step++ {
			g := values(uint32(99+step), 100)
			Scale(g, g, float32(math.Pow(10, float64(step-4))))
			AdamW(p, g, m, v, 3e-3, 0.9, 0.95, 1e-8, 0.1, step)
			compare(fmt.Sprint(step), p)
		}
		compare("m", m)
		compare("v", v)
	})
}

// TestAdamWLengths compares with float64 at every length, with guard bands.
func TestAdamWLengths(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths() {
			p, checkP := guarded(t, n, 1)
			m, checkM := guarded(t, n, 2)
			v, checkV := guarded(t, n, 3)
			g := randoms(rng, n, 1)
			want := make([]float32, n)
			for i := range g {
				p[i], m[i], v[i] = float32(rng.NormFloat64()), float32(rng.NormFloat64()), rng.Float32()
				m1 := 0.9*float64(m[i]) + 0.1*float64(g[i])
				v1 := 0.99*float64(v[i]) + 0.01*float64(g[i])*float64(g[i])
				want[i] = float32(float64(p[i])*(1-0.01*0.1) - 0.01*(m1/(1-math.Pow(0.9, 3)))/(math.Sqrt(v1/(1-math.Pow(0.99, 3)))+1e-3))
			}
			AdamW(p, g, m, v, 0.01, 0.9, 0.99, 1e-3, 0.1, 3)
			near(t, fmt.Sprint("p of ", n), p, want, 1e-6)
			checkP()
			checkM()
			checkV()
		}
	})
}
