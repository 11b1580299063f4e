//go:build amd64 && !purego

package kernel

// The assembly takes whole blocks, at least one, and computes what the plain Go of
// blocks.go and superblocks.go does, bit for bit: every product and sum is one rounding.

//go:noescape
func decodeQ8_0AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_0AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4_1AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_0AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5_1AVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4NLAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeIQ4XSAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ2KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ3KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ4KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ5KAVX2(dst *float32, src *byte, blocks int)

//go:noescape
func decodeQ6KAVX2(dst *float32, src *byte, blocks int)

// decodeBlocks runs the assembly on all of dst and reports whether there is any.
func decodeBlocks(run func(dst *float32, src *byte, blocks int), dst []float32, src []byte, size int) bool {
	if impl < avx2 || len(dst) == 0 {
		return false
	}
	run(&dst[0], &src[0], len(dst)/size)
	return true
}

func decodeQ8_0Blocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ8_0AVX2, dst, src, 32)
}
func decodeQ4_0Blocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ4_0AVX2, dst, src, 32)
}
func decodeQ4_1Blocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ4_1AVX2, dst, src, 32)
}
func decodeQ5_0Blocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ5_0AVX2, dst, src, 32)
}
func decodeQ5_1Blocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ5_1AVX2, dst, src, 32)
}
func decodeIQ4NLBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeIQ4NLAVX2, dst, src, 32)
}
func decodeIQ4XSBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeIQ4XSAVX2, dst, src, 256)
}
func decodeQ2KBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ2KAVX2, dst, src, 256)
}
func decodeQ3KBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ3KAVX2, dst, src, 256)
}
func decodeQ4KBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ4KAVX2, dst, src, 256)
}
func decodeQ5KBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ5KAVX2, dst, src, 256)
}
func decodeQ6KBlocks(dst []float32, src []byte) bool {
	return decodeBlocks(decodeQ6KAVX2, dst, src, 256)
}
