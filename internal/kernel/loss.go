package kernel

import "math"

// This file holds the output head fused with cross-entropy: the logits of some rows and
// a piece of the vocabulary at a time live in a scratch, where they turn into
// exponentials, and the sums of the softmax are carried from piece to piece (Milakov
// and Gimelshein 2018). The (rows, vocabulary) matrix never exists, and a piece of the
// head is packed once for all rows.

const (
	// lossRows is the number of rows whose logits exist at once.
	lossRows = 1024
	// lossValues is about the number of those logits: 8 MB.
	lossValues = 1 << 21
)

// LogitSpec is what a head does to its products: what an Adapter makes of them times Scale,
// then, with a Softcap c, c·tanh(x/c).
type LogitSpec struct {
	Scale   float32 // 0 is 1
	Softcap float32 // 0: none
	Adapter *HeadAdapter
}

func (s LogitSpec) scale() float32 {
	if s.Scale == 0 {
		return 1
	}
	return s.Scale
}

// logits are those of some rows and a piece of the vocabulary, words [v0, v0+n): in
// scratch of its own, or where they are to be kept.
type logits struct {
	scratch []float32
	x       []float32 // (rows, stride)
	stride  int
	v0, n   int
	piece   Matrix // these words of the head
	spec    LogitSpec
	targets []int32

	adapter HeadAdapter // of these rows and words
	words   []Matrix    // of its terms
	plain   []float32   // (rows, n) products before a gain, where its gradient is wanted
	keep    bool        // plain is wanted
}

// compute makes them, before a softcap, from hidden states h (rows, C). Unless kept is
// nil, they stay there, (rows, V).
func (l *logits) compute(h Vec, rows int, head *Matrix, v0, n, stride int, kept []float32) {
	l.v0, l.n, l.stride = v0, n, stride
	l.scratch = grow(l.scratch, rows*stride)
	l.x = l.scratch
	if kept != nil {
		l.x, l.stride = kept[v0:], head.N
	}
	l.piece = head.Rows(v0, v0+n)
	forward("CrossEntropy", F32Vec(l.x), l.stride, h, head.K, rows, &l.piece, l.spec.scale(), false, l.adapter.Terms)
	if l.keep {
		l.plain = grow(l.plain, rows*n)
	}
}

// row is the logits of row i.
func (l *logits) row(i int) []float32 { return l.x[i*l.stride:][:l.n] }

// shape makes the logits of row i of its products, which compute left as they came.
func (l *logits) shape(i int) {
	if l.keep {
		copy(l.plain[i*l.n:(i+1)*l.n], l.row(i))
	}
	if g := l.adapter.Gain; g != nil {
		vecMul(l.row(i), l.row(i), g)
	}
	if b := l.adapter.Bias; b != nil {
		vecAxpy(l.row(i), b, l.spec.scale())
	}
	if c := l.spec.Softcap; c != 0 {
		vecSoftcap(l.row(i), l.row(i), c)
	}
}

// target is where the target of row i is among its logits, if it is there.
func (l *logits) target(i int) (at int, ok bool) {
	at = int(l.targets[i]) - l.v0
	return at, at >= 0 && at < l.n
}

type lossTask struct {
	logits
	head *Matrix
	half bool // exponentials are in bfloat16, in the first half of each row
	grad bool
	last bool
	// width is the row stride of the exponentials, which take the place of the logits, or
	// the scratch that those do not need.
	width int
	// Of the rows of the present call: the results, and what is carried along.
	loss, lse  []float32
	dh         []float32 // (rows, C)
	max, score []float32
	sum        []float64
}

var lossTasks freeList[lossTask]

// Run takes rows lo to hi of a piece into the sums and, with grad, from logits to
// exponentials, with 0 for the target: its part of the gradient needs no rounding and is
// added at the end.
func (t *lossTask) Run(lo, hi int) {
	var block [expBlock]float32
	c := t.head.K
	for i := lo; i < hi; i++ {
		if t.last {
			t.finish(i)
			continue
		}
		t.shape(i)
		x := t.row(i)
		e := t.scratch[i*t.width:][:t.n]
		inPlace := &e[0] == &x[0]
		target, here := t.target(i)
		if here {
			t.score[i] = x[target]
		}
		m := vecMax(x)
		switch {
		case t.v0 == 0:
			t.max[i], t.sum[i] = m, 0
		case m > t.max[i]:
			shrink := exp32(t.max[i] - m)
			t.max[i] = m
			t.sum[i] *= float64(shrink)
			if t.grad {
				dh := t.dh[i*c : (i+1)*c]
				vecScale(dh, dh, shrink)
			}
		}
		for j := 0; j < len(x); j += expBlock {
			part := x[j:min(j+expBlock, len(x))]
			to := block[:len(part)]
			if t.grad && !t.half && !(inPlace && t.spec.Softcap != 0) {
				to = e[j : j+len(part)]
			}
			t.sum[i] += float64(vecExpSum(to, part, t.max[i]))
			if c := t.spec.Softcap; c != 0 && t.grad {
				vecSoftcapBack(to, part, c, 0)
			}
			if g := t.adapter.Gain; g != nil && t.grad {
				vecMul(to, to, g[j:j+len(part)])
			}
			switch {
			case !t.grad:
			case t.half:
				F32ToBF16(asBytes(e)[2*j:2*(j+len(part))], to)
			case inPlace && t.spec.Softcap != 0:
				copy(part, to)
			}
		}
		switch {
		case !here || !t.grad:
		case t.half:
			clear(asBytes(e)[2*target : 2*target+2])
		default:
			e[target] = 0
		}
	}
}

// finish makes the results of row i from the sums.
func (t *lossTask) finish(i int) {
	lse := float64(t.max[i]) + math.Log(t.sum[i])
	if t.lse != nil {
		t.lse[i] = float32(lse)
	}
	if t.loss != nil {
		t.loss[i] = float32(lse - float64(t.score[i]))
	}
	if !t.grad {
		return
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	c := t.head.K
	dh, target := t.dh[i*c:(i+1)*c], int(t.targets[i])
	vecScale(dh, dh, float32(1/t.sum[i]))
	slope := float32(math.Exp(float64(t.score[i])-lse)-1) * t.spec.scale()
	if c := t.spec.Softcap; c != 0 {
		s := t.score[i] / c
		slope *= 1 - s*s
	}
	if a := t.spec.Adapter; a != nil && a.Gain != nil {
		slope *= a.Gain[target]
	}
	vecAxpy(dh, t.head.rows(&ws.rowsBuf, target, target+1)[:c], slope)
}

// CrossEntropy computes, for hidden rows h (P, C) and the output head (V, C),
// the negative log-likelihood in nats of targets (P): loss (P) receives
// log Σ eˣ − x[target] of the logits x = spec(h·headᵀ) of each row, lse (P), unless nil, the
// logarithm alone, and dh (P, C), unless nil, the gradient of each loss in its row of
// h, as far as it comes through the head itself: that through an adapter's terms is
// HeadGradient's. kept (P, V), unless nil, receives the logits, for HeadGradient. Every target must lie
// in [0, V). The result does not depend on how many rows one call has, but for rounding.
func CrossEntropy(loss, lse, dh, kept []float32, h Vec, head *Matrix, spec LogitSpec, targets []int32) {
	const op = "CrossEntropy"
	p, c, vocab := len(targets), head.K, head.N
	head.check(op)
	checkLen(op, "h", h.Len(), p*c)
	checkLen(op, "loss", len(loss), p)
	checkIDs(op, targets, vocab)
	spec.Adapter.check(op, p, vocab)
	if lse != nil {
		checkLen(op, "lse", len(lse), p)
	}
	if dh != nil {
		checkLen(op, "dh", len(dh), p*c)
	}
	if kept != nil {
		checkLen(op, "kept", len(kept), p*vocab)
	}
	t := lossTasks.get()
	t.head, t.spec, t.half, t.grad = head, spec, head.Half, dh != nil
	for lo := 0; lo < p; lo += lossRows {
		hi := min(lo+lossRows, p)
		rows := hi - lo
		t.max, t.score, t.sum = grow(t.max, rows), grow(t.score, rows), grow(t.sum, rows)
		t.targets, t.loss = targets[lo:hi], loss[lo:hi]
		if lse != nil {
			t.lse = lse[lo:hi]
		}
		if dh != nil {
			t.dh = dh[lo*c : hi*c]
		}
		t.last = false
		piece := LossPiece(rows, vocab)
		for v0 := 0; v0 < vocab; v0 += piece {
			t.adapt(lo, hi, v0, min(piece, vocab-v0))
			t.compute(h.Slice(lo*c, hi*c), rows, head, v0, min(piece, vocab-v0), piece, keptRows(kept, lo, hi, vocab))
			t.width = piece
			Parallel(rows, 1, t)
			if dh != nil {
				e, stride := F32Vec(t.scratch), t.width
				if t.half {
					e, stride = Vec{BF16: asBytes(t.scratch)}, 2*stride
				}
				backward(op, F32Vec(t.dh), c, e, stride, rows, &t.piece, spec.scale(), v0 > 0, nil)
			}
		}
		t.last = true
		Parallel(rows, 1, t)
	}
	t.head, t.loss, t.lse, t.dh = nil, nil, nil, nil
	t.forget()
	lossTasks.put(t)
}

// keptRows is rows [lo, hi) of kept logits, nil where none are.
func keptRows(kept []float32, lo, hi, vocab int) []float32 {
	if kept == nil {
		return nil
	}
	return kept[lo*vocab : hi*vocab]
}

// capTask caps a range of values.
type capTask struct {
	x []float32
	c float32
}

var capTasks freeList[capTask]

func (t *capTask) Run(lo, hi int) { vecSoftcap(t.x[lo:hi], t.x[lo:hi], t.c) }

// Logits sets dst (P, V) to the logits spec(h·headᵀ) of hidden rows h (P, C).
func Logits(dst []float32, h Vec, rows int, head *Matrix, spec LogitSpec) {
	if spec.Adapter != nil {
		t := headTasks.get()
		t.spec = spec
		t.adapt(0, rows, 0, head.N)
		forward("Logits", F32Vec(dst), head.N, h, head.K, rows, head, spec.scale(), false, t.adapter.Terms)
		for i := range rows {
			x := dst[i*head.N : (i+1)*head.N]
			if g := spec.Adapter.Gain; g != nil {
				vecMul(x, x, g)
			}
			if b := spec.Adapter.Bias; b != nil {
				vecAxpy(x, b, spec.scale())
			}
		}
		t.forget()
		headTasks.put(t)
	} else {
		forward("Logits", F32Vec(dst), head.N, h, head.K, rows, head, spec.scale(), false, nil)
	}
	if spec.Softcap == 0 {
		return
	}
	t := capTasks.get()
	*t = capTask{dst, spec.Softcap}
	Parallel(len(dst), elemGrain/4, t)
	*t = capTask{}
	capTasks.put(t)
}
