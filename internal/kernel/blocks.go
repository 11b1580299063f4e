package kernel

import (
	"encoding/binary"
	"fmt"
)

// This file decodes ggml's formats with blocks of 32 values that weights are most often
// held in while a model is trained on them: a half-precision scale (and, where named _1,
// a minimum) and 4, 5 or 8 bits a value. In 4 bits, byte i of a block holds value i in its
// low half and value i+16 in its high half. Every product and sum is one float32
// rounding in the order written; the explicit conversions keep the compiler from fusing
// them. Q5 blocks keep the fifth bit of value i at bit i of a 32-bit word. Rarer formats are in
// package quantize.

func checkBlocks(op string, values, bytes, size, block int) {
	if values%size != 0 || bytes != values/size*block {
		panic(fmt.Sprintf("kernel: %s of %d values from %d bytes: a block is %d values in %d bytes", op, values, bytes, size, block))
	}
}

// decode runs the vector form of a decoder, or where there is none the plain one.
func decode(op string, dst []float32, src []byte, size, block int, fast func([]float32, []byte) bool, slow func([]float32, []byte)) {
	checkBlocks(op, len(dst), len(src), size, block)
	if !fast(dst, src) {
		slow(dst, src)
	}
}

// DecodeQ8_0 decodes blocks of 34 bytes, a scale and 32 signed bytes, to 32 values each.
func DecodeQ8_0(dst []float32, src []byte) {
	decode("DecodeQ8_0", dst, src, 32, 34, decodeQ8_0Blocks, decodeQ8_0Generic)
}

// DecodeQ4_0 decodes blocks of 18 bytes, a scale and 32 nibbles less 8, to 32 values each.
func DecodeQ4_0(dst []float32, src []byte) {
	decode("DecodeQ4_0", dst, src, 32, 18, decodeQ4_0Blocks, decodeQ4_0Generic)
}

// DecodeQ4_1 decodes blocks of 20 bytes, a scale, a minimum and 32 nibbles, to 32 values each.
func DecodeQ4_1(dst []float32, src []byte) {
	decode("DecodeQ4_1", dst, src, 32, 20, decodeQ4_1Blocks, decodeQ4_1Generic)
}

// DecodeQ5_0 decodes blocks of 22 bytes, a scale, the fifth bits of the values as a word and 32 nibbles, less 16, to 32 values each.
func DecodeQ5_0(dst []float32, src []byte) {
	decode("DecodeQ5_0", dst, src, 32, 22, decodeQ5_0Blocks, decodeQ5_0Generic)
}

// DecodeQ5_1 decodes blocks of 24 bytes, a scale, a minimum, the fifth bits of the values as a word and 32 nibbles, to 32 values each.
func DecodeQ5_1(dst []float32, src []byte) {
	decode("DecodeQ5_1", dst, src, 32, 24, decodeQ5_1Blocks, decodeQ5_1Generic)
}

// DecodeIQ4NL decodes blocks of 18 bytes, a scale and 32 nibbles that choose from a table, to 32 values each.
func DecodeIQ4NL(dst []float32, src []byte) {
	decode("DecodeIQ4NL", dst, src, 32, 18, decodeIQ4NLBlocks, decodeIQ4NLGeneric)
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

// IQ4Values is the non-linear table of IQ4_NL and IQ4_XS.
var IQ4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func decodeIQ4NLGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		d := halfAt(src)
		x := dst[:32]
		for i, q := range src[2:18] {
			x[i] = d * IQ4Values[q&15]
			x[i+16] = d * IQ4Values[q>>4]
		}
	}
}
