package quantize

import (
	"encoding/binary"
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds what the encoders of ggml's formats with blocks of 32 values
// share, and that of MXFP4. Package kernel decodes them.

// half reads the half-precision number at the start of b.
func half(b []byte) float32 { return kernel.F16Value(binary.LittleEndian.Uint16(b)) }

func putHalf(b []byte, v float32) { binary.LittleEndian.PutUint16(b, kernel.F16Bits(v)) }

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

// mxfp4Edges lie half way between the magnitudes of kernel.MXFP4Values; one that is hit belongs to the smaller.
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
		d := kernel.MXFP4Scale(e)
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
