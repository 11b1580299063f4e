package kernel

import (
	"fmt"
	"math"
)

// This file holds 4-bit codes with one scale a block, in the arithmetic of
// bitsandbytes: a value is a table entry times its block's largest magnitude.
// The tables, the double quantization of the scales and the saved form are in
// package quantize; here are only the loops that touch every weight.

// A Codebook is a 4-bit number format: 16 values, and the rule that maps a
// number in [-1, 1] to the code of one of them.
type Codebook struct {
	Values [16]float32 // value of each code

	bounds [15]float32 // ascending midpoints of neighbouring values
	order  [16]byte    // code of each interval that the bounds cut
	tree   [16]float32 // the bounds as a search tree: the children of node i are 2i and 2i+1, node 0 is unused
}

// NewCodebook returns the format with these values. Order lists the codes in
// ascending order of their values and settles which of two equal values a
// number between them gets.
func NewCodebook(values [16]float32, order [16]byte) *Codebook {
	c := &Codebook{Values: values, order: order}
	for i := range c.bounds {
		c.bounds[i] = (values[order[i]] + values[order[i+1]]) / 2
	}
	for node := 1; node < 16; node++ {
		// Node 2^d + i is the i-th of its depth d: the middle of the i-th of 2^d
		// equal parts of the bounds.
		depth, i := 0, node
		for 2<<depth <= node {
			depth++
		}
		i -= 1 << depth
		c.tree[node] = c.bounds[(2*i+1)<<(3-depth)-1]
	}
	return c
}

// minAbsmax4 keeps the reciprocal of an all-zero block's scale finite.
const minAbsmax4 = 1e-38

// Encode4 quantizes src in blocks of blockSize (a multiple of 32): absmax gets
// the largest magnitude of each block and dst the codes, two a byte, the first
// in the high nibble. A whole block is scaled by the reciprocal of its absmax;
// a short last block is divided by it and its absmax is at least 1e-38. An odd
// count is filled up with the code of 0. A number that lies on a bound takes
// the lower code. Where src holds NaN or an infinity, its block's absmax is
// not finite and its codes mean nothing.
//
// len(dst) is (len(src)+1)/2 and len(absmax) is len(src)/blockSize rounded up.
func Encode4(dst []byte, absmax []float32, src []float32, blockSize int, c *Codebook) {
	blocks := len(src) / blockSize
	if blockSize <= 0 || blockSize%32 != 0 || len(dst) != (len(src)+1)/2 || len(absmax) != (len(src)+blockSize-1)/blockSize {
		panic(fmt.Sprintf("kernel: Encode4 of %d values in blocks of %d to %d bytes and %d scales", len(src), blockSize, len(dst), len(absmax)))
	}
	if blocks > 0 {
		encode4Blocks(dst[:blocks*blockSize/2], absmax[:blocks], src[:blocks*blockSize], blockSize, c)
	}
	if tail := src[blocks*blockSize:]; len(tail) > 0 {
		encode4Tail(dst[blocks*blockSize/2:], &absmax[blocks], tail, c)
	}
}

// encode4Generic encodes whole blocks; it is what the assembly forms compute.
func encode4Generic(dst []byte, absmax []float32, src []float32, blockSize int, c *Codebook) {
	for b := range absmax {
		x := src[b*blockSize:][:blockSize]
		codes := dst[b*blockSize/2:][:blockSize/2]
		m := maxAbs(x)
		absmax[b] = m
		inv := 1 / max(m, minAbsmax4)
		for i := range codes {
			codes[i] = c.code(float32(x[2*i]*inv))<<4 | c.code(float32(x[2*i+1]*inv))
		}
	}
}

func encode4Tail(dst []byte, absmax *float32, x []float32, c *Codebook) {
	m := max(maxAbs(x), minAbsmax4)
	*absmax = m
	for i := range dst {
		second := c.code(0)
		if 2*i+1 < len(x) {
			second = c.code(x[2*i+1] / m)
		}
		dst[i] = c.code(x[2*i]/m)<<4 | second
	}
}

// maxAbs is the largest magnitude in x. It compares bits, which order
// magnitudes as their values do and put infinity and NaN on top.
func maxAbs(x []float32) float32 {
	var m uint32
	for _, v := range x {
		m = max(m, math.Float32bits(v)&0x7fffffff)
	}
	return math.Float32frombits(m)
}

// code is the code of s: that of the interval whose lower bound is the largest
// one strictly below s.
func (c *Codebook) code(s float32) byte {
	node := 1
	for node < 16 {
		next := 2 * node
		if s > c.tree[node] {
			next++
		}
		node = next
	}
	return c.order[node-16]
}

// Decode4 expands len(dst) codes that start skip codes (less than blockSize)
// after the beginning of src: value = c.Values[code] * absmax[block], a
// float32 product. Src and absmax begin at the same block, whose size is a
// multiple of 32; the last block may be short.
func Decode4(dst []float32, src []byte, absmax []float32, skip, blockSize int, c *Codebook) {
	end := skip + len(dst)
	if blockSize <= 0 || blockSize%32 != 0 || skip < 0 || skip >= blockSize || len(src) < (end+1)/2 || len(absmax) < (end+blockSize-1)/blockSize {
		panic(fmt.Sprintf("kernel: Decode4 of codes [%d, %d) in blocks of %d from %d bytes and %d scales", skip, end, blockSize, len(src), len(absmax)))
	}
	if skip > 0 {
		n := min(len(dst), blockSize-skip)
		decode4Part(dst[:n], src, absmax[0], skip, c)
		if n == len(dst) {
			return
		}
		dst, src, absmax = dst[n:], src[blockSize/2:], absmax[1:]
	}
	blocks := len(dst) / blockSize
	if blocks > 0 {
		decode4Blocks(dst[:blocks*blockSize], src[:blocks*blockSize/2], absmax[:blocks], blockSize, c)
	}
	if n := blocks * blockSize; n < len(dst) {
		decode4Part(dst[n:], src[n/2:], absmax[blocks], 0, c)
	}
}

// Dot4 multiplies rows by x: out[r] = x · row r, where src holds len(out) rows of len(x) codes, whole
// blocks each, and absmax their scales. The bits are those that decoding them first gives.
func Dot4(out, x []float32, src []byte, absmax []float32, blockSize int, c *Codebook) {
	blocks := 0
	if blockSize > 0 {
		blocks = len(x) / blockSize
	}
	if blocks == 0 || blockSize%32 != 0 || len(x)%blockSize != 0 || len(src) < len(out)*len(x)/2 || len(absmax) < len(out)*blocks {
		panic(fmt.Sprintf("kernel: Dot4 of %d rows of %d codes in blocks of %d from %d bytes and %d scales", len(out), len(x), blockSize, len(src), len(absmax)))
	}
	if len(out) == 0 {
		return
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	row := growAligned(&ws.rowsBuf, len(x))
	if dot4Blocks(out, x, row, src, absmax, blocks, blockSize, c) {
		return
	}
	for r := range out {
		Decode4(row, src[r*len(x)/2:], absmax[r*blocks:], 0, blockSize, c)
		dot(out[r:r+1], x, row, len(x))
	}
}

// decode4Generic decodes whole blocks; it is what the assembly forms compute.
func decode4Generic(dst []float32, src []byte, absmax []float32, blockSize int, c *Codebook) {
	for b, m := range absmax {
		var scaled [16]float32
		for i, v := range c.Values {
			scaled[i] = v * m
		}
		x := dst[b*blockSize:][:blockSize]
		for i, q := range src[b*blockSize/2:][:blockSize/2] {
			x[2*i] = scaled[q>>4]
			x[2*i+1] = scaled[q&15]
		}
	}
}

// decode4Part decodes codes first, first+1, … of one block.
func decode4Part(dst []float32, src []byte, absmax float32, first int, c *Codebook) {
	for i := range dst {
		at := first + i
		q := src[at/2]
		if at%2 == 0 {
			q >>= 4
		}
		dst[i] = c.Values[q&15] * absmax
	}
}
