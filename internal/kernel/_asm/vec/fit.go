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
