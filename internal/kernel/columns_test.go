package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestColumns compares with the plain computation, on values of either type.
func TestColumns(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for _, size := range [][2]int{{1, 1}, {3, 70}, {40, 129}} {
		rows, cols := size[0], size[1]
		x, y, g, b := randoms(rng, rows*cols, 1), randoms(rng, rows*cols, 1), randoms(rng, cols, 1), randoms(rng, cols, 1)
		RoundBF16(x)
		RoundBF16(y)
		scaled, less := make([]float32, rows*cols), make([]float32, rows*cols)
		dots, sums := make([]float64, cols), make([]float64, cols)
		for i := range x {
			c := i % cols
			scaled[i], less[i] = x[i]*g[c]+b[c], x[i]-y[i]
			dots[c] += float64(x[i]) * float64(y[i])
			sums[c] += float64(x[i])
		}
		forEachImpl(t, func(t *testing.T) {
			for _, half := range []bool{false, true} {
				vec, tol := F32Vec, 1e-6
				if half {
					vec, tol = halfVec, 1e-2
				}
				vx, vy, out := vec(x), vec(y), vec(make([]float32, rows*cols))
				ScaleColumns(out, vx, rows, g, b)
				near(t, "scaled", out.values32(), scaled, tol)
				Subtract(out, vx, vy)
				near(t, "subtracted", out.values32(), less, tol)
				got := make([]float32, cols)
				ColumnDots(got, vx, vy, rows)
				near(t, "dots", got, narrow(dots), 1e-5)
				clear(got)
				ColumnDots(got, vx, Vec{}, rows)
				near(t, "sums", got, narrow(sums), 1e-5)
			}
			out, check := guarded(t, rows*cols, 3)
			copy(out, x)
			ScaleColumns(F32Vec(out), F32Vec(out), rows, g, nil)
			ScaleColumns(F32Vec(out), F32Vec(out), rows, nil, b)
			near(t, "in place", out, scaled, 1e-6)
			check()
		})
	}
}

// TestGatherColumns: what is gathered and scattered again counts the ids.
func TestGatherColumns(t *testing.T) {
	const n, v = 3, 7
	a := randoms(rand.New(rand.NewPCG(1, 1)), n*v, 1)
	ids := []int32{6, 0, 6, 2}
	got, back := make([]float32, len(ids)*n), make([]float32, n*v)
	GatherColumns(got, a, n, v, ids)
	ScatterColumns(back, got, n, v, ids)
	times := map[int]float32{0: 1, 2: 1, 6: 2}
	for r := range n {
		for c := range v {
			if want := a[r*v+c] * times[c]; back[r*v+c] != want {
				t.Errorf("row %d column %d: %v, want %v", r, c, back[r*v+c], want)
			}
		}
	}
}

// TestNorms compares lengths of a matrix that a pair changes with float64, over weights of every kind.
func TestNorms(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for _, size := range [][3]int{{1, 1, 1}, {5, 33, 2}, {700, 513, 4}, {40, 24, 0}} {
		n, k, r := size[0], size[1], size[2]
		w, a, b := randoms(rng, n*k, 1), randoms(rng, r*k, 1), randoms(rng, n*r, 1)
		RoundBF16(w)
		rows, cols := make([]float64, n), make([]float64, k)
		for i := range n {
			for j := range k {
				v := float64(w[i*k+j])
				for x := range r {
					v += -0.7 * float64(b[i*r+x]) * float64(a[x*k+j])
				}
				rows[i] += v * v
				cols[j] += v * v
			}
		}
		for _, sums := range [][]float64{rows, cols} {
			for i, s := range sums {
				sums[i] = math.Sqrt(s)
			}
		}
		weights := append(halfMatrices(n, k, w), &Matrix{N: n, K: k, F32: w})
		forEachImpl(t, func(t *testing.T) {
			for _, m := range weights {
				got := make([]float32, n)
				RowNorms(got, m, a, b, r, -0.7)
				near(t, "rows", got, narrow(rows), 1e-6)
				// The table whose transpose W is: A and B change places.
				got = make([]float32, k)
				ColumnNorms(got, m, transposed(b, n, r), transposed(a, r, k), r, -0.7)
				near(t, "columns", got, narrow(cols), 1e-6)
			}
		})
	}
}

func transposed(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	if len(x) > 0 {
		Transpose(out, x, rows, cols)
	}
	return out
}

// TestHeadAdapter compares a head with an adapter with the head that it makes of it, over several
// chunks of rows and pieces of the vocabulary: losses, logits, and every gradient.
func TestHeadAdapter(t *testing.T) {
	const c, r, vocab = 10, 3, 3100
	for i, p := range []int{1, 3, 40, lossRows + 5} {
		for _, spec := range []LogitSpec{{}, {Scale: 0.3, Softcap: 2}} {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			h, w := randoms(rng, p*c, 0.5), randoms(rng, vocab*c, 0.5)
			a, b := randoms(rng, r*c, 0.5), randoms(rng, vocab*r, 0.5)
			gain, bias := randoms(rng, vocab, 0.2), randoms(rng, vocab, 0.5)
			for i := range gain {
				gain[i]++
			}
			targets, coef := make([]int32, p), randoms(rng, p, 1)
			for i := range targets {
				targets[i] = int32(rng.IntN(vocab))
			}
			// The head of h and a one: gain∘(W + s·B·A) and the bias.
			const s = 0.8
			wide, hidden := make([]float32, vocab*(c+1)), make([]float32, p*(c+1))
			for v := range vocab {
				for j := range c {
					x := float64(w[v*c+j])
					for k := range r {
						x += s * float64(b[v*r+k]) * float64(a[k*c+j])
					}
					wide[v*(c+1)+j] = float32(float64(gain[v]) * x)
				}
				wide[v*(c+1)+c] = bias[v]
			}
			for i := range p {
				copy(hidden[i*(c+1):], h[i*c:(i+1)*c])
				hidden[i*(c+1)+c] = 1
			}
			loss64, dh64, dw64 := lossRef(hidden, wide, spec, targets, coef, c+1, vocab)
			var wantDh, wantA, wantB, wantBias, wantGain []float64 = make([]float64, p*c), make([]float64, r*c), make([]float64, vocab*r), make([]float64, vocab), make([]float64, vocab)
			for i := range p {
				copy(wantDh[i*c:(i+1)*c], dh64[i*(c+1):])
			}
			for v := range vocab {
				wantBias[v] = dw64[v*(c+1)+c]
				for j := range c {
					d, g := dw64[v*(c+1)+j], float64(gain[v])
					wantGain[v] += d * float64(wide[v*(c+1)+j]) / g
					for k := range r {
						wantB[v*r+k] += s * g * d * float64(a[k*c+j])
						wantA[k*c+j] += s * g * d * float64(b[v*r+k])
					}
				}
			}
			forEachImpl(t, func(t *testing.T) {
				head, u := &Matrix{N: vocab, K: c, F32: w}, make([]float32, p*r)
				MulT(u, r, h, c, p, &Matrix{N: r, K: c, F32: a}, false)
				gradB, gradU := make([]float32, vocab*r), make([]float32, p*r)
				own := spec
				own.Adapter = &HeadAdapter{Terms: []Term{{H: u, W: &Matrix{N: vocab, K: r, F32: b}, Scale: s}}, Gain: gain, Bias: bias,
					GradW: [][]float32{gradB}, GradH: [][]float32{gradU}, GradGain: make([]float32, vocab), GradBias: make([]float32, vocab)}
				loss, lse, dh := make([]float32, p), make([]float32, p), make([]float32, p*c)
				CrossEntropy(loss, lse, dh, nil, F32Vec(h), head, own, targets)
				near(t, "loss", loss, narrow(loss64), 3e-6)
				HeadGradient(nil, nil, F32Vec(h), head, own, targets, lse, coef)
				near(t, "gradient of B", gradB, narrow(wantB), 1e-5)
				near(t, "gradient of the gain", own.Adapter.GradGain, narrow(wantGain), 1e-5)
				near(t, "gradient of the bias", own.Adapter.GradBias, narrow(wantBias), 1e-5)
				gradA := make([]float32, r*c)
				MulTN(gradA, c, gradU, r, h, c, p, r, c, 1, false)
				near(t, "gradient of A", gradA, narrow(wantA), 1e-5)
				for i := range coef {
					Scale(dh[i*c:(i+1)*c], dh[i*c:(i+1)*c], coef[i])
				}
				Mul(dh, c, gradU, r, p, &Matrix{N: r, K: c, F32: a}, true)
				near(t, "gradient of h", dh, narrow(wantDh), 1e-5)
				logits, want := make([]float32, p*vocab), make([]float32, p*vocab)
				Logits(logits, F32Vec(h), p, head, own)
				Logits(want, F32Vec(hidden), p, &Matrix{N: vocab, K: c + 1, F32: wide}, spec)
				near(t, "logits", logits, want, 3e-6)
			})
		}
	}
}
