package main

// This file emits the searches of scales without a minimum, and the making of codes.

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
	e.p("MOVQ $5, R9")
	e.label("turn")
	e.p("XORL R12, R12") // which runs changed
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
		if e.letter == "Z" {
			e.p("KMOVW K1, AX")
		} else {
			e.p("VMOVMSKPS %s, AX", e.v(choiceReg))
		}
		e.p("ORL AX, R12")
		e.op("VMOVUPS", atCode, 1)
		e.take(0, 1)
		e.op("VMOVUPS", 1, atCode)
	})
	e.p("TESTL R12, R12")
	e.p("JZ settled") // a turn that changes nothing does so again
	e.p("DECQ R9")
	e.p("JNZ turn")
	e.label("settled")
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
