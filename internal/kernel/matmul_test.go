package kernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// seeded is a source of the same numbers in every run.
func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 20261123)) }

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// floatMatrices are w in every form that a product in float32 takes.
func floatMatrices(n, k int, w []float32) []*Matrix {
	forms := []*Matrix{{N: n, K: k, F32: w}, decoding(n, k, w)}
	for _, layout := range []Layout{ForForward, ForBackward} {
		laid := NewMatrix(n, k, false, layout)
		laid.SetRows(0, w)
		forms = append(forms, &laid)
	}
	return forms
}

// decoding is w without dense values: each row is copied when asked for.
func decoding(n, k int, values []float32) *Matrix {
	return &Matrix{N: n, K: k, Decode: func(dst []float32, lo, hi int) {
		if lo < 0 || hi > n || lo >= hi || len(dst) != (hi-lo)*k {
			panic(fmt.Sprintf("decode of rows [%d, %d) of %d into %d values", lo, hi, n, len(dst)))
		}
		copy(dst, values[lo*k:hi*k])
	}}
}

// A view addresses element (i, j) of a matrix at i·row + j·col.
type view struct {
	x        []float32
	row, col int
}

func (v view) at(i, j int) float64 { return float64(v.x[i*v.row+j*v.col]) }

// checkProduct compares c (rows, cols, stride ldc) with alpha·A·B (+ before)
// in float64, relative to the sum of magnitudes, and all else with before.
func checkProduct(t *testing.T, what string, c, before []float32, ldc, rows, cols, terms int, a, b view, alpha float32, acc bool) {
	t.Helper()
	for i, v := range c {
		r, j := i/ldc, i%ldc
		if r >= rows || j >= cols {
			if math.Float32bits(v) != math.Float32bits(before[i]) {
				t.Fatalf("%s: value %d, outside of C, was overwritten", what, i)
			}
			continue
		}
		var sum, size float64
		for s := range terms {
			p := float64(alpha) * a.at(r, s) * b.at(s, j)
			sum += p
			size += math.Abs(p)
		}
		if acc {
			sum += float64(before[i])
			size += math.Abs(float64(before[i]))
		}
		if e := math.Abs(float64(v) - sum); !(e <= 2e-6*size) {
			t.Fatalf("%s: C[%d,%d] = %g, want %g (sum of magnitudes %g)", what, r, j, v, sum, size)
		}
	}
}

// The shapes are those about every tile, block and threshold, and few sums are
// longer than a block.
var productShapes = [][3]int{
	{0, 5, 7}, {3, 0, 4}, {3, 4, 0}, {1, 1, 1}, {1, 67, 33}, {2, 5, 100}, {4, 130, 576}, {5, 23, 31}, {7, 100, 64}, {13, 64, 17},
	{14, 32, 48}, {15, 33, 65}, {16, 97, 600}, {24, 16, 20}, {25, 8, 40}, {33, 140, 31}, {47, 95, 129}, {128, 40, 30},
	{129, 16, 70}, {130, 49, 9}, {131, 97, 64}, {150, 31, 61}, {193, 1, 3}, {130, 129, 128}, {200, 50, 41}, {260, 65, 35}, {17, 3, 1300}, {9, 1300, 5},
}

func TestProducts(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		r := seeded(1)
		for _, s := range productShapes {
			m, n, k := s[0], s[1], s[2]
			for variant := range 4 {
				acc, alpha := variant&1 == 1, float32(1)
				if variant&2 == 2 {
					alpha = -0.37
				}
				pad := variant * 3
				w := normal(r, n*k)
				weight := &Matrix{N: n, K: k, F32: w}
				if variant%3 != 0 || n*k == 0 {
					weight = floatMatrices(n, k, w)[1+(m+n+k)%3]
				}
				ldx, ldy := k+pad, n+pad
				x, y := normal(r, m*ldx), normal(r, m*ldy)

				what := fmt.Sprintf("m=%d n=%d k=%d acc=%v alpha=%v", m, n, k, acc, alpha)
				before := normal(r, m*ldy+40)
				c := slices.Clone(before)
				ScaledMulT(c, ldy, x, ldx, m, weight, alpha, acc)
				checkProduct(t, "MulT "+what, c, before, max(ldy, 1), m, n, k, view{x, ldx, 1}, view{w, 1, k}, alpha, acc)

				before = normal(r, m*ldx+40)
				c = slices.Clone(before)
				ScaledMul(c, ldx, y, ldy, m, weight, alpha, acc)
				checkProduct(t, "Mul "+what, c, before, max(ldx, 1), m, k, n, view{y, ldy, 1}, view{w, k, 1}, alpha, acc)

				ldw := k + pad
				before = normal(r, n*ldw+40)
				c = slices.Clone(before)
				MulTN(c, ldw, y, ldy, x, ldx, m, n, k, alpha, acc)
				checkProduct(t, "MulTN "+what, c, before, max(ldw, 1), n, k, m, view{y, 1, ldy}, view{x, ldx, 1}, alpha, acc)
			}
		}
	})
}

// TestChunks runs weights of more than one chunk and every row in a product of
// its own size, with values for which the exact result is known.
func TestChunks(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		n, k, m := 2*chunkRows+276, 2048, thinRows+8
		if Impl() == "generic" {
			m = 2*dotRows + 1
		}
		w, x := make([]float32, n*k), make([]float32, m*k)
		for i := range n {
			w[i*k+i], w[i*k+k-1] = 2, float32(i%32)
		}
		r := seeded(2)
		for i := range x {
			x[i] = float32(r.IntN(64))
		}
		y := make([]float32, m*n)
		for _, weight := range floatMatrices(n, k, w) {
			MulT(y, n, x, k, m, weight, false)
			for i := range m {
				for j := range n {
					if want := 2*x[i*k+j] + float32(j%32)*x[i*k+k-1]; y[i*n+j] != want {
						t.Fatalf("MulT: C[%d,%d] = %g, want %g", i, j, y[i*n+j], want)
					}
				}
			}
			dx := make([]float32, m*k)
			Mul(dx, k, x, k, m, weight, false) // the first n columns of x as dY
			for i := range m {
				var last float32
				for j := range n {
					last += float32(j%32) * x[i*k+j]
					if dx[i*k+j] != 2*x[i*k+j] {
						t.Fatalf("Mul: C[%d,%d] = %g, want %g", i, j, dx[i*k+j], 2*x[i*k+j])
					}
				}
				if dx[i*k+k-1] != last {
					t.Fatalf("Mul: C[%d,%d] = %g, want %g", i, k-1, dx[i*k+k-1], last)
				}
			}
		}
	})
}

// bits runs the three products and returns all results.
func bits(m, n, k int, w *Matrix, x, y []float32) []float32 {
	c := make([]float32, m*n+m*k+n*k)
	MulT(c, n, x, k, m, w, true)
	ScaledMul(c[m*n:], k, y, n, m, w, 0.3, true)
	MulTN(c[m*n+m*k:], k, y, n, x, k, m, n, k, 0.7, true)
	return c
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// TestBitsDependOnNothingElse: threads, dense or decoded weights, and avx2
// against avx512 change no bit.
func TestBitsDependOnNothingElse(t *testing.T) {
	r := seeded(3)
	for _, s := range [][3]int{{1, 700, 650}, {3, 260, 70}, {9, 300, 620}, {100, 450, 700}, {203, 333, 777}, {200, 130, 140}, {300, 16, 600}, {300, 600, 16}} {
		m, n, k := s[0], s[1], s[2]
		w, x, y := normal(r, n*k), normal(r, m*k), normal(r, m*n)
		var vector []float32
		forEachImpl(t, func(t *testing.T) {
			if Impl() == "generic" && m*n*k > 4e6 {
				t.Skip("too slow; the drivers are the same")
			}
			var first []float32
			withThreads(t, func(t *testing.T) {
				for _, weight := range floatMatrices(n, k, w) {
					got := bits(m, n, k, weight, x, y)
					if first == nil {
						first = got
					}
					sameBits(t, fmt.Sprintf("%v", s), got, first)
				}
			})
			if Impl() != "generic" {
				if vector == nil {
					vector = first
				}
				sameBits(t, fmt.Sprintf("%v across implementations", s), first, vector)
			}
		})
	}
}

// TestRowsAreIndependent: a row's result does not depend on the rows beside it,
// so that a batch may be cut anywhere above dotRows.
func TestRowsAreIndependent(t *testing.T) {
	r := seeded(4)
	forEachImpl(t, func(t *testing.T) {
		m, n, k := thinRows+10, 700, 650
		if Impl() == "generic" {
			k = 40
		}
		w, x, y := &Matrix{N: n, K: k, F32: normal(r, n*k)}, normal(r, m*k), normal(r, m*n)
		all, part := make([]float32, m*n), make([]float32, m*n)
		back, backPart := make([]float32, m*k), make([]float32, m*k)
		MulT(all, n, x, k, m, w, false)
		Mul(back, k, y, n, m, w, false)
		for _, cut := range []int{dotRows + 1, 60, thinRows + 5} {
			MulT(part, n, x, k, cut, w, false)
			MulT(part[cut*n:], n, x[cut*k:], k, m-cut, w, false)
			sameBits(t, "MulT", part, all)
			Mul(backPart, k, y, n, cut, w, false)
			Mul(backPart[cut*k:], k, y[cut*n:], n, m-cut, w, false)
			sameBits(t, "Mul", backPart, back)
		}
	})
}

// TestNaNStays: a NaN or infinity in a row reaches that row of C and no other.
func TestNaNStays(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, m := range []int{2, 20, thinRows + 8} {
			n, k := 90, 70
			r := seeded(5)
			x := normal(r, m*k)
			x[k+3] = float32(math.NaN())
			c := make([]float32, m*n)
			MulT(c, n, x, k, m, &Matrix{N: n, K: k, F32: normal(r, n*k)}, false)
			for i, v := range c {
				if isNaN := v != v; isNaN != (i/n == 1) {
					t.Fatalf("m=%d: C[%d,%d] = %v", m, i/n, i%n, v)
				}
			}
		}
	})
}

// TestStaleScratch: what earlier calls left in scratch memory changes nothing.
func TestStaleScratch(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		r := seeded(6)
		m, n, k := thinRows+3, 41, 37
		w, x, y := &Matrix{N: n, K: k, F32: normal(r, n*k)}, normal(r, m*k), normal(r, m*n)
		clean := bits(m, n, k, w, x, y)
		poison := make([]float32, 200*200)
		for i := range poison {
			poison[i] = float32(math.NaN())
		}
		for _, rows := range []int{3, 60, thinRows + 8} {
			bits(rows, 200, 200, &Matrix{N: 200, K: 200, F32: poison}, poison, poison)
		}
		sameBits(t, "after NaN", bits(m, n, k, w, x, y), clean)
	})
}

func TestProductsFromManyGoroutines(t *testing.T) {
	r := seeded(7)
	m, n, k := 140, 90, 70
	w, x, y := decoding(n, k, normal(r, n*k)), normal(r, m*k), normal(r, m*n)
	want := bits(m, n, k, w, x, y)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				if !slices.Equal(bits(m, n, k, w, x, y), want) {
					t.Error("products at the same time differ")
				}
			}
		})
	}
	wg.Wait()
}

func TestProductsAllocateNothing(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		r := seeded(8)
		for _, m := range []int{1, 20, thinRows + 8} {
			n, k := 50, 60
			values := normal(r, n*k)
			x, y := normal(r, m*k), normal(r, m*n)
			c, dx, dw := make([]float32, m*n), make([]float32, m*k), make([]float32, n*k)
			for _, w := range floatMatrices(n, k, values) {
				allocs := testing.AllocsPerRun(5, func() {
					MulT(c, n, x, k, m, w, true)
					Mul(dx, k, y, n, m, w, true)
					MulTN(dw, k, y, n, x, k, m, n, k, 1, true)
				})
				if allocs != 0 {
					t.Errorf("m=%d dense=%v: %v allocations", m, w.F32 != nil, allocs)
				}
			}
		}
	})
}

func TestMisuse(t *testing.T) {
	f := make([]float32, 100)
	w := &Matrix{N: 4, K: 5, F32: f}
	for name, call := range map[string]func(){
		"C too short":     func() { MulT(f[:11], 4, f, 5, 3, w, false) },
		"A too short":     func() { Mul(f, 5, f[:3], 4, 1, w, false) },
		"stride too low":  func() { MulT(f, 3, f, 5, 3, w, false) },
		"weight short":    func() { MulT(f, 4, f, 5, 3, &Matrix{N: 30, K: 5, F32: f}, false) },
		"weight missing":  func() { MulT(f, 4, f, 5, 3, &Matrix{N: 4, K: 5}, false) },
		"negative rows":   func() { MulT(f, 4, f, 5, -1, w, false) },
		"gradient strays": func() { MulTN(f[:19], 5, f, 4, f, 5, 3, 4, 5, 1, false) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if msg, _ := recover().(string); !strings.HasPrefix(msg, "kernel: Mul") {
					t.Errorf("recovered %q", msg)
				}
			}()
			call()
		})
	}
}

// TestAssemblyIsGenerated: the assembly in the tree is what its emitter writes.
func TestAssemblyIsGenerated(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the assembly is for amd64")
	}
	cmd := exec.Command("go", "run", "./_asm/gemm")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("go run ./_asm/gemm: %v\n%s", err, stderr.String())
	}
	compareFile(t, "gemm_amd64.s", want)
}
