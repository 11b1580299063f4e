package main

import "fmt"

// This file emits the decoders of ggml's formats in vectors of eight values, for AVX2, which AVX-512
// has as well: memory is the limit. A block's bytes are widened eight at a time; its scales are made
// first, in vectors, and kept on the stack.

// Registers of the decoders: 0 to 7 are scratch, the others as named.
const (
	dScale  = 8  // of a block, or of a sub-block, in all lanes
	dMin    = 9  // its minimum
	dMask   = 15 // the low 4 bits of each of 8 words
	dBit    = 14 // constants of the format
	dThree  = 13
	dOffset = 12
)

// decoder is a format: its block, and what is emitted once and for each block.
type decoder struct {
	name          string
	values, bytes int
	start, block  func(e *emitter)
}

var decoders = []decoder{
	{"decodeQ5_0", 32, 22, decodeFives(16), func(e *emitter) { e.fives(6, 2, false) }},
	{"decodeQ5_1", 32, 24, decodeFives(0), func(e *emitter) { e.fives(8, 4, true) }},
	{"decodeIQ4NL", 32, 18, decodeTable, func(e *emitter) {
		e.halves(0, false)
		e.tabled(2, 0)
	}},
	{"decodeIQ4XS", 256, 136, decodeTable, (*emitter).iq4xs},
	{"decodeQ2K", 256, 84, masks(15, 0, 3, 0), (*emitter).q2k},
	{"decodeQ3K", 256, 110, masks(0, 4, 3, 4), (*emitter).q3k},
	{"decodeQ4K", 256, 144, masks(15, 0, 0, 0), func(e *emitter) { e.q45k(16, false) }},
	{"decodeQ5K", 256, 176, masks(15, 16, 0, 0), func(e *emitter) { e.q45k(48, true) }},
	{"decodeQ6K", 256, 210, masks(15, 48, 0, 32), (*emitter).q6k},
}

// masks fills the constants with words.
func masks(mask, bit, three, offset uint32) func(e *emitter) {
	return func(e *emitter) {
		for _, c := range []struct {
			r int
			v uint32
		}{{dMask, mask}, {dBit, bit}, {dThree, three}, {dOffset, offset}} {
			if c.v != 0 {
				e.p("MOVL $%d, AX", c.v)
				e.p("VMOVD AX, X%d", c.r)
				e.p("VPBROADCASTD X%d, Y%d", c.r, c.r)
			}
		}
	}
}

func (e *emitter) decoder(d decoder) {
	fmt.Fprintf(e, "\n// func %sAVX2(dst *float32, src *byte, blocks int)\nTEXT ·%sAVX2(SB), NOSPLIT, $64-24\n", d.name, d.name)
	e.p("MOVQ dst+0(FP), DI")
	e.p("MOVQ src+8(FP), SI")
	e.p("MOVQ blocks+16(FP), CX")
	d.start(e)
	e.label("block")
	d.block(e)
	e.p("ADDQ $%d, SI", d.bytes)
	e.p("ADDQ $%d, DI", 4*d.values)
	e.p("DECQ CX")
	e.p("JNZ block")
	e.p("VZEROUPPER")
	e.p("RET")
}

// halves brings the half-precision number at an offset to all lanes of the scale, and with two the
// next one to those of the minimum.
func (e *emitter) halves(at int, two bool) {
	if !two {
		e.p("MOVWLZX %d(SI), AX", at)
		e.p("VMOVD AX, X0")
		e.p("VCVTPH2PS X0, X0")
		e.p("VBROADCASTSS X0, Y%d", dScale)
		return
	}
	e.p("VMOVD %d(SI), X0", at)
	e.p("VCVTPH2PS X0, X0")
	e.p("VMOVSHDUP X0, X1")
	e.p("VBROADCASTSS X0, Y%d", dScale)
	e.p("VBROADCASTSS X1, Y%d", dMin)
}

// widen makes words of the eight bytes at an offset.
func (e *emitter) widen(at, r int) { e.p("VPMOVZXBD %d(SI), Y%d", at, r) }

// product stores number·scale at value v, less the minimum where there is one, or more with add.
func (e *emitter) product(r, v int, then string) {
	e.p("VCVTDQ2PS Y%d, Y%d", r, r)
	e.p("VMULPS Y%d, Y%d, Y%d", dScale, r, r)
	if then != "" {
		e.p("%s Y%d, Y%d, Y%d", then, dMin, r, r)
	}
	e.p("VMOVUPS Y%d, %d(DI)", r, 4*v)
}

// scaleOf and minOf bring a kept scale or minimum to all lanes.
func (e *emitter) scaleOf(i int) { e.p("VBROADCASTSS %d(SP), Y%d", 4*i, dScale) }
func (e *emitter) minOf(i int)   { e.p("VBROADCASTSS %d(SP), Y%d", 4*i, dMin) }

// Five bits: a nibble and a bit of the word before them.
func decodeFives(offset uint32) func(e *emitter) {
	return func(e *emitter) {
		masks(15, 16, 0, offset)(e)
		for i := range 4 { // the bits' places, by eights
			e.p("VMOVDQU ·decodeShifts+%d(SB), Y%d", 32*i, 4+i)
		}
	}
}

func (e *emitter) fives(at, word int, affine bool) {
	e.halves(0, affine)
	e.p("VPBROADCASTD %d(SI), Y3", word)
	for i := range 4 {
		e.widen(at+8*(i%2), 0)
		if i < 2 {
			e.p("VPAND Y%d, Y0, Y0", dMask)
		} else {
			e.p("VPSRLD $4, Y0, Y0")
		}
		e.p("VPSRLVD Y%d, Y3, Y1", 4+i)
		e.p("VPSLLD $4, Y1, Y1")
		e.p("VPAND Y%d, Y1, Y1", dBit)
		e.p("VPOR Y1, Y0, Y0")
		if affine {
			e.product(0, 8*i, "VADDPS")
		} else {
			e.p("VPSUBD Y%d, Y0, Y0", dOffset)
			e.product(0, 8*i, "")
		}
	}
}

// decodeTable loads the table of IQ4 formats.
func decodeTable(e *emitter) {
	masks(15, 0, 0, 0)(e)
	e.p("VMOVDQU ·decodeIQ4(SB), X11")
	e.p("MOVQ $0x0f0f0f0f0f0f0f0f, AX")
	e.p("VMOVQ AX, X10")
	e.p("VPBROADCASTQ X10, X10")
}

// tabled stores 32 values of the table from 16 bytes of nibbles.
func (e *emitter) tabled(at, v int) {
	e.p("VMOVDQU %d(SI), X0", at)
	e.p("VPSRLW $4, X0, X1")
	for half := range 2 {
		e.p("VPAND X10, X%d, X%d", half, half)
		e.p("VPSHUFB X%d, X11, X%d", half, half)
		e.p("VPMOVSXBD X%d, Y2", half)
		e.p("VPSRLDQ $8, X%d, X%d", half, half)
		e.p("VPMOVSXBD X%d, Y3", half)
		e.product(2, v+16*half, "")
		e.product(3, v+16*half+8, "")
	}
}

func (e *emitter) iq4xs() {
	e.halves(0, false)
	e.p("VMOVAPS Y%d, Y7", dScale)
	e.p("MOVWLZX 2(SI), AX") // upper bits, two a scale
	e.p("MOVL 4(SI), BX")    // lower bits, four a scale
	for j := range 8 {
		e.p("MOVL BX, R8")
		e.p("ANDL $15, R8")
		e.p("MOVL AX, R9")
		e.p("ANDL $3, R9")
		e.p("SHLL $4, R9")
		e.p("LEAL -32(R8)(R9*1), R8")
		e.p("SHRL $4, BX")
		e.p("SHRL $2, AX")
		e.p("VMOVD R8, X0")
		e.p("VPBROADCASTD X0, Y0")
		e.p("VCVTDQ2PS Y0, Y0")
		e.p("VMULPS Y0, Y7, Y%d", dScale)
		e.tabled(8+16*j, 32*j)
	}
}

// keep stores eight scales: signed or unsigned bytes in a register, or in memory, times factor.
func (e *emitter) keep(src, move string, factor, slot int) {
	e.p("%s %s, Y0", move, src)
	e.p("VCVTDQ2PS Y0, Y0")
	e.p("VMULPS Y%d, Y0, Y0", factor)
	e.p("VMOVUPS Y0, %d(SP)", 32*slot)
}

// q45k: eight scales and minimums of 6 bits in 12 bytes.
func (e *emitter) q45k(at int, fifth bool) {
	e.halves(0, true)
	e.p("MOVL 4(SI), AX")
	e.p("MOVL 8(SI), BX")
	e.p("MOVL 12(SI), DX")
	for i, r := range []string{"AX", "BX"} {
		e.p("MOVL %s, R8", r)
		e.p("ANDL $0x3f3f3f3f, R8")
		e.p("MOVL DX, R9")
		if i == 1 {
			e.p("SHRL $4, R9")
		}
		e.p("ANDL $0x0f0f0f0f, R9")
		e.p("SHRL $2, %s", r)
		e.p("ANDL $0x30303030, %s", r)
		e.p("ORL %s, R9", r)
		e.p("SHLQ $32, R9")
		e.p("ORQ R9, R8")
		e.p("VMOVQ R8, X0")
		e.keep("X0", "VPMOVZXBD", []int{dScale, dMin}[i], i)
	}
	if fifth {
		for k := range 4 {
			e.widen(16+8*k, 4+k)
		}
	}
	for j := range 8 {
		e.scaleOf(j)
		e.minOf(8 + j)
		for k := range 4 {
			e.widen(at+32*(j/2)+8*k, 0)
			if j%2 == 0 {
				e.p("VPAND Y%d, Y0, Y0", dMask)
			} else {
				e.p("VPSRLD $4, Y0, Y0")
			}
			if fifth {
				if j <= 4 {
					e.p("VPSLLD $%d, Y%d, Y1", 4-j, 4+k)
				} else {
					e.p("VPSRLD $%d, Y%d, Y1", j-4, 4+k)
				}
				e.p("VPAND Y%d, Y1, Y1", dBit)
				e.p("VPOR Y1, Y0, Y0")
			}
			e.product(0, 32*j+8*k, "VSUBPS")
		}
	}
}

// q2k: 16 bytes of scales below minimums; two bits a value.
func (e *emitter) q2k() {
	e.halves(80, true)
	e.p("VMOVAPS Y%d, Y6", dScale)
	e.p("VMOVAPS Y%d, Y7", dMin)
	for half := range 2 {
		e.widen(8*half, 0)
		e.p("VPSRLD $4, Y0, Y1")
		e.p("VPAND Y%d, Y0, Y0", dMask)
		for i, factor := range []int{6, 7} {
			e.p("VCVTDQ2PS Y%d, Y%d", i, i)
			e.p("VMULPS Y%d, Y%d, Y%d", factor, i, i)
			e.p("VMOVUPS Y%d, %d(SP)", i, 32*i)
		}
		for j := range 8 {
			e.scaleOf(j)
			e.minOf(8 + j)
			for k := range 2 {
				e.widen(16+32*half+16*(j%2)+8*k, 0)
				if j >= 2 {
					e.p("VPSRLD $%d, Y0, Y0", j/2*2)
				}
				e.p("VPAND Y%d, Y0, Y0", dThree)
				e.product(0, 128*half+16*j+8*k, "VSUBPS")
			}
		}
	}
}

// q3k: 16 scales of 6 bits, less 32, in 12 bytes; two bits a value and a third whose absence takes 4 off.
func (e *emitter) q3k() {
	e.halves(108, false)
	e.p("MOVL 96(SI), AX")
	e.p("MOVL 100(SI), BX")
	e.p("MOVL 104(SI), DX")
	e.p("MOVL $32, R9")
	e.p("VMOVD R9, X7")
	e.p("VPBROADCASTD X7, Y7")
	for half := range 2 {
		for i, r := range []string{"AX", "BX"} {
			e.p("MOVL %s, R%d", r, 8+i)
			if half == 1 {
				e.p("SHRL $4, R%d", 8+i)
			}
			e.p("ANDL $0x0f0f0f0f, R%d", 8+i)
			e.p("MOVL DX, R10")
			shift := 2 * (2*half + i)
			if shift < 4 {
				e.p("SHLL $%d, R10", 4-shift)
			} else if shift > 4 {
				e.p("SHRL $%d, R10", shift-4)
			}
			e.p("ANDL $0x30303030, R10")
			e.p("ORL R10, R%d", 8+i)
		}
		e.p("SHLQ $32, R9")
		e.p("ORQ R9, R8")
		e.p("VMOVQ R8, X0")
		e.p("VPMOVZXBD X0, Y0")
		e.p("VPSUBD Y7, Y0, Y0")
		e.p("VCVTDQ2PS Y0, Y0")
		e.p("VMULPS Y%d, Y0, Y0", dScale)
		e.p("VMOVUPS Y0, %d(SP)", 32*half)
	}
	for j := range 16 {
		e.scaleOf(j)
		half, bit := j/8, j/2
		for k := range 2 {
			e.widen(32+32*half+16*(j%2)+8*k, 0)
			if s := j % 8 / 2 * 2; s > 0 {
				e.p("VPSRLD $%d, Y0, Y0", s)
			}
			e.p("VPAND Y%d, Y0, Y0", dThree)
			e.widen(16*(j%2)+8*k, 1)
			switch {
			case bit < 2:
				e.p("VPSLLD $%d, Y1, Y1", 2-bit)
			case bit > 2:
				e.p("VPSRLD $%d, Y1, Y1", bit-2)
			}
			e.p("VPAND Y%d, Y1, Y1", dBit)
			e.p("VPOR Y1, Y0, Y0")
			e.p("VPSUBD Y%d, Y0, Y0", dOffset)
			e.product(0, 16*j+8*k, "")
		}
	}
}

// q6k: 16 signed scales; four bits a value and two more.
func (e *emitter) q6k() {
	e.halves(208, false)
	for half := range 2 {
		e.keep(fmt.Sprintf("%d(SI)", 192+8*half), "VPMOVSXBD", dScale, half)
	}
	for half := range 2 {
		for k := range 4 {
			e.widen(64*half+8*k, 2)
			e.widen(64*half+32+8*k, 3)
			e.widen(128+32*half+8*k, 4)
			for quarter := range 4 {
				e.scaleOf(8*half + 2*quarter + k/2)
				low := 2 + quarter%2
				if quarter < 2 {
					e.p("VPAND Y%d, Y%d, Y0", dMask, low)
				} else {
					e.p("VPSRLD $4, Y%d, Y0", low)
				}
				if s := 4 - 2*quarter; s >= 0 {
					e.p("VPSLLD $%d, Y4, Y1", s)
				} else {
					e.p("VPSRLD $%d, Y4, Y1", -s)
				}
				e.p("VPAND Y%d, Y1, Y1", dBit)
				e.p("VPOR Y1, Y0, Y0")
				e.p("VPSUBD Y%d, Y0, Y0", dOffset)
				e.product(0, 128*half+32*quarter+8*k, "")
			}
		}
	}
}

// decodes is decode_amd64.s.
func decodes() []byte {
	var asm emitter
	asm.isa = avx2
	asm.raw("// Code generated by _asm/vec. DO NOT EDIT.\n\n//go:build amd64 && !purego\n\n#include \"textflag.h\"\n")
	for _, d := range decoders {
		asm.decoder(d)
	}
	asm.raw("\n")
	for i := range 16 {
		fmt.Fprintf(&asm, "DATA ·decodeShifts+%d(SB)/8, $0x%08x%08x\n", 8*i, 2*i+1, 2*i)
	}
	asm.raw("GLOBL ·decodeShifts(SB), RODATA|NOPTR, $128\n\n")
	for i, v := range []uint64{0xf6eaddcfbfad9881, 0x7159453526190d01} {
		fmt.Fprintf(&asm, "DATA ·decodeIQ4+%d(SB)/8, $0x%016x\n", 8*i, v)
	}
	asm.raw("GLOBL ·decodeIQ4(SB), RODATA|NOPTR, $16\n")
	return asm.Bytes()
}
