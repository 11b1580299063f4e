package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// isa is an instruction set: its register letter and the float32 lanes of one.
type isa struct {
	suffix, letter string
	lanes          int
}

var (
	avx2   = isa{"AVX2", "Y", 8}
	avx512 = isa{"AVX512", "Z", 16}
	bf16   = isa{"BF16", "Z", 16} // AVX-512 and AVX512-BF16
)

// kernel describes a loop over vectors of equal length n.
type kernel struct {
	name    string
	slices  []string // pointers, in order; n is the length of each
	scalars []string // float32, broadcast to registers scalarReg and up
	table   string   // type of a pointer to more float32 scalars, or none
	count   int      // how many the table holds
	result  string   // float32, float64 or none
	unroll  int      // loop bodies a turn; a reduction has as many accumulators
	double  bool     // sums in float64: half the lanes
	// half, of AVX-512 alone: the slices are bfloat16, widened when loaded and rounded
	// to the nearest even when stored.
	half bool
	// start, if any, computes more loop constants from the scalars.
	start func(e *emitter)
	// body handles one vector; u is its number among the unrolled ones.
	body func(e *emitter, u int)
	// fold, for a reduction, joins two registers: "VADDPS" and so on.
	fold string
	// initial is the constant a reduction starts from; empty means zero.
	initial string
}

// Registers: 0–7 are the body's; 8–14 hold scalars; a reduction has its
// accumulators from 4 on (4–7). AVX2 keeps its tail mask in 15.
const (
	scalarReg = 8
	sumReg    = 4
	maskReg   = 15
)

var pointerRegs = []string{"DI", "SI", "DX", "R8", "R9", "R10"}

// emitter writes the text of the assembly file.
type emitter struct {
	bytes.Buffer
	isa
	k      *kernel
	offset int  // of the current vector, in bytes
	masked bool // the body is that of the tail
	sums   bool // of decoders: values are multiplied, not stored
}

func (e *emitter) raw(s string)              { e.WriteString(s) }
func (e *emitter) p(format string, a ...any) { fmt.Fprintf(e, "\t"+format+"\n", a...) }
func (e *emitter) label(name string)         { fmt.Fprintf(e, "%s:\n", name) }

// v names register i.
func (e *emitter) v(i int) string { return fmt.Sprintf("%s%d", e.letter, i) }

// op emits an instruction on registers given by number (int) or as text
// (memory), in the order of the Go assembler: the destination last.
func (e *emitter) op(name string, operands ...any) {
	var s []string
	for _, o := range operands {
		if i, ok := o.(int); ok {
			s = append(s, e.v(i))
		} else {
			s = append(s, o.(string))
		}
	}
	e.p("%s %s", name, strings.Join(s, ", "))
}

// constant is the memory operand of a constant, replicated to a full vector.
func constant(name string) string { return fmt.Sprintf("·vecConst+%d(SB)", 64*constantIndex[name]) }

var constantList = []struct {
	name  string
	value uint32
}{
	{"log2e", math.Float32bits(math.Log2E)},
	{"ln2hi", math.Float32bits(ln2hi)},
	{"ln2lo", math.Float32bits(float32(math.Ln2 - float64(ln2hi)))},
	{"expmax", math.Float32bits(89)},
	{"expmin", math.Float32bits(-104)},
	{"half", math.Float32bits(1. / 2)},
	{"1/3!", math.Float32bits(1. / 6)},
	{"1/4!", math.Float32bits(1. / 24)},
	{"1/5!", math.Float32bits(1. / 120)},
	{"1/6!", math.Float32bits(1. / 720)},
	{"1/7!", math.Float32bits(1. / 5040)},
	{"one", math.Float32bits(1)},
	{"-inf", math.Float32bits(float32(math.Inf(-1)))},
	{"sign", 1 << 31},
	{"tanhmax", math.Float32bits(20)},
}

const ln2hi = float32(math.Ln2)

var constantIndex = func() map[string]int {
	m := map[string]int{}
	for i, c := range constantList {
		m[c.name] = i
	}
	return m
}()

// constants emits the data: the constants and the window of tail masks.
func (e *emitter) constants() {
	e.raw("\n")
	for i, c := range constantList {
		for j := range 8 {
			fmt.Fprintf(e, "DATA ·vecConst+%d(SB)/8, $0x%08x%08x\n", 64*i+8*j, c.value, c.value)
		}
	}
	fmt.Fprintf(e, "GLOBL ·vecConst(SB), RODATA|NOPTR, $%d\n\n", 64*len(constantList))
	for j := range 8 {
		fmt.Fprintf(e, "DATA ·vecIota+%d(SB)/8, $0x%08x%08x\n", 8*j, 2*j+1, 2*j)
	}
	e.raw("GLOBL ·vecIota(SB), RODATA|NOPTR, $64\n\n")
	for j := range 8 {
		fmt.Fprintf(e, "DATA ·vecMask+%d(SB)/8, $%d\n", 8*j, map[bool]int{true: -1, false: 0}[j < 4])
	}
	e.raw("GLOBL ·vecMask(SB), RODATA|NOPTR, $64\n")
}

// asmParams is the parameter list of the assembly form.
func (k *kernel) asmParams() string {
	s := strings.Join(k.slices, ", ") + " *float32, n int"
	if k.half {
		s = strings.Join(k.slices, ", ") + " *byte, n int"
	}
	if len(k.scalars) > 0 {
		s += ", " + strings.Join(k.scalars, ", ") + " float32"
	}
	if k.table != "" {
		s += ", k *" + k.table
	}
	return s
}

// ld loads the current vector of slice i; in the tail the lanes past the end
// are zero and not touched.
func (e *emitter) ld(slice, reg int) {
	at := fmt.Sprintf("%d(%s)", e.offset, pointerRegs[slice])
	switch {
	case e.k.half:
		if e.masked {
			e.p("VPMOVZXWD.Z %s, K1, %s", at, e.v(reg))
		} else {
			e.p("VPMOVZXWD %s, %s", at, e.v(reg))
		}
		e.p("VPSLLD $16, %s, %s", e.v(reg), e.v(reg))
	case !e.masked:
		e.p("VMOVUPS %s, %s", at, e.v(reg))
	case e.letter == "Z":
		e.p("VMOVUPS.Z %s, K1, %s", at, e.v(reg))
	default:
		e.p("VMASKMOVPS %s, %s, %s", at, e.v(maskReg), e.v(reg))
	}
}

// st stores the current vector of slice i.
func (e *emitter) st(reg, slice int) {
	at := fmt.Sprintf("%d(%s)", e.offset, pointerRegs[slice])
	switch {
	case e.k.half:
		e.narrow(reg, at)
	case !e.masked:
		e.p("VMOVUPS %s, %s", e.v(reg), at)
	case e.letter == "Z":
		e.p("VMOVUPS %s, K1, %s", e.v(reg), at)
	default:
		e.p("VMASKMOVPS %s, %s, %s", e.v(reg), e.v(maskReg), at)
	}
}

// The constants and scratch of narrow, in registers that AVX-512 alone has.
const (
	almostHalf, one, quiet = "Z16", "Z17", "Z18"
	upper, sum             = "Z19", "Z20"
)

// narrow stores reg, rounded to bfloat16: half of the last bit kept, less one if that bit
// is even, is added; a NaN becomes quiet.
func (e *emitter) narrow(reg int, at string) {
	if e.suffix == bf16.suffix {
		e.narrowOne(reg)
		if e.masked {
			e.p("VMOVDQU16 Y%d, K1, %s", reg, at)
		} else {
			e.p("VMOVDQU Y%d, %s", reg, at)
		}
		return
	}
	x := e.v(reg)
	e.p("VPSRLD $16, %s, %s", x, upper)
	e.p("VPANDD %s, %s, %s", one, upper, sum)
	e.p("VPADDD %s, %s, %s", almostHalf, sum, sum)
	e.p("VPADDD %s, %s, %s", x, sum, sum)
	e.p("VPSRLD $16, %s, %s", sum, sum)
	e.p("VCMPPS $3, %s, %s, K2", x, x)
	e.p("VPORD %s, %s, K2, %s", quiet, upper, sum)
	if e.masked {
		e.p("VPMOVDW %s, K1, %s", sum, at)
	} else {
		e.p("VPMOVDW %s, %s", sum, at)
	}
}

// narrowOne rounds a register, below 8, to bfloat16 in its lower half, subnormal numbers to zero:
// VCVTNEPS2BF16, which the Go assembler does not know, EVEX.512 with the prefix F3, map 0F38, opcode 72.
func (e *emitter) narrowOne(reg int) {
	e.p("BYTE $0x62; BYTE $0xf2; BYTE $0x7e; BYTE $0x48; BYTE $0x72; BYTE $0x%02x // VCVTNEPS2BF16 Z%d, Y%d", 0xc0|reg<<3|reg, reg, reg)
}

// dead sets the lanes past the end of reg to the bits of constant name, or to
// zero when it is empty; it uses register tmp.
func (e *emitter) dead(reg, tmp int, name string) {
	if !e.masked {
		return
	}
	if name == "" {
		e.op("VXORPS", tmp, tmp, tmp)
	} else {
		e.op("VMOVUPS", constant(name), tmp)
	}
	if e.letter == "Z" {
		e.p("VBLENDMPS %s, %s, K1, %s", e.v(reg), e.v(tmp), e.v(reg))
	} else {
		e.p("VBLENDVPS %s, %s, %s, %s", e.v(maskReg), e.v(reg), e.v(tmp), e.v(reg))
	}
}

// exp emits x = eˣ; t, t+1 and t+2 are used: what expm1 takes apart, and a scaling that
// rounds once.
func (e *emitter) exp(x, t int) {
	k, p := t, t+1
	e.op("VMOVUPS", constant("expmax"), k)
	e.op("VMINPS", x, k, x) // a NaN in x is the result: it is the last source
	e.op("VMOVUPS", constant("expmin"), k)
	e.op("VMAXPS", x, k, x)
	e.reduced(x, t)
	e.op("VADDPS", constant("one"), x, x)
	if e.letter == "Z" {
		e.op("VSCALEFPS", k, x, x)
		return
	}
	// 2ᵏ as the product of two, so that neither leaves the range of exponents.
	e.op("VCVTPS2DQ", k, k)
	e.op("VPSRAD", "$1", k, p)
	e.op("VPSUBD", p, k, k)
	for _, half := range []int{p, k} {
		e.op("VPSLLD", "$23", half, half)
		e.op("VPADDD", constant("one"), half, half)
		e.op("VMULPS", half, x, x)
	}
}

// expm1 emits x = eˣ − 1 for x in [0, 20]; t, t+1 and t+2 are used.
func (e *emitter) expm1(x, t int) {
	k, p := t, t+1
	e.reduced(x, t)
	e.op("VCVTPS2DQ", k, k)
	e.op("VPSLLD", "$23", k, k)
	e.op("VPADDD", constant("one"), k, k) // 2ᵏ
	e.op("VSUBPS", constant("one"), k, p)
	e.op("VFMADD213PS", p, k, x)
}

// reduced leaves k in t and eʳ − 1 in x, x being k·ln 2 + r, by a Taylor polynomial in r
// to r⁷; t+1 and t+2 are used.
func (e *emitter) reduced(x, t int) {
	k, p, q := t, t+1, t+2
	e.op("VMULPS", constant("log2e"), x, k)
	if e.letter == "Z" {
		e.op("VRNDSCALEPS", "$8", k, k)
	} else {
		e.op("VROUNDPS", "$8", k, k)
	}
	e.op("VFNMADD231PS", constant("ln2hi"), k, x)
	e.op("VFNMADD231PS", constant("ln2lo"), k, x)
	e.op("VMOVUPS", constant("1/7!"), p)
	for _, c := range []string{"1/6!", "1/5!", "1/4!", "1/3!", "half"} {
		e.op("VFMADD213PS", constant(c), x, p)
	}
	e.op("VMULPS", x, x, q)
	e.op("VFMADD231PS", q, p, x)
}

// kernel emits one kernel for the current instruction set.
func (e *emitter) kernel(k *kernel) {
	e.k = k
	size := 8*(len(k.slices)+1) + 4*len(k.scalars)
	if k.table != "" {
		size += 8
	}
	ret := (size + 7) &^ 7
	total := ret + map[string]int{"": 0, "float32": 4, "float64": 8}[k.result]
	result := ""
	if k.result != "" {
		result = " " + k.result
	} else {
		total = size
	}
	fmt.Fprintf(e, "\n// func %s%s(%s)%s\nTEXT ·%s%s(SB), NOSPLIT, $0-%d\n", k.name, e.suffix, k.asmParams(), result, k.name, e.suffix, total)
	for i, s := range k.slices {
		e.p("MOVQ %s+%d(FP), %s", s, 8*i, pointerRegs[i])
	}
	at := 8 * len(k.slices)
	e.p("MOVQ n+%d(FP), CX", at)
	at += 8
	for i, s := range k.scalars {
		e.p("VBROADCASTSS %s+%d(FP), %s", s, at+4*i, e.v(scalarReg+i))
	}
	if k.table != "" {
		e.p("MOVQ k+%d(FP), AX", at)
		for i := range k.count {
			e.p("VBROADCASTSS %d(AX), %s", 4*i, e.v(scalarReg+i))
		}
	}
	if k.half && e.suffix != bf16.suffix {
		for _, c := range []struct {
			reg  string
			bits int
		}{{almostHalf, 0x7fff}, {one, 1}, {quiet, 64}} {
			e.p("MOVL $%d, AX", c.bits)
			e.p("VPBROADCASTD AX, %s", c.reg)
		}
	}
	if k.start != nil {
		k.start(e)
	}
	if k.result != "" {
		for u := range k.unroll {
			if k.initial != "" {
				e.op("VMOVUPS", constant(k.initial), sumReg+u)
			} else {
				e.op("VXORPS", sumReg+u, sumReg+u, sumReg+u)
			}
		}
	}
	e.loop(k)
	if k.result != "" {
		e.reduce(k, ret)
	}
	e.p("VZEROUPPER")
	e.p("RET")
}

// loop emits the unrolled loop, the single vectors and the masked tail.
func (e *emitter) loop(k *kernel) {
	lanes := e.lanes
	if k.double {
		lanes /= 2
	}
	width := 4
	if k.half {
		width = 2
	}
	advance := func(n int) {
		for i := range k.slices {
			e.p("ADDQ $%d, %s", width*lanes*n, pointerRegs[i])
		}
	}
	one := "next"
	if k.unroll > 1 {
		e.p("SUBQ $%d, CX", lanes*k.unroll)
		e.p("JL rest")
		e.label("loop")
		for u := range k.unroll {
			e.offset = width * lanes * u
			k.body(e, u)
		}
		e.offset = 0
		advance(k.unroll)
		e.p("SUBQ $%d, CX", lanes*k.unroll)
		e.p("JGE loop")
		e.label("rest")
		e.p("ADDQ $%d, CX", lanes*k.unroll)
	}
	e.p("SUBQ $%d, CX", lanes)
	e.p("JL tail")
	e.label(one)
	k.body(e, 0)
	advance(1)
	e.p("SUBQ $%d, CX", lanes)
	e.p("JGE %s", one)
	e.label("tail")
	e.p("ADDQ $%d, CX", lanes)
	e.p("JZ done")
	if e.letter == "Z" {
		e.p("MOVL $1, AX")
		e.p("SHLL CX, AX")
		e.p("DECL AX")
		e.p("KMOVW AX, K1")
	} else {
		e.p("SHLQ $2, CX")
		e.p("LEAQ ·vecMask+32(SB), AX")
		e.p("SUBQ CX, AX")
		e.p("VMOVUPS (AX), %s", e.v(maskReg))
	}
	e.masked = true
	k.body(e, 0)
	e.masked = false
	e.label("done")
}

// reduce joins the accumulators and their lanes, always in the same order.
func (e *emitter) reduce(k *kernel, ret int) {
	for n := k.unroll; n > 1; n /= 2 {
		for u := range n / 2 {
			e.op(k.fold, sumReg+u+n/2, sumReg+u, sumReg+u)
		}
	}
	if e.letter == "Z" {
		e.p("VEXTRACTF64X4 $1, Z%d, Y0", sumReg)
		e.p("%s Y0, Y%d, Y%d", k.fold, sumReg, sumReg)
	}
	e.p("VEXTRACTF128 $1, Y%d, X0", sumReg)
	e.p("%s X0, X%d, X%d", k.fold, sumReg, sumReg)
	e.p("VPERMILPS $0x4e, X%d, X0", sumReg)
	e.p("%s X0, X%d, X%d", k.fold, sumReg, sumReg)
	if k.double {
		e.p("VMOVSD X%d, ret+%d(FP)", sumReg, ret)
		return
	}
	e.p("VPERMILPS $1, X%d, X0", sumReg)
	e.p("%s X0, X%d, X%d", k.fold, sumReg, sumReg)
	e.p("VMOVSS X%d, ret+%d(FP)", sumReg, ret)
}
