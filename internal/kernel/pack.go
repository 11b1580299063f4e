package kernel

import "unsafe"

// This file holds scratch memory and the copies that bring operands into the
// order in which the micro-kernels read them.

// growAligned makes *buf hold at least n values from a 64-byte boundary on and
// returns the first n. Contents are not kept.
func growAligned(buf *[]float32, n int) []float32 {
	if cap(*buf) < n {
		s := make([]float32, n+15)
		off := 0
		if r := uintptr(unsafe.Pointer(&s[0])) % 64; r != 0 {
			off = int(64-r) / 4
		}
		*buf = s[off : off+n]
	}
	return (*buf)[:n]
}

// workspace is one worker's scratch during one range of a task.
type workspace struct {
	rowsBuf, stripsBuf, tailBuf, tileBuf, flipBuf, sumsBuf []float32
}

var workspaces freeList[workspace]

// tile is room for the result of any micro-kernel, flip for its transpose.
func (ws *workspace) tile() []float32 { return growAligned(&ws.tileBuf, 16*64) }
func (ws *workspace) flip() []float32 { return growAligned(&ws.flipBuf, 16*64) }

// reductionBlock cuts a sum of n terms into equal blocks of at most limit
// terms, multiples of 16 but for the last. It depends on n alone: block sums
// are added one after the other, so this decides the rounding.
func reductionBlock(n, limit int) int {
	return roundUp(ceilDiv(n, ceilDiv(n, limit)), 16)
}

// stripStride is a row stride for packed rows of n values: an odd number of
// cache lines, so that the rows of a strip fall in different cache sets.
func stripStride(n int) int {
	s := roundUp(n, 16)
	if s/16%2 == 0 {
		s += 16
	}
	return s
}

// packStrips copies x (rows, cols) at stride ldx to dst at stride ldd and
// zeroes the rows up to padded.
func packStrips(dst []float32, ldd int, x []float32, ldx, rows, cols, padded int) {
	for i := range rows {
		copy(dst[i*ldd:i*ldd+cols], x[i*ldx:])
	}
	for i := rows; i < padded; i++ {
		clear(dst[i*ldd : i*ldd+cols])
	}
}

// transpose writes x (rows, cols) at stride ldx to dst (cols, rows) at stride
// ldd, in blocks that fit the vector registers where whole ones remain.
func transpose(dst []float32, ldd int, x []float32, ldx, rows, cols int) {
	block := transposeBlock()
	for i := 0; i < rows; i += block {
		done := 0
		if n := cols / block; n > 0 && rows-i >= block && impl > generic {
			transposeBlocks(dst[i:], ldd, x[i*ldx:], ldx, n)
			done = n * block
		}
		for r := i; r < min(i+block, rows); r++ {
			row := x[r*ldx : r*ldx+cols]
			for j := done; j < cols; j++ {
				dst[j*ldd+r] = row[j]
			}
		}
	}
}

// storeTile moves a result t (rows, cols) at stride ldt to c, or adds it.
func storeTile(c []float32, ldc int, t []float32, ldt, rows, cols int, acc bool) {
	for i := range rows {
		d, s := c[i*ldc:i*ldc+cols], t[i*ldt:i*ldt+cols]
		if !acc {
			copy(d, s)
			continue
		}
		for j := range d {
			d[j] += s[j]
		}
	}
}
