package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
)

// This file lists the number formats that weights are held in while a model runs or is trained on
// them, all decoded by assembly where there is any, and holds the plain Go of those with
// blocks of 32 values: a scale (and, where named _1, a minimum) and 4, 5 or 8 bits a value.
// superblocks.go has those of 256 values, fp8.go those of 8 bits without blocks, half.go those of 16.
// Every product and sum is one float32 rounding in the order written; the explicit conversions keep
// the compiler from fusing them. The formats not here are in package quantize.

// Format is a number format of weights, ggml's or that of safetensors. Rows of a matrix lie one after
// another, each of whole blocks.
type Format int

const (
	Q8_0 Format = iota
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	IQ4_NL
	MXFP4
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	IQ4_XS
	I8
	F8_E4M3
	F8_E5M2
	F16
	BF16
)

// formats gives each format's name, the values and bytes of a block, and its plain Go. The last five
// have no blocks: theirs are runs of 32, as assembly takes them.
var formats = [...]struct {
	name         string
	elems, bytes int
	generic      func(dst []float32, src []byte)
}{
	Q8_0:    {"Q8_0", 32, 34, decodeQ8_0Generic},
	Q4_0:    {"Q4_0", 32, 18, decodeQ4_0Generic},
	Q4_1:    {"Q4_1", 32, 20, decodeQ4_1Generic},
	Q5_0:    {"Q5_0", 32, 22, decodeQ5_0Generic},
	Q5_1:    {"Q5_1", 32, 24, decodeQ5_1Generic},
	IQ4_NL:  {"IQ4_NL", 32, 18, decodeIQ4_NLGeneric},
	MXFP4:   {"MXFP4", 32, 17, decodeMXFP4Generic},
	Q2_K:    {"Q2_K", 256, 84, decodeQ2_KGeneric},
	Q3_K:    {"Q3_K", 256, 110, decodeQ3_KGeneric},
	Q4_K:    {"Q4_K", 256, 144, decodeQ4_KGeneric},
	Q5_K:    {"Q5_K", 256, 176, decodeQ5_KGeneric},
	Q6_K:    {"Q6_K", 256, 210, decodeQ6_KGeneric},
	IQ4_XS:  {"IQ4_XS", 256, 136, decodeIQ4_XSGeneric},
	I8:      {"I8", 32, 32, decodeI8Generic},
	F8_E4M3: {"F8_E4M3", 32, 32, decodeF8_E4M3Generic},
	F8_E5M2: {"F8_E5M2", 32, 32, decodeF8_E5M2Generic},
	F16:     {"F16", 32, 64, F16ToF32},
	BF16:    {"BF16", 32, 64, BF16ToF32},
}

// String is the format's name in ggml's spelling, or in that of safetensors.
func (f Format) String() string { return formats[f].name }

// Block is the number of values in a block and of bytes that store them; a format without blocks has
// blocks of one.
func (f Format) Block() (elems, bytes int) {
	b := &formats[f]
	if f >= I8 {
		return 1, b.bytes / b.elems
	}
	return b.elems, b.bytes
}

// check panics unless so many values take so many bytes.
func (f Format) check(doing string, values, bytes int) {
	elems, size := f.Block()
	if values%elems != 0 || bytes != values/elems*size {
		panic(fmt.Sprintf("kernel: %s %d values of %s in %d bytes: a block is %d values in %d bytes", doing, values, f, bytes, elems, size))
	}
}

// Decode writes the values of the whole blocks in src to dst. It panics unless they go together.
func (f Format) Decode(dst []float32, src []byte) {
	f.check("decoding", len(dst), len(src))
	b := &formats[f]
	n := len(dst) / b.elems
	if decodeBlocks(f, dst, src, n) {
		dst, src = dst[n*b.elems:], src[n*b.bytes:]
	}
	b.generic(dst, src)
}

// Dot multiplies rows of a matrix by x: out[r] = x · row r, where src holds len(out) rows of len(x)
// values, in the bits that decoding them first gives. It panics unless src is so long.
func (f Format) Dot(out, x []float32, src []byte) {
	f.check("multiplying", len(out)*len(x), len(src))
	elems, _ := f.Block()
	if len(x)%elems != 0 {
		panic(fmt.Sprintf("kernel: multiplying rows of %d values of %s, whose blocks have %d", len(x), f, elems))
	}
	if len(src) == 0 {
		clear(out)
		return
	}
	if b := &formats[f]; len(x)%b.elems == 0 && dotBlocks(f, out, x, src, len(x)/b.elems) {
		return
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	row, size := growAligned(&ws.rowsBuf, len(x)), len(src)/len(out)
	for r := range out {
		f.Decode(row, src[r*size:(r+1)*size])
		dot(out[r:r+1], x, row, len(x))
	}
}

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
