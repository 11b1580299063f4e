package kernel

import "fmt"

// This file holds attention of new rows against a cache of keys and values,
// the forward of generation. Prompts go through the tiles of attention.go; a
// few rows at a time read the cache once, without packing it.

// fewRows is the number of new rows from which packing the cache for tiles
// pays.
const fewRows = 8

// cachedTask computes (row, head) units.
type cachedTask struct {
	spec           AttentionSpec
	out, q         []float32
	k, v           []float32
	past, capacity int
}

type cachedScratch struct{ weights []float32 }

var (
	cachedTasks     freeList[cachedTask]
	cachedScratches freeList[cachedScratch]
)

// AttentionCached computes attention of nq new rows, at positions past to
// past+nq, against a cache that already holds their own keys and values: q and
// out are (nq, Heads·HeadDim), kcache and vcache (KVHeads, capacity, HeadDim)
// with past+nq rows in use. out may be q.
func AttentionCached(out, q, kcache, vcache []float32, nq, past, capacity int, spec AttentionSpec) {
	const op = "AttentionCached"
	spec.check(op)
	checkLen(op, "q", len(q), nq*spec.Heads*spec.HeadDim)
	checkLen(op, "out", len(out), len(q))
	checkLen(op, "kcache", len(kcache), spec.KVHeads*capacity*spec.HeadDim)
	checkLen(op, "vcache", len(vcache), len(kcache))
	if nq < 0 || past < 0 || past+nq > capacity {
		panic(fmt.Sprintf("kernel: %s: %d rows after %d do not fit %d", op, nq, past, capacity))
	}
	if nq >= fewRows {
		t := forwardTasks.get()
		t.spans = append(t.spans[:0], span{n: nq, past: past})
		t.spec = spec
		t.forward(F32Vec(out), nil, F32Vec(q), keySource{F32Vec(kcache), F32Vec(vcache), spec.HeadDim, capacity * spec.HeadDim}, nq)
		return
	}
	t := cachedTasks.get()
	*t = cachedTask{spec, out, q, kcache, vcache, past, capacity}
	Parallel(nq*spec.Heads, 1, t)
	*t = cachedTask{}
	cachedTasks.put(t)
}

func (t *cachedTask) Run(lo, hi int) {
	sc := cachedScratches.get()
	sc.weights = grow(sc.weights, t.capacity)
	d := t.spec.HeadDim
	for u := lo; u < hi; u++ {
		row, head := u/t.spec.Heads, u%t.spec.Heads
		group := head / (t.spec.Heads / t.spec.KVHeads)
		end, first := t.past+row+1, 0
		if t.spec.Window > 0 {
			first = max(0, end-t.spec.Window)
		}
		at := (group*t.capacity + first) * d
		w := sc.weights[:end-first]
		q, out := t.q[u*d:(u+1)*d], t.out[u*d:(u+1)*d]
		dot(w, q, t.k[at:], d)
		vecScale(w, w, t.spec.Scale)
		if c := t.spec.Softcap; c != 0 {
			vecSoftcap(w, w, c)
		}
		sum, m := 0.0, vecMax(w)
		for j := 0; j < len(w); j += expBlock {
			part := w[j:min(j+expBlock, len(w))]
			sum += float64(vecExpSum(part, part, m))
		}
		vecWeigh(out, t.v[at:], d, w)
		vecScale(out, out, float32(1/sum))
	}
	cachedScratches.put(sc)
}
