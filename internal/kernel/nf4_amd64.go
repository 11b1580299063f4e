//go:build amd64 && !purego

package kernel

// The assembly forms take whole blocks, at least one, whose size is a multiple
// of 32; pieces counts a block's runs of 32. They compute what
// encode4Generic and decode4Generic do, bit for bit: the products are single
// roundings in the same order, and magnitudes are compared as bits.

//go:noescape
func encode4AVX2(dst *byte, absmax *float32, src *float32, blocks, pieces int, tree *float32, order *byte)

//go:noescape
func encode4AVX512(dst *byte, absmax *float32, src *float32, blocks, pieces int, tree *float32, order *byte)

//go:noescape
func decode4AVX2(dst *float32, src *byte, absmax *float32, blocks, pieces int, table *float32)

//go:noescape
func decode4AVX512(dst *float32, src *byte, absmax *float32, blocks, pieces int, table *float32)

//go:noescape
func dot4AVX512(out, x, apart *float32, src *byte, absmax *float32, rows, blocks, pieces int, table *float32)

//go:noescape
func dot4AVX2(out, x *float32, src *byte, absmax *float32, rows, blocks, pieces int, table *float32)

// dot4Blocks multiplies rows of so many blocks by x, and reports whether it did. It may use scratch, as
// long as x.
func dot4Blocks(out, x, scratch []float32, src []byte, absmax []float32, blocks, blockSize int, c *Codebook) bool {
	switch {
	case impl >= avx512:
		dot4AVX512(&out[0], &x[0], &scratch[0], &src[0], &absmax[0], len(out), blocks, blockSize/32, &c.Values[0])
	case impl >= avx2:
		dot4AVX2(&out[0], &x[0], &src[0], &absmax[0], len(out), blocks, blockSize/32, &c.Values[0])
	default:
		return false
	}
	return true
}

func encode4Blocks(dst []byte, absmax []float32, src []float32, blockSize int, c *Codebook) {
	switch {
	case impl >= avx512:
		encode4AVX512(&dst[0], &absmax[0], &src[0], len(absmax), blockSize/32, &c.tree[0], &c.order[0])
	case impl >= avx2:
		encode4AVX2(&dst[0], &absmax[0], &src[0], len(absmax), blockSize/32, &c.tree[0], &c.order[0])
	default:
		encode4Generic(dst, absmax, src, blockSize, c)
	}
}

func decode4Blocks(dst []float32, src []byte, absmax []float32, blockSize int, c *Codebook) {
	switch {
	case impl >= avx512:
		decode4AVX512(&dst[0], &src[0], &absmax[0], len(absmax), blockSize/32, &c.Values[0])
	case impl >= avx2:
		decode4AVX2(&dst[0], &src[0], &absmax[0], len(absmax), blockSize/32, &c.Values[0])
	default:
		decode4Generic(dst, src, absmax, blockSize, c)
	}
}
