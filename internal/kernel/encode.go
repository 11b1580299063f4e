package kernel

import (
	"encoding/binary"
	"math"
)

// This file encodes ggml's blocks of 32 values as its reference does: the codes are made with
// the scale before that is rounded to half precision. Codes of 4 bits lie in halves, as
// blocks.go says; the fifth bit of value i is bit i of a 32-bit word before them.

// EncodeQ8_0 encodes whole blocks of 32 values to 34 bytes each.
func EncodeQ8_0(dst []byte, src []float32) {
	Q8_0.encode(dst, src, encodeQ8_0Blocks, encodeQ8_0Generic)
}

// EncodeQ4_0 encodes whole blocks of 32 values to 18 bytes each.
func EncodeQ4_0(dst []byte, src []float32) {
	Q4_0.encode(dst, src, encodeQ4_0Blocks, encodeQ4_0Generic)
}

// EncodeQ4_1 encodes whole blocks of 32 values to 20 bytes each.
func EncodeQ4_1(dst []byte, src []float32) {
	Q4_1.encode(dst, src, encodeQ4_1Blocks, encodeQ4_1Generic)
}

// EncodeQ5_0 encodes whole blocks of 32 values to 22 bytes each.
func EncodeQ5_0(dst []byte, src []float32) {
	Q5_0.encode(dst, src, encodeQ5_0Blocks, encodeQ5_0Generic)
}

// EncodeQ5_1 encodes whole blocks of 32 values to 24 bytes each.
func EncodeQ5_1(dst []byte, src []float32) {
	Q5_1.encode(dst, src, encodeQ5_1Blocks, encodeQ5_1Generic)
}

// encode runs the vector form of an encoder, or where it has none to run the plain one.
func (f Format) encode(dst []byte, src []float32, fast func([]byte, []float32) bool, slow func([]byte, []float32)) {
	f.check("encoding", len(src), len(dst))
	if !fast(dst, src) {
		slow(dst, src)
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

// truncate is v without its fraction, at most top. What no int32 can hold becomes 0, as the low
// byte of such a conversion is on x86: that happens where the scale is so near the smallest
// float32 that its reciprocal is infinite.
func truncate(v float32, top int) byte {
	if !(v > 0 && v < 1<<31) {
		return 0
	}
	return byte(min(int(v), top))
}

// round is v to the nearest whole number, halves away from zero, and of that the low byte, as
// a conversion on x86 leaves it.
func round(v float32) int8 {
	if !(v > -1<<31 && v < 1<<31) {
		return 0
	}
	// In float64 the sum is exact, so that cutting off its fraction rounds.
	return int8(int64(float64(v) + math.Copysign(0.5, float64(v))))
}

// blockPeak is the value of largest magnitude in x, the first of several.
func blockPeak(x []float32) float32 {
	var m, top float32
	for _, v := range x {
		if a := magnitude(v); a > top {
			top, m = a, v
		}
	}
	return m
}

// extent is the smallest and largest of x, the first of equal ones: that decides the sign of a
// zero.
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
		d := magnitude(blockPeak(x)) / 127
		id := reciprocal(d)
		putHalf(dst, d)
		for i, v := range x {
			q[i] = byte(round(v * id))
		}
	}
}

func encodeQ4_0Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[18:], src[32:] {
		x, q := src[:32], dst[2:18]
		d := blockPeak(x) / -8
		id := reciprocal(d)
		putHalf(dst, d)
		for i := range q {
			q[i] = truncate(float32(x[i]*id)+8.5, 15) | truncate(float32(x[i+16]*id)+8.5, 15)<<4
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
			q[i] = truncate(float32((x[i]-low)*id)+0.5, 15) | truncate(float32((x[i+16]-low)*id)+0.5, 15)<<4
		}
	}
}

func encodeQ5_0Generic(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[22:], src[32:] {
		x := src[:32]
		d := blockPeak(x) / -16
		id := reciprocal(d)
		putHalf(dst, d)
		putFive(dst[2:22], func(i int) byte { return truncate(float32(x[i]*id)+16.5, 31) })
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
		putFive(dst[4:24], func(i int) byte { return truncate(float32((x[i]-low)*id)+0.5, 31) })
	}
}

// putFive stores 32 codes of 5 bits: the word of fifth bits, then the nibbles.
func putFive(dst []byte, code func(i int) byte) {
	var high uint32
	for i := range 16 {
		lo, hi := code(i), code(i+16)
		dst[4+i] = lo&15 | hi<<4
		high |= uint32(lo>>4)<<i | uint32(hi>>4)<<(i+16)
	}
	binary.LittleEndian.PutUint32(dst, high)
}
