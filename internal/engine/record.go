package engine

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/internal/autograd"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
)

// recorder is the interpreter that records a graph: values are those of package autograd.
type recorder struct {
	graph   *autograd.Graph
	weights map[string]*autograd.Weight
	angles  map[*model.RopeTable]*autograd.Angles
	linears []model.Linear
	table   model.Linear
	head    model.Linear
	output  *autograd.Weight // of the head
	err     error            // the first operation that cannot be recorded
}

// record runs the architecture's definition, once in the life of a model.
func (m *Model) record() error {
	r := recorder{graph: &autograd.Graph{}, weights: m.weights, angles: map[*model.RopeTable]*autograd.Angles{}}
	if m.bf16 {
		r.graph.Half()
	}
	if _, err := model.Forward(m.config, &r, 0); err != nil {
		return fmt.Errorf("engine: recording model: %w", err)
	}
	if r.err != nil {
		return r.err
	}
	m.graph, m.linears, m.places, m.output = r.graph, r.linears, map[string]int{}, r.output
	m.modules = append(slices.Clone(r.linears), r.table, r.head)
	for i, l := range m.modules {
		m.places[l.Module] = i
	}
	base, err := checkpoint.Base(m.config)
	if err != nil {
		return fmt.Errorf("engine: recording model: %w", err)
	}
	m.base = base
	return nil
}

func (r *recorder) Embed(p model.Linear, _ autograd.Var) autograd.Var {
	r.table = p
	return r.graph.Embed(r.weights[p.Weight()])
}

func (r *recorder) Block(_ int, x autograd.Var) autograd.Var {
	r.graph.Block(x)
	return x
}

func (r *recorder) bias(p model.Linear) *autograd.Weight {
	if !p.Bias {
		return nil
	}
	return r.weights[p.Module+".bias"]
}

func (r *recorder) Linear(p model.Linear, x autograd.Var) autograd.Var {
	r.linears = append(r.linears, p)
	return r.graph.Linear(r.weights[p.Weight()], r.bias(p), x)
}

func (r *recorder) RMSNorm(p model.Norm, x autograd.Var) autograd.Var {
	offset := float32(0)
	if p.Offset {
		offset = 1
	}
	return r.graph.RMSNorm(r.weights[p.Weight()], float32(p.Eps), offset, x)
}

func (r *recorder) Rope(p model.Rope, x autograd.Var) autograd.Var {
	a := r.angles[p.Table]
	if a == nil {
		original := 0
		if p.Table.Long != nil {
			original = p.Table.Original
		}
		a = autograd.NewAngles(len(p.Table.InvFreq), original, p.Table.CosSin)
		r.angles[p.Table] = a
	}
	return r.graph.Rope(p.Heads, p.HeadDim, a, x)
}

func (r *recorder) Attention(p model.Attention, q, k, v autograd.Var) autograd.Var {
	return r.graph.Attention(kernel.AttentionSpec{
		Heads: p.Heads, KVHeads: p.KVHeads, HeadDim: p.HeadDim, Scale: float32(p.Scale), Window: p.Window, Softcap: float32(p.Softcap),
	}, q, k, v)
}

func (r *recorder) Gated(act model.Activation, gate, up autograd.Var) autograd.Var {
	switch act {
	case model.SiLU:
		return r.graph.Gated(kernel.SiLU, gate, up)
	case model.GELUTanh:
		return r.graph.Gated(kernel.GELUTanh, gate, up)
	}
	if r.err == nil {
		r.err = fmt.Errorf("engine: recording model: activation %q: %w", act, model.ErrUnsupported)
	}
	return up
}

func (r *recorder) Scale(by float64, x autograd.Var) autograd.Var {
	return r.graph.Scale(float32(by), x)
}

func (r *recorder) Split(x autograd.Var, widths ...int) []autograd.Var {
	return r.graph.Split(x, widths...)
}

func (r *recorder) Add(a, b autograd.Var) autograd.Var { return r.graph.Add(a, b) }

func (r *recorder) Head(p model.Head, x autograd.Var) autograd.Var {
	if p.Bias && r.err == nil {
		r.err = fmt.Errorf("engine: recording model: a head with a bias: %w", model.ErrUnsupported)
	}
	r.head, r.output = p.Linear, r.weights[p.Weight()]
	if p.Tied != "" { // a weight of its own that adapters can replace, in the table's memory
		own := *r.output
		own.Name = p.Module + ".weight"
		r.output = &own
	}
	r.graph.Head(r.output, kernel.LogitSpec{Scale: float32(p.Scale), Softcap: float32(p.Softcap)}, x)
	return x
}
