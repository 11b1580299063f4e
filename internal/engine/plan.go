package engine

import (
	"cmp"
	"fmt"

	"github.com/graftml/graft/internal/autograd"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// This file says what a training run will hold in memory, from the shapes of a model alone.

// Memory is what a training run holds at its peak, in bytes.
type Memory struct {
	Weights     int64 // of the model: float32, or codes and scales of 4 bits
	Adapter     int64 // the values of its pairs
	Gradients   int64 // of what is trained
	Optimizer   int64 // AdamW's two moments
	Activations int64 // the arena of a Session
	Logits      int64 // those that exist at a time
	Scratch     int64 // of attention and of products
}

// Total is the sum of the parts.
func (m Memory) Total() int64 {
	return m.Weights + m.Adapter + m.Gradients + m.Optimizer + m.Activations + m.Logits + m.Scratch
}

// MemoryOptions says what a run does, as far as its memory depends on it.
type MemoryOptions struct {
	// Quant is that of Options.
	Quant *quantize.Options4
	// BF16 computes products with frozen weights on bfloat16 operands, and holds matrices that are
	// not in 4 bits in bfloat16.
	BF16 bool
	// Stored, unless nil, says how the checkpoint holds a tensor in 4 bits; nil where it does not.
	Stored func(name string) *quantize.Options4
	// Ranks is the adapter: module → rank. Nil with Full.
	Ranks   map[string]int
	Dropout bool // the adapter's inputs are dropped with a probability above 0
	// Full trains every weight.
	Full bool
	// Lengths are the tokens of each sequence of the largest batch. Every token has a target.
	Lengths []int
}

// PlanMemory computes what training takes, loading nothing. It records and lays out the same graph
// as a Session does. It fails with ErrModel and ErrAdapter where Load and NewSession would for the
// model's shapes.
func PlanMemory(c *model.Config, o MemoryOptions) (Memory, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return Memory{}, fmt.Errorf("engine: planning memory: %w", err)
	}
	m := &Model{config: c, params: params, weights: map[string]*autograd.Weight{}}
	var out Memory
	var values int64 // trained
	var products, rounded int64
	tokens := 0
	for _, n := range o.Lengths {
		tokens += n
	}
	for _, p := range params {
		w := &autograd.Weight{Name: p.Name}
		w.Matrix.N, w.Matrix.K = 1, p.Shape[0]
		if len(p.Shape) == 2 {
			w.Matrix.N, w.Matrix.K = p.Shape[0], p.Shape[1]
			products = max(products, kernel.ProductScratch(w.Matrix.N, w.Matrix.K))
			if o.BF16 && p.Kind == model.KindLinear {
				rounded = max(rounded, kernel.RoundedScratch(tokens, w.Matrix.N, w.Matrix.K))
			}
		}
		m.weights[p.Name] = w
		quant := o.held(p)
		switch {
		case quant != nil:
			out.Weights += packedBytes(p.Elements(), quant)
		case o.BF16 && len(p.Shape) == 2:
			out.Weights += 2 * int64(p.Elements())
		default:
			out.Weights += 4 * int64(p.Elements())
		}
		if !o.Full {
			continue
		}
		if quant != nil || o.BF16 {
			return Memory{}, fmt.Errorf("engine: planning memory: %w: full training of %q, which is not held in float32", ErrModel, p.Name)
		}
		w.Grad = []float32{} // not nil: it has one
		values += int64(p.Elements())
	}
	if err := m.record(); err != nil {
		return Memory{}, err
	}
	tape := autograd.NewTape(m.graph, true)
	for module, r := range o.Ranks {
		place, ok := m.places[module]
		if !ok {
			return Memory{}, fmt.Errorf("engine: planning memory: %w: the model has no product %q", ErrAdapter, module)
		}
		l := m.linears[place]
		pair := &autograd.LowRank{A: kernel.Matrix{N: r, K: l.In}, B: kernel.Matrix{N: l.Out, K: r}, GradA: []float32{}, GradB: []float32{}}
		if o.Dropout {
			pair.Dropout = 0.5 // any value above 0 takes the same memory
		}
		tape.SetAdapters(place, []*autograd.LowRank{pair})
		values += int64(r) * int64(l.In+l.Out)
	}
	if !o.Full {
		out.Adapter = 4 * values
	}
	out.Gradients, out.Optimizer = 4*values, 8*values
	out.Activations = tape.ActivationBytes(tokens)
	out.Logits = kernel.CrossEntropyScratch(tokens, c.Vocab)
	out.Scratch = products + rounded + kernel.AttentionScratch(kernel.AttentionSpec{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim}, o.Lengths)
	return out, nil
}

// held says how a parameter is held in 4 bits, nil where it is dense.
func (o *MemoryOptions) held(p model.Param) *quantize.Options4 {
	if o.Stored != nil {
		if q := o.Stored(p.Name); q != nil {
			return q
		}
	}
	if p.Kind == model.KindLinear {
		return o.Quant
	}
	return nil
}

// packedBytes is the memory of n values in 4 bits: quantize.Tensor4's codes and scales.
func packedBytes(n int, q *quantize.Options4) int64 {
	ceil := func(a, b int) int { return (a + b - 1) / b }
	blocks := ceil(n, cmp.Or(q.BlockSize, 64))
	codes := int64(ceil(n, 2))
	if !q.Double {
		return codes + 4*int64(blocks)
	}
	return codes + int64(blocks) + 4*int64(ceil(blocks, cmp.Or(q.NestedBlockSize, 256)))
}
