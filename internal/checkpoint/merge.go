package checkpoint

import (
	"fmt"

	"github.com/graftml/graft/quantize"
)

// Delta is a change to some weights, an adapter.
type Delta interface {
	// AddRows adds the change to rows [lo, hi) of the weight, which dst holds, and reports whether
	// it changes that weight at all.
	AddRows(name string, lo, hi int, dst []float32) bool
}

// Merge returns the model with deltas added to its weights, in order. A tensor no delta changes
// keeps its stored bytes.
func Merge(c *Checkpoint, deltas ...Delta) (*Checkpoint, error) {
	m := &merged{Source: c.Source, deltas: map[string][]Delta{}}
	for _, t := range c.Tensors() {
		for _, d := range deltas {
			if !d.AddRows(t.Name, 0, 0, nil) {
				continue
			}
			if len(t.Shape) != 2 {
				return nil, fmt.Errorf("checkpoint: merging: tensor %q has shape %v, an adapter changes matrices", t.Name, t.Shape)
			}
			m.deltas[t.Name] = append(m.deltas[t.Name], d)
		}
	}
	return c.With(m), nil
}

type merged struct {
	Source
	deltas map[string][]Delta
}

func (m *merged) Rows(name string, lo, hi int, dst []float32) error {
	if err := m.Source.Rows(name, lo, hi, dst); err != nil {
		return err
	}
	for _, d := range m.deltas[name] {
		d.AddRows(name, lo, hi, dst)
	}
	return nil
}

func (m *merged) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	r, ok := m.Source.(Raw)
	if !ok || m.deltas[name] != nil {
		return false, nil
	}
	return r.RawRows(name, lo, hi, dst)
}

// Packed4 returns a tensor no delta changes as it is stored.
func (m *merged) Packed4(name string) (*quantize.Tensor4, error) {
	if m.deltas[name] != nil {
		return nil, nil
	}
	return packed4(m.Source, name)
}

// Scales4 is that of the source for a tensor no delta changes.
func (m *merged) Scales4(name string) (*quantize.Tensor4, error) {
	if m.deltas[name] != nil {
		return nil, nil
	}
	return scales4(m.Source, name)
}

// Codes4 reads the codes of a tensor no delta changes.
func (m *merged) Codes4(name string, dst []byte, off int64) error {
	return m.Source.(Scales4).Codes4(name, dst, off)
}

// stored4 returns the 4-bit tensor that a source's rows come from, without its codes, whether they are
// merged with anything or not; nil where they come from no such tensor.
func stored4(s Source, name string) (*quantize.Tensor4, error) {
	for {
		m, ok := s.(*merged)
		if !ok {
			return scales4(s, name)
		}
		s = m.Source
	}
}
