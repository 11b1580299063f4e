package kernel

// This file says how much scratch memory the kernels keep from call to call, for
// those who plan a run before it begins. Every figure is in bytes.

// ProductScratch is what MulT and Mul of m rows keep for an (n, k) weight: the
// packed panels of a chunk, which all products share, rows decoded from a weight
// that is not in float32, sums of a result in bfloat16 that takes more than one
// chunk, and each worker's copies of rows.
func ProductScratch(m, n, k int, w Held) int64 {
	if n == 0 || k == 0 {
		return 0
	}
	cols, level := tileSets[impl].wide.cols, widened
	if w.Half && m > dotRows {
		level = halfNow()
	}
	unit := 1 // terms of a step
	if level != widened {
		unit = 2
	}
	steps := ceilDiv(k, unit)
	forward := paddedCols(min(n, roundUp(max(chunkValues/steps, chunkRows), cols))) * steps
	chunk := roundUp(max(chunkValues/k, 1), unit*reductionBlock(ceilDiv(n, unit), reductionLimit))
	if level == tiles {
		terms := roundUp(k, tileSide)
		forward = roundUp(min(n, roundUp(max(chunkValues/terms, chunkRows), tileSide)), tileSide) * terms / 2
		chunk = roundUp(max(chunkValues/k, tiledTerms), tileSide)
	}
	backward := paddedCols(k) * ceilDiv(min(n, chunk), unit)
	kept := 0
	if m <= thinRows && level == widened {
		if n >= 4*m {
			forward = paddedCols(m) * k
		}
		if k >= 4*m {
			backward = n * roundUp(m, tileSets[impl].outer.rows)
			if !w.Dense {
				kept = k * min(n, roundUp(max(chunkValues/k, 1), reductionBlock(n, reductionLimit)))
			}
		}
	}
	worker := cols*k + (blockRows+maxTileRows)*stripStride(reductionLimit)
	if w.Half {
		if chunk < n {
			kept += m * k
		}
		worker += max(blockRows, tiledRows) * stripStride(max(blockCols, tiledCols))
	}
	return 4 * (int64(max(forward, backward)+kept) + int64(Threads())*int64(worker))
}

// Held says how a weight is held, as far as products keep scratch for it.
type Held struct {
	Dense bool // in float32
	Half  bool // Matrix.Half
}

// LossRows is the number of rows whose logits CrossEntropy holds at a time, of so
// many with a target.
func LossRows(rows int) int { return min(rows, lossRows) }

// LossPiece is the number of words whose logits CrossEntropy holds at a time, for so many rows with a
// target.
func LossPiece(rows, vocab int) int {
	return min(vocab, roundUp(max(lossValues/max(LossRows(rows), 1), 1), 64))
}

// RoundedScratch is what products of m rows in bfloat16 keep besides for an (n, k)
// weight, their other operand being in bfloat16 already: that operand as tiles for AMX,
// a chunk of the sum at a time, or widened where it takes the float32 kernels.
func RoundedScratch(m, n, k int) int64 {
	switch halfNow() {
	case pairs:
		return 0
	case tiles:
		chunk := roundUp(max(chunkValues/k, tiledTerms), tileSide)
		return 2 * int64(roundUp(m, tileSide)) * int64(roundUp(max(k, min(n, chunk)), tileSide))
	}
	return 4 * int64(m) * int64(max(n, k))
}

// KeptScratch is what a Kept holds after products of m rows in bfloat16 with an (n, k) weight, in
// either direction, in place of RoundedScratch; 0 where products keep nothing.
func KeptScratch(m, n, k int) int64 {
	if halfNow() != tiles || m <= dotRows {
		return 0
	}
	return 4 * int64(tilesRoom(m, max(n, k)))
}

// AttentionScratch is what Attention and AttentionBackward keep for sequences of
// the given lengths, half saying whether their operands are bfloat16: keys and values in
// tiles, for either direction, and each head's part of their gradients. It is linear in
// the number of tokens.
func AttentionScratch(spec AttentionSpec, lengths []int, half bool) int64 {
	tiles := 0
	for _, n := range lengths {
		tiles += ceilDiv(n, kTile)
	}
	padded := roundUp(spec.HeadDim, 16)
	packed := 3 * spec.KVHeads * (spec.HeadDim + padded) // once forward, twice backward
	if half && spec.halfOf() != widened {
		packed /= 2
	}
	return 4 * int64(tiles) * kTile * int64(packed+2*spec.Heads*padded)
}

// CrossEntropyScratch is the logits that CrossEntropy keeps for so many rows with
// a target.
func CrossEntropyScratch(rows, vocab int) int64 {
	return 4 * int64(LossRows(rows)) * int64(LossPiece(rows, vocab))
}
