package main

import (
	"fmt"
	"strings"
)

// This file emits the kernels of products in bfloat16. The Go assembler does not know AMX,
// AVX512_BF16 and PREFETCHW: those instructions are encoded here.

// raw prints the bytes of an instruction with its text as a comment.
func raw(code []byte, format string, args ...any) {
	parts := make([]string, len(code))
	for i, b := range code {
		parts[i] = fmt.Sprintf("BYTE $0x%02x", b)
	}
	ins("%s // %s", strings.Join(parts, "; "), fmt.Sprintf(format, args...))
}

var registerNumber = map[string]int{"AX": 0, "DX": 2, "SI": 6, "DI": 7, "R8": 8, "R9": 9, "R10": 10, "R11": 11, "R12": 12}

// dotPairs adds the products of pairs of bfloat16 in 16 lanes, dst += a·b: EVEX.512 with the prefix
// F3, map 0F38, opcode 52.
func dotPairs(a, b, dst int) {
	raw([]byte{
		0x62,
		byte(^dst>>3&1)<<7 | byte(^a>>4&1)<<6 | byte(^a>>3&1)<<5 | byte(^dst>>4&1)<<4 | 2,
		byte(^b&15)<<3 | 6,
		0x40 | byte(^b>>4&1)<<3,
		0x52,
		0xc0 | byte(dst&7)<<3 | byte(a&7),
	}, "VDPBF16PS Z%d, Z%d, Z%d", a, b, dst)
}

// tileMove is a load or store of a tile, rows at stride index, at disp(base): VEX.128 with the
// given prefix, map 0F38, opcode 4B.
func tileMove(name string, prefix byte, tile int, base, index string, disp byte) {
	b, x := registerNumber[base], registerNumber[index]
	code := []byte{0xc4, 0x82, 0x78 | prefix, 0x4b, byte(tile<<3 | 4), byte((x&7)<<3 | b&7)}
	if x < 8 {
		code[1] |= 0x40
	}
	if b < 8 {
		code[1] |= 0x20
	}
	if disp != 0 {
		code[4] |= 0x40
		code = append(code, disp)
	}
	raw(code, "%s T%d, %d(%s)(%s*1)", name, tile, disp, base, index)
}

func tileLoad(tile int, base, index string, disp byte) {
	tileMove("TILELOADD", 3, tile, base, index, disp)
}

// tileStream loads with the hint that the lines need not stay in the first-level cache.
func tileStream(tile int, base, index string, disp byte) {
	tileMove("TILELOADDT1", 1, tile, base, index, disp)
}

func tileStore(tile int, base, index string, disp byte) {
	tileMove("TILESTORED", 2, tile, base, index, disp)
}

func tileZero(tile int) {
	raw([]byte{0xc4, 0xe2, 0x7b, 0x49, byte(0xc0 | tile<<3)}, "TILEZERO T%d", tile)
}

// tileDot adds the products of pairs of bfloat16: dst (16, 16) += a (16, 32)·b (32, 16).
func tileDot(dst, a, b int) {
	raw([]byte{0xc4, 0xe2, byte(^b&15)<<3 | 2, 0x5c, byte(0xc0 | dst<<3 | a)}, "TDPBF16PS T%d, T%d, T%d", b, a, dst)
}

// prefetchC fetches two lines of C at R13, or a row below, to be written.
func prefetchC(below bool) {
	for _, disp := range []byte{0, 64} {
		if below {
			raw([]byte{0x41, 0x0f, 0x0d, 0x4c, 0x15, disp}, "PREFETCHW %d(R13)(DX*1)", disp)
		} else {
			raw([]byte{0x41, 0x0f, 0x0d, 0x4d, disp}, "PREFETCHW %d(R13)", disp)
		}
	}
}

// tileStrips emits C (+)= A·B for panels of 32 columns, one after the other, and in each for strips
// of 32 rows of A. T0–T3 hold the square of C, T4 and T5 the rows of A, T6 and T7 the columns of B.
// Where a field of tileCall lies is written here again.
func tileStrips() {
	const strips, panels, steps, lda, ahead, skip, ldp, ldc, acc = 0, 8, 16, 24, 32, 40, 48, 56, 64
	framed("tileStrips", "config *[64]byte, k *tileCall, a, b, c, next *float32", 32, 48)
	ins("MOVQ config+0(FP), AX")
	raw([]byte{0xc4, 0xe2, 0x78, 0x49, 0x00}, "LDTILECFG (AX)")
	ins("MOVQ k+8(FP), R13")
	field := func(at int, reg string) { ins("MOVQ %d(R13), %s", at, reg) }
	field(panels, "CX")
	ins("MOVQ CX, panels-8(SP)")
	field(ahead, "CX")
	ins("SHLQ $2, CX")
	ins("MOVQ CX, ahead-16(SP)")
	for _, arg := range []string{"b+24(FP), CX", "CX, b-24(SP)", "c+32(FP), CX", "CX, c-32(SP)", "next+40(FP), AX"} {
		ins("MOVQ %s", arg)
	}
	field(ldc, "DX")
	field(skip, "R15")
	field(lda, "R9")
	for _, reg := range []string{"DX", "R15", "R9"} {
		ins("SHLQ $2, %s", reg)
	}
	ins("MOVQ $128, R11") // a row of a panel: 32 columns of pairs
	ins("MOVQ DX, BX")
	ins("SHLQ $4, BX") // 16 rows of C
	label("panel")
	ins("MOVQ k+8(FP), R13")
	field(strips, "R14")
	ins("MOVQ a+16(FP), SI")
	ins("MOVQ c-32(SP), R8")
	label("strip")
	ins("LEAQ (R8)(BX*1), R12")
	ins("MOVQ k+8(FP), R13")
	field(steps, "CX")
	ins("MOVQ b-24(SP), DI")
	ins("MOVQ R9, R10")
	ins("SHLQ $4, R10") // 16 rows of A
	ins("ADDQ SI, R10")
	square := []struct {
		base string
		disp byte
	}{{"R8", 0}, {"R8", 64}, {"R12", 0}, {"R12", 64}}
	ins("CMPB %d(R13), $0", acc)
	ins("MOVQ R8, R13")
	ins("JNE add")
	for t := range square {
		tileZero(t)
	}
	ins("JMP step")
	label("add")
	for t, s := range square {
		tileLoad(t, s.base, "DX", s.disp)
	}
	ins("PCALIGN $32")
	label("step")
	tileLoad(6, "DI", "R11", 0)
	tileStream(4, "SI", "R9", 0)
	prefetchC(false)
	tileDot(0, 4, 6)
	tileLoad(7, "DI", "R11", 64)
	prefetchC(true)
	ins("LEAQ (R13)(DX*2), R13")
	tileDot(1, 4, 7)
	tileStream(5, "R10", "R9", 0)
	for line := range 4 {
		ins("PREFETCHT1 %d(AX)", 64*line)
	}
	ins("ADDQ $256, AX")
	tileDot(2, 5, 6)
	tileDot(3, 5, 7)
	ins("ADDQ ahead-16(SP), SI")
	ins("ADDQ ahead-16(SP), R10")
	ins("ADDQ $2048, DI")
	ins("DECQ CX")
	ins("JNZ step")
	for t, s := range square {
		tileStore(t, s.base, "DX", s.disp)
	}
	ins("ADDQ R15, SI")
	ins("LEAQ (R8)(BX*2), R8")
	ins("DECQ R14")
	ins("JNZ strip")
	ins("ADDQ $128, c-32(SP)")
	ins("MOVQ k+8(FP), R13")
	field(ldp, "CX")
	ins("SHLQ $2, CX")
	ins("ADDQ CX, b-24(SP)")
	ins("DECQ panels-8(SP)")
	ins("JNZ panel")
	raw([]byte{0xc4, 0xe2, 0x78, 0x49, 0xc0}, "TILERELEASE")
	ins("RET")
}

// stripLines emits the bringing of rows into the lines of a strip of A, 32 values each: the lines of
// a row lie a tile of 32 rows apart. Values are rounded, or bfloat16 already.
func stripLines(name string, round bool) {
	from, width := "*byte", 64
	if round {
		from, width = "*float32", 128
	}
	function(name, "dst *float32, src "+from+", lds, rows, lines int", 40)
	ins("MOVQ dst+0(FP), DI")
	ins("MOVQ src+8(FP), SI")
	ins("MOVQ lds+16(FP), DX")
	ins("MOVQ rows+24(FP), CX")
	ins("SHLQ $%d, DX", width/64) // bytes of a value: 2 or 4
	label("row")
	ins("MOVQ lines+32(FP), BX")
	ins("MOVQ DI, R8")
	ins("MOVQ SI, R9")
	label("line")
	ins("VMOVUPS (R9), Z0")
	if round {
		ins("VMOVUPS 64(R9), Z1")
		raw([]byte{0x62, 0xf2, 0x77, 0x48, 0x72, 0xc0}, "VCVTNE2PS2BF16 Z0, Z1, Z0") // low half from Z0
	}
	ins("VMOVUPS Z0, (R8)")
	ins("ADDQ $%d, R9", width)
	ins("ADDQ $2048, R8")
	ins("DECQ BX")
	ins("JNZ line")
	ins("ADDQ $64, DI")
	ins("ADDQ DX, SI")
	ins("DECQ CX")
	ins("JNZ row")
	ins("VZEROUPPER")
	ins("RET")
}

// pairRows emits the interleaving of rows two by two, panel after panel of 32 columns.
func pairRows() {
	function("pairRows", "dst, src *float32, lds, pairs, panels, ldp int", 48)
	ins("MOVQ dst+0(FP), DI")
	ins("MOVQ src+8(FP), SI")
	ins("MOVQ lds+16(FP), DX")
	ins("MOVQ panels+32(FP), BX")
	ins("MOVQ ldp+40(FP), R8")
	ins("SHLQ $2, DX")
	ins("SHLQ $2, R8")
	ins("VMOVDQU64 pairLow<>(SB), Z30")
	ins("VMOVDQU64 pairHigh<>(SB), Z31")
	label("panel")
	ins("MOVQ pairs+24(FP), CX")
	ins("MOVQ SI, R9")
	ins("MOVQ DI, R10")
	label("loop")
	ins("VMOVDQU64 (R9), Z0")
	ins("VMOVDQU64 (R9)(DX*1), Z1")
	ins("VMOVDQA64 Z0, Z2")
	ins("VPERMT2W Z1, Z30, Z0")
	ins("VPERMT2W Z1, Z31, Z2")
	ins("VMOVDQU64 Z0, (R10)")
	ins("VMOVDQU64 Z2, 64(R10)")
	ins("LEAQ (R9)(DX*2), R9")
	ins("ADDQ $128, R10")
	ins("DECQ CX")
	ins("JNZ loop")
	ins("ADDQ $64, SI")
	ins("ADDQ R8, DI")
	ins("DECQ BX")
	ins("JNZ panel")
	ins("VZEROUPPER")
	ins("RET")
}

// pairColumns emits the turning of 32 rows, interleaved two by two, into columns interleaved two by two:
// a transposition of words of two rows gives columns of 32 values.
func pairColumns() {
	function("pairColumns", "dst, src *float32, panels, ldp int", 32)
	ins("MOVQ dst+0(FP), DI")
	ins("MOVQ src+8(FP), SI")
	ins("MOVQ panels+16(FP), BX")
	ins("MOVQ ldp+24(FP), R8")
	ins("SHLQ $2, R8")
	label("panel")
	for half := range 2 {
		for i := range 16 {
			ins("VMOVDQU64 %d(SI), Z%d", 128*i+64*half, i)
		}
		first := transposeRegisters(avx512)
		ins("VMOVDQU64 pairLow<>(SB), Z30")
		ins("VMOVDQU64 pairHigh<>(SB), Z31")
		for i := 0; i < 16; i += 2 {
			ins("VMOVDQA64 Z%d, Z16", first+i)
			ins("VPERMT2W Z%d, Z30, Z%d", first+i+1, first+i)
			ins("VPERMT2W Z%d, Z31, Z16", first+i+1)
			ins("VMOVDQU64 Z%d, %d(DI)", first+i, 1024*half+64*i)
			ins("VMOVDQU64 Z16, %d(DI)", 1024*half+64*i+64)
		}
	}
	ins("ADDQ $2048, DI")
	ins("ADDQ R8, SI")
	ins("DECQ BX")
	ins("JNZ panel")
	ins("VZEROUPPER")
	ins("RET")
}

// pairTables emits the word numbers for pairRows: of word i of the first row and of the second.
func pairTables() {
	for n, name := range []string{"pairLow", "pairHigh"} {
		out.WriteString("\n")
		for i := range 16 {
			fmt.Fprintf(&out, "DATA %s<>+%d(SB)/4, $%d\n", name, 4*i, 16*n+i|(16*n+i+32)<<16)
		}
		fmt.Fprintf(&out, "GLOBL %s<>(SB), RODATA|NOPTR, $64\n", name)
	}
}
