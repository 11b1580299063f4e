package checkpoint_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

const eights = "../../testdata/golden/eight"

// eightFolder is a tiny llama whose first block has the modules of a golden file.
func eightFolder(t *testing.T, stored []safetensors.TensorData, quantization map[string]any) string {
	t.Helper()
	c, err := testmodel.Config("llama")
	if err != nil {
		t.Fatal(err)
	}
	m, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	config, err := c.JSON(map[string]any{"quantization_config": quantization})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, data := range testmodel.TokenizerFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	places := map[string]string{"q_proj": "self_attn.q_proj", "down_proj": "mlp.down_proj"}
	path := filepath.Join(dir, "model.safetensors")
	all := map[string]safetensors.TensorData{}
	for _, s := range readAll(t, path) {
		all[s.Name] = s
	}
	for _, s := range stored {
		module, rest, _ := strings.Cut(s.Name, ".")
		if _, ok := places[module]; ok {
			s.Name = "model.layers.0." + places[module] + "." + rest
		}
		all[s.Name] = s
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(path, slices.Collect(maps.Values(all)), nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readAll(t *testing.T, path string) []safetensors.TensorData {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []safetensors.TensorData
	for _, s := range f.Tensors() {
		d := safetensors.TensorData{Spec: safetensors.Spec{Name: s.Name, DType: s.DType, Shape: s.Shape}, Data: make([]byte, s.Size())}
		if err := f.ReadAt(s, d.Data, 0); err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

type eightCase struct {
	Config map[string]any
	Values map[string]string
}

func eightCases(t *testing.T) map[string]eightCase {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(eights, "eight.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases map[string]eightCase
	if err := json.Unmarshal(data, &cases); err != nil || len(cases) < 8 {
		t.Fatal(len(cases), err)
	}
	return cases
}

// TestEightBits: weights in 8 bits with scales are the values that transformers and bitsandbytes
// make of them, whatever rows are asked for, and are written as such.
func TestEightBits(t *testing.T) {
	for name, golden := range eightCases(t) {
		t.Run(name, func(t *testing.T) {
			dir := eightFolder(t, readAll(t, filepath.Join(eights, name+".safetensors")), golden.Config)
			c, err := checkpoint.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for module, shape := range map[string][2]int{"self_attn.q_proj": {64, 64}, "mlp.down_proj": {64, 128}} {
				weight := "model.layers.0." + module + ".weight"
				_, short, _ := strings.Cut(module, ".")
				for _, step := range []int{64, 7} {
					h := sha256.New()
					for lo := 0; lo < shape[0]; lo += step {
						hi := min(shape[0], lo+step)
						x := make([]float32, (hi-lo)*shape[1])
						if err := c.Rows(weight, lo, hi, x); err != nil {
							t.Fatal(err)
						}
						if err := binary.Write(h, binary.LittleEndian, x); err != nil {
							t.Fatal(err)
						}
					}
					if got := hex.EncodeToString(h.Sum(nil)); got != golden.Values[short] {
						t.Errorf("%s, %d rows at a time: other values than the reference", module, step)
					}
				}
			}
			for _, o := range []checkpoint.Options{{Form: checkpoint.GGUF}, {Form: checkpoint.Safetensors}, {Form: checkpoint.Safetensors, Type: "nf4"}} {
				out := filepath.Join(t.TempDir(), "out")
				if _, err := checkpoint.Write(context.Background(), c, out, o); err != nil {
					t.Fatal(err)
				}
				if o.Form == checkpoint.Safetensors {
					config, err := os.ReadFile(filepath.Join(out, "config.json"))
					if err != nil || bytes.Contains(config, []byte("weight_block_size")) || bytes.Contains(config, []byte("compressed-tensors")) {
						t.Errorf("config.json: %v, of stored 8 bits:\n%s", err, config)
					}
				}
				back, err := checkpoint.Open(out)
				if err != nil {
					t.Fatal(err)
				}
				back.Close()
			}
		})
	}
}

// TestEightBitsRefused: scales that are missing, do not fit or are of another kind.
func TestEightBitsRefused(t *testing.T) {
	int8s := readAll(t, filepath.Join(eights, "int8.safetensors"))
	config := eightCases(t)["int8"].Config
	without := func(suffix string) []safetensors.TensorData {
		return slices.DeleteFunc(slices.Clone(int8s), func(s safetensors.TensorData) bool { return strings.HasSuffix(s.Name, suffix) })
	}
	scb := func(dtype safetensors.DType, size int, shape ...int) []safetensors.TensorData {
		return append(without("q_proj.SCB"), safetensors.TensorData{Spec: safetensors.Spec{Name: "q_proj.SCB", DType: dtype, Shape: shape}, Data: make([]byte, size)})
	}
	for name, c := range map[string]struct {
		stored []safetensors.TensorData
		want   error
		text   string
	}{
		"no scales":      {without("q_proj.SCB"), quantize.ErrUnsupported, "SCB"},
		"too few":        {scb(safetensors.F32, 4*63, 63), quantize.ErrFormat, "do not divide"},
		"none":           {scb(safetensors.F32, 0, 0), quantize.ErrFormat, "do not divide"},
		"three axes":     {scb(safetensors.F32, 4*64, 64, 1, 1), quantize.ErrFormat, "do not divide"},
		"whole numbers":  {scb(safetensors.I8, 64, 64), quantize.ErrUnsupported, "I8"},
		"a tile a scale": {scb(safetensors.F32, 4*16, 16, 1), quantize.ErrFormat, "do not divide"},
		"zero point": {append(slices.Clone(int8s), safetensors.TensorData{
			Spec: safetensors.Spec{Name: "q_proj.weight_zero_point", DType: safetensors.I8, Shape: []int{1}}, Data: []byte{3}}), quantize.ErrUnsupported, "zero point"},
	} {
		_, err := checkpoint.Open(eightFolder(t, c.stored, config))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "q_proj") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Weights that other tools packed are refused by the tool's name.
	dir := eightFolder(t, nil, map[string]any{"quant_method": "gptq"})
	path := filepath.Join(dir, "model.safetensors")
	all := readAll(t, path)
	for i := range all {
		if all[i].Name == "model.layers.1.mlp.up_proj.weight" {
			all[i].Name = "model.layers.1.mlp.up_proj.qweight"
		}
	}
	if err := errors.Join(os.Remove(path), safetensors.Write(path, all, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(dir); !errors.Is(err, quantize.ErrUnsupported) || !strings.Contains(err.Error(), "gptq") {
		t.Errorf("GPTQ: %v", err)
	}
}
