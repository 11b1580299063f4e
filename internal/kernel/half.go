package kernel

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/x448/float16"
)

// This file converts slices between float32 and the two 16-bit formats, which
// stay little-endian bytes as they are in files.

// F16ToF32 widens the IEEE half-precision numbers in src, 2 bytes each. NaNs
// become quiet and keep their payload.
func F16ToF32(dst []float32, src []byte) {
	checkHalf("F16ToF32", len(src), len(dst))
	n := f16ToF32Blocks(dst, src)
	f16ToF32Generic(dst[n:], src[2*n:])
}

// F32ToF16 rounds src to IEEE half precision, ties to even, to infinity past
// the largest half; every NaN becomes the quiet NaN of its sign, 0x7e00.
func F32ToF16(dst []byte, src []float32) {
	checkHalf("F32ToF16", len(dst), len(src))
	n := f32ToF16Blocks(dst, src)
	f32ToF16Generic(dst[2*n:], src[n:])
}

// BF16ToF32 widens the bfloat16 numbers in src, 2 bytes each.
func BF16ToF32(dst []float32, src []byte) {
	checkHalf("BF16ToF32", len(src), len(dst))
	n := bf16ToF32Blocks(dst, src)
	bf16ToF32Generic(dst[n:], src[2*n:])
}

// F32ToBF16 rounds src to bfloat16, ties to even; subnormals are kept, and a
// NaN becomes quiet and keeps the upper part of its payload.
func F32ToBF16(dst []byte, src []float32) {
	checkHalf("F32ToBF16", len(dst), len(src))
	n := f32ToBF16Blocks(dst, src)
	f32ToBF16Generic(dst[2*n:], src[n:])
}

// RoundF16 rounds every element of x to the nearest half-precision number.
func RoundF16(x []float32) { roundHalf(x, F32ToF16, F16ToF32) }

// RoundBF16 rounds every element of x to the nearest bfloat16 number.
func RoundBF16(x []float32) { roundHalf(x, F32ToBF16, BF16ToF32) }

func roundHalf(x []float32, narrow func([]byte, []float32), widen func([]float32, []byte)) {
	var buf [512]byte
	for len(x) > 0 {
		n := min(len(x), len(buf)/2)
		narrow(buf[:2*n], x[:n])
		widen(x[:n], buf[:2*n])
		x = x[n:]
	}
}

func checkHalf(op string, bytes, values int) {
	if bytes != 2*values {
		panic(fmt.Sprintf("kernel: %s of %d values with %d bytes", op, values, bytes))
	}
}

func f16ToF32Generic(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = F16Value(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func f32ToF16Generic(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], F16Bits(v))
	}
}

func bf16ToF32Generic(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = BF16Value(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func f32ToBF16Generic(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], BF16Bits(v))
	}
}

// F16Value is the number whose half-precision bits are h.
func F16Value(h uint16) float32 { return float16.Frombits(h).Float32() }

// F16Bits are the bits of v in half precision; see F32ToF16 for the rounding.
func F16Bits(v float32) uint16 {
	if v != v {
		return uint16(math.Float32bits(v)>>16)&0x8000 | 0x7e00
	}
	return float16.Fromfloat32(v).Bits()
}

// BF16Value is the number whose bfloat16 bits are h.
func BF16Value(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// BF16Bits are the bits of v in bfloat16; see F32ToBF16 for the rounding.
func BF16Bits(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 64
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
