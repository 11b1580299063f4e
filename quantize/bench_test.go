package quantize

import (
	"fmt"
	"testing"
	"time"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/testspeed"
)

// This file holds the benchmarks. Codecs report values (Gelem/s), the bytes that they have to read and
// write (GB/s), and which fraction that is of what memory did right before (of-peak).

// benchmarkValues measures f, which turns n values into bytes of another form or back, on one thread
// unless it uses all.
func benchmarkValues(b *testing.B, name string, n, bytes, threads int, f func()) {
	b.Run(name, func(b *testing.B) {
		peak := testspeed.Memory(threads)
		for b.Loop() {
			f()
		}
		testspeed.ReportBytes(b, 4*n+bytes, peak)
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
	})
}

// repeated returns n values that repeat: more than the caches hold are wanted, and soon.
func repeated(n int) []float32 {
	x := make([]float32, n)
	for at := copy(x, normal(1, min(n, 1<<16))); at < n; {
		at += copy(x[at:], x[:at])
	}
	return x
}

func BenchmarkDecode(b *testing.B) {
	const n = 1 << 22
	dst := make([]float32, n)
	for _, name := range Names() {
		c, err := Lookup(name)
		if err != nil {
			b.Fatal(err)
		}
		elems, size := c.Block()
		src := make([]byte, n/elems*size)
		for i, w := range goldenBits(1, 1<<16) {
			src[i] = byte(w) & 0xbf
		}
		for at := 1 << 16; at < len(src); {
			at += copy(src[at:], src[:at])
		}
		benchmarkValues(b, name, n, len(src), 1, func() { c.Decode(dst, src) })
	}
}

func BenchmarkEncode(b *testing.B) {
	src, importance := repeated(1<<20), goldenValues(1, 1<<11, "positive", nil)
	for _, name := range Names() {
		c, err := LookupEncoder(name)
		if err != nil {
			continue
		}
		elems, size := c.Block()
		dst := make([]byte, len(src)/elems*size)
		benchmarkValues(b, name, len(src), len(dst), 1, func() { c.Encode(dst, src) })
		if elems > 1 {
			benchmarkValues(b, name+"/importance", len(src), len(dst), 1, func() { c.EncodeWeighted(dst, src, importance) })
		}
	}
}

func BenchmarkQuantize4(b *testing.B) {
	x := repeated(1 << 24)
	for _, double := range []bool{false, true} {
		benchmarkValues(b, fmt.Sprintf("double=%v", double), len(x), len(x)/2+len(x)/16, kernel.Threads(), func() {
			if _, err := Quantize4(x, []int{1 << 12, 1 << 12}, Options4{Double: double}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkDecodeRows decodes a few rows at a time, as a product does: what is written stays in a cache.
func BenchmarkDecodeRows(b *testing.B) {
	q := quantized(b, 1<<12, 1<<11, "bfloat16")
	dst := make([]float32, 32*q.Cols())
	row := 0
	for _, f := range []struct {
		name   string
		decode func([]float32, int, int)
	}{{"float32", q.DecodeRows}, {"rounded", q.DecodeRowsRounded}} {
		benchmarkValues(b, f.name, len(dst), len(dst)/2+len(dst)/64, 1, func() {
			f.decode(dst, row, row+32)
			row = (row + 32) % q.Rows()
		})
	}
}

func quantized(b *testing.B, rows, cols int, dtype string) *Tensor4 {
	q, err := Quantize4(repeated(rows*cols), []int{rows, cols}, Options4{Double: true, DType: dtype})
	if err != nil {
		b.Fatal(err)
	}
	return q
}

// BenchmarkProducts multiplies by a weight in 4 bits that is decoded inside the product, and reports
// of-dense: the fraction of the rate of the same product with a dense weight, in float32 or for half in
// bfloat16, alternating with it.
func BenchmarkProducts(b *testing.B) {
	for _, s := range [][3]int{{1024, 576, 1536}, {1024, 1536, 576}, {1024, 576, 576}, {1024, 576, 192}, {1024, 2048, 2048}, {1024, 4096, 4096}} {
		m, k, n := s[0], s[1], s[2]
		for _, format := range []string{"NF4", "Q4_K"} {
			if format == "Q4_K" && k%256 != 0 {
				continue // rows are whole super-blocks
			}
			for _, half := range []bool{false, true} {
				benchmarkProducts(b, m, k, n, format, half)
			}
		}
	}
}

func benchmarkProducts(b *testing.B, m, k, n int, format string, half bool) {
	for _, f := range []struct {
		name    string
		product func(x, y []float32, w *kernel.Matrix)
	}{
		{"MulT", func(x, y []float32, w *kernel.Matrix) { kernel.MulT(y, n, x, k, m, w, false) }},
		{"Mul", func(x, y []float32, w *kernel.Matrix) { kernel.Mul(x, k, y, n, m, w, false) }},
	} {
		b.Run(fmt.Sprintf("%s/%s/%d,%d→%d,half=%v", f.name, format, m, k, n, half), func(b *testing.B) {
			x, y := repeated(m*k), repeated(m*n)
			packed, plain := weights(b, n, k, format, half)
			all := kernel.Threads()
			defer kernel.SetThreads(all)
			for _, threads := range []int{1, all} {
				kernel.SetThreads(threads)
				b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
					benchmarkProduct(b, 2*float64(m*n*k), func() { f.product(x, y, packed) }, func() { f.product(x, y, plain) })
				})
				if all == 1 {
					break
				}
			}
		})
	}
}

// weights makes a weight in 4 bits and the same dense.
func weights(b *testing.B, n, k int, format string, half bool) (packed, plain *kernel.Matrix) {
	var decode func(dst []float32, lo, hi int)
	if format == "NF4" {
		decode = quantized(b, n, k, "float32").DecodeRows
	} else {
		c, err := LookupEncoder(format)
		if err != nil {
			b.Fatal(err)
		}
		elems, size := c.Block()
		row := k / elems * size
		raw := make([]byte, n*row)
		c.Encode(raw, repeated(n*k))
		decode = func(dst []float32, lo, hi int) { c.Decode(dst, raw[lo*row:hi*row]) }
	}
	packed, plain = &kernel.Matrix{N: n, K: k, Decode: decode, Half: half}, &kernel.Matrix{N: n, K: k, Half: half}
	dense := make([]float32, n*k)
	decode(dense, 0, n)
	if !half {
		plain.F32 = dense
		return packed, plain
	}
	plain.BF16 = make([]byte, 2*n*k)
	kernel.F32ToBF16(plain.BF16, dense)
	return packed, plain
}

// benchmarkProduct times a product and the same with a dense weight in turn. Only the first counts for ns/op.
func benchmarkProduct(b *testing.B, flops float64, packed, plain func()) {
	b.StopTimer()
	plain()
	var dense time.Duration
	for range b.N {
		start := time.Now()
		plain()
		dense += time.Since(start)
		b.StartTimer()
		packed()
		b.StopTimer()
	}
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	b.ReportMetric(dense.Seconds()/b.Elapsed().Seconds(), "of-dense")
}
