package main

import (
	"fmt"
	"math/bits"
)

// kernels lists every kernel; the plain Go form of each, in vec_generic.go,
// says what it computes.
var kernels = []*kernel{
	{name: "vecAdd", slices: []string{"dst", "a", "b"}, unroll: 4, body: func(e *emitter, u int) {
		e.ld(1, u)
		e.ld(2, 4+u)
		e.op("VADDPS", 4+u, u, u)
		e.st(u, 0)
	}},
	{name: "vecMul", slices: []string{"dst", "a", "b"}, unroll: 4, body: func(e *emitter, u int) {
		e.ld(1, u)
		e.ld(2, 4+u)
		e.op("VMULPS", 4+u, u, u)
		e.st(u, 0)
	}},
	{name: "vecAxpy", slices: []string{"dst", "x"}, scalars: []string{"s"}, unroll: 4, body: func(e *emitter, u int) {
		e.ld(0, u)
		e.ld(1, 4+u)
		e.op("VFMADD231PS", 4+u, scalarReg, u)
		e.st(u, 0)
	}},
	{name: "vecScale", slices: []string{"dst", "x"}, scalars: []string{"s"}, unroll: 4, body: func(e *emitter, u int) {
		e.ld(1, u)
		e.op("VMULPS", u, scalarReg, u)
		e.st(u, 0)
	}},
	{name: "vecMulAxpy", slices: []string{"dst", "a", "b"}, scalars: []string{"s"}, unroll: 2, body: func(e *emitter, u int) {
		e.ld(0, u)
		e.ld(1, 2+u)
		e.ld(2, 4+u)
		e.op("VMULPS", 2+u, scalarReg, 2+u)
		e.op("VFMADD231PS", 4+u, 2+u, u)
		e.st(u, 0)
	}},
	{name: "vecSubMul", slices: []string{"dst", "x"}, scalars: []string{"s"}, unroll: 2, body: func(e *emitter, u int) {
		e.ld(0, u)
		e.ld(1, 2+u)
		e.op("VSUBPS", scalarReg, 2+u, 2+u)
		e.op("VMULPS", 2+u, u, u)
		e.st(u, 0)
	}},
	{name: "vecDot", slices: []string{"a", "b"}, result: "float32", fold: "VADDPS", unroll: 4, body: func(e *emitter, u int) {
		e.ld(0, 0)
		e.ld(1, 1)
		e.op("VFMADD231PS", 0, 1, sumReg+u)
	}},
	{name: "vecSumSquares", slices: []string{"x"}, result: "float64", fold: "VADDPD", double: true, unroll: 4, body: sumSquares},
	{name: "vecMax", slices: []string{"x"}, result: "float32", fold: "VMAXPS", initial: "-inf", unroll: 4, body: func(e *emitter, u int) {
		e.ld(0, 0)
		e.dead(0, 1, "-inf")
		e.op("VMAXPS", sumReg+u, 0, sumReg+u) // a NaN in x gives way: it is not the last source
	}},
	{name: "vecExp", slices: []string{"dst", "x"}, unroll: 1, body: func(e *emitter, u int) {
		e.ld(1, 0)
		e.exp(0, 1)
		e.st(0, 0)
	}},
	{name: "vecExpSum", slices: []string{"dst", "x"}, scalars: []string{"s"}, result: "float32", fold: "VADDPS", unroll: 2, body: func(e *emitter, u int) {
		e.ld(1, 0)
		e.op("VSUBPS", scalarReg, 0, 0)
		e.exp(0, 1)
		e.st(0, 0)
		e.dead(0, 1, "")
		e.op("VADDPS", 0, sumReg+u, sumReg+u)
	}},
	{name: "vecSoftcap", slices: []string{"dst", "x"}, scalars: []string{"c"}, unroll: 1,
		start: func(e *emitter) { // 2, and 2/c
			e.op("VMOVUPS", constant("one"), scalarReg+1)
			e.op("VADDPS", scalarReg+1, scalarReg+1, scalarReg+1)
			e.op("VDIVPS", scalarReg, scalarReg+1, scalarReg+2)
		},
		// tanh z = (e²ᶻ − 1) / ((e²ᶻ − 1) + 2), with the sign apart.
		body: func(e *emitter, _ int) {
			const x, z, t = 0, 1, 2
			e.ld(1, x)
			e.op("VMULPS", scalarReg+2, x, z)
			e.op("VMOVUPS", constant("sign"), t)
			e.op("VANDNPS", z, t, z)
			e.op("VANDPS", x, t, x)
			e.op("VMOVUPS", constant("tanhmax"), t)
			e.op("VMINPS", z, t, z) // a NaN in z is the result: it is the last source
			e.expm1(z, t)
			e.op("VADDPS", scalarReg+1, z, t)
			e.op("VDIVPS", t, z, z)
			e.op("VMULPS", scalarReg, z, z)
			e.op("VORPS", x, z, x)
			e.st(x, 0)
		}},
	{name: "vecSoftcapBack", slices: []string{"dst", "x"}, scalars: []string{"c", "s"}, unroll: 2,
		start: func(e *emitter) { // 1, and 1/c
			e.op("VMOVUPS", constant("one"), scalarReg+2)
			e.op("VDIVPS", scalarReg, scalarReg+2, scalarReg+3)
		},
		body: func(e *emitter, u int) {
			e.ld(0, u)
			e.ld(1, 2+u)
			e.op("VMULPS", scalarReg+3, 2+u, 2+u)
			e.op("VMOVUPS", scalarReg+2, 4+u)
			e.op("VFNMADD231PS", 2+u, 2+u, 4+u)
			e.op("VSUBPS", scalarReg+1, u, u)
			e.op("VMULPS", 4+u, u, u)
			e.st(u, 0)
		}},
	{name: "vecNorm", slices: []string{"y", "x", "w"}, scalars: []string{"r", "off"}, unroll: 2, body: func(e *emitter, u int) {
		e.ld(1, u)
		e.ld(2, 2+u)
		e.op("VMULPS", u, scalarReg, u)
		e.op("VADDPS", 2+u, scalarReg+1, 2+u)
		e.op("VMULPS", 2+u, u, u)
		e.st(u, 0)
	}},
	{name: "vecNormDot", slices: []string{"dy", "x", "w"}, scalars: []string{"off"}, result: "float32", fold: "VADDPS", unroll: 4, body: func(e *emitter, u int) {
		e.ld(0, 0)
		e.ld(1, 1)
		e.ld(2, 2)
		e.op("VADDPS", 2, scalarReg, 2)
		e.op("VMULPS", 0, 2, 2)
		e.op("VFMADD231PS", 1, 2, sumReg+u)
	}},
	{name: "vecNormBack", slices: []string{"dx", "dy", "x", "w"}, scalars: []string{"r", "k", "off"}, unroll: 2, body: func(e *emitter, u int) {
		e.normBack(u)
		e.st(2+u, 0)
	}},
	{name: "vecNormBackAdd", slices: []string{"dx", "dy", "x", "w"}, scalars: []string{"r", "k", "off"}, unroll: 2, body: func(e *emitter, u int) {
		e.normBack(u)
		e.ld(0, u)
		e.op("VADDPS", 2+u, u, u)
		e.st(u, 0)
	}},
	glu("vecGLU", false),
	gluBack("vecGLUBack", false),
	{name: "vecRotate", slices: []string{"a", "b", "cos", "sin"}, scalars: []string{"sign"}, unroll: 1, body: func(e *emitter, _ int) {
		e.ld(0, 0)
		e.ld(1, 1)
		e.ld(2, 2)
		e.ld(3, 3)
		e.op("VMULPS", 3, scalarReg, 3)
		e.op("VMULPS", 3, 1, 4)
		e.op("VMULPS", 3, 0, 5)
		e.op("VFMSUB231PS", 2, 0, 4) // a·cos − b·sin
		e.op("VFMADD231PS", 2, 1, 5) // b·cos + a·sin
		e.st(4, 0)
		e.st(5, 1)
	}},
	{name: "vecDrop", slices: []string{"dst", "x"}, table: "dropScalars", count: 7, unroll: 1, start: dropStart, body: drop},
	{name: "adamW", slices: []string{"p", "grad", "m", "v"}, table: "adamWScalars", count: 7, unroll: 1, body: adamW},
}

// halfKernels are those on bfloat16, of AVX-512 alone.
var halfKernels = []*kernel{glu("vecGLUHalf", true), gluBack("vecGLUBackHalf", true)}

func glu(name string, half bool) *kernel {
	return &kernel{name: name, half: half, slices: []string{"y", "gate", "up"}, scalars: []string{"c1", "c3"}, unroll: 1, body: func(e *emitter, _ int) {
		e.ld(1, 0)
		e.ld(2, 1)
		e.gateDenominator(0, 2, 6)
		e.op("VDIVPS", 2, 0, 0)
		e.op("VMULPS", 1, 0, 0)
		e.st(0, 0)
	}}
}

func gluBack(name string, half bool) *kernel {
	return &kernel{name: name, half: half, slices: []string{"dg", "du", "dy", "gate", "up"}, scalars: []string{"c1", "c3"}, unroll: 1,
		start: func(e *emitter) { // 3·c3
			e.op("VADDPS", scalarReg+1, scalarReg+1, scalarReg+2)
			e.op("VADDPS", scalarReg+1, scalarReg+2, scalarReg+2)
		},
		body: func(e *emitter, _ int) {
			const g, dy, t, x2, d = 0, 1, 2, 6, 7
			e.ld(3, g)
			e.ld(2, dy)
			e.gateDenominator(g, t, x2)
			e.op("VMOVUPS", constant("one"), d)
			e.op("VDIVPS", t, d, t)                         // s = σ
			e.op("VMULPS", t, g, g)                         // a = x·s
			e.op("VSUBPS", t, d, d)                         // 1 − s
			e.op("VMULPS", g, d, d)                         // x·s·(1 − s)
			e.op("VFMADD213PS", scalarReg, scalarReg+2, x2) // c1 + 3·c3·x²
			e.op("VFMADD213PS", t, x2, d)                   // act′
			e.op("VMULPS", dy, g, g)
			e.ld(4, t)
			e.op("VMULPS", dy, t, t)
			e.op("VMULPS", t, d, d)
			e.st(g, 1)
			e.st(d, 0)
		}}
}

// sumSquares widens half a register of float32 to a register of float64.
func sumSquares(e *emitter, u int) {
	at := fmt.Sprintf("%d(DI)", e.offset)
	switch {
	case !e.masked:
		e.p("VCVTPS2PD %s, %s", at, e.v(0))
	case e.letter == "Z":
		e.p("VCVTPS2PD.Z %s, K1, Z0", at)
	default:
		e.p("VMASKMOVPS %s, X%d, X0", at, maskReg)
		e.p("VCVTPS2PD X0, Y0")
	}
	e.op("VFMADD231PD", 0, 0, sumReg+u)
}

// normBack leaves r·dy∘(w + off) − k·x in register 2+u; 4+u is used.
func (e *emitter) normBack(u int) {
	e.ld(1, u)
	e.ld(2, 4+u)
	e.ld(3, 2+u)
	e.op("VADDPS", 2+u, scalarReg+2, 2+u)
	e.op("VMULPS", u, scalarReg, u)
	e.op("VMULPS", u, 2+u, 2+u)
	e.op("VFNMADD231PS", 4+u, scalarReg+1, 2+u)
}

// gateDenominator leaves 1 + exp(−x·(c1 + c3·x²)) in t and x² in x2; t+1 to t+3
// are used.
func (e *emitter) gateDenominator(x, t, x2 int) {
	e.op("VMULPS", x, x, x2)
	e.op("VMOVUPS", scalarReg, t)
	e.op("VFMADD231PS", x2, scalarReg+1, t)
	e.op("VMULPS", x, t, t)
	e.op("VXORPS", constant("sign"), t, t)
	e.exp(t, t+1)
	e.op("VADDPS", constant("one"), t, t)
}

// The registers of drop.
const (
	dropScale, dropThreshold, dropCounter, dropKey = scalarReg, scalarReg + 1, scalarReg + 2, scalarReg + 3
	dropFirst, dropSecond, dropStep                = scalarReg + 4, scalarReg + 5, scalarReg + 6
)

// dropStart makes the counters of the first elements, and the step from one vector to the next.
func dropStart(e *emitter) {
	e.op("VPMULLD", "·vecIota(SB)", dropStep, 0)
	e.op("VPADDD", 0, dropCounter, dropCounter)
	e.op("VPSLLD", fmt.Sprintf("$%d", bits.Len(uint(e.lanes))-1), dropStep, dropStep)
}

// drop hashes each counter and keeps x, scaled, where the hash reaches the threshold.
func drop(e *emitter, _ int) {
	xor := "VPXOR"
	if e.letter == "Z" {
		xor = "VPXORD"
	}
	mix := func(shift int) {
		e.op("VPSRLD", fmt.Sprintf("$%d", shift), 0, 1)
		e.op(xor, 1, 0, 0)
	}
	e.op(xor, dropCounter, dropKey, 0)
	e.op("VPADDD", dropStep, dropCounter, dropCounter)
	mix(16)
	e.op("VPMULLD", dropFirst, 0, 0)
	mix(15)
	e.op("VPMULLD", dropSecond, 0, 0)
	mix(16)
	e.op("VPMAXUD", dropThreshold, 0, 1)
	e.ld(1, 2)
	e.op("VMULPS", dropScale, 2, 2)
	if e.letter == "Z" {
		e.p("VPCMPEQD Z0, Z1, K2")
		e.p("VMOVAPS.Z Z2, K2, Z2")
	} else {
		e.op("VPCMPEQD", 0, 1, 1)
		e.op("VPAND", 1, 2, 2)
	}
	e.st(2, 0)
}

// adamW follows PyTorch's order of operations.
func adamW(e *emitter, _ int) {
	const (
		p, g, m, v = 0, 1, 2, 3
		t          = 4

		decay, oneMinusBeta1, beta2, oneMinusBeta2 = scalarReg, scalarReg + 1, scalarReg + 2, scalarReg + 3
		bias2, eps, step                           = scalarReg + 4, scalarReg + 5, scalarReg + 6
	)
	e.ld(0, p)
	e.ld(1, g)
	e.ld(2, m)
	e.ld(3, v)
	e.op("VMULPS", decay, p, p)
	e.op("VSUBPS", m, g, t)
	e.op("VFMADD231PS", t, oneMinusBeta1, m)
	e.op("VMULPS", beta2, v, v)
	e.op("VMULPS", g, oneMinusBeta2, t)
	e.op("VFMADD231PS", t, g, v)
	e.op("VSQRTPS", v, t)
	e.op("VDIVPS", bias2, t, t)
	e.op("VADDPS", eps, t, t)
	e.op("VMULPS", m, step, g)
	e.op("VDIVPS", t, g, g)
	e.op("VADDPS", g, p, p)
	e.st(p, 0)
	e.st(m, 2)
	e.st(v, 3)
}
