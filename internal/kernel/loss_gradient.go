package kernel

// This file holds the gradient of the loss in the head.

// headTask turns logits into their gradient, coef·(softmax − one at the target).
type headTask struct {
	logits
	kept      bool // the logits are there, capped
	lse, coef []float32

	phase headPhase
	sums  []float32 // (n)
	rows  int       // that they are over
}

var headTasks freeList[headTask]

func (t *headTask) Run(lo, hi int) {
	if t.phase != logitGradients {
		t.adapted(lo, hi)
		return
	}
	for i := lo; i < hi; i++ {
		if !t.kept {
			t.shape(i)
		}
		x := t.row(i)
		target, here := t.target(i)
		if t.spec.Softcap != 0 {
			t.capped(x, i, target, here)
			continue
		}
		vecExpSum(x, x, t.lse[i])
		vecScale(x, x, t.coef[i])
		if here {
			x[target] -= t.coef[i]
		}
	}
}

// capped does so for logits that have been capped, a block at a time.
func (t *headTask) capped(x []float32, i, target int, here bool) {
	var block [expBlock]float32
	for j := 0; j < len(x); j += expBlock {
		part := x[j:min(j+expBlock, len(x))]
		g := block[:len(part)]
		vecExpSum(g, part, t.lse[i])
		vecScale(g, g, t.coef[i])
		if k := target - j; here && k >= 0 && k < len(part) {
			g[k] -= t.coef[i]
		}
		vecSoftcapBack(g, part, t.spec.Softcap, 0)
		copy(part, g)
	}
}

// HeadGradient adds the gradient of Σ coefᵢ·lossᵢ in the head, (V, C), to dhead, unless that is nil,
// and those in an adapter to what it says: h, spec, targets and lse are those of CrossEntropy. A target
// of −1 is none of these words. The logits are computed again, unless kept has them, which is used up
// and may not stand with a gain. The bits are the same.
func HeadGradient(dhead, kept []float32, h Vec, head *Matrix, spec LogitSpec, targets []int32, lse, coef []float32) {
	const op = "HeadGradient"
	p, c, vocab := len(targets), head.K, head.N
	head.check(op)
	if dhead != nil {
		checkLen(op, "dhead", len(dhead), vocab*c)
	}
	checkLen(op, "h", h.Len(), p*c)
	checkLen(op, "lse", len(lse), p)
	checkLen(op, "coef", len(coef), p)
	if kept != nil {
		checkLen(op, "kept", len(kept), p*vocab)
	}
	spec.Adapter.check(op, p, vocab)
	t := headTasks.get()
	t.spec, t.kept = spec, kept != nil
	t.keep = spec.Adapter != nil && spec.Adapter.GradGain != nil
	for lo := 0; lo < p; lo += lossRows {
		hi := min(lo+lossRows, p)
		t.targets, t.lse, t.coef = targets[lo:hi], lse[lo:hi], coef[lo:hi]
		rows, piece := h.Slice(lo*c, hi*c), LossPiece(hi-lo, vocab)
		for v0 := 0; v0 < vocab; v0 += piece {
			n := min(piece, vocab-v0)
			t.adapt(lo, hi, v0, n)
			if t.kept {
				t.x, t.stride, t.v0, t.n = kept[lo*vocab+v0:hi*vocab], vocab, v0, n
			} else {
				t.compute(rows, hi-lo, head, v0, n, piece, nil)
			}
			Parallel(hi-lo, 1, t)
			if spec.Adapter != nil {
				t.adapterGradients(spec.Adapter, lo, hi)
			}
			if dhead != nil {
				WeightGradient(dhead[v0*c:(v0+n)*c], c, F32Vec(t.x), t.stride, rows, c, hi-lo, n, c, spec.scale(), true)
			}
		}
	}
	t.lse, t.coef, t.keep = nil, nil, false
	t.forget()
	headTasks.put(t)
}
