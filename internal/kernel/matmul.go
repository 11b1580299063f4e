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
	// Dot, where it is not nil, gives the products of x (K) with rows [lo, hi), in the bits
	// of the rows that Decode gives: see [Format.Dot]. A product of one row takes it.
	Dot func(out, x []float32, lo, hi int)
	// Half makes products round both operands to bfloat16, ties to even. Sums stay
	// float32. With AMX or AVX512-BF16 that is up to several times as fast; without
	// them the same products are made in float32, and sums differ by the order of
	// their terms. See [Half].
	Half bool

	laid *laid // in panels, where F32, BF16 and Decode are nil
	ld   int   // row stride of F32 if not K
	base int   // number of the first row, as Decode and laid count
}

// Rows is the matrix of rows [lo, hi), which lie where those of w do.
func (w *Matrix) Rows(lo, hi int) Matrix {
	part := *w
	part.N = hi - lo
	switch {
	case w.F32 != nil:
		part.F32 = w.F32[lo*w.stride():]
	case w.BF16 != nil:
		part.BF16 = w.BF16[2*lo*w.K:]
	default:
		part.base += lo
	}
	return part
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
	case w.laid != nil:
		w.laid.widen(dst, w.K, w.base+lo, w.base+hi)
	default:
		w.Decode(dst, w.base+lo, w.base+hi)
	}
}

// Read writes rows [lo, hi) of w, (hi−lo, K), to dst, rounded to bfloat16 where w is Half.
func (w *Matrix) Read(dst []float32, lo, hi int) {
	w.check("Read")
	checkLen("Read", "dst", len(dst), (hi-lo)*w.K)
	w.widen(dst, lo, hi)
	if w.Half {
		RoundBF16(dst)
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
// or added: C (+)= alpha·A·Wᵀ, at the cost of MulT.
func ScaledMulT(c []float32, ldc int, a []float32, lda int, m int, w *Matrix, alpha float32, acc bool) {
	forward("MulT", F32Vec(c), ldc, F32Vec(a), lda, m, w, alpha, acc, nil)
}

// Term is what a low-rank pair adds to a product: Scale·H·Bᵀ to y = x·Wᵀ, with
// B (N, R), or Scale·H·A to dx = dy·W, with A (R, K). H is (m, R).
type Term struct {
	H     []float32
	W     *Matrix
	Scale float32
}

// Linear is a linear layer with low-rank pairs: y = x·Wᵀ + Σ terms, or y += with
// acc. y is (m, N), x is (m, K), w is (N, K). The terms are summed with the product
// before y is rounded, and in bfloat16 where w is Half.
func Linear(y, x Vec, m int, w *Matrix, acc bool, terms []Term) {
	forward("Linear", y, w.N, x, w.K, m, w, 1, acc, terms)
}

func forward(op string, c Vec, ldc int, a Vec, lda int, m int, w *Matrix, alpha float32, acc bool, terms []Term) {
	w.check(op)
	checkOperand(op, "C", c.Len(), m, w.N, ldc)
	checkOperand(op, "A", a.Len(), m, w.K, lda)
	for i := range terms {
		terms[i].check(op, m, w.N, terms[i].W.K, terms[i].W.N)
	}
	if m == 0 || w.N == 0 {
		return
	}
	if w.K == 0 {
		clearUnless(acc, c, ldc, m, w.N)
		acc = true
		if len(terms) == 0 {
			return
		}
	}
	p := products.get()
	p.c, p.ldc, p.m, p.w, p.alpha, p.acc = c, ldc, m, w, alpha, acc
	switch {
	case w.K == 0:
		p.plain(w.N, terms, func() {}, ScaledMulT)
	case p.onTiles():
		p.operands(a, lda, w.K, terms)
		p.tiledForward()
	case m <= dotRows:
		p.widenOperand(a, lda, w.K)
		p.plain(w.N, terms, p.dotProducts, ScaledMulT)
	case !p.onPairs() && m <= thinRows && w.N >= 4*m && !w.lies(ForForward, false):
		p.widenOperand(a, lda, w.K)
		p.plain(w.N, terms, p.thinForward, ScaledMulT)
	default:
		p.operands(a, lda, w.K, terms)
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
	backward("Mul", F32Vec(c), ldc, F32Vec(a), lda, m, w, alpha, acc, nil)
}

// LinearBackward is the input gradient of Linear: dx = dy·W + Σ terms, or dx += with
// acc. dx is (m, K), dy is (m, N), w is (N, K).
func LinearBackward(dx, dy Vec, m int, w *Matrix, acc bool, terms []Term) {
	backward("LinearBackward", dx, w.K, dy, w.N, m, w, 1, acc, terms)
}

func backward(op string, c Vec, ldc int, a Vec, lda int, m int, w *Matrix, alpha float32, acc bool, terms []Term) {
	w.check(op)
	checkOperand(op, "C", c.Len(), m, w.K, ldc)
	checkOperand(op, "A", a.Len(), m, w.N, lda)
	for i := range terms {
		terms[i].check(op, m, w.K, terms[i].W.N, terms[i].W.K)
	}
	if m == 0 || w.K == 0 {
		return
	}
	if w.N == 0 {
		clearUnless(acc, c, ldc, m, w.K)
		acc = true
		if len(terms) == 0 {
			return
		}
	}
	p := products.get()
	p.c, p.ldc, p.m, p.w, p.alpha, p.acc = c, ldc, m, w, alpha, acc
	switch {
	case w.N == 0:
		p.plain(w.K, terms, func() {}, ScaledMul)
	case p.onTiles():
		p.operands(a, lda, w.N, terms)
		p.tiledBackward()
	case !p.onPairs() && m <= thinRows && w.K >= 4*m && !w.lies(ForBackward, false):
		p.widenOperand(a, lda, w.N)
		p.plain(w.K, terms, p.thinBackward, ScaledMul)
	default:
		p.operands(a, lda, w.N, terms)
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
	WeightGradient(c, ldc, F32Vec(a), lda, F32Vec(b), ldb, m, n, k, alpha, acc)
}

// WeightGradient is MulTN of activations of either type. Where one side is bfloat16 and
// the other is a rank in float32, it may round that too: see [Half].
func WeightGradient(c []float32, ldc int, a Vec, lda int, b Vec, ldb int, m, n, k int, alpha float32, acc bool) {
	checkOperand("MulTN", "C", len(c), n, k, ldc)
	checkOperand("MulTN", "A", a.Len(), m, n, lda)
	checkOperand("MulTN", "B", b.Len(), m, k, ldb)
	if n == 0 || k == 0 {
		return
	}
	if m == 0 {
		clearUnless(acc, F32Vec(c), ldc, n, k)
		return
	}
	p := products.get()
	switch {
	case !a.Half() && b.Half() && p.roundsRank(n, k, ldb):
		p.rankGradient(c, ldc, a.F32, lda, b, m, n, k, alpha, acc, false)
		p.release()
		return
	case a.Half() && !b.Half() && p.roundsRank(k, n, lda):
		p.rankGradient(c, ldc, b.F32, ldb, a, m, k, n, alpha, acc, true)
		p.release()
		return
	}
	if min(n, k) >= wideGradient && m >= wideGradient && !a.Half() && !b.Half() {
		p.gradient = Matrix{N: m, K: k, F32: b.F32, ld: ldb}
		p.c, p.ldc, p.m, p.w, p.alpha, p.acc = F32Vec(c), ldc, n, &p.gradient, alpha, acc
		s := p.addPart()
		s.a, s.lda, s.w, s.scale, s.byTerms = a.F32, lda, p.w, 1, true
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

func (t *Term) check(op string, m, width, r, other int) {
	t.W.check(op)
	if other != width {
		panic(fmt.Sprintf("kernel: %s: a low-rank term is (%d, %d), the product has %d columns", op, t.W.N, t.W.K, width))
	}
	checkLen(op, "H", len(t.H), m*r)
}

func (w *Matrix) check(op string) {
	switch {
	case w.N < 0 || w.K < 0:
		panic(fmt.Sprintf("kernel: %s: weight is (%d, %d)", op, w.N, w.K))
	case w.F32 == nil && w.BF16 == nil && w.Decode == nil && w.laid == nil && w.N*w.K > 0:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has neither values nor a decoder", op, w.N, w.K))
	case w.F32 != nil && len(w.F32) < w.N*w.K:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has %d values", op, w.N, w.K, len(w.F32)))
	case w.F32 == nil && w.BF16 != nil && len(w.BF16) < 2*w.N*w.K:
		panic(fmt.Sprintf("kernel: %s: weight (%d, %d) has %d bytes of bfloat16", op, w.N, w.K, len(w.BF16)))
	}
}

// checkOperand panics unless so many values hold rows rows of cols values at stride ld.
func checkOperand(op, name string, values, rows, cols, ld int) {
	if rows < 0 || cols < 0 || ld < cols || rows > 0 && values < (rows-1)*ld+cols {
		panic(fmt.Sprintf("kernel: %s: %s is (%d, %d) at stride %d, but has %d values", op, name, rows, cols, ld, values))
	}
}

// clearUnless stores the empty sum, zero, unless it is to be added.
func clearUnless(acc bool, c Vec, ldc, rows, cols int) {
	if acc {
		return
	}
	for i := range rows {
		row := c.Slice(i*ldc, i*ldc+cols)
		clear(row.F32)
		clear(row.BF16)
	}
}

// product is one call and what its phases share. It is reused from call to
// call, so that a steady state allocates nothing.
type product struct {
	c      Vec
	ldc    int
	m      int
	w      *Matrix
	alpha  float32
	acc    bool
	parts  []part // of the sum: the product itself first
	paired bool   // operands are words of two values in bfloat16

	a   []float32 // A as float32, for few rows
	lda int

	finalStride int
	final       Vec       // C where c are sums that storeSums rounds to it
	sums        []float32 // backs c then
	widened     []float32 // backs a

	lo, hi     int       // rows of W in the present chunk
	packing    *part     // whose weight packBackward packs
	panels     []float32 // the packed operands of the present chunk, shared by the workers
	decoded    []float32 // rows of W that all workers read
	scratch    []float32 // backs panels
	rounded    []float32 // backs the tiles of parts
	blocks     blocking
	flipStride int    // row stride of Aᵀ in thinBackward
	gradient   Matrix // the right operand of MulTN
	outer      outerProduct
	converting convertTask

	flipped, flippedSums, sumsBack []float32 // of rankGradient
}

var products freeList[product]

// release gives p back without keeping the caller's memory alive.
func (p *product) release() {
	p.c, p.a, p.w, p.panels, p.final, p.packing = Vec{}, nil, nil, nil, Vec{}, nil
	for i := range p.parts {
		p.parts[i] = part{copied: p.parts[i].copied}
	}
	p.parts, p.paired = p.parts[:0], false
	p.outer, p.gradient, p.converting = outerProduct{}, Matrix{}, convertTask{}
	products.put(p)
}
