package kernel

import (
	"fmt"
	"testing"
	"time"

	"github.com/graftml/graft/internal/testspeed"
)

// The benchmarks report GFLOP/s, and of-peak: the fraction of what the micro-kernel
// alone did right before, on as many threads, or GB/s and the fraction of what
// memory did where the weight has to come from there.

// flopPeak is what the better of two micro-kernels does on operands in the first-level
// caches of all threads, in GFLOP/s: the best of some runs of a millisecond.
func flopPeak() float64 {
	set := tileSets[impl]
	return max(bestRate(&peakTask{shape: set.wide}), bestRate(&peakTask{shape: set.outer, outer: true}))
}

// halfPeak is flopPeak for products with Matrix.Half, in the way they are computed.
func halfPeak() float64 {
	switch halfNow() {
	case tiles:
		return bestRate(&peakTask{shape: tileShape{tileSide, tileSide}, half: tiles})
	case pairs:
		return bestRate(&peakTask{shape: tileSets[impl].wide, half: pairs})
	}
	return flopPeak()
}

// peakTask runs a micro-kernel again and again, each unit on operands of its own.
type peakTask struct {
	shape tileShape
	outer bool
	half  halfLevel
	calls int
}

const peakSteps = 256

func (t *peakTask) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	a, panel, c := growAligned(&ws.rowsBuf, 32*(peakSteps+16)), growAligned(&ws.stripsBuf, peakSteps*48), make([]float32, 32*48)
	clear(a)
	clear(panel)
	for range (hi - lo) * t.calls {
		switch {
		case t.half == pairs:
			pairTile(t.shape, peakSteps/2, a, peakSteps+16, panel, panel, c, 48, 1, true)
		case t.half == tiles:
			tileSquares(tileCall{strips: 1, panels: 1, steps: peakSteps / tileSide, lda: tileSide / 2, ahead: tileSide * tileSide / 2, ldc: 48, acc: true}, a, panel, c, panel)
		case t.outer:
			outerTile(peakSteps, a, t.shape.rows, panel, t.shape.cols, c, 48, 1, true)
		default:
			rowTile(t.shape, peakSteps, a, peakSteps+16, panel, panel, c, 48, 1, true)
		}
	}
}

func bestRate(t *peakTask) float64 {
	units, flops := 4*Threads(), 2*float64(t.shape.rows*t.shape.cols*peakSteps)
	t.calls = 1
	best := 0.0
	for try := 0; try < 6; {
		start := time.Now()
		Parallel(units, 1, t)
		took := time.Since(start)
		if took < time.Millisecond {
			t.calls *= 2
			continue
		}
		try++
		best = max(best, float64(units*t.calls)*flops/took.Seconds()/1e9)
	}
	return best
}

// report gives the rate of products of m×n×k multiplications and additions.
func report(b *testing.B, m, n, k int, peak float64) {
	testspeed.ReportFlops(b, 2*float64(m)*float64(n)*float64(k), peak)
}

// BenchmarkPeak runs each micro-kernel on operands in the first-level cache:
// what one core can do at most.
func BenchmarkPeak(b *testing.B) {
	r := seeded(1)
	a, panel, c := normal(r, 64*272), normal(r, 256*48), make([]float32, 64*64)
	for _, name := range Impls() {
		restore, err := SetImpl(name)
		if err != nil {
			b.Fatal(err)
		}
		set := tileSets[impl]
		run := func(form string, shape tileShape, tile func()) {
			b.Run(fmt.Sprintf("%s/%s/%dx%d", name, form, shape.rows, shape.cols), func(b *testing.B) {
				threads := Threads()
				SetThreads(1)
				peak := flopPeak()
				SetThreads(threads)
				for b.Loop() {
					tile()
				}
				report(b, 256, shape.rows, shape.cols, peak)
			})
		}
		run("wide", set.wide, func() { rowTile(set.wide, 256, a, 272, panel, panel, c, 48, 1, true) })
		run("narrow", set.narrow, func() { rowTile(set.narrow, 256, a, 272, panel, panel, c, 48, 1, true) })
		run("outer", set.outer, func() { outerTile(256, a, set.outer.rows, panel, set.outer.cols, c, 48, 1, true) })
		if impl == avx512 && Half() == "avx512-bf16" {
			pair := func(form string, shape tileShape) {
				run("pairs "+form, shape, func() { pairTile(shape, 128, a, 272, panel, panel, c, 48, 1, true) })
			}
			pair("wide", set.wide)
			pair("narrow", set.narrow)
			pair("short", shortPairs)
		}
		restore()
	}
}

// forThreads runs what prepare returns on one and on all threads. Nothing is prepared
// for a benchmark that -bench leaves out.
func forThreads(b *testing.B, name string, prepare func() func(b *testing.B)) {
	b.Run(name, func(b *testing.B) {
		f, all := prepare(), Threads()
		defer SetThreads(all)
		for _, n := range []int{1, all} {
			SetThreads(n)
			b.Run(fmt.Sprintf("threads=%d", n), f)
			if all == 1 {
				break
			}
		}
	})
}

// layerShapes are m, in, out of a training step, the output layer, a prompt
// and generation; adapterShapes those of LoRA pairs, A (rank, in) and B (out,
// rank).
var (
	layerShapes = [][3]int{{1024, 576, 1536}, {1024, 1536, 576}, {1024, 576, 576}, {1024, 576, 192}, {1024, 2048, 2048}, {1024, 4096, 4096},
		{1024, 576, 49152}, {256, 576, 1536}, {64, 576, 1536}, {16, 576, 1536}, {4, 576, 1536}, {1, 576, 1536}, {1, 576, 49152}}
	adapterShapes = [][3]int{{1024, 576, 16}, {1024, 16, 576}, {1024, 1536, 16}, {1024, 16, 1536}, {1024, 576, 64}, {1024, 64, 576}}
)

func benchmarkProduct(b *testing.B, run func(m, n, k int, w *Matrix, x, y []float32)) {
	for _, s := range append(layerShapes, adapterShapes...) {
		m, k, n := s[0], s[1], s[2]
		forThreads(b, fmt.Sprintf("%d,%d→%d", m, k, n), func() func(b *testing.B) {
			w, x, y := &Matrix{N: n, K: k, F32: many(n * k)}, many(m*k), many(m*n)
			return func(b *testing.B) {
				if bytes := 4 * n * k; m == 1 && bytes > 64<<20 {
					peak := testspeed.Memory(Threads())
					for b.Loop() {
						run(m, n, k, w, x, y)
					}
					testspeed.ReportBytes(b, bytes, peak)
					return
				}
				peak := flopPeak()
				for b.Loop() {
					run(m, n, k, w, x, y)
				}
				report(b, m, n, k, peak)
			}
		})
	}
}

func BenchmarkMulT(b *testing.B) {
	benchmarkProduct(b, func(m, n, k int, w *Matrix, x, y []float32) { MulT(y, n, x, k, m, w, false) })
}

func BenchmarkMul(b *testing.B) {
	benchmarkProduct(b, func(m, n, k int, w *Matrix, x, y []float32) { Mul(x, k, y, n, m, w, false) })
}

func BenchmarkMulTN(b *testing.B) {
	benchmarkProduct(b, func(m, n, k int, w *Matrix, x, y []float32) { MulTN(w.F32, k, y, n, x, k, m, n, k, 1, false) })
}

// BenchmarkHalfProducts is the forward product and the input gradient in bfloat16, of a
// weight and activations that are bfloat16, as layers have them.
func BenchmarkHalfProducts(b *testing.B) {
	for _, s := range append([][3]int{{128, 576, 49152}}, layerShapes[:7]...) {
		m, k, n := s[0], s[1], s[2]
		for _, f := range []struct {
			name string
			run  func(x, y Vec, w *Matrix)
		}{
			{"MulT", func(x, y Vec, w *Matrix) { Linear(y, x, m, w, false, nil) }},
			{"Mul", func(x, y Vec, w *Matrix) { LinearBackward(x, y, m, w, false, nil) }},
		} {
			forThreads(b, fmt.Sprintf("%s/%d,%d→%d", f.name, m, k, n), func() func(b *testing.B) {
				w, x, y := &Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}, halfVec(many(m*k)), halfVec(many(m*n))
				F32ToBF16(w.BF16, many(n*k))
				return func(b *testing.B) {
					peak := halfPeak()
					for b.Loop() {
						f.run(x, y, w)
					}
					report(b, m, n, k, peak)
				}
			})
		}
	}
}

// BenchmarkDecoded is BenchmarkMulT with a weight that is decoded, by copying:
// the difference is the price of the seam without that of a number format.
func BenchmarkDecoded(b *testing.B) {
	for _, m := range []int{1024, 64, 1} {
		n, k := 1536, 576
		forThreads(b, fmt.Sprintf("%d,%d→%d", m, k, n), func() func(b *testing.B) {
			w, x, y := decoding(n, k, many(n*k)), many(m*k), make([]float32, m*n)
			return func(b *testing.B) {
				peak := flopPeak()
				for b.Loop() {
					MulT(y, n, x, k, m, w, false)
				}
				report(b, m, n, k, peak)
			}
		})
	}
}
