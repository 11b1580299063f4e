// Command gemm writes the assembly of the matrix products to standard output:
//
//	go run ./_asm/gemm > gemm_amd64.s
//
// It is a plain text emitter: a function of Go prints the instructions of a
// family of micro-kernels, and main lists the members. Strides come in values
// and are turned into bytes at entry; DI walks B, R8 walks C.
package main

import (
	"fmt"
	"os"
	"strings"
)

var out strings.Builder

// ins prints one instruction, label one jump target.
func ins(format string, args ...any)   { fmt.Fprintf(&out, "\t"+format+"\n", args...) }
func label(format string, args ...any) { fmt.Fprintf(&out, format+":\n", args...) }

func function(name, params string, argBytes int) { framed(name, params, 0, argBytes) }

// framed is a function with so many bytes on the stack.
func framed(name, params string, frame, argBytes int) {
	fmt.Fprintf(&out, "\n// func %s(%s)\nTEXT ·%s(SB), NOSPLIT, $%d-%d\n", name, params, name, frame, argBytes)
}

// A vector is a register file: its letter, bytes per register and how many.
type vector struct {
	reg   string
	bytes int
	count int
}

var (
	avx2   = vector{"Y", 32, 16}
	avx512 = vector{"Z", 64, 32}
)

// A tile is rows × vecs registers of C. With pairs, operands are words of two
// values in bfloat16, of which a step takes two terms of the sum.
type tile struct {
	vector
	rows, vecs int
	pairs      bool
}

func (t tile) acc(i, j int) int { return i*t.vecs + j }
func (t tile) b(j int) int      { return t.rows*t.vecs + j }

// broadcast is the register for the value of row i: those left over, in turn.
func (t tile) broadcast(i int) int {
	first := (t.rows + 1) * t.vecs
	return first + i%(t.count-first)
}

func (t tile) zero() {
	for i := range t.rows * t.vecs {
		if t.reg == "Z" {
			ins("VPXORQ Z%d, Z%d, Z%d", i, i, i)
		} else {
			ins("VXORPS Y%d, Y%d, Y%d", i, i, i)
		}
	}
}

// touchC prefetches the first and last line of each row of C, whose address is
// in R8 and stride in DX.
func (t tile) touchC() {
	ins("MOVQ R8, BX")
	for i := range t.rows {
		ins("PREFETCHT0 (BX)")
		ins("PREFETCHT0 %d(BX)", t.vecs*t.bytes-4)
		if i < t.rows-1 {
			ins("ADDQ DX, BX")
		}
	}
}

// step multiplies one row of B at DI+off by the values that row names.
func (t tile) step(off int, row func(i int) string) {
	for j := range t.vecs {
		ins("VMOVUPS %d(DI), %s%d", off+j*t.bytes, t.reg, t.b(j))
	}
	for i := range t.rows {
		ins("VBROADCASTSS %s, %s%d", row(i), t.reg, t.broadcast(i))
		for j := range t.vecs {
			if t.pairs {
				dotPairs(t.b(j), t.broadcast(i), t.acc(i, j))
			} else {
				ins("VFMADD231PS %s%d, %s%d, %s%d", t.reg, t.b(j), t.reg, t.broadcast(i), t.reg, t.acc(i, j))
			}
		}
	}
}

// store multiplies the sums by alpha and stores them, or adds them to C.
func (t tile) store(alpha, acc string) {
	scale := t.b(0)
	ins("VBROADCASTSS %s, %s%d", alpha, t.reg, scale)
	for i := range t.rows * t.vecs {
		ins("VMULPS %s%d, %s%d, %s%d", t.reg, scale, t.reg, i, t.reg, i)
	}
	ins("CMPB %s, $0", acc)
	ins("JEQ set")
	t.storeRows(true)
	label("set")
	t.storeRows(false)
}

func (t tile) storeRows(add bool) {
	for i := range t.rows {
		for j := range t.vecs {
			if add {
				ins("VADDPS %d(R8), %s%d, %s%d", j*t.bytes, t.reg, t.acc(i, j), t.reg, t.acc(i, j))
			}
			ins("VMOVUPS %s%d, %d(R8)", t.reg, t.acc(i, j), j*t.bytes)
		}
		if i < t.rows-1 {
			ins("ADDQ DX, R8")
		}
	}
	ins("VZEROUPPER")
	ins("RET")
}

// rowBases hold the addresses of every third row of A; R9 is the stride.
var rowBases = []string{"SI", "R10", "R11", "R12", "R13", "R14", "R15", "AX"}

func rowAddress(i, off int) string {
	index := [...]string{"", "(R9*1)", "(R9*2)"}[i%3]
	return fmt.Sprintf("%d(%s)%s", off, rowBases[i/3], index)
}

const unroll = 4

// rowArguments loads the arguments that rowTile and laidTile share.
func rowArguments() {
	ins("MOVQ steps+0(FP), CX")
	ins("MOVQ a+8(FP), SI")
	ins("MOVQ lda+16(FP), R9")
	ins("MOVQ b+24(FP), DI")
	ins("MOVQ c+32(FP), R8")
	ins("MOVQ ldc+40(FP), DX")
}

// rowTile emits C (+)= alpha·A·B for A by rows and B a packed panel. Every
// round prefetches the panel 1 KiB ahead and a line of the next panel.
func rowTile(name string, t tile) {
	function(name, "steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool", 61)
	width := t.vecs * t.bytes
	rowArguments()
	ins("SHLQ $2, R9")
	ins("SHLQ $2, DX")
	ins("LEAQ (R9)(R9*2), AX")
	bases := rowBases[:(t.rows+2)/3]
	for i := 1; i < len(bases); i++ {
		ins("LEAQ (%s)(AX*1), %s", bases[i-1], bases[i])
	}
	t.touchC()
	t.zero()
	ins("MOVQ next+48(FP), BX")
	ins("SUBQ $%d, CX", unroll)
	ins("JL tail")
	ins("PCALIGN $32")
	label("loop")
	for u := range unroll {
		for o := 0; o < width && u*width%64 == 0; o += 64 {
			ins("PREFETCHT0 %d(DI)", 1024+u*width+o)
		}
		t.step(u*width, func(i int) string { return rowAddress(i, 4*u) })
	}
	ins("PREFETCHT1 (BX)")
	ins("ADDQ $64, BX")
	advance := func(steps int) {
		for _, b := range bases {
			ins("ADDQ $%d, %s", 4*steps, b)
		}
		ins("ADDQ $%d, DI", steps*width)
	}
	advance(unroll)
	ins("SUBQ $%d, CX", unroll)
	ins("JGE loop")
	label("tail")
	ins("ADDQ $%d, CX", unroll)
	ins("JZ done")
	label("one")
	t.step(0, func(i int) string { return rowAddress(i, 0) })
	advance(1)
	ins("DECQ CX")
	ins("JNZ one")
	label("done")
	t.store("alpha+56(FP)", "acc+60(FP)")
}

// laidTile emits C (+)= alpha·A·B for A in panels of so many columns, that begin lda values apart, and B a
// packed panel. Steps fill panels of A, of which the next rows are prefetched.
func laidTile(name string, t tile, cols int) {
	function(name, "steps int, a *float32, lda int, b *float32, c *float32, ldc int, alpha float32, acc bool", 53)
	width := t.vecs * t.bytes
	rowArguments()
	ins("LEAQ %d(R9*4), R9", -4*cols) // from the end of a row to the next panel
	ins("SHLQ $2, DX")
	t.touchC()
	t.zero()
	rows := 4 * t.rows * cols // bytes
	label("panel")
	ins("MOVQ $%d, R10", cols/unroll)
	ins("LEAQ %d(SI), BX", rows)
	ins("PCALIGN $32")
	label("loop")
	for u := range unroll {
		for o := 0; o < width && u*width%64 == 0; o += 64 {
			ins("PREFETCHT0 %d(DI)", 1024+u*width+o)
		}
		t.step(u*width, func(i int) string { return fmt.Sprintf("%d(SI)", 4*(i*cols+u)) })
	}
	ahead := (rows*unroll/cols + 63) / 64 * 64
	for o := 0; o < ahead; o += 64 {
		ins("PREFETCHT0 %d(BX)", o)
	}
	ins("ADDQ $%d, BX", ahead)
	ins("ADDQ $%d, SI", 4*unroll)
	ins("ADDQ $%d, DI", unroll*width)
	ins("DECQ R10")
	ins("JNZ loop")
	ins("ADDQ R9, SI")
	ins("SUBQ $%d, CX", cols)
	ins("JG panel")
	t.store("alpha+48(FP)", "acc+52(FP)")
}

// outerTile emits C (+)= alpha·Aᵀ·B for both operands by steps, at strides R9
// and R10, fetching B eight steps ahead.
func outerTile(name string, t tile) {
	function(name, "steps int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, alpha float32, acc bool", 61)
	ins("MOVQ steps+0(FP), CX")
	ins("MOVQ a+8(FP), SI")
	ins("MOVQ lda+16(FP), R9")
	ins("MOVQ b+24(FP), DI")
	ins("MOVQ ldb+32(FP), R10")
	ins("MOVQ c+40(FP), R8")
	ins("MOVQ ldc+48(FP), DX")
	ins("SHLQ $2, R9")
	ins("SHLQ $2, R10")
	ins("SHLQ $2, DX")
	t.touchC()
	t.zero()
	step := func() {
		for o := 0; o < t.vecs*t.bytes; o += 64 {
			ins("PREFETCHT0 %d(DI)(R10*8)", o)
		}
		t.step(0, func(i int) string { return fmt.Sprintf("%d(SI)", 4*i) })
		ins("ADDQ R9, SI")
		ins("ADDQ R10, DI")
	}
	ins("SUBQ $%d, CX", unroll)
	ins("JL tail")
	ins("PCALIGN $32")
	label("loop")
	for range unroll {
		step()
	}
	ins("SUBQ $%d, CX", unroll)
	ins("JGE loop")
	label("tail")
	ins("ADDQ $%d, CX", unroll)
	ins("JZ done")
	label("one")
	step()
	ins("DECQ CX")
	ins("JNZ one")
	label("done")
	t.store("alpha+56(FP)", "acc+60(FP)")
}

// dot emits out[r] = x · row r of w for a fixed number of rows: 32 partial sums
// a row, halved until one is left. The last turn may have fewer terms.
func dot(name string, v vector, rows int) {
	function(name, "k int, x *float32, w *float32, ldw int, out *float32", 40)
	ins("MOVQ k+0(FP), CX")
	ins("MOVQ x+8(FP), SI")
	ins("MOVQ w+16(FP), DI")
	ins("MOVQ ldw+24(FP), DX")
	ins("MOVQ out+32(FP), R8")
	ins("SHLQ $2, DX")
	row := [...]string{"(DI)", "(DI)(DX*1)", "(DI)(DX*2)", "(DI)(R9*1)"}
	if rows == 4 {
		ins("LEAQ (DX)(DX*2), R9")
	}
	t := tile{v, rows, 128 / v.bytes, false}
	t.zero()
	ins("SUBQ $32, CX")
	ins("JL tail")
	ins("PCALIGN $32")
	label("loop")
	for j := range t.vecs {
		ins("VMOVUPS %d(SI), %s%d", j*v.bytes, v.reg, t.b(j))
	}
	for r := range rows {
		for j := range t.vecs {
			ins("VFMADD231PS %d%s, %s%d, %s%d", j*v.bytes, row[r], v.reg, t.b(j), v.reg, t.acc(r, j))
		}
	}
	ins("ADDQ $128, SI")
	ins("ADDQ $128, DI")
	ins("SUBQ $32, CX")
	ins("JGE loop")
	label("tail")
	ins("ADDQ $32, CX")
	ins("JZ done")
	for j := range t.vecs - 1 { // whole vectors, then the lanes of one that are left
		ins("CMPQ CX, $%d", v.bytes/4)
		ins("JLT part%d", j)
		ins("VMOVUPS %d(SI), %s%d", j*v.bytes, v.reg, t.b(j))
		for r := range rows {
			ins("VFMADD231PS %d%s, %s%d, %s%d", j*v.bytes, row[r], v.reg, t.b(j), v.reg, t.acc(r, j))
		}
		ins("SUBQ $%d, CX", v.bytes/4)
		ins("JZ done")
	}
	for j := t.vecs - 1; j >= 0; j-- {
		label("part%d", j)
		if v.reg == "Z" {
			ins("MOVQ $1, AX")
			ins("SHLQ CX, AX")
			ins("DECQ AX")
			ins("KMOVW AX, K1")
			ins("VMOVUPS.Z %d(SI), K1, Z%d", j*v.bytes, t.b(j))
			for r := range rows {
				ins("VFMADD231PS %d%s, Z%d, K1, Z%d", j*v.bytes, row[r], t.b(j), t.acc(r, j))
			}
		} else {
			const mask, other = 14, 15
			ins("LEAQ ·vecMask+32(SB), AX")
			ins("SHLQ $2, CX")
			ins("SUBQ CX, AX")
			ins("VMOVDQU (AX), Y%d", mask)
			ins("VMASKMOVPS %d(SI), Y%d, Y%d", j*v.bytes, mask, t.b(j))
			for r := range rows {
				ins("VMASKMOVPS %d%s, Y%d, Y%d", j*v.bytes, row[r], mask, other)
				ins("VFMADD231PS Y%d, Y%d, Y%d", other, t.b(j), t.acc(r, j))
			}
		}
		if j > 0 {
			ins("JMP done")
		}
	}
	label("done")
	for r := range rows { // halve 32 lanes to one, in the first register of each row
		halve(t, r)
	}
	for r := range rows {
		ins("VMOVSS X%d, %d(R8)", t.acc(r, 0), 4*r)
	}
	ins("VZEROUPPER")
	ins("RET")
}

// halve adds lane l+width to lane l for widths 16, 8, 4, 2, 1.
func halve(t tile, r int) {
	a, b := t.acc(r, 0), t.acc(r, 1)
	if t.reg == "Z" {
		ins("VADDPS Z%d, Z%d, Z%d", b, a, a)
		ins("VEXTRACTF64X4 $1, Z%d, Y%d", a, b)
	} else {
		ins("VADDPS Y%d, Y%d, Y%d", t.acc(r, 2), a, a)
		ins("VADDPS Y%d, Y%d, Y%d", t.acc(r, 3), b, b)
	}
	ins("VADDPS Y%d, Y%d, Y%d", b, a, a)
	ins("VEXTRACTF128 $1, Y%d, X%d", a, b)
	ins("VADDPS X%d, X%d, X%d", b, a, a)
	ins("VPERMILPD $1, X%d, X%d", a, b)
	ins("VADDPS X%d, X%d, X%d", b, a, a)
	ins("VMOVSHDUP X%d, X%d", a, b)
	ins("VADDSS X%d, X%d, X%d", b, a, a)
}

// transpose emits the transposition of squares as wide as a register, side by
// side in the source and one below the other in the result.
func transpose(name string, v vector) {
	function(name, "dst *float32, ldd int, src *float32, lds int, blocks int", 40)
	ins("MOVQ dst+0(FP), DI")
	ins("MOVQ ldd+8(FP), DX")
	ins("MOVQ src+16(FP), SI")
	ins("MOVQ lds+24(FP), R9")
	ins("MOVQ blocks+32(FP), CX")
	ins("SHLQ $2, DX")
	ins("SHLQ $2, R9")
	n, r := v.bytes/4, v.reg
	label("loop")
	ins("MOVQ SI, AX")
	for i := range n {
		ins("VMOVUPS (AX), %s%d", r, i)
		if i < n-1 {
			ins("ADDQ R9, AX")
		}
	}
	first := transposeRegisters(v)
	for i := range n {
		ins("VMOVUPS %s%d, (DI)", r, first+i)
		ins("ADDQ DX, DI")
	}
	ins("ADDQ $%d, SI", v.bytes)
	ins("DECQ CX")
	ins("JNZ loop")
	ins("VZEROUPPER")
	ins("RET")
}

// transposeRegisters transposes the square in the first half of the registers and returns the first
// register of the result.
func transposeRegisters(v vector) (first int) {
	n, r := v.bytes/4, v.reg
	for i := 0; i < n; i += 2 { // interleave values of rows i, i+1
		ins("VUNPCKLPS %s%d, %s%d, %s%d", r, i+1, r, i, r, n+i)
		ins("VUNPCKHPS %s%d, %s%d, %s%d", r, i+1, r, i, r, n+i+1)
	}
	for i := 0; i < n; i += 4 { // interleave pairs: register i+c has column c of each lane, rows i to i+3
		ins("VUNPCKLPD %s%d, %s%d, %s%d", r, n+i+2, r, n+i, r, i)
		ins("VUNPCKHPD %s%d, %s%d, %s%d", r, n+i+2, r, n+i, r, i+1)
		ins("VUNPCKLPD %s%d, %s%d, %s%d", r, n+i+3, r, n+i+1, r, i+2)
		ins("VUNPCKHPD %s%d, %s%d, %s%d", r, n+i+3, r, n+i+1, r, i+3)
	}
	if r == "Z" {
		swapLanes512()
	} else {
		first = n
		for c := range 4 {
			ins("VPERM2F128 $0x20, Y%d, Y%d, Y%d", 4+c, c, n+c)
			ins("VPERM2F128 $0x31, Y%d, Y%d, Y%d", 4+c, c, n+4+c)
		}
	}
	return first
}

// swapLanes512 transposes the 4×4 matrices of 128-bit lanes in Z0–Z15.
func swapLanes512() {
	for c := range 4 {
		a, b, d, e := c, 4+c, 8+c, 12+c
		ins("VSHUFF32X4 $0x44, Z%d, Z%d, Z16", b, a)
		ins("VSHUFF32X4 $0xee, Z%d, Z%d, Z17", b, a)
		ins("VSHUFF32X4 $0x44, Z%d, Z%d, Z18", e, d)
		ins("VSHUFF32X4 $0xee, Z%d, Z%d, Z19", e, d)
		ins("VSHUFF32X4 $0x88, Z18, Z16, Z%d", a)
		ins("VSHUFF32X4 $0xdd, Z18, Z16, Z%d", b)
		ins("VSHUFF32X4 $0x88, Z19, Z17, Z%d", d)
		ins("VSHUFF32X4 $0xdd, Z19, Z17, Z%d", e)
	}
}

func main() {
	out.WriteString("// Code generated by _asm/gemm; DO NOT EDIT.\n\n//go:build amd64 && !purego\n\n#include \"textflag.h\"\n")
	rowTile("rowTile14x32", tile{avx512, 14, 2, false})
	rowTile("rowTile24x16", tile{avx512, 24, 1, false})
	rowTile("rowTile6x16", tile{avx2, 6, 2, false})
	rowTile("pairTile14x32", tile{avx512, 14, 2, true})
	rowTile("pairTile24x16", tile{avx512, 24, 1, true})
	rowTile("pairTile8x32", tile{avx512, 8, 2, true})
	laidTile("laidTile14x32", tile{avx512, 14, 2, false}, 32)
	laidTile("laidTile24x16", tile{avx512, 24, 1, false}, 32)
	laidTile("laidTile6x16", tile{avx2, 6, 2, false}, 16)
	outerTile("outerTile8x48", tile{avx512, 8, 3, false})
	outerTile("outerTile4x24", tile{avx2, 4, 3, false})
	dot("dot4Z", avx512, 4)
	dot("dot1Z", avx512, 1)
	dot("dot2Y", avx2, 2)
	dot("dot1Y", avx2, 1)
	transpose("transpose16", avx512)
	transpose("transpose8", avx2)
	tileStrips()
	stripLines("roundStrip", true)
	stripLines("copyStrip", false)
	pairRows()
	pairColumns()
	pairTables()
	if _, err := os.Stdout.WriteString(out.String()); err != nil {
		fmt.Fprintln(os.Stderr, "gemm:", err)
		os.Exit(1)
	}
}
