package kernel

import (
	"math"
	"testing"
)

// TestDecodeBlocks: every implementation decodes random bytes, of which scales are all that
// half precision has, to the same bits.
func TestDecodeBlocks(t *testing.T) {
	r := seeded(41)
	for which, f := range blockFormats {
		for _, blocks := range []int{0, 1, 2, 7, 2000} {
			src := make([]byte, blocks*f.bytes)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			want := make([]float32, f.elems*blocks)
			f.generic(want, src)
			forEachImpl(t, func(t *testing.T) {
				got, check := guarded(t, len(want), 1)
				blockFormat(which).decode(got, src)
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
	for which, f := range blockFormats {
		src, dst := make([]byte, n/f.elems*f.bytes), make([]float32, n)
		benchmarkBytes(b, f.name, len(src)+4*n, false, func() { blockFormat(which).decode(dst, src) })
	}
}
