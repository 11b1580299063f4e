package checkpoint_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

const packs = "../../testdata/golden/packed"

// TestPacked: weights in words are the values that GPTQModel, AutoAWQ and compressed-tensors make of them.
func TestPacked(t *testing.T) {
	checkStored(t, packs, storedCases(t, filepath.Join(packs, "packed.json")))
}

// TestPackedRefused: tensors that are missing, do not fit or say what cannot be.
func TestPackedRefused(t *testing.T) {
	cases := storedCases(t, filepath.Join(packs, "packed.json"))
	change := func(file, name string, f func(*safetensors.TensorData)) []safetensors.TensorData {
		all := readAll(t, filepath.Join(packs, file+".safetensors"))
		i := slices.IndexFunc(all, func(s safetensors.TensorData) bool { return s.Name == name })
		if i < 0 {
			t.Fatalf("%s has no %s", file, name)
		}
		if f == nil {
			return slices.Delete(all, i, i+1)
		}
		f(&all[i])
		return all
	}
	shape := func(shape ...int) func(*safetensors.TensorData) {
		return func(s *safetensors.TensorData) { s.Shape = shape }
	}
	set := func(at int, b byte) func(*safetensors.TensorData) {
		return func(s *safetensors.TensorData) { s.Data = slices.Clone(s.Data); s.Data[at] = b }
	}
	floats := func(s *safetensors.TensorData) { s.DType = safetensors.F32 }
	for name, c := range map[string]struct {
		file, tensor string
		change       func(*safetensors.TensorData)
		want         error
	}{
		"no scales":            {"gptq", "q_proj.scales", nil, quantize.ErrFormat},
		"no zeros":             {"awq", "q_proj.qzeros", nil, quantize.ErrFormat},
		"no zeros of words":    {"gptq", "q_proj.qzeros", floats, quantize.ErrFormat},
		"codes not of words":   {"int4", "q_proj.weight_packed", floats, quantize.ErrFormat},
		"codes of 1.5 bits":    {"gptq", "q_proj.qweight", func(s *safetensors.TensorData) { s.Shape = []int{3, 64}; s.Data = s.Data[:768] }, quantize.ErrUnsupported},
		"AWQ in 2 bits":        {"awq", "q_proj.qweight", func(s *safetensors.TensorData) { s.Shape = []int{64, 4}; s.Data = s.Data[:1024] }, quantize.ErrUnsupported},
		"scales on their side": {"gptq", "q_proj.scales", shape(64, 2), quantize.ErrFormat},
		"scales in a row":      {"gptq", "q_proj.scales", shape(128), quantize.ErrFormat},
		"zeros on their side":  {"gptq", "q_proj.qzeros", shape(8, 2), quantize.ErrFormat},
		"group of no one":      {"gptq", "q_proj.g_idx", set(0, 2), quantize.ErrFormat},
		"group below zero":     {"gptq", "q_proj.g_idx", set(7, 0x80), quantize.ErrFormat},
		"groups on an axis":    {"gptq", "q_proj.g_idx", shape(1, 64), quantize.ErrFormat},
		"another shape":        {"int4", "q_proj.weight_shape", set(0, 63), quantize.ErrFormat},
		"a shape of one":       {"int4", "q_proj.weight_shape", func(s *safetensors.TensorData) { s.Shape = []int{1}; s.Data = s.Data[:8] }, quantize.ErrFormat},
	} {
		_, err := checkpoint.Open(eightFolder(t, change(c.file, c.tensor, c.change), cases[c.file].Config))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "q_proj") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A bias that is not zero belongs to no layer of this model.
	_, err := checkpoint.Open(eightFolder(t, change("gptq", "q_proj.bias", set(1, 0x3c)), cases["gptq"].Config))
	if err == nil || !strings.Contains(err.Error(), "q_proj.bias") {
		t.Errorf("a bias: %v", err)
	}
	// Layouts of the same shapes that mean something else.
	for file, config := range map[string]map[string]any{
		"gptq": {"quant_method": "gptq", "checkpoint_format": "marlin"},
		"awq":  {"quant_method": "awq", "version": "gemv"},
		"int4": {"quant_method": "compressed-tensors", "format": "marlin-24"},
	} {
		_, err := checkpoint.Open(eightFolder(t, readAll(t, filepath.Join(packs, file+".safetensors")), config))
		if !errors.Is(err, quantize.ErrUnsupported) || !strings.Contains(err.Error(), config["quant_method"].(string)) {
			t.Errorf("%v: %v", config, err)
		}
	}
}

// FuzzStored opens a tiny model two of whose modules are stored as a golden file says but for one tensor, under
// a configuration, and reads every row of it, or is refused.
func FuzzStored(f *testing.F) {
	type stored struct {
		name    string
		tensors []safetensors.TensorData
	}
	var files []stored
	base := newTinyLlama(f)
	dtypes := []safetensors.DType{safetensors.I32, safetensors.I64, safetensors.U8, safetensors.I8, safetensors.F8E4M3, safetensors.F16, safetensors.BF16, safetensors.F32}
	for _, folder := range []string{eights, packs} {
		data, err := os.ReadFile(filepath.Join(folder, map[string]string{eights: "eight.json", packs: "packed.json"}[folder]))
		if err != nil {
			f.Fatal(err)
		}
		var cases map[string]struct{ Config json.RawMessage }
		if err := json.Unmarshal(data, &cases); err != nil {
			f.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			tensors := readAll(f, filepath.Join(folder, name+".safetensors"))
			for i, s := range tensors {
				rows, cols := uint16(1), uint16(1)
				if len(s.Shape) > 0 {
					rows = uint16(s.Shape[0])
				}
				if len(s.Shape) > 1 {
					cols = uint16(s.Shape[1])
				}
				f.Add(uint8(len(files)), []byte(cases[name].Config), uint8(i), uint8(max(0, slices.Index(dtypes, s.DType))), uint8(len(s.Shape)), rows, cols, uint16(i), byte(i))
			}
			files = append(files, stored{name, tensors})
		}
	}
	f.Fuzz(func(t *testing.T, file uint8, config []byte, which, dtype, axes uint8, rows, cols, at uint16, b byte) {
		var quantization map[string]any
		if json.Unmarshal(config, &quantization) != nil {
			return
		}
		tensors := slices.Clone(files[int(file)%len(files)].tensors)
		s := &tensors[int(which)%len(tensors)]
		s.DType, s.Shape = dtypes[int(dtype)%len(dtypes)], []int{int(rows), int(cols), 1}[:axes%4]
		size := s.DType.Bits() / 8
		for _, d := range s.Shape {
			size *= d
		}
		if size > 1<<16 {
			return
		}
		data := make([]byte, size)
		copy(data, s.Data)
		if size > 0 {
			data[int(at)%size] = b
		}
		s.Data = data
		c, err := checkpoint.Open(base.folder(t, tensors, quantization))
		if err != nil {
			return
		}
		defer c.Close()
		for _, p := range c.Tensors() {
			row := 1
			for _, d := range p.Shape[1:] {
				row *= d
			}
			for _, lo := range []int{0, p.Shape[0] / 3} {
				if err := c.Rows(p.Name, lo, p.Shape[0], make([]float32, (p.Shape[0]-lo)*row)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
