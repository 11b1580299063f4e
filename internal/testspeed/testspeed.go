// Package testspeed measures, for benchmarks, what memory can do at most. A benchmark takes the figure
// right before it runs, in the same process, and reports its own as a fraction of it.
package testspeed

import (
	"bytes"
	"crypto/subtle"
	"sync"
	"testing"
	"time"
)

// size is far more than the caches hold.
const size = 64 << 20

var arrays = sync.OnceValues(func() (src, dst []byte) {
	src, dst = make([]byte, size), make([]byte, size)
	for i := range src {
		src[i], dst[i] = 1, 1 // so that every page is there
	}
	return src, dst
})

// Memory is the rate in GB/s at which as many goroutines read, or read and write, memory: the best of
// searching a large array, of copying it, and of changing it in place, three times each. It takes
// about 50 ms.
func Memory(threads int) float64 {
	src, dst := arrays()
	best := 0.0
	for range 3 {
		best = max(best, rate(threads, size, func(lo, hi int) {
			if bytes.IndexByte(src[lo:hi], 0) >= 0 {
				panic("testspeed: internal error: the array changed")
			}
		}), rate(threads, 2*size, func(lo, hi int) { copy(dst[lo:hi], src[lo:hi]) }),
			rate(threads, 3*size, func(lo, hi int) { subtle.XORBytes(dst[lo:hi], dst[lo:hi], src[lo:hi]) }))
	}
	return best
}

func rate(threads, moved int, f func(lo, hi int)) float64 {
	var wait sync.WaitGroup
	start := time.Now()
	for i := range threads {
		wait.Go(func() { f(i*size/threads, (i+1)*size/threads) })
	}
	wait.Wait()
	return float64(moved) / time.Since(start).Seconds() / 1e9
}

// ReportBytes gives the rate of a benchmark each of whose operations has to move so many bytes, and
// the fraction of peak, in GB/s, that it is.
func ReportBytes(b *testing.B, bytes int, peak float64) {
	report(b, float64(bytes), "GB/s", peak)
}

// ReportFlops is ReportBytes for floating-point operations and GFLOP/s.
func ReportFlops(b *testing.B, flops, peak float64) { report(b, flops, "GFLOP/s", peak) }

func report(b *testing.B, work float64, unit string, peak float64) {
	r := work * float64(b.N) / b.Elapsed().Seconds() / 1e9
	b.ReportMetric(r, unit)
	b.ReportMetric(r/peak, "of-peak")
}
