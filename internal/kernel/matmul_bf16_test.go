package kernel

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// forEachHalf runs test as a subtest under every implementation, and where that is
// avx512 in every way of computing products in bfloat16: those of the processor, and
// the drivers of the others on their references.
func forEachHalf(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	forEachImpl(t, func(t *testing.T) {
		defer setHalf(widened)()
		test(t)
	})
	if maxImpl < avx512 {
		return
	}
	for _, l := range []halfLevel{pairs, tiles} {
		name := halfNames[l]
		if !slices.Contains(halfLevels, l) {
			name += " in Go"
		}
		t.Run(name, func(t *testing.T) {
			restore, err := SetImpl("avx512")
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			defer setHalf(l)()
			test(t)
		})
	}
}

// setHalf chooses a level, by its reference where the processor does not have it.
func setHalf(l halfLevel) (restore func()) {
	level, pairsWere, tilesWere := half, pairsInGo, tilesInGo
	half = l
	pairsInGo = l == pairs && !slices.Contains(halfLevels, pairs)
	tilesInGo = l == tiles && !slices.Contains(halfLevels, tiles)
	return func() { half, pairsInGo, tilesInGo = level, pairsWere, tilesWere }
}

// slow reports whether products as large as m·n·k are left out: the drivers are the
// same for smaller ones.
func slow(m, n, k int) bool {
	return (Impl() == "generic" || pairsInGo || tilesInGo) && m*n*k > 4e6
}

// rounded is x in bfloat16.
func rounded(x []float32) []float32 {
	y := slices.Clone(x)
	RoundBF16(y)
	return y
}

// halfMatrices are w in every form that a product in bfloat16 takes.
func halfMatrices(n, k int, w []float32) []*Matrix {
	dense := &Matrix{N: n, K: k, F32: w, Half: true}
	narrow := &Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}
	F32ToBF16(narrow.BF16, w)
	decoded := decoding(n, k, w)
	decoded.Half = true
	forms := []*Matrix{dense, narrow, decoded}
	for _, layout := range []Layout{ForForward, ForBackward} {
		laid := NewMatrix(n, k, true, layout)
		laid.SetRows(0, w)
		forms = append(forms, &laid)
	}
	return forms
}

// TestLayouts: a weight in panels has the rows that were set, in any pieces, as a whole and cut; cuts
// make the products of cuts by rows, and so they do where products are computed in another way than the
// panels are for.
func TestLayouts(t *testing.T) {
	shapes := [][2]int{{64, 32}, {96, 640}, {70, 96}, {33, 64}, {96, 50}, {1, 32}, {31, 31}}
	forEachHalf(t, func(t *testing.T) {
		for _, half := range []bool{false, true} {
			for _, s := range shapes {
				n, k := s[0], s[1]
				w := normal(seeded(18), n*k)
				for _, layout := range []Layout{ByRows, ForForward, ForBackward} {
					laid := NewMatrix(n, k, half, layout)
					cols := panelCols(half)
					inPanels := layout == ForForward && n%cols == 0 || layout == ForBackward && k%cols == 0
					if inPanels = inPanels && !(half && halfNow() == widened); inPanels != (laid.laid != nil) {
						t.Fatalf("(%d, %d), layout %d: in panels %v", n, k, layout, laid.laid != nil)
					}
					for lo := n / 32 * 32; lo >= 0; lo -= 32 { // last rows first
						laid.SetRows(lo, w[lo*k:min(n, lo+32)*k])
					}
					checkLaid(t, &laid, w)
					if n == 96 {
						forEachHalf(t, func(t *testing.T) { checkLaid(t, &laid, w) })
					}
				}
			}
		}
	})
	defer func() {
		if recover() == nil {
			t.Error("a row between panels was set")
		}
	}()
	w := NewMatrix(64, 64, false, ForForward)
	w.SetRows(1, make([]float32, 64))
}

// checkLaid compares a matrix, and cuts of it, with its values by rows.
func checkLaid(t *testing.T, laid *Matrix, w []float32) {
	t.Helper()
	r, n, k := seeded(19), laid.N, laid.K
	if laid.Half {
		w = rounded(w)
	}
	plain := &Matrix{N: n, K: k, F32: w, Half: laid.Half}
	for _, cut := range [][2]int{{0, n}, {0, n / 2}, {n / 3, n}, {n / 64 * 32, n}, {0, n / 64 * 32}, {n - 1, n}, {n, n}} {
		lo, hi := cut[0], cut[1]
		what := fmt.Sprintf("(%d, %d), half %v, rows %v", n, k, laid.Half, cut)
		if laid.laid != nil {
			what += fmt.Sprintf(", layout %d", laid.laid.layout)
		}
		got := make([]float32, (hi-lo)*k)
		laid.Read(got, lo, hi)
		sameBits(t, what, got, w[lo*k:hi*k])
		a, b := laid.Rows(lo, hi), plain.Rows(lo, hi)
		for _, m := range []int{1, 9, 40, thinRows + 1} {
			if slow(m, n, k) {
				continue
			}
			x, y := normal(r, m*k), normal(r, m*(hi-lo))
			products := func(w *Matrix) []float32 {
				c := make([]float32, m*(hi-lo+k))
				MulT(c, hi-lo, x, k, m, w, false)
				Mul(c[m*(hi-lo):], k, y, hi-lo, m, w, false)
				return c
			}
			sameBits(t, what, products(&a), products(&b))
		}
	}
}

func TestHalfProducts(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		r := seeded(11)
		for at, s := range append(productShapes, [3]int{64, 64, 64}, [3]int{100, 290, 1200}, [3]int{37, 1300, 33}, [3]int{37, 1312, 64}, [3]int{100, 96, 1216}) {
			m, n, k := s[0], s[1], s[2]
			if slow(m, n, k) {
				continue
			}
			for variant := range 4 {
				acc, alpha := variant&1 == 1, float32(1)
				if variant == 3 {
					alpha = -0.37
				}
				pad := variant * 3
				w := normal(r, n*k)
				weight := halfMatrices(n, k, w)[(at+variant)%5]
				if n*k == 0 {
					weight = &Matrix{N: n, K: k, Half: true}
				}
				ldx, ldy := k+pad, n+pad
				x, y, w := normal(r, m*ldx), normal(r, m*ldy), rounded(w)

				what := fmt.Sprintf("m=%d n=%d k=%d acc=%v alpha=%v", m, n, k, acc, alpha)
				before := normal(r, m*ldy+40)
				c := slices.Clone(before)
				ScaledMulT(c, ldy, x, ldx, m, weight, alpha, acc)
				checkProduct(t, "MulT "+what, c, before, max(ldy, 1), m, n, k, view{rounded(x), ldx, 1}, view{w, 1, k}, alpha, acc)

				before = normal(r, m*ldx+40)
				c = slices.Clone(before)
				ScaledMul(c, ldx, y, ldy, m, weight, alpha, acc)
				checkProduct(t, "Mul "+what, c, before, max(ldx, 1), m, k, n, view{rounded(y), ldy, 1}, view{w, k, 1}, alpha, acc)
			}
		}
	})
}

// TestHalfChunks runs weights of more than one chunk, with values for which the
// exact result is known.
func TestHalfChunks(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		n, k, m := 2*chunkRows+276, 2048, 70
		if slow(m, n, k) {
			t.Skip("too slow; the drivers are the same")
		}
		w, x, y := make([]float32, n*k), make([]float32, m*k), make([]float32, m*n)
		for i := range n {
			w[i*k+i], w[i*k+k-1] = 2, float32(i%32)
		}
		r := seeded(12)
		for i := range x {
			x[i] = float32(r.IntN(64))
		}
		for _, weight := range halfMatrices(n, k, w) {
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
				for j := range n {
					if dx[i*k+j] != 2*x[i*k+j] {
						t.Fatalf("Mul: C[%d,%d] = %g, want %g", i, j, dx[i*k+j], 2*x[i*k+j])
					}
				}
			}
		}
	})
}

// TestHalfBits: threads, the form of the weight, the rows beside a row and what was
// in scratch memory change no bit.
func TestHalfBits(t *testing.T) {
	r := seeded(13)
	for _, s := range [][3]int{{1, 700, 650}, {9, 300, 620}, {100, 450, 700}, {203, 333, 777}, {203, 352, 768}, {70, 300, 640}, {70, 320, 650}, {300, 600, 16}} {
		m, n, k := s[0], s[1], s[2]
		w, x, y := normal(r, n*k), normal(r, m*k), normal(r, m*n)
		run := func(w *Matrix, lo, hi int) []float32 {
			c := make([]float32, (hi-lo)*(n+k))
			for i := range c {
				c[i] = 0.5
			}
			MulT(c, n, x[lo*k:], k, hi-lo, w, true)
			Mul(c[(hi-lo)*n:], k, y[lo*n:], n, hi-lo, w, true)
			return c
		}
		forEachHalf(t, func(t *testing.T) {
			if slow(m, n, k) {
				t.Skip("too slow; the drivers are the same")
			}
			var first []float32
			withThreads(t, func(t *testing.T) {
				for _, weight := range halfMatrices(n, k, w) {
					got := run(weight, 0, m)
					if first == nil {
						first = got
					}
					sameBits(t, fmt.Sprint(s), got, first)
				}
			})
			poison := make([]float32, 200*200)
			for i := range poison {
				poison[i] = float32(math.NaN())
			}
			bits(100, 200, 200, &Matrix{N: 200, K: 200, F32: poison, Half: true}, poison, poison)
			weight := halfMatrices(n, k, w)[1]
			sameBits(t, "after NaN", run(weight, 0, m), first)
			for _, cut := range []int{dotRows + 1, m - dotRows - 1} {
				if cut <= dotRows || cut > m {
					continue
				}
				head, tail := run(weight, 0, cut), []float32(nil)
				sameBits(t, "MulT of the first rows", head[:cut*n], first[:cut*n])
				if m-cut > dotRows {
					tail = run(weight, cut, m)
					sameBits(t, "Mul of the last rows", tail[(m-cut)*n:], first[m*n+cut*k:])
				}
			}
		})
	}
}

// TestKeeping: products whose operand is kept from one to the next have the bits of those that look
// at it each time, whatever was kept before, and see what changed after Drop.
func TestKeeping(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		r := seeded(17)
		var k Kept
		for _, s := range [][3]int{{70, 100, 90}, {70, 90, 100}, {33, 64, 700}, {64, 700, 64}} {
			m, n, width := s[0], s[1], s[2]
			for _, half := range []bool{false, true} {
				w, small := halfMatrices(n, width, normal(r, n*width))[1], halfMatrices(8, width, normal(r, 8*width))[0]
				up := halfMatrices(n, 8, normal(r, n*8))[0]
				of := func(x []float32) Vec {
					if half {
						return halfVec(x)
					}
					return F32Vec(x)
				}
				for range 2 {
					x, dy := of(normal(r, m*width)), of(normal(r, m*n))
					run := func(x, dy Vec, drop func()) (all []float32) {
						h, y := make([]float32, m*8), make([]float32, m*n)
						dh, dx := make([]float32, m*8), make([]float32, m*width)
						drop()
						Linear(F32Vec(h), x, m, small, false, nil)
						Linear(F32Vec(y), x, m, w, false, []Term{{H: h, W: up, Scale: 0.5}})
						drop()
						LinearBackward(F32Vec(dh), dy, m, up, false, nil)
						LinearBackward(F32Vec(dx), dy, m, w, false, []Term{{H: dh, W: small, Scale: 0.5}})
						return append(append(append(h, y...), dh...), dx...)
					}
					want := run(x, dy, func() {})
					sameBits(t, fmt.Sprint(s, half), run(x.Keeping(&k), dy.Keeping(&k), k.Drop), want)
				}
			}
		}
	})
}

func TestHalfAllocatesNothing(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		r := seeded(14)
		n, k := 50, 60
		for _, m := range []int{1, 20, thinRows + 8} {
			x, y := normal(r, m*k), normal(r, m*n)
			for form, w := range halfMatrices(n, k, normal(r, n*k)) {
				allocs := testing.AllocsPerRun(5, func() {
					MulT(y, n, x, k, m, w, true)
					Mul(x, k, y, n, m, w, true)
				})
				if allocs != 0 {
					t.Errorf("m=%d, form %d: %v allocations", m, form, allocs)
				}
			}
		}
	})
}

// TestTilesSurviveSignals: profiling signals, collections and preemption while tile
// registers are in use change nothing.
func TestTilesSurviveSignals(t *testing.T) {
	if Half() != "amx" {
		t.Skip("no AMX")
	}
	r := seeded(15)
	m, n, k := 256, 256, 1024
	w, x := &Matrix{N: n, K: k, F32: normal(r, n*k), Half: true}, normal(r, m*k)
	want, got := make([]float32, m*n), make([]float32, m*n)
	MulT(want, n, x, k, m, w, false)
	underSignals(t)
	// An emulator takes longer.
	for i, start := 0, time.Now(); i < 200 && time.Since(start) < 3*time.Second; i++ {
		MulT(got, n, x, k, m, w, false)
		sameBits(t, "under signals", got, want)
	}
}

// underSignals has profiling signals and collections, which stop every thread, go on until
// the test ends.
func underSignals(t *testing.T) {
	t.Helper()
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Skip("a profile is being taken already")
	}
	stop := make(chan struct{})
	var collectors sync.WaitGroup
	for range 2 {
		collectors.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
				}
			}
		})
	}
	t.Cleanup(func() {
		close(stop)
		collectors.Wait()
		pprof.StopCPUProfile()
	})
}

func TestSetHalf(t *testing.T) {
	restore, err := SetImpl(Impls()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer restore()
	before := half
	for _, name := range Halves() {
		restore, err := SetHalf(name)
		if err != nil {
			t.Fatal(err)
		}
		if want := name; Half() != want && maxImpl == avx512 {
			t.Errorf("SetHalf(%q) leaves %q", want, Half())
		}
		if generic, err := SetImpl("generic"); err != nil || Half() != "float32" {
			t.Errorf("with plain Go %q, %v", Half(), err)
		} else {
			generic()
		}
		if restore(); half != before {
			t.Fatalf("restored to %v, was %v", half, before)
		}
	}
	if _, err := SetHalf("int8"); err == nil || !strings.Contains(err.Error(), "float32") {
		t.Errorf("SetHalf(int8): %v", err)
	}
	if initialHalf("avx512") != widened || initialHalf("") != halfLevels[0] {
		t.Error("the environment variable is misread")
	}
}
