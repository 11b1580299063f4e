package kernel

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"
)

// TestRMSNorm compares forward and backward with float64 and the gradient with
// finite differences of it, for both conventions of the gain.
func TestRMSNorm(t *testing.T) {
	const eps = 1e-5
	forward := func(x, w []float64, offset float64) []float64 {
		s := 0.0
		for _, v := range x {
			s += v * v
		}
		r := 1 / math.Sqrt(s/float64(len(x))+eps)
		y := make([]float64, len(x))
		for i := range x {
			y[i] = x[i] * r * (w[i] + offset)
		}
		return y
	}
	forEachImpl(t, func(t *testing.T) {
		for _, offset := range []float32{0, 1} {
			for _, c := range []int{1, 5, 16, 33, 576} {
				rng := rand.New(rand.NewPCG(1, uint64(c)))
				const rows = 3
				x, w, dy := randoms(rng, rows*c, 1), randoms(rng, c, 1), randoms(rng, rows*c, 1)
				y, checkY := guarded(t, rows*c, 1)
				dx, checkDx := guarded(t, rows*c, 2)
				dw, checkDw := guarded(t, c, 3)
				clear(dw)
				rstd := make([]float32, rows)
				RMSNorm(F32Vec(y), F32Vec(x), w, rows, c, eps, rstd, offset)
				RMSNormBackward(F32Vec(dx), F32Vec(dy), F32Vec(x), w, rstd, rows, c, offset, false, dw)
				wantDw := make([]float64, c)
				for r := range rows {
					x64, w64, g := widen(x[r*c:(r+1)*c]), widen(w), dy[r*c:(r+1)*c]
					near(t, "y", y[r*c:(r+1)*c], narrow(forward(x64, w64, float64(offset))), 1e-6)
					slope := func(v *float64) float64 {
						const h = 1e-5
						old, sum := *v, 0.0
						*v = old + h
						up := forward(x64, w64, float64(offset))
						*v = old - h
						down := forward(x64, w64, float64(offset))
						*v = old
						for i := range up {
							sum += float64(g[i]) * (up[i] - down[i]) / (2 * h)
						}
						return sum
					}
					for i := range min(c, 40) {
						if d := slope(&x64[i]); math.Abs(d-float64(dx[r*c+i])) > 1e-5*(1+math.Abs(d)) {
							t.Fatalf("c=%d: dx[%d] = %v, finite difference %v", c, i, dx[r*c+i], d)
						}
						wantDw[i] += slope(&w64[i])
					}
				}
				near(t, "dw", dw[:min(c, 40)], narrow(wantDw[:min(c, 40)]), 1e-5)
				again := append([]float32(nil), dx...)
				RMSNormBackward(F32Vec(again), F32Vec(dy), F32Vec(x), w, rstd, rows, c, offset, true, nil)
				twice := make([]float32, len(dx))
				Scale(twice, dx, 2)
				near(t, "accumulated dx", again, twice, 1e-6)
				copy(again, dy)
				RMSNormBackward(F32Vec(again), F32Vec(again), F32Vec(x), w, rstd, rows, c, offset, false, nil)
				near(t, "dx in place", again, dx, 0)
				checkY()
				checkDx()
				checkDw()
			}
		}
	})
}

// TestRowsGolden compares normalisation and activations with PyTorch.
func TestRowsGolden(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		x, w, dy := values(5, 7*24), values(6, 24), values(7, 7*24)
		y, dx, dw, rstd := make([]float32, 7*24), make([]float32, 7*24), make([]float32, 24), make([]float32, 7)
		RMSNorm(F32Vec(y), F32Vec(x), w, 7, 24, 1e-5, rstd, 0)
		RMSNormBackward(F32Vec(dx), F32Vec(dy), F32Vec(x), w, rstd, 7, 24, 0, false, dw)
		near(t, "norm y", y, golden(t, "norm/y"), 5e-7)
		near(t, "norm dx", dx, golden(t, "norm/dx"), 1e-6)
		near(t, "norm dw", dw, golden(t, "norm/dw"), 1e-6)

		gate, up, dy := values(8, 300), values(9, 300), values(10, 300)
		Scale(gate, gate, 8)
		for act, name := range map[Act]string{SiLU: "silu", GELUTanh: "gelu"} {
			y, dgate, dup := make([]float32, 300), make([]float32, 300), make([]float32, 300)
			GLU(act, F32Vec(y), F32Vec(gate), F32Vec(up))
			GLUBackward(act, F32Vec(dgate), F32Vec(dup), F32Vec(dy), F32Vec(gate), F32Vec(up))
			near(t, name+" y", y, golden(t, "glu/"+name+"/y"), 5e-7)
			near(t, name+" dgate", dgate, golden(t, "glu/"+name+"/dgate"), 1e-6)
			near(t, name+" dup", dup, golden(t, "glu/"+name+"/dup"), 5e-7)
		}
	})
}

// TestGLUBackward checks lengths, guard bands and the places that may coincide.
func TestGLUBackward(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(2, 2))
		for _, n := range lengths() {
			for _, act := range []Act{SiLU, GELUTanh} {
				gate, up, dy := randoms(rng, n, 2), randoms(rng, n, 1), randoms(rng, n, 1)
				dgate, check1 := guarded(t, n, 1)
				dup, check2 := guarded(t, n, 2)
				GLUBackward(act, F32Vec(dgate), F32Vec(dup), F32Vec(dy), F32Vec(gate), F32Vec(up))
				check1()
				check2()
				value := func(x float64) float64 {
					if act == SiLU {
						return x / (1 + math.Exp(-x))
					}
					return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
				}
				for i := range gate {
					x, g, u := float64(gate[i]), float64(dy[i]), float64(up[i])
					slope := (value(x+1e-5) - value(x-1e-5)) / 2e-5
					if math.Abs(float64(dgate[i])-g*u*slope) > 5e-6*(1+math.Abs(g*u)) || math.Abs(float64(dup[i])-g*value(x)) > 1e-6*(1+math.Abs(g*x)) {
						t.Fatalf("act %d n=%d: [%d] = %v, %v, want %v, %v", act, n, i, dgate[i], dup[i], g*u*slope, g*value(x))
					}
				}
				GLUBackward(act, F32Vec(gate), F32Vec(up), F32Vec(dy), F32Vec(gate), F32Vec(up))
				near(t, "dgate in place", gate, dgate, 0)
				near(t, "dup in place", up, dup, 0)
			}
		}
	})
}

// TestRope compares with the definition and turns back.
func TestRope(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, shape := range [][3]int{{1, 2, 2}, {3, 64, 64}, {2, 10, 6}, {2, 40, 40}, {2, 8, 0}} {
			heads, d, rot := shape[0], shape[1], shape[2]
			const rows, positions = 5, 9
			rng := rand.New(rand.NewPCG(3, uint64(d)))
			cos, sin := make([]float32, positions*rot/2), make([]float32, positions*rot/2)
			for i := range cos {
				cos[i], sin[i] = float32(math.Cos(float64(i))), float32(math.Sin(float64(i)))
			}
			at := []int32{8, 0, 3, 3, 1}
			src := randoms(rng, rows*heads*d, 1)
			x, check := guarded(t, len(src), 1)
			copy(x, src)
			Rope(F32Vec(x), rows, heads, d, at, cos, sin, rot, false)
			check()
			for i := range src {
				j, row := i%d, i/(heads*d)
				want := float64(src[i])
				if half := rot / 2; j < rot {
					angle := int(at[row])*half + j%half
					c, s := math.Cos(float64(angle)), math.Sin(float64(angle))
					if j < half {
						want = want*c - float64(src[i+half])*s
					} else {
						want = want*c + float64(src[i-half])*s
					}
				}
				if math.Abs(float64(x[i])-want) > 1e-6*(1+math.Abs(want)) {
					t.Fatalf("%v: [%d] = %v, want %v", shape, i, x[i], want)
				}
			}
			Rope(F32Vec(x), rows, heads, d, at, cos, sin, rot, true)
			near(t, "turned back", x, src, 1e-6)
		}
	})
}

// TestEmbed checks gathering, decoding and the sum over equal ids.
func TestEmbed(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		const n, c = 7, 37
		rng := rand.New(rand.NewPCG(4, 4))
		w, ids := randoms(rng, n*c, 1), []int32{3, 0, 6, 3, 3}
		dst, check := guarded(t, len(ids)*c, 1)
		for _, table := range []*Matrix{{N: n, K: c, F32: w}, {N: n, K: c, Decode: func(dst []float32, lo, hi int) { copy(dst, w[lo*c:hi*c]) }}} {
			EmbedRows(dst, table, ids)
			check()
			for i, id := range ids {
				near(t, "row", dst[i*c:(i+1)*c], w[int(id)*c:(int(id)+1)*c], 0)
			}
		}
		dy, d := randoms(rng, len(ids)*c, 1), make([]float32, n*c)
		EmbedBackward(d, dy, ids, c)
		for j := range c {
			if want := dy[j] + dy[3*c+j] + dy[4*c+j]; d[3*c+j] != want || d[j] != dy[c+j] || d[c+j] != 0 {
				t.Fatalf("column %d: %v, want %v", j, d[3*c+j], want)
			}
		}
	})
	for _, ids := range [][]int32{{-1}, {7}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("ids %v did not panic", ids)
				}
			}()
			EmbedRows(make([]float32, 2), &Matrix{N: 7, K: 2, F32: make([]float32, 14)}, ids)
		}()
	}
}

// TestSampling checks the helpers on one row of logits, ties and NaN included.
func TestSampling(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		x    []float32
		want int
	}{{nil, -1}, {[]float32{nan}, -1}, {[]float32{nan, -inf, -inf}, 1}, {[]float32{2, 5, 5, 1}, 1}, {[]float32{nan, 1, inf}, 2}} {
		if got := ArgMax(c.x); got != c.want {
			t.Errorf("ArgMax(%v) = %d, want %d", c.x, got, c.want)
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for n := range 70 {
		x := make([]float32, n)
		order := make([]int, n)
		for i := range x {
			x[i], order[i] = float32(rng.IntN(20)), i // many ties
		}
		sort.SliceStable(order, func(i, j int) bool { return x[order[i]] > x[order[j]] })
		for _, k := range []int{0, 1, 5, 40, 100} {
			index := make([]int32, k)
			if got := TopK(index, x); got != min(n, k) {
				t.Fatalf("TopK of %d in %d gave %d", k, n, got)
			}
			for i := range min(n, k) {
				if int(index[i]) != order[i] {
					t.Fatalf("TopK of %d in %v: %v, want %v", k, x, index, order)
				}
			}
		}
	}
	if index := make([]int32, 2); TopK(index, []float32{nan, 1, 2}) != 2 || index[0] != 2 || index[1] != 1 {
		t.Errorf("TopK with NaN: %v", index)
	}
	forEachImpl(t, func(t *testing.T) {
		for _, n := range []int{1, 5, 1024, 3001} {
			x, sum := randoms(rng, n, 3), 0.0
			for i := range x {
				x[i] += 100 // whose exponential overflows float32
				sum += math.Exp(float64(x[i]))
			}
			if got, want := LogSumExp(x), math.Log(sum); math.Abs(got-want) > 1e-6 {
				t.Fatalf("n=%d: LogSumExp is %v, want %v", n, got, want)
			}
		}
	})
}
