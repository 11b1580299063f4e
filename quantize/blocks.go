package quantize

import (
	"encoding/binary"
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds ggml's formats with blocks of 32 values: a half-precision
// scale (and, where named _1, a minimum) and 4, 5 or 8 bits a value. Every
// product and sum is one float32 rounding in the order written; the explicit
// conversions keep the compiler from fusing them.

// half reads the half-precision number at the start of b.
func half(b []byte) float32 { return kernel.F16Value(binary.LittleEndian.Uint16(b)) }

func putHalf(b []byte, v float32) { binary.LittleEndian.PutUint16(b, kernel.F16Bits(v)) }

// Nibbles of a 32-value block lie in halves: byte i holds value i in its low
// half and value i+16 in its high half. Q8_0, Q4_0 and Q4_1 are decoded by package kernel.
//
// Q5 blocks keep the fifth bit of value i at bit i of a 32-bit word.

func decodeQ5_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[22:] {
		d, high := half(src), binary.LittleEndian.Uint32(src[2:])
		x := dst[:32]
		for i, q := range src[6:22] {
			x[i] = float32(int(q&15|byte(high>>i&1)<<4)-16) * d
			x[i+16] = float32(int(q>>4|byte(high>>(i+16)&1)<<4)-16) * d
		}
	}
}

func decodeQ5_1(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[24:] {
		d, m, high := half(src), half(src[2:]), binary.LittleEndian.Uint32(src[4:])
		x := dst[:32]
		for i, q := range src[8:24] {
			x[i] = float32(float32(q&15|byte(high>>i&1)<<4)*d) + m
			x[i+16] = float32(float32(q>>4|byte(high>>(i+16)&1)<<4)*d) + m
		}
	}
}

// iq4Values is the non-linear table of IQ4_NL and IQ4_XS.
var iq4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		d := half(src)
		x := dst[:32]
		for i, q := range src[2:18] {
			x[i] = d * iq4Values[q&15]
			x[i+16] = d * iq4Values[q>>4]
		}
	}
}

// mxfp4Values are the E2M1 numbers doubled, which makes them whole.
var mxfp4Values = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

func decodeMXFP4(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[17:] {
		d := exp2(int(src[0]) - 128) // the exponent's bias is 127; one more halves the table
		x := dst[:32]
		for i, q := range src[1:17] {
			x[i] = d * mxfp4Values[q&15]
			x[i+16] = d * mxfp4Values[q>>4]
		}
	}
}

// exp2 is 2^e, exactly, for -149 <= e <= 127.
func exp2(e int) float32 {
	if e < -126 {
		return math.Float32frombits(1 << (e + 149))
	}
	return math.Float32frombits(uint32(e+127) << 23)
}

// magnitude is |v|.
func magnitude(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// reciprocal is 1/d, or 0 for 0.
func reciprocal(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// peak is the value of largest magnitude in x, the first of several.
func peak(x []float32) float32 {
	var m, top float32
	for _, v := range x {
		if a := magnitude(v); a > top {
			top, m = a, v
		}
	}
	return m
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

// mxfp4Edges lie half way between the magnitudes of mxfp4Values; one that is hit belongs to the smaller.
var mxfp4Edges = [7]float32{0.5, 1.5, 2.5, 3.5, 5, 7, 10}

// encodeMXFP4: a power of two below a quarter of the largest magnitude's, and the nearest of the table's
// multiples of it.
func encodeMXFP4(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[17:], src[32:] {
		x := src[:32]
		var e byte
		if top := magnitude(peak(x)); top > 0 {
			// A float32's logarithm: just below a power of two it is the power's.
			e = byte(int(math.Floor(float64(float32(math.Log2(float64(top)))))) - 2 + 127)
		}
		d := exp2(int(e) - 128)
		edges := mxfp4Edges
		for i := range edges {
			edges[i] *= d
		}
		dst[0] = e
		putFour(dst[1:17], func(i int) byte {
			var code byte
			for _, edge := range edges {
				if magnitude(x[i]) > edge {
					code++
				}
			}
			if x[i] < 0 && code > 0 {
				code |= 8
			}
			return code
		})
	}
}
