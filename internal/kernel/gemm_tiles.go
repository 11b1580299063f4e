package kernel

import "unsafe"

// This file holds the products in bfloat16 (Matrix.Half). On AMX, A is rounded
// into tiles and the weight, chunk by chunk, into panels of pairs:
//
//	tiles   [row/32][term/32][32 rows][32 terms]
//	panels  [column/32][term/2][32 columns][2 terms]
//
// both of bfloat16, two to a float32 word, filled up with zeros. Squares of C stay
// float32 and are added to, so that a sum runs over its terms in order whatever
// the chunks are.

const (
	// tileSide is the number of rows and columns of C that the AMX kernel holds,
	// and of terms it takes in a step.
	tileSide = 32
	// tiledTerms bounds the terms summed for one panel after another: a panel of
	// so many is 36 KiB and stays in the first-level cache.
	tiledTerms = 576
	// tiledRows and tiledCols bound a block of C that is gone over for all terms.
	tiledRows = 256
	tiledCols = 256
)

// onTiles reports whether the product runs on AMX. Few rows do not repay the
// packing of the weight, and the tiles know no factor.
func (p *product) onTiles() bool {
	return p.w.Half && AMX() && p.m > dotRows && p.alpha == 1
}

// roundOperand replaces A (m, terms) by its rounded values where the product is in
// bfloat16 but not on AMX.
func (p *product) roundOperand(terms int) {
	if !p.w.Half || p.onTiles() {
		return
	}
	x := growAligned(&p.rounded, p.m*terms)
	packStrips(x, terms, p.a, p.lda, p.m, terms, p.m)
	RoundBF16(x)
	p.a, p.lda = x, terms
}

// tiledForward computes C (m, N) (+)= A (m, K)·Wᵀ. A panel holds rows of W.
func (p *product) tiledForward() {
	n, k := p.w.N, p.w.K
	p.packTiles(0, k)
	chunk := roundUp(max(chunkValues/k, chunkRows), tileSide)
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.panels = growAligned(&p.scratch, roundUp(p.hi-p.lo, tileSide)*p.tiledTerms/2)
		Parallel(p.hi-p.lo, tileSide, (*pairForward)(p))
		p.blocks.o0, p.blocks.o1 = p.lo, p.hi
		p.multiplyTiles()
	}
}

// tiledBackward computes C (m, K) (+)= A (m, N)·W. A panel holds columns of W, of
// the rows of the chunk.
func (p *product) tiledBackward() {
	n, k := p.w.N, p.w.K
	chunk := roundUp(max(chunkValues/k, tiledTerms), tileSide)
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.packTiles(p.lo, p.hi)
		p.panels = growAligned(&p.scratch, roundUp(k, tileSide)*p.tiledTerms/2)
		Parallel(p.hi-p.lo, tileSide, (*pairBackward)(p))
		p.blocks.o0, p.blocks.o1 = 0, k
		p.multiplyTiles()
	}
}

// packTiles rounds terms [r0, r1) of A into tiles.
func (p *product) packTiles(r0, r1 int) {
	p.tiledTerms = roundUp(r1-r0, tileSide)
	p.blocks = blocking{r0: r0, r1: r1, kc: roundUp(ceilDiv(p.tiledTerms, ceilDiv(p.tiledTerms, tiledTerms)), tileSide)}
	growAligned(&p.rounded, roundUp(p.m, tileSide)*p.tiledTerms/2)
	Parallel(roundUp(p.m, tileSide), tileSide, (*tileRowsTask)(p))
}

// tileRowsTask is the task of packTiles; ranges are rows of A, and those that
// fill up the last strip.
type tileRowsTask product

func (p *tileRowsTask) Run(lo, hi int) {
	const words = tileSide / 2 // of a line: the terms of one row in one tile
	terms := p.blocks.r1 - p.blocks.r0
	full := terms / tileSide
	for i := lo; i < hi; i++ {
		x := p.rounded[i/tileSide*tileSide*p.tiledTerms/2+i%tileSide*words:]
		if i >= p.m {
			for s := range p.tiledTerms / tileSide {
				clear(x[s*tileSide*words:][:words])
			}
			continue
		}
		a := p.a[i*p.lda+p.blocks.r0:][:terms]
		if full > 0 {
			_ = x[(full-1)*tileSide*words+words-1]
			roundLines(&x[0], tileSide*words, &a[0], full)
		}
		if rest := a[full*tileSide:]; len(rest) > 0 {
			line := x[full*tileSide*words:][:words]
			clear(line)
			F32ToBF16(asBytes(line)[:2*len(rest)], rest)
		}
	}
}

// asBytes is the memory of x.
func asBytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// halfRows gives rows [lo, hi) of w in bfloat16, rows of zeros up to tileSide of them
// and zeros up to a multiple of tileSide values in a row, at a stride of words of two.
func (w *Matrix) halfRows(ws *workspace, lo, hi int) (x []float32, stride int) {
	k := w.K
	stride = roundUp(k, tileSide) / 2
	if w.F32 == nil && w.BF16 != nil && hi-lo == tileSide && k%tileSide == 0 {
		return asWords(w.BF16[2*lo*k : 2*hi*k]), stride
	}
	x = growAligned(&ws.stripsBuf, tileSide*stride)
	clear(x[(hi-lo)*stride:])
	var wide []float32
	if w.F32 != nil {
		wide = w.F32[lo*k : hi*k]
	} else if w.BF16 == nil {
		wide = growAligned(&ws.rowsBuf, (hi-lo)*k)
		w.Decode(wide, lo, hi)
	}
	for i := range hi - lo {
		row := x[i*stride : (i+1)*stride]
		if 2*stride > k {
			clear(row[k/2:])
		}
		if wide != nil {
			F32ToBF16(asBytes(row)[:2*k], wide[i*k:(i+1)*k])
		} else {
			copy(asBytes(row), w.BF16[2*(lo+i)*k:2*(lo+i+1)*k])
		}
	}
	return x, stride
}

// asWords is b, of a multiple of 4 bytes, as words of two values in bfloat16. Only
// vector instructions look at it: it may lie at any address.
func asWords(b []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/4)
}

// pairForward is the task that transposes rows of W into panels; ranges are rows
// counted from the chunk's first, at multiples of tileSide.
type pairForward product

func (p *pairForward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	for ; lo < hi; lo += tileSide {
		x, stride := p.w.halfRows(ws, p.lo+lo, p.lo+min(hi, lo+tileSide))
		transpose(p.panels[lo*stride:(lo+tileSide)*stride], tileSide, x, stride, tileSide, stride)
	}
}

// pairBackward is the task that brings rows of W together two by two; ranges are
// rows counted from the chunk's first, at multiples of tileSide.
type pairBackward product

func (p *pairBackward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	for ; lo < hi; lo += tileSide {
		x, stride := p.w.halfRows(ws, p.lo+lo, p.lo+min(hi, lo+tileSide))
		for j := 0; j < stride; j += tileSide / 2 { // words
			dst := p.panels[j*p.tiledTerms+lo/2*tileSide:]
			_, _ = dst[tileSide*tileSide/2-1], x[(tileSide-1)*stride+j+tileSide/2-1]
			pairRows(&dst[0], &x[j], stride, tileSide/2)
		}
	}
}

// multiplyTiles runs the present chunk in units of about tiledRows rows, as many for
// each thread, and cuts columns too where rows alone do not feed the threads.
func (p *product) multiplyTiles() {
	b, threads := &p.blocks, Threads()
	b.rowUnits = min(threads*ceilDiv(p.m, threads*tiledRows), ceilDiv(p.m, tileSide))
	b.colUnits = 1
	if b.rowUnits < threads {
		b.colUnits = min(ceilDiv(2*threads, b.rowUnits), ceilDiv(b.o1-b.o0, tileSide))
	}
	Parallel(b.rowUnits*b.colUnits, 1, (*tiledUnits)(p))
}

// tiledUnits is the task of the units of one chunk, columns fastest.
type tiledUnits product

func (p *tiledUnits) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	b := &p.blocks
	for ; lo < hi; lo++ {
		i0, i1 := share(p.m, tileSide, lo/b.colUnits, b.rowUnits)
		j0, j1 := share(b.o1-b.o0, tileSide, lo%b.colUnits, b.colUnits)
		(*product)(p).tiledBlock(ws, i0, i1, j0, j1)
	}
}

// tiledBlock computes rows [i0, i1) of C and columns [j0, j1) counted from the
// chunk's first.
func (p *product) tiledBlock(ws *workspace, i0, i1, j0, j1 int) {
	b := &p.blocks
	for jb := j0; jb < j1; jb += tiledCols {
		for r := 0; r < p.tiledTerms; r += b.kc {
			for j := jb; j < min(jb+tiledCols, j1); j += tileSide {
				p.tiledPanel(ws, i0, i1, j, j1, r, min(b.kc, p.tiledTerms-r))
			}
		}
	}
}

// tiledPanel multiplies rows [i0, i1) by the panel of columns that begins at j, of
// which those below j1 are wanted, over terms [r, r+kc) of the chunk.
func (p *product) tiledPanel(ws *workspace, i0, i1, j, j1, r, kc int) {
	b := &p.blocks
	panel := p.panels[(j*p.tiledTerms+r*tileSide)/2:][:kc*tileSide/2]
	next := panel
	if j+tileSide < j1 {
		next = p.panels[((j+tileSide)*p.tiledTerms+r*tileSide)/2:]
	}
	acc := p.acc || b.r0+r > 0
	skip := (p.tiledTerms - kc) * tileSide / 2
	nc := min(tileSide, j1-j)
	full := 0
	if nc == tileSide {
		full = (i1 - i0) / tileSide
	}
	if full > 0 {
		a, c := p.tilesOf(i0, r, full, kc), p.c[i0*p.ldc+b.o0+j:]
		_ = c[(full*tileSide-1)*p.ldc+tileSide-1]
		tileStrips(&tileConfig, full, kc/tileSide, &a[0], &panel[0], &c[0], p.ldc, skip, &next[0], acc)
	}
	for i := i0 + full*tileSide; i < i1; i += tileSide {
		// Part of a square goes through scratch that holds C, so that it rounds as a
		// whole one does.
		a, c, t, nr := p.tilesOf(i, r, 1, kc), p.c[i*p.ldc+b.o0+j:], ws.tile(), min(tileSide, i1-i)
		if acc {
			clear(t)
			storeTile(t, tileSide, c, p.ldc, nr, nc, false)
		}
		tileStrips(&tileConfig, 1, kc/tileSide, &a[0], &panel[0], &t[0], tileSide, skip, &next[0], acc)
		storeTile(c, p.ldc, t, tileSide, nr, nc, false)
	}
}

// tilesOf is where the tiles of strips from row i on lie, from term r on.
func (p *product) tilesOf(i, r, strips, kc int) []float32 {
	at := (i*p.tiledTerms + r*tileSide) / 2
	return p.rounded[at : at+((strips-1)*p.tiledTerms+kc)*tileSide/2]
}

// tileConfig is what LDTILECFG reads: palette 1, and eight tiles of 16 rows of 64
// bytes.
var tileConfig = func() (c [64]byte) {
	c[0] = 1
	for t := range 8 {
		c[16+2*t], c[48+t] = 64, 16
	}
	return c
}()
