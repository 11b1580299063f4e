//go:build amd64 && !purego

package kernel

// The assembly, written by _asm/vec, takes whole blocks, at least one, and computes what the plain Go of
// encode.go does, bit for bit, on finite values.

//go:noescape
func encodeQ8_0AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ8_0AVX512(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ4_0AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ4_0AVX512(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ4_1AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ4_1AVX512(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ5_0AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ5_0AVX512(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ5_1AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func encodeQ5_1AVX512(dst *byte, src *float32, blocks int)

// encodeBlocks runs the best of both on all of src and reports whether there is any.
func encodeBlocks(small, large func(dst *byte, src *float32, blocks int), dst []byte, src []float32) bool {
	if impl < avx2 || len(src) == 0 {
		return false
	}
	if impl >= avx512 {
		small = large
	}
	small(&dst[0], &src[0], len(src)/32)
	return true
}

func encodeQ8_0Blocks(dst []byte, src []float32) bool {
	return encodeBlocks(encodeQ8_0AVX2, encodeQ8_0AVX512, dst, src)
}

func encodeQ4_0Blocks(dst []byte, src []float32) bool {
	return encodeBlocks(encodeQ4_0AVX2, encodeQ4_0AVX512, dst, src)
}

func encodeQ4_1Blocks(dst []byte, src []float32) bool {
	return encodeBlocks(encodeQ4_1AVX2, encodeQ4_1AVX512, dst, src)
}

func encodeQ5_0Blocks(dst []byte, src []float32) bool {
	return encodeBlocks(encodeQ5_0AVX2, encodeQ5_0AVX512, dst, src)
}

func encodeQ5_1Blocks(dst []byte, src []float32) bool {
	return encodeBlocks(encodeQ5_1AVX2, encodeQ5_1AVX512, dst, src)
}
