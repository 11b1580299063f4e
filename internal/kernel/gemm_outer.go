package kernel

// This file holds the driver of products whose sum runs down the rows of both
// operands: weight gradients, and Mul with few rows. Both operands are read
// where they lie; only ragged edges are copied.

// outerBlock bounds the terms summed in registers by MulTN: so many rows of a
// panel of B fit the first-level cache.
const outerBlock = 256

// wideGradient is the number of rows and columns of a gradient from which
// packing both operands pays.
const wideGradient = 128

// outerProduct is C (n, k) (+)= alpha·Aᵀ·B for A (steps, n) and B (steps, k).
// If transposed, c is (k, n).
type outerProduct struct {
	c             []float32
	a, b          Vec // float32, or bfloat16 that is widened a tile at a time
	ldc, lda, ldb int
	steps, n, k   int
	block         int // terms per block of the sum
	alpha         float32
	acc           bool
	transposed    bool
	padded        bool // rows of A go on to a multiple of the tile's rows

	rowGroups int // how many groups the rows of C are cut into
}

// run splits C over the threads: by panels of columns, and by groups of rows
// too where there are few panels.
func (o *outerProduct) run() {
	shape := tileSets[impl].outer
	panels, strips := ceilDiv(o.k, shape.cols), ceilDiv(o.n, shape.rows)
	o.rowGroups = 1
	if want := 2 * Threads(); Threads() > 1 && panels < want {
		o.rowGroups = min(strips, ceilDiv(want, panels))
	}
	Parallel(panels*o.rowGroups, 1, o)
}

// Run computes units of the product: a unit is a group of rows in a panel.
func (o *outerProduct) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	shape := tileSets[impl].outer
	for ; lo < hi; lo++ {
		i0, i1 := share(o.n, shape.rows, lo%o.rowGroups, o.rowGroups)
		o.panel(ws, shape, i0, i1, lo/o.rowGroups*shape.cols)
	}
}

// panel computes rows [i0, i1) of the panel of columns that begins at j.
func (o *outerProduct) panel(ws *workspace, shape tileShape, i0, i1, j int) {
	nc := min(shape.cols, o.k-j)
	for s := 0; s < o.steps; s += o.block {
		kc := min(o.block, o.steps-s)
		b, ldb := o.b.F32, o.ldb
		if o.b.Half() || nc < shape.cols { // no row may be read past its end
			b, ldb = padRows(&ws.rowsBuf, o.b, s*o.ldb+j, ldb, kc, nc, shape.cols), shape.cols
		} else {
			b = b[s*o.ldb+j:]
		}
		for i := i0; i < i1; i += shape.rows {
			a, lda, nr := o.a.F32, o.lda, min(shape.rows, i1-i)
			if o.a.Half() || nr < shape.rows && !o.padded {
				a, lda = padRows(&ws.tailBuf, o.a, s*o.lda+i, lda, kc, nr, shape.rows), shape.rows
			} else {
				a = a[s*o.lda+i:]
			}
			o.tile(ws, shape, kc, a, lda, b, ldb, i, j, nr, nc, o.acc || s > 0)
		}
	}
}

// tile runs one micro-kernel, into C itself if the tile is whole.
func (o *outerProduct) tile(ws *workspace, shape tileShape, kc int, a []float32, lda int, b []float32, ldb int, i, j, nr, nc int, acc bool) {
	if nr == shape.rows && nc == shape.cols && !o.transposed {
		outerTile(kc, a, lda, b, ldb, o.c[i*o.ldc+j:], o.ldc, o.alpha, acc)
		return
	}
	t := ws.tile()
	outerTile(kc, a, lda, b, ldb, t, shape.cols, o.alpha, false)
	if !o.transposed {
		storeTile(o.c[i*o.ldc+j:], o.ldc, t, shape.cols, nr, nc, acc)
		return
	}
	flipped, ldf := ws.flip(), roundUp(shape.rows, 16)
	transpose(flipped, ldf, t, shape.cols, ldf, shape.cols)
	storeTile(o.c[j*o.ldc+i:], o.ldc, flipped, ldf, nc, nr, acc)
}

// padRows copies rows of x that begin at value at, (rows, cols) at stride ldx, to rows
// of padded values.
func padRows(buf *[]float32, x Vec, at, ldx, rows, cols, padded int) []float32 {
	dst := growAligned(buf, rows*padded)
	for r := range rows {
		row := dst[r*padded : r*padded+padded]
		clear(row[cols:])
		Copy(F32Vec(row[:cols]), x.Slice(at+r*ldx, at+r*ldx+cols))
	}
	return dst
}
