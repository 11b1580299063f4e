package kernel

import "math"

// This file holds dropout (Srivastava et al. 2014). Whether a value is dropped is a
// function of a key and the value's index alone: masks are not stored but made again.

// dropScalars are what the assembly reads, in this order.
type dropScalars struct {
	scale     float32 // of what is kept
	threshold uint32  // hashes below it drop
	counter   uint32  // of the first element
	key       uint32
	first     uint32 // multipliers of the hash
	second    uint32
	step      uint32 // of the counter, from one element to the next
}

// The hash is lowbias32 (Wellons 2018) of the counter, which is Weyl's sequence, and the
// key.
const (
	dropFirst  = 0x7feb352d
	dropSecond = 0x846ca68b
	dropStep   = 0x9e3779b1
)

func dropHash(x uint32) uint32 {
	x = (x ^ x>>16) * dropFirst
	x = (x ^ x>>15) * dropSecond
	return x ^ x>>16
}

// vecDropGeneric: dst = x·scale where the hash of its counter reaches the threshold, 0
// elsewhere.
func vecDropGeneric(dst, x []float32, k *dropScalars) {
	for i, v := range x {
		if dropHash((k.counter+uint32(i)*k.step)^k.key) < k.threshold {
			dst[i] = 0
		} else {
			dst[i] = v * k.scale
		}
	}
}

type dropTask struct {
	dst, src Vec
	k        dropScalars
}

var dropTasks freeList[dropTask]

func (t *dropTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	k := t.k
	for ; lo < hi; lo += widenPiece {
		end := min(lo+widenPiece, hi)
		k.counter = t.k.counter + uint32(lo)*k.step
		x, y := t.src.Read(&sc[0], lo, end), t.dst.Room(&sc[1], lo, end)
		vecDrop(y, x, &k)
		t.dst.Write(lo, y)
	}
}

// Dropout sets dst = src ∘ mask / (1 − p), the mask of a key being 0 with probability p
// and 1 otherwise. dst may be src. The same key and index always give the same.
func Dropout(dst, src Vec, p float32, key uint64) {
	checkLen("Dropout", "src", src.Len(), dst.Len())
	t := dropTasks.get()
	*t = dropTask{dst, src, dropScalars{
		scale:     1 / (1 - p),
		threshold: uint32(min(float64(p)*(1<<32), math.MaxUint32)),
		counter:   uint32(key >> 32), key: uint32(key),
		first: dropFirst, second: dropSecond, step: dropStep,
	}}
	Parallel(dst.Len(), elemGrain/4, t)
	*t = dropTask{}
	dropTasks.put(t)
}
