package main

import "fmt"

// This file emits the encoders of blocks of 32 values: a scale, perhaps a minimum, and a code for each
// value. A block is two vectors of AVX-512, or four of AVX2, in registers 0 to 3.

// blockEncoder describes a format.
type blockEncoder struct {
	name   string
	size   int    // bytes of a block
	bits   int    // of a code: 4, 5 or 8
	affine bool   // codes count from the smallest value, which is stored too
	step   string // what the largest value, or with affine the range, is multiplied or divided by for the scale
	shift  string // what is added to a code before its fraction is cut off
}

var blockEncoders = []blockEncoder{
	{"encodeQ8_0", 34, 8, false, "127", ""},
	{"encodeQ4_0", 18, 4, false, "-1/8", "8.5"},
	{"encodeQ4_1", 20, 4, true, "f15", "half"},
	{"encodeQ5_0", 22, 5, false, "-1/16", "16.5"},
	{"encodeQ5_1", 24, 5, true, "f31", "half"},
}

// across joins the lanes of register r into the lowest; it uses tmp.
func (e *emitter) across(op string, r, tmp int) {
	if e.letter == "Z" {
		e.p("VEXTRACTF64X4 $1, Z%d, Y%d", r, tmp)
		e.p("%s Y%d, Y%d, Y%d", op, tmp, r, r)
	}
	e.p("VEXTRACTF128 $1, Y%d, X%d", r, tmp)
	e.p("%s X%d, X%d, X%d", op, tmp, r, r)
	for _, order := range []string{"$0x4e", "$0xb1"} {
		e.p("VPERMILPS %s, X%d, X%d", order, r, tmp)
		e.p("%s X%d, X%d, X%d", op, tmp, r, r)
	}
}

// where sets R8 to a bit for each of the vectors' lanes that equals register r; the vectors are at
// from and following.
func (e *emitter) where(from, r int) {
	n := 32 / e.lanes
	for i := range n {
		if e.letter == "Z" {
			e.p("VCMPPS $0, %s, %s, K1", e.v(r), e.v(from+i))
			e.p("KMOVW K1, %s", []string{"R8", "R9"}[i])
		} else {
			e.op("VCMPPS", "$0", r, from+i, choiceReg)
			e.p("VMOVMSKPS %s, %s", e.v(choiceReg), []string{"R8", "R9", "R10", "R11"}[i])
		}
	}
	e.joinMasks()
}

// joinMasks makes R8 the mask of all vectors from those in R8 and following.
func (e *emitter) joinMasks() {
	for i, r := range []string{"R9", "R10", "R11"}[:32/e.lanes-1] {
		e.p("SHLL $%d, %s", e.lanes*(i+1), r)
		e.p("ORL %s, R8", r)
	}
}

func (e *emitter) encodeBlocks(b blockEncoder) {
	e.function(b.name, "dst *byte, src *float32, blocks int", 24)
	e.p("MOVQ dst+0(FP), DI")
	e.p("MOVQ src+8(FP), SI")
	e.p("MOVQ blocks+16(FP), CX")
	n := 32 / e.lanes
	const low, high, scale, inverse, tmp = 8, 9, 10, 11, 12
	e.label("block")
	for i := range n {
		e.p("VMOVUPS %d(SI), %s", 4*e.lanes*i, e.v(i))
	}
	x := func(r int) string { return fmt.Sprintf("X%d", r) }
	positiveZero := func() { // which of several zeros was found does not decide
		e.p("VXORPS %s, %s, %s", x(tmp), x(tmp), x(tmp))
		e.p("VADDSS %s, %s, %s", x(tmp), x(scale), x(scale))
	}
	if b.affine {
		e.op("VMINPS", 1, 0, low)
		e.op("VMAXPS", 1, 0, high)
		for i := 2; i < n; i++ {
			e.op("VMINPS", i, low, low)
			e.op("VMAXPS", i, high, high)
		}
		e.across("VMINPS", low, tmp)
		e.across("VMAXPS", high, tmp)
		// The first of those that are as small: of a zero that decides the sign.
		e.p("VBROADCASTSS %s, %s", x(low), e.v(low))
		e.where(0, low)
		e.p("TZCNTL R8, R8")
		e.p("ANDL $31, R8")
		e.p("VBROADCASTSS (SI)(R8*4), %s", e.v(low))
		e.p("VSUBSS %s, %s, %s", x(low), x(high), x(scale))
		positiveZero()
		e.p("VDIVSS %s, %s, %s", fitConstant(b.step), x(scale), x(scale))
	} else {
		for i := range n {
			e.op("VANDPS", fitConstant("abs"), i, 4+i)
		}
		e.op("VMAXPS", 5, 4, high)
		for i := 2; i < n; i++ {
			e.op("VMAXPS", 4+i, high, high)
		}
		e.across("VMAXPS", high, tmp)
		if b.bits == 8 {
			e.p("VDIVSS %s, %s, %s", fitConstant(b.step), x(high), x(scale))
		} else {
			e.p("VBROADCASTSS %s, %s", x(high), e.v(high))
			e.where(4, high)
			e.p("TZCNTL R8, R8")
			e.p("ANDL $31, R8")
			e.p("VMOVSS (SI)(R8*4), %s", x(scale))
			positiveZero()
			e.p("VMULSS %s, %s, %s", fitConstant(b.step), x(scale), x(scale))
		}
	}
	// The reciprocal of the scale, or 0 for 0.
	e.p("VMOVSS %s, %s", fitConstant("one"), x(inverse))
	e.p("VDIVSS %s, %s, %s", x(scale), x(inverse), x(inverse))
	e.p("VXORPS %s, %s, %s", x(tmp), x(tmp), x(tmp))
	e.p("VUCOMISS %s, %s", x(tmp), x(scale))
	e.p("JNE scaled")
	e.p("JPS scaled")
	e.p("VXORPS %s, %s, %s", x(inverse), x(inverse), x(inverse))
	e.label("scaled")
	e.p("VBROADCASTSS %s, %s", x(inverse), e.v(inverse))
	e.p("VCVTPS2PH $0, %s, %s", x(scale), x(tmp))
	e.p("VPEXTRW $0, %s, (DI)", x(tmp))
	at := 2
	if b.affine {
		e.p("VCVTPS2PH $0, %s, %s", x(low), x(tmp))
		e.p("VPEXTRW $0, %s, 2(DI)", x(tmp))
		at = 4
	}
	for i := range n {
		if b.affine {
			e.op("VSUBPS", low, i, i)
		}
		e.op("VMULPS", inverse, i, i)
		if b.bits == 8 {
			e.op("VANDPS", fitConstant("sign"), i, tmp)
			e.op("VORPS", fitConstant("justHalf"), tmp, tmp)
			e.op("VADDPS", tmp, i, i)
		} else {
			e.op("VADDPS", fitConstant(b.shift), i, i)
		}
		e.op("VCVTTPS2DQ", i, i)
		if b.bits != 8 {
			e.op("VPMINSD", fitConstant(map[int]string{4: "i15", 5: "i31"}[b.bits]), i, i)
		}
	}
	if b.bits == 8 {
		e.bytes32(at)
	} else {
		if b.bits == 5 {
			e.fifths(at)
			at += 4
		}
		e.nibbles(at)
	}
	e.p("ADDQ $%d, DI", b.size)
	e.p("ADDQ $128, SI")
	e.p("DECQ CX")
	e.p("JNZ block")
	e.p("VZEROUPPER")
	e.p("RET")
}

// bytes32 stores the low bytes of 32 integers.
func (e *emitter) bytes32(at int) {
	if e.letter == "Z" {
		e.p("VPMOVDB Z0, %d(DI)", at)
		e.p("VPMOVDB Z1, %d(DI)", at+16)
		return
	}
	for i := range 4 {
		e.op("VPAND", fitConstant("byte"), i, i)
	}
	e.op("VPACKUSDW", 1, 0, 0)
	e.op("VPACKUSDW", 3, 2, 2)
	e.op("VPACKUSWB", 2, 0, 0)
	e.op("VMOVDQU", "·fitOrder(SB)", 1)
	e.op("VPERMD", 0, 1, 0)
	e.p("VMOVDQU Y0, %d(DI)", at)
}

// fifths stores the fifth bits of 32 codes, and takes them off.
func (e *emitter) fifths(at int) {
	for i := range 32 / e.lanes {
		if e.letter == "Z" {
			e.p("VPTESTMD %s, %s, K1", fitConstant("i16"), e.v(i))
			e.p("KMOVW K1, %s", []string{"R8", "R9"}[i])
		} else {
			e.op("VPSLLD", "$27", i, 12)
			e.p("VMOVMSKPS %s, %s", e.v(12), []string{"R8", "R9", "R10", "R11"}[i])
		}
		e.op(e.integer("VPAND"), fitConstant("i15"), i, i)
	}
	e.joinMasks()
	e.p("MOVL R8, %d(DI)", at)
}

// nibbles stores 32 codes of 4 bits: the second half in the upper nibbles.
func (e *emitter) nibbles(at int) {
	half := 16 / e.lanes
	for i := range half {
		e.op("VPSLLD", "$4", half+i, half+i)
		e.op(e.integer("VPOR"), half+i, i, i)
	}
	if e.letter == "Z" {
		e.p("VPMOVDB Z0, %d(DI)", at)
		return
	}
	for i := range 2 {
		e.op("VPAND", fitConstant("byte"), i, i)
	}
	e.op("VPACKUSDW", 1, 0, 0)
	e.op("VPACKUSWB", 0, 0, 0)
	e.op("VMOVDQU", "·fitOrder(SB)", 1)
	e.op("VPERMD", 0, 1, 0)
	e.p("VMOVDQU X0, %d(DI)", at)
}
