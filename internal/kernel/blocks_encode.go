package kernel

import (
	"encoding/binary"
	"math"
)

// This file encodes ggml's formats with blocks of 32 values as its reference quantizer does, with
// the scale before it is rounded to half precision. The explicit conversions keep the compiler
// from fusing a product and a sum.

// EncodeQ8_0 encodes 32 values each to blocks of 34 bytes; see DecodeQ8_0.
func EncodeQ8_0(dst []byte, src []float32) {
	encode("EncodeQ8_0", dst, src, 34, encodeQ8_0Blocks, encodeQ8_0Generic)
}

// EncodeQ4_0 encodes 32 values each to blocks of 18 bytes; see DecodeQ4_0.
func EncodeQ4_0(dst []byte, src []float32) {
	encode("EncodeQ4_0", dst, src, 18, encodeQ4_0Blocks, encodeQ4_0Generic)
}

// EncodeQ4_1 encodes 32 values each to blocks of 20 bytes; see DecodeQ4_1.
func EncodeQ4_1(dst []byte, src []float32) {
	encode("EncodeQ4_1", dst, src, 20, encodeQ4_1Blocks, encodeQ4_1Generic)
}

// EncodeQ5_0 encodes 32 values each to blocks of 22 bytes: a scale, the fifth bits of the values
// as a word, and their nibbles.
func EncodeQ5_0(dst []byte, src []float32) {
	encode("EncodeQ5_0", dst, src, 22, encodeQ5_0Blocks, encodeQ5_0Generic)
}

// EncodeQ5_1 encodes 32 values each to blocks of 24 bytes: a scale, a minimum, the fifth bits of
// the values as a word, and their nibbles.
func EncodeQ5_1(dst []byte, src []float32) {
	encode("EncodeQ5_1", dst, src, 24, encodeQ5_1Blocks, encodeQ5_1Generic)
}

// encode runs the vector form as far as it goes and leaves the block where it stops to plain Go.
func encode(op string, dst []byte, src []float32, block int, fast func([]byte, []float32) int, slow func([]byte, []float32)) {
	checkBlocks(op, len(src), len(dst), block)
	for len(src) > 0 {
		n := fast(dst, src)
		dst, src = dst[n*block:], src[n*32:]
		if impl == generic {
			slow(dst, src)
			return
		}
		if len(src) > 0 {
			slow(dst[:block], src[:32])
			dst, src = dst[block:], src[32:]
		}
	}
}

func putHalf(b []byte, v float32) { binary.LittleEndian.PutUint16(b, F16Bits(v)) }

// reciprocal is 1/d, or 0 for 0.
func reciprocal(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// truncate is v without its fraction, clamped to [0, top]. What no int32 can hold becomes 0, as
// the low byte of such a conversion is on x86: that happens where the scale is so near the smallest
// float32 that its reciprocal is infinite.
func truncate(v float32, top int) byte {
	if !(v > 0 && v < 1<<31) {
		return 0
	}
	return byte(min(int(v), top))
}

// roundInt8 is v to the nearest whole number, halves away from zero, and of that the low byte, as
// a conversion on x86 leaves it.
func roundInt8(v float32) int8 {
	if !(v > -1<<31 && v < 1<<31) {
		return 0
	}
	// In float64 the sum is exact, so that cutting off its fraction rounds.
	return int8(int64(float64(v) + math.Copysign(0.5, float64(v))))
}

// Peak is the value of largest magnitude in x, the first of several.
func Peak(x []float32) float32 {
	var m, top float32
	for _, v := range x {
		if a := magnitude(v); a > top {
			top, m = a, v
		}
	}
	return m
}

// extent is the smallest and largest of x, the first of equal ones: that
// decides the sign of a zero.
func extent(x []float32) (low, high float32) {
	low, high = x[0], x[0]
	for _, v := range x {
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
	}
	return low, high
}

func encodeQ8_0Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[34:], src[32:] {
		x, q := src[:32], dst[2:34]
		d := magnitude(Peak(x)) / 127
		id := reciprocal(d)
		putHalf(dst, d)
		for i, v := range x {
			q[i] = byte(roundInt8(v * id))
		}
	}
}

func encodeQ4_0Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[18:], src[32:] {
		x, q := src[:32], dst[2:18]
		d := Peak(x) / -8
		id := reciprocal(d)
		putHalf(dst, d)
		for i := range q {
			lo := truncate(float32(x[i]*id)+8.5, 15)
			hi := truncate(float32(x[i+16]*id)+8.5, 15)
			q[i] = lo | hi<<4
		}
	}
}

func encodeQ4_1Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[20:], src[32:] {
		x, q := src[:32], dst[4:20]
		low, high := extent(x)
		d := (high - low) / 15
		id := reciprocal(d)
		putHalf(dst, d)
		putHalf(dst[2:], low)
		for i := range q {
			lo := truncate(float32((x[i]-low)*id)+0.5, 15)
			hi := truncate(float32((x[i+16]-low)*id)+0.5, 15)
			q[i] = lo | hi<<4
		}
	}
}

func encodeQ5_0Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[22:], src[32:] {
		x := src[:32]
		d := Peak(x) / -16
		id := reciprocal(d)
		putHalf(dst, d)
		PackFive(dst[2:22], func(i int) byte { return truncate(float32(x[i]*id)+16.5, 31) })
	}
}

func encodeQ5_1Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[24:], src[32:] {
		x := src[:32]
		low, high := extent(x)
		d := (high - low) / 31
		id := reciprocal(d)
		putHalf(dst, d)
		putHalf(dst[2:], low)
		PackFive(dst[4:24], func(i int) byte { return truncate(float32((x[i]-low)*id)+0.5, 31) })
	}
}

// PackFive stores 32 codes of 5 bits: the word of fifth bits, then the nibbles.
func PackFive(dst []byte, code func(i int) byte) {
	var high uint32
	for i := range 16 {
		lo, hi := code(i), code(i+16)
		dst[4+i] = lo&15 | hi<<4
		high |= uint32(lo>>4)<<i | uint32(hi>>4)<<(i+16)
	}
	binary.LittleEndian.PutUint32(dst, high)
}
