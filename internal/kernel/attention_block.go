package kernel

// This file holds what attention does with a block of queries and a tile of keys in
// float32, forward and backward: which of them see each other, and their products.

// block is a range of queries of one span, as many as plan.queries says at most.
type block struct {
	*span
	first, n int
}

// tileRange gives the key tiles, counted from the span's first, that the block
// sees any part of.
func (b *block) tileRange(window int) (lo, hi int) {
	if window > 0 {
		lo = max(0, b.past+b.first-window+1) / kTile
	}
	return lo, ceilDiv(b.past+b.first+b.n, kTile)
}

// visible gives the keys [lo, hi) of the tile beginning at key first that query
// i of the block sees; hi ≤ lo when none.
func (b *block) visible(i, first, window int) (lo, hi int) {
	pos := b.past + b.first + i
	if window > 0 {
		lo = max(0, pos-window+1-first)
	}
	return lo, min(kTile, pos+1-first)
}

// seen gives the keys [lo, hi) of the tile beginning at key first that any of the group of
// queries from i on sees, lo rounded down to a multiple of align; hi ≤ lo when none.
func (b *block) seen(i, group, first, window, align int) (lo, hi int) {
	lo, _ = b.visible(i, first, window)
	_, hi = b.visible(min(i+group, b.n)-1, first, window)
	return lo / align * align, hi
}

// seeing gives the queries [lo, hi) of the block that see any of the group of keys of the
// tile beginning at key first from j on; hi ≤ lo when none.
func (b *block) seeing(j, group, first, window int) (lo, hi int) {
	lo, hi = max(0, first+j-b.past-b.first), b.n
	if window > 0 {
		hi = min(hi, first+j+group-1+window-b.past-b.first)
	}
	return lo, hi
}

// load packs the block's rows of src, the first at value at, into dst (qTile, padded),
// and zeros into the rows that fill up its last group.
func (b *block) load(dst []float32, padded int, src Vec, at, row, d int, scale float32, buf *[]float32) {
	x, row := src.tile(buf, at, row, b.n, d)
	packRows(dst, padded, x, row, b.n, d, scale)
	clear(dst[b.n*padded : roundUp(b.n, tileRows)*padded])
}

// hide sets to zero all of a row of the tile but the visible keys [lo, hi).
func hide(row []float32, lo, hi int) {
	if hi <= lo {
		clear(row)
		return
	}
	clear(row[:lo])
	clear(row[hi:])
}

// reach is visible of the first query for softmaxRows and slopeRows: not cut to the tile, so that
// query i has lo+i and hi+i.
func (b *block) reach(first, window int) (lo, hi int) {
	hi = b.past + b.first + 1 - first
	if window == 0 {
		return -qRows, hi
	}
	return hi - window, hi
}

// fused reports whether rows of scores go through softmaxRows and slopeRows, which know no softcap
// and round, where they do, with AVX512-BF16.
func (s *AttentionSpec) fused(half bool) bool {
	return impl == avx512 && s.Softcap == 0 && (!half || nativeBF16())
}

// scores computes s (qTile, kTile) = q·kt where any query of the group of rows
// sees a key.
func (b *block) scores(s, q, kt []float32, d, padded, first, window int) {
	for i := 0; i < b.n; i += tileRows {
		if lo, hi := b.seen(i, tileRows, first, window, 16); lo < hi {
			tileProduct(tileRows, roundUp(hi-lo, 16), d, q[i*padded:], padded, 1, kt[lo:], kTile, s[i*kTile+lo:], kTile, false)
		}
	}
}

// weigh computes o (qTile, padded) += p·v with p (qTile, kTile), v (kTile, padded).
func (b *block) weigh(o, p, v []float32, padded, first, window int) {
	for i := 0; i < b.n; i += tileRows {
		if lo, hi := b.seen(i, tileRows, first, window, 1); lo < hi {
			tileProduct(tileRows, padded, hi-lo, p[i*kTile+lo:], kTile, 1, v[lo*padded:], padded, o[i*padded:], padded, true)
		}
	}
}
