package inspect

import (
	"fmt"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/quantize"
)

// weight is a tensor whose values can be read, whether package checkpoint understands the model or
// only its headers are known.
type weight struct {
	Tensor
	rows, cols int // of a matrix; a vector is one row, an empty tensor (0, 0)
	unit       int // a read begins and ends at multiples of it
	read       func(scratch *[]byte, dst []float32, lo int) error
	unreadable error // why the values cannot be read; nil where they can
}

func (w *weight) values() int { return w.rows * w.cols }

// weights are the tensors of a model by name, in order.
type weights struct {
	list   []*weight
	byName map[string]*weight
}

func newWeights(n int) *weights { return &weights{byName: make(map[string]*weight, n)} }

func (ws *weights) add(w *weight) { ws.list, ws.byName[w.Name] = append(ws.list, w), w }

// sourceWeights are the tensors of a source.
func sourceWeights(src checkpoint.Source) *weights {
	tensors := src.Tensors()
	ws := newWeights(len(tensors))
	for _, t := range tensors {
		w := &weight{Tensor: Tensor{Name: t.Name, Shape: t.Shape, Type: t.Codec}, unit: 1}
		w.rows, w.cols = rowsOf(t.Shape)
		if len(t.Shape) > 1 && t.Shape[0] > 0 {
			w.unit = w.values() / t.Shape[0]
		}
		w.read = func(_ *[]byte, dst []float32, lo int) error {
			return src.Rows(t.Name, lo/w.unit, (lo+len(dst))/w.unit, dst)
		}
		ws.add(w)
	}
	return ws
}

// modelWeights are the tensors of a model, with where they lie in its files, and then the tensors that
// the files hold besides: a vision tower, frequencies, a head that nobody reads.
func modelWeights(m *checkpoint.Checkpoint, h *headers) *weights {
	ws := sourceWeights(m.Source)
	taken := map[string]bool{}
	if names, ok := m.Source.(checkpoint.Stored); ok {
		for _, w := range ws.list {
			for i, name := range names.StoredNames(w.Name) {
				s := h.byName[name]
				if s == nil {
					continue
				}
				taken[name] = true
				w.Bytes += s.bytes
				if i > 0 {
					continue
				}
				w.Offset = s.offset
				if len(h.files) > 1 {
					w.File = s.file
				}
				if name != w.Name {
					w.Stored = name
				}
			}
		}
	}
	for _, w := range headerWeights(h).list {
		if !taken[w.Name] {
			ws.add(w)
		}
	}
	return ws
}

// headerWeights are the tensors that headers list.
func headerWeights(h *headers) *weights {
	ws := newWeights(len(h.tensors))
	for _, s := range h.tensors {
		w := &weight{Tensor: Tensor{Name: s.name, Shape: s.shape, Type: s.typ, Bytes: s.bytes, Offset: s.offset}, unit: 1}
		if len(h.files) > 1 {
			w.File = s.file
		}
		w.rows, w.cols = rowsOf(s.shape)
		codec, err := quantize.Lookup(s.typ)
		if err != nil {
			w.unreadable = fmt.Errorf("inspect: reading tensor %q: %w", s.name, err)
		} else {
			w.unit, _ = codec.Block()
			w.read = func(scratch *[]byte, dst []float32, lo int) error {
				return s.values(codec, scratch, dst, int64(lo))
			}
		}
		ws.add(w)
	}
	return ws
}
