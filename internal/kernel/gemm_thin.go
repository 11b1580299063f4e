package kernel

// This file holds the drivers for few rows of A, as in generation and short
// prompts: the weight is read once, where it lies, and only A is rearranged.

const (
	// dotRows is the number of rows up to which each output is a dot product
	// on its own: reading the weight is the whole cost.
	dotRows = 4
	// thinRows is the number of rows up to which rearranging A instead of the
	// weight is cheaper.
	thinRows = 192
	// dotValues is about the number of weights in a piece of work that is worth
	// another thread, and dotBlock the number decoded, or read for several rows of A,
	// at once: they stay in the first-level cache.
	dotValues = 1 << 15
	dotBlock  = 1 << 11
)

// dotProducts computes C (m, N) (+)= A (m, K)·Wᵀ for few rows.
func (p *product) dotProducts() {
	Parallel(p.w.N, roundUp(max(dotValues/p.w.K, 1), 4), (*dotTask)(p))
}

// dotTask is the task of dotProducts; ranges are rows of W.
type dotTask product

func (p *dotTask) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	k := p.w.K
	stored := p.m == 1 && p.w.multipliesStored()
	block := 64
	if p.m > 1 || !stored && !p.w.inPlace() {
		block = min(roundUp(max(dotBlock/k, 1), 4), block)
	}
	out := ws.tile()
	for ; lo < hi; lo += block {
		n := min(block, hi-lo)
		var w []float32
		if !stored {
			w = p.w.rows(&ws.rowsBuf, lo, lo+n)
		}
		for i := range p.m {
			x := p.a[i*p.lda:][:k]
			if stored {
				p.w.dotStored(out[:n], x, lo, lo+n)
			} else {
				dot(out[:n], x, w, k)
			}
			c := p.c.F32[i*p.ldc+lo:][:n]
			for j, v := range out[:n] {
				v = float32(p.alpha * v)
				if p.acc {
					v += c[j]
				}
				c[j] = v
			}
		}
	}
}

// multipliesStored reports whether rows of w are multiplied as they are stored: what Half would round
// first is not.
func (w *Matrix) multipliesStored() bool {
	return w.F32 == nil && w.laid == nil && (w.BF16 != nil || w.Dot != nil && !w.Half)
}

// dotStored computes x · row, for rows [lo, hi).
func (w *Matrix) dotStored(out, x []float32, lo, hi int) {
	if w.BF16 != nil {
		BF16.Dot(out, x, w.BF16[2*lo*w.K:2*hi*w.K])
		return
	}
	w.Dot(out, x, w.base+lo, w.base+hi)
}

// thinForward computes C (m, N) (+)= A (m, K)·Wᵀ as Cᵀ = W·Aᵀ: W takes the
// place of the rows, read where it lies, and Aᵀ that of the panels.
func (p *product) thinForward() {
	k := p.w.K
	p.panels = growAligned(&p.scratch, paddedCols(p.m)*k)
	Parallel(k, 64, (*packThin)(p))
	Parallel(p.w.N, 4*tileSets[impl].wide.rows, (*thinForwardTask)(p))
}

// packThin is the task that transposes A into panels of its rows; ranges are
// columns of A.
type packThin product

func (p *packThin) Run(lo, hi int) {
	k := p.w.K
	for i := 0; i < p.m; {
		cols := panelShape(p.m - i).cols
		n := min(cols, p.m-i)
		dst := p.panels[i*k+lo*cols : i*k+hi*cols]
		if n < cols {
			clear(dst)
		}
		transpose(dst, cols, p.a[i*p.lda+lo:], p.lda, n, hi-lo)
		i += cols
	}
}

// thinForwardTask is the task of thinForward; ranges are rows of W.
type thinForwardTask product

func (p *thinForwardTask) Run(lo, hi int) {
	ws := workspaces.get()
	defer workspaces.put(ws)
	block := 4 * tileSets[impl].wide.rows
	for ; lo < hi; lo += block {
		(*product)(p).thinRowsOf(ws, lo, min(hi, lo+block))
	}
}

// thinRowsOf computes columns [lo, hi) of C, which are rows of W.
func (p *product) thinRowsOf(ws *workspace, lo, hi int) {
	k, m := p.w.K, p.m
	block := reductionBlock(k, reductionLimit)
	var l *laid
	var w []float32
	if p.w.lies(ForBackward, false) && block%p.w.laid.cols == 0 {
		l = p.w.laid
	} else {
		w = p.w.rows(&ws.rowsBuf, lo, hi)
	}
	t, flipped := ws.tile(), ws.flip()
	for r := 0; r < k; r += block {
		kc := min(block, k-r)
		for i := 0; i < m; {
			shape := panelShape(m - i)
			panel := p.panels[i*k+r*shape.cols:]
			for j := 0; j < hi-lo; j += shape.rows {
				n := min(shape.rows, hi-lo-j)
				switch {
				case l != nil && n == shape.rows:
					laidTile(shape, kc, l.words[r*l.steps+(p.w.base+lo+j)*l.cols:], l.steps*l.cols, panel, t, shape.cols, p.alpha, false)
				case n == shape.rows:
					rowTile(shape, kc, w[j*k+r:], k, panel, panel, t, shape.cols, p.alpha, false)
				default:
					var rest []float32
					if l == nil {
						rest = w[j*k:]
					} else {
						rest = p.w.rows(&ws.rowsBuf, lo+j, hi)
					}
					lds := stripStride(kc)
					s := growAligned(&ws.stripsBuf, shape.rows*lds)
					packStrips(s, lds, rest[r:], k, n, kc, shape.rows)
					rowTile(shape, kc, s, lds, panel, panel, t, shape.cols, p.alpha, false)
				}
				ldf := roundUp(shape.rows, 16)
				transpose(flipped, ldf, t, shape.cols, ldf, shape.cols)
				storeTile(p.c.F32[i*p.ldc+lo+j:], p.ldc, flipped, ldf, min(shape.cols, m-i), n, p.acc || r > 0)
			}
			i += shape.cols
		}
	}
}

// thinBackward computes C (m, K) (+)= A (m, N)·W: Aᵀ is rearranged and W is
// the operand read by steps, where it lies or decoded chunk by chunk.
func (p *product) thinBackward() {
	n, k, m := p.w.N, p.w.K, p.m
	p.flipStride = roundUp(m, tileSets[impl].outer.rows)
	p.panels = growAligned(&p.scratch, n*p.flipStride)
	Parallel(n, 64, (*flipThin)(p))
	block := reductionBlock(n, reductionLimit)
	chunk := n
	if !p.w.inPlace() {
		chunk = roundUp(max(chunkValues/k, 1), block)
	}
	for p.lo = 0; p.lo < n; p.lo = p.hi {
		p.hi = min(n, p.lo+chunk)
		rows := p.w.F32
		if !p.w.inPlace() {
			rows = growAligned(&p.decoded, (p.hi-p.lo)*k)
			Parallel(p.hi-p.lo, 16, (*decodeRows)(p))
		}
		p.outer = outerProduct{c: p.c.F32, ldc: p.ldc, a: F32Vec(p.panels[p.lo*p.flipStride:]), lda: p.flipStride, padded: true, b: F32Vec(rows), ldb: k,
			steps: p.hi - p.lo, n: m, k: k, block: block, alpha: p.alpha, acc: p.acc || p.lo > 0}
		p.outer.run()
	}
}

// flipThin is the task that transposes A (m, N) to (N, m), rows padded with
// zeros; ranges are columns of A.
type flipThin product

func (p *flipThin) Run(lo, hi int) {
	dst := p.panels[lo*p.flipStride : hi*p.flipStride]
	if p.flipStride > p.m {
		clear(dst)
	}
	transpose(dst, p.flipStride, p.a[lo:], p.lda, p.m, hi-lo)
}

// decodeRows is the task that decodes the rows of the present chunk of W.
type decodeRows product

func (p *decodeRows) Run(lo, hi int) {
	k := p.w.K
	dst := p.decoded[lo*k : hi*k]
	p.w.widen(dst, p.lo+lo, p.lo+hi)
	if p.w.Half {
		RoundBF16(dst)
	}
}
