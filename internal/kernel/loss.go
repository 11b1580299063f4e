package kernel

import "math"

// This file holds the output head fused with cross-entropy: the logits of a
// few rows at a time live in a scratch and turn into their own gradient there,
// so the (rows, vocabulary) matrix never exists.

// lossRows is the number of rows whose logits exist at once: enough for the
// products to run at full speed, 25 MB for a vocabulary of 49152.
const lossRows = 128

// LossSpec holds the options of the fused head.
type LossSpec struct {
	// GradScale multiplies every gradient: 1/tokens for a mean.
	GradScale float32
}

type lossTask struct {
	spec    LossSpec
	logits  []float32 // (lossRows, vocab)
	vocab   int
	loss    []float32 // of the rows of this chunk, like the next two
	targets []int32
	weight  []float32
	grad    bool
}

var lossTasks freeList[lossTask]

// Run takes rows lo to hi from logits to losses, and to the gradient of the
// logits in place when grad.
func (t *lossTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		x, target := t.logits[i*t.vocab:(i+1)*t.vocab], t.targets[i]
		score := float64(x[target])
		if !t.grad {
			t.loss[i] = float32(LogSumExp(x) - score)
			continue
		}
		m, sum := vecMax(x), 0.0
		for j := 0; j < len(x); j += expBlock {
			part := x[j:min(j+expBlock, len(x))]
			sum += float64(vecExpSum(part, part, m))
		}
		if t.loss != nil {
			t.loss[i] = float32(float64(m) + math.Log(sum) - score)
		}
		coef := t.spec.GradScale
		if t.weight != nil {
			coef *= t.weight[i]
		}
		vecScale(x, x, float32(float64(coef)/sum))
		x[target] -= coef
	}
}

// CrossEntropy computes, for hidden rows h (P, C) and the output head (V, C),
// the negative log-likelihood in nats of targets (P): loss (P) receives
// log Σ eˣ − x[target] of the logits x = h·headᵀ of each row, without weight.
//
// With dh (P, C) it also sets the gradient of GradScale·Σ weightᵢ·lossᵢ with
// respect to h; with dhead (V, C) it adds that with respect to the head. Both
// may be nil; weight (P) may be nil, for ones. Every target must lie in [0, V).
// The result does not depend on how many rows one call has, but for rounding.
//
// Where the coefficient of a row is known only once all losses are (DPO), call
// it without dh first, then CrossEntropyBackward.
func CrossEntropy(loss, dh, dhead, h []float32, head *Matrix, targets []int32, weight []float32, spec LossSpec) {
	checkLen("CrossEntropy", "loss", len(loss), len(targets))
	crossEntropy("CrossEntropy", loss, dh, dhead, h, head, targets, weight, spec)
}

// CrossEntropyBackward computes the gradients of Σ coefᵢ·lossᵢ with respect to
// h, dh (P, C), and to the head, dhead (V, C), which is added to; see
// CrossEntropy. Either may be nil. The logits are computed again.
func CrossEntropyBackward(dh, dhead, h []float32, head *Matrix, targets []int32, coef []float32) {
	checkLen("CrossEntropyBackward", "coef", len(coef), len(targets))
	crossEntropy("CrossEntropyBackward", nil, dh, dhead, h, head, targets, coef, LossSpec{GradScale: 1})
}

func crossEntropy(op string, loss, dh, dhead, h []float32, head *Matrix, targets []int32, weight []float32, spec LossSpec) {
	p, c, vocab := len(targets), head.K, head.N
	head.check(op)
	checkLen(op, "h", len(h), p*c)
	checkIDs(op, targets, vocab)
	if dh != nil {
		checkLen(op, "dh", len(dh), p*c)
	}
	if dhead != nil {
		checkLen(op, "dhead", len(dhead), vocab*c)
	}
	if weight != nil {
		checkLen(op, "weight", len(weight), p)
	}
	t := lossTasks.get()
	t.logits = grow(t.logits, min(p, lossRows)*vocab)
	t.spec, t.vocab, t.grad = spec, vocab, dh != nil || dhead != nil
	for lo := 0; lo < p; lo += lossRows {
		hi := min(lo+lossRows, p)
		t.targets = targets[lo:hi]
		if loss != nil {
			t.loss = loss[lo:hi]
		}
		if weight != nil {
			t.weight = weight[lo:hi]
		}
		rows := h[lo*c : hi*c]
		MulT(t.logits, vocab, rows, c, hi-lo, head, false)
		Parallel(hi-lo, 1, t)
		if dh != nil {
			Mul(dh[lo*c:hi*c], c, t.logits, vocab, hi-lo, head, false)
		}
		if dhead != nil {
			MulTN(dhead, c, t.logits, vocab, rows, c, hi-lo, vocab, c, 1, true)
		}
	}
	t.loss, t.targets, t.weight = nil, nil, nil
	lossTasks.put(t)
}
