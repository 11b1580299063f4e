//go:build amd64 && !purego

package kernel

// The assembly converts blocks of 16 values, at least one. AVX2 with F16C moves data
// as fast as memory gives it; bfloat16, which training converts in the caches, has a
// wider form.

//go:noescape
func f16ToF32AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func f32ToF16AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func bf16ToF32AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func f32ToBF16AVX2(dst *byte, src *float32, blocks int)

//go:noescape
func bf16ToF32AVX512(dst *float32, src *byte, blocks int)

//go:noescape
func f32ToBF16AVX512(dst *byte, src *float32, blocks int)

// The functions below report how many leading values they converted.

func f16ToF32Blocks(dst []float32, src []byte) int {
	n := len(dst) / 16
	if impl < avx2 || n == 0 {
		return 0
	}
	f16ToF32AVX2(&dst[0], &src[0], n)
	return 16 * n
}

func f32ToF16Blocks(dst []byte, src []float32) int {
	n := len(src) / 16
	if impl < avx2 || n == 0 {
		return 0
	}
	f32ToF16AVX2(&dst[0], &src[0], n)
	return 16 * n
}

func bf16ToF32Blocks(dst []float32, src []byte) int {
	n := len(dst) / 16
	if impl < avx2 || n == 0 {
		return 0
	}
	if impl == avx512 {
		bf16ToF32AVX512(&dst[0], &src[0], n)
	} else {
		bf16ToF32AVX2(&dst[0], &src[0], n)
	}
	return 16 * n
}

func f32ToBF16Blocks(dst []byte, src []float32) int {
	n := len(src) / 16
	if impl < avx2 || n == 0 {
		return 0
	}
	if impl == avx512 {
		f32ToBF16AVX512(&dst[0], &src[0], n)
	} else {
		f32ToBF16AVX2(&dst[0], &src[0], n)
	}
	return 16 * n
}
