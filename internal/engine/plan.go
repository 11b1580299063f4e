package engine

import (
	"cmp"
	"fmt"
	"slices"

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
	Program     int64 // an estimate of everything else
}

// Parts are the parts by name, in the order in which a plan is read.
func (m Memory) Parts() []Part {
	return []Part{{"weights", m.Weights}, {"adapter", m.Adapter}, {"gradients", m.Gradients}, {"optimizer", m.Optimizer},
		{"activations", m.Activations}, {"logits", m.Logits}, {"scratch", m.Scratch}, {"program", m.Program}}
}

// Part is one part of a plan.
type Part struct {
	Name  string
	Bytes int64
}

// Total is the sum of the parts.
func (m Memory) Total() int64 {
	sum := int64(0)
	for _, p := range m.Parts() {
		sum += p.Bytes
	}
	return sum
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
	// Codec, unless nil, is the number format of a tensor of the checkpoint, for Options.AsStored.
	Codec func(name string) string
	// Ranks is the pairs of the adapter: module → rank, the table and the head among them. Nil with Full.
	Ranks map[string]int
	// Frozen says that each pair on a product inside a block has one beside it that is not trained.
	Frozen  bool
	Dropout bool // the adapter's inputs are dropped with a probability above 0
	// DoRA, Bias, Whole and TieWeights are those of AdapterOptions; Rows is how many rows of a module
	// are trained.
	DoRA, Bias, TieWeights bool
	Whole                  []string
	Rows                   map[string]int
	// Full trains every weight.
	Full bool
	// Lengths are the tokens of each sequence of the largest batch. Every token has a target.
	Lengths []int
	// Held is what the process holds in the heap before the model is loaded: tokenizer and data. 0 is
	// an estimate of a tokenizer and little data.
	Held int64
}

// TrainingLayout is the Options.Layout for training, of every weight or of others.
func TrainingLayout(full bool) kernel.Layout {
	if full {
		return kernel.ByRows
	}
	return kernel.ForBackward
}

// Planner says what a run takes for any number of blocks whose activations are computed again.
type Planner struct {
	kept   Memory // all but the activations and the program
	tape   *autograd.Tape
	tokens int
	held   int64
}

// Blocks returns the largest number of blocks that it helps to compute again.
func (p *Planner) Blocks() int { return p.tape.RematBlocks() }

// KeepLogits says whether the run is one that keeps logits, as SessionOptions has it. It is not at first.
func (p *Planner) KeepLogits(keep bool) { p.tape.KeepLogits(keep) }

// Memory returns what a run takes that computes n blocks again.
func (p *Planner) Memory(n int) Memory {
	p.tape.SetRemat(n)
	out := p.kept
	out.Activations = p.tape.ActivationBytes(p.tokens)
	out.Program = programBytes(out.Total(), p.held)
	return out
}

// Fit returns the smallest number of blocks to compute again with which a run takes no more than
// limit bytes. It reports false where that is too little for all of them.
func (p *Planner) Fit(limit int64) (n int, ok bool) {
	for n = range p.Blocks() + 1 {
		if p.Memory(n).Total() <= limit {
			return n, true
		}
	}
	return n, false
}

// programBytes estimates what a process takes besides the planned parts: pages of the program file and
// of Go's runtime, tokenizer and data, and what the allocator sets aside. Measured peaks of training
// SmolLM2 in every method were from 95 to 99 % of the plans that this makes.
func programBytes(planned, held int64) int64 { return 32e6 + held + planned/100 }

// tokenizerBytes estimates a tokenizer in memory.
func tokenizerBytes(vocab int) int64 { return 300 * int64(vocab) }

// NewPlanner plans a run, loading nothing. It records and lays out the same graph as a Session does.
// It fails with ErrModel and ErrAdapter where Load and NewSession would for the model's shapes.
func NewPlanner(c *model.Config, o MemoryOptions) (*Planner, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, fmt.Errorf("engine: planning memory: %w", err)
	}
	m := &Model{config: c, bf16: o.BF16, params: params, weights: map[string]*autograd.Weight{}}
	var out Memory
	var values int64 // trained
	var products, rounded, kept int64
	tokens := 0
	for _, n := range o.Lengths {
		tokens += n
	}
	for _, p := range params {
		w := &autograd.Weight{Name: p.Name}
		w.Matrix.N, w.Matrix.K = 1, p.Shape[0]
		if len(p.Shape) == 2 {
			w.Matrix.N, w.Matrix.K = p.Shape[0], p.Shape[1]
			rows, n, k := tokens, w.Matrix.N, w.Matrix.K
			if p.Kind != model.KindLinear { // the head, or a table as large
				rows, n = kernel.LossRows(tokens), kernel.LossPiece(tokens, n)
			}
			dense := !o.BF16 && o.held(p) == nil && o.kept(p) == 0
			products = max(products, kernel.ProductScratch(rows, n, k, kernel.Held{Dense: dense, Half: o.BF16}))
			switch held := kernel.KeptScratch(rows, n, k); {
			case !o.BF16:
			case p.Kind == model.KindLinear && held > 0:
				kept = max(kept, held)
			default:
				rounded = max(rounded, kernel.RoundedScratch(rows, n, k))
			}
		}
		m.weights[p.Name] = w
		quant := o.held(p)
		switch {
		case quant != nil:
			out.Weights += packedBytes(p.Elements(), quant)
		case o.kept(p) > 0:
			out.Weights += o.kept(p)
		default:
			out.Weights += kernel.MatrixBytes(w.Matrix.N, w.Matrix.K, o.BF16 && len(p.Shape) == 2, layoutOf(c, p, TrainingLayout(o.Full)))
		}
		if !o.Full {
			continue
		}
		if quant != nil || o.BF16 {
			return nil, fmt.Errorf("engine: planning memory: %w: full training of %q, which is not held in float32", ErrModel, p.Name)
		}
		w.Grad = []float32{} // not nil: it has one
		values += int64(p.Elements())
	}
	if err := m.record(); err != nil {
		return nil, err
	}
	tape := autograd.NewTape(m.graph, autograd.Training)
	trained, beside, err := m.planAdapter(tape, &o)
	if err != nil {
		return nil, err
	}
	values += trained
	if !o.Full {
		out.Adapter = 4*values + beside
	}
	out.Gradients, out.Optimizer = 4*values, 8*values
	out.Logits = kernel.CrossEntropyScratch(tokens, c.Vocab) * int64(1+m.planLogits(&o))
	out.Scratch = products + rounded + kept + kernel.AttentionScratch(kernel.AttentionSpec{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim}, o.Lengths, o.BF16)
	return &Planner{kept: out, tape: tape, tokens: tokens, held: cmp.Or(o.Held, tokenizerBytes(c.Vocab))}, nil
}

// planAdapter puts the adapter of a run on a tape and returns the number of its values, and the bytes
// held beside them.
func (m *Model) planAdapter(tape *autograd.Tape, o *MemoryOptions) (values, beside int64, err error) {
	place := func(module string) (int, error) {
		at, ok := m.places[module]
		if !ok {
			return 0, fmt.Errorf("engine: planning memory: %w: the model has no product %q", ErrAdapter, module)
		}
		return at, nil
	}
	table := m.graph.TablePlace()
	pair := func(at, r int) *autograd.LowRank {
		l := m.modules[at]
		p := &autograd.LowRank{A: kernel.Matrix{N: r, K: l.In}, B: kernel.Matrix{N: l.Out, K: r}, GradA: []float32{}, GradB: []float32{}}
		if o.Dropout && at != table {
			p.Dropout = 0.5 // any value above 0 takes the same memory
		}
		if o.DoRA {
			p.Gain = &autograd.Gain{Grad: []float32{}}
			beside += 12 * int64(l.Out) // lengths, quotients
		}
		list := []*autograd.LowRank{p}
		if o.Frozen && at < len(m.linears) {
			list = append(list, &autograd.LowRank{A: p.A, B: p.B})
			beside += 4 * int64(r) * int64(l.In+l.Out)
		}
		tape.SetAdapters(at, list)
		return p
	}
	for module, r := range o.Ranks {
		at, err := place(module)
		if err != nil {
			return 0, 0, err
		}
		if o.DoRA && o.Dropout && at == m.graph.HeadPlace() {
			return 0, 0, fmt.Errorf("engine: planning memory: %w: %q with DoRA and dropout", ErrAdapter, module)
		}
		pair(at, r)
		l := m.modules[at]
		values += int64(r) * int64(l.In+l.Out)
		if o.DoRA {
			values += int64(l.Out)
		}
		if o.Bias && at != table {
			values += int64(l.Out)
		}
		if at == table && o.DoRA {
			beside += 4 * int64(r) * int64(l.In+l.Out) // transposed, where lengths are computed
		}
	}
	replace := func(name string) *autograd.Weight {
		w := *m.weight(name)
		tape.Replace(m.weight(name), &w)
		return &w
	}
	tied := m.base.Tied && o.TieWeights
	if r := o.Ranks[m.base.Table]; tied && r > 0 && o.Ranks[m.base.Head] == 0 {
		p := pair(m.graph.HeadPlace(), r)
		beside += 8 * int64(r) * int64(p.A.K+p.B.N) // a copy, transposed, and its gradients
	}
	for _, name := range o.Whole {
		shape, ok := m.base.Shape(name)
		if !ok {
			return 0, 0, fmt.Errorf("engine: planning memory: %w: the model has no parameter %q", ErrAdapter, name)
		}
		n := int64(1)
		for _, d := range shape {
			n *= int64(d)
		}
		values += n
		replace(name).Grad = []float32{}
		if tied && name == m.base.Table+".weight" {
			replace(m.base.Head + ".weight").Grad = []float32{}
		}
	}
	for module, n := range o.Rows {
		at, err := place(module)
		if err != nil {
			return 0, 0, err
		}
		values += int64(n) * int64(m.at(at).Matrix.K)
		replace(module + ".weight").Rows = &autograd.Rows{}
		if m.base.Tied && at == table {
			replace(m.base.Head + ".weight").Rows = &autograd.Rows{}
		}
	}
	return values, beside, nil
}

// planLogits is how many times the logits that exist at a time are held besides in backward.
func (m *Model) planLogits(o *MemoryOptions) int {
	head, tied := m.base.Head, m.base.Tied && o.TieWeights
	switch {
	case o.Ranks[head] > 0 && o.DoRA:
		return 2 // those of the product before DoRA, too
	case o.Ranks[head] > 0 || slices.Contains(o.Whole, head+".weight"),
		tied && (o.Ranks[m.base.Table] > 0 || slices.Contains(o.Whole, m.base.Table+".weight")):
		return 1
	}
	return 0
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

// kept is the memory of a parameter that stays as it is stored, 0 where it does not.
func (o *MemoryOptions) kept(p model.Param) int64 {
	if o.Codec == nil || o.Full {
		return 0
	}
	return StoredBytes(o.Codec(p.Name), p.Shape, o.BF16)
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
