package kernel

import (
	"fmt"
	"math"
	"sort"
)

// This file holds the geometry of attention and its forward over packed
// sequences. Scores are computed in tiles of qTile queries by kTile keys and
// never stored; what the causal mask or the window hides is left out to within
// 6 rows by 16 columns of products.

// AttentionSpec is the shape of causal attention with grouped key and value
// heads: query head h uses key head h / (Heads/KVHeads).
type AttentionSpec struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32 // of the scores q·k
	Window                  int     // query i sees keys j with i − j < Window; 0 = all j ≤ i
	Softcap                 float32 // scaled scores s become Softcap·tanh(s/Softcap); 0 = as they are
}

const (
	qTile = 48 // a multiple of tileRows
	kTile = 96 // a multiple of tileRows and of 16
)

// check panics on shapes that contradict the spec.
func (s *AttentionSpec) check(op string) {
	if s.KVHeads <= 0 || s.Heads <= 0 || s.Heads%s.KVHeads != 0 || s.HeadDim <= 0 {
		panic(fmt.Sprintf("kernel: %s: %d heads on %d key heads of dimension %d", op, s.Heads, s.KVHeads, s.HeadDim))
	}
}

// span is one sequence: n queries, the first at position past, and past + n keys.
type span struct {
	row, n, past int
	keyRow       int
	qBlock       int // number of query blocks of the sequences before this one
	keyTile      int // number of key tiles of the sequences before this one
}

func (s *span) keys() int { return s.past + s.n }

// keySource says where key and value rows lie: row r of head h begins at
// r·row + h·head.
type keySource struct {
	k, v      Vec
	row, head int
}

// plan is a set of spans with their keys and values packed for the tiles:
//
//	keyT (tile, kvHead, HeadDim, kTile)  keys, transposed; columns past the end are zero
//	val  (tile, kvHead, kTile, padded)   values, rows padded with zeros to padded = ⌈HeadDim⌉₁₆
type plan struct {
	spec            AttentionSpec
	spans           []span
	blocks, tiles   int
	padded          int
	keyT, valT      []float32
	keyRows, valRow []float32
	src             keySource
	backward        bool      // pack valT and keyRows too
	level           halfLevel // not widened: in words of two values, see attention_half.go
}

// layout fills the spans from the cumulative offsets seq; number is to follow.
func (p *plan) layout(op string, spec AttentionSpec, seq []int32, rows int) {
	spec.check(op)
	if len(seq) == 0 || seq[0] != 0 || int(seq[len(seq)-1]) != rows {
		panic(fmt.Sprintf("kernel: %s: offsets %v do not cover %d rows", op, seq, rows))
	}
	p.spans = p.spans[:0]
	for i := range len(seq) - 1 {
		lo, hi := int(seq[i]), int(seq[i+1])
		if hi < lo {
			panic(fmt.Sprintf("kernel: %s: offsets %v fall", op, seq))
		}
		p.spans = append(p.spans, span{row: lo, keyRow: lo, n: hi - lo})
	}
	p.spec = spec
}

// queries is the number of queries in a block. On AMX they fill whole strips.
func (p *plan) queries() int {
	if p.level == tiles {
		return qRows
	}
	return qTile
}

// qBlocks is the number of blocks of a span.
func (p *plan) qBlocks(s *span) int { return ceilDiv(s.n, p.queries()) }

// number counts the blocks, which are those of the level, and the tiles of the spans.
func (p *plan) number(level halfLevel) {
	p.level, p.padded = level, roundUp(p.spec.HeadDim, 16)
	p.blocks, p.tiles = 0, 0
	for i := range p.spans {
		s := &p.spans[i]
		s.qBlock, s.keyTile = p.blocks, p.tiles
		p.blocks += p.qBlocks(s)
		p.tiles += ceilDiv(s.keys(), kTile)
	}
}

// spanOf finds the span that holds the given key tile.
func (p *plan) spanOf(tile int) *span {
	return &p.spans[sort.Search(len(p.spans), func(i int) bool { return p.spans[i].keyTile > tile })-1]
}

// pack fills the packed forms of keys and values.
func (p *plan) pack(src keySource, backward bool) {
	p.src, p.backward = src, backward
	n := p.tiles * p.spec.KVHeads
	d, padded := p.spec.HeadDim, p.padded
	if p.level != widened {
		d, padded = d/2, d/2
	}
	p.keyT = grow(p.keyT, n*d*kTile)
	p.valRow = grow(p.valRow, n*kTile*padded)
	if backward {
		p.valT = grow(p.valT, n*d*kTile)
		p.keyRows = grow(p.keyRows, n*kTile*padded)
	}
	Parallel(n, 1, p)
	p.src = keySource{}
}

// Run packs the (tile, kvHead) pairs lo to hi.
func (p *plan) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	d := p.spec.HeadDim
	for u := lo; u < hi; u++ {
		tile, head := u/p.spec.KVHeads, u%p.spec.KVHeads
		s := p.spanOf(tile)
		first := (tile - s.keyTile) * kTile
		n := min(kTile, s.keys()-first)
		at := (s.keyRow+first)*p.src.row + head*p.src.head
		if p.level != widened {
			p.packPairs(u, at, n, sc)
			continue
		}
		k, row := p.src.k.tile(&sc[0], at, p.src.row, n, d)
		v, _ := p.src.v.tile(&sc[1], at, p.src.row, n, d)
		packT(p.keyT[u*d*kTile:][:d*kTile], k, row, n, d)
		packRows(p.valRow[u*kTile*p.padded:], p.padded, v, row, n, d, 1)
		if p.backward {
			packT(p.valT[u*d*kTile:][:d*kTile], v, row, n, d)
			packRows(p.keyRows[u*kTile*p.padded:], p.padded, k, row, n, d, 1)
		}
	}
}

// tile is n rows of d values as float32, the first at value at and the others row
// apart: in place where they are, in buf without gaps otherwise.
func (v Vec) tile(buf *[]float32, at, row, n, d int) (x []float32, stride int) {
	if v.F32 != nil {
		return v.F32[at:], row
	}
	x = growAligned(buf, n*d)
	for i := range n {
		BF16ToF32(x[i*d:(i+1)*d], v.BF16[2*(at+i*row):2*(at+i*row+d)])
	}
	return x, d
}

// packT sets dst (d, kTile) to the transpose of src (n, d) with rows at stride
// row, and the columns from n on to zero.
func packT(dst, src []float32, row, n, d int) {
	if n < kTile {
		clear(dst)
	}
	vecTranspose(dst, kTile, src, row, n, d)
}

// packRows copies src (n, d), rows at stride row, times scale to dst, rows at
// stride padded, and fills each row up to padded with zeros.
func packRows(dst []float32, padded int, src []float32, row, n, d int, scale float32) {
	for i := range n {
		to, from := dst[i*padded:(i+1)*padded], src[i*row:i*row+d]
		if scale == 1 {
			copy(to, from)
		} else {
			vecScale(to[:d], from, scale)
		}
		if d < padded {
			clear(to[d:])
		}
	}
}

// tileProduct is C (m, n) (+)= A (m, steps)·B (steps, n): m a multiple of 6, n of
// 16; A's element (i, k) at a[i·ai + k·ak], rows of B and C at strides bs and cs.
func tileProduct(m, n, steps int, a []float32, ai, ak int, b []float32, bs int, c []float32, cs int, acc bool) {
	for i := 0; i < m; i += tileRows {
		for j := 0; j < n; j += 64 {
			tile(steps, a[i*ai:], ai, ak, b[j:], bs, c[i*cs+j:], cs, min(64, n-j), acc)
		}
	}
}

// forwardTask computes (span, head, block) units of the forward.
type forwardTask struct {
	plan
	q, out Vec
	lse    []float32
	rows   int
}

type forwardScratch struct {
	q, s, o  []float32
	p        []float32 // weights in words of two
	rows     []float32 // of bfloat16, widened
	max, sum [qRows]float32
}

var (
	forwardTasks     freeList[forwardTask]
	forwardScratches freeList[forwardScratch]
)

// Attention computes causal softmax attention over packed sequences: sequence
// i holds the rows seq[i] to seq[i+1] of q and out (T, Heads·HeadDim) and of k
// and v (T, KVHeads·HeadDim), and sees nothing of the others. lse (Heads, T)
// receives the logarithm of each softmax denominator for AttentionBackward; it
// may be nil. out may be q.
func Attention(out Vec, lse []float32, q, k, v Vec, seq []int32, spec AttentionSpec) {
	rows := q.Len() / max(1, spec.Heads*spec.HeadDim)
	t := forwardTasks.get()
	t.layout("Attention", spec, seq, rows)
	width := spec.KVHeads * spec.HeadDim
	checkLen("Attention", "q", q.Len(), rows*spec.Heads*spec.HeadDim)
	checkLen("Attention", "out", out.Len(), q.Len())
	checkLen("Attention", "k", k.Len(), rows*width)
	checkLen("Attention", "v", v.Len(), rows*width)
	if lse != nil {
		checkLen("Attention", "lse", len(lse), rows*spec.Heads)
	}
	t.forward(out, lse, q, keySource{k, v, width, spec.HeadDim}, rows)
}

// forward runs the task and gives it back.
func (t *forwardTask) forward(out Vec, lse []float32, q Vec, src keySource, rows int) {
	t.number(t.spec.halfOf(q, src.k, src.v))
	t.pack(src, false)
	t.q, t.out, t.lse, t.rows = q, out, lse, rows
	Parallel(t.blocks*t.spec.Heads, 1, t)
	t.q, t.out, t.lse = Vec{}, Vec{}, nil
	forwardTasks.put(t)
}

// Run computes units lo to hi, which are numbered span by span, then head by
// head, then block by block.
func (t *forwardTask) Run(lo, hi int) {
	sc := forwardScratches.get()
	queries := t.queries()
	for u := lo; u < hi; u++ {
		s, head, index := t.unit(u)
		b := block{span: s, first: index * queries, n: min(queries, s.n-index*queries)}
		if t.level == widened {
			t.attend(sc, &b, head)
		} else {
			t.attendHalf(sc, &b, head)
		}
	}
	forwardScratches.put(sc)
}

// unit decodes the number of a (span, head, block).
func (p *plan) unit(u int) (s *span, head, index int) {
	h := p.spec.Heads
	s = &p.spans[sort.Search(len(p.spans), func(i int) bool { return p.spans[i].qBlock*h > u })-1]
	u -= s.qBlock * h
	return s, u / p.qBlocks(s), u % p.qBlocks(s)
}

// attend computes one block of one head by online softmax over the key tiles.
func (t *forwardTask) attend(sc *forwardScratch, b *block, head int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	group := head / (t.spec.Heads / t.spec.KVHeads)
	at := (b.row+b.first)*width + head*d
	sc.q, sc.o, sc.s = grow(sc.q, qTile*t.padded), grow(sc.o, qTile*t.padded), grow(sc.s, qTile*kTile)
	b.load(sc.q, t.padded, t.q, at, width, d, t.spec.Scale, &sc.rows)
	t.begin(sc, b)
	from, to := b.tileRange(t.spec.Window)
	for tile := from; tile < to; tile++ {
		at := (b.keyTile+tile)*t.spec.KVHeads + group
		first := tile * kTile
		b.scores(sc.s, sc.q, t.keyT[at*d*kTile:], d, t.padded, first, t.spec.Window)
		t.softmax(sc, b, first, 1)
		b.weigh(sc.o, sc.s, t.valRow[at*kTile*t.padded:], t.padded, first, t.spec.Window)
	}
	t.finish(sc, b, head, at)
}

// begin sets the sums of a block to those of no key.
func (t *forwardTask) begin(sc *forwardScratch, b *block) {
	clear(sc.o)
	for i := range b.n {
		sc.max[i], sc.sum[i] = float32(math.Inf(-1)), 0
	}
}

// finish stores a block, whose first value is at at.
func (t *forwardTask) finish(sc *forwardScratch, b *block, head, at int) {
	d, width := t.spec.HeadDim, t.spec.Heads*t.spec.HeadDim
	for i := range b.n {
		to := at + i*width
		row := t.out.Room(&sc.rows, to, to+d)
		vecScale(row, sc.o[i*t.padded:i*t.padded+d], 1/sc.sum[i])
		t.out.Write(to, row)
		if t.lse != nil {
			t.lse[head*t.rows+b.row+b.first+i] = sc.max[i] + float32(math.Log(float64(sc.sum[i])))
		}
	}
}

// softmax turns the block's scores of the tile beginning at key first, times scale, into
// weights relative to the largest score of their row so far, and rescales what was summed
// under an earlier one. Weights of keys that a query does not see are zero.
func (t *forwardTask) softmax(sc *forwardScratch, b *block, first int, scale float32) {
	half := t.level != widened
	if t.spec.fused(half) {
		lo, hi := b.reach(first, t.spec.Window)
		if half {
			softmaxRowsHalf(&sc.s[0], &sc.o[0], &sc.max[0], &sc.sum[0], b.n, lo, hi, t.padded, scale, &sc.p[0])
		} else {
			softmaxRows(&sc.s[0], &sc.o[0], &sc.max[0], &sc.sum[0], b.n, lo, hi, t.padded, scale)
		}
		return
	}
	for i := range b.n {
		row := sc.s[i*kTile : (i+1)*kTile]
		lo, hi := b.visible(i, first, t.spec.Window)
		hide(row, lo, hi)
		vecScale(row, row, scale)
		t.softmaxRow(sc, i, lo, hi)
	}
	if half {
		F32ToBF16(asBytes(sc.p)[:2*b.n*kTile], sc.s[:b.n*kTile])
	}
}

// softmaxRow turns scaled scores of query i, of keys [lo, hi), into weights relative to the
// largest score so far, and rescales what was summed under an earlier one.
func (t *forwardTask) softmaxRow(sc *forwardScratch, i, lo, hi int) {
	if hi <= lo {
		return
	}
	row := sc.s[i*kTile : (i+1)*kTile]
	if c := t.spec.Softcap; c != 0 {
		vecSoftcap(row[lo:hi], row[lo:hi], c)
	}
	if m := vecMax(row[lo:hi]); m > sc.max[i] {
		if sc.sum[i] != 0 {
			shrink := exp32(sc.max[i] - m)
			sc.sum[i] *= shrink
			o := sc.o[i*t.padded : (i+1)*t.padded]
			vecScale(o, o, shrink)
		}
		sc.max[i] = m
	}
	sc.sum[i] += vecExpSum(row[lo:hi], row[lo:hi], sc.max[i])
}
