package testspeed

import (
	"fmt"
	"testing"
)

func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("allocates 128 MB")
	}
	if r := Memory(1); r < 0.1 || r > 1e4 {
		t.Errorf("one goroutine moves %g GB/s", r)
	}
}

// ExampleReportBytes is a benchmark of copying.
func ExampleReportBytes() {
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	r := testing.Benchmark(func(b *testing.B) {
		peak := Memory(1)
		for b.Loop() {
			copy(y, x)
		}
		ReportBytes(b, 2<<20, peak)
	})
	fmt.Println(r.Extra["GB/s"] > 0, r.Extra["of-peak"] > 0)
	// Output: true true
}
