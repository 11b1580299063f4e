package kernel

import (
	"encoding/binary"
	"fmt"
)

// This file decodes ggml's formats with blocks of 32 values that weights are most often
// held in while a model is trained on them: a half-precision scale (and, where named _1,
// a minimum) and 4 or 8 bits a value. In 4 bits, byte i of a block holds value i in its
// low half and value i+16 in its high half. Every product and sum is one float32
// rounding in the order written; the explicit conversions keep the compiler from fusing
// them. The other formats are in package quantize.

func checkBlocks(op string, values, bytes, block int) {
	if values%32 != 0 || bytes != values/32*block {
		panic(fmt.Sprintf("kernel: %s of %d values from %d bytes: a block is 32 values in %d bytes", op, values, bytes, block))
	}
}

// DecodeQ8_0 decodes blocks of 34 bytes, a scale and 32 signed bytes, to 32 values each.
func DecodeQ8_0(dst []float32, src []byte) {
	checkBlocks("DecodeQ8_0", len(dst), len(src), 34)
	if !decodeQ8_0Blocks(dst, src) {
		decodeQ8_0Generic(dst, src)
	}
}

// DecodeQ4_0 decodes blocks of 18 bytes, a scale and 32 nibbles less 8, to 32 values each.
func DecodeQ4_0(dst []float32, src []byte) {
	checkBlocks("DecodeQ4_0", len(dst), len(src), 18)
	if !decodeQ4_0Blocks(dst, src) {
		decodeQ4_0Generic(dst, src)
	}
}

// DecodeQ4_1 decodes blocks of 20 bytes, a scale, a minimum and 32 nibbles, to 32 values
// each.
func DecodeQ4_1(dst []float32, src []byte) {
	checkBlocks("DecodeQ4_1", len(dst), len(src), 20)
	if !decodeQ4_1Blocks(dst, src) {
		decodeQ4_1Generic(dst, src)
	}
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
