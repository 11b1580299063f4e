package kernel

// This file holds the gradient of attention. Probabilities are recomputed tile
// by tile from the scores and the saved lse. Units are (sequence, query head);
// the heads of a group add up their parts of dk and dv in a second pass, in
// the order of the heads, so that the result does not depend on the threads.

// backwardTask computes (span, head) units.
type backwardTask struct {
	plan
	dq, dout, q, out Vec
	lse              []float32
	// dkPart and dvPart are (tile, head, kTile, padded).
	dkPart, dvPart []float32
	rows           int
}

type backwardScratch struct {
	q, dout, dq, p, dp []float32
	rows, out          []float32 // of bfloat16, widened
	// Of values in bfloat16, in words of two.
	qAcross, doutAcross   []float32
	words, slopes, panels []float32
	delta                 [qRows]float32
}

var (
	backwardTasks     freeList[backwardTask]
	backwardScratches freeList[backwardScratch]
	groupTasks        freeList[groupTask]
)

// AttentionBackward is the gradient of Attention: dq (T, Heads·HeadDim) and dk,
// dv (T, KVHeads·HeadDim) are set from dout (T, Heads·HeadDim) and what the
// forward read and wrote. dq may be dout.
func AttentionBackward(dq, dk, dv, dout, q, k, v, out Vec, lse []float32, seq []int32, spec AttentionSpec) {
	rows := q.Len() / max(1, spec.Heads*spec.HeadDim)
	t := backwardTasks.get()
	t.layout("AttentionBackward", spec, seq, rows)
	width := spec.KVHeads * spec.HeadDim
	for _, x := range [...]Vec{dq, dout, q, out} {
		checkLen("AttentionBackward", "dq, dout, q or out", x.Len(), rows*spec.Heads*spec.HeadDim)
	}
	for _, x := range [...]Vec{dk, dv, k, v} {
		checkLen("AttentionBackward", "dk, dv, k or v", x.Len(), rows*width)
	}
	checkLen("AttentionBackward", "lse", len(lse), rows*spec.Heads)
	t.number(spec.halfOf(q, k, v, dout))
	t.pack(keySource{k, v, width, spec.HeadDim}, true)
	n := t.tiles * spec.Heads * kTile * t.padded
	t.dkPart, t.dvPart = grow(t.dkPart, n), grow(t.dvPart, n)
	t.dq, t.dout, t.q, t.out, t.lse, t.rows = dq, dout, q, out, lse, rows
	Parallel(len(t.spans)*spec.Heads, 1, t)

	g := groupTasks.get()
	*g = groupTask{t, dk, dv}
	Parallel(t.tiles*spec.KVHeads, 1, g)
	*g = groupTask{}
	groupTasks.put(g)
	t.dq, t.dout, t.q, t.out, t.lse = Vec{}, Vec{}, Vec{}, Vec{}, nil
	backwardTasks.put(t)
}

// Run computes units lo to hi.
func (t *backwardTask) Run(lo, hi int) {
	sc := backwardScratches.get()
	for u := lo; u < hi; u++ {
		s, head := &t.spans[u/t.spec.Heads], u%t.spec.Heads
		for tile := range ceilDiv(s.keys(), kTile) {
			at := t.part(s, tile, head)
			clear(t.dkPart[at:][:kTile*t.padded])
			clear(t.dvPart[at:][:kTile*t.padded])
		}
		queries := t.queries()
		for i := 0; i < s.n; i += queries {
			b := block{span: s, first: i, n: min(queries, s.n-i)}
			if t.level == widened {
				t.attend(sc, &b, head)
			} else {
				t.attendHalf(sc, &b, head)
			}
		}
	}
	backwardScratches.put(sc)
}

// part is where the (kTile, padded) part of a head begins.
func (t *backwardTask) part(s *span, tile, head int) int {
	return ((s.keyTile+tile)*t.spec.Heads + head) * kTile * t.padded
}

// attend computes what one block of queries of one head gives.
func (t *backwardTask) attend(sc *backwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at := (b.row+b.first)*width + head*d
	for _, x := range [...]*[]float32{&sc.q, &sc.dout, &sc.dq} {
		*x = grow(*x, qTile*t.padded)
	}
	sc.p, sc.dp = grow(sc.p, qTile*kTile), grow(sc.dp, qTile*kTile)
	clear(sc.dq)
	b.load(sc.q, t.padded, t.q, at, width, d, t.spec.Scale, &sc.rows)
	b.load(sc.dout, t.padded, t.dout, at, width, d, 1, &sc.rows)
	t.deltas(sc, b, at)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		packed := (b.keyTile+tile)*t.spec.KVHeads + group
		first := tile * kTile
		b.scores(sc.p, sc.q, t.keyT[packed*d*kTile:], d, t.padded, first, t.spec.Window)
		b.scores(sc.dp, sc.dout, t.valT[packed*d*kTile:], d, t.padded, first, t.spec.Window)
		t.slopes(sc, b, head, first, 1, 1)
		part := t.part(b.span, tile, head)
		b.transposed(t.dvPart[part:], sc.p, sc.dout, t.padded, first, t.spec.Window)
		b.transposed(t.dkPart[part:], sc.dp, sc.q, t.padded, first, t.spec.Window)
		b.weigh(sc.dq, sc.dp, t.keyRows[packed*kTile*t.padded:], t.padded, first, t.spec.Window)
	}
	t.store(sc, b, at, t.spec.Scale)
}

// slopes turns the block's scores p of the tile beginning at key first, times scale, into
// probabilities, and the gradient dp of these into that of the scores, times slope. Of keys that
// a query does not see both are zero. Half levels have them in words and slopes.
func (t *backwardTask) slopes(sc *backwardScratch, b *block, head, first int, scale, slope float32) {
	half := t.level != widened
	lse := t.lse[head*t.rows+b.row+b.first:][:b.n]
	if t.spec.fused(half) {
		lo, hi := b.reach(first, t.spec.Window)
		if half {
			slopeRowsHalf(&sc.p[0], &sc.dp[0], &lse[0], &sc.delta[0], b.n, lo, hi, scale, slope, &sc.words[0], &sc.slopes[0])
		} else {
			slopeRows(&sc.p[0], &sc.dp[0], &lse[0], &sc.delta[0], b.n, lo, hi, scale, slope)
		}
		return
	}
	var ds [kTile]float32
	for i := range b.n {
		lo, hi := b.visible(i, first, t.spec.Window)
		p, dp := sc.p[i*kTile:(i+1)*kTile], sc.dp[i*kTile:(i+1)*kTile]
		hide(p, lo, hi)
		hide(dp, lo, hi)
		if hi <= lo {
			continue
		}
		p, dp = p[lo:hi], dp[lo:hi]
		vecScale(p, p, scale)
		delta := sc.delta[i]
		if c := t.spec.Softcap; c != 0 { // its gradient, as long as the capped scores are there
			vecSoftcap(p, p, c)
			vecSoftcapBack(dp, p, c, delta)
			delta = 0 // which took it off
		}
		vecExpSum(p, p, lse[i])
		x := ds[:hi-lo]
		vecScale(x, p, slope)
		vecSubMul(x, dp, delta)
		copy(dp, x)
	}
	if half {
		F32ToBF16(asBytes(sc.words)[:2*b.n*kTile], sc.p[:b.n*kTile])
		F32ToBF16(asBytes(sc.slopes)[:2*b.n*kTile], sc.dp[:b.n*kTile])
	}
}

// deltas computes doutᵢ·outᵢ of each query of a block, whose first value is at at. It is
// Σⱼ pᵢⱼ·(dp)ᵢⱼ: the softmax's gradient needs no second pass.
func (t *backwardTask) deltas(sc *backwardScratch, b *block, at int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	for i := range b.n {
		from := at + i*width
		sc.delta[i] = vecDot(t.dout.Read(&sc.rows, from, from+d), t.out.Read(&sc.out, from, from+d))
	}
}

// store stores dq of a block, whose first value is at at.
func (t *backwardTask) store(sc *backwardScratch, b *block, at int, scale float32) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	for i := range b.n {
		to := at + i*width
		row := t.dq.Room(&sc.rows, to, to+d)
		vecScale(row, sc.dq[i*t.padded:][:d], scale)
		t.dq.Write(to, row)
	}
}

// transposed computes c (kTile, padded) += pᵀ·x with p (qTile, kTile), x (qTile,
// padded), over the queries that see a key of the group of rows.
func (b *block) transposed(c, p, x []float32, padded, first, window int) {
	for j := 0; j < min(kTile, b.keys()-first); j += tileRows {
		if lo, hi := b.seeing(j, tileRows, first, window); lo < hi {
			tileProduct(tileRows, padded, hi-lo, p[lo*kTile+j:], 1, kTile, x[lo*padded:], padded, c[j*padded:], padded, true)
		}
	}
}

// groupTask adds the parts of the heads of each group: (tile, kvHead) units.
type groupTask struct {
	*backwardTask
	dk, dv Vec
}

func (t *groupTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	d, kv := t.spec.HeadDim, t.spec.KVHeads
	size := kTile * t.padded
	for u := lo; u < hi; u++ {
		tile, group := u/kv, u%kv
		s := t.spanOf(tile)
		first := (tile - s.keyTile) * kTile
		n := min(kTile, s.keys()-first)
		from := t.part(s, tile-s.keyTile, group*t.spec.Heads/kv)
		for _, x := range [...]struct {
			dst   Vec
			parts []float32
		}{{t.dk, t.dkPart}, {t.dv, t.dvPart}} {
			rows, stride := x.parts[from:][:size], t.padded
			for h := 1; h < t.spec.Heads/kv; h++ { // the first part is not needed any more
				vecAdd(rows, rows, x.parts[from+h*size:][:size])
			}
			if t.level != widened { // (HeadDim, kTile)
				turned := growAligned(&sc[0], n*d)
				vecTranspose(turned, d, rows, kTile, d, n)
				rows, stride = turned, d
			}
			for j := range n {
				to := (s.keyRow+first+j)*kv*d + group*d
				Copy(x.dst.Slice(to, to+d), F32Vec(rows[j*stride:][:d]))
			}
		}
	}
}
