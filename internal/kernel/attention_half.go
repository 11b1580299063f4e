package kernel

// This file holds attention of values in bfloat16 where there are products of pairs of
// values, VDPBF16PS or AMX: the softmax stays float32. Left operands are rows of words of
// two values, right ones panels as in the products of gemm.go:
//
//	keyD, valD  (tile, kvHead, kTile/32, HeadDim/2, 32)  pairs along a head, columns are keys
//	keyK, valK  (tile, kvHead, HeadDim/32, kTile/2, 32)  pairs of keys, columns along a head
//
// Weights, and what they turn into backward, are rounded to bfloat16 before they are
// multiplied, as FlashAttention does (Dao 2023). Backward, dk and dv are summed as (HeadDim,
// kTile): so weights are the right operand, whose pairs of queries need no transposition.

const (
	qRows  = (qTile + tileSide - 1) / tileSide * tileSide // rows of scratch, whole strips
	kPairs = kTile / 2
	qPairs = qRows / 2
)

// halfOf is how attention of these values is computed.
func (s *AttentionSpec) halfOf(values ...Vec) halfLevel {
	if s.HeadDim%tileSide != 0 {
		return widened
	}
	for _, v := range values {
		if !v.Half() {
			return widened
		}
	}
	return halfNow()
}

// group is the number of rows of C that one call computes, and of terms that it takes at
// least, of the level.
func (l halfLevel) group() (rows, terms int) {
	if l == tiles {
		return tileSide, tileSide
	}
	return shortPairs.rows, 2
}

// multiply computes C (rows, 32·panels) (+)= A·B: A (rows, steps) in words at stride lda, B
// panels of (steps, 32) words that begin ldp apart. Rows and twice the steps are multiples
// of the level's group.
func (l halfLevel) multiply(rows, panels, steps int, a []float32, lda int, b []float32, ldp int, c []float32, ldc int, acc bool) {
	if l == tiles {
		tileSquares(tileCall{strips: rows / tileSide, panels: panels, steps: 2 * steps / tileSide, lda: lda, ahead: tileSide / 2,
			skip: tileSide*lda - steps, ldp: ldp, ldc: ldc, acc: acc}, a, b, c, b)
		return
	}
	for i := 0; i < rows; i += shortPairs.rows {
		for j := range panels {
			panel := b[j*ldp:]
			pairTile(shortPairs, steps, a[i*lda:], lda, panel, panel, c[i*ldc+j*tileSide:], ldc, 1, acc)
		}
	}
}

// wordsOf is n rows of d values of v in bfloat16, the first at value at and the others
// row apart, as words in place, and their stride.
func (v Vec) wordsOf(at, row, n, d int) (x []float32, stride int) {
	return asWords(v.BF16[2*at : 2*(at+(n-1)*row+d)]), row / 2
}

// packPairs fills the packed forms of one (tile, kvHead) u of n keys, of which the first
// is at value at.
func (p *plan) packPairs(u, at, n int, sc *rowScratch) {
	d := p.spec.HeadDim
	size := kTile * d / 2
	k, row := p.src.k.wordsOf(at, p.src.row, n, d)
	v, _ := p.src.v.wordsOf(at, p.src.row, n, d)
	alongHead(p.keyT[u*size:][:size], k, row, n, d/2)
	alongKeys(p.valRow[u*size:][:size], v, row, n, d, &sc[0])
	if p.backward {
		alongHead(p.valT[u*size:][:size], v, row, n, d/2)
		alongKeys(p.keyRows[u*size:][:size], k, row, n, d, &sc[1])
	}
}

// alongHead makes keyD or valD of n rows of so many words.
func alongHead(dst, x []float32, row, n, words int) {
	if n < kTile {
		clear(dst)
	}
	for j := 0; j < n; j += tileSide {
		transpose(dst[j*words:], tileSide, x[j*row:], row, min(tileSide, n-j), words)
	}
}

// alongKeys makes keyK or valK of n rows of d values; a last odd row goes through buf.
func alongKeys(dst, x []float32, row, n, d int, buf *[]float32) {
	if n < kTile {
		clear(dst)
	}
	const ldp = kTile / 2 * tileSide
	if n > 1 {
		interleave(dst, x, row, n/2, d/tileSide, ldp)
	}
	if n%2 != 0 {
		two := growAligned(buf, d)
		copy(two, x[(n-1)*row:][:d/2])
		clear(two[d/2:])
		interleave(dst[n/2*tileSide:], two, d/2, 1, d/tileSide, ldp)
	}
}

// loadWords copies the block's rows of src as words, and zeros into the rows up to qRows.
func (b *block) loadWords(dst []float32, src Vec, at, row, d int) {
	x, stride := src.wordsOf(at, row, b.n, d)
	for i := range b.n {
		copy(dst[i*d/2:(i+1)*d/2], x[i*stride:])
	}
	clear(dst[b.n*d/2 : qRows*d/2])
}

// acrossQueries makes xᵀ (HeadDim, qRows) in words of pairs of queries of rows in words,
// with room for their panels.
func acrossQueries(dst, room, x []float32, d int) {
	interleave(room, x, d/2, qPairs, d/tileSide, qPairs*tileSide)
	for c := 0; c < d; c += tileSide {
		transpose(dst[c*qPairs:], qPairs, room[c*qPairs:], tileSide, qPairs, tileSide)
	}
}

// scoreHalf computes s (qRows, kTile) = q·kᵀ where any query of a group of rows sees a key.
func (b *block) scoreHalf(l halfLevel, s, q, keys []float32, d, first, window int) {
	rows, _ := l.group()
	for i := 0; i < b.n; i += rows {
		if lo, hi := b.seen(i, rows, first, window, tileSide); lo < hi {
			l.multiply(rows, ceilDiv(hi-lo, tileSide), d/2, q[i*d/2:], d/2, keys[lo*d/2:], tileSide*d/2, s[i*kTile+lo:], kTile, false)
		}
	}
}

// weighHalf computes o (qRows, HeadDim) += p·v with p (qRows, kTile) in words.
func (b *block) weighHalf(l halfLevel, o, p, v []float32, d, first, window int) {
	rows, terms := l.group()
	for i := 0; i < b.n; i += rows {
		if lo, hi := b.seen(i, rows, first, window, terms); lo < hi {
			l.multiply(rows, d/tileSide, roundUp(hi-lo, terms)/2, p[i*kPairs+lo/2:], kPairs, v[lo/2*tileSide:], kPairs*tileSide, o[i*d:], d, true)
		}
	}
}

// gatherHalf computes c (HeadDim, kTile) += xᵀ·p with xᵀ (HeadDim, qRows) in words and p in
// panels of pairs of queries, over the queries that see a key of a panel.
func (b *block) gatherHalf(l halfLevel, c, xt, p []float32, d, first, window int) {
	_, terms := l.group()
	keys := tileSide // a call has few terms on tiles: it takes all panels that are seen
	if l == tiles {
		keys = kTile
	}
	for j := 0; j < min(kTile, b.keys()-first); j += keys {
		lo, hi := b.seeing(j, keys, first, window)
		if hi <= lo {
			continue
		}
		lo = lo / terms * terms
		// The last query sees the keys up to itself.
		_, end := b.visible(b.n-1, first, window)
		panels := ceilDiv(min(keys, end-j), tileSide)
		l.multiply(d, panels, roundUp(hi-lo, terms)/2, xt[lo/2:], qPairs, p[j*qPairs+lo/2*tileSide:], qPairs*tileSide, c[j:], kTile, true)
	}
}

// panelsOfQueries makes panels of pairs of queries of rows of weights in words.
func panelsOfQueries(dst, p []float32) {
	interleave(dst, p, kPairs, qPairs, kTile/tileSide, qPairs*tileSide)
}

// attendHalf is attend in pairs.
func (t *forwardTask) attendHalf(sc *forwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	sc.q, sc.o = growAligned(&sc.q, qRows*d/2), growAligned(&sc.o, qRows*d)
	sc.s, sc.p = growAligned(&sc.s, qRows*kTile), growAligned(&sc.p, qRows*kPairs)
	b.loadWords(sc.q, t.q, at, width, d)
	clear(sc.p[b.n*kPairs:])
	t.begin(sc, b)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first := tile * kTile
		b.scoreHalf(t.level, sc.s, sc.q, t.keyT[packed:], d, first, t.spec.Window)
		t.softmax(sc, b, first, t.spec.Scale)
		b.weighHalf(t.level, sc.o, sc.p, t.valRow[packed:], d, first, t.spec.Window)
	}
	t.finish(sc, b, head, at)
}

// attendHalf is attend in pairs.
func (t *backwardTask) attendHalf(sc *backwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	for _, x := range [...]struct {
		buf *[]float32
		n   int
	}{{&sc.q, qRows * d / 2}, {&sc.dout, qRows * d / 2}, {&sc.qAcross, qRows * d / 2}, {&sc.doutAcross, qRows * d / 2}, {&sc.dq, qRows * d},
		{&sc.p, qRows * kTile}, {&sc.dp, qRows * kTile}, {&sc.words, qRows * kPairs}, {&sc.slopes, qRows * kPairs}, {&sc.panels, qRows * max(kPairs, d/2)}} {
		*x.buf = growAligned(x.buf, x.n)
	}
	clear(sc.dq)
	b.loadWords(sc.q, t.q, at, width, d)
	b.loadWords(sc.dout, t.dout, at, width, d)
	acrossQueries(sc.qAcross, sc.panels, sc.q, d)
	acrossQueries(sc.doutAcross, sc.panels, sc.dout, d)
	clear(sc.words[b.n*kPairs:])
	clear(sc.slopes[b.n*kPairs:])
	t.deltas(sc, b, at)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first, part := tile*kTile, t.part(b.span, tile, head)
		b.scoreHalf(t.level, sc.p, sc.q, t.keyT[packed:], d, first, t.spec.Window)
		b.scoreHalf(t.level, sc.dp, sc.dout, t.valT[packed:], d, first, t.spec.Window)
		t.slopes(sc, b, head, first, t.spec.Scale, t.spec.Scale)
		panelsOfQueries(sc.panels, sc.words)
		b.gatherHalf(t.level, t.dvPart[part:], sc.doutAcross, sc.panels, d, first, t.spec.Window)
		panelsOfQueries(sc.panels, sc.slopes)
		b.gatherHalf(t.level, t.dkPart[part:], sc.qAcross, sc.panels, d, first, t.spec.Window)
		b.weighHalf(t.level, sc.dq, sc.slopes, t.keyRows[packed:], d, first, t.spec.Window)
	}
	t.store(sc, b, at, 1)
}
