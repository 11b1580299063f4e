package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
)

// TestRound: halves go away from zero, as C's roundf has them, and of what is no int8 the low byte stays.
func TestRound(t *testing.T) {
	for bits := uint32(0); bits < 1<<31; bits += 4093 {
		v := math.Float32frombits(bits)
		want := int8(0)
		if v < 1<<31 {
			want = int8(int64(math.Round(float64(v))))
		}
		if got := round(v); got != want {
			t.Fatalf("round(%g) = %d, want %d", v, got, want)
		}
		if got := round(-v); got != -want {
			t.Fatalf("round(%g) = %d", -v, got)
		}
	}
	for v, want := range map[float32]int8{0.5: 1, -0.5: -1, 2.5: 3, -2.5: -3, 0.49999997: 0, 126.5: 127, -127.5: -128, 130: -126, 1e30: 0, -1e30: 0} {
		if got := round(v); got != want {
			t.Errorf("round(%g) = %d, want %d", v, got, want)
		}
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

// hardBlocks are blocks of 32 values of the kinds that implementations could part on: halves of steps, zeros of
// either sign, one value throughout, the ends of float32's range.
func hardBlocks(r *rand.Rand, blocks int) []float32 {
	x := make([]float32, 32*blocks)
	for b := range blocks {
		kind, scale := r.IntN(9), math.Exp2(float64(r.IntN(40)-20))
		for i := range 32 {
			v := r.NormFloat64() * scale
			switch kind {
			case 1:
				v = float64(r.IntN(255)-127) / 2
			case 2:
				v = math.Copysign(0, v)
			case 3:
				v = scale
			case 4:
				v *= 1e-44 / scale
			case 5:
				v *= 1e-38 / scale
			case 6:
				v *= 1e38 / scale
			case 7:
				v = math.Copysign(float64(r.IntN(3))*scale, v)
			case 8:
				v = math.Abs(v)
			}
			x[32*b+i] = float32(max(-math.MaxFloat32, min(math.MaxFloat32, v)))
		}
	}
	return x
}

// TestEncodeBlocks: every implementation encodes to the same bytes, and stays within its slices.
func TestEncodeBlocks(t *testing.T) {
	for _, f := range blockEncoders {
		for _, blocks := range []int{0, 1, 2, 7, 5000} {
			src := hardBlocks(rand.New(rand.NewPCG(uint64(blocks), 3)), blocks)
			want := make([]byte, blocks*f.bytes)
			f.generic(want, src)
			forEachImpl(t, func(t *testing.T) {
				x, check := guarded(t, len(src), 1)
				copy(x, src)
				got := bytes.Repeat([]byte{0xa5}, len(want)+64)
				f.encode(got[32:][:len(want)], x)
				for i, w := range want {
					if b := i / f.bytes; got[32+i] != w {
						t.Fatalf("%s: byte %d of block %d is %#x, want %#x; values %v", f.name, i%f.bytes, b, got[32+i], w, src[32*b:][:32])
					}
				}
				for _, v := range append(got[:32:32], got[32+len(want):]...) {
					if v != 0xa5 {
						t.Fatalf("%s: a byte beside the slice was written", f.name)
					}
				}
				check()
			})
		}
	}
}

func BenchmarkEncodeBlocks(b *testing.B) {
	const n = 1 << 22
	src := hardBlocks(rand.New(rand.NewPCG(1, 3)), n/32)
	for _, f := range blockEncoders {
		dst := make([]byte, n/32*f.bytes)
		benchmarkBytes(b, f.name, len(dst)+4*n, false, func() { f.encode(dst, src) })
	}
}
