package kernel

import (
	"math"
	"unsafe"
)

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
	return p.w.Half && halfNow() == tiles && p.m > dotRows && p.alpha == 1
}

// tiledForward computes C (m, N) (+)= A (m, K)·Wᵀ and the terms. A panel holds rows
// of W, and behind them those of the terms.
func (p *product) tiledForward() {
	n := p.w.N
	for i := range p.parts {
		s := &p.parts[i]
		s.lo, s.hi = 0, s.w.K
		s.inPlace = i == 0 && s.w.lies(ForForward, true)
	}
	all := p.packTiles()
	b := &p.blocks
	b.acc = p.acc
	chunk := roundUp(max(chunkValues/all, chunkRows), tileSide)
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.panels = growAligned(&p.scratch, roundUp(p.hi-p.lo, tileSide)*b.steps)
		if b.steps > 0 {
			Parallel(p.hi-p.lo, tileSide, (*pairForward)(p))
		}
		p.place(p.lo, b.steps)
		b.o0, b.o1 = p.lo, p.hi
		p.multiplyTiles()
	}
}

// tiledBackward computes C (m, K) (+)= A (m, N)·W and the terms. A panel holds
// columns of W, of the rows of the chunk, and in the last chunk those of the terms.
func (p *product) tiledBackward() {
	n, k := p.w.N, p.w.K
	chunk := roundUp(max(chunkValues/k, tiledTerms), tileSide)
	if p.c.Half() && chunk < n {
		p.sumsForC(k)
	}
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		for i := range p.parts {
			s := &p.parts[i]
			s.lo, s.hi = 0, 0
			if i == 0 {
				s.lo, s.hi = p.lo, p.hi
				s.inPlace = s.w.lies(ForBackward, true)
			} else if p.hi == n {
				s.hi = s.w.N
			}
		}
		p.packTiles()
		if s := &p.parts[0]; s.inPlace {
			s.at = (s.w.base + p.lo) / 2
		}
		p.blocks.acc = p.acc || p.lo > 0
		p.panels = growAligned(&p.scratch, roundUp(k, tileSide)*p.blocks.steps)
		for i := range p.parts {
			if s := &p.parts[i]; s.hi > s.lo && !s.inPlace {
				p.packing = s
				Parallel(s.hi-s.lo, tileSide, (*pairBackward)(p))
			}
		}
		p.place(0, p.blocks.steps)
		p.blocks.o0, p.blocks.o1 = 0, k
		p.multiplyTiles()
	}
	p.storeSums(k)
}

// Kept is an operand in tiles, of a product for the next one: see Vec.Keeping.
type Kept struct {
	tiles         []float32
	x             Vec
	m, lda, terms int
}

// Drop forgets the operand, whose memory may change from now on.
func (k *Kept) Drop() { k.x = Vec{} }

// hold gives the tiles of x (m, terms), and reports whether they are there already.
func (k *Kept) hold(x Vec, m, lda, terms int) (tiles []float32, there bool) {
	same := k.m == m && k.lda == lda && k.terms == terms && k.x.Len() > 0 && k.x.Len() == x.Len() && k.x.Half() == x.Half() &&
		unsafe.SliceData(k.x.F32) == unsafe.SliceData(x.F32) && unsafe.SliceData(k.x.BF16) == unsafe.SliceData(x.BF16)
	k.x, k.m, k.lda, k.terms = Vec{F32: x.F32, BF16: x.BF16}, m, lda, terms
	return growAligned(&k.tiles, tilesRoom(m, terms)), same
}

// tilesRoom is the words of (m, terms) in tiles.
func tilesRoom(m, terms int) int { return roundUp(m, tileSide) * roundUp(terms, tileSide) / 2 }

// packTiles brings terms [lo, hi) of each part's A into tiles, or all of them where they are kept. It
// places the parts in the panels to be packed, and returns the terms of all parts, each filled up with
// zeros to a multiple of 32.
func (p *product) packTiles() (terms int) {
	p.blocks.steps = 0
	room, pack := 0, false
	for i := range p.parts {
		s := &p.parts[i]
		s.steps = roundUp(s.hi-s.lo, tileSide)
		terms += s.steps
		s.at = 0
		if !s.inPlace {
			s.at, p.blocks.steps = p.blocks.steps, p.blocks.steps+s.steps/2
		}
		if s.source.kept == nil {
			room += tilesRoom(p.m, s.hi-s.lo)
		}
	}
	free := growAligned(&p.rounded, room)
	for i := range p.parts {
		s := &p.parts[i]
		switch k := s.source.kept; {
		case s.steps == 0:
			s.pack = false
		case k != nil:
			var there bool
			s.tiles, there = k.hold(s.source, p.m, s.lda, s.terms)
			s.stride, s.first, s.pack = roundUp(s.terms, tileSide), s.lo, !there
		default:
			n := tilesRoom(p.m, s.hi-s.lo)
			s.tiles, free = free[:n], free[n:]
			s.stride, s.first, s.pack = s.steps, 0, true
		}
		pack = pack || s.pack
	}
	if pack {
		Parallel(roundUp(p.m, tileSide), tileSide, (*tileRowsTask)(p))
	}
	return terms
}

// tileRowsTask is the task of packTiles; ranges are rows of A, and those that
// fill up the last strip.
type tileRowsTask product

func (p *tileRowsTask) Run(lo, hi int) {
	for ; lo < hi; lo += tileSide {
		for k := range p.parts {
			s := &p.parts[k]
			if !s.pack {
				continue
			}
			from, to := s.lo, s.hi
			if s.source.kept != nil {
				from, to = 0, s.terms
			}
			stripLines(s.tiles[lo*s.stride/2:], s.source.from(lo*s.lda+from), s.lda, min(tileSide, p.m-lo), to-from)
		}
	}
}

// stripLines brings rows of a, lda values apart and of so many terms each, into the lines of a
// strip, and zeros into what is left of its rows and of its last lines.
func stripLines(dst []float32, a Vec, lda, rows, terms int) {
	const words, apart = tileSide / 2, tileSide * tileSide / 2
	full, lines := terms/tileSide, ceilDiv(terms, tileSide)
	switch {
	case full == 0:
	case a.Half():
		_, _ = dst[full*apart-1], a.BF16[2*((rows-1)*lda+full*tileSide)-1]
		copyStrip(&dst[0], &a.BF16[0], lda, rows, full)
	case tilesInGo: // roundStrip takes AVX512-BF16
		for i := range rows {
			for l := range full {
				Copy(HalfVec(dst[l*apart+i*words:][:words], tileSide), a.Slice(i*lda+l*tileSide, i*lda+(l+1)*tileSide))
			}
		}
	default:
		_, _ = dst[full*apart-1], a.F32[(rows-1)*lda+full*tileSide-1]
		roundStrip(&dst[0], &a.F32[0], lda, rows, full)
	}
	if rest := terms - full*tileSide; rest > 0 {
		for i := range rows {
			line := dst[full*apart+i*words:][:words]
			clear(line)
			Copy(HalfVec(line, rest), a.Slice(i*lda+full*tileSide, i*lda+terms))
		}
	}
	for l := range lines {
		clear(dst[l*apart+rows*words : (l+1)*apart])
	}
}

// asBytes is the memory of x.
func asBytes(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// halfRows gives rows [lo, hi) of w times scale in bfloat16, rows of zeros up to so
// many and zeros up to a multiple of values in a row, at a stride of words of two.
func (w *Matrix) halfRows(ws *workspace, lo, hi, rows, multiple int, scale float32) (x []float32, stride int) {
	k := w.K
	stride = roundUp(k, multiple) / 2
	if w.F32 == nil && w.BF16 != nil && hi-lo == rows && k%multiple == 0 && scale == 1 {
		return asWords(w.BF16[2*lo*k : 2*hi*k]), stride
	}
	x = growAligned(&ws.stripsBuf, rows*stride)
	clear(x[(hi-lo)*stride:])
	var wide []float32
	switch {
	case scale != 1:
		wide = growAligned(&ws.rowsBuf, (hi-lo)*k)
		w.widen(wide, lo, hi)
		vecScale(wide, wide, scale)
	case w.F32 != nil:
		wide = w.F32[lo*k : hi*k]
	case w.BF16 == nil && w.laid == nil:
		wide = growAligned(&ws.rowsBuf, (hi-lo)*k)
		w.Decode(wide, w.base+lo, w.base+hi)
	}
	for i := range hi - lo {
		row := x[i*stride : (i+1)*stride]
		if 2*stride > k {
			clear(row[k/2:])
		}
		switch {
		case wide != nil:
			F32ToBF16(asBytes(row)[:2*k], wide[i*k:(i+1)*k])
		case w.laid != nil:
			w.laid.row(ws, asBytes(row)[:2*k], w.base+lo+i)
		default:
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
		for i := range p.parts {
			s := &p.parts[i]
			if s.inPlace {
				continue
			}
			dst := p.panels[lo*p.blocks.steps+s.at*tileSide:]
			if s.w.lies(ForBackward, true) {
				s.w.laid.columns(dst, tileSide, s.w.base+p.lo+lo, tileSide, s.w.K)
				continue
			}
			x, stride := s.w.halfRows(ws, p.lo+lo, p.lo+min(hi, lo+tileSide), tileSide, tileSide, s.scale)
			transpose(dst, tileSide, x, stride, tileSide, stride)
		}
	}
}

// pairBackward is the task that brings rows of a part's weight together two by two;
// ranges are rows counted from the chunk's first, at multiples of tileSide.
type pairBackward product

func (p *pairBackward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	s := p.packing
	for ; lo < hi; lo += tileSide {
		x, stride := s.w.halfRows(ws, s.lo+lo, s.lo+min(hi, lo+tileSide), tileSide, tileSide, s.scale)
		interleave(p.panels[(s.at+lo/2)*tileSide:], x, stride, tileSide/2, stride/(tileSide/2), p.blocks.steps*tileSide)
	}
}

// multiplyTiles runs the present chunk in units of about tiledRows rows, as many for
// each thread, and cuts columns too where rows alone do not feed the threads.
func (p *product) multiplyTiles() {
	b := &p.blocks
	b.cut(p.m, tiledRows, tileShape{tileSide, tileSide})
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
		end, acc := min(jb+tiledCols, j1), b.acc
		out := p.target(ws, i0, b.o0+jb, i1-i0, end-jb)
		for i := range p.parts {
			s := &p.parts[i]
			if s.steps == 0 {
				continue
			}
			kc := roundUp(ceilDiv(s.steps, ceilDiv(s.steps, tiledTerms)), tileSide)
			for r := 0; r < s.steps; r += kc {
				for j := jb; j < end; j += tileSide {
					c := sums{out.x[j-jb:], out.ld}
					p.tiledPanel(ws, s, c, i0, i1, j, end, r, min(kc, s.steps-r), acc)
				}
				acc = true
			}
		}
		p.deliver(out, i0, b.o0+jb, i1-i0, end-jb)
	}
}

// tiledPanel multiplies rows [i0, i1) by the panel of columns that begins at j, of
// which those below j1 are wanted, over terms [r, r+kc) of a part. out is where the
// first row's first column goes.
func (p *product) tiledPanel(ws *workspace, s *part, out sums, i0, i1, j, j1, r, kc int, acc bool) {
	panelAt := func(j int) []float32 { return s.panels[j*s.apart+(s.at+r/2)*tileSide:] }
	panel := panelAt(j)[:kc*tileSide/2]
	next := panel
	if j+tileSide < j1 {
		next = panelAt(j + tileSide)
	}
	tilesOf := func(i int) []float32 { return s.tiles[(i*s.stride+(s.first+r)*tileSide)/2:] }
	nc := min(tileSide, j1-j)
	full := 0
	if nc == tileSide {
		full = (i1 - i0) / tileSide
	}
	call := tileCall{strips: full, panels: 1, steps: kc / tileSide, lda: tileSide / 2, ahead: tileSide * tileSide / 2, skip: (s.stride - kc) * tileSide / 2, ldc: out.ld, acc: acc}
	if full > 0 {
		tileSquares(call, tilesOf(i0), panel, out.x, next)
	}
	call.strips, call.ldc = 1, tileSide
	for i := i0 + full*tileSide; i < i1; i += tileSide {
		// Part of a square goes through scratch that holds C, so that it rounds as a
		// whole one does.
		c, t, nr := out.x[(i-i0)*out.ld:], ws.tile(), min(tileSide, i1-i)
		if acc {
			clear(t)
			storeTile(t, tileSide, c, out.ld, nr, nc, false)
		}
		tileSquares(call, tilesOf(i), panel, t, next)
		storeTile(c, out.ld, t, tileSide, nr, nc, false)
	}
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

// tilesInGo and pairsInGo make the drivers run the reference in place of AMX and of
// VDPBF16PS, so that they are tested on processors that have neither.
var tilesInGo, pairsInGo bool

// tileCall says how a call of the AMX kernel goes over its operands: C (32·strips, 32·panels)
// (+)= A·B over 32·steps terms, all strides in float32 words of two values.
type tileCall struct {
	strips, panels, steps int
	lda                   int // from a row of A to the next
	ahead                 int // from 32 terms of a row to the next
	skip                  int // from the end of a strip's last step to the next strip
	ldp                   int // from a panel of B, (16·steps, 32), to the next
	ldc                   int // from a row of C to the next, in values
	acc                   bool
}

// tileSquares runs the AMX kernel, which fetches next for a later call.
func tileSquares(k tileCall, a, b, c, next []float32) {
	_ = a[(k.strips-1)*(k.steps*k.ahead+k.skip)+(tileSide-1)*k.lda+(k.steps-1)*k.ahead+tileSide/2-1]
	_ = b[(k.panels-1)*k.ldp+k.steps*tileSide*tileSide/2-1]
	_ = c[(k.strips*tileSide-1)*k.ldc+k.panels*tileSide-1]
	if tilesInGo {
		genericTileStrips(&k, a, b, c)
		return
	}
	tileStrips(&tileConfig, &k, &a[0], &b[0], &c[0], &next[0])
}

// genericTileStrips is the reference of tileStrips, whose sums have the same order.
func genericTileStrips(k *tileCall, a, b, c []float32) {
	const words = tileSide / 2
	for p := range k.panels {
		panel := b[p*k.ldp:]
		for s := range k.strips {
			strip := a[s*(k.steps*k.ahead+k.skip):]
			for i := range tileSide {
				row := c[(s*tileSide+i)*k.ldc+p*tileSide:][:tileSide]
				if !k.acc {
					clear(row)
				}
				for w := range k.steps * words {
					x := wordAt(strip, w/words*k.ahead+i*k.lda+w%words)
					for j := range row {
						y := wordAt(panel, w*tileSide+j)
						row[j] += x.lo * y.lo
						row[j] += x.hi * y.hi
					}
				}
			}
		}
	}
}

// word is two values in bfloat16, widened.
type word struct{ lo, hi float32 }

func wordAt(x []float32, i int) word {
	bits := math.Float32bits(x[i])
	return word{math.Float32frombits(bits << 16), math.Float32frombits(bits &^ 0xffff)}
}

// interleave sets dst, panels of (pairs, 32) words that begin ldp words apart, to words of
// the values of rows 2i and 2i+1 of src (2·pairs, 32·panels), bfloat16 at a stride of lds
// words.
func interleave(dst, src []float32, lds, pairs, panels, ldp int) {
	_, _ = dst[(panels-1)*ldp+pairs*tileSide-1], src[(2*pairs-1)*lds+panels*tileSide/2-1]
	pairRows(&dst[0], &src[0], lds, pairs, panels, ldp)
}

// genericPairTile is the reference of pairTile, but for the order in which the two
// products of a word are added.
func genericPairTile(shape tileShape, steps int, a []float32, lda int, b []float32, c []float32, ldc int, alpha float32, acc bool) {
	for i := range shape.rows {
		for j := range shape.cols {
			var sum float32
			for s := range steps {
				x, y := wordAt(a, i*lda+s), wordAt(b, s*shape.cols+j)
				sum += x.hi * y.hi
				sum += x.lo * y.lo
			}
			sum = float32(alpha * sum)
			if acc {
				sum += c[i*ldc+j]
			}
			c[i*ldc+j] = sum
		}
	}
}
