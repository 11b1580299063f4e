package engine

import (
	"fmt"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/autograd"
	"github.com/graftml/graft/internal/kernel"
)

// This file gives everything that an adapter holds a gradient.

// keyPrefix stands before the names that PEFT gives the parameters of an adapter.
const keyPrefix = "base_model.model."

// trainAdapter makes an adapter what the session trains.
func (s *Session) trainAdapter(a, frozen *adapters.Adapter, dropout float64) error {
	m := s.model
	p, err := m.place(a)
	if err != nil {
		return err
	}
	if err := m.trainable(a, p, dropout); err != nil {
		return err
	}
	p.replace(m)
	table, head := m.graph.TablePlace(), m.graph.HeadPlace()
	if m.base.Tied && a.Config.TieWeights && a.Pair(m.base.Table) != nil && a.Pair(m.base.Head) == nil {
		s.tied = &tiedPairs{p.pairs[table][0], p.pairs[head][0]}
	}
	s.trainPairs(p, table, 0)
	for place := range m.linears {
		s.trainPairs(p, place, dropout)
	}
	s.trainPairs(p, head, dropout)
	s.trainWhole(a, p)
	s.trainRows(a, p)
	if frozen != nil {
		beside, err := m.place(frozen)
		if err != nil {
			return err
		}
		for place, list := range beside.pairs {
			p.pairs[place] = append(p.pairs[place], list...)
		}
	}
	p.use(s.tape)
	return nil
}

// trainable reports what cannot be trained together.
func (m *Model) trainable(a *adapters.Adapter, p *placed, dropout float64) error {
	fail := func(place string, what string) error {
		return fmt.Errorf("engine: preparing training of adapter %q: %w: %q has %s", a.Name, ErrAdapter, place, what)
	}
	for place, list := range p.pairs {
		for _, l := range list {
			if p.whole[m.at(place)] != nil {
				return fail(m.modules[place].Module, "a pair and is trained as a whole; choose one")
			}
			if l.Gain != nil && dropout > 0 && place == m.graph.HeadPlace() {
				return fail(m.modules[place].Module, "DoRA, which the head cannot have with dropout; set dropout to 0, or leave the head out")
			}
		}
	}
	for w := range p.rows {
		if p.whole[w] != nil {
			return fail(w.Name, "trained rows and is trained as a whole; choose one")
		}
	}
	return nil
}

// trainPairs gives the pair at a place gradients, and names them unless they are another pair's.
func (s *Session) trainPairs(p *placed, place int, dropout float64) {
	module := keyPrefix + s.model.modules[place].Module
	keyA, keyB := module+".lora_A.weight", module+".lora_B.weight"
	if place == s.model.graph.TablePlace() {
		keyA, keyB = module+".lora_embedding_A", module+".lora_embedding_B"
	}
	for _, l := range p.pairs[place] {
		l.Dropout = float32(dropout)
		l.GradA, l.GradB = make([]float32, len(l.A.F32)), make([]float32, len(l.B.F32))
		if s.tied != nil && s.tied.head == l {
			continue
		}
		s.params = append(s.params, Param{keyA, []int{l.A.N, l.A.K}, l.A.F32, l.GradA}, Param{keyB, []int{l.B.N, l.B.K}, l.B.F32, l.GradB})
		if l.Bias != nil {
			l.GradBias = make([]float32, len(l.Bias))
			s.params = append(s.params, Param{module + ".lora_B.bias", []int{l.B.N}, l.Bias, l.GradBias})
		}
		if l.Gain != nil {
			l.Gain.Grad = make([]float32, l.B.N)
			s.params = append(s.params, Param{module + ".lora_magnitude_vector", []int{l.B.N}, l.Gain.Magnitude, l.Gain.Grad})
		}
	}
}

// trainWhole gives whole parameters gradients. A table and a head that are one parameter share it.
func (s *Session) trainWhole(a *adapters.Adapter, p *placed) {
	grads := map[*float32][]float32{}
	for i := range a.Whole {
		t := &a.Whole[i]
		grad := make([]float32, len(t.Data))
		grads[&t.Data[0]] = grad
		s.params = append(s.params, Param{keyPrefix + t.Name, t.Shape, t.Data, grad})
	}
	for w, t := range p.whole {
		p.weights[w].Grad = grads[&t.Data[0]]
	}
}

// trainRows gives rows of tables gradients. Rows of a table and of a head that are one share it.
func (s *Session) trainRows(a *adapters.Adapter, p *placed) {
	shared := map[*float32]*autograd.Rows{}
	for i := range a.Rows {
		r := &a.Rows[i]
		n := len(r.Indices)
		rows := &autograd.Rows{Matrix: kernel.Matrix{N: n, K: r.Width, F32: r.Data, Half: s.model.bf16},
			Index: make(map[int32]int32, n), Grad: make([]float32, len(r.Data))}
		for k, row := range r.Indices {
			rows.Index[int32(row)] = int32(k)
		}
		shared[&r.Data[0]] = rows
		s.params = append(s.params, Param{keyPrefix + r.Module + ".token_adapter.trainable_tokens_delta", []int{n, r.Width}, r.Data, rows.Grad})
	}
	for w, r := range p.rows {
		p.weights[w].Rows = shared[&r.Data[0]]
	}
}

// tiedPairs are the pairs of a table and of the head that shares it where they are one: the head's A is
// the table's B transposed, and its B the table's A.
type tiedPairs struct{ table, head *autograd.LowRank }

// refresh makes the head's matrices the table's.
func (t *tiedPairs) refresh() {
	kernel.Transpose(t.head.A.F32, t.table.B.F32, t.table.B.N, t.table.B.K)
	kernel.Transpose(t.head.B.F32, t.table.A.F32, t.table.A.N, t.table.A.K)
}

// collect moves the gradients of the head's matrices to the table's.
func (t *tiedPairs) collect() {
	addTransposed(t.table.GradB, t.head.GradA, t.head.A.N, t.head.A.K)
	addTransposed(t.table.GradA, t.head.GradB, t.head.B.N, t.head.B.K)
}

// addTransposed adds the transpose of x (rows, cols) to dst and clears x.
func addTransposed(dst, x []float32, rows, cols int) {
	for i := range rows {
		for j, v := range x[i*cols : (i+1)*cols] {
			dst[j*rows+i] += v
		}
	}
	clear(x)
}
