package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// This file emits the decoders of packed weights (decode_amd64.s), and from the same bodies products of x with
// their rows. Codes of 32 values are unpacked as the 32 bytes of a register, alike on both instruction sets,
// and put widens and scales them; those of 4 or 5 bits AVX-512 looks up in a table of the values under one
// scale. DI walks the values, or x, SI the blocks, CX counts. Scales of the parts of a super-block are computed first and wait on the stack.

// blockDecoder is one format: its name, the values and bytes of a block, and what decodes one.
type blockDecoder struct {
	name         string
	elems, bytes int
	stack        int // bytes
	body         func(e *emitter)
}

var blockDecoders = []blockDecoder{
	{"Q8_0", 32, 34, 0, func(e *emitter) {
		e.half(0, scaleA)
		e.put(values{memory: 2, signed: true, scales: []int{scaleA}})
	}},
	{"Q4_0", 32, 18, 0, func(e *emitter) {
		e.half(0, scaleA)
		e.fours(2, levelsLess8, values{signed: true, scales: []int{scaleA}})
	}},
	{"Q4_1", 32, 20, 0, func(e *emitter) {
		e.halves(0, scaleA, minA)
		e.fours(4, levels, values{scales: []int{scaleA}, mins: []int{minA}, plus: true})
	}},
	{"Q5_0", 32, 22, 0, func(e *emitter) {
		e.half(0, scaleA)
		if e.letter == "Z" {
			e.fives(2, levelsLess16, levels, values{scales: []int{scaleA}})
			return
		}
		e.pairs(6)
		e.fifthBits(2)
		// Less 16: the bits above the fourth are set where the fifth is not.
		e.p("VPANDN %s, Y9, Y9", bytesOf(0xf0))
		e.p("VPOR Y9, Y8, Y8")
		e.put(values{signed: true, scales: []int{scaleA}})
	}},
	{"Q5_1", 32, 24, 0, func(e *emitter) {
		e.halves(0, scaleA, minA)
		v := values{scales: []int{scaleA}, mins: []int{minA}, plus: true}
		if e.letter == "Z" {
			e.fives(4, levels, levelsPlus16, v)
			return
		}
		e.pairs(8)
		e.fifthBits(4)
		e.p("VPAND %s, Y9, Y9", bytesOf(16))
		e.p("VPOR Y9, Y8, Y8")
		e.put(v)
	}},
	{"IQ4_NL", 32, 18, 0, func(e *emitter) {
		e.half(0, scaleA)
		e.fours(2, levelsIQ4, values{signed: true, scales: []int{scaleA}})
	}},
	{"MXFP4", 32, 17, 0, func(e *emitter) {
		// The bits of 2^(e-128): e-1 is the exponent, but for e < 2 the number is subnormal.
		e.p("MOVBLZX (SI), AX")
		e.p("DECL AX")
		e.p("SHLL $23, AX")
		e.p("CMPB (SI), $2")
		e.p("JCC normal")
		e.p("MOVBLZX (SI), AX")
		e.p("INCL AX")
		e.p("SHLL $21, AX")
		e.label("normal")
		e.p("VMOVD AX, X0")
		e.p("VBROADCASTSS X0, %s", e.v(scaleA))
		e.fours(1, levelsMXFP4, values{signed: true, scales: []int{scaleA}})
	}},
	{"Q2_K", 256, 84, 128, decodeQ2K},
	{"Q3_K", 256, 110, 64, decodeQ3K},
	{"Q4_K", 256, 144, 64, func(e *emitter) { e.fourOrFive(-1, 16) }},
	{"Q5_K", 256, 176, 64, func(e *emitter) { e.fourOrFive(16, 48) }},
	{"Q6_K", 256, 210, 64, decodeQ6K},
	{"IQ4_XS", 256, 136, 32, decodeIQ4XS},
	{"I8", 32, 32, 0, func(e *emitter) { e.put(values{memory: 0, bare: true, signed: true}) }},
	{"F8_E4M3", 32, 32, 0, decodeE4M3},
	{"F8_E5M2", 32, 32, 0, decodeE5M2},
}

// wideDecoders are the formats that half_amd64.s decodes, in runs of 32.
var wideDecoders = []blockDecoder{
	{"F16", 32, 64, 0, func(e *emitter) {
		e.wide(func(from string, reg int) { e.p("VCVTPH2PS %s, %s", from, e.v(reg)) })
	}},
	{"BF16", 32, 64, 0, func(e *emitter) {
		e.wide(func(from string, reg int) {
			e.p("VPMOVZXWD %s, %s", from, e.v(reg))
			e.op("VPSLLD", "$16", reg, reg)
		})
	}},
}

// Registers: 0 to 3 hold scales and minimums of two runs of 16 values, 4 to 7 values, 8 and up are the
// body's; codes are put from 8 unless it says otherwise.
const (
	scaleA, scaleB = 0, 1
	minA, minB     = 2, 3
	widened        = 4
)

// values are 32 codes and what makes numbers of them: code·scale, less a minimum or plus one.
type values struct {
	register     int  // where the codes are, 0 for 8
	memory       int  // or where they begin in the block, with bare or where the format is Q8_0
	bare         bool // from memory and without a scale
	signed       bool
	scales, mins []int // one register for all, or one for each run of 16
	plus         bool
	at           int // the first value's place in the block
}

// put uses 32 values, half of a run of 16 or more at a time.
func (e *emitter) put(v values) {
	widen := "VPMOVZXBD"
	if v.signed {
		widen = "VPMOVSXBD"
	}
	const n = 2 // vectors at a time
	code := v.register
	if code == 0 {
		code = 8
	}
	of := func(regs []int, at int) int { return regs[at/e.lanes*len(regs)*e.lanes/32] }
	for at := 0; at < 32; at += n * e.lanes {
		switch {
		case v.bare || v.memory > 0:
			for i := range n {
				e.p("%s %d(SI), %s", widen, v.memory+at+e.lanes*i, e.v(widened+i))
			}
		case e.letter == "Z":
			e.p("VEXTRACTI128 $1, Y%d, X%d", code, widened+1)
			e.p("%s X%d, Z%d", widen, code, widened)
			e.p("%s X%d, Z%d", widen, widened+1, widened+1)
		default:
			from := code
			if at > 0 {
				from = widened + 2
				e.p("VEXTRACTI128 $1, Y%d, X%d", code, from)
			}
			e.p("VPSRLDQ $8, X%d, X%d", from, widened+1)
			e.p("%s X%d, Y%d", widen, from, widened)
			e.p("%s X%d, Y%d", widen, widened+1, widened+1)
		}
		for i := range n {
			e.op("VCVTDQ2PS", widened+i, widened+i)
		}
		for i := range n {
			if !v.bare {
				e.op("VMULPS", of(v.scales, at+e.lanes*i), widened+i, widened+i)
			}
		}
		for i := range n {
			switch {
			case v.mins == nil:
			case v.plus:
				e.op("VADDPS", of(v.mins, at+e.lanes*i), widened+i, widened+i)
			default:
				e.op("VSUBPS", of(v.mins, at+e.lanes*i), widened+i, widened+i)
			}
		}
		for i := range n {
			e.use(widened+i, v.at+at+e.lanes*i)
		}
	}
}

// use stores a vector of values, which begin at a place in the block, or multiplies them by those of x.
func (e *emitter) use(reg, at int) {
	if e.sums {
		e.p("VFMADD231PS %d(DI), %s, %s", 4*at, e.v(reg), e.v(e.partial(at)))
	} else {
		e.p("VMOVUPS %s, %d(DI)", e.v(reg), 4*at)
	}
}

// partial is the register of the partial sums that a vector at a place is added to: 32 in all.
func (e *emitter) partial(at int) int {
	if e.letter == "Z" {
		return []int{16, 17}[at/16%2]
	}
	return []int{7, 13, 14, 15}[at/8%4]
}

// half broadcasts the half-precision number at a place in the block.
func (e *emitter) half(at, reg int) {
	e.p("MOVWLZX %d(SI), AX", at)
	e.p("VMOVD AX, X%d", reg)
	e.p("VCVTPH2PS X%d, X%d", reg, reg)
	e.p("VBROADCASTSS X%d, %s", reg, e.v(reg))
}

// halves broadcasts two of them that lie side by side.
func (e *emitter) halves(at, first, second int) {
	e.p("VMOVD %d(SI), X%d", at, first)
	e.p("VCVTPH2PS X%d, X%d", first, first)
	e.p("VMOVSHDUP X%d, X%d", first, second)
	e.p("VBROADCASTSS X%d, %s", first, e.v(first))
	e.p("VBROADCASTSS X%d, %s", second, e.v(second))
}

// pairs leaves the nibbles of 16 bytes in register 8: the low ones, then the high ones.
func (e *emitter) pairs(at int) {
	e.p("VMOVDQU %d(SI), X8", at)
	e.p("VPSRLW $4, X8, X9")
	e.p("VINSERTI128 $1, X9, Y8, Y8")
	e.p("VPAND %s, Y8, Y8", bytesOf(15))
}

// The 16 numbers that a code of 4 bits stands for, or one of 5 bits whose fifth is known.
const (
	levels = iota
	levelsLess8
	levelsLess16
	levelsPlus16
	levelsIQ4
	levelsMXFP4
)

var levelTables = [...][16]int{
	levels:       {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	levelsLess8:  {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7},
	levelsLess16: {-16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1},
	levelsPlus16: {16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31},
	levelsIQ4:    {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113},
	levelsMXFP4:  {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12},
}

// tableOfValues is the register of the 16 values that codes under one scale can take (AVX-512), and the
// next that of those whose fifth bit is set.
const tableOfValues = 6

// scaled makes a table: one rounding an entry for what is one a value elsewhere.
func (e *emitter) scaled(which int, v values, table int) {
	e.op("VMULPS", fmt.Sprintf("·decodeLevels+%d(SB)", 64*which), v.scales[0], table)
	switch {
	case v.mins == nil:
	case v.plus:
		e.op("VADDPS", v.mins[0], table, table)
	default:
		e.op("VSUBPS", v.mins[0], table, table)
	}
}

// look uses the entries at the places in a register, of which the low four bits count; where the mask,
// if there is one, has a bit they are of the second table.
func (e *emitter) look(code, at int, mask string) {
	value := widened + at/16%2
	e.op("VPERMPS", tableOfValues, code, value)
	if mask != "" {
		e.p("VPERMPS %s, %s, %s, %s", e.v(tableOfValues+1), e.v(code), mask, e.v(value))
	}
	e.use(value, at)
}

// nibbles16 leaves the nibbles of 16 bytes in registers 8, the low ones, and 9; bits above them do not count.
func (e *emitter) nibbles16(at int) {
	e.p("VPMOVZXBD %d(SI), Z8", at)
	e.p("VPSRLD $4, Z8, Z9")
}

// fives uses codes whose fifth bits are a word before the nibbles (AVX-512).
func (e *emitter) fives(at, low, high int, v values) {
	e.scaled(low, v, tableOfValues)
	e.scaled(high, v, tableOfValues+1)
	e.nibbles16(at + 4)
	e.p("KMOVW %d(SI), K1", at)
	e.p("KMOVW %d(SI), K2", at+2)
	e.look(8, v.at, "K1")
	e.look(9, v.at+16, "K2")
}

// fours uses the nibbles of 16 bytes: the low ones, then the high ones.
func (e *emitter) fours(at, which int, v values) {
	if e.letter == "Z" {
		e.scaled(which, v, tableOfValues)
		e.nibbles16(at)
		e.look(8, v.at, "")
		e.look(9, v.at+16, "")
		return
	}
	e.pairs(at)
	switch which {
	case levels:
	case levelsLess8:
		e.p("VPSUBB %s, Y8, Y8", bytesOf(8))
	default:
		e.p("VMOVDQU %s, Y9", decodeConstant(fmt.Sprint("levels", which)))
		e.p("VPSHUFB Y8, Y9, Y8")
	}
	e.put(v)
}

// fifthBits leaves in register 9 a byte of ones for each bit of a word that is set.
func (e *emitter) fifthBits(at int) {
	e.p("VPBROADCASTD %d(SI), Y9", at)
	e.p("VPSHUFB %s, Y9, Y9", decodeConstant("eights"))
	e.p("VMOVDQU %s, Y10", decodeConstant("bits"))
	e.p("VPAND Y10, Y9, Y9")
	e.p("VPCMPEQB Y10, Y9, Y9")
}

// park widens the low n bytes (8 or 16) of a register to float32, multiplies them by d and leaves them on
// the stack.
func (e *emitter) park(n, reg, d, at int, signed bool) {
	widen := "VPMOVZXBD"
	if signed {
		widen = "VPMOVSXBD"
	}
	for i := 0; i < n; i += 8 {
		if i > 0 {
			e.p("VPSRLDQ $8, X%d, X%d", reg, reg)
		}
		e.p("%s X%d, Y%d", widen, reg, widened)
		e.p("VCVTDQ2PS Y%d, Y%d", widened, widened)
		e.p("VMULPS Y%d, Y%d, Y%d", d, widened, widened)
		e.p("VMOVUPS Y%d, %d(SP)", widened, at+4*i)
	}
}

// parked broadcasts number i of those on the stack.
func (e *emitter) parked(at, i, reg int) { e.p("VBROADCASTSS %d(SP), %s", at+4*i, e.v(reg)) }

// shifted leaves the bits of src that mask has, after a shift to the right (or, below 0, to the left), in
// dst. Words are shifted, and the mask drops what came from the byte beside.
func (e *emitter) shifted(src, right, mask, dst int) {
	switch {
	case right > 0:
		e.p("VPSRLW $%d, Y%d, Y%d", right, src, dst)
		src = dst
	case right < 0:
		e.p("VPSLLW $%d, Y%d, Y%d", -right, src, dst)
		src = dst
	}
	e.p("VPAND %s, Y%d, Y%d", bytesOf(mask), src, dst)
}

func decodeQ2K(e *emitter) {
	e.halves(80, scaleA, minA)
	e.p("VMOVDQU (SI), X8")
	e.p("VPSRLW $4, X8, X9")
	e.p("VPAND %s, X8, X8", bytesOf(15))
	e.p("VPAND %s, X9, X9", bytesOf(15))
	e.park(16, 8, scaleA, 0, false)
	e.park(16, 9, minA, 64, false)
	for h := range 2 {
		e.p("VMOVDQU %d(SI), Y9", 16+32*h)
		for quarter := range 4 {
			part := 8*h + 2*quarter
			e.parked(0, part, scaleA)
			e.parked(0, part+1, scaleB)
			e.parked(64, part, minA)
			e.parked(64, part+1, minB)
			e.shifted(9, 2*quarter, 3, 8)
			e.put(values{scales: []int{scaleA, scaleB}, mins: []int{minA, minB}, at: 16 * part})
		}
	}
}

func decodeQ3K(e *emitter) {
	e.half(108, scaleA)
	e.p("VMOVQ 96(SI), X8") // low nibbles of 0 to 7, and above them of 8 to 15
	e.p("VPSRLW $4, X8, X9")
	e.p("VPUNPCKLQDQ X9, X8, X8")
	e.p("VPAND %s, X8, X8", bytesOf(15))
	e.p("VPBROADCASTD 104(SI), X9") // two more bits of each, by fours
	e.p("VPSRLVD %s, X9, X9", decodeConstant("twos"))
	e.p("VPAND %s, X9, X9", bytesOf(3))
	e.p("VPSLLW $4, X9, X9")
	e.p("VPOR X9, X8, X8")
	e.p("VPSUBB %s, X8, X8", bytesOf(32))
	e.park(16, 8, scaleA, 0, true)
	e.p("VMOVDQU (SI), Y10")
	for h := range 2 {
		e.p("VMOVDQU %d(SI), Y9", 32+32*h)
		for quarter := range 4 {
			part := 8*h + 2*quarter
			e.parked(0, part, scaleA)
			e.parked(0, part+1, scaleB)
			e.shifted(9, 2*quarter, 3, 8)
			e.shifted(10, 4*h+quarter-2, 4, 11) // the third bit
			e.p("VPOR Y11, Y8, Y8")
			e.p("VPSUBB %s, Y8, Y8", bytesOf(4))
			e.put(values{signed: true, scales: []int{scaleA, scaleB}, at: 16 * part})
		}
	}
}

// fourOrFive decodes Q4_K, or with the fifth bits' place Q5_K.
func (e *emitter) fourOrFive(fifths, nibbles int) {
	e.halves(0, scaleA, minA)
	// The 12 bytes of scales and minimums are three words: bytes of six bits, bytes of six bits, and
	// four bits of each, whose upper two are those left over in the first words.
	for i, reg := range []string{"R8", "R9", "R10"} {
		e.p("MOVL %d(SI), %s", 4+4*i, reg)
	}
	e.p("MOVL R10, R11")
	e.p("SHRL $4, R11")
	for i, r := range [][2]string{{"R8", "R10"}, {"R9", "R11"}} {
		low, high := r[0], r[1]
		e.p("MOVL %s, AX", low)
		e.p("SHRL $2, AX")
		e.p("ANDL $0x30303030, AX")
		e.p("ANDL $0x0f0f0f0f, %s", high)
		e.p("ORL AX, %s", high)
		e.p("ANDL $0x3f3f3f3f, %s", low)
		e.p("SHLQ $32, %s", high)
		e.p("ORQ %s, %s", low, high)
		e.p("VMOVQ %s, X8", high)
		e.park(8, 8, []int{scaleA, minA}[i], 32*i, false)
	}
	if fifths >= 0 {
		e.p("VMOVDQU %d(SI), Y10", fifths)
	}
	for part := range 8 {
		e.parked(0, part, scaleA)
		e.parked(32, part, minA)
		v := values{scales: []int{scaleA}, mins: []int{minA}, at: 32 * part}
		if fifths < 0 && e.letter == "Z" {
			e.scaled(levels, v, tableOfValues)
			for i := range 2 {
				if part%2 == 0 {
					e.p("VPMOVZXBD %d(SI), %s", nibbles+16*(part+i), e.v(8+i))
				} else {
					e.op("VPSRLD", "$4", 8+i, 8+i)
				}
				e.look(8+i, v.at+16*i, "")
			}
			continue
		}
		if part%2 == 0 {
			e.p("VMOVDQU %d(SI), Y9", nibbles+16*part)
		}
		e.shifted(9, 4*(part%2), 15, 8)
		if fifths >= 0 {
			e.shifted(10, part-4, 16, 11)
			e.p("VPOR Y11, Y8, Y8")
		}
		e.put(v)
	}
}

func decodeQ6K(e *emitter) {
	e.half(208, scaleA)
	e.p("VMOVDQU 192(SI), X8")
	e.park(16, 8, scaleA, 0, true)
	for h := range 2 {
		e.p("VMOVDQU %d(SI), Y9", 64*h)
		e.p("VMOVDQU %d(SI), Y10", 64*h+32)
		e.p("VMOVDQU %d(SI), Y11", 128+32*h)
		for quarter := range 4 {
			part := 8*h + 2*quarter
			e.parked(0, part, scaleA)
			e.parked(0, part+1, scaleB)
			e.shifted(9+quarter%2, 4*(quarter/2), 15, 8)
			e.shifted(11, 2*quarter-4, 0x30, 12)
			e.p("VPOR Y12, Y8, Y8")
			e.p("VPSUBB %s, Y8, Y8", bytesOf(32))
			e.put(values{signed: true, scales: []int{scaleA, scaleB}, at: 16 * part})
		}
	}
}

func decodeIQ4XS(e *emitter) {
	e.half(0, scaleA)
	e.p("VPBROADCASTD 4(SI), Y8") // low nibbles
	e.p("VPSRLVD %s, Y8, Y8", decodeConstant("fours"))
	e.p("VPAND %s, Y8, Y8", decodeConstant("int15"))
	e.p("VPBROADCASTD (SI), Y9") // two bits of each, in the upper half
	e.p("VPSRLVD %s, Y9, Y9", decodeConstant("upperTwos"))
	e.p("VPAND %s, Y9, Y9", decodeConstant("int3"))
	e.p("VPSLLD $4, Y9, Y9")
	e.p("VPOR Y9, Y8, Y8")
	e.p("VPSUBD %s, Y8, Y8", decodeConstant("int32"))
	e.p("VCVTDQ2PS Y8, Y8")
	e.p("VMULPS Y%d, Y8, Y8", scaleA)
	e.p("VMOVUPS Y8, (SP)")
	for part := range 8 {
		e.parked(0, part, scaleA)
		e.fours(8+16*part, levelsIQ4, values{signed: true, scales: []int{scaleA}, at: 32 * part})
	}
}

// wide uses 32 values of two bytes, which widen makes float32.
func (e *emitter) wide(widen func(from string, reg int)) {
	for at := 0; at < 32; at += e.lanes {
		widen(fmt.Sprintf("%d(SI)", 2*at), widened+at/e.lanes%2)
		e.use(widened+at/e.lanes%2, at)
	}
}

// eight widens 16 bytes at a time to words, which make makes halves of; each is multiplied by scale where
// there is one.
func (e *emitter) eight(scale string, make func()) {
	for at := 0; at < 32; at += 16 {
		e.p("VPMOVZXBW %d(SI), Y8", at)
		make()
		n := 16 / e.lanes
		if e.letter == "Z" {
			e.p("VCVTPH2PS Y8, Z4")
		} else {
			e.p("VEXTRACTI128 $1, Y8, X9")
			e.p("VCVTPH2PS X8, Y4")
			e.p("VCVTPH2PS X9, Y5")
		}
		for i := range n {
			if scale != "" {
				e.op("VMULPS", scaleA, 4+i, 4+i)
			}
			e.use(4+i, at+e.lanes*i)
		}
	}
}

// decodeE5M2: the upper byte of a half.
func decodeE5M2(e *emitter) { e.eight("", func() { e.p("VPSLLW $8, Y8, Y8") }) }

// decodeE4M3: exponent and mantissa in their place in a half, whose bias is larger by 8.
func decodeE4M3(e *emitter) {
	e.p("VBROADCASTSS %s, %s", decodeConstant("256"), e.v(scaleA))
	e.eight("256", func() {
		e.p("VPAND %s, Y8, Y9", decodeConstant("word127"))
		e.p("VPAND %s, Y8, Y8", decodeConstant("word128"))
		e.p("VPSLLW $8, Y8, Y8")
		e.p("VPCMPEQW %s, Y9, Y10", decodeConstant("word127")) // NaN
		e.p("VPAND %s, Y10, Y10", decodeConstant("wordNaN"))
		e.p("VPSLLW $7, Y9, Y9")
		e.p("VPOR Y9, Y8, Y8")
		e.p("VPOR Y10, Y8, Y8")
	})
}

// decoder emits the loop over the blocks of a format.
func (e *emitter) decoder(b blockDecoder) {
	fmt.Fprintf(e, "\n// func decode%s%s(dst *float32, src *byte, blocks int)\nTEXT ·decode%s%s(SB), NOSPLIT, $%d-24\n", b.name, e.suffix, b.name, e.suffix, b.stack)
	e.p("MOVQ dst+0(FP), DI")
	e.p("MOVQ src+8(FP), SI")
	e.p("MOVQ blocks+16(FP), CX")
	e.label("block")
	b.body(e)
	e.p("ADDQ $%d, SI", b.bytes)
	e.p("ADDQ $%d, DI", 4*b.elems)
	e.p("DECQ CX")
	e.p("JNZ block")
	e.p("VZEROUPPER")
	e.p("RET")
}

// ahead is how many bytes before their turn rows are asked for from memory.
const ahead = 4096

// dotter emits the products of x with rows of a format, each of so many blocks: the values are those of
// the decoder, and the order of a sum is that of the products of few rows (dot in _asm/gemm), so that both
// give the same bits.
func (e *emitter) dotter(b blockDecoder) {
	e.sums = true
	defer func() { e.sums = false }()
	fmt.Fprintf(e, "\n// func dot%s%s(out, x *float32, src *byte, rows, blocks int)\nTEXT ·dot%s%s(SB), NOSPLIT, $%d-40\n", b.name, e.suffix, b.name, e.suffix, b.stack)
	for i, r := range []string{"DX", "BX", "SI", "R12", "R13"} {
		e.p("MOVQ %s+%d(FP), %s", []string{"out", "x", "src", "rows", "blocks"}[i], 8*i, r)
	}
	e.label("row")
	e.p("MOVQ BX, DI")
	e.p("MOVQ R13, CX")
	for at := 0; at < 32; at += e.lanes {
		r := e.partial(at)
		e.op(e.integer("VPXOR"), r, r, r)
	}
	e.label("block")
	for line := 0; line < b.bytes; line += 64 { // the processor itself does not look past a page
		e.p("PREFETCHT0 %d(SI)", ahead+line)
	}
	b.body(e)
	e.p("ADDQ $%d, SI", b.bytes)
	e.p("ADDQ $%d, DI", 4*b.elems)
	e.p("DECQ CX")
	e.p("JNZ block")
	const sum, other = 4, 5
	e.op("VADDPS", e.partial(16), e.partial(0), sum)
	if e.letter == "Z" {
		e.p("VEXTRACTF64X4 $1, Z%d, Y%d", sum, other)
	} else {
		e.op("VADDPS", e.partial(24), e.partial(8), other)
	}
	e.p("VADDPS Y%d, Y%d, Y%d", other, sum, sum)
	e.p("VEXTRACTF128 $1, Y%d, X%d", sum, other)
	e.p("VADDPS X%d, X%d, X%d", other, sum, sum)
	e.p("VPERMILPD $1, X%d, X%d", sum, other)
	e.p("VADDPS X%d, X%d, X%d", other, sum, sum)
	e.p("VMOVSHDUP X%d, X%d", sum, other)
	e.p("VADDSS X%d, X%d, X%d", other, sum, sum)
	e.p("VMOVSS X%d, (DX)", sum)
	e.p("ADDQ $4, DX")
	e.p("DECQ R12")
	e.p("JNZ row")
	e.p("VZEROUPPER")
	e.p("RET")
}

// decodeConstants are 32 bytes each.
var decodeConstants = func() (list []struct {
	name string
	data [32]byte
}) {
	add := func(name string, width int, value func(i int) int) {
		var d [32]byte
		for i := range 32 / width {
			for j, v := 0, value(i); j < width; j++ {
				d[width*i+j] = byte(v >> (8 * j))
			}
		}
		list = append(list, struct {
			name string
			data [32]byte
		}{name, d})
	}
	for _, n := range []int{3, 4, 8, 15, 16, 32, 0x30, 0xf0} {
		add(fmt.Sprint("byte", n), 1, func(int) int { return n })
	}
	for _, n := range []int{3, 15, 32} {
		add(fmt.Sprint("int", n), 4, func(int) int { return n })
	}
	for _, n := range []int{127, 128} {
		add(fmt.Sprint("word", n), 2, func(int) int { return n })
	}
	add("wordNaN", 2, func(int) int { return 0x7e00 })
	add("256", 4, func(int) int { return 0x43800000 }) // float32
	add("eights", 1, func(i int) int { return i / 8 })
	add("bits", 1, func(i int) int { return 1 << (i % 8) })
	add("twos", 4, func(i int) int { return 2 * (i % 4) })
	add("fours", 4, func(i int) int { return 4 * i })
	add("upperTwos", 4, func(i int) int { return 16 + 2*i })
	for _, which := range []int{levelsIQ4, levelsMXFP4} {
		add(fmt.Sprint("levels", which), 1, func(i int) int { return levelTables[which][i%16] })
	}
	return list
}()

func decodeConstant(name string) string {
	for i, c := range decodeConstants {
		if c.name == name {
			return fmt.Sprintf("·decodeConst+%d(SB)", 32*i)
		}
	}
	panic("no constant " + name)
}

// bytesOf is the constant of 32 equal bytes.
func bytesOf(n int) string { return decodeConstant(fmt.Sprint("byte", n)) }

// decoders is decode_amd64.s.
func decoders() []byte {
	var asm emitter
	asm.raw("// Code generated by _asm/vec. DO NOT EDIT.\n\n//go:build amd64 && !purego\n\n#include \"textflag.h\"\n")
	for _, b := range blockDecoders {
		for _, set := range []isa{avx2, avx512} {
			asm.isa = set
			asm.decoder(b)
		}
	}
	for _, b := range slices.Concat(blockDecoders, wideDecoders) {
		for _, set := range []isa{avx2, avx512} {
			asm.isa = set
			asm.dotter(b)
		}
	}
	asm.raw("\n")
	for i, c := range decodeConstants {
		for j := 0; j < 32; j += 8 {
			v := uint64(0)
			for k := range 8 {
				v |= uint64(c.data[j+k]) << (8 * k)
			}
			fmt.Fprintf(&asm, "DATA ·decodeConst+%d(SB)/8, $0x%016x\n", 32*i+j, v)
		}
	}
	for i, t := range levelTables {
		for j, v := range t {
			fmt.Fprintf(&asm, "DATA ·decodeLevels+%d(SB)/4, $0x%08x\n", 64*i+4*j, math.Float32bits(float32(v)))
		}
	}
	fmt.Fprintf(&asm, "GLOBL ·decodeLevels(SB), RODATA|NOPTR, $%d\n", 64*len(levelTables))
	fmt.Fprintf(&asm, "GLOBL ·decodeConst(SB), RODATA|NOPTR, $%d\n", 32*len(decodeConstants))
	return asm.Bytes()
}

// decoderTable is decode_amd64.go.
func decoderTable() string {
	var b strings.Builder
	b.WriteString("// Code generated by _asm/vec. DO NOT EDIT.\n\n//go:build amd64 && !purego\n\npackage kernel\n")
	for _, t := range []struct {
		what, args string
		of         []blockDecoder
	}{
		{"decode", "(dst *float32, src *byte, blocks int)", blockDecoders},
		{"dot", "(out, x *float32, src *byte, rows, blocks int)", slices.Concat(blockDecoders, wideDecoders)},
	} {
		for _, d := range t.of {
			for _, set := range []isa{avx2, avx512} {
				fmt.Fprintf(&b, "\n//go:noescape\nfunc %s%s%s%s\n", t.what, d.name, set.suffix, t.args)
			}
		}
		fmt.Fprintf(&b, "\nvar %sFormats = [...]struct{ avx2, avx512 func%s }{\n", t.what, t.args)
		for _, d := range t.of {
			fmt.Fprintf(&b, "%[1]s: {%[2]s%[1]sAVX2, %[2]s%[1]sAVX512},\n", d.name, t.what)
		}
		b.WriteString("}\n")
	}
	return b.String()
}
