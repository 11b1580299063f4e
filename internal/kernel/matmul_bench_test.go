package kernel

import (
	"fmt"
	"testing"
)

// The benchmarks report GFLOP/s, to be read against BenchmarkPeak of the same
// minute: go test -bench 'Peak|Mul' ./internal/kernel

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
				for b.Loop() {
					tile()
				}
				report(b, 256, shape.rows, shape.cols)
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

// report gives the rate of products of m×n×k multiplications and additions.
func report(b *testing.B, m, n, k int) {
	b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

// forThreads runs f on one and on all threads.
func forThreads(b *testing.B, name string, f func(b *testing.B)) {
	all := Threads()
	defer SetThreads(all)
	for _, n := range []int{1, all} {
		SetThreads(n)
		b.Run(fmt.Sprintf("%s/threads=%d", name, n), f)
		if all == 1 {
			break
		}
	}
}

// layerShapes are m, in, out of a training step, the output layer, a prompt
// and generation; adapterShapes those of LoRA pairs, A (rank, in) and B (out,
// rank).
var (
	layerShapes = [][3]int{{1024, 576, 1536}, {1024, 1536, 576}, {1024, 576, 576}, {1024, 576, 192}, {1024, 2048, 2048},
		{1024, 576, 49152}, {256, 576, 1536}, {64, 576, 1536}, {16, 576, 1536}, {4, 576, 1536}, {1, 576, 1536}, {1, 576, 49152}}
	adapterShapes = [][3]int{{1024, 576, 16}, {1024, 16, 576}, {1024, 1536, 16}, {1024, 16, 1536}, {1024, 576, 64}, {1024, 64, 576}}
)

func benchmarkProduct(b *testing.B, run func(m, n, k int, w *Matrix, x, y []float32)) {
	r := seeded(1)
	for _, s := range append(layerShapes, adapterShapes...) {
		m, k, n := s[0], s[1], s[2]
		w, x, y := &Matrix{N: n, K: k, F32: normal(r, n*k)}, normal(r, m*k), normal(r, m*n)
		forThreads(b, fmt.Sprintf("%d,%d→%d", m, k, n), func(b *testing.B) {
			for b.Loop() {
				run(m, n, k, w, x, y)
			}
			report(b, m, n, k)
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

// BenchmarkHalfProducts is MulT and Mul in bfloat16, on AMX where there is AMX, with the
// weight in bfloat16 too. Without pad, rows may lie a multiple of 4 KiB apart, where
// they compete for few sets of the caches.
func BenchmarkHalfProducts(b *testing.B) {
	r := seeded(1)
	for _, s := range append([][3]int{{128, 576, 49152}, {1024, 2048, 2048}}, layerShapes[:4]...) {
		m, k, n := s[0], s[1], s[2]
		w := &Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}
		F32ToBF16(w.BF16, normal(r, n*k))
		for _, pad := range []int{0, 16} {
			x, y := normal(r, m*(k+pad)), normal(r, m*(n+pad))
			name := fmt.Sprintf("%d,%d→%d,pad=%d", m, k, n, pad)
			forThreads(b, "MulT/"+name, func(b *testing.B) {
				for b.Loop() {
					MulT(y, n+pad, x, k+pad, m, w, false)
				}
				report(b, m, n, k)
			})
			forThreads(b, "Mul/"+name, func(b *testing.B) {
				for b.Loop() {
					Mul(x, k+pad, y, n+pad, m, w, false)
				}
				report(b, m, n, k)
			})
		}
	}
}

// BenchmarkDecoded is BenchmarkMulT with a weight that is decoded, by copying:
// the difference is the price of the seam without that of a number format.
func BenchmarkDecoded(b *testing.B) {
	r := seeded(1)
	for _, m := range []int{1024, 64, 1} {
		n, k := 1536, 576
		w, x, y := decoding(n, k, normal(r, n*k)), normal(r, m*k), make([]float32, m*n)
		forThreads(b, fmt.Sprintf("%d,%d→%d", m, k, n), func(b *testing.B) {
			for b.Loop() {
				MulT(y, n, x, k, m, w, false)
			}
			report(b, m, n, k)
		})
	}
}
