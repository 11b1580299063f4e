package kernel

// This file holds the driver of large products, MulT and Mul with many rows.
// The weight goes chunk by chunk, decoded if need be, into panels that all
// workers share; then each worker multiplies blocks of rows of A, copied into
// strips of its own. The copies cost 1–3 % of a product at m ≥ 1024.

const (
	// reductionLimit bounds the terms summed in registers before C is touched:
	// a panel of that many steps stays in the second-level cache with a block
	// of A.
	reductionLimit = 576
	// blockRows bounds the rows of A that a worker packs at once.
	blockRows = 252
	// chunkValues is about the size of the packed chunk of a weight, and
	// chunkRows the least number of rows of a chunk: packing A again for each
	// chunk must stay cheap.
	chunkValues = 1 << 20
	chunkRows   = 512
	// directPanels is the number of panels up to which packing A does not pay.
	directPanels = 4
)

// blocking says which part of the product the present chunk is, and how it is
// cut into units of work: terms [r0, r1) of the sum for columns [o0, o1) of C.
type blocking struct {
	r0, r1, o0, o1 int
	kc             int // terms per block of the sum
	unitRows       int
	unitCols       int // a multiple of the wide tile's columns
}

// blockedForward computes C (m, N) (+)= A (m, K)·Wᵀ. A panel holds rows of W
// as its columns, whole: [row/cols][K][cols].
func (p *product) blockedForward() {
	n, k := p.w.N, p.w.K
	p.backward = false
	chunk := roundUp(max(chunkValues/k, chunkRows), tileSets[impl].wide.cols)
	b := &p.blocks
	*b = blocking{r1: k, kc: reductionBlock(k, reductionLimit)}
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.panels = growAligned(&p.scratch, paddedCols(p.hi-p.lo)*k)
		Parallel(p.hi-p.lo, tileSets[impl].wide.cols, (*packForward)(p))
		b.o0, b.o1 = p.lo, p.hi
		p.multiply()
	}
}

// blockedBackward computes C (m, K) (+)= A (m, N)·W. A panel holds a piece of
// each row of W of the chunk: [column/cols][rows][cols].
func (p *product) blockedBackward() {
	n, k := p.w.N, p.w.K
	p.backward = true
	b := &p.blocks
	*b = blocking{o1: k, kc: reductionBlock(n, reductionLimit)}
	chunk := roundUp(max(chunkValues/k, chunkRows), b.kc)
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.panels = growAligned(&p.scratch, paddedCols(k)*(p.hi-p.lo))
		Parallel(p.hi-p.lo, 16, (*packBackward)(p))
		b.r0, b.r1 = p.lo, p.hi
		p.multiply()
	}
}

// packForward is the task that transposes rows of W into panels; ranges are
// rows counted from the chunk's first, at multiples of the wide tile's columns.
type packForward product

func (p *packForward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	k, cols := p.w.K, p.hi-p.lo
	for lo < hi {
		shape := panelShape(cols - lo)
		n := min(shape.cols, hi-lo)
		dst := p.panels[lo*k : (lo+shape.cols)*k]
		if n < shape.cols {
			clear(dst)
		}
		transpose(dst, shape.cols, p.w.rows(&ws.rowsBuf, p.lo+lo, p.lo+lo+n), k, n, k)
		lo += n
	}
}

// packBackward is the task that cuts rows of W into pieces; ranges are rows
// counted from the chunk's first.
type packBackward product

func (p *packBackward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	k, steps := p.w.K, p.hi-p.lo
	for ; lo < hi; lo += 16 {
		n := min(16, hi-lo)
		w := p.w.rows(&ws.rowsBuf, p.lo+lo, p.lo+lo+n)
		for j := 0; j < k; {
			cols := panelShape(k - j).cols
			dst, e := p.panels[j*steps+lo*cols:], min(k, j+cols)
			for r := range n {
				row := dst[r*cols : r*cols+cols]
				clear(row[copy(row, w[r*k+j:r*k+e]):])
			}
			j += cols
		}
	}
}

// multiply runs the present chunk: blocks of rows, and blocks of columns too
// where rows alone do not feed the threads.
func (p *product) multiply() {
	b, set := &p.blocks, &tileSets[impl]
	pieces := 2 * Threads()
	if Threads() == 1 {
		pieces = 1
	}
	b.unitRows = min(roundUp(ceilDiv(p.m, pieces), set.wide.rows), max(blockRows/set.wide.rows, 1)*set.wide.rows)
	rowUnits := ceilDiv(p.m, b.unitRows)
	b.unitCols = roundUp(ceilDiv(b.o1-b.o0, ceilDiv(pieces, rowUnits)), set.wide.cols)
	Parallel(rowUnits*ceilDiv(b.o1-b.o0, b.unitCols), 1, (*multiplyUnits)(p))
}

// multiplyUnits is the task of the blocks of one chunk, columns fastest.
type multiplyUnits product

func (p *multiplyUnits) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	b := &p.blocks
	colUnits := ceilDiv(b.o1-b.o0, b.unitCols)
	for ; lo < hi; lo++ {
		i0, j0 := lo/colUnits*b.unitRows, b.o0+lo%colUnits*b.unitCols
		(*product)(p).multiplyBlock(ws, i0, min(p.m, i0+b.unitRows), j0, min(b.o1, j0+b.unitCols))
	}
}

// multiplyBlock computes rows [i0, i1) and columns [j0, j1) of C over the
// present chunk's part of the sum.
func (p *product) multiplyBlock(ws *workspace, i0, i1, j0, j1 int) {
	b, wide := &p.blocks, tileSets[impl].wide
	direct := j1-j0 <= directPanels*wide.cols
	rows, steps := i1-i0, b.r1-b.r0
	for r := b.r0; r < b.r1; r += b.kc {
		kc := min(b.kc, b.r1-r)
		x, ldx := p.a[i0*p.lda+r:], p.lda
		strips, stride := x, ldx
		if !direct {
			stride = stripStride(kc)
			padded := rows + maxTileRows
			strips = growAligned(&ws.stripsBuf, padded*stride)
			packStrips(strips, stride, x, ldx, rows, kc, padded)
		}
		acc := p.acc || r > 0
		for j := j0; j < j1; {
			shape := panelShape(b.o1 - j)
			panel := p.panels[(j-b.o0)*steps+(r-b.r0)*shape.cols:]
			// The next panel is fetched in pieces while this one is used.
			next, ahead := panel, kc*shape.cols
			if j+shape.cols < j1 {
				next = p.panels[(j+shape.cols-b.o0)*steps+(r-b.r0)*panelShape(b.o1-j-shape.cols).cols:]
			}
			for i, f := 0, 0; i < rows; i, f = i+shape.rows, (f+kc*4)%ahead {
				s, lds := strips[i*stride:], stride
				if direct && rows-i < shape.rows {
					lds = stripStride(kc)
					s = growAligned(&ws.stripsBuf, shape.rows*lds)
					packStrips(s, lds, x[i*ldx:], ldx, rows-i, kc, shape.rows)
				}
				c, nr, nc := p.c[(i0+i)*p.ldc+j:], min(shape.rows, rows-i), min(shape.cols, j1-j)
				if nr == shape.rows && nc == shape.cols {
					rowTile(shape, kc, s, lds, panel, next[min(f, len(next)-1):], c, p.ldc, p.alpha, acc)
					continue
				}
				t := ws.tile()
				rowTile(shape, kc, s, lds, panel, panel, t, shape.cols, p.alpha, false)
				storeTile(c, p.ldc, t, shape.cols, nr, nc, acc)
			}
			j += shape.cols
		}
	}
}
