package model_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// TestGGUFEqualsConverter compares keys and tensors with those of the files that llama.cpp's converter
// makes of the test models: all of its keys are there, with its types and values, and no tensor is
// missing or has another shape.
func TestGGUFEqualsConverter(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "gguf", "architectures.json"))
	if err != nil {
		t.Fatal(err)
	}
	var goldens map[string]struct {
		Keys    map[string][2]any // type and value
		Tensors map[string][]int  // dimensions in ggml's order
	}
	if err := json.Unmarshal(data, &goldens); err != nil {
		t.Fatal(err)
	}
	for _, name := range testmodel.Names() {
		t.Run(name, func(t *testing.T) {
			want, ok := goldens[name]
			if !ok {
				t.Fatal("there is no golden")
			}
			c, err := testmodel.Config(name)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][2]any{}
			for _, k := range c.GGUFKeys() {
				switch v := k.Value.(type) {
				case uint32:
					got[k.Name] = [2]any{"uint32", float64(v)}
				case float32:
					got[k.Name] = [2]any{"float32", float64(v)}
				case string:
					got[k.Name] = [2]any{"string", v}
				case []bool:
					list := make([]any, len(v))
					for i, x := range v {
						list[i] = x
					}
					got[k.Name] = [2]any{"array", list}
				}
			}
			for key, v := range want.Keys {
				if !cmp.Equal(got[key], v) {
					t.Errorf("%s is %v, want %v", key, got[key], v)
				}
			}
			tensors := map[string][]int{}
			for tensor, values := range c.RopeDivisors() {
				tensors[tensor] = []int{len(values)}
			}
			params, err := model.Inventory(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range params {
				tensor, _ := c.GGUFName(p.Name)
				tensors[tensor] = slices.Clone(p.Shape)
				slices.Reverse(tensors[tensor])
			}
			if d := cmp.Diff(want.Tensors, tensors); d != "" {
				t.Error(d)
			}
		})
	}
}
