//go:build amd64 && !purego

package kernel

// The assembly encodes whole blocks as the plain Go of blocks_encode.go does, bit for bit, as far
// as the first that holds a value that is not finite, and returns how many it did.

//go:noescape
func encodeQ8_0AVX2(dst *byte, src *float32, blocks int) int

//go:noescape
func encodeQ4_0AVX2(dst *byte, src *float32, blocks int) int

//go:noescape
func encodeQ4_1AVX2(dst *byte, src *float32, blocks int) int

//go:noescape
func encodeQ5_0AVX2(dst *byte, src *float32, blocks int) int

//go:noescape
func encodeQ5_1AVX2(dst *byte, src *float32, blocks int) int

func encodeBlocks(run func(dst *byte, src *float32, blocks int) int, dst []byte, src []float32) int {
	if impl < avx2 || len(src) == 0 {
		return 0
	}
	return run(&dst[0], &src[0], len(src)/32)
}

func encodeQ8_0Blocks(dst []byte, src []float32) int { return encodeBlocks(encodeQ8_0AVX2, dst, src) }
func encodeQ4_0Blocks(dst []byte, src []float32) int { return encodeBlocks(encodeQ4_0AVX2, dst, src) }
func encodeQ4_1Blocks(dst []byte, src []float32) int { return encodeBlocks(encodeQ4_1AVX2, dst, src) }
func encodeQ5_0Blocks(dst []byte, src []float32) int { return encodeBlocks(encodeQ5_0AVX2, dst, src) }
func encodeQ5_1Blocks(dst []byte, src []float32) int { return encodeBlocks(encodeQ5_1AVX2, dst, src) }
