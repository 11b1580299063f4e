package main

import "fmt"

// This file emits what attention does with the rows of a tile of scores, of AVX-512 alone. A row
// is one of kTile values, six registers, of which the keys [lo, hi) are seen: row i has lo+i and
// hi+i, cut to the tile. Registers: 0–5 a row, 6–11 what it turns into backward, 12–14 exp's,
// 15 what is stored, 16–19 and 23–26 constants and figures of a row, 27–30 scratch; K1–K6 say which keys are seen.

const (
	tileVectors = 6  // registers of a row
	tileBytes   = 64 // of a register

	rowScale, rowSlope, rowMax, rowDelta  = 16, 17, 18, 19
	hidden, rowExpMax, rowExpMin, rowOne  = 23, 24, 25, 26
	rowSum, rowSum2, rowScratch, rowShift = 27, 28, 29, 30
)

// beginRows emits the head of a function on rows: what the pointers in SI, DI, R10 and R11 are called,
// the number of rows and the keys of the first, and the constants of exponentials.
func (e *emitter) beginRows(name, args string, size int, pointers [4]string) {
	fmt.Fprintf(e, "\n// func %s%s\nTEXT ·%s(SB), NOSPLIT, $0-%d\n", name, args, name, size)
	for i, reg := range []string{"SI", "DI", "R10", "R11"} {
		e.p("MOVQ %s+%d(FP), %s", pointers[i], 8*i, reg)
	}
	e.p("MOVQ n+32(FP), CX")
	e.p("MOVQ lo+40(FP), R8")
	e.p("MOVQ hi+48(FP), R9")
	for _, c := range []struct {
		name string
		reg  int
	}{{"-inf", hidden}, {"expmax", rowExpMax}, {"expmin", rowExpMin}, {"one", rowOne}} {
		e.op("VMOVUPS", constant(c.name), c.reg)
	}
}

// seenKeys leaves in K1–K6 the keys [R8, R9) of the tile, or goes to none.
func (e *emitter) seenKeys(none string) {
	e.p("MOVQ R8, AX") // max(lo, 0)
	e.p("XORL R14, R14")
	e.p("CMPQ AX, R14")
	e.p("CMOVQLT R14, AX")
	e.p("MOVQ R9, BX") // min(hi, kTile)
	e.p("MOVQ $%d, R15", tileVectors*16)
	e.p("CMPQ BX, R15")
	e.p("CMOVQGT R15, BX")
	e.p("CMPQ BX, AX")
	e.p("JLE %s", none)
	e.p("MOVQ $-1, R14")
	// BZHI keeps all bits from 64 on: keys 0 to 63, then those behind.
	e.p("BZHIQ BX, R14, R15")
	e.p("BZHIQ AX, R14, R13")
	e.p("ANDNQ R15, R13, R15")
	e.p("KMOVQ R15, K1")
	for i := range 3 {
		e.p("KSHIFTRQ $%d, K1, K%d", 16*(i+1), i+2)
	}
	e.p("XORL R13, R13")
	for _, reg := range []string{"AX", "BX"} {
		e.p("SUBQ $64, %s", reg)
		e.p("CMOVQLT R13, %s", reg)
	}
	e.p("BZHIQ BX, R14, R15")
	e.p("BZHIQ AX, R14, R13")
	e.p("ANDNQ R15, R13, R15")
	e.p("KMOVQ R15, K5")
	e.p("KSHIFTRQ $16, K5, K6")
}

// scaledScores loads register v of a row of scores times scale, −∞ where a key is not seen.
func (e *emitter) scaledScores(v int) {
	e.op("VMOVAPS", hidden, v)
	e.p("VMULPS %d(SI), Z%d, K%d, Z%d", tileBytes*v, rowScale, v+1, v)
}

// nextRow goes on to the next row's two figures and keys, or returns.
func (e *emitter) nextRow() {
	for _, line := range []string{"ADDQ $4, R10", "ADDQ $4, R11", "INCQ R8", "INCQ R9", "DECQ CX", "JNZ row", "VZEROUPPER", "RET"} {
		e.p("%s", line)
	}
}

// rowExp emits x = e^x of the keys of mask k, and zero elsewhere; 12 to 14 are used. See exp.
func (e *emitter) rowExp(x, k int) {
	const n = 12
	e.op("VMINPS", x, rowExpMax, x) // a NaN in x is the result: it is the last source
	e.op("VMAXPS", x, rowExpMin, x)
	e.reduced(x, n)
	e.op("VADDPS", rowOne, x, x)
	e.p("VSCALEFPS.Z Z%d, Z%d, K%d, Z%d", n, x, k, x)
}

// foldLanes joins the lanes of register reg in its lowest; 29 is used.
func (e *emitter) foldLanes(op string, reg int) {
	e.p("VEXTRACTF64X4 $1, Z%d, Y%d", reg, rowScratch)
	e.p("%s Y%d, Y%d, Y%d", op, rowScratch, reg, reg)
	e.p("VEXTRACTF32X4 $1, Y%d, X%d", reg, rowScratch)
	e.p("%s X%d, X%d, X%d", op, rowScratch, reg, reg)
	for _, order := range []int{0x4e, 0xb1} {
		e.p("VPERMILPS $0x%x, X%d, X%d", order, reg, rowScratch)
		e.p("%s X%d, X%d, X%d", op, rowScratch, reg, reg)
	}
}

// storeRow stores a row of registers from first on: float32, or bfloat16 two registers at a time.
func (e *emitter) storeRow(first int, at string, half bool) {
	for v := range tileVectors {
		switch {
		case !half:
			e.p("VMOVUPS Z%d, %d(%s)", first+v, tileBytes*v, at)
		case v%2 == 0:
			e.narrowPair(first+v, first+v+1, 15)
			e.p("VMOVDQU64 Z15, %d(%s)", tileBytes*v/2, at)
		}
	}
}

// clearRow stores a row of zeros.
func (e *emitter) clearRow(at string, half bool) {
	e.p("VPXORQ Z15, Z15, Z15")
	n := tileVectors
	if half {
		n /= 2
	}
	for v := range n {
		e.p("VMOVDQU64 Z15, %d(%s)", tileBytes*v, at)
	}
}

// narrowPair rounds registers lo and hi to the 32 values of dst, VCVTNE2PS2BF16, which the Go
// assembler does not know: EVEX.512 with the prefix F2, map 0F38, opcode 72. All are below 16.
func (e *emitter) narrowPair(lo, hi, dst int) {
	code := []int{0x62, (^dst>>3&1)<<7 | 1<<6 | (^lo>>3&1)<<5 | 1<<4 | 2, (^hi&15)<<3 | 7, 0x48, 0x72, 0xc0 | (dst&7)<<3 | lo&7}
	e.p("BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x; BYTE $0x%02x // VCVTNE2PS2BF16 Z%d, Z%d, Z%d",
		code[0], code[1], code[2], code[3], code[4], code[5], lo, hi, dst)
}

// softmaxRows emits the step of an online softmax: rows of scores s become weights relative to the
// largest scaled score so far, in place or, in bfloat16, in p; what o and sum hold under an earlier
// one shrinks.
func (e *emitter) softmaxRows(half bool) {
	name, args := "softmaxRows", "(s, o, largest, sum *float32, n, lo, hi, width int, scale float32)"
	if half {
		name, args = "softmaxRowsHalf", "(s, o, largest, sum *float32, n, lo, hi, width int, scale float32, p *float32)"
	}
	size := 68
	if half {
		size = 80
	}
	e.beginRows(name, args, size, [4]string{"s", "o", "largest", "sum"})
	e.p("VBROADCASTSS scale+64(FP), Z%d", rowScale)
	to := "SI"
	if half {
		to = "DX"
		e.p("MOVQ p+72(FP), DX")
	}
	e.label("row")
	e.seenKeys("none")
	for v := range tileVectors {
		e.scaledScores(v)
	}
	// A NaN gives way: it is not the last source.
	e.op("VMAXPS", hidden, 0, rowMax)
	e.op("VMAXPS", hidden, 1, rowShift)
	for v := 2; v < tileVectors; v += 2 {
		e.op("VMAXPS", rowMax, v, rowMax)
		e.op("VMAXPS", rowShift, v+1, rowShift)
	}
	e.op("VMAXPS", rowShift, rowMax, rowMax)
	e.foldLanes("VMAXPS", rowMax)
	e.p("VMOVSS (R11), X6") // the sum so far
	e.p("VMOVSS (R10), X7") // under the largest so far
	e.p("VUCOMISS X7, X%d", rowMax)
	e.p("JHI larger")
	e.p("VBROADCASTSS X7, Z%d", rowMax)
	e.label("weigh")
	for v := range tileVectors {
		e.op("VSUBPS", rowMax, v, v)
		e.rowExp(v, v+1)
	}
	e.op("VADDPS", 1, 0, rowSum)
	e.op("VADDPS", 3, 2, rowSum2)
	e.op("VADDPS", 4, rowSum, rowSum)
	e.op("VADDPS", 5, rowSum2, rowSum2)
	e.op("VADDPS", rowSum2, rowSum, rowSum)
	e.foldLanes("VADDPS", rowSum)
	e.p("VADDSS X%d, X6, X6", rowSum)
	e.p("VMOVSS X6, (R11)")
	e.storeRow(0, to, half)
	e.label("next")
	e.p("ADDQ $%d, SI", tileBytes*tileVectors)
	if half {
		e.p("ADDQ $%d, DX", tileBytes*tileVectors/2)
	}
	e.p("MOVQ width+56(FP), AX")
	e.p("LEAQ (DI)(AX*4), DI")
	e.nextRow()

	e.label("none")
	e.clearRow(to, half)
	e.p("JMP next")

	// What was summed shrinks by e^(earlier − now): nothing was, where that is e^(−∞).
	e.label("larger")
	e.p("VMOVSS X%d, (R10)", rowMax)
	e.p("VBROADCASTSS X%d, Z%d", rowMax, rowMax)
	e.p("VBROADCASTSS X7, Z7")
	e.op("VSUBPS", rowMax, 7, 7)
	e.p("KXNORW K0, K0, K7")
	e.rowExp(7, 7)
	e.p("VMULSS X7, X6, X6")
	e.p("MOVQ width+56(FP), AX")
	e.p("MOVQ DI, BX")
	e.label("shrink")
	e.p("VMULPS (BX), Z7, Z8")
	e.p("VMOVUPS Z8, (BX)")
	e.p("ADDQ $64, BX")
	e.p("SUBQ $16, AX")
	e.p("JHI shrink")
	e.p("JMP weigh")
}

// slopeRows emits the gradient of a softmax: scaled scores s become probabilities p, and dp, the
// gradient of these, p·(dp − delta)·slope; in place or, in bfloat16, in p and ds.
func (e *emitter) slopeRows(half bool) {
	name, args := "slopeRows", "(s, dp, lse, delta *float32, n, lo, hi int, scale, slope float32)"
	size := 64
	if half {
		name, args = "slopeRowsHalf", "(s, dp, lse, delta *float32, n, lo, hi int, scale, slope float32, p, ds *float32)"
		size = 80
	}
	e.beginRows(name, args, size, [4]string{"s", "dp", "lse", "delta"})
	e.p("VBROADCASTSS scale+56(FP), Z%d", rowScale)
	e.p("VBROADCASTSS slope+60(FP), Z%d", rowSlope)
	p, ds := "SI", "DI"
	if half {
		p, ds = "DX", "R12"
		e.p("MOVQ p+64(FP), DX")
		e.p("MOVQ ds+72(FP), R12")
	}
	e.label("row")
	e.seenKeys("none")
	e.p("VBROADCASTSS (R10), Z%d", rowMax)
	e.p("VBROADCASTSS (R11), Z%d", rowDelta)
	for v := range tileVectors {
		e.scaledScores(v)
		e.op("VSUBPS", rowMax, v, v)
		e.rowExp(v, v+1)
		e.p("VMOVUPS.Z %d(DI), K%d, Z%d", tileBytes*v, v+1, 6+v)
		e.op("VSUBPS", rowDelta, 6+v, 6+v)
		e.op("VMULPS", v, 6+v, 6+v)
		e.op("VMULPS", rowSlope, 6+v, 6+v)
	}
	e.storeRow(0, p, half)
	e.storeRow(6, ds, half)
	e.label("next")
	e.p("ADDQ $%d, SI", tileBytes*tileVectors)
	e.p("ADDQ $%d, DI", tileBytes*tileVectors)
	if half {
		e.p("ADDQ $%d, DX", tileBytes*tileVectors/2)
		e.p("ADDQ $%d, R12", tileBytes*tileVectors/2)
	}
	e.nextRow()
	e.label("none")
	e.clearRow(p, half)
	e.clearRow(ds, half)
	e.p("JMP next")
}
