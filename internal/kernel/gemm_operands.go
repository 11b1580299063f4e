package kernel

// This file brings A, and the low-rank terms, into the form in which the drivers of
// products read them.

// onPairs reports whether the product runs on VDPBF16PS. Few rows do not repay the
// packing of the weight.
func (p *product) onPairs() bool { return p.w.Half && halfNow() == pairs && p.m > dotRows }

// addPart makes room for one more part of the sum, and keeps the memory of an earlier
// product's.
func (p *product) addPart() *part {
	n := len(p.parts)
	if n < cap(p.parts) {
		p.parts = p.parts[:n+1]
	} else {
		p.parts = append(p.parts, part{})
	}
	return &p.parts[n]
}

// operands makes the parts of the product and of its terms: A is (m, terms).
func (p *product) operands(a Vec, lda, terms int, low []Term) {
	p.paired = p.onPairs()
	p.addPart().set(p, a, lda, terms)
	p.parts[0].w, p.parts[0].scale = p.w, 1
	for i := range low {
		r := len(low[i].H) / p.m
		s := p.addPart()
		s.set(p, F32Vec(low[i].H), r, r)
		s.w, s.scale, s.lowRank = low[i].W, low[i].Scale, true
	}
}

// set makes x (m, terms) the operand of a part: as it is where the product reads it so,
// converted otherwise. Products on tiles convert for themselves.
func (s *part) set(p *product, x Vec, ldx, terms int) {
	s.source, s.lda, s.terms = x, ldx, terms
	switch {
	case p.onTiles():
	case p.paired && x.Half() && ldx%2 == 0 && terms%2 == 0:
		s.a, s.lda = asWords(x.BF16[:2*((p.m-1)*ldx+terms)]), ldx/2
	case p.paired:
		s.lda = ceilDiv(terms, 2)
		s.a = p.convert(&s.copied, s.lda, x, ldx, terms, toPairs)
	default:
		s.a, s.lda = p.float32s(&s.copied, x, ldx, terms)
	}
}

// widenOperand sets A (m, terms) as float32.
func (p *product) widenOperand(x Vec, ldx, terms int) {
	p.a, p.lda = p.float32s(&p.widened, x, ldx, terms)
}

// float32s gives x (m, terms) as float32, rounded where the product is in bfloat16.
func (p *product) float32s(buf *[]float32, x Vec, ldx, terms int) (a []float32, lda int) {
	switch {
	case x.Half():
		return p.convert(buf, terms, x, ldx, terms, toFloat32), terms
	case p.w.Half:
		return p.convert(buf, terms, x, ldx, terms, toRounded), terms
	}
	return x.F32, ldx
}

type conversion int

const (
	toFloat32 conversion = iota // from bfloat16
	toRounded                   // float32 to float32 that bfloat16 holds
	toPairs                     // either to words of two, a last odd value with a zero
)

// convertTask converts rows of x (m, cols) to rows of dst at stride ldd.
type convertTask struct {
	dst  []float32
	ldd  int
	x    Vec
	ldx  int
	cols int
	to   conversion
}

func (p *product) convert(buf *[]float32, ldd int, x Vec, ldx, cols int, to conversion) []float32 {
	dst := growAligned(buf, p.m*ldd)
	p.converting = convertTask{dst, ldd, x, ldx, cols, to}
	Parallel(p.m, rowGrain(cols), &p.converting)
	return dst
}

func (t *convertTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		dst, x := t.dst[i*t.ldd:(i+1)*t.ldd], t.x.Slice(i*t.ldx, i*t.ldx+t.cols)
		switch t.to {
		case toFloat32:
			BF16ToF32(dst, x.BF16)
		case toRounded:
			copy(dst, x.F32)
			RoundBF16(dst)
		case toPairs:
			clear(dst[t.cols/2:])
			Copy(HalfVec(dst, t.cols), x)
		}
	}
}

// plain runs a driver that computes in float32 as a whole, then adds the terms.
func (p *product) plain(cols int, terms []Term, run func(), add func([]float32, int, []float32, int, int, *Matrix, float32, bool)) {
	if p.c.Half() {
		p.sumsForC(cols)
	}
	run()
	for _, t := range terms {
		r := len(t.H) / p.m
		add(p.c.F32, p.ldc, t.H, r, p.m, t.W, t.Scale, true)
	}
	p.storeSums(cols)
}

// sumsForC makes c float32 until storeSums.
func (p *product) sumsForC(cols int) {
	p.final = p.c
	p.c = F32Vec(growAligned(&p.sums, p.m*cols))
	if p.acc {
		p.copyRows(p.c, cols, p.final, p.ldc, cols)
	}
	p.ldc, p.finalStride = cols, p.ldc
}

// storeSums rounds the sums to C.
func (p *product) storeSums(cols int) {
	if p.final.Half() {
		p.copyRows(p.final, p.finalStride, p.c, p.ldc, cols)
	}
}

func (p *product) copyRows(dst Vec, ldd int, src Vec, lds, cols int) {
	for i := range p.m {
		Copy(dst.Slice(i*ldd, i*ldd+cols), src.Slice(i*lds, i*lds+cols))
	}
}

// roundsRank reports whether the gradient of a rank r and activations of width values in
// bfloat16, rows at a stride, is made in bfloat16 too.
func (p *product) roundsRank(r, width, stride int) bool {
	return halfNow() != widened && r > dotRows && r <= width && stride == width
}

// rankGradient computes C (r, width) (+)= alpha·smallᵀ·wide, or its transpose, as an
// input gradient: smallᵀ is the operand and wide the weight, which is read as it is.
// small is (m, r), wide is (m, width).
func (p *product) rankGradient(c []float32, ldc int, small []float32, lds int, wide Vec, m, r, width int, alpha float32, acc, flip bool) {
	p.flipped = growAligned(&p.flipped, r*m)
	transpose(p.flipped, m, small, lds, m, r)
	if alpha != 1 {
		vecScale(p.flipped, p.flipped, alpha)
	}
	p.gradient = Matrix{N: m, K: width, BF16: wide.BF16, Half: true}
	if !flip {
		backward("MulTN", F32Vec(c), ldc, F32Vec(p.flipped), m, r, &p.gradient, 1, acc, nil)
		return
	}
	p.flippedSums = growAligned(&p.flippedSums, r*width)
	backward("MulTN", F32Vec(p.flippedSums), width, F32Vec(p.flipped), m, r, &p.gradient, 1, false, nil)
	p.sumsBack = growAligned(&p.sumsBack, width*r)
	transpose(p.sumsBack, r, p.flippedSums, width, r, width)
	if acc && ldc == r {
		vecAdd(c[:width*r], c[:width*r], p.sumsBack)
		return
	}
	storeTile(c, ldc, p.sumsBack, r, width, r, acc)
}
