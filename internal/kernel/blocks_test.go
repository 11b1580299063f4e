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

var blockEncoders = []struct {
	name            string
	bytes           int // of a block
	encode, generic func(dst []byte, src []float32)
}{
	{"Q8_0", 34, EncodeQ8_0, encodeQ8_0Generic},
	{"Q4_0", 18, EncodeQ4_0, encodeQ4_0Generic},
	{"Q4_1", 20, EncodeQ4_1, encodeQ4_1Generic},
	{"Q5_0", 22, EncodeQ5_0, encodeQ5_0Generic},
	{"Q5_1", 24, EncodeQ5_1, encodeQ5_1Generic},
}

// blockValues are blocks of every kind that an encoder meets: of one scale, of all scales at
// once, whole numbers (which give halves to round), zeros of either sign, constants, ties of
// magnitude, subnormals, and some with values that are not finite.
func blockValues(blocks int) []float32 {
	r := seeded(43)
	x := make([]float32, 32*blocks)
	for b := range blocks {
		block := x[32*b : 32*b+32]
		scale := math.Ldexp(1, r.IntN(60)-30)
		for i := range block {
			v := r.NormFloat64()
			switch b % 9 {
			case 0, 1:
				v *= scale
			case 2:
				v = math.Ldexp(v, r.IntN(250)-125)
			case 3:
				v = float64(r.IntN(255) - 127)
			case 4:
				v = math.Copysign(0, v)
			case 5:
				v = scale
			case 6:
				v = math.Copysign(scale*float64(r.IntN(2)), v)
			case 7:
				v *= 0x1p-140
			case 8:
				if r.IntN(40) == 0 {
					v = []float64{math.NaN(), math.Inf(1), math.Inf(-1)}[r.IntN(3)]
				}
			}
			block[i] = float32(v)
		}
	}
	return x
}

// TestEncodeBlocks: every implementation encodes to the same bytes.
func TestEncodeBlocks(t *testing.T) {
	for _, blocks := range []int{0, 1, 2, 7, 9000} {
		src := blockValues(blocks)
		for _, f := range blockEncoders {
			want := make([]byte, blocks*f.bytes)
			f.generic(want, src)
			forEachImpl(t, func(t *testing.T) {
				got := make([]byte, len(want))
				f.encode(got, src)
				for i, w := range want {
					if got[i] != w {
						at := i / f.bytes
						t.Fatalf("%s: byte %d of block %d is %#x, want %#x; values %v", f.name, i%f.bytes, at, got[i], w, src[32*at:32*at+32])
					}
				}
			})
		}
	}
}

// TestRound: halves go away from zero, as C's roundf has them, and of what is no int8 the low byte stays.
func TestRound(t *testing.T) {
	for bits := uint32(0); bits < 1<<31; bits += 4093 {
		v := math.Float32frombits(bits)
		want := int8(0)
		if v < 1<<31 {
			want = int8(int64(math.Round(float64(v))))
		}
		if got := roundInt8(v); got != want {
			t.Fatalf("roundInt8(%g) = %d, want %d", v, got, want)
		}
		if got := roundInt8(-v); got != -want {
			t.Fatalf("roundInt8(%g) = %d", -v, got)
		}
	}
	for v, want := range map[float32]int8{0.5: 1, -0.5: -1, 2.5: 3, -2.5: -3, 0.49999997: 0, 126.5: 127, -127.5: -128, 130: -126, 1e30: 0, -1e30: 0} {
		if got := roundInt8(v); got != want {
			t.Errorf("roundInt8(%g) = %d, want %d", v, got, want)
		}
	}
}

func BenchmarkEncodeBlocks(b *testing.B) {
	const n = 1 << 22
	src := make([]float32, n)
	r := seeded(44)
	for i := range src {
		src[i] = float32(r.NormFloat64())
	}
	for _, f := range blockEncoders {
		dst := make([]byte, n/32*f.bytes)
		benchmarkBytes(b, f.name, len(dst)+4*n, false, func() { f.encode(dst, src) })
	}
}
