package kernel

// This file holds the driver of large products, MulT and Mul with many rows.
// The weight goes chunk by chunk, decoded if need be, into panels that all
// workers share; then each worker multiplies blocks of rows of A. Packing costs
// 2–5 % of a product at m ≥ 1024.

const (
	// reductionLimit bounds the terms summed in registers before C is touched:
	// a panel of that many steps stays in the second-level cache with a block
	// of A.
	reductionLimit = 576
	// blockRows bounds the rows of A that a worker multiplies with one panel
	// after the other.
	blockRows = 140
	// chunkValues is about the size of the packed chunk of a weight, and
	// chunkRows the least number of its rows in MulT: A is read, and perhaps
	// copied, again for each chunk.
	chunkValues = 1 << 20
	chunkRows   = 512
	// conflictStride is the row stride (and its multiples) at which all rows of
	// a strip fall in one set of the first-level cache: such an A is copied.
	// Any other is read where it lies.
	conflictStride = 1024
	// shortSum is the length of a sum up to which storing C decides the speed.
	shortSum = 64
)

// blocking says which part of the product the present chunk is, and how it is
// cut into units of work: terms [r0, r1) of the sum for columns [o0, o1) of C.
type blocking struct {
	r0, r1, o0, o1 int
	kc             int // terms per block of the sum
	rowUnits       int // C is cut into rowUnits × colUnits blocks of whole tiles
	colUnits       int
}

// blockedForward computes C (m, N) (+)= A (m, K)·Wᵀ. A panel holds rows of W
// as its columns, whole: [row/cols][K][cols].
func (p *product) blockedForward() {
	n, k := p.w.N, p.w.K
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
	b := &p.blocks
	*b = blocking{o1: k, kc: reductionBlock(n, reductionLimit)}
	chunk := roundUp(max(chunkValues/k, 1), b.kc)
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
		w, ldw := p.w.rows(&ws.rowsBuf, p.lo+lo, p.lo+lo+n), p.w.stride()
		for j := 0; j < k; {
			cols := panelShape(k - j).cols
			dst, e := p.panels[j*steps+lo*cols:], min(k, j+cols)
			for r := range n {
				row := dst[r*cols : r*cols+cols]
				clear(row[copy(row, w[r*ldw+j:r*ldw+e]):])
			}
			j += cols
		}
	}
}

// multiply runs the present chunk in units of about blockRows rows, as many for
// each thread, and cuts columns too where rows alone do not feed the threads.
func (p *product) multiply() {
	b, wide, threads := &p.blocks, tileSets[impl].wide, Threads()
	b.rowUnits = min(threads*ceilDiv(p.m, threads*blockRows), ceilDiv(p.m, wide.rows))
	b.colUnits = 1
	if b.rowUnits < threads {
		b.colUnits = min(ceilDiv(2*threads, b.rowUnits), ceilDiv(b.o1-b.o0, wide.cols))
	}
	Parallel(b.rowUnits*b.colUnits, 1, (*multiplyUnits)(p))
}

// multiplyUnits is the task of the units of one chunk, columns fastest.
type multiplyUnits product

func (p *multiplyUnits) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	b, wide := &p.blocks, tileSets[impl].wide
	for ; lo < hi; lo++ {
		i0, i1 := share(p.m, wide.rows, lo/b.colUnits, b.rowUnits)
		j0, j1 := share(b.o1-b.o0, wide.cols, lo%b.colUnits, b.colUnits)
		(*product)(p).multiplyBlock(ws, i0, i1, b.o0+j0, b.o0+j1)
	}
}

// share is part u of n things cut into parts alike, at multiples of step.
func share(n, step, u, parts int) (lo, hi int) {
	steps := ceilDiv(n, step)
	return u * steps / parts * step, min(n, (u+1)*steps/parts*step)
}

// multiplyBlock computes rows [i0, i1) and columns [j0, j1) of C over the
// present chunk's part of the sum.
func (p *product) multiplyBlock(ws *workspace, i0, i1, j0, j1 int) {
	b, set := &p.blocks, &tileSets[impl]
	direct := p.lda%conflictStride != 0 && !p.aByTerms
	rows := i1 - i0
	for r := b.r0; r < b.r1; r += b.kc {
		s := strips{product: p, ws: ws, i0: i0, rows: rows, r: r, kc: min(b.kc, b.r1-r)}
		if direct {
			s.x, s.stride, s.direct = p.a[i0*p.lda+r:], p.lda, true
		} else {
			s.pack()
		}
		if s.kc <= shortSum {
			// C is all the traffic: its rows are written from end to end.
			last := j1
			if (j1-j0)%set.wide.cols != 0 {
				last = j0 + (j1-j0)/set.wide.cols*set.wide.cols
			}
			for i := 0; i < rows; i += set.wide.rows {
				for j := j0; j < last; j += set.wide.cols {
					s.panel(j, j1, i, min(rows, i+set.wide.rows))
				}
			}
			if last < j1 {
				s.panel(last, j1, 0, rows)
			}
			continue
		}
		for j := j0; j < j1; j += panelShape(b.o1 - j).cols {
			s.panel(j, j1, 0, rows)
		}
	}
}

// strips are a block of rows of A for one block of the sum, terms [r, r+kc),
// as the micro-kernels read them.
type strips struct {
	*product
	ws       *workspace
	i0, rows int // rows [i0, i0+rows) of A
	r, kc    int
	x        []float32
	stride   int
	direct   bool // x is A itself: rows past the block must not be read
}

// pack copies the block of A to the workspace.
func (s *strips) pack() {
	padded := s.rows + maxTileRows
	s.stride = stripStride(s.kc)
	s.x = growAligned(&s.ws.stripsBuf, padded*s.stride)
	if s.aByTerms {
		transpose(s.x, s.stride, s.a[s.r*s.lda+s.i0:], s.lda, s.kc, s.rows)
		packStrips(s.x[s.rows*s.stride:], s.stride, nil, 0, 0, s.kc, maxTileRows)
		return
	}
	packStrips(s.x, s.stride, s.a[s.i0*s.lda+s.r:], s.lda, s.rows, s.kc, padded)
}

// panel multiplies rows [lo, hi) of the block by the panel of columns that
// begins at j, of which those below j1 are wanted.
func (s *strips) panel(j, j1, lo, hi int) {
	b, steps := &s.blocks, s.blocks.r1-s.blocks.r0
	shape := panelShape(b.o1 - j)
	panel := s.panels[(j-b.o0)*steps+(s.r-b.r0)*shape.cols:]
	// The next panel is fetched in pieces while this one is used.
	next, ahead := panel, s.kc*shape.cols
	if j+shape.cols < j1 {
		next = s.panels[(j+shape.cols-b.o0)*steps+(s.r-b.r0)*panelShape(b.o1-j-shape.cols).cols:]
	}
	acc := s.acc || s.r > 0
	for i, f := lo, 0; i < hi; i, f = i+shape.rows, (f+s.kc*4)%ahead {
		nr, nc := min(shape.rows, hi-i), min(shape.cols, j1-j)
		x, stride := s.x[i*s.stride:], s.stride
		if s.direct && nr < shape.rows {
			stride = stripStride(s.kc)
			x = growAligned(&s.ws.stripsBuf, shape.rows*stride)
			packStrips(x, stride, s.x[i*s.stride:], s.stride, nr, s.kc, shape.rows)
		}
		c := s.c[(s.i0+i)*s.ldc+j:]
		if nr == shape.rows && nc == shape.cols {
			rowTile(shape, s.kc, x, stride, panel, next[min(f, len(next)-1):], c, s.ldc, s.alpha, acc)
			continue
		}
		t := s.ws.tile()
		rowTile(shape, s.kc, x, stride, panel, panel, t, shape.cols, s.alpha, false)
		storeTile(c, s.ldc, t, shape.cols, nr, nc, acc)
	}
}
