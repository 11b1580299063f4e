//go:build amd64 && !purego

package kernel

// The assembly of decode_amd64.s, written by _asm/vec, takes whole blocks, at least one, and computes
// what the plain Go does, bit for bit: every product and sum is one rounding. The sums of products have
// the order of dot.

// decodeBlocks runs the best that the processor has on so many blocks, and reports whether there is any.
func decodeBlocks(f Format, dst []float32, src []byte, blocks int) bool {
	if impl < avx2 || blocks == 0 || int(f) >= len(decodeFormats) {
		return false
	}
	decode := &decodeFormats[f]
	if impl == avx2 {
		decode.avx2(&dst[0], &src[0], blocks)
	} else {
		decode.avx512(&dst[0], &src[0], blocks)
	}
	return true
}

// dotBlocks multiplies rows of so many blocks by x, and reports whether it did.
func dotBlocks(f Format, out, x []float32, src []byte, blocks int) bool {
	if impl < avx2 || blocks == 0 {
		return false
	}
	dots := &dotFormats[f]
	if impl == avx2 {
		dots.avx2(&out[0], &x[0], &src[0], len(out), blocks)
	} else {
		dots.avx512(&out[0], &x[0], &src[0], len(out), blocks)
	}
	return true
}
