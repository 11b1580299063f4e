package kernel

// This file holds attention of values in bfloat16 where there is VDPBF16PS: the products
// of the tiles take pairs of values, the softmax stays float32. Packed forms are panels
// of words of two values, as in the products of gemm.go:
//
//	keyD, valD  (tile, kvHead, kTile/32, HeadDim/2, 32)  pairs along a head, columns are keys
//	keyK, valK  (tile, kvHead, HeadDim/32, kTile/2, 32)  pairs of keys, columns along a head
//
// Weights, and what they turn into backward, are rounded to bfloat16 before they are
// multiplied, as FlashAttention does (Dao 2023).

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

const (
	pairRowsOf = 8              // rows of C that a tile of attention has: shortPairs
	pairReach  = 2 * pairRowsOf // see hide: pairs of keys end past a group
	qPairs     = qTile / 2
	kPairs     = kTile / 2
)

// loadWords copies the block's rows of src as words, and zeros into the rows that fill up
// its last group of so many.
func (b *block) loadWords(dst []float32, src Vec, at, row, d, group int) {
	x, stride := src.wordsOf(at, row, b.n, d)
	for i := range b.n {
		copy(dst[i*d/2:(i+1)*d/2], x[i*stride:])
	}
	clear(dst[b.n*d/2 : roundUp(b.n, group)*d/2])
}

// scorePairs computes s (qTile, kTile) = alpha·q·kᵀ where any query of a group of rows
// sees a key.
func (b *block) scorePairs(s, q, keys []float32, d, first, window int, alpha float32) {
	for i := 0; i < b.n; i += pairRowsOf {
		for j, hi := b.seen(i, pairRowsOf, first, window, tileSide); j < hi; j += tileSide {
			panel := keys[j*d/2:]
			pairTile(shortPairs, d/2, q[i*d/2:], d/2, panel, panel, s[i*kTile+j:], kTile, alpha, false)
		}
	}
}

// weighPairs computes o (qTile, HeadDim) += alpha·p·v with p (qTile, kTile) in words.
func (b *block) weighPairs(o, p, v []float32, d, first, window int, alpha float32) {
	for i := 0; i < b.n; i += pairRowsOf {
		lo, hi := b.seen(i, pairRowsOf, first, window, 2)
		steps := ceilDiv(hi-lo, 2)
		for c := 0; c < d && steps > 0; c += tileSide {
			panel := v[c*kPairs+lo/2*tileSide:]
			pairTile(shortPairs, steps, p[i*kPairs+lo/2:], kPairs, panel, panel, o[i*d+c:], d, alpha, true)
		}
	}
}

// transposedPairs computes c (kTile, HeadDim) += alpha·pᵀ·x with pᵀ (kTile, qTile) in
// words and x in panels of pairs of queries, over the queries that see a key of the group
// of rows.
func (b *block) transposedPairs(c, pt, x []float32, d, first, window int, alpha float32) {
	for j := 0; j < min(kTile, b.keys()-first); j += pairRowsOf {
		lo, hi := b.seeing(j, pairRowsOf, first, window)
		if hi <= lo {
			continue
		}
		lo /= 2
		steps := ceilDiv(hi, 2) - lo
		for col := 0; col < d; col += tileSide {
			panel := x[col*qPairs+lo*tileSide:]
			pairTile(shortPairs, steps, pt[j*qPairs+lo:], qPairs, panel, panel, c[j*d+col:], d, alpha, true)
		}
	}
}

// narrowRows rounds the block's rows of p (qTile, kTile) to words: all keys, for one call
// costs less than leaving out those that nobody reads.
func (b *block) narrowRows(dst, p []float32) {
	F32ToBF16(asBytes(dst)[:2*b.n*kTile], p[:b.n*kTile])
}

// turn makes pᵀ (kTile, qTile) in words of p (qTile, kTile), with room for it in float32.
func (b *block) turn(dst, room, p []float32, first int) {
	keys := roundUp(min(kTile, b.keys()-first), pairRowsOf)
	transpose(room, qTile, p, kTile, qTile, keys)
	F32ToBF16(asBytes(dst)[:2*keys*qTile], room[:keys*qTile])
}

// attendPairs is attend in pairs.
func (t *forwardTask) attendPairs(sc *forwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	sc.p = growAligned(&sc.p, qTile*kPairs)
	b.loadWords(sc.q, t.q, at, width, d, pairRowsOf)
	t.begin(sc, b)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first := tile * kTile
		b.scorePairs(sc.s, sc.q, t.keyT[packed:], d, first, t.spec.Window, t.spec.Scale)
		for i := range b.n {
			lo, hi := b.visible(i, first, t.spec.Window)
			hide(sc.s[i*kTile:(i+1)*kTile], lo, hi, pairReach)
			t.softmaxRow(sc, i, lo, hi)
		}
		b.narrowRows(sc.p, sc.s)
		b.weighPairs(sc.o, sc.p, t.valRow[packed:], d, first, t.spec.Window, 1)
	}
	t.finish(sc, b, head, at)
}

// attendPairs is attend in pairs.
func (t *backwardTask) attendPairs(sc *backwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	clear(sc.dq)
	for _, x := range [...]*[]float32{&sc.qKeys, &sc.doutKeys} {
		*x = growAligned(x, qPairs*d)
	}
	sc.words, sc.turned, sc.room = growAligned(&sc.words, qTile*kPairs), growAligned(&sc.turned, kTile*qPairs), growAligned(&sc.room, kTile*qTile)
	b.loadWords(sc.q, t.q, at, width, d, pairRowsOf)
	b.loadWords(sc.dout, t.dout, at, width, d, pairRowsOf)
	b.alongQueries(sc.qKeys, sc.q, d)
	b.alongQueries(sc.doutKeys, sc.dout, d)
	t.deltas(sc, b, at)
	// Rows that fill up the last group are read as well.
	clear(sc.p[b.n*kTile:])
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first := tile * kTile
		b.scorePairs(sc.p, sc.q, t.keyT[packed:], d, first, t.spec.Window, t.spec.Scale)
		b.scorePairs(sc.dp, sc.dout, t.valT[packed:], d, first, t.spec.Window, 1)
		for i := range b.n {
			row := sc.p[i*kTile : (i+1)*kTile]
			lo, hi := b.visible(i, first, t.spec.Window)
			hide(row, lo, hi, pairReach)
			t.weights(sc, b, head, i, lo, hi)
		}
		part := t.part(b.span, tile, head)
		b.turn(sc.turned, sc.room, sc.p, first)
		b.transposedPairs(t.dvPart[part:], sc.turned, sc.doutKeys, d, first, t.spec.Window, 1)
		for i := range b.n {
			lo, hi := b.visible(i, first, t.spec.Window)
			t.slopes(sc, i, lo, hi)
		}
		b.turn(sc.turned, sc.room, sc.p, first)
		b.transposedPairs(t.dkPart[part:], sc.turned, sc.qKeys, d, first, t.spec.Window, t.spec.Scale)
		b.narrowRows(sc.words, sc.p)
		b.weighPairs(sc.dq, sc.words, t.keyRows[packed:], d, first, t.spec.Window, t.spec.Scale)
	}
	t.store(sc, b, at, 1)
}

// alongQueries makes panels of pairs of queries of the block's rows in words.
func (b *block) alongQueries(dst, x []float32, d int) {
	// loadWords filled rows up to a multiple of pairRowsOf, so pairs are whole.
	interleave(dst, x, d/2, ceilDiv(b.n, 2), d/tileSide, qPairs*tileSide)
}
