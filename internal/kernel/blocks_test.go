package kernel

import (
	"fmt"
	"math"
	"testing"
)

var blockFormats = []struct {
	name            string
	values, bytes   int // of a block
	decode, generic func(dst []float32, src []byte)
}{
	{"Q8_0", 32, 34, DecodeQ8_0, decodeQ8_0Generic},
	{"Q4_0", 32, 18, DecodeQ4_0, decodeQ4_0Generic},
	{"Q4_1", 32, 20, DecodeQ4_1, decodeQ4_1Generic},
	{"Q5_0", 32, 22, DecodeQ5_0, decodeQ5_0Generic},
	{"Q5_1", 32, 24, DecodeQ5_1, decodeQ5_1Generic},
	{"IQ4_NL", 32, 18, DecodeIQ4NL, decodeIQ4NLGeneric},
	{"IQ4_XS", 256, 136, DecodeIQ4XS, decodeIQ4XSGeneric},
	{"Q2_K", 256, 84, DecodeQ2K, decodeQ2KGeneric},
	{"Q3_K", 256, 110, DecodeQ3K, decodeQ3KGeneric},
	{"Q4_K", 256, 144, DecodeQ4K, decodeQ4KGeneric},
	{"Q5_K", 256, 176, DecodeQ5K, decodeQ5KGeneric},
	{"Q6_K", 256, 210, DecodeQ6K, decodeQ6KGeneric},
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
			want := make([]float32, f.values*blocks)
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
		src, dst := make([]byte, n/f.values*f.bytes), make([]float32, n)
		benchmarkBytes(b, fmt.Sprint(f.name), len(src)+4*n, false, func() { f.decode(dst, src) })
	}
}
