package testmodel

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/safetensors"
)

// WriteFolder writes config.json and model.safetensors, all F32, into an existing folder.
func (m *Model) WriteFolder(dir string) error {
	config, err := m.config.JSON(nil)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		return fmt.Errorf("testmodel: writing configuration: %w", err)
	}
	var tensors []safetensors.TensorData
	for _, p := range m.params {
		tensors = append(tensors, safetensors.TensorData{
			Spec: safetensors.Spec{Name: p.Name, DType: safetensors.F32, Shape: p.Shape},
			Data: encode(m.tensors[p.Name]),
		})
	}
	return safetensors.Write(filepath.Join(dir, "model.safetensors"), tensors, map[string]string{"format": "pt"})
}

// WriteGGUF writes a GGUF file, all F32, with the rows in the order of that format. It has extra
// metadata, a tokenizer for instance, behind that of the shape.
func (m *Model) WriteGGUF(path string, extra ...gguf.KV) error {
	var kvs []gguf.KV
	for _, k := range m.config.GGUFKeys() {
		switch v := k.Value.(type) {
		case string:
			kvs = append(kvs, gguf.Entry(k.Name, v))
		case uint32:
			kvs = append(kvs, gguf.Entry(k.Name, v))
		case float32:
			kvs = append(kvs, gguf.Entry(k.Name, v))
		case bool:
			kvs = append(kvs, gguf.Entry(k.Name, v))
		case []bool:
			kvs = append(kvs, gguf.Entry(k.Name, v))
		}
	}
	kvs = append(kvs, extra...)
	var tensors []gguf.TensorData
	add := func(name string, shape []int, v []float32) {
		dims := make([]int64, len(shape)) // innermost first
		for i, d := range shape {
			dims[len(shape)-1-i] = int64(d)
		}
		tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: name, Type: gguf.F32, Dims: dims}, Data: encode(v)})
	}
	for _, p := range m.params {
		name, ok := m.config.GGUFName(p.Name)
		if !ok {
			return fmt.Errorf("testmodel: writing %q: it has no GGUF name", p.Name)
		}
		v := m.tensors[p.Name]
		if heads := m.config.RowHeads(p.Name); heads > 0 {
			v = pairRows(v, p.Shape[0], heads)
		}
		if by := m.config.Offset(p.Name); by != 0 {
			v = slices.Clone(v)
			for i := range v {
				v[i] += by
			}
		}
		add(name, p.Shape, v)
	}
	divisors := m.config.RopeDivisors()
	for _, name := range slices.Sorted(maps.Keys(divisors)) {
		add(name, []int{len(divisors[name])}, divisors[name])
	}
	return gguf.Write(path, kvs, tensors)
}

// pairRows puts rows in GGUF's order: row h·d+2p+c is Hugging Face's row h·d+c·(d/2)+p.
func pairRows(v []float32, rows, heads int) []float32 {
	cols, d := len(v)/rows, rows/heads
	out := slices.Clone(v)
	for row := range rows {
		h, p, c := row/d, row%d/2, row%2
		from := h*d + c*(d/2) + p
		copy(out[row*cols:(row+1)*cols], v[from*cols:(from+1)*cols])
	}
	return out
}

func encode(v []float32) []byte {
	b := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
	return b
}
