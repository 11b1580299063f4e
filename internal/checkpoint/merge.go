package checkpoint

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// Delta is a change to some parameters: what adapters do ([adapters.Change]).
type Delta interface {
	// Changes reports whether a parameter becomes another.
	Changes(name string) bool
	// Apply makes rows [lo, hi) of a parameter, which dst holds as the base has them, what they become.
	Apply(name string, lo, hi int, dst []float32)
	// Unties reports whether the head becomes another than the table that the base has for both.
	Unties() bool
}

// MergeAdapters returns the model as adapters change it together; see [adapters.NewChange].
func MergeAdapters(c *Checkpoint, list ...*adapters.Adapter) (*Checkpoint, error) {
	b, err := Base(c.Config())
	if err != nil {
		return nil, fmt.Errorf("checkpoint: merging: %w", err)
	}
	change, err := adapters.NewChange(b, c.Rows, list...)
	if err != nil {
		return nil, err
	}
	return Merge(c, change)
}

// Merge returns the model with a change made to its parameters. A tensor that does not change keeps its
// stored bytes. Where the head becomes another than the table it shared, it has a weight of its own.
func Merge(c *Checkpoint, d Delta) (*Checkpoint, error) {
	m := &merged{Source: c.Source, delta: d, config: c.Config(), tensors: c.Tensors()}
	if !d.Unties() {
		return c.With(m), nil
	}
	_, head, err := model.Ends(c.Config())
	if err != nil {
		return nil, fmt.Errorf("checkpoint: merging: %w", err)
	}
	config := *c.Config()
	config.Tied = false
	m.config, m.head, m.table = &config, head.Module+".weight", head.Weight()
	params, err := model.Inventory(&config)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: merging: %w", err)
	}
	m.tensors = nil
	for _, p := range params {
		i := slices.IndexFunc(c.Tensors(), func(t Tensor) bool { return t.Name == m.stored(p.Name) })
		if i < 0 {
			return nil, fmt.Errorf("checkpoint: merging: tensor %q is missing", p.Name)
		}
		t := c.Tensors()[i]
		t.Name = p.Name
		m.tensors = append(m.tensors, t)
	}
	return c.With(m), nil
}

// merged is a source with a change.
type merged struct {
	Source
	delta       Delta
	config      *model.Config
	tensors     []Tensor
	head, table string // weight of a head that has become one of its own, and what it is read from
}

func (m *merged) Config() *model.Config { return m.config }
func (m *merged) Tensors() []Tensor     { return m.tensors }

// stored is the name of a tensor in the source.
func (m *merged) stored(name string) string {
	if name == m.head && name != "" {
		return m.table
	}
	return name
}

func (m *merged) Rows(name string, lo, hi int, dst []float32) error {
	if err := m.Source.Rows(m.stored(name), lo, hi, dst); err != nil {
		return err
	}
	m.delta.Apply(name, lo, hi, dst)
	return nil
}

func (m *merged) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	r, ok := m.Source.(Raw)
	if !ok || m.delta.Changes(name) {
		return false, nil
	}
	return r.RawRows(m.stored(name), lo, hi, dst)
}

// Packed4 returns a tensor that does not change as it is stored.
func (m *merged) Packed4(name string) (*quantize.Tensor4, error) {
	if m.delta.Changes(name) {
		return nil, nil
	}
	return packed4(m.Source, m.stored(name))
}

// Scales4 is that of the source for a tensor that does not change.
func (m *merged) Scales4(name string) (*quantize.Tensor4, error) {
	if m.delta.Changes(name) {
		return nil, nil
	}
	return scales4(m.Source, m.stored(name))
}

// Codes4 reads the codes of a tensor that does not change.
func (m *merged) Codes4(name string, dst []byte, off int64) error {
	return m.Source.(Scales4).Codes4(m.stored(name), dst, off)
}

// stored4 returns the 4-bit tensor that a source's rows come from, without its codes, whether they are
// merged with anything or not; nil where they come from no such tensor.
func stored4(s Source, name string) (*quantize.Tensor4, error) {
	for {
		m, ok := s.(*merged)
		if !ok {
			return scales4(s, name)
		}
		s, name = m.Source, m.stored(name)
	}
}
