package quantize

import (
	"encoding/binary"
)

// Finite reports whether none of some values is NaN or an infinity.
func Finite(values []float32) bool {
	if littleEndian {
		return finiteWords(memory(values), 0x7f800000_7f800000, 0x00800000_00800000)
	}
	for _, v := range values {
		if !finite(v) {
			return false
		}
	}
	return true
}

// FiniteBytes is Finite of values stored in c, without decoding them. It reports known false where that
// takes decoding: every format but F32, F16 and BF16.
func FiniteBytes(c Codec, src []byte) (ok, known bool) {
	switch c.Name() {
	case "F32":
		return finiteWords(src, 0x7f800000_7f800000, 0x00800000_00800000), true
	case "BF16":
		return finiteWords(src, 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080), true
	case "F16":
		return finiteWords(src, 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400), true
	}
	return false, false
}

// finiteWords looks for an exponent that is all ones, in several numbers at a time: adding its lowest bit
// carries into the place of the sign then and only then.
func finiteWords(src []byte, exponents, lowest uint64) bool {
	signs := exponents + lowest // the carries of all ones
	var a, b, c, d uint64
	for ; len(src) >= 32; src = src[32:] {
		a |= binary.LittleEndian.Uint64(src)&exponents + lowest
		b |= binary.LittleEndian.Uint64(src[8:])&exponents + lowest
		c |= binary.LittleEndian.Uint64(src[16:])&exponents + lowest
		d |= binary.LittleEndian.Uint64(src[24:])&exponents + lowest
	}
	var tail [32]byte // zeros are finite
	copy(tail[:], src)
	for i := 0; i < len(tail); i += 8 {
		a |= binary.LittleEndian.Uint64(tail[i:])&exponents + lowest
	}
	return (a|b|c|d)&signs == 0
}
