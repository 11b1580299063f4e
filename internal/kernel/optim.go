package kernel

import "math"

// This file holds the optimizer updates.

// adamWScalars are the scalars of one step, rounded to float32 as PyTorch
// rounds them; the assembly reads them in this order.
type adamWScalars struct {
	decay         float32 // 1 − lr·weightDecay
	oneMinusBeta1 float32
	beta2         float32
	oneMinusBeta2 float32
	bias2         float32 // √(1 − β₂ᵗ)
	eps           float32
	step          float32 // −lr / (1 − β₁ᵗ)
}

type adamWTask struct {
	p, g, m, v []float32
	k          adamWScalars
}

var adamWTasks freeList[adamWTask]

func (t *adamWTask) Run(lo, hi int) {
	adamW(t.p[lo:hi], t.g[lo:hi], t.m[lo:hi], t.v[lo:hi], &t.k)
}

// AdamW updates the parameters p from their gradients g as torch.optim.AdamW
// does in float32, with the first and second moments m and v (zero before step
// 1); all have the same length. step counts from 1. The arithmetic is torch's,
// operation by operation: p·(1 − lr·weightDecay); m lerped by 1 − beta1;
// v·beta2 + (1 − beta2)·g²; p − lr/(1 − beta1ᵗ) · m / (√v/√(1 − beta2ᵗ) + eps).
func AdamW(p, g, m, v []float32, lr, beta1, beta2, eps, weightDecay float64, step int) {
	checkLen("AdamW", "g", len(g), len(p))
	checkLen("AdamW", "m", len(m), len(p))
	checkLen("AdamW", "v", len(v), len(p))
	t := adamWTasks.get()
	t.p, t.g, t.m, t.v = p, g, m, v
	t.k = adamWScalars{
		decay:         float32(1 - lr*weightDecay),
		oneMinusBeta1: float32(1 - beta1),
		beta2:         float32(beta2),
		oneMinusBeta2: float32(1 - beta2),
		bias2:         float32(math.Sqrt(1 - math.Pow(beta2, float64(step)))),
		eps:           float32(eps),
		step:          float32(-(lr / (1 - math.Pow(beta1, float64(step))))),
	}
	Parallel(len(p), elemGrain/4, t)
	*t = adamWTask{}
	adamWTasks.put(t)
}
