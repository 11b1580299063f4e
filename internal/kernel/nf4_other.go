//go:build !amd64 || purego

package kernel

func encode4Blocks(dst []byte, absmax []float32, src []float32, blockSize int, c *Codebook) {
	encode4Generic(dst, absmax, src, blockSize, c)
}

func decode4Blocks(dst []float32, src []byte, absmax []float32, blockSize int, c *Codebook) {
	decode4Generic(dst, src, absmax, blockSize, c)
}

func dot4Blocks(_, _, _ []float32, _ []byte, _ []float32, _, _ int, _ *Codebook) bool { return false }
