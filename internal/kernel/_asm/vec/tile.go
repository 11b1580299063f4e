package main

import "fmt"

// rows is tileRows of the package.
const rows = 6

// tile emits C (6, cols) (+)= A (6, steps)·B (steps, cols), cols a multiple of
// 16 up to 64. AVX-512 takes all columns at once, in 6 to 24 accumulators; AVX2
// takes 16 at a time, in 12.
func (e *emitter) tile() {
	const args = "(steps int, a *float32, ai, ak int, b *float32, bs int, c *float32, cs, cols, acc int)"
	fmt.Fprintf(e, "\n// func tile%s%s\nTEXT ·tile%s(SB), NOSPLIT, $0-80\n", e.suffix, args, e.suffix)
	e.p("MOVQ ai+16(FP), R9")
	e.p("MOVQ ak+24(FP), R11")
	e.p("MOVQ b+32(FP), DI")
	e.p("MOVQ bs+40(FP), BX")
	e.p("MOVQ c+48(FP), R8")
	e.p("MOVQ cs+56(FP), DX")
	e.p("MOVQ cols+64(FP), R12")
	for _, r := range []string{"R9", "R11", "BX", "DX"} {
		e.p("SHLQ $2, %s", r)
	}
	if e.letter == "Z" {
		for nv := 1; nv < 4; nv++ {
			e.p("CMPQ R12, $%d", 16*nv)
			e.p("JEQ cols%d", 16*nv)
		}
		for nv := 4; nv > 0; nv-- {
			e.tileBody(nv, fmt.Sprint(16*nv))
			e.p("VZEROUPPER")
			e.p("RET")
		}
		return
	}
	e.tileBody(2, "16")
	e.p("SUBQ $16, R12")
	e.p("JZ end")
	e.p("MOVQ b+32(FP), DI")
	e.p("ADDQ $64, DI")
	e.p("MOVQ DI, b+32(FP)")
	e.p("MOVQ c+48(FP), R8")
	e.p("ADDQ $64, R8")
	e.p("MOVQ R8, c+48(FP)")
	e.p("JMP cols16")
	e.label("end")
	e.p("VZEROUPPER")
	e.p("RET")
}

// weigh emits out (cols) = w (n)·V (n, cols), terms in order, cols a multiple of a vector's lanes: up to
// eight vectors of columns at a time.
func (e *emitter) weigh() {
	e.function("weigh", "out, v *float32, ld int, w *float32, n, cols int", 48)
	for i, r := range []string{"DI", "SI", "BX", "R10", "R11", "DX"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"out", "v", "ld", "w", "n", "cols"}[i], 8*i, r)
	}
	e.p("SHLQ $2, BX")
	const weight = 8
	for _, n := range []int{8, 4, 2, 1} {
		at := func(i int, r string) string { return fmt.Sprintf("%d(%s)", 4*e.lanes*i, r) }
		e.label(fmt.Sprint("from", n))
		e.p("CMPQ DX, $%d", n*e.lanes)
		e.p("JLT below%d", n)
		e.p("MOVQ SI, R8")
		e.p("MOVQ R10, R9")
		e.p("MOVQ R11, CX")
		for i := range n {
			e.op(e.integer("VPXOR"), i, i, i)
		}
		e.label(fmt.Sprint("loop", n))
		e.p("VBROADCASTSS (R9), %s", e.v(weight))
		for i := range n {
			e.op("VFMADD231PS", at(i, "R8"), weight, i)
		}
		e.p("ADDQ BX, R8")
		e.p("ADDQ $4, R9")
		e.p("DECQ CX")
		e.p("JNZ loop%d", n)
		for i := range n {
			e.op("VMOVUPS", i, at(i, "DI"))
		}
		e.p("ADDQ $%d, DI", 4*n*e.lanes)
		e.p("ADDQ $%d, SI", 4*n*e.lanes)
		e.p("SUBQ $%d, DX", n*e.lanes)
		e.p("JMP from%d", n)
		e.label(fmt.Sprint("below", n))
	}
	e.p("VZEROUPPER")
	e.p("RET")
}

// tileBody emits the product for nv registers of columns. DI and R8 are
// advanced; A's rows are reached from SI and R10, three each.
func (e *emitter) tileBody(nv int, name string) {
	width := 4 * e.lanes
	bv := rows * nv
	bc := bv + nv
	e.label("cols" + name)
	e.p("MOVQ steps+0(FP), CX")
	e.p("MOVQ a+8(FP), SI")
	e.p("LEAQ (R9)(R9*2), R10")
	e.p("ADDQ SI, R10")
	for i := range rows * nv {
		e.op("VXORPS", i, i, i)
	}
	e.p("PCALIGN $32")
	e.label("step" + name)
	for j := range nv {
		e.p("VMOVUPS %d(DI), %s", j*width, e.v(bv+j))
	}
	for i := range rows {
		at := []string{"(%s)", "(%s)(R9*1)", "(%s)(R9*2)"}[i%3]
		x := bc + i%2
		e.p("VBROADCASTSS "+at+", %s", []string{"SI", "R10"}[i/3], e.v(x))
		for j := range nv {
			e.op("VFMADD231PS", bv+j, x, i*nv+j)
		}
	}
	e.p("ADDQ R11, SI")
	e.p("ADDQ R11, R10")
	e.p("ADDQ BX, DI")
	e.p("DECQ CX")
	e.p("JNZ step%s", name)
	e.p("CMPQ acc+72(FP), $0")
	e.p("JEQ store%s", name)
	e.p("MOVQ R8, AX")
	for i := range rows {
		for j := range nv {
			e.p("VADDPS %d(AX), %s, %s", j*width, e.v(i*nv+j), e.v(i*nv+j))
		}
		e.p("ADDQ DX, AX")
	}
	e.label("store" + name)
	for i := range rows {
		for j := range nv {
			e.p("VMOVUPS %s, %d(R8)", e.v(i*nv+j), j*width)
		}
		e.p("ADDQ DX, R8")
	}
}

// transpose emits the transposition of 8 rows of 8·blocks columns to 8·blocks
// rows of 8 columns; strides count elements.
func (e *emitter) transpose() {
	e.raw("\n// func transpose8AVX2(dst *float32, ds int, src *float32, ss, blocks int)\nTEXT ·transpose8AVX2(SB), NOSPLIT, $0-40\n")
	e.p("MOVQ dst+0(FP), DI")
	e.p("MOVQ ds+8(FP), DX")
	e.p("MOVQ src+16(FP), SI")
	e.p("MOVQ ss+24(FP), R9")
	e.p("MOVQ blocks+32(FP), CX")
	e.p("SHLQ $2, DX")
	e.p("SHLQ $2, R9")
	e.label("loop")
	e.p("MOVQ SI, AX")
	for i := range 8 {
		e.p("VMOVUPS (AX), %s", e.v(i))
		e.p("ADDQ R9, AX")
	}
	for i := 0; i < 8; i += 2 { // pairs of rows, interleaved
		e.op("VUNPCKLPS", i+1, i, 8+i)
		e.op("VUNPCKHPS", i+1, i, 9+i)
	}
	for i := 0; i < 8; i += 4 { // i+c: column c of each half, of rows i to i+3
		e.op("VUNPCKLPD", 10+i, 8+i, i)
		e.op("VUNPCKHPD", 10+i, 8+i, i+1)
		e.op("VUNPCKLPD", 11+i, 9+i, i+2)
		e.op("VUNPCKHPD", 11+i, 9+i, i+3)
	}
	for c := range 4 {
		e.op("VPERM2F128", "$0x20", 4+c, c, 8+c)
		e.op("VPERM2F128", "$0x31", 4+c, c, 12+c)
	}
	for i := range 8 {
		e.p("VMOVUPS %s, (DI)", e.v(8+i))
		e.p("ADDQ DX, DI")
	}
	e.p("ADDQ $32, SI")
	e.p("DECQ CX")
	e.p("JNZ loop")
	e.p("VZEROUPPER")
	e.p("RET")
}
