package checkpoint_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// TestCopies: a copy of the base's table beside an adapter on it, as PEFT saves it, is the base's own or told of.
func TestCopies(t *testing.T) {
	for name, module := range map[string]string{"llama": "lm_head", "llama-mha-untied": "model.embed_tokens"} {
		m, err := testmodel.Named(name)
		must(t, err)
		c := folder(t, name)
		four := write(t, c, filepath.Join(t.TempDir(), "four.gguf"), checkpoint.Options{Form: checkpoint.GGUF, Type: "q4_0"})
		table := m.Tensor("model.embed_tokens.weight")
		one := slices.Clone(table)
		one[len(one)-1] += 3
		for _, tc := range []struct {
			c      *checkpoint.Checkpoint
			values []float32
			dtype  safetensors.DType
			other  bool
		}{{c, table, safetensors.F32, false}, {c, table, safetensors.BF16, false}, {c, one, safetensors.F32, true}, {c, one, safetensors.BF16, true}, {four, one, safetensors.F32, false}} {
			dir := t.TempDir()
			codec, err := quantize.LookupEncoder(string(tc.dtype))
			must(t, err)
			size, err := quantize.Size(codec, len(tc.values))
			must(t, err)
			data := make([]byte, size)
			codec.Encode(data, tc.values)
			shape := []int{len(table) / m.Config().Hidden, m.Config().Hidden}
			must(t, safetensors.Write(filepath.Join(dir, "adapter_model.safetensors"), []safetensors.TensorData{
				{Spec: safetensors.Spec{Name: "base_model.model." + module + ".base_layer.weight", DType: tc.dtype, Shape: shape}, Data: data}}, nil))
			for _, path := range []string{dir, filepath.Join(dir, "adapter_model.safetensors")} {
				got, err := tc.c.SameBase(path, &adapters.Adapter{})
				must(t, err)
				if strings.Contains(got, `a copy of the "model.embed_tokens.weight"`) != tc.other || tc.other == (got == "") {
					t.Errorf("%s, %s: %q, another copy: %v", name, tc.dtype, got, tc.other)
				}
			}
		}
	}
}
