package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
)

// This file lists the number formats that weights are held in while a model is trained on
// them, all decoded by assembly where there is any, and holds the plain Go of those with
// blocks of 32 values: a scale (and, where named _1, a minimum) and 4, 5 or 8 bits a value.
// superblocks.go has those of 256 values, fp8.go those without blocks. Every product and sum
// is one float32 rounding in the order written; the explicit conversions keep the compiler
// from fusing them. The formats not here are in package quantize.

// blockFormat is a number format of whole blocks.
type blockFormat int

const (
	q8_0 blockFormat = iota
	q4_0
	q4_1
	q5_0
	q5_1
	iq4_nl
	mxfp4
	q2_k
	q3_k
	q4_k
	q5_k
	q6_k
	iq4_xs
	i8
	f8_e4m3
	f8_e5m2
)

// blockFormats gives each format's name, the values and bytes of a block, and its plain Go. The
// last three have no blocks: theirs are runs of 32.
var blockFormats = [...]struct {
	name         string
	elems, bytes int
	generic      func(dst []float32, src []byte)
}{
	q8_0:    {"Q8_0", 32, 34, decodeQ8_0Generic},
	q4_0:    {"Q4_0", 32, 18, decodeQ4_0Generic},
	q4_1:    {"Q4_1", 32, 20, decodeQ4_1Generic},
	q5_0:    {"Q5_0", 32, 22, decodeQ5_0Generic},
	q5_1:    {"Q5_1", 32, 24, decodeQ5_1Generic},
	iq4_nl:  {"IQ4_NL", 32, 18, decodeIQ4_NLGeneric},
	mxfp4:   {"MXFP4", 32, 17, decodeMXFP4Generic},
	q2_k:    {"Q2_K", 256, 84, decodeQ2_KGeneric},
	q3_k:    {"Q3_K", 256, 110, decodeQ3_KGeneric},
	q4_k:    {"Q4_K", 256, 144, decodeQ4_KGeneric},
	q5_k:    {"Q5_K", 256, 176, decodeQ5_KGeneric},
	q6_k:    {"Q6_K", 256, 210, decodeQ6_KGeneric},
	iq4_xs:  {"IQ4_XS", 256, 136, decodeIQ4_XSGeneric},
	i8:      {"I8", 32, 32, decodeI8Generic},
	f8_e4m3: {"F8_E4M3", 32, 32, decodeF8_E4M3Generic},
	f8_e5m2: {"F8_E5M2", 32, 32, decodeF8_E5M2Generic},
}

// check panics unless so many values take so many bytes.
func (f blockFormat) check(doing string, values, bytes int) {
	b := &blockFormats[f]
	if values%b.elems != 0 || bytes != values/b.elems*b.bytes {
		panic(fmt.Sprintf("kernel: %s %d values of %s in %d bytes: a block is %d values in %d bytes", doing, values, b.name, bytes, b.elems, b.bytes))
	}
}

// decode decodes whole blocks.
func (f blockFormat) decode(dst []float32, src []byte) {
	f.check("decoding", len(dst), len(src))
	b := &blockFormats[f]
	if !f.assembly(dst, src, len(dst)/b.elems) {
		b.generic(dst, src)
	}
}

// decodeEach decodes a format without blocks.
func (f blockFormat) decodeEach(dst []float32, src []byte) {
	if len(src) != len(dst) {
		panic(fmt.Sprintf("kernel: decoding %d values of %s from %d bytes", len(dst), blockFormats[f].name, len(src)))
	}
	n := len(dst) &^ 31
	f.decode(dst[:n], src[:n])
	blockFormats[f].generic(dst[n:], src[n:])
}

// DecodeQ8_0 decodes blocks of 34 bytes, a scale and 32 signed bytes, to 32 values each.
func DecodeQ8_0(dst []float32, src []byte) { q8_0.decode(dst, src) }

// DecodeQ4_0 decodes blocks of 18 bytes, a scale and 32 nibbles less 8, to 32 values each.
func DecodeQ4_0(dst []float32, src []byte) { q4_0.decode(dst, src) }

// DecodeQ4_1 decodes blocks of 20 bytes, a scale, a minimum and 32 nibbles, to 32 values each.
func DecodeQ4_1(dst []float32, src []byte) { q4_1.decode(dst, src) }

// DecodeQ5_0 decodes blocks of 22 bytes, a scale and 32 codes of 5 bits less 16, to 32 values each.
func DecodeQ5_0(dst []float32, src []byte) { q5_0.decode(dst, src) }

// DecodeQ5_1 decodes blocks of 24 bytes, a scale, a minimum and 32 codes of 5 bits, to 32 values each.
func DecodeQ5_1(dst []float32, src []byte) { q5_1.decode(dst, src) }

// DecodeIQ4_NL decodes blocks of 18 bytes, a scale and 32 places in IQ4Values, to 32 values each.
func DecodeIQ4_NL(dst []float32, src []byte) { iq4_nl.decode(dst, src) }

// DecodeMXFP4 decodes blocks of 17 bytes, an exponent and 32 places in MXFP4Values, to 32 values each.
func DecodeMXFP4(dst []float32, src []byte) { mxfp4.decode(dst, src) }

// DecodeQ2_K decodes super-blocks of 84 bytes to 256 values each.
func DecodeQ2_K(dst []float32, src []byte) { q2_k.decode(dst, src) }

// DecodeQ3_K decodes super-blocks of 110 bytes to 256 values each.
func DecodeQ3_K(dst []float32, src []byte) { q3_k.decode(dst, src) }

// DecodeQ4_K decodes super-blocks of 144 bytes to 256 values each.
func DecodeQ4_K(dst []float32, src []byte) { q4_k.decode(dst, src) }

// DecodeQ5_K decodes super-blocks of 176 bytes to 256 values each.
func DecodeQ5_K(dst []float32, src []byte) { q5_k.decode(dst, src) }

// DecodeQ6_K decodes super-blocks of 210 bytes to 256 values each.
func DecodeQ6_K(dst []float32, src []byte) { q6_k.decode(dst, src) }

// DecodeIQ4_XS decodes super-blocks of 136 bytes to 256 values each.
func DecodeIQ4_XS(dst []float32, src []byte) { iq4_xs.decode(dst, src) }

// IQ4Values is the non-linear table of IQ4_NL and IQ4_XS.
var IQ4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// MXFP4Values are the E2M1 numbers doubled, which makes them whole.
var MXFP4Values = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

// MXFP4Scale is what MXFP4Values are multiplied by under the exponent e, 2^(e−128): the bias is
// 127, and one more halves the table.
func MXFP4Scale(e byte) float32 {
	if e < 2 { // subnormal
		return math.Float32frombits(1 << (21 + e))
	}
	return math.Float32frombits(uint32(e-1) << 23)
}

// halfAt reads the half-precision number at the start of b.
func halfAt(b []byte) float32 { return F16Value(binary.LittleEndian.Uint16(b)) }

func decodeQ8_0Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[34:] {
		d := halfAt(src)
		x, q := dst[:32], src[2:34]
		for i := range x {
			x[i] = float32(int8(q[i])) * d
		}
	}
}

// In 4 bits, byte i of a block holds value i in its low half and value i+16 in its high half.

func decodeQ4_0Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		d := halfAt(src)
		x := dst[:32]
		for i, q := range src[2:18] {
			x[i] = float32(int(q&15)-8) * d
			x[i+16] = float32(int(q>>4)-8) * d
		}
	}
}

func decodeQ4_1Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[20:] {
		d, m := halfAt(src), halfAt(src[2:])
		x := dst[:32]
		for i, q := range src[4:20] {
			x[i] = float32(float32(q&15)*d) + m
			x[i+16] = float32(float32(q>>4)*d) + m
		}
	}
}

// The fifth bit of value i is bit i of a 32-bit word.

func decodeQ5_0Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[22:] {
		d, high := halfAt(src), binary.LittleEndian.Uint32(src[2:])
		x := dst[:32]
		for i, q := range src[6:22] {
			x[i] = float32(int(q&15|byte(high>>i&1)<<4)-16) * d
			x[i+16] = float32(int(q>>4|byte(high>>(i+16)&1)<<4)-16) * d
		}
	}
}

func decodeQ5_1Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[24:] {
		d, m, high := halfAt(src), halfAt(src[2:]), binary.LittleEndian.Uint32(src[4:])
		x := dst[:32]
		for i, q := range src[8:24] {
			x[i] = float32(float32(q&15|byte(high>>i&1)<<4)*d) + m
			x[i+16] = float32(float32(q>>4|byte(high>>(i+16)&1)<<4)*d) + m
		}
	}
}

func decodeIQ4_NLGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		d := halfAt(src)
		x := dst[:32]
		for i, q := range src[2:18] {
			x[i] = d * IQ4Values[q&15]
			x[i+16] = d * IQ4Values[q>>4]
		}
	}
}

func decodeMXFP4Generic(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[17:] {
		d := MXFP4Scale(src[0])
		x := dst[:32]
		for i, q := range src[1:17] {
			x[i] = d * MXFP4Values[q&15]
			x[i+16] = d * MXFP4Values[q>>4]
		}
	}
}
