package adapters

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/safetensors"
)

// TestWriteMLX compares what is written with what MLX-LM saves: transposed matrices, one rank and one scale.
func TestWriteMLX(t *testing.T) {
	a, dir := testVariants()["mixed"], t.TempDir()
	if err := WriteMLX(dir, a, testBase(false)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"fine_tune_type": "lora", "num_layers": 2.0, "lora_parameters": map[string]any{"rank": 4.0, "scale": 2.0, "dropout": 0.0,
		"keys": []any{"mlp.down_proj", "self_attn.k_proj", "self_attn.q_proj", "self_attn.v_proj"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("configuration (-want +got):\n%s", d)
	}
	f, err := safetensors.Open(filepath.Join(dir, mlxWeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := a.Pair("model.layers.1.self_attn.k_proj") // of rank 2 and scale 0.75
	la, okA := f.Tensor(p.Module + ".lora_a")
	lb, okB := f.Tensor(p.Module + ".lora_b")
	if !okA || !okB || !slices.Equal(la.Shape, []int{p.In, 4}) || !slices.Equal(lb.Shape, []int{4, p.Out}) {
		t.Fatalf("A %v and B %v", la.Shape, lb.Shape)
	}
	va, err := floats(f, la)
	if err != nil {
		t.Fatal(err)
	}
	vb, err := floats(f, lb)
	if err != nil {
		t.Fatal(err)
	}
	for r := range 4 {
		for i := range p.In {
			if want := float32(0); r < p.R {
				if want = p.A[r*p.In+i]; va[i*4+r] != want {
					t.Fatalf("A at %d, %d is %v, want %v", i, r, va[i*4+r], want)
				}
			}
		}
		for o := range p.Out {
			want := float32(0)
			if r < p.R {
				want = p.B[o*p.R+r] * 0.375
			}
			if vb[r*p.Out+o] != want {
				t.Fatalf("B at %d, %d is %v, want %v", r, o, vb[r*p.Out+o], want)
			}
		}
	}
}

// TestMLXFull takes whole parameters there and back.
func TestMLXFull(t *testing.T) {
	a := &Adapter{Name: "full", Whole: []Tensor{{"model.layers.0.mlp.down_proj.weight", []int{6, 10}, slices.Repeat([]float32{0.5}, 60)}, {"model.norm.weight", []int{6}, slices.Repeat([]float32{2}, 6)}}}
	dir := t.TempDir()
	if err := WriteMLX(dir, a, testBase(false)); err != nil {
		t.Fatal(err)
	}
	got, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a.Whole, got.Whole); d != "" || len(got.Pairs) > 0 {
		t.Errorf("%d pairs; parameters (-want +got):\n%s", len(got.Pairs), d)
	}
}

// mlxOf writes a folder of a configuration and tensors.
func mlxOf(t *testing.T, config string, ts ...safetensors.TensorData) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(filepath.Join(dir, mlxWeightsFile), ts, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestReadMLXRefuses(t *testing.T) {
	const q = "model.layers.0.self_attn.q_proj"
	one := func(suffix string, shape ...int) safetensors.TensorData {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return tensorData(q+suffix, make([]float32, n), shape...)
	}
	a, b := one(".lora_a", 6, 2), one(".lora_b", 2, 8)
	nan := float32(0)
	nan /= nan
	bad := tensorData(q+".lora_b", slices.Repeat([]float32{nan}, 16), 2, 8)
	const lora = `{"fine_tune_type":"lora","lora_parameters":{"rank":2,"scale":4}}`
	for name, c := range map[string]struct {
		config string
		ts     []safetensors.TensorData
		want   string
	}{
		"no scale":     {`{"fine_tune_type":"lora","lora_parameters":{"rank":2}}`, []safetensors.TensorData{a, b}, "no lora_parameters with a rank and a scale"},
		"unknown type": {`{"fine_tune_type":"rosa"}`, []safetensors.TensorData{a, b}, `fine_tune_type "rosa"; lora, dora and full are known`},
		"no JSON":      {`{`, []safetensors.TensorData{a, b}, "adapter_config.json"},
		"half":         {lora, []safetensors.TensorData{a}, "lacks its .lora_a or its .lora_b"},
		"ranks":        {lora, []safetensors.TensorData{a, one(".lora_b", 3, 8)}, "the ranks 2 and 3 differ"},
		"config":       {`{"lora_parameters":{"rank":9,"scale":4}}`, []safetensors.TensorData{a, b}, `rank 2 in adapters.safetensors, but adapter_config.json says 9`},
		"experts":      {lora, []safetensors.TensorData{one(".lora_a", 2, 6, 2), b}, "not two matrices"},
		"no magnitude": {`{"fine_tune_type":"dora","lora_parameters":{"rank":2,"scale":4}}`, []safetensors.TensorData{a, b}, "magnitudes: false"},
		"a magnitude":  {lora, []safetensors.TensorData{a, b, one(".m", 8)}, "magnitudes: true"},
		"a parameter":  {lora, []safetensors.TensorData{a, b, one(".weight", 8, 6)}, `no part of an adapter of type "lora"`},
		"empty":        {lora, nil, "holds 0 pairs"},
		"NaN":          {lora, []safetensors.TensorData{a, bad}, "holds NaN at row 0, column 0; the run that made it diverged"},
		"both":         {`{"fine_tune_type":"full"}`, []safetensors.TensorData{a, b}, "holds 1 pairs"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(mlxOf(t, c.config, c.ts...))
			wantError(t, err, c.want)
		})
	}
	got, err := Open(mlxOf(t, `{"lora_parameters":{"rank":2,"scale":4,"keys":["self_attn.q_proj"]},"num_layers":16,"seed":0}`, a, b))
	if err != nil || got.Pairs[0].Scale != 4 {
		t.Errorf("an adapter with arguments of its run: error %v", err)
	}
}

func FuzzReadMLX(f *testing.F) {
	for _, name := range []string{"mixed", "dora", "table", "noted"} {
		dir := f.TempDir()
		if err := WriteMLX(dir, testVariants()[name], testBase(false)); err != nil {
			f.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, configFile))
		if err != nil {
			f.Fatal(err)
		}
		weights, err := os.ReadFile(filepath.Join(dir, mlxWeightsFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(config, weights)
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		file, err := safetensors.NewFile(bytes.NewReader(weights), int64(len(weights)))
		if err != nil {
			return
		}
		c, err := parseMLX(config)
		if err != nil {
			return
		}
		a, err := assembleMLX(c, file)
		if err != nil {
			return
		}
		if _, err := a.Resolve(testBase(false)); err != nil {
			return
		}
		dir := t.TempDir()
		if err := WriteMLX(dir, a, testBase(false)); err != nil {
			return // MLX would take it, and Graft writes nothing that normalizes half
		}
		b, err := ReadMLX(dir)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if len(a.Pairs) != len(b.Pairs) || len(a.Whole) != len(b.Whole) {
			t.Fatalf("%d pairs became %d", len(a.Pairs), len(b.Pairs))
		}
	})
}
