package kernel

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// values repeats the generator of testdata/golden/kernel/make.py: uniform in
// [−1, 1).
func values(seed uint32, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		seed = 1664525*seed + 1013904223
		out[i] = float32(float64(seed>>8)/(1<<23) - 1)
	}
	return out
}

// golden reads what PyTorch computed.
func golden(t *testing.T, name string) []float32 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "kernel", "kernel.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]byte
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	raw := all[name]
	if len(raw) == 0 {
		t.Fatalf("no golden %q", name)
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

// near fails unless |got − want| ≤ tol·max(1, largest |want|) everywhere.
func near(t *testing.T, name string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	scale := 1.0
	for _, w := range want {
		scale = max(scale, math.Abs(float64(w)))
	}
	for i := range want {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tol*scale) {
			t.Fatalf("%s[%d] = %v, want %v (off by %.3g, scale %.3g)", name, i, got[i], want[i], d, scale)
		}
	}
}

// ulps is the distance of two floats in units of the last place.
func ulps(a, b float32) int64 {
	order := func(x float32) int64 {
		i := int64(int32(math.Float32bits(x)))
		if i < 0 {
			i = math.MinInt32 - i
		}
		return i
	}
	if a != a && b != b {
		return 0
	}
	return max(order(a)-order(b), order(b)-order(a))
}

// canary marks the guard bands; no kernel computes it.
var canary = math.Float32frombits(0x7fc12345)

// guarded is a slice of n values at an odd place, between guard bands that
// check verifies.
func guarded(t *testing.T, n, shift int) (x []float32, check func()) {
	t.Helper()
	const band = 33
	buf := make([]float32, shift+band+n+band)
	for i := range buf {
		buf[i] = canary
	}
	x = buf[shift+band : shift+band+n : shift+band+n]
	return x, func() {
		t.Helper()
		for i, v := range buf {
			if in := i - shift - band; (in < 0 || in >= n) && math.Float32bits(v) != math.Float32bits(canary) {
				t.Fatalf("wrote outside the output, at %d of %d", in, n)
			}
		}
	}
}

// lengths are 0 to 67, and some around the blocks of the implementations.
func lengths() []int {
	var n []int
	for i := range 68 {
		n = append(n, i)
	}
	return append(n, 127, 576, 1024, 1025, 4099)
}

// randoms is n values of standard deviation scale.
func randoms(rng *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * scale)
	}
	return x
}

// TestVectors compares every primitive with float64 at every length and
// alignment, in place where that is allowed.
func TestVectors(t *testing.T) {
	sigmoid := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	type op struct {
		name   string
		inputs int
		run    func(dst []float32, in [][]float32)
		want   func(dst float64, in []float64) float64
	}
	norm := func(in []float64) float64 { return 0.7*in[0]*(in[2]+1) - 0.3*in[1] }
	ops := []op{
		{"Add", 2, func(d []float32, in [][]float32) { Add(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return in[0] + in[1] }},
		{"Multiply", 2, func(d []float32, in [][]float32) { Multiply(d, in[0], in[1]) }, func(_ float64, in []float64) float64 { return in[0] * in[1] }},
		{"AddScaled", 1, func(d []float32, in [][]float32) { AddScaled(d, in[0], 0.37) }, func(d float64, in []float64) float64 { return d + 0.37*in[0] }},
		{"Scale", 1, func(d []float32, in [][]float32) { Scale(d, in[0], 0.37) }, func(_ float64, in []float64) float64 { return 0.37 * in[0] }},
		{"Exp", 1, func(d []float32, in [][]float32) { Exp(d, in[0]) }, func(_ float64, in []float64) float64 { return math.Exp(in[0]) }},
		{"mulAxpy", 2, func(d []float32, in [][]float32) { vecMulAxpy(d, in[0], in[1], 0.37) }, func(d float64, in []float64) float64 { return d + 0.37*in[0]*in[1] }},
		{"subMul", 1, func(d []float32, in [][]float32) { vecSubMul(d, in[0], 0.37) }, func(d float64, in []float64) float64 { return d * (in[0] - 0.37) }},
		{"softcap", 1, func(d []float32, in [][]float32) { vecSoftcap(d, in[0], 1.5) }, func(_ float64, in []float64) float64 { return 1.5 * math.Tanh(in[0]/1.5) }},
		{"softcapBack", 1, func(d []float32, in [][]float32) { vecSoftcapBack(d, in[0], 1.5, 0.37) }, func(d float64, in []float64) float64 { return (d - 0.37) * (1 - in[0]/1.5*in[0]/1.5) }},
		{"norm", 2, func(d []float32, in [][]float32) { vecNorm(d, in[0], in[1], 0.7, 1) }, func(_ float64, in []float64) float64 { return in[0] * 0.7 * (in[1] + 1) }},
		{"normBack", 3, func(d []float32, in [][]float32) { vecNormBack(d, in[0], in[1], in[2], 0.7, 0.3, 1) }, func(_ float64, in []float64) float64 { return norm(in) }},
		{"normBackAdd", 3, func(d []float32, in [][]float32) { vecNormBackAdd(d, in[0], in[1], in[2], 0.7, 0.3, 1) }, func(d float64, in []float64) float64 { return d + norm(in) }},
		{"GeGLU", 2, func(d []float32, in [][]float32) { GLU(GELUTanh, F32Vec(d), F32Vec(in[0]), F32Vec(in[1])) }, func(_ float64, in []float64) float64 {
			return in[0] / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(in[0]+0.044715*in[0]*in[0]*in[0]))) * in[1]
		}},
		{"SwiGLU", 2, func(d []float32, in [][]float32) { GLU(SiLU, F32Vec(d), F32Vec(in[0]), F32Vec(in[1])) }, func(_ float64, in []float64) float64 { return in[0] * sigmoid(in[0]) * in[1] }},
	}
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, n := range lengths() {
			for _, o := range ops {
				for _, inPlace := range []bool{false, true} {
					if inPlace && (o.name == "normBack" || o.name == "normBackAdd" || o.name == "AddScaled" || o.name == "mulAxpy" || o.name == "subMul" || o.name == "softcapBack") {
						continue
					}
					dst, check := guarded(t, n, n%5)
					in := make([][]float32, o.inputs)
					for i := range in {
						in[i] = randoms(rng, n, 2)
					}
					copy(dst, randoms(rng, n, 2))
					before := append([]float32(nil), dst...)
					if inPlace {
						copy(dst, in[0])
						before = in[0]
					}
					args := append([][]float32(nil), in...)
					if inPlace {
						args[0] = dst
					}
					o.run(dst, args)
					check()
					want := make([]float32, n)
					for i := range want {
						v := make([]float64, o.inputs)
						for j := range v {
							v[j] = float64(in[j][i])
						}
						want[i] = float32(o.want(float64(before[i]), v))
						if e := math.Abs(float64(dst[i] - want[i])); !(e <= 4e-6*(1+math.Abs(float64(want[i])))) {
							t.Fatalf("%s n=%d in place %v: [%d] = %v, want %v", o.name, n, inPlace, i, dst[i], want[i])
						}
					}
				}
			}
		}
	})
}

// TestReductions compares the sums and maxima with float64.
func TestReductions(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, n := range append(lengths(), 100_003) {
			a, b, w := randoms(rng, n, 1), randoms(rng, n, 1), randoms(rng, n, 1)
			dot, norm, squares, sum, size := 0.0, 0.0, 0.0, 0.0, 1.0
			largest := float32(math.Inf(-1))
			for i := range a {
				dot += float64(a[i]) * float64(b[i])
				norm += float64(a[i]) * float64(w[i]+1) * float64(b[i])
				squares += float64(a[i]) * float64(a[i])
				sum += math.Exp(float64(a[i] - 0.5))
				size += math.Abs(float64(a[i])*float64(b[i])) + math.Abs(float64(a[i])*float64(w[i]+1)*float64(b[i]))
				largest = max(largest, a[i])
			}
			if got := Dot(a, b); math.Abs(float64(got)-dot) > 1e-6*size {
				t.Errorf("Dot n=%d: %v, want %v", n, got, dot)
			}
			if got := vecNormDot(a, b, w, 1); math.Abs(float64(got)-norm) > 1e-6*size {
				t.Errorf("normDot n=%d: %v, want %v", n, got, norm)
			}
			if got := SumSquares(a); math.Abs(got-squares) > 1e-12*size {
				t.Errorf("SumSquares n=%d: %v, want %v", n, got, squares)
			}
			if got := vecMax(a); got != largest {
				t.Errorf("max n=%d: %v, want %v", n, got, largest)
			}
			e, check := guarded(t, n, n%3)
			if got := vecExpSum(e, a, 0.5); math.Abs(float64(got)-sum) > 3e-6*sum {
				t.Errorf("expSum n=%d: %v, want %v", n, got, sum)
			}
			check()
			for i := range a {
				if want := float32(math.Exp(float64(a[i] - 0.5))); ulps(e[i], want) > 2 {
					t.Fatalf("expSum n=%d: [%d] = %v, want %v", n, i, e[i], want)
				}
			}
		}
	})
}

// TestExp compares with float64 over the whole range, to 2 ulp, and at the
// special values.
func TestExp(t *testing.T) {
	inf := float32(math.Inf(1))
	var x []float32
	for v := -106.0; v < 90; v += 0.00037 {
		x = append(x, float32(v))
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		x = append(x, math.Float32frombits(rng.Uint32()))
	}
	x = append(x, 0, float32(math.Copysign(0, -1)), inf, -inf, float32(math.NaN()), 1e-45, -1e-45, 88.72283, 88.72284, -103.97, -103.98, -87.4, math.MaxFloat32, -math.MaxFloat32)
	forEachImpl(t, func(t *testing.T) {
		y := make([]float32, len(x))
		Exp(y, x)
		worst := int64(0)
		for i, v := range x {
			if d := ulps(y[i], float32(math.Exp(float64(v)))); d > worst {
				worst = d
				if d > 2 {
					t.Fatalf("exp(%v) = %v, want %v (%d ulp)", v, y[i], float32(math.Exp(float64(v))), d)
				}
			}
		}
		t.Logf("worst error %d ulp", worst)
	})
}

// TestSoftcap compares with float64 over the whole range, to 4 ulp, and at the special values.
func TestSoftcap(t *testing.T) {
	inf := float32(math.Inf(1))
	const c = 50
	var x []float32
	for v := -12.0 * c; v < 12*c; v += 0.0037 {
		x = append(x, float32(v))
	}
	for e := -120; e < 120; e++ {
		x = append(x, float32(math.Ldexp(1.3, e)), float32(-math.Ldexp(1.7, e)))
	}
	x = append(x, 0, inf, -inf, math.MaxFloat32, -math.MaxFloat32, float32(math.NaN()))
	forEachImpl(t, func(t *testing.T) {
		y := make([]float32, len(x))
		vecSoftcap(y, x, c)
		worst := int64(0)
		for i, v := range x {
			want := float32(c * math.Tanh(float64(v)/c))
			d := ulps(y[i], want)
			if worst = max(worst, d); d > 4 {
				t.Fatalf("softcap of %v = %v, want %v (%d ulp)", v, y[i], want, d)
			}
		}
		t.Logf("worst error %d ulp", worst)
	})
}

// TestNaN: whatever is not a number reaches the output, wherever it stands.
func TestNaN(t *testing.T) {
	nan := float32(math.NaN())
	forEachImpl(t, func(t *testing.T) {
		for _, n := range []int{1, 7, 8, 9, 16, 17, 31, 40, 67} {
			for at := range n {
				x, ones, y, z := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
				for i := range ones {
					ones[i] = 1
				}
				x[at] = nan
				isNaN := func(name string, v float32) {
					t.Helper()
					if v == v {
						t.Fatalf("%s n=%d: NaN at %d became %v", name, n, at, v)
					}
				}
				isNaN("Dot", Dot(x, ones))
				isNaN("expSum", vecExpSum(y, x, vecMax(x)))
				GLU(SiLU, F32Vec(y), F32Vec(x), F32Vec(ones))
				isNaN("SwiGLU", y[at])
				GLUBackward(GELUTanh, F32Vec(y), F32Vec(z), F32Vec(ones), F32Vec(x), F32Vec(ones))
				isNaN("GLUBackward gate", y[at])
				isNaN("GLUBackward up", z[at])
				if at > 0 && y[0] != y[0] {
					t.Fatalf("a NaN at %d spread to 0", at)
				}
				RMSNorm(F32Vec(y), F32Vec(x), ones, 1, n, 1e-5, nil, 0)
				isNaN("RMSNorm", y[0])
				if s := SumSquares(x); s == s {
					t.Fatalf("SumSquares n=%d: NaN at %d became %v", n, at, s)
				}
				isNaN("LogSumExp", float32(LogSumExp(x)))
			}
		}
	})
}

// TestThreads: every parallel operation gives the same bits for 1, 2 and 3
// threads, and allocates nothing once warm.
func TestThreads(t *testing.T) {
	defer SetThreads(Threads())
	ops := steadyOps()
	forEachImpl(t, func(t *testing.T) {
		for _, o := range ops {
			var first []float32
			for _, threads := range []int{1, 2, 3} {
				SetThreads(threads)
				got := o.run()
				if first == nil {
					first = append(first, got...)
					continue
				}
				for i := range first {
					if math.Float32bits(first[i]) != math.Float32bits(got[i]) {
						t.Fatalf("%s: [%d] is %v with 1 thread, %v with %d", o.name, i, first[i], got[i], threads)
					}
				}
			}
			SetThreads(2)
			if n := testing.AllocsPerRun(3, func() { o.run() }); n != 0 {
				t.Errorf("%s allocates %v times a call", o.name, n)
			}
		}
	})
}

// steadyOps are calls that overwrite the same output with the same values.
func steadyOps() []struct {
	name string
	run  func() []float32
} {
	rng := rand.New(rand.NewPCG(7, 8))
	const rows, c = 150, 320
	x, y, w, out := randoms(rng, rows*c, 1), randoms(rng, rows*c, 1), randoms(rng, c, 1), make([]float32, rows*c)
	out2, dw, rstd := make([]float32, rows*c), make([]float32, c), make([]float32, rows)
	ids := make([]int32, rows)
	for i := range ids {
		ids[i] = int32(i * i % 40)
	}
	table := &Matrix{N: 40, K: c, F32: randoms(rng, 40*c, 1)}
	dtable, lengths := make([]float32, 40*c), make([]float32, 40)
	cos, sin := randoms(rng, 40*16, 1), randoms(rng, 40*16, 1)
	spec := AttentionSpec{Heads: 10, KVHeads: 5, HeadDim: 32, Scale: 0.2, Window: 70, Softcap: 3}
	seq := []int32{0, 101, 150}
	lse := make([]float32, rows*spec.Heads)
	k, v := randoms(rng, rows*c/2, 1), randoms(rng, rows*c/2, 1)
	dk, dv := make([]float32, rows*c/2), make([]float32, rows*c/2)
	loss, dh := make([]float32, rows), make([]float32, rows*c)
	p, m, s := make([]float32, rows*c), make([]float32, rows*c), make([]float32, rows*c)
	var all []float32
	join := func(parts ...[]float32) []float32 {
		all = all[:0]
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	return []struct {
		name string
		run  func() []float32
	}{
		{"Add", func() []float32 { Add(out, x, y); return out }},
		{"SumSquares", func() []float32 { return join(append(rstd[:0], float32(SumSquares(x)))) }},
		{"RMSNorm", func() []float32 { RMSNorm(F32Vec(out), F32Vec(x), w, rows, c, 1e-5, rstd, 0); return out }},
		{"RMSNormBackward", func() []float32 {
			clear(dw)
			RMSNorm(F32Vec(out2), F32Vec(x), w, rows, c, 1e-5, rstd, 1)
			RMSNormBackward(F32Vec(out), F32Vec(y), F32Vec(x), w, rstd, rows, c, 1, false, dw)
			return join(out, dw)
		}},
		{"SwiGLU", func() []float32 { GLU(SiLU, F32Vec(out), F32Vec(x), F32Vec(y)); return out }},
		{"GLUBackward", func() []float32 {
			GLUBackward(GELUTanh, F32Vec(out), F32Vec(out2), F32Vec(x), F32Vec(y), F32Vec(x))
			return join(out, out2)
		}},
		{"Rope", func() []float32 {
			copy(out, x)
			Rope(F32Vec(out), rows, 10, 32, ids, cos, sin, 32, false)
			return out
		}},
		{"EmbedRows", func() []float32 { EmbedRows(out, table, ids); return out }},
		{"EmbedBackward", func() []float32 { clear(dtable); EmbedBackward(dtable, x, ids, c); return dtable }},
		{"Attention", func() []float32 {
			Attention(F32Vec(out), lse, F32Vec(x), F32Vec(k), F32Vec(v), seq, spec)
			return join(out, lse)
		}},
		{"AttentionBackward", func() []float32 {
			Attention(F32Vec(out2), lse, F32Vec(x), F32Vec(k), F32Vec(v), seq, spec)
			AttentionBackward(F32Vec(out), F32Vec(dk), F32Vec(dv), F32Vec(y), F32Vec(x), F32Vec(k), F32Vec(v), F32Vec(out2), lse, seq, spec)
			return join(out, dk, dv)
		}},
		{"AttentionCached few", func() []float32 {
			AttentionCached(out[:2*c], x[:2*c], k, v, 2, 100, rows, spec)
			return out[:2*c]
		}},
		{"AttentionCached many", func() []float32 {
			AttentionCached(out[:50*c], x[:50*c], k, v, 50, 100, rows, spec)
			return out[:50*c]
		}},
		{"CrossEntropy", func() []float32 {
			clear(dtable)
			CrossEntropy(loss, lse[:rows], dh, nil, F32Vec(x), table, LogitSpec{Scale: 0.5, Softcap: 4}, ids)
			HeadGradient(dtable, nil, F32Vec(x), table, LogitSpec{Scale: 0.5, Softcap: 4}, ids, lse[:rows], loss)
			return join(loss, lse[:rows], dh, dtable)
		}},
		{"columns", func() []float32 {
			ScaleColumns(F32Vec(out), F32Vec(x), rows, w, w)
			Subtract(F32Vec(out2), F32Vec(out), F32Vec(x))
			clear(dw)
			ColumnDots(dw, F32Vec(out), F32Vec(y), rows)
			return join(out, out2, dw)
		}},
		{"norms", func() []float32 {
			RowNorms(lengths, table, x[:3*c], y[:3*table.N], 3, 0.5)
			ColumnNorms(dw, table, y[:3*table.N], x[:3*c], 3, 0.5)
			return join(lengths, dw)
		}},
		{"AdamW", func() []float32 {
			clear(m)
			clear(s)
			copy(p, y)
			AdamW(p, x, m, s, 1e-3, 0.9, 0.999, 1e-8, 0.01, 1)
			return join(p, m, s)
		}},
	}
}

// TestTile compares the product tile with its generic form.
func TestTile(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(9, 10))
		for cols := 16; cols <= 64; cols += 16 {
			for _, steps := range []int{0, 1, 2, 17, 96} {
				for _, acc := range []bool{false, true} {
					a, b := randoms(rng, 6*100, 1), randoms(rng, 96*70, 1)
					for _, stride := range [][2]int{{100, 1}, {1, 6}} {
						got, check := guarded(t, 5*67+cols, 1)
						copy(got, randoms(rng, len(got), 1))
						want := append([]float32(nil), got...)
						tile(steps, a, stride[0], stride[1], b, 70, got, 67, cols, acc)
						tileGeneric(steps, a, stride[0], stride[1], b, 70, want, 67, cols, acc)
						check()
						near(t, "tile", got, want, 2e-6)
					}
				}
			}
		}
	})
}

// TestTranspose compares with the definition at every shape.
func TestTranspose(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(11, 12))
		for n := range 20 {
			for d := range 20 {
				src := randoms(rng, n*23, 1)
				dst, check := guarded(t, d*21, 2)
				vecTranspose(dst, 21, src, 23, n, d)
				check()
				for i, v := range dst {
					row, col := i/21, i%21
					if col >= n && math.Float32bits(v) != math.Float32bits(canary) {
						t.Fatalf("(%d, %d): wrote column %d", n, d, col)
					}
					if col < n && v != src[col*23+row] {
						t.Fatalf("(%d, %d): [%d][%d] = %v", n, d, row, col, v)
					}
				}
			}
		}
	})
}

// TestVecGenerated: the tree holds what _asm/vec writes.
func TestVecGenerated(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("go", "run", "./_asm/vec", dir).CombinedOutput(); err != nil {
		t.Fatalf("go run ./_asm/vec: %v\n%s", err, out)
	}
	for _, name := range []string{"vec_amd64.s", "fit_amd64.s", "decode_amd64.s", "decode_amd64.go", "vec_amd64.go", "vec_other.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		compareFile(t, name, want)
	}
}
