//go:build amd64 && !purego

package kernel

//go:generate sh -c "go run ./_asm/gemm > gemm_amd64.s"

// The functions of gemm_amd64.s. Strides are in values. Each equals the
// reference named beside it, but for the fused rounding of products.

// genericRowTile over the tile in the name; next is fetched for a later call.
//
//go:noescape
func rowTile14x32(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

//go:noescape
func rowTile24x16(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

//go:noescape
func pairTile14x32(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

//go:noescape
func pairTile8x32(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

//go:noescape
func pairTile24x16(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

//go:noescape
func rowTile6x16(steps int, a *float32, lda int, b *float32, c *float32, ldc int, next *float32, alpha float32, acc bool)

// genericRowTile over the tile in the name of an A in panels of 32 columns, 16 for 6x16, that begin lda
// values apart. Steps fill panels.
//
//go:noescape
func laidTile14x32(steps int, a *float32, lda int, b *float32, c *float32, ldc int, alpha float32, acc bool)

//go:noescape
func laidTile24x16(steps int, a *float32, lda int, b *float32, c *float32, ldc int, alpha float32, acc bool)

//go:noescape
func laidTile6x16(steps int, a *float32, lda int, b *float32, c *float32, ldc int, alpha float32, acc bool)

// genericOuterTile over the tile in the name.
//
//go:noescape
func outerTile8x48(steps int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, alpha float32, acc bool)

//go:noescape
func outerTile4x24(steps int, a *float32, lda int, b *float32, ldb int, c *float32, ldc int, alpha float32, acc bool)

// genericDot over the number of rows in the name.
//
//go:noescape
func dot4Z(k int, x *float32, w *float32, ldw int, out *float32)

//go:noescape
func dot1Z(k int, x *float32, w *float32, ldw int, out *float32)

//go:noescape
func dot2Y(k int, x *float32, w *float32, ldw int, out *float32)

//go:noescape
func dot1Y(k int, x *float32, w *float32, ldw int, out *float32)

// dst (side·blocks, side) is the transpose of src (side, side·blocks).
//
//go:noescape
func transpose16(dst *float32, ldd int, src *float32, lds int, blocks int)

//go:noescape
func transpose8(dst *float32, ldd int, src *float32, lds int, blocks int)

// genericTileStrips. next is fetched for a later call.
//
//go:noescape
func tileStrips(config *[64]byte, k *tileCall, a, b, c, next *float32)

// Rows of src, rounded, become lines of a strip: see stripLines.
//
//go:noescape
func roundStrip(dst *float32, src *float32, lds, rows, lines int)

// The same of values that are bfloat16 already.
//
//go:noescape
func copyStrip(dst *float32, src *byte, lds, rows, lines int)

// dst, panels of (pairs, 32) words that begin ldp words apart, gets words of the values
// of rows 2i and 2i+1 of src (2·pairs, 32·panels), bfloat16 at a stride of lds words.
//
//go:noescape
func pairRows(dst, src *float32, lds, pairs, panels, ldp int)

// dst (32·panels/2, 32) gets words of the values of columns 2i and 2i+1 of what pairRows made of 32
// rows: src, panels of (16, 32) words that begin ldp words apart.
//
//go:noescape
func pairColumns(dst, src *float32, panels, ldp int)

// rowTile runs the wide or narrow micro-kernel of the implementation in use on
// a whole tile: C (+)= alpha·A·B.
func rowTile(shape tileShape, steps int, a []float32, lda int, b, next []float32, c []float32, ldc int, alpha float32, acc bool) {
	_, _, _ = a[(shape.rows-1)*lda+steps-1], b[steps*shape.cols-1], c[(shape.rows-1)*ldc+shape.cols-1]
	switch {
	case impl == generic:
		genericRowTile(steps, a, lda, b, c, ldc, alpha, acc)
	case impl == avx2:
		rowTile6x16(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	case shape == tileSets[avx512].wide:
		rowTile14x32(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	default:
		rowTile24x16(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	}
}

// laidTile is rowTile for an A in panels of the wide tile's columns, that begin lda values apart: rows
// of a weight. Steps are a multiple of these columns.
func laidTile(shape tileShape, steps int, a []float32, lda int, b []float32, c []float32, ldc int, alpha float32, acc bool) {
	cols := tileSets[impl].wide.cols
	_, _, _ = a[(steps/cols-1)*lda+shape.rows*cols-1], b[steps*shape.cols-1], c[(shape.rows-1)*ldc+shape.cols-1]
	switch {
	case impl == generic:
		genericLaidTile(steps, a, lda, b, c, ldc, alpha, acc)
	case impl == avx2:
		laidTile6x16(steps, &a[0], lda, &b[0], &c[0], ldc, alpha, acc)
	case shape == tileSets[avx512].wide:
		laidTile14x32(steps, &a[0], lda, &b[0], &c[0], ldc, alpha, acc)
	default:
		laidTile24x16(steps, &a[0], lda, &b[0], &c[0], ldc, alpha, acc)
	}
}

// pairTile is rowTile of avx512 on words of two values in bfloat16, a step taking both.
func pairTile(shape tileShape, steps int, a []float32, lda int, b, next []float32, c []float32, ldc int, alpha float32, acc bool) {
	_, _, _ = a[(shape.rows-1)*lda+steps-1], b[steps*shape.cols-1], c[(shape.rows-1)*ldc+shape.cols-1]
	switch {
	case pairsInGo:
		genericPairTile(shape, steps, a, lda, b, c, ldc, alpha, acc)
	case shape == tileSets[avx512].wide:
		pairTile14x32(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	case shape == shortPairs:
		pairTile8x32(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	default:
		pairTile24x16(steps, &a[0], lda, &b[0], &c[0], ldc, &next[0], alpha, acc)
	}
}

// outerTile runs the outer micro-kernel of the implementation in use on a
// whole tile: C (+)= alpha·Aᵀ·B.
func outerTile(steps int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, alpha float32, acc bool) {
	shape := tileSets[impl].outer
	_, _, _ = a[(steps-1)*lda+shape.rows-1], b[(steps-1)*ldb+shape.cols-1], c[(shape.rows-1)*ldc+shape.cols-1]
	switch impl {
	case generic:
		genericOuterTile(steps, a, lda, b, ldb, c, ldc, alpha, acc)
	case avx2:
		outerTile4x24(steps, &a[0], lda, &b[0], ldb, &c[0], ldc, alpha, acc)
	default:
		outerTile8x48(steps, &a[0], lda, &b[0], ldb, &c[0], ldc, alpha, acc)
	}
}

// dot computes out[r] = x · row r of w for all of out.
func dot(out, x, w []float32, ldw int) {
	if impl == generic {
		genericDot(out, x, w, ldw)
		return
	}
	_ = w[(len(out)-1)*ldw+len(x)-1]
	r := 0
	if impl == avx512 {
		for ; r+4 <= len(out); r += 4 {
			dot4Z(len(x), &x[0], &w[r*ldw], ldw, &out[r])
		}
		for ; r < len(out); r++ {
			dot1Z(len(x), &x[0], &w[r*ldw], ldw, &out[r])
		}
		return
	}
	for ; r+2 <= len(out); r += 2 {
		dot2Y(len(x), &x[0], &w[r*ldw], ldw, &out[r])
	}
	for ; r < len(out); r++ {
		dot1Y(len(x), &x[0], &w[r*ldw], ldw, &out[r])
	}
}

// transposeBlocks transposes blocks squares of transposeBlock() rows, side by
// side in x, to one below the other in dst. It needs an impl above generic.
func transposeBlocks(dst []float32, ldd int, x []float32, ldx, blocks int) {
	side := transposeBlock()
	_, _ = dst[(side*blocks-1)*ldd+side-1], x[(side-1)*ldx+side*blocks-1]
	if impl == avx512 {
		transpose16(&dst[0], ldd, &x[0], ldx, blocks)
	} else {
		transpose8(&dst[0], ldd, &x[0], ldx, blocks)
	}
}
