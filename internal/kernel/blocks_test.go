package kernel

import (
	"fmt"
	"math"
	"testing"
)

var blockFormats = []struct {
	name            string
	bytes           int // of a block
	decode, generic func(dst []float32, src []byte)
}{
	{"Q8_0", 34, DecodeQ8_0, decodeQ8_0Generic},
	{"Q4_0", 18, DecodeQ4_0, decodeQ4_0Generic},
	{"Q4_1", 20, DecodeQ4_1, decodeQ4_1Generic},
}

// TestDecodeBlocks: every implementation decodes random bytes, of which scales are all that
// half precision has, to the same bits.
func TestDecodeBlocks(t *testing.T) {
	r := seeded(41)
	for _, f := range blockFormats {
		for _, blocks := range []int{0, 1, 2, 7, 2000} {
			src := make([]byte, blocks*f.bytes)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			want := make([]float32, 32*blocks)
			f.generic(want, src)
			forEachImpl(t, func(t *testing.T) {
				got, check := guarded(t, len(want), 1)
				f.decode(got, src)
				for i, w := range want {
					if g := got[i]; math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
						t.Fatalf("%s: value %d is %v, want %v", f.name, i, g, w)
					}
				}
				check()
			})
		}
	}
}

func BenchmarkDecodeBlocks(b *testing.B) {
	const n = 1 << 24
	for _, f := range blockFormats {
		src, dst := make([]byte, n/32*f.bytes), make([]float32, n)
		benchmarkBytes(b, fmt.Sprint(f.name), len(src)+4*n, false, func() { f.decode(dst, src) })
	}
}
