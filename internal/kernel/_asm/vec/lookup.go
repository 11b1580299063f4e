package main

// This file emits the search of scales for codes that are places in a table, and the making of these.

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
