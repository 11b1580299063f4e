package main

import "fmt"

// This file emits the searches of fit.go. A lane is a run; value i of the runs is a vector. AVX2
// has half the lanes and is called for either half: the stride is 64 bytes for both.

// Registers of the searches: 0–8 are free, these hold constants.
const (
	magicReg, mantissaReg, biasReg = 9, 10, 11 // of rounding to the nearest
	lowReg, highReg                = 12, 13    // bounds of codes, as integers
	choiceReg                      = 15        // of AVX2: which lanes
)

// fitConstants are replicated to 64 bytes.
var fitConstants = []struct {
	name string
	bits uint32
}{
	{"magic", 0x4b400000}, {"mantissa", 0x7fffff}, {"bias", 0x400000}, {"abs", 0x7fffffff}, {"tiny", 0x26901d7d}, {"one", 0x3f800000}, {"sign", 1 << 31},
	// Of encoders: what rounds halves away from zero, and others.
	{"justHalf", 0x3effffff}, {"half", 0x3f000000}, {"8.5", 0x41080000}, {"16.5", 0x41840000}, {"-1/8", 0xbe000000}, {"-1/16", 0xbd800000},
	{"127", 0x42fe0000}, {"i15", 15}, {"i31", 31}, {"i16", 16}, {"byte", 0xff}, {"f15", 0x41700000}, {"f31", 0x41f80000}, {"i1", 1}, {"i2", 2}, {"i4", 4}, {"i8", 8},
}

func fitConstant(name string) string {
	for i, c := range fitConstants {
		if c.name == name {
			return fmt.Sprintf("·fitConst+%d(SB)", 64*i)
		}
	}
	panic(name)
}

func (e *emitter) fitData() {
	e.raw("\n")
	for i, c := range fitConstants {
		for j := range 8 {
			fmt.Fprintf(e, "DATA ·fitConst+%d(SB)/8, $0x%08x%08x\n", 64*i+8*j, c.bits, c.bits)
		}
	}
	fmt.Fprintf(e, "GLOBL ·fitConst(SB), RODATA|NOPTR, $%d\n\n", 64*len(fitConstants))
	for j, v := range []uint64{4 << 32, 5<<32 | 1, 6<<32 | 2, 7<<32 | 3} {
		fmt.Fprintf(e, "DATA ·fitOrder+%d(SB)/8, $0x%016x\n", 8*j, v)
	}
	e.raw("GLOBL ·fitOrder(SB), RODATA|NOPTR, $32\n")
}

// slot is the i-th vector of the scratch memory.
func slot(i int) string { return fmt.Sprintf("%d(R10)", 64*i) }

// integer names an instruction on integers that AVX-512 spells with a width.
func (e *emitter) integer(name string) string {
	if e.letter == "Z" {
		return name + "D"
	}
	return name
}

// rounding loads the constants of nearest and the bounds of codes, which are at low+low(FP) and after.
func (e *emitter) rounding(bounds int) {
	e.op("VMOVUPS", fitConstant("magic"), magicReg)
	e.op("VMOVUPS", fitConstant("mantissa"), mantissaReg)
	e.op("VMOVUPS", fitConstant("bias"), biasReg)
	e.p("VBROADCASTSS low+%d(FP), %s", bounds, e.v(lowReg))
	e.p("VBROADCASTSS high+%d(FP), %s", bounds+4, e.v(highReg))
}

// nearest makes r the whole number nearest to it, within the bounds, as an integer.
func (e *emitter) nearest(r int) {
	e.op("VADDPS", magicReg, r, r)
	e.op(e.integer("VPAND"), mantissaReg, r, r)
	e.op("VPSUBD", biasReg, r, r)
	e.op("VPMAXSD", lowReg, r, r)
	e.op("VPMINSD", highReg, r, r)
}

// choose compares a with b and keeps where it holds; both must hold where and is set.
func (e *emitter) choose(predicate string, b any, a int, and bool) {
	operand := func(o any) string {
		if i, ok := o.(int); ok {
			return e.v(i)
		}
		return o.(string)
	}
	if e.letter == "Z" {
		if and {
			e.p("VCMPPS %s, %s, %s, K1, K1", predicate, operand(b), e.v(a))
		} else {
			e.p("VCMPPS %s, %s, %s, K1", predicate, operand(b), e.v(a))
		}
		return
	}
	if !and {
		e.op("VCMPPS", predicate, b, a, choiceReg)
		return
	}
	e.op("VCMPPS", predicate, b, a, choiceReg-1)
	e.op("VANDPS", choiceReg-1, choiceReg, choiceReg)
}

// take makes dst src where the last choice holds.
func (e *emitter) take(src any, dst int) {
	if e.letter == "Z" {
		if i, ok := src.(int); ok {
			src = e.v(i)
		}
		e.p("VMOVUPS %s, K1, %s", src, e.v(dst))
		return
	}
	e.op("VBLENDVPS", choiceReg, src, dst, dst)
}

// Predicates of comparisons, all false for NaN but the last.
const greater, less, equal, different = "$14", "$1", "$0", "$4"

// function starts a function of the given parameters, whose size is that of all.
func (e *emitter) function(name, params string, size int) {
	fmt.Fprintf(e, "\n// func %s%s(%s)\nTEXT ·%s%s(SB), NOSPLIT, $0-%d\n", name, e.suffix, params, name, e.suffix, size)
}

// each emits a loop over the n values of a run: R11 counts the bytes on the way; the bodies find value i at (SI)(R11*1) and
// what belongs to it likewise.
func (e *emitter) each(label string, body func()) {
	e.p("XORQ R11, R11")
	e.label(label)
	body()
	e.p("ADDQ $64, R11")
	e.p("CMPQ R11, CX")
	e.p("JLT %s", label)
}

const (
	atX    = "(SI)(R11*1)"
	atW    = "(DX)(R11*1)"
	atCode = "1024(R10)(R11*1)" // slots 16 and up
)

// Slots of fitAffine.
const (
	slotHigh = iota
	slotSumW
	slotSumX
	slotBest
	slotScale
	slotInverse
	slotFrom
	slotLow
	slotFirstLow
	slotDet
	slotSize
)

func (e *emitter) fitAffine() {
	e.function("fitAffine", "f, x, w *float32, bytes int, tries *float32, n int, work *float32, top float32, absolute int32, low, high int32", 72)
	for i, r := range []string{"DI", "SI", "DX", "CX", "R8", "R9", "R10"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"f", "x", "w", "bytes", "tries", "n", "work"}[i], 8*i, r)
	}
	e.p("MOVL absolute+60(FP), R12")
	e.rounding(64)
	const low, high, sumW, sumX = 0, 1, 2, 3
	e.op("VMOVUPS", "(SI)", low)
	e.op("VMOVUPS", "(SI)", high)
	e.op("VMOVUPS", "(DX)", sumW)
	e.op("VMULPS", low, sumW, sumX)
	e.p("MOVQ $64, R11")
	e.p("CMPQ R11, CX")
	e.p("JGE extended")
	e.label("extent")
	e.op("VMOVUPS", atX, 4)
	e.op("VMOVUPS", atW, 5)
	e.op("VMINPS", low, 4, low) // the first of equal ones
	e.op("VMAXPS", high, 4, high)
	e.op("VADDPS", 5, sumW, sumW)
	e.op("VMULPS", 4, 5, 5)
	e.op("VADDPS", 5, sumX, sumX)
	e.p("ADDQ $64, R11")
	e.p("CMPQ R11, CX")
	e.p("JLT extent")
	e.label("extended")
	e.op("VXORPS", 4, 4, 4)
	e.op("VMINPS", low, 4, low)
	e.op("VMOVUPS", low, slot(slotLow))
	e.op("VMOVUPS", low, slot(slotFirstLow))
	e.op("VMOVUPS", low, slot(slotFrom))
	e.op("VMOVUPS", high, slot(slotHigh))
	e.op("VMOVUPS", sumW, slot(slotSumW))
	e.op("VMOVUPS", sumX, slot(slotSumX))
	e.op("VSUBPS", low, high, 1)
	e.p("VBROADCASTSS top+56(FP), %s", e.v(2))
	e.op("VDIVPS", 1, 2, 7) // inverse
	e.op("VMOVUPS", low, 8)
	e.op("VMOVUPS", 7, slot(slotInverse))
	e.op("VMOVUPS", fitConstant("one"), 2)
	e.op("VDIVPS", 7, 2, 5) // scale
	e.op("VMOVUPS", 5, slot(slotScale))
	e.each("start", func() { e.affineCode() })
	e.op("VMOVUPS", 8, 6)
	e.affineLoss("start")
	e.op("VMOVUPS", 4, slot(slotBest))

	e.label("try")
	e.op("VMOVUPS", slot(slotLow), 8)
	e.op("VMOVUPS", slot(slotHigh), 0)
	e.op("VSUBPS", 8, 0, 0)
	e.p("VBROADCASTSS (R8), %s", e.v(1))
	e.op("VDIVPS", 0, 1, 7)
	const sumL, sumLL, sumXL = 4, 5, 6
	for _, r := range []int{sumL, sumLL, sumXL} {
		e.op("VXORPS", r, r, r)
	}
	e.each("sums", func() {
		e.affineCode() // 0 is the code, 1 the value
		e.op("VMULPS", atW, 0, 2)
		e.op("VADDPS", 2, sumL, sumL)
		e.op("VMULPS", 0, 2, 3)
		e.op("VADDPS", 3, sumLL, sumLL)
		e.op("VMULPS", 1, 2, 2)
		e.op("VADDPS", 2, sumXL, sumXL)
	})
	e.op("VMULPS", slot(slotSumW), sumLL, 0)
	e.op("VMULPS", sumL, sumL, 1)
	e.op("VSUBPS", 1, 0, 0) // determinant
	e.op("VMOVUPS", 0, slot(slotDet))
	e.op("VMULPS", slot(slotSumW), sumXL, 1)
	e.op("VMULPS", slot(slotSumX), sumL, 2)
	e.op("VSUBPS", 2, 1, 1)
	e.op("VDIVPS", 0, 1, 1) // scale
	e.op("VMULPS", slot(slotSumX), sumLL, 2)
	e.op("VMULPS", sumXL, sumL, 3)
	e.op("VSUBPS", 3, 2, 2)
	e.op("VDIVPS", 0, 2, 2) // low
	e.op("VDIVPS", sumLL, sumXL, 3)
	e.op("VXORPS", 4, 4, 4)
	e.choose(greater, 4, 2, false)
	e.take(3, 1)
	e.take(4, 2)
	e.op("VMOVUPS", 1, 5)
	e.op("VMOVUPS", 2, 6)
	e.affineLoss("try")
	e.op("VMOVUPS", slot(slotDet), 0)
	e.op("VXORPS", 1, 1, 1)
	e.choose(greater, 1, 0, false)
	e.choose(less, slot(slotBest), 4, true)
	for _, s := range []struct{ slot, reg int }{{slotBest, 4}, {slotInverse, 7}, {slotFrom, 8}, {slotScale, 5}, {slotLow, 6}} {
		e.op("VMOVUPS", slot(s.slot), 0)
		e.take(s.reg, 0)
		e.op("VMOVUPS", 0, slot(s.slot))
	}
	e.p("ADDQ $4, R8")
	e.p("DECQ R9")
	e.p("JNZ try")

	// Runs of one value.
	e.op("VMOVUPS", slot(slotFirstLow), 0)
	e.op("VMOVUPS", slot(slotHigh), 1)
	e.choose(equal, 0, 1, false)
	e.op("VXORPS", 2, 2, 2)
	for i, s := range []int{slotScale, slotLow, slotInverse, slotFrom} {
		e.op("VMOVUPS", slot(s), 3)
		if s == slotLow {
			e.take(0, 3)
			e.op("VXORPS", fitConstant("sign"), 3, 3)
		} else {
			e.take(2, 3)
		}
		e.p("VMOVUPS %s, %d(DI)", e.v(3), 64*i)
	}
	e.p("VZEROUPPER")
	e.p("RET")
}

// affineCode leaves the code of the current value in register 0, as a float32, and in memory, and the value in 1.
func (e *emitter) affineCode() {
	e.op("VMOVUPS", atX, 1)
	e.op("VSUBPS", 8, 1, 0)
	e.op("VMULPS", 7, 0, 0)
	e.nearest(0)
	e.op("VCVTDQ2PS", 0, 0)
	e.op("VMOVUPS", 0, atCode)
}

// affineLoss adds up in register 4 what the codes in memory lose with scale 5 and minimum 6.
func (e *emitter) affineLoss(name string) {
	e.op("VXORPS", 4, 4, 4)
	loss := func(absolute bool) func() {
		return func() {
			e.op("VMULPS", atCode, 5, 0)
			e.op("VADDPS", 6, 0, 0)
			e.op("VSUBPS", atX, 0, 0)
			if absolute {
				e.op("VANDPS", fitConstant("abs"), 0, 0)
			} else {
				e.op("VMULPS", 0, 0, 0)
			}
			e.op("VMULPS", atW, 0, 0)
			e.op("VADDPS", 0, 4, 4)
		}
	}
	e.p("TESTL R12, R12")
	e.p("JNZ %sAbsolute", name)
	e.each(name+"Squares", loss(false))
	e.p("JMP %sLost", name)
	e.label(name + "Absolute")
	e.each(name+"Magnitudes", loss(true))
	e.label(name + "Lost")
}

func (e *emitter) fitSymmetric() {
	e.function("fitSymmetric", "f, x, w *float32, bytes int, tries *float32, n int, work *float32, low, high int32", 64)
	for i, r := range []string{"DI", "SI", "DX", "CX", "R8", "R9", "R10"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"f", "x", "w", "bytes", "tries", "n", "work"}[i], 8*i, r)
	}
	e.rounding(56)
	const size, peak = 0, 1
	e.op("VXORPS", size, size, size)
	e.op("VXORPS", peak, peak, peak)
	e.each("peak", func() {
		e.op("VMOVUPS", atX, 2)
		e.op("VANDPS", fitConstant("abs"), 2, 3)
		e.choose(greater, size, 3, false)
		e.take(3, size)
		e.take(2, peak)
		e.op("VMULPS", atW, 2, 2) // weight times value, the same in every try
		e.op("VMOVUPS", 2, atCode)
	})
	e.op("VMOVUPS", size, slot(slotSize))
	e.op("VMOVUPS", peak, slot(slotHigh))
	const lx, ll, inverse = 4, 5, 7
	sums := func(label string) {
		e.p("VBROADCASTSS (R8), %s", e.v(0))
		e.op("VMOVUPS", slot(slotHigh), 1)
		e.op("VDIVPS", 1, 0, inverse)
		e.op("VXORPS", lx, lx, lx)
		e.op("VXORPS", ll, ll, ll)
		e.each(label, func() {
			e.op("VMULPS", atX, inverse, 0)
			e.nearest(0)
			e.op("VCVTDQ2PS", 0, 0)
			e.op("VMULPS", atCode, 0, 1)
			e.op("VADDPS", 1, lx, lx)
			e.op("VMULPS", atW, 0, 1)
			e.op("VMULPS", 0, 1, 1)
			e.op("VADDPS", 1, ll, ll)
		})
	}
	const scale, best = 2, 3
	sums("first")
	e.op("VMOVUPS", inverse, 8)
	e.op("VDIVPS", ll, lx, 0)
	e.op("VXORPS", scale, scale, scale)
	e.choose(different, scale, ll, false)
	e.take(0, scale)
	e.op("VMULPS", lx, scale, best)
	e.label("try")
	e.p("ADDQ $4, R8")
	sums("sums")
	e.op("VMULPS", lx, lx, 0)
	e.op("VMULPS", ll, best, 1)
	e.choose(greater, 1, 0, false)
	e.op("VXORPS", 6, 6, 6)
	e.choose(greater, 6, ll, true)
	e.op("VDIVPS", ll, lx, 0)
	e.take(0, scale)
	e.take(inverse, 8)
	e.op("VMULPS", lx, 0, 0)
	e.take(0, best)
	e.p("DECQ R9")
	e.p("JNZ try")
	e.op("VMOVUPS", slot(slotSize), 0)
	e.op("VMOVUPS", fitConstant("tiny"), 1)
	e.choose(less, 1, 0, false)
	e.op("VXORPS", 1, 1, 1)
	e.take(1, scale)
	e.take(1, 8)
	e.p("VMOVUPS %s, (DI)", e.v(scale))
	e.p("VMOVUPS %s, 64(DI)", e.v(1))
	e.p("VMOVUPS %s, 128(DI)", e.v(8))
	e.p("VMOVUPS %s, 192(DI)", e.v(1))
	e.p("VZEROUPPER")
	e.p("RET")
}

// storeCodes stores the integers in register r as bytes at R13 and moves on by 16.
func (e *emitter) storeCodes(r int) {
	if e.letter == "Z" {
		e.p("VPMOVDB %s, (R13)", e.v(r))
	} else {
		e.p("VEXTRACTI128 $1, Y%d, X%d", r, r+1)
		e.p("VPACKSSDW X%d, X%d, X%d", r+1, r, r)
		e.p("VPACKUSWB X%d, X%d, X%d", r, r, r)
		e.p("VMOVQ X%d, (R13)", r)
	}
	e.p("ADDQ $16, R13")
}

func (e *emitter) runCodes() {
	e.function("runCodes", "q *byte, x *float32, bytes int, plus, over *float32, low, high int32", 48)
	for i, r := range []string{"R13", "SI", "CX", "R8", "R9"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"q", "x", "bytes", "plus", "over"}[i], 8*i, r)
	}
	e.rounding(40)
	e.op("VMOVUPS", "(R8)", 4)
	e.op("VMOVUPS", "(R9)", 5)
	e.each("loop", func() {
		e.op("VADDPS", atX, 4, 0)
		e.op("VDIVPS", 5, 0, 0)
		e.nearest(0)
		e.op("VPSUBD", lowReg, 0, 0)
		e.storeCodes(0)
	})
	e.p("VZEROUPPER")
	e.p("RET")
}

func (e *emitter) fitDescent() {
	e.function("fitDescent", "scale *float32, q *byte, x *float32, bytes int, work *float32, low, high int32", 48)
	for i, r := range []string{"DI", "R13", "SI", "CX", "R10"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"scale", "q", "x", "bytes", "work"}[i], 8*i, r)
	}
	e.rounding(40)
	const size, peak, lx, ll = 0, 1, 7, 8
	e.op("VXORPS", size, size, size)
	e.op("VXORPS", peak, peak, peak)
	e.each("peak", func() {
		e.op("VMOVUPS", atX, 2)
		e.op("VANDPS", fitConstant("abs"), 2, 3)
		e.choose(greater, size, 3, false)
		e.take(3, size)
		e.take(2, peak)
	})
	e.op("VMOVUPS", size, slot(slotSize))
	e.op("VCVTDQ2PS", lowReg, 2)
	e.op("VDIVPS", peak, 2, 6) // inverse
	e.op("VXORPS", lx, lx, lx)
	e.op("VXORPS", ll, ll, ll)
	// terms leaves w·x·l in 3 and w·l·l in 4, for the code in l; 1 is the value, 2 its square w.
	terms := func(l int) {
		e.op("VMULPS", 1, 2, 3)
		e.op("VMULPS", l, 3, 3)
		e.op("VMULPS", l, 2, 4)
		e.op("VMULPS", l, 4, 4)
	}
	value := func() {
		e.op("VMOVUPS", atX, 1)
		e.op("VMULPS", 1, 1, 2)
	}
	e.each("start", func() {
		value()
		e.op("VMULPS", 1, 6, 0)
		e.nearest(0)
		e.op("VCVTDQ2PS", 0, 0)
		e.op("VMOVUPS", 0, atCode)
		terms(0)
		e.op("VADDPS", 3, lx, lx)
		e.op("VADDPS", 4, ll, ll)
	})
	e.p("MOVQ $5, R9") // a turn that changes nothing does so again
	e.label("turn")
	e.each("moves", func() {
		value()
		e.op("VMOVUPS", atCode, 0)
		terms(0)
		e.op("VSUBPS", 3, lx, 5)
		e.op("VSUBPS", 4, ll, 6)
		e.op("VMULPS", 6, 1, 0)
		e.op("VDIVPS", 5, 0, 0)
		e.nearest(0)
		e.op("VCVTDQ2PS", 0, 0)
		e.op("VXORPS", 3, 3, 3)
		e.choose(greater, 3, 5, false)
		e.choose(different, atCode, 0, true)
		terms(0)
		e.op("VADDPS", 3, 5, 5)
		e.op("VADDPS", 4, 6, 6)
		e.op("VXORPS", 3, 3, 3)
		e.choose(greater, 3, 6, true)
		e.op("VMULPS", 5, 5, 3)
		e.op("VMULPS", ll, 3, 3)
		e.op("VMULPS", lx, lx, 4)
		e.op("VMULPS", 6, 4, 4)
		e.choose(greater, 4, 3, true)
		e.take(5, lx)
		e.take(6, ll)
		e.op("VMOVUPS", atCode, 1)
		e.take(0, 1)
		e.op("VMOVUPS", 1, atCode)
	})
	e.p("DECQ R9")
	e.p("JNZ turn")
	e.op("VDIVPS", ll, lx, 0)
	e.op("VXORPS", 5, 5, 5)
	e.op("VXORPS", 6, 6, 6)
	e.choose(greater, 5, ll, false)
	e.take(0, 6)
	e.op("VMOVUPS", slot(slotSize), 0)
	e.op("VMOVUPS", fitConstant("tiny"), 1)
	e.choose(less, 1, 0, false)
	e.take(5, 6)
	e.p("VMOVUPS %s, (DI)", e.v(6))
	e.each("codes", func() {
		e.op("VMOVUPS", atCode, 0)
		e.op("VCVTPS2DQ", 0, 0)
		e.op("VPSUBD", lowReg, 0, 0)
		e.take(5, 0)
		e.storeCodes(0)
	})
	e.p("VZEROUPPER")
	e.p("RET")
}

// The table's halves (AVX2), or all of it, and what lookups need.
const tableReg, upperReg = 12, 13

// lookup makes dst the entries of the table at the places in at; it uses tmp, and of AVX2 the choice.
func (e *emitter) lookup(at, dst, tmp int) {
	if e.letter == "Z" {
		e.op("VPERMPS", tableReg, at, dst)
		return
	}
	e.op("VPERMPS", upperReg, at, tmp)
	e.op("VPERMPS", tableReg, at, dst)
	e.op("VPSLLD", "$28", at, choiceReg) // the sign says which half
	e.take(tmp, dst)
}

func (e *emitter) loadTable(pointer string) {
	e.op("VMOVUPS", "("+pointer+")", tableReg)
	if e.letter != "Z" {
		e.op("VMOVUPS", "32("+pointer+")", upperReg)
	}
}

// between leaves in 1 the last place of the table that holds no more than v (register 0), in 2 what stands there and
// in 3 what stands one further; 4 and 5 are used. The first place also stands for less, and the last is its own next.
func (e *emitter) between() {
	e.op(e.integer("VPXOR"), 1, 1, 1)
	for _, step := range []string{"i8", "i4", "i2", "i1"} {
		e.op("VPADDD", fitConstant(step), 1, 2)
		e.lookup(2, 3, 4)
		e.choose(notLess, 3, 0, false)
		e.take(2, 1)
	}
	e.lookup(1, 2, 4)
	e.op("VPADDD", fitConstant("i1"), 1, 5)
	e.op("VPMINSD", fitConstant("i15"), 5, 5)
	e.lookup(5, 3, 4)
	// Which is nearer? The lower one only where it is strictly.
	e.op("VSUBPS", 2, 0, 4)
	e.op("VSUBPS", 0, 3, 0)
	e.choose(notLess, 0, 4, false)
}

// notLess holds for NaN too.
const notLess = "$5"

func (e *emitter) fitTable() {
	e.function("fitTable", "scale, x, w *float32, bytes int, tries *float32, n int, work, table *float32", 64)
	for i, r := range []string{"DI", "SI", "DX", "CX", "R8", "R9", "R10", "R13"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"scale", "x", "w", "bytes", "tries", "n", "work", "table"}[i], 8*i, r)
	}
	e.loadTable("R13")
	const size, peak = 0, 1
	e.op("VXORPS", size, size, size)
	e.op("VXORPS", peak, peak, peak)
	e.each("peak", func() {
		e.op("VMOVUPS", atX, 2)
		e.op("VANDPS", fitConstant("abs"), 2, 3)
		e.choose(greater, size, 3, false)
		e.take(3, size)
		e.take(2, peak)
	})
	e.op("VMOVUPS", size, slot(slotSize))
	e.op("VMOVUPS", peak, slot(slotHigh))
	const inverse, qx, qq, scale, best = 6, 7, 8, 9, 10
	sums := func(label string) {
		e.op("VXORPS", qx, qx, qx)
		e.op("VXORPS", qq, qq, qq)
		e.each(label, func() {
			e.op("VMULPS", atX, inverse, 0)
			e.between()
			e.take(3, 2)
			e.op("VMULPS", atW, 2, 3)
			e.op("VMULPS", atX, 3, 4)
			e.op("VADDPS", 4, qx, qx)
			e.op("VMULPS", 2, 3, 3)
			e.op("VADDPS", 3, qq, qq)
		})
	}
	// The first scale takes the largest value to the first entry's opposite.
	e.p("VBROADCASTSS (R13), %s", e.v(2))
	e.op("VXORPS", fitConstant("sign"), peak, 3)
	e.op("VDIVPS", 2, 3, 3)
	e.op("VMOVUPS", fitConstant("one"), 4)
	e.op("VDIVPS", 3, 4, inverse)
	sums("first")
	e.op("VXORPS", scale, scale, scale)
	e.op("VDIVPS", qq, qx, 0)
	e.choose(greater, scale, qq, false)
	e.take(0, scale)
	e.op("VMULPS", qx, scale, best)
	e.label("try")
	e.p("VBROADCASTSS (R8), %s", e.v(0))
	e.op("VMOVUPS", slot(slotHigh), 1)
	e.op("VDIVPS", 1, 0, inverse)
	sums("sums")
	e.op("VMULPS", qx, qx, 0)
	e.op("VMULPS", qq, best, 1)
	e.op("VXORPS", 2, 2, 2)
	e.choose(greater, 1, 0, false)
	e.choose(greater, 2, qq, true)
	e.op("VDIVPS", qq, qx, 0)
	e.take(0, scale)
	e.op("VMULPS", qx, 0, 0)
	e.take(0, best)
	e.p("ADDQ $4, R8")
	e.p("DECQ R9")
	e.p("JNZ try")
	e.op("VMOVUPS", slot(slotSize), 0)
	e.op("VMOVUPS", fitConstant("tiny"), 1)
	e.choose(less, 1, 0, false)
	e.op("VXORPS", 1, 1, 1)
	e.take(1, scale)
	e.p("VMOVUPS %s, (DI)", e.v(scale))
	e.p("VZEROUPPER")
	e.p("RET")
}

func (e *emitter) tableCodes() {
	e.function("tableCodes", "q *byte, x *float32, bytes int, inverse, table *float32", 40)
	for i, r := range []string{"R13", "SI", "CX", "R8", "R9"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"q", "x", "bytes", "inverse", "table"}[i], 8*i, r)
	}
	e.loadTable("R9")
	e.op("VMOVUPS", "(R8)", 6)
	e.each("loop", func() {
		e.op("VMULPS", atX, 6, 0)
		e.between()
		e.take(5, 1)
		e.storeCodes(1)
	})
	e.p("VZEROUPPER")
	e.p("RET")
}
