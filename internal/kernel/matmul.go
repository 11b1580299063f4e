package kernel

import "fmt"

// This file holds the matrix products as callers see them: their meaning, the
// checks of their arguments, and which of the drivers does which shape.

// Matrix is an (N, K) row-major weight as the products see it: dense, or
// decoded a few rows at a time, so that a packed weight never exists as a
// whole in float32.
type Matrix struct {
	N, K int
	// F32 is the (N, K) matrix itself; nil if it is in BF16 or decoded.
	F32 []float32
	// BF16 is the (N, K) matrix itself in bfloat16, little-endian, where F32 is
	// nil; nil if it is decoded.
	BF16 []byte
	// Decode writes rows [lo, hi) to dst as (hi−lo, K). It is called from
	// several goroutines at once and must give the same values every time.
	// It is used only if F32 and BF16 are nil.
	Decode func(dst []float32, lo, hi int)
	// Half makes MulT and Mul round both operands to bfloat16, ties to even. Sums
	// stay float32. With AMX that is several times as fast; without it the same
	// products are made in float32, and sums differ by the order of their terms.
	Half bool

	ld int // row stride of F32 if not K
}

// rows gives rows [lo, hi) of w as the products take them, in buf unless they
// can be read where they lie.
func (w *Matrix) rows(buf *[]float32, lo, hi int) []float32 {
	if w.inPlace() {
		return w.F32[lo*w.stride() : (hi-1)*w.stride()+w.K]
	}
	dst := growAligned(buf, (hi-lo)*w.K)
	w.widen(dst, lo, hi)
	if w.Half {
		RoundBF16(dst)
	}
	return dst
}

// inPlace reports whether the products read w where it lies.
func (w *Matrix) inPlace() bool { return w.F32 != nil && !w.Half }

// widen writes rows [lo, hi) of w to dst as float32.
func (w *Matrix) widen(dst []float32, lo, hi int) {
	switch {
	case w.F32 != nil:
		copy(dst, w.F32[lo*w.K:hi*w.K])
	case w.BF16 != nil:
		BF16ToF32(dst, w.BF16[2*lo*w.K:2*hi*w.K])
	default:
		w.Decode(dst, lo, hi)
	}
}

// stride is the row stride of what rows gives.
func (w *Matrix) stride() int { return max(w.ld, w.K) }

// MulT is the forward product of a linear layer: C = A·Wᵀ, or C += A·Wᵀ with
// acc. c is (m, N) with row stride ldc, a is (m, K) with row stride lda, w is
// (N, K). C must not overlap the operands.
//
// Every element is summed in an order that K alone decides (and whether m ≤ 4,
// when the sums run over 32 lanes), so neither the number of threads nor how
// rows are cut into calls changes a bit; avx2 and avx512 agree bit for bit.
func MulT(c []float32, ldc int, a []float32, lda int, m int, w *Matrix, acc bool) {
	ScaledMulT(c, ldc, a, lda, m, w, 1, acc)
}

// ScaledMulT is MulT with the product multiplied by alpha before it is stored
// or added: C (+)= alpha·A·Wᵀ. It costs no more than MulT; a LoRA branch uses
// it as y += s·(h·Bᵀ).
func ScaledMulT(c []float32, ldc int, a []float32, lda int, m int, w *Matrix, alpha float32, acc bool) {
	w.check("MulT")
	checkOperand("MulT", "C", c, m, w.N, ldc)
	checkOperand("MulT", "A", a, m, w.K, lda)
	if m == 0 || w.N == 0 {
		return
	}
	if w.K == 0 {
		clearUnless(acc, c, ldc, m, w.N)
		return
	}
	p := products.get()
	p.c, p.ldc, p.a, p.lda, p.m, p.w, p.alpha, p.acc = c, ldc, a, lda, m, w, alpha, acc
	p.roundOperand(w.K)
	switch {
	case p.onTiles():
		p.tiledForward()
	case m <= dotRows:
		p.dotProducts()
	case m <= thinRows && w.N >= 4*m:
		p.thinForward()
	default:
		p.blockedForward()
	}
	p.release()
}

// Mul is the input gradient of a linear layer: C = A·W, or C += A·W with acc.
// c is (m, K) with row stride ldc, a is (m, N) with row stride lda, w is
// (N, K). C must not overlap the operands.
//
// Every element is summed in an order that N alone decides; see MulT.
func Mul(c []float32, ldc int, a []float32, lda int, m int, w *Matrix, acc bool) {
	ScaledMul(c, ldc, a, lda, m, w, 1, acc)
}

// ScaledMul is Mul with the product multiplied by alpha before it is stored or
// added: C (+)= alpha·A·W, at the cost of Mul.
func ScaledMul(c []float32, ldc int, a []float32, lda int, m int, w *Matrix, alpha float32, acc bool) {
	w.check("Mul")
	checkOperand("Mul", "C", c, m, w.K, ldc)
	checkOperand("Mul", "A", a, m, w.N, lda)
	if m == 0 || w.K == 0 {
		return
	}
	if w.N == 0 {
		clearUnless(acc, c, ldc, m, w.K)
		return
	}
	p := products.get()
	p.c, p.ldc, p.a, p.lda, p.m, p.w, p.alpha, p.acc = c, ldc, a, lda, m, w, alpha, acc
	p.roundOperand(w.N)
	switch {
	case p.onTiles():
		p.tiledBackward()
	case m <= thinRows && w.K >= 4*m:
		p.thinBackward()
	default:
		p.blockedBackward()
	}
	p.release()
}

// MulTN is the weight gradient of a linear layer: C = alpha·Aᵀ·B, or
// C += alpha·Aᵀ·B with acc. c is (n, k) with row stride ldc, a is (m, n) with
// row stride lda, b is (m, k) with row stride ldb. C must not overlap the
// operands. It is fast for a small n or k too, as a LoRA pair has them.
//
// Every element is summed in an order that m alone decides; see MulT.
func MulTN(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, n, k int, alpha float32, acc bool) {
	checkOperand("MulTN", "C", c, n, k, ldc)
	checkOperand("MulTN", "A", a, m, n, lda)
	checkOperand("MulTN", "B", b, m, k, ldb)
	if n == 0 || k == 0 {
		return
	}
	if m == 0 {
		clearUnless(acc, c, ldc, n, k)
		return
	}
	p := products.get()
	if min(n, k) >= wideGradient && m >= wideGradient {
		p.gradient = Matrix{N: m, K: k, F32: b, ld: ldb}
		p.c, p.ldc, p.a, p.lda, p.m, p.w, p.alpha, p.acc = c, ldc, a, lda, n, &p.gradient, alpha, acc
		p.aByTerms = true
		p.blockedBackward()
		p.release()
		return
	}
	o := &p.outer
	*o = outerProduct{c: c, ldc: ldc, a: a, lda: lda, b: b, ldb: ldb, steps: m, n: n, k: k, block: reductionBlock(m, outerBlock), alpha: alpha, acc: acc}
	if n > k && k < wideGradient {
		// The wide operand is read in vectors, so C is computed transposed.
		o.a, o.lda, o.b, o.ldb, o.n, o.k, o.transposed = b, ldb, a, lda, k, n, true
	}
	o.run()
	p.release()
}

func (w *Matrix) check(op string) {
	switch {
	case w.N < 0 || w.K < 0:
		panic(fmt.Sprintf("kernel: %s: weight is (%d, %d)", op, w.N, w.K))
	case w.F32 == nil && w.BF16 == nil && w.Decode == nil && w.N*w.K > 0:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has neither values nor a decoder", op, w.N, w.K))
	case w.F32 != nil && len(w.F32) < w.N*w.K:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has %d values", op, w.N, w.K, len(w.F32)))
	case w.F32 == nil && w.BF16 != nil && len(w.BF16) < 2*w.N*w.K:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has %d bytes of bfloat16", op, w.N, w.K, len(w.BF16)))
	}
}

// checkOperand panics unless x holds rows rows of cols values at stride ld.
func checkOperand(op, name string, x []float32, rows, cols, ld int) {
	if rows < 0 || cols < 0 || ld < cols || rows > 0 && len(x) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("kernel: %s: %s is (%d, %d) at stride %d, but has %d values", op, name, rows, cols, ld, len(x)))
	}
}

// clearUnless stores the empty sum, zero, unless it is to be added.
func clearUnless(acc bool, c []float32, ldc, rows, cols int) {
	if acc {
		return
	}
	for i := range rows {
		clear(c[i*ldc : i*ldc+cols])
	}
}

// product is one call and what its phases share. It is reused from call to
// call, so that a steady state allocates nothing.
type product struct {
	c, a     []float32
	ldc, lda int
	m        int
	w        *Matrix
	alpha    float32
	acc      bool

	lo, hi     int       // rows of W in the present chunk
	panels     []float32 // the packed operand of the present chunk, shared by the workers
	decoded    []float32 // rows of W that all workers read
	scratch    []float32 // backs panels
	rounded    []float32 // A in bfloat16: widened, or as tiles of words of two values
	tiledTerms int       // terms of the sum that the present tiles hold, and zeros up to a multiple of 32
	blocks     blocking
	flipStride int    // row stride of Aᵀ in thinBackward
	aByTerms   bool   // a is (terms, m), as in MulTN
	gradient   Matrix // the right operand of MulTN
	outer      outerProduct
}

var products freeList[product]

// release gives p back without keeping the caller's memory alive.
func (p *product) release() {
	p.c, p.a, p.w, p.panels = nil, nil, nil, nil
	p.outer, p.gradient, p.aByTerms = outerProduct{}, Matrix{}, false
	products.put(p)
}
