package engine

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/kernel"
)

// This file makes adapters to train.

// AdapterOptions says what a new adapter holds.
type AdapterOptions struct {
	Modules []ModuleOptions // what gets a pair: products, the embedding table, the head
	// DoRA gives every pair the lengths of the weight's rows, as the model holds them, to be trained.
	DoRA bool
	// Bias gives every pair but the table's a bias of zeros (PEFT's lora_bias).
	Bias bool
	// Whole lists parameters by their full names of which the adapter gets copies that are trained as a
	// whole: "lm_head.weight", "model.norm.weight".
	Whole []string
	// Rows lists rows of the table, and of a head of its own, by module, of which it gets copies.
	Rows map[string][]int
	// TieWeights is that of [adapters.Config].
	TieWeights bool
	// Init is PEFT's init_lora_weights; "" is "true". See CheckInit.
	Init string
	// Seed decides random values, together with the module's name.
	Seed uint64
}

// ModuleOptions is one module of a new adapter.
type ModuleOptions struct {
	Module string
	R      int     // rank
	Scale  float64 // alpha/R, or alpha/√R
}

// NewAdapter makes an adapter of rank r for the given modules as PEFT initialises one: A uniform in
// ±1/√in (Kaiming with a = √5), B zero, so that it changes nothing before it is trained. The values
// of A depend on the seed and the module alone. It fails with ErrAdapter on a module the model does
// not have.
func (m *Model) NewAdapter(modules []string, r int, scale float64, seed uint64) (*adapters.Adapter, error) {
	o := AdapterOptions{Seed: seed}
	for _, module := range modules {
		o.Modules = append(o.Modules, ModuleOptions{module, r, scale})
	}
	a, err := m.MakeAdapter(o)
	if err != nil {
		return nil, err
	}
	a.Config.R, a.Config.Alpha = r, scale*float64(r)
	return a, nil
}

// MakeAdapter is NewAdapter of all that an adapter can hold. On a table it is B that is random, normal,
// and A that is zero. The configuration has the rank and scale of the first module.
func (m *Model) MakeAdapter(o AdapterOptions) (*adapters.Adapter, error) {
	a := &adapters.Adapter{Config: adapters.Config{TaskType: "CAUSAL_LM", TieWeights: o.TieWeights}}
	for i, module := range o.Modules {
		if i == 0 {
			a.Config.R, a.Config.Alpha = module.R, module.Scale*float64(module.R)
		}
		p, err := m.newPair(module, o)
		if err != nil {
			return nil, fmt.Errorf("engine: making an adapter: %w: %w", ErrAdapter, err)
		}
		a.Pairs = append(a.Pairs, *p)
		a.Config.TargetModules = append(a.Config.TargetModules, module.Module)
	}
	adapters.SortPairs(a.Pairs)
	for _, name := range slices.Sorted(slices.Values(o.Whole)) {
		shape, ok := m.base.Shape(name)
		if !ok {
			return nil, fmt.Errorf("engine: making an adapter: %w: the model has no parameter %q", ErrAdapter, name)
		}
		w := &m.weight(name).Matrix
		t := adapters.Tensor{Name: name, Shape: slices.Clone(shape), Data: make([]float32, w.N*w.K)}
		readExact(w, t.Data, 0, w.N)
		a.Whole = append(a.Whole, t)
	}
	for _, module := range []string{m.base.Table, m.base.Head} {
		rows := o.Rows[module]
		if len(rows) == 0 {
			continue
		}
		w := &m.weight(module + ".weight").Matrix
		t := adapters.TokenRows{Module: module, Indices: slices.Clone(rows), Width: w.K, Data: make([]float32, len(rows)*w.K)}
		for i, row := range rows {
			if row < 0 || row >= w.N {
				return nil, fmt.Errorf("engine: making an adapter: %w: row %d of %q, which has %d", ErrAdapter, row, module, w.N)
			}
			readExact(w, t.Data[i*w.K:(i+1)*w.K], row, row+1)
		}
		a.Rows = append(a.Rows, t)
	}
	if len(o.Rows) > len(a.Rows) {
		return nil, fmt.Errorf("engine: making an adapter: %w: rows of other modules than %q and %q, or none of them", ErrAdapter, m.base.Table, m.base.Head)
	}
	if _, err := a.Resolve(m.base); err != nil {
		return nil, fmt.Errorf("engine: making an adapter: %w: %w", ErrAdapter, err)
	}
	return a, nil
}

// newPair makes the pair of one module.
func (m *Model) newPair(o ModuleOptions, all AdapterOptions) (*adapters.Pair, error) {
	place, ok := m.places[o.Module]
	if !ok {
		return nil, fmt.Errorf("the model has no product %q", o.Module)
	}
	l, r := m.modules[place], o.R
	if r < 1 || r > max(l.In, l.Out) {
		return nil, fmt.Errorf("rank %d for %q, which is (%d, %d)", r, o.Module, l.Out, l.In)
	}
	p := &adapters.Pair{Module: o.Module, Table: place == m.graph.TablePlace(), R: r, In: l.In, Out: l.Out, Scale: o.Scale,
		A: make([]float32, r*l.In), B: make([]float32, l.Out*r)}
	if all.Bias && !p.Table {
		p.Bias = make([]float32, l.Out)
	}
	if err := m.fill(p, place, all); err != nil || !all.DoRA {
		return p, err
	}
	p.Magnitude = make([]float32, l.Out)
	norms := kernel.RowNorms
	if p.Table {
		norms = kernel.ColumnNorms
	}
	if all.Init == "false" {
		norms(p.Magnitude, &m.at(place).Matrix, p.A, p.B, r, float32(o.Scale))
	} else { // the pair changes nothing yet
		norms(p.Magnitude, &m.at(place).Matrix, nil, nil, 0, 0)
	}
	return p, nil
}

// readExact reads rows [lo, hi) as they are held, whatever products round them to.
func readExact(w *kernel.Matrix, dst []float32, lo, hi int) {
	exact := *w
	exact.Half = false
	exact.Read(dst, lo, hi)
}
