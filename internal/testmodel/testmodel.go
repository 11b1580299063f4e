// Package testmodel makes tiny models with random weights, of every architecture and in every form
// a checkpoint has, for the tests of other packages.
//
// Weights come from [Draw], a counter-based generator with a twin in the Python scripts under
// testdata/golden: a golden file therefore holds results only, no weights. A [Model] is a checkpoint
// in memory; [Model.WriteFolder] and [Model.WriteGGUF] put it on disk.
package testmodel

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
)

// Draw returns n values in [−1, 1), multiples of 2⁻²³: splitmix64 over a counter that starts at the
// FNV-1a hash of name. The same name always gives the same values.
func Draw(name string, n int) []float32 {
	h := hash(name)
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(int64(hashed(h, i+1)>>40)-1<<23) / (1 << 23)
	}
	return out
}

// hash is FNV-1a.
func hash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, b := range []byte(name) {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	return h
}

// hashed is number i of the sequence of splitmix64 that starts at key.
func hashed(key uint64, i int) uint64 { return mix(key + uint64(i)*0x9e3779b97f4a7c15) }

// mix is the finisher of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Tokens returns n ids below vocab, drawn under name.
func Tokens(name string, n, vocab int) []int32 {
	out := make([]int32, n)
	for i, v := range Draw(name, n) {
		out[i] = int32((float64(v) + 1) / 2 * float64(vocab))
	}
	return out
}

// Weights returns the values of a parameter: gains of norms in [0.5, 1.5), all else, adapters
// included, in [−0.25, 0.25). A model that stores gains less one has them less one, which is exact.
func Weights(name string, kind model.Kind, n int) []float32 {
	w := Draw(name, n)
	for i, v := range w {
		if kind == model.KindNorm {
			w[i] = 1 + v/2
		} else {
			w[i] = v / 4
		}
	}
	return w
}

// Model is a checkpoint in memory.
type Model struct {
	config  *model.Config
	params  []model.Param
	tensors map[string][]float32
}

var _ checkpoint.Source = (*Model)(nil)

// New makes a model of the given shape, every parameter drawn under its own name.
func New(c *model.Config) (*Model, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, err
	}
	m := &Model{config: c, params: params, tensors: map[string][]float32{}}
	for _, p := range params {
		m.tensors[p.Name] = Weights(p.Name, p.Kind, p.Elements())
		for i := range m.tensors[p.Name] {
			m.tensors[p.Name][i] -= c.Offset(p.Name)
		}
	}
	return m, nil
}

// Named makes the model whose configuration is called name.
func Named(name string) (*Model, error) {
	c, err := Config(name)
	if err != nil {
		return nil, err
	}
	return New(c)
}

// Config describes the model.
func (m *Model) Config() *model.Config { return m.config }

// Tensor returns the values of a parameter, which a test may change, or nil where there is none.
func (m *Model) Tensor(name string) []float32 { return m.tensors[name] }

// Remove makes the model lack a parameter.
func (m *Model) Remove(name string) {
	delete(m.tensors, name)
	m.params = slices.DeleteFunc(m.params, func(p model.Param) bool { return p.Name == name })
}

// Tensors lists the parameters, all F32.
func (m *Model) Tensors() []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, p := range m.params {
		out = append(out, checkpoint.Tensor{Name: p.Name, Shape: p.Shape, Codec: "F32"})
	}
	return out
}

// Rows copies rows of a parameter.
func (m *Model) Rows(name string, lo, hi int, dst []float32) error {
	for _, p := range m.params {
		if p.Name == name {
			cols := p.Elements() / p.Shape[0]
			copy(dst, m.tensors[name][lo*cols:hi*cols])
			return nil
		}
	}
	return fmt.Errorf("testmodel: reading %q: the model has no such tensor", name)
}
