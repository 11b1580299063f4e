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
	qKeys, doutKeys    []float32 // in words of two, as the next two
	words, turned      []float32
	room               []float32
	delta              [qTile]float32
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
	t.level = spec.halfOf(q, k, v, dout)
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
	for _, x := range [...]*[]float32{&sc.q, &sc.dout, &sc.dq} {
		*x = grow(*x, qTile*t.padded)
	}
	sc.p, sc.dp = grow(sc.p, qTile*kTile), grow(sc.dp, qTile*kTile)
	for u := lo; u < hi; u++ {
		s, head := &t.spans[u/t.spec.Heads], u%t.spec.Heads
		for tile := range ceilDiv(s.keys(), kTile) {
			at := t.part(s, tile, head)
			clear(t.dkPart[at:][:kTile*t.padded])
			clear(t.dvPart[at:][:kTile*t.padded])
		}
		for i := 0; i < s.n; i += qTile {
			b := block{span: s, first: i, n: min(qTile, s.n-i)}
			switch t.level {
			case pairs:
				t.attendPairs(sc, &b, head)
			case tiles:
				t.attendTiles(sc, &b, head)
			default:
				t.attend(sc, &b, head)
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
		for i := range b.n {
			row := sc.p[i*kTile : (i+1)*kTile]
			lo, hi := b.visible(i, first, t.spec.Window)
			hide(row, lo, hi, tileRows)
			t.weights(sc, b, head, i, lo, hi)
		}
		part := t.part(b.span, tile, head)
		b.transposed(t.dvPart[part:], sc.p, sc.dout, t.padded, first, t.spec.Window)
		for i := range b.n {
			lo, hi := b.visible(i, first, t.spec.Window)
			t.slopes(sc, i, lo, hi)
		}
		b.transposed(t.dkPart[part:], sc.p, sc.q, t.padded, first, t.spec.Window)
		b.weigh(sc.dq, sc.p, t.keyRows[packed*kTile*t.padded:], t.padded, first, t.spec.Window)
	}
	t.store(sc, b, at, t.spec.Scale)
}

// weights turns scaled scores of query i, of keys [lo, hi) of the tile, into probabilities.
// With a softcap, dp becomes the gradient behind it at once, as long as the capped scores
// are there.
func (t *backwardTask) weights(sc *backwardScratch, b *block, head, i, lo, hi int) {
	if hi <= lo {
		return
	}
	row := sc.p[i*kTile+lo : i*kTile+hi]
	if c := t.spec.Softcap; c != 0 {
		vecSoftcap(row, row, c)
		vecSoftcapBack(sc.dp[i*kTile+lo:i*kTile+hi], row, c, sc.delta[i])
	}
	vecExpSum(row, row, t.lse[head*t.rows+b.row+b.first+i])
}

// slopes turns the probabilities into the gradient of the scaled scores.
func (t *backwardTask) slopes(sc *backwardScratch, i, lo, hi int) {
	if hi <= lo {
		return
	}
	delta := sc.delta[i]
	if t.spec.Softcap != 0 {
		delta = 0 // weights took it off
	}
	vecSubMul(sc.p[i*kTile+lo:i*kTile+hi], sc.dp[i*kTile+lo:i*kTile+hi], delta)
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
	heads := t.spec.Heads / kv
	for u := lo; u < hi; u++ {
		tile, group := u/kv, u%kv
		s := t.spanOf(tile)
		first := (tile - s.keyTile) * kTile
		for j := range min(kTile, s.keys()-first) {
			to := (s.keyRow+first+j)*kv*d + group*d
			from := t.part(s, tile-s.keyTile, group*heads) + j*t.padded
			dk, dv := t.dk.Room(&sc[0], to, to+d), t.dv.Room(&sc[1], to, to+d)
			copy(dk, t.dkPart[from:])
			copy(dv, t.dvPart[from:])
			for h := 1; h < heads; h++ {
				at := from + h*kTile*t.padded
				vecAdd(dk, dk, t.dkPart[at:at+d])
				vecAdd(dv, dv, t.dvPart[at:at+d])
			}
			t.dk.Write(to, dk)
			t.dv.Write(to, dv)
		}
	}
}
