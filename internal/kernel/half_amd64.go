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

// f32ToBF16Native takes AVX512-BF16 and blocks of 32 values. It stops before one that has a
// subnormal number and returns how many blocks are left.
//
//go:noescape
func f32ToBF16Native(dst *byte, src *float32, blocks int) (left int)

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
	if impl < avx512 {
		f32ToBF16AVX2(&dst[0], &src[0], n)
		return 16 * n
	}
	at := 0
	for at < n/2*2 && nativeBF16() {
		at = n/2*2 - 2*f32ToBF16Native(&dst[32*at], &src[16*at], (n-at)/2)
		if at < n/2*2 { // what stopped it
			f32ToBF16AVX512(&dst[32*at], &src[16*at], 2)
			at += 2
		}
	}
	if at < n {
		f32ToBF16AVX512(&dst[32*at], &src[16*at], n-at)
	}
	return 16 * n
}

// gluHalf is the gated unit on bfloat16 without a copy in float32; it reports false where
// it does nothing.
func gluHalf(y, gate, up []byte, c1, c3 float32) bool {
	if impl != avx512 || len(y) == 0 {
		return false
	}
	_, _ = gate[len(y)-1], up[len(y)-1]
	if nativeBF16() {
		vecGLUHalfBF16(&y[0], &gate[0], &up[0], len(y)/2, c1, c3)
	} else {
		vecGLUHalfAVX512(&y[0], &gate[0], &up[0], len(y)/2, c1, c3)
	}
	return true
}

// gluBackHalf is the gradient of gluHalf.
func gluBackHalf(dgate, dup, dy, gate, up []byte, c1, c3 float32) bool {
	if impl != avx512 || len(dy) == 0 {
		return false
	}
	_, _, _, _ = dgate[len(dy)-1], dup[len(dy)-1], gate[len(dy)-1], up[len(dy)-1]
	if nativeBF16() {
		vecGLUBackHalfBF16(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy)/2, c1, c3)
	} else {
		vecGLUBackHalfAVX512(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy)/2, c1, c3)
	}
	return true
}
