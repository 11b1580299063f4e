//go:build amd64 && !purego

package kernel

// The assembly takes whole blocks, at least one, and computes what the plain Go of
// blocks.go does, bit for bit: every product and sum is one rounding.

//go:noescape
func decodeQ8_0AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_0AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_1AVX2(dst *float32, src *byte, blocks int)

// decodeBlocks runs the assembly on all of dst and reports whether there is any.
func decodeBlocks(run func(dst *float32, src *byte, blocks int), dst []float32, src []byte) bool {
	if impl < avx2 || len(dst) == 0 {
		return false
	}
	run(&dst[0], &src[0], len(dst)/32)
	return true
}

func decodeQ8_0Blocks(dst []float32, src []byte) bool { return decodeBlocks(decodeQ8_0AVX2, dst, src) }
func decodeQ4_0Blocks(dst []float32, src []byte) bool { return decodeBlocks(decodeQ4_0AVX2, dst, src) }
func decodeQ4_1Blocks(dst []float32, src []byte) bool { return decodeBlocks(decodeQ4_1AVX2, dst, src) }
