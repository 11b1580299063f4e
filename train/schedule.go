package train

import (
	"math"
	"strings"

	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/kernel"
)

// This file is the update: learning rates, clipping and AdamW.

// rate returns the learning rate of a step, counted from 0: transformers' schedules.
func (r *Recipe) rate(step, total int) float64 {
	if step < r.WarmupSteps {
		return r.LearningRate * float64(step) / float64(max(1, r.WarmupSteps))
	}
	done := float64(step-r.WarmupSteps) / float64(max(1, total-r.WarmupSteps))
	switch r.LRScheduler {
	case "linear":
		return r.LearningRate * max(0, 1-done)
	case "cosine":
		return r.LearningRate * max(0, 0.5*(1+math.Cos(math.Pi*done)))
	}
	return r.LearningRate
}

// optimizer is AdamW (Loshchilov and Hutter 2019) over everything a session trains.
type optimizer struct {
	params []engine.Param
	m, v   [][]float32 // first and second moments, as long as the parameters
}

func newOptimizer(params []engine.Param) *optimizer {
	o := &optimizer{params: params}
	for _, p := range params {
		o.m = append(o.m, make([]float32, len(p.Value)))
		o.v = append(o.v, make([]float32, len(p.Value)))
	}
	return o
}

// values is how many numbers are trained.
func (o *optimizer) values() (n int) {
	for _, p := range o.params {
		n += len(p.Value)
	}
	return n
}

// norm is the L2 norm of all gradients together.
func (o *optimizer) norm() float64 {
	sum := 0.0
	for _, p := range o.params {
		sum += kernel.SumSquares(p.Grad)
	}
	return math.Sqrt(sum)
}

// clip scales the gradients, whose norm is given, down to the largest norm, as torch's
// clip_grad_norm_ does.
func (o *optimizer) clip(norm, largest float64) {
	factor := largest / (norm + 1e-6)
	if largest == 0 || factor >= 1 {
		return
	}
	for _, p := range o.params {
		kernel.Scale(p.Grad, p.Grad, float32(factor))
	}
}

// update applies one step, counted from 1, with rate as the schedule has it then. Biases and the gains of
// norms do not decay: transformers' Trainer leaves them out by their names.
func (o *optimizer) update(r *Recipe, rate rates, step int) {
	for i, p := range o.params {
		decay := r.WeightDecay
		if len(p.Shape) == 1 && !strings.HasSuffix(p.Name, ".lora_magnitude_vector") {
			decay = 0
		}
		kernel.AdamW(p.Value, p.Grad, o.m[i], o.v[i], rate.of(&p), r.AdamBeta1, r.AdamBeta2, r.AdamEpsilon, decay, step)
	}
}

// rates are the learning rates of a step.
type rates struct {
	a, b, table float64 // of all but what follows, of B and of vectors, of pairs on the table
}

// rates returns the learning rates of a step: with LoRA+ the groups of PEFT's create_loraplus_optimizer.
func (r *Recipe) rates(step, total int) rates {
	a := r.rate(step, total)
	if r.LoraplusLRRatio == 0 {
		return rates{a, a, a}
	}
	table := *r
	table.LearningRate = r.LoraplusLREmbedding
	return rates{a, a * r.LoraplusLRRatio, table.rate(step, total)}
}

func (r *rates) of(p *engine.Param) float64 {
	switch {
	case strings.Contains(p.Name, ".lora_embedding_"):
		return r.table
	case strings.Contains(p.Name, ".lora_B.") || len(p.Shape) == 1:
		return r.b
	}
	return r.a
}
