package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// fitCases are runs of many kinds: bell curves, signs alike, zeros, the same value throughout, and numbers at the ends of
// float32's range, on which only the order of operations decides.
func fitCases(r *rand.Rand, n int) (x, w []float32) {
	x, w = make([]float32, Runs*n), make([]float32, Runs*n)
	for run := range Runs {
		kind, scale := r.IntN(8), float32(math.Exp2(float64(r.IntN(20)-15)))
		switch kind {
		case 1:
			scale = 1e-38
		case 2:
			scale = 1e30
		}
		for i := range n {
			v := float32(r.NormFloat64()) * scale
			switch {
			case kind == 3:
				v = magnitude(v)
			case kind == 4 && r.IntN(3) > 0, kind == 5 && run%2 == 0:
				v = 0
			case kind == 6 && i > 0:
				v = x[run]
			case kind == 7 && r.IntN(200) == 0:
				v = float32(math.Inf(1 - 2*r.IntN(2)))
			}
			x[Runs*i+run] = v
			w[Runs*i+run] = float32(r.ExpFloat64())
			if kind == 4 && r.IntN(3) == 0 {
				w[Runs*i+run] = 0
			}
		}
	}
	return x, w
}

func sameRuns(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, w := range want {
		if g := got[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
			t.Fatalf("%s of run %d is %v, want %v", what, i, g, w)
		}
	}
}

func sameFit(t *testing.T, got, want *Fit) {
	t.Helper()
	sameRuns(t, "scale", got.Scale[:], want.Scale[:])
	sameRuns(t, "minimum", got.Min[:], want.Min[:])
	sameRuns(t, "inverse", got.Inverse[:], want.Inverse[:])
	sameRuns(t, "from", got.From[:], want.From[:])
}

// TestFits: every implementation finds the same bits as plain Go, and stays within its slices.
func TestFits(t *testing.T) {
	searches := []AffineSearch{
		{Top: 3, First: -0.5, Step: 0.1, Steps: 15, Absolute: true}, {Top: 15, First: -1, Step: 0.1, Steps: 20},
		{Top: 31, First: -0.9, Step: 0.05, Steps: 36}, {Top: 15},
	}
	forEachImpl(t, func(t *testing.T) {
		for seed := range uint64(300) {
			r := rand.New(rand.NewPCG(seed, 5))
			n := []int{16, 32, 1, 7}[seed%4]
			values, weights := fitCases(r, n)
			x, checkX := guarded(t, len(values), 1)
			w, checkW := guarded(t, len(values), 1)
			copy(x, values)
			copy(w, weights)
			var got, want Fit
			for _, s := range searches {
				FitAffine(&got, x, w, s)
				fitAffineGeneric(&want, x, w, s)
				sameFit(t, &got, &want)
			}
			for _, top := range []int{4, 8, 16, 32} {
				FitSymmetric(&got, x, w, top)
				fitSymmetricGeneric(&want, x, w, top)
				sameFit(t, &got, &want)
			}
			codes := func(what string, run, plain func(q []byte)) {
				t.Helper()
				q, p := make([]byte, len(x)+32), make([]byte, len(x))
				for i := range q {
					q[i] = 0xa5
				}
				run(q[16:][:len(x)])
				plain(p)
				if string(q[16:][:len(x)]) != string(p) {
					t.Fatalf("seed %d: codes of %s are %v, want %v", seed, what, q[16:][:len(x)], p)
				}
				for i, v := range q {
					if (i < 16 || i >= 16+len(x)) && v != 0xa5 {
						t.Fatalf("seed %d: codes of %s: byte %d beside the slice was written", seed, what, i-16)
					}
				}
			}
			codes("FitDescent", func(q []byte) { FitDescent(&got, q, x, 4) }, func(q []byte) { fitDescentGeneric(&want, q, x, 4) })
			sameRuns(t, "scale", got.Scale[:], want.Scale[:])
			for _, b := range [][2]int{{0, 15}, {0, 31}, {-32, 31}, {-4, 3}} {
				codes(fmt.Sprint(b), func(q []byte) { RunCodes(q, x, &got.Min, &got.Scale, b[0], b[1]) }, func(q []byte) { runCodesGeneric(q, x, &got.Min, &got.Scale, b[0], b[1]) })
			}
			table := [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
			FitTable(&got, x, w, &table)
			fitTableGeneric(&want, x, w, &table)
			sameRuns(t, "scale of a table", got.Scale[:], want.Scale[:])
			for i := range got.Inverse {
				got.Inverse[i] = reciprocal(got.Scale[i])
			}
			codes("a table", func(q []byte) { TableCodes(q, x, &got.Inverse, &table) }, func(q []byte) {
				for i, v := range x {
					q[i] = byte(nearestPlace(&table, got.Inverse[i%Runs]*v))
				}
			})
			lanes := make([]float32, len(x))
			ToLanes(lanes, x, n)
			for i, v := range lanes {
				if v != x[n*(i%Runs)+i/Runs] && v == v {
					t.Fatalf("seed %d: value %d of the lanes is %v", seed, i, v)
				}
			}
			checkX()
			checkW()
		}
	})
}

func TestFitPanics(t *testing.T) {
	var f Fit
	for what, call := range map[string]func(){
		"no whole runs": func() { FitAffine(&f, make([]float32, 17), make([]float32, 17), AffineSearch{Top: 3}) },
		"few weights":   func() { FitSymmetric(&f, make([]float32, 32), make([]float32, 16), 4) },
		"long runs":     func() { FitDescent(&f, make([]byte, 16*33), make([]float32, 16*33), 4) },
		"nothing":       func() { RunCodes(nil, nil, &f.Min, &f.Scale, 0, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			call()
		}()
	}
}

// BenchmarkFits searches runs of 32 values (16 for the last) and reports values a second.
func BenchmarkFits(b *testing.B) {
	x, w := fitCases(rand.New(rand.NewPCG(1, 1)), 32)
	var f Fit
	q := make([]byte, len(x))
	for name, run := range map[string]func() int{
		"affine":    func() int { FitAffine(&f, x, w, AffineSearch{Top: 15, First: -1, Step: 0.1, Steps: 20}); return len(x) },
		"symmetric": func() int { FitSymmetric(&f, x[:256], w[:256], 32); return 256 },
		"descent":   func() int { FitDescent(&f, q[:256], x[:256], 4); return 256 },
		"table": func() int {
			FitTable(&f, x, w, &[16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113})
			return len(x)
		},
		"codes": func() int { RunCodes(q, x, &f.Min, &f.Scale, 0, 15); return len(x) },
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				n += run()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
}
