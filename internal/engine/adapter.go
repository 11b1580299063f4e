package engine

import (
	"fmt"
	"maps"
	"slices"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/autograd"
	"github.com/graftml/graft/internal/kernel"
)

// This file puts adapters where they act.

// placed is an adapter, or several together, at the places of a model's graph.
type placed struct {
	pairs [][]*autograd.LowRank // by place
	whole map[*autograd.Weight]*adapters.Tensor
	rows  map[*autograd.Weight]*adapters.TokenRows
	// weights replace the graph's: what whole and rows make of them.
	weights map[*autograd.Weight]*autograd.Weight
}

// AddAdapter makes an adapter available to states under a name, in place of one that has it. States
// that use the old one keep it until they choose again. The model shares the adapter's values,
// which must not change while it is held. It fails with ErrAdapter where the adapter does not fit.
func (m *Model) AddAdapter(name string, a *adapters.Adapter) error {
	p, err := m.place(a)
	if err != nil {
		return err
	}
	p.replace(m)
	m.normalize(p)
	m.lock.Lock()
	defer m.lock.Unlock()
	m.adapters[name] = p
	return nil
}

// RemoveAdapter takes an adapter away. States that use it keep it until they choose again.
func (m *Model) RemoveAdapter(name string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.adapters[name] == nil {
		return m.unknown(name)
	}
	delete(m.adapters, name)
	return nil
}

// Adapters lists the names of the adapters held, sorted.
func (m *Model) Adapters() []string {
	m.lock.RLock()
	defer m.lock.RUnlock()
	return slices.Sorted(maps.Keys(m.adapters))
}

func (m *Model) unknown(name string) error {
	return fmt.Errorf("engine: adapter %q: %w: the model holds %q", name, ErrAdapter, slices.Sorted(maps.Keys(m.adapters)))
}

// weight is a parameter of the graph by its full name.
func (m *Model) weight(name string) *autograd.Weight {
	if name == m.modules[m.graph.HeadPlace()].Module+".weight" {
		return m.output
	}
	return m.weights[name]
}

// at is the weight that pairs at a place change.
func (m *Model) at(place int) *autograd.Weight {
	return m.weight(m.modules[place].Module + ".weight")
}

// place finds the place of everything an adapter changes.
func (m *Model) place(a *adapters.Adapter) (*placed, error) {
	r, err := a.Resolve(m.base)
	if err != nil {
		return nil, fmt.Errorf("engine: adapter %q: %w: %w", a.Name, ErrAdapter, err)
	}
	out := &placed{pairs: make([][]*autograd.LowRank, len(m.modules)),
		whole: map[*autograd.Weight]*adapters.Tensor{}, rows: map[*autograd.Weight]*adapters.TokenRows{}}
	for i := range r.Pairs {
		p := &r.Pairs[i]
		if p.Bias != nil && (p.Magnitude != nil || p.Table) {
			return nil, fmt.Errorf("engine: adapter %q: %w: %q has a bias on B (lora_bias) together with DoRA or on a table, which PEFT does not have either", a.Name, ErrAdapter, p.Module)
		}
		place := m.places[p.Module]
		l := &autograd.LowRank{
			A:     kernel.Matrix{N: p.R, K: p.In, F32: p.A, Half: m.bf16},
			B:     kernel.Matrix{N: p.Out, K: p.R, F32: p.B, Half: m.bf16},
			Bias:  p.Bias,
			Scale: float32(p.Scale),
		}
		if p.Magnitude != nil {
			l.Gain = &autograd.Gain{Magnitude: p.Magnitude}
		}
		out.pairs[place] = append(out.pairs[place], l)
	}
	for i := range r.Whole {
		out.whole[m.weight(r.Whole[i].Name)] = &r.Whole[i]
	}
	for i := range r.Rows {
		out.rows[m.weight(r.Rows[i].Module+".weight")] = &r.Rows[i]
	}
	return out, nil
}

// replace makes the weights that stand for the graph's.
func (p *placed) replace(m *Model) {
	p.weights = map[*autograd.Weight]*autograd.Weight{}
	for old, t := range p.whole {
		w := *old
		w.Matrix = kernel.Matrix{N: old.Matrix.N, K: old.Matrix.K, F32: t.Data, Half: m.bf16 && old.Matrix.N > 1}
		p.weights[old] = &w
	}
	for old, r := range p.rows {
		w := *old
		if by := p.weights[old]; by != nil {
			w = *by
		}
		w.Matrix = overlay(w.Matrix, r)
		p.weights[old] = &w
	}
}

// overlay is a matrix with some rows in place of its own, which are read when it is.
func overlay(w kernel.Matrix, r *adapters.TokenRows) kernel.Matrix {
	at := make(map[int]int, len(r.Indices)) // row → row of r
	for i, row := range r.Indices {
		at[row] = i
	}
	sorted := slices.Sorted(slices.Values(r.Indices))
	return kernel.Matrix{N: w.N, K: w.K, Half: w.Half, Decode: func(dst []float32, lo, hi int) {
		readExact(&w, dst, lo, hi)
		first, _ := slices.BinarySearch(sorted, lo)
		for _, row := range sorted[first:] {
			if row >= hi {
				break
			}
			copy(dst[(row-lo)*w.K:(row-lo+1)*w.K], r.Data[at[row]*w.K:])
		}
	}}
}

// current is the weight at a place with what replaces it.
func (m *Model) current(p *placed, place int) *autograd.Weight {
	w := m.at(place)
	if by := p.weights[w]; by != nil {
		return by
	}
	return w
}

// normalize makes the gains of DoRA what the weights make them.
func (m *Model) normalize(p *placed) {
	for place, list := range p.pairs {
		for _, l := range list {
			if l.Gain != nil {
				l.Normalize(&m.current(p, place).Matrix, place == m.graph.TablePlace())
			}
		}
	}
}

// use makes adapters the ones of a tape.
func (p *placed) use(t *autograd.Tape) {
	t.Restore()
	for old, by := range p.weights {
		t.Replace(old, by)
	}
	for place, list := range p.pairs {
		t.SetAdapters(place, list)
	}
}

// choose is the adapters of uses together, of each list of uses.
func (m *Model) choose(lists ...[]Use) ([]*placed, error) {
	held, err := m.held(lists)
	if err != nil {
		return nil, err
	}
	out := make([]*placed, len(lists))
	for i, uses := range lists {
		if out[i], err = m.together(held[i], uses); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// held are the adapters of lists of uses, all of one moment.
func (m *Model) held(lists [][]Use) ([][]*placed, error) {
	m.lock.RLock()
	defer m.lock.RUnlock()
	out := make([][]*placed, len(lists))
	for i, uses := range lists {
		for _, u := range uses {
			p := m.adapters[u.Name]
			if p == nil {
				return nil, m.unknown(u.Name)
			}
			out[i] = append(out[i], p)
		}
	}
	return out, nil
}

// together is several adapters as one.
func (m *Model) together(held []*placed, uses []Use) (*placed, error) {
	if len(uses) == 1 && (uses[0].Scale == 0 || uses[0].Scale == 1) {
		return held[0], nil
	}
	out := &placed{pairs: make([][]*autograd.LowRank, len(m.modules)),
		whole: map[*autograd.Weight]*adapters.Tensor{}, rows: map[*autograd.Weight]*adapters.TokenRows{}}
	for i, p := range held {
		if err := out.add(p, uses[i]); err != nil {
			return nil, err
		}
	}
	out.replace(m)
	m.normalize(out)
	return out, out.join(m)
}

// choices are those that the sequences of a batch name, one for those that name the same.
func (m *Model) choices(lists [][]Use) ([]*autograd.Choice, error) {
	seen := map[string]int{} // list → number of those that differ
	index := make([]int, len(lists))
	var distinct [][]Use
	for i, uses := range lists {
		key := fmt.Sprintf("%#v", uses)
		if _, ok := seen[key]; !ok {
			seen[key] = len(distinct)
			distinct = append(distinct, uses)
		}
		index[i] = seen[key]
	}
	placed, err := m.choose(distinct...)
	if err != nil {
		return nil, err
	}
	made := make([]*autograd.Choice, len(placed))
	for i, p := range placed {
		made[i] = &autograd.Choice{Adapters: p.pairs, Replaced: p.weights}
	}
	out := make([]*autograd.Choice, len(lists))
	for i, k := range index {
		out[i] = made[k]
	}
	return out, nil
}

// add adds an adapter with its factor, which is that of its pairs: what replaces parameters does so as
// a whole.
func (p *placed) add(a *placed, u Use) error {
	for place, list := range a.pairs {
		for _, l := range list {
			own := *l
			if u.Scale != 0 {
				own.Scale *= float32(u.Scale)
			}
			if l.Gain != nil {
				own.Gain = &autograd.Gain{Magnitude: l.Gain.Magnitude}
			}
			p.pairs[place] = append(p.pairs[place], &own)
		}
	}
	for w, t := range a.whole {
		if other := p.whole[w]; other != nil && !slices.Equal(other.Data, t.Data) {
			return fmt.Errorf("engine: adapter %q: %w: it and another adapter in use both replace %q", u.Name, ErrAdapter, w.Name)
		}
		p.whole[w] = t
	}
	for w, r := range a.rows {
		joined := adapters.TokenRows{Module: r.Module, Width: r.Width}
		if other := p.rows[w]; other != nil {
			joined.Indices, joined.Data = slices.Clone(other.Indices), slices.Clone(other.Data)
		}
		for i, row := range r.Indices {
			data := r.Data[i*r.Width : (i+1)*r.Width]
			k := slices.Index(joined.Indices, row)
			switch {
			case k < 0:
				joined.Indices, joined.Data = append(joined.Indices, row), append(joined.Data, data...)
			case !slices.Equal(joined.Data[k*r.Width:(k+1)*r.Width], data):
				return fmt.Errorf("engine: adapter %q: %w: it and another adapter in use both replace row %d of %q", u.Name, ErrAdapter, row, r.Module)
			}
		}
		p.rows[w] = &joined
	}
	return nil
}

// join makes one gain of those of several adapters at a place. Each adds (g−1)·W + g·s·B·A to W, so that
// the gain is G = 1 + Σ(g−1), and the rows of every B are divided by G, those with a gain after
// multiplying by it.
func (p *placed) join(m *Model) error {
	for place, list := range p.pairs {
		if len(list) < 2 || !slices.ContainsFunc(list, func(l *autograd.LowRank) bool { return l.Gain != nil }) {
			continue
		}
		n := list[0].B.N
		gain := make([]float32, n)
		for i := range gain {
			gain[i] = 1
		}
		for _, l := range list {
			if l.Gain == nil {
				continue
			}
			for i, g := range l.Gain.Values {
				gain[i] += g - 1
			}
		}
		for i, g := range gain {
			if g > -1e-3 && g < 1e-3 {
				return fmt.Errorf("engine: %w: adapters with DoRA in use together cancel feature %d of %q; merge them instead", ErrAdapter, i, m.modules[place].Module)
			}
		}
		for _, l := range list {
			b, r := slices.Clone(l.B.F32), l.B.K
			for i := range n {
				g := 1 / gain[i]
				if l.Gain != nil {
					g *= l.Gain.Values[i]
				}
				kernel.Scale(b[i*r:(i+1)*r], b[i*r:(i+1)*r], g)
			}
			l.B.F32, l.Gain = b, nil
		}
		list[0].Gain = &autograd.Gain{Values: gain}
	}
	return nil
}
