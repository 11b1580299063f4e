package kernel

// This file holds attention of values in bfloat16 on AMX. Keys and values lie in the
// panels of attention_pairs.go; queries, weights and what they turn into backward lie
// in the lines of gemm_tiles.go, in strips of tileSide rows:
//
//	[row/32][term/32][32 rows][32 terms]
//
// Tiles know no factor, so that scores are scaled behind the product and gradients of
// scores before it.

const (
	qStrips = (qTile + tileSide - 1) / tileSide
	kStrips = kTile / tileSide
	qRows   = qStrips * tileSide // rows of scratch: whole strips
	square  = tileSide * tileSide / 2
)

// strips is the number of strips of the block.
func (b *block) strips() int { return ceilDiv(b.n, tileSide) }

// loadLines brings the block's rows of src into lines, and zeros into the rows that fill
// up its last strip.
func (b *block) loadLines(dst []float32, src Vec, at, row, d int) {
	clear(dst[(b.strips()-1)*d/tileSide*square : b.strips()*d/tileSide*square])
	for i := range b.n {
		tileLines(lineOf(dst, i, d), src.Slice(at+i*row, at+i*row+d))
	}
}

// lineOf is where the terms of row i begin among lines of so many terms.
func lineOf(x []float32, i, terms int) []float32 {
	return x[i/tileSide*terms/tileSide*square+i%tileSide*tileSide/2:]
}

// scoreTiles computes s (qRows, kTile) = q·kᵀ where any query of a strip sees a key.
func (b *block) scoreTiles(s, q, keys []float32, d, first, window int) {
	for strip := range b.strips() {
		for j, hi := b.seen(strip*tileSide, tileSide, first, window, tileSide); j < hi; j += tileSide {
			panel := keys[j*d/2:]
			tileSquares(1, d/tileSide, q[strip*d/tileSide*square:], panel, s[strip*tileSide*kTile+j:], kTile, 0, panel, false)
		}
	}
	clear(s[b.n*kTile : b.strips()*tileSide*kTile])
}

// weighTiles computes o (qRows, HeadDim) += p·v with p (qTile, kTile) in lines.
func (b *block) weighTiles(o, p, v []float32, d, first, window int) {
	for strip := range b.strips() {
		lo, hi := b.seen(strip*tileSide, tileSide, first, window, tileSide)
		steps := ceilDiv(hi-lo, tileSide)
		for c := 0; c < d && steps > 0; c += tileSide {
			panel := v[c*kPairs+lo/2*tileSide:]
			tileSquares(1, steps, p[(strip*kStrips+lo/tileSide)*square:], panel, o[strip*tileSide*d+c:], d, 0, panel, true)
		}
	}
}

// transposedTiles computes c (kTile, HeadDim) += pᵀ·x with pᵀ (kTile, qRows) in lines and
// x in panels of pairs of queries, over the strips that see a key of the strip of keys.
func (b *block) transposedTiles(c, pt, x []float32, d, first, window int) {
	for j := 0; j < min(kTile, b.keys()-first); j += tileSide {
		lo, hi := b.seeing(j, tileSide, first, window)
		if hi <= lo {
			continue
		}
		strip := lo / tileSide
		steps := ceilDiv(hi, tileSide) - strip
		for col := 0; col < d; col += tileSide {
			panel := x[col*qRows/2+strip*square:]
			a := pt[(j/tileSide*qStrips+strip)*square:]
			tileSquares(1, steps, a, panel, c[j*d+col:], d, 0, panel, true)
		}
	}
}

// roundTile brings p (qTile, kTile) into lines.
func (b *block) roundTile(dst, p []float32) {
	for i := range b.n {
		tileLines(lineOf(dst, i, kTile), F32Vec(p[i*kTile:(i+1)*kTile]))
	}
}

// turnTile makes pᵀ (kTile, qRows) in lines of p (qRows, kTile), with room for it in
// float32.
func (b *block) turnTile(dst, room, p []float32, first int) {
	keys := roundUp(min(kTile, b.keys()-first), tileSide)
	transpose(room, qRows, p, kTile, b.strips()*tileSide, keys)
	for j := range keys {
		tileLines(lineOf(dst, j, qRows), F32Vec(room[j*qRows:j*qRows+b.strips()*tileSide]))
	}
}

// queryPanels makes panels of pairs of queries of the block's rows of src, with room for
// these as words, and zeros in the rows that fill up its last strip.
func (b *block) queryPanels(dst, room []float32, src Vec, at, row, d int) {
	b.loadWords(room, src, at, row, d, tileSide)
	interleave(dst, room, d/2, b.strips()*tileSide/2, d/tileSide, qRows/2*tileSide)
}

// attendTiles is attend on AMX.
func (t *forwardTask) attendTiles(sc *forwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	sc.q, sc.o = growAligned(&sc.q, qRows*d/2), growAligned(&sc.o, qRows*d)
	sc.s, sc.p = growAligned(&sc.s, qRows*kTile), growAligned(&sc.p, qRows*kPairs)
	b.loadLines(sc.q, t.q, at, width, d)
	t.begin(sc, b)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first := tile * kTile
		b.scoreTiles(sc.s, sc.q, t.keyT[packed:], d, first, t.spec.Window)
		for i := range b.n {
			lo, hi := b.visible(i, first, t.spec.Window)
			row := sc.s[i*kTile : (i+1)*kTile]
			hide(row, lo, hi, kTile)
			vecScale(row, row, t.spec.Scale)
			t.softmaxRow(sc, i, lo, hi)
		}
		b.roundTile(sc.p, sc.s)
		b.weighTiles(sc.o, sc.p, t.valRow[packed:], d, first, t.spec.Window)
	}
	t.finish(sc, b, head, at)
}

// attendTiles is attend on AMX.
func (t *backwardTask) attendTiles(sc *backwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at, size := (b.row+b.first)*width+head*d, kTile*d/2
	for _, x := range [...]struct {
		buf *[]float32
		n   int
	}{{&sc.q, qRows * d / 2}, {&sc.dout, qRows * d / 2}, {&sc.qKeys, qRows * d / 2}, {&sc.doutKeys, qRows * d / 2}, {&sc.dq, qRows * d},
		{&sc.p, qRows * kTile}, {&sc.dp, qRows * kTile}, {&sc.words, qRows * kPairs}, {&sc.turned, kTile * qRows / 2}, {&sc.room, max(kTile*qRows, qRows*d/2)}} {
		*x.buf = growAligned(x.buf, x.n)
	}
	clear(sc.dq)
	b.loadLines(sc.q, t.q, at, width, d)
	b.loadLines(sc.dout, t.dout, at, width, d)
	b.queryPanels(sc.qKeys, sc.room, t.q, at, width, d)
	b.queryPanels(sc.doutKeys, sc.room, t.dout, at, width, d)
	t.deltas(sc, b, at)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := ((b.keyTile+tile)*t.spec.KVHeads + group) * size
		first := tile * kTile
		b.scoreTiles(sc.p, sc.q, t.keyT[packed:], d, first, t.spec.Window)
		b.scoreTiles(sc.dp, sc.dout, t.valT[packed:], d, first, t.spec.Window)
		for i := range b.n {
			row := sc.p[i*kTile : (i+1)*kTile]
			lo, hi := b.visible(i, first, t.spec.Window)
			hide(row, lo, hi, kTile)
			if lo < hi {
				vecScale(row[lo:hi], row[lo:hi], t.spec.Scale)
			}
			t.weights(sc, b, head, i, lo, hi)
		}
		part := t.part(b.span, tile, head)
		b.turnTile(sc.turned, sc.room, sc.p, first)
		b.transposedTiles(t.dvPart[part:], sc.turned, sc.doutKeys, d, first, t.spec.Window)
		for i := range b.n {
			if lo, hi := b.visible(i, first, t.spec.Window); lo < hi {
				row := sc.p[i*kTile+lo : i*kTile+hi]
				t.slopes(sc, i, lo, hi)
				vecScale(row, row, t.spec.Scale)
			}
		}
		b.turnTile(sc.turned, sc.room, sc.p, first)
		b.transposedTiles(t.dkPart[part:], sc.turned, sc.qKeys, d, first, t.spec.Window)
		b.roundTile(sc.words, sc.p)
		b.weighTiles(sc.dq, sc.words, t.keyRows[packed:], d, first, t.spec.Window)
	}
	t.store(sc, b, at, 1)
}
