package kernel

// This file holds the driver of large products, MulT and Mul with many rows.
// The weight goes chunk by chunk, decoded if need be, into panels that all
// workers share; then each worker multiplies blocks of rows of A. Packing costs
// 2–5 % of a product at m ≥ 1024.
//
// The same driver computes in bfloat16 with VDPBF16PS: operands are then words of
// two values, neighbours in the sum, and a step of a micro-kernel takes both. Where
// a word is meant, a length is called steps.

const (
	// reductionLimit bounds the steps summed in registers before C is touched:
	// a panel of that many steps stays in the second-level cache with a block
	// of A.
	reductionLimit = 576
	// blockRows and blockCols bound the block of C that a worker computes with one
	// panel after the other, for all terms of the chunk.
	blockRows = 140
	blockCols = 640
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
// cut into units of work: columns [o0, o1) of C over steps steps of the sum, those
// of the parts of the present chunk.
type blocking struct {
	o0, o1   int
	steps    int  // of a panel, all parts together
	acc      bool // whether C holds the sum of earlier chunks, or is to be added to
	rowUnits int  // C is cut into rowUnits × colUnits blocks of whole tiles
	colUnits int
}

// part is a piece of the sum: the product itself, or what a low-rank term adds.
type part struct {
	source  Vec       // A as it was given, which products on tiles read, rows lda values apart
	copied  []float32 // backs a
	a       []float32 // A, from the chunk's first term on, rows lda apart; words where the product is in pairs
	lda     int
	w       *Matrix
	scale   float32   // multiplies w
	lo, hi  int       // rows of w in the present chunk that steps run over (Mul)
	panels  []float32 // where its panels begin: those that the product packs, or the weight's own
	apart   int       // steps from one panel to the next
	at      int       // its first step in a panel
	steps   int
	inPlace bool // panels are the weight's own
	kc      int  // steps per block of the sum
	byTerms bool // a is (terms, m), as in MulTN
	lowRank bool // what a term adds, which alpha does not multiply

	// On tiles, A is there as a strip of stride terms for every 32 rows, filled up with zeros; it
	// has terms, of which the chunk's begin at first.
	tiles                []float32
	terms, stride, first int
	pack                 bool // the tiles are still to be made
}

// stepsOf is the number of steps that so many terms take.
func (p *product) stepsOf(terms int) int {
	if p.paired {
		return ceilDiv(terms, 2)
	}
	return terms
}

// blockedForward computes C (m, N) (+)= A (m, K)·Wᵀ and the terms. A panel holds
// rows of W as its columns, whole, and behind them those of the terms:
// [row/cols][step][cols].
func (p *product) blockedForward() {
	n, b := p.w.N, &p.blocks
	*b = blocking{acc: p.acc}
	all := 0
	for i := range p.parts {
		s := &p.parts[i]
		s.steps = p.stepsOf(s.w.K)
		s.kc = reductionBlock(s.steps, reductionLimit)
		s.inPlace = i == 0 && s.w.lies(ForForward, p.paired)
		all += s.steps
		if !s.inPlace {
			s.at, b.steps = b.steps, b.steps+s.steps
		}
	}
	chunk := roundUp(max(chunkValues/all, chunkRows), tileSets[impl].wide.cols)
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		p.panels = growAligned(&p.scratch, paddedCols(p.hi-p.lo)*b.steps)
		if b.steps > 0 {
			Parallel(p.hi-p.lo, tileSets[impl].wide.cols, (*packForward)(p))
		}
		p.place(p.lo, b.steps)
		b.o0, b.o1 = p.lo, p.hi
		p.multiply()
	}
}

// blockedBackward computes C (m, K) (+)= A (m, N)·W and the terms. A panel holds a
// piece of each row of W of the chunk, and in the last chunk of those of the terms:
// [column/cols][step][cols].
func (p *product) blockedBackward() {
	n, k := p.w.N, p.w.K
	unit := 1
	if p.paired {
		unit = 2
	}
	kc := reductionBlock(p.stepsOf(n), reductionLimit)
	chunk := roundUp(max(chunkValues/k, 1), kc*unit)
	if p.c.Half() && chunk < n {
		// C is complete only after the last chunk: until then it is float32.
		p.sumsForC(k)
	}
	first := p.parts[0].a
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		b := &p.blocks
		*b = blocking{o1: k, acc: p.acc || p.lo > 0}
		for i := range p.parts {
			s := &p.parts[i]
			s.lo, s.hi = 0, 0
			switch {
			case i == 0:
				s.lo, s.hi, s.a = p.lo, p.hi, first[p.lo/unit:]
				if s.byTerms {
					s.a = first[p.lo*s.lda:]
				}
			case p.hi == n:
				s.hi = s.w.N
			}
			s.steps = p.stepsOf(s.hi - s.lo)
			s.kc = reductionBlock(max(s.steps, 1), reductionLimit)
			if s.inPlace = i == 0 && s.w.lies(ForBackward, p.paired); s.inPlace {
				s.at = p.stepsOf(s.w.base + s.lo)
			} else {
				s.at, b.steps = b.steps, b.steps+s.steps
			}
		}
		p.parts[0].kc = kc
		p.panels = growAligned(&p.scratch, paddedCols(k)*b.steps)
		for i := range p.parts {
			if s := &p.parts[i]; s.steps > 0 && !s.inPlace {
				p.packing = s
				Parallel(s.hi-s.lo, 16, (*packBackward)(p))
			}
		}
		p.place(0, b.steps)
		p.multiply()
	}
	p.storeSums(k)
}

// place says where the panels of the parts are, of a chunk whose rows begin at lo where they
// are columns of C; those that were packed have so many steps.
func (p *product) place(lo, steps int) {
	for i := range p.parts {
		s := &p.parts[i]
		s.panels, s.apart = p.panels, steps
		if s.inPlace {
			l := s.w.laid
			s.panels, s.apart = l.words, l.steps
			if l.layout == ForForward {
				s.panels = l.words[(s.w.base+lo)*l.steps:]
			}
		}
	}
}

// packForward is the task that transposes rows of W into panels; ranges are
// rows counted from the chunk's first, at multiples of the wide tile's columns.
type packForward product

func (p *packForward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	steps, cols := p.blocks.steps, p.hi-p.lo
	for lo < hi {
		shape := panelShape(cols - lo)
		n := min(shape.cols, hi-lo)
		dst := p.panels[lo*steps : (lo+shape.cols)*steps]
		if n < shape.cols {
			clear(dst)
		}
		for i := range p.parts {
			s := &p.parts[i]
			if s.inPlace {
				continue
			}
			if s.w.lies(ForBackward, p.paired) && (shape.cols == tileSide || !p.paired) {
				s.w.laid.columns(dst[s.at*shape.cols:], shape.cols, s.w.base+p.lo+lo, n, s.w.K)
				continue
			}
			x, ldx := (*product)(p).weightRows(ws, s, p.lo+lo, p.lo+lo+n)
			transpose(dst[s.at*shape.cols:], shape.cols, x, ldx, n, s.steps)
		}
		lo += n
	}
}

// weightRows gives rows [lo, hi) of a part's weight as a panel takes them.
func (p *product) weightRows(ws *workspace, s *part, lo, hi int) (x []float32, ld int) {
	if p.paired {
		return s.w.halfRows(ws, lo, hi, hi-lo, 2, s.scale)
	}
	x, ld = s.w.rows(&ws.rowsBuf, lo, hi), s.w.stride()
	if s.scale != 1 || s.lowRank && p.w.Half {
		scaled := growAligned(&ws.stripsBuf, (hi-lo)*s.w.K)
		for i := range hi - lo {
			vecScale(scaled[i*s.w.K:(i+1)*s.w.K], x[i*ld:i*ld+s.w.K], s.scale)
		}
		if p.w.Half {
			RoundBF16(scaled)
		}
		return scaled, s.w.K
	}
	return x, ld
}

// packBackward is the task that cuts rows of a part's weight into pieces; ranges are
// rows counted from the chunk's first.
type packBackward product

func (p *packBackward) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	s, steps := p.packing, p.blocks.steps
	if p.paired {
		for ; lo < hi; lo += 16 {
			(*product)(p).packPairs(ws, lo, min(hi, lo+16))
		}
		return
	}
	k := s.w.K
	for ; lo < hi; lo += 16 {
		n := min(16, hi-lo)
		w, ldw := (*product)(p).weightRows(ws, s, s.lo+lo, s.lo+lo+n)
		for j := 0; j < k; {
			cols := panelShape(k - j).cols
			dst, e := p.panels[j*steps+(s.at+lo)*cols:], min(k, j+cols)
			for r := range n {
				row := dst[r*cols : r*cols+cols]
				clear(row[copy(row, w[r*ldw+j:r*ldw+e]):])
			}
			j += cols
		}
	}
}

// packPairs brings rows [lo, hi) of the chunk together two by two: 16 rows at most,
// from a multiple of 16 on.
func (p *product) packPairs(ws *workspace, lo, hi int) {
	s, steps := p.packing, p.blocks.steps
	n := ceilDiv(hi-lo, 2)
	x, ldx := s.w.halfRows(ws, s.lo+lo, s.lo+hi, 2*n, tileSide, s.scale)
	wide := s.w.K / tileSide
	if last := s.w.K % tileSide; last > 0 && panelShape(last).cols == tileSide {
		wide++
	}
	if wide > 0 {
		interleave(p.panels[(s.at+lo/2)*tileSide:], x, ldx, n, wide, steps*tileSide)
	}
	if j := wide * tileSide; j < s.w.K {
		cols := panelShape(s.w.K - j).cols
		dst, t := p.panels[j*steps+(s.at+lo/2)*cols:], ws.tile()
		interleave(t, x[j/2:], ldx, n, 1, 0)
		for r := range n {
			copy(dst[r*cols:(r+1)*cols], t[r*tileSide:])
		}
	}
}

// multiply runs the present chunk in units of about blockRows rows, as many for
// each thread, and cuts columns too where rows alone do not feed the threads.
func (p *product) multiply() {
	b := &p.blocks
	b.cut(p.m, blockRows, tileSets[impl].wide)
	Parallel(b.rowUnits*b.colUnits, 1, (*multiplyUnits)(p))
}

// cut divides m rows and the columns of the chunk into units.
func (b *blocking) cut(m, block int, tile tileShape) {
	threads := Threads()
	b.rowUnits = min(threads*ceilDiv(m, threads*block), ceilDiv(m, tile.rows))
	if m <= block {
		b.rowUnits = 1 // each thread reads its part of the weight; a rank's few tiles would not divide evenly either
	}
	b.colUnits = 1
	if b.rowUnits < threads {
		b.colUnits = min(ceilDiv(2*threads, b.rowUnits), ceilDiv(b.o1-b.o0, tile.cols))
	}
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
		// Blocks alike, for a narrow one costs the copying of A all the same.
		blocks := ceilDiv(j1-j0, blockCols)
		for n := range blocks {
			lo, hi := share(j1-j0, wide.cols, n, blocks)
			(*product)(p).multiplyBlock(ws, i0, i1, b.o0+j0+lo, b.o0+j0+hi)
		}
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
	b, rows := &p.blocks, i1-i0
	out := p.target(ws, i0, j0, rows, j1-j0)
	acc := b.acc
	for i := range p.parts {
		s := &p.parts[i]
		for r := 0; r < s.steps; r += s.kc {
			x := strips{product: p, part: s, ws: ws, i0: i0, rows: rows, r: r, kc: min(s.kc, s.steps-r), out: out, j0: j0, acc: acc}
			x.prepare()
			x.multiply(j0, j1)
			acc = true
		}
	}
	p.deliver(out, i0, j0, rows, j1-j0)
}

// sums are where a worker sums a block of C: in C itself, or in scratch that deliver
// rounds.
type sums struct {
	x  []float32
	ld int
}

// target is where the sums of a block of C go, holding what C has where they are to be
// added to it.
func (p *product) target(ws *workspace, i0, j0, rows, cols int) sums {
	if p.c.F32 != nil {
		return sums{p.c.F32[i0*p.ldc+j0:], p.ldc}
	}
	ld := stripStride(cols)
	t := sums{growAligned(&ws.sumsBuf, rows*ld), ld}
	if p.blocks.acc {
		for i := range rows {
			at := 2 * ((i0+i)*p.ldc + j0)
			BF16ToF32(t.x[i*ld:i*ld+cols], p.c.BF16[at:at+2*cols])
		}
	}
	return t
}

// deliver rounds a block of sums to C where target gave scratch.
func (p *product) deliver(t sums, i0, j0, rows, cols int) {
	if p.c.F32 != nil {
		return
	}
	for i := range rows {
		at := 2 * ((i0+i)*p.ldc + j0)
		F32ToBF16(p.c.BF16[at:at+2*cols], t.x[i*t.ld:i*t.ld+cols])
	}
}

// strips are a block of rows of A for one block of the sum, steps [r, r+kc) of a part,
// as the micro-kernels read them.
type strips struct {
	*product
	part     *part
	ws       *workspace
	i0, rows int // rows [i0, i0+rows) of A
	r, kc    int
	x        []float32
	stride   int
	direct   bool // x is A itself: rows past the block must not be read
	out      sums
	j0       int // the first column of out
	acc      bool
}

// prepare reads the block of A where it lies, or copies it to the workspace.
func (s *strips) prepare() {
	if s.part.lda%conflictStride != 0 && !s.part.byTerms {
		s.x, s.stride, s.direct = s.part.a[s.i0*s.part.lda+s.r:], s.part.lda, true
		return
	}
	padded := s.rows + maxTileRows
	s.stride = stripStride(s.kc)
	s.x = growAligned(&s.ws.stripsBuf, padded*s.stride)
	if s.part.byTerms {
		transpose(s.x, s.stride, s.part.a[s.r*s.part.lda+s.i0:], s.part.lda, s.kc, s.rows)
		packStrips(s.x[s.rows*s.stride:], s.stride, nil, 0, 0, s.kc, maxTileRows)
		return
	}
	packStrips(s.x, s.stride, s.part.a[s.i0*s.part.lda+s.r:], s.part.lda, s.rows, s.kc, padded)
}

// multiply computes columns [j0, j1) of the block.
func (s *strips) multiply(j0, j1 int) {
	set := &tileSets[impl]
	if s.kc <= shortSum {
		// C is all the traffic: its rows are written from end to end.
		last := j1
		if (j1-j0)%set.wide.cols != 0 {
			last = j0 + (j1-j0)/set.wide.cols*set.wide.cols
		}
		for i := 0; i < s.rows; i += set.wide.rows {
			for j := j0; j < last; j += set.wide.cols {
				s.panel(j, j1, i, min(s.rows, i+set.wide.rows))
			}
		}
		if last < j1 {
			s.panel(last, j1, 0, s.rows)
		}
		return
	}
	for j := j0; j < j1; j += panelShape(s.blocks.o1 - j).cols {
		s.panel(j, j1, 0, s.rows)
	}
}

// panel multiplies rows [lo, hi) of the block by the panel of columns that
// begins at j, of which those below j1 are wanted.
func (s *strips) panel(j, j1, lo, hi int) {
	b := &s.blocks
	shape := panelShape(b.o1 - j)
	panel := s.part.panels[(j-b.o0)*s.part.apart+(s.part.at+s.r)*shape.cols:]
	// The next panel is fetched in pieces while this one is used.
	next, ahead := panel, s.kc*shape.cols
	if j+shape.cols < j1 {
		next = s.part.panels[(j+shape.cols-b.o0)*s.part.apart+(s.part.at+s.r)*panelShape(b.o1-j-shape.cols).cols:]
	}
	wide := shape
	for i, f := lo, 0; i < hi; i, f = i+shape.rows, (f+s.kc*4)%ahead {
		shape = s.shapeOf(wide, hi-i)
		nr, nc := min(shape.rows, hi-i), min(shape.cols, j1-j)
		x, stride := s.x[i*s.stride:], s.stride
		if s.direct && nr < shape.rows {
			stride = stripStride(s.kc)
			x = growAligned(&s.ws.stripsBuf, shape.rows*stride)
			packStrips(x, stride, s.x[i*s.stride:], s.stride, nr, s.kc, shape.rows)
		}
		c := s.out.x[i*s.out.ld+j-s.j0:]
		if nr == shape.rows && nc == shape.cols {
			s.tile(shape, x, stride, panel, next[min(f, len(next)-1):], c, s.out.ld, s.acc)
			continue
		}
		t := s.ws.tile()
		s.tile(shape, x, stride, panel, panel, t, shape.cols, false)
		storeTile(c, s.out.ld, t, shape.cols, nr, nc, s.acc)
	}
}

// shapeOf is the tile for the next of left rows of a panel.
func (s *strips) shapeOf(wide tileShape, left int) tileShape {
	short := left <= shortPairs.rows || left > wide.rows && left <= 2*shortPairs.rows
	if s.paired && wide.cols == shortPairs.cols && short {
		return shortPairs
	}
	return wide
}

// tile runs a micro-kernel on a whole tile.
func (s *strips) tile(shape tileShape, x []float32, stride int, panel, next, c []float32, ldc int, acc bool) {
	alpha := s.alpha
	if s.part.lowRank {
		alpha = 1
	}
	if s.paired {
		pairTile(shape, s.kc, x, stride, panel, next, c, ldc, alpha, acc)
	} else {
		rowTile(shape, s.kc, x, stride, panel, next, c, ldc, alpha, acc)
	}
}
