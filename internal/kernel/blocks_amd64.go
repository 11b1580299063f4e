//go:build amd64 && !purego

package kernel

// The assembly of decode_amd64.s, written by _asm/vec, takes whole blocks, at least one, and computes
// what the plain Go does, bit for bit: every product and sum is one rounding.

// assembly runs the best that the processor has on all of dst, and reports whether there is any.
func (f blockFormat) assembly(dst []float32, src []byte, blocks int) bool {
	if impl < avx2 || blocks == 0 {
		return false
	}
	decode := &blockDecoders[f]
	if impl == avx2 {
		decode.avx2(&dst[0], &src[0], blocks)
	} else {
		decode.avx512(&dst[0], &src[0], blocks)
	}
	return true
}
