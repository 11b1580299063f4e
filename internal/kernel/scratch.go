package kernel

// This file says how much scratch memory the kernels keep from call to call, for
// those who plan a run before it begins. Every figure is in bytes.

// ProductScratch is what MulT and Mul of m rows keep for an (n, k) weight: the
// packed panels of a chunk, which all products share, rows decoded from a weight
// that is not in float32, and each worker's copies of rows.
func ProductScratch(m, n, k int, w Held) int64 {
	if n == 0 || k == 0 {
		return 0
	}
	cols := tileSets[impl].wide.cols
	forward := paddedCols(min(n, roundUp(max(chunkValues/k, chunkRows), cols))) * k
	backward := paddedCols(k) * min(n, roundUp(max(chunkValues/k, 1), reductionBlock(n, reductionLimit)))
	decoded := 0
	if m <= thinRows && !(w.Half && AMX()) {
		if n >= 4*m {
			forward = paddedCols(m) * k
		}
		if k >= 4*m {
			backward = n * roundUp(m, tileSets[impl].outer.rows)
			if !w.Dense {
				decoded = k * min(n, roundUp(max(chunkValues/k, 1), reductionBlock(n, reductionLimit)))
			}
		}
	}
	worker := cols*k + (blockRows+maxTileRows)*stripStride(reductionLimit)
	return 4 * (int64(max(forward, backward)+decoded) + int64(Threads())*int64(worker))
}

// Held says how a weight is held, as far as products keep scratch for it.
type Held struct {
	Dense bool // in float32
	Half  bool // Matrix.Half
}

// LossRows is the number of rows whose logits CrossEntropy holds at a time, of so
// many with a target.
func LossRows(rows int) int { return min(rows, lossRows) }

// RoundedScratch is what MulT and Mul of m rows keep besides for an (n, k) weight
// whose products are in bfloat16: the other operand, rounded, on AMX as pairs and
// a chunk of the sum at a time.
func RoundedScratch(m, n, k int) int64 {
	if !AMX() {
		return 4 * int64(m) * int64(max(n, k))
	}
	chunk := roundUp(max(chunkValues/k, tiledTerms), tileSide)
	return 2 * int64(roundUp(m, tileSide)) * int64(roundUp(max(k, min(n, chunk)), tileSide))
}

// AttentionScratch is what Attention and AttentionBackward keep for sequences of
// the given lengths: keys and values in tiles, for either direction, and each
// head's part of their gradients. It is linear in the number of tokens.
func AttentionScratch(spec AttentionSpec, lengths []int) int64 {
	tiles := 0
	for _, n := range lengths {
		tiles += ceilDiv(n, kTile)
	}
	padded := roundUp(spec.HeadDim, 16)
	packed := 3 * spec.KVHeads * (spec.HeadDim + padded) // once forward, twice backward
	return 4 * int64(tiles) * kTile * int64(packed+2*spec.Heads*padded)
}

// CrossEntropyScratch is the logits that CrossEntropy keeps for so many rows with
// a target.
func CrossEntropyScratch(rows, vocab int) int64 {
	return 4 * int64(LossRows(rows)) * int64(vocab)
}
