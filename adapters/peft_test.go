package adapters

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/safetensors"
)

const golden = "../testdata/golden/adapters"

// TestReadPEFT reads what PEFT saved and compares the change of every weight with PEFT's own.
func TestReadPEFT(t *testing.T) {
	for name, config := range map[string]Config{
		"plain":    {R: 4, Alpha: 8, Dropout: 0.1, TargetModules: []string{"q_proj", "v_proj"}, TaskType: "CAUSAL_LM"},
		"bf16":     {R: 4, Alpha: 8, Dropout: 0.1, TargetModules: []string{"q_proj", "v_proj"}, TaskType: "CAUSAL_LM"},
		"f16":      {R: 4, Alpha: 8, Dropout: 0.1, TargetModules: []string{"q_proj", "v_proj"}, TaskType: "CAUSAL_LM"},
		"patterns": {R: 4, Alpha: 6, RSLoRA: true, TaskType: "CAUSAL_LM"},
		"regex":    {R: 3, Alpha: 5, TaskType: "CAUSAL_LM"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := Open(filepath.Join(golden, "peft", name))
			if err != nil {
				t.Fatal(err)
			}
			if a.Name != name {
				t.Errorf("name %q, want %q", a.Name, name)
			}
			got := a.Config
			if name == "patterns" { // the list of full paths
				if len(got.TargetModules) != len(a.Pairs) {
					t.Errorf("%d target modules, %d pairs", len(got.TargetModules), len(a.Pairs))
				}
				got.TargetModules = nil
			}
			if d := cmp.Diff(config, got); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
			compareDeltas(t, a, filepath.Join(golden, "peft", name, "delta.safetensors"))
		})
	}
}

func compareDeltas(t *testing.T, a *Adapter, path string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := change(t, a)
	if len(f.Tensors()) != len(a.Pairs) {
		t.Fatalf("%d pairs, PEFT has %d", len(a.Pairs), len(f.Tensors()))
	}
	for _, ts := range f.Tensors() {
		want, err := floats(f, ts)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(want))
		if a.Pair(ts.Name) == nil {
			t.Fatalf("no pair for %q", ts.Name)
		}
		c.Apply(ts.Name+".weight", 0, ts.Shape[0], got)
		for i := range want {
			if math.Abs(float64(got[i]-want[i])) > 1e-6 {
				t.Fatalf("%s value %d: %v, PEFT has %v", ts.Name, i, got[i], want[i])
			}
		}
	}
}

// TestVariants reads adapters that PEFT saved and that are more than pairs, and writes them again: the
// same tensors under the same names, and what reads back is the same.
func TestVariants(t *testing.T) {
	for name, check := range map[string]func(*Adapter) bool{
		"dora":             func(a *Adapter) bool { return len(a.Pairs[0].Magnitude) == a.Pairs[0].Out },
		"modules_to_save":  func(a *Adapter) bool { return a.WholeOf("lm_head.weight") != nil && len(a.Whole) == 1 },
		"embedding":        func(a *Adapter) bool { return a.Pairs[0].Table && a.Pairs[0].In == 20 && a.Pairs[0].Out == 16 },
		"lora_bias":        func(a *Adapter) bool { return len(a.Pairs[0].Bias) == a.Pairs[0].Out },
		"trainable_tokens": func(a *Adapter) bool { return slices.Equal(a.TokenRows("model.embed_tokens").Indices, []int{3}) },
		"bias":             func(a *Adapter) bool { return len(a.Whole) == 0 }, // llama has no biases to train
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ReadPEFT(filepath.Join(golden, "variants", name))
			if err != nil {
				t.Fatal(err)
			}
			if !check(a) {
				t.Errorf("read as %+v", a)
			}
			dir := filepath.Join(t.TempDir(), name)
			if err := WritePEFT(dir, a); err != nil {
				t.Fatal(err)
			}
			b, err := ReadPEFT(dir)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(a, b); d != "" {
				t.Errorf("written and read again (-want +got):\n%s", d)
			}
			one, two := tensorsOf(t, filepath.Join(golden, "variants", name)), tensorsOf(t, dir)
			maps.DeleteFunc(one, func(name string, _ []byte) bool { return strings.Contains(name, ".base_layer.") })
			if d := cmp.Diff(one, two); d != "" {
				t.Errorf("tensors (-PEFT +Graft):\n%s", d)
			}
		})
	}
}

func tensorsOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]byte{}
	for _, ts := range f.Tensors() {
		data := make([]byte, ts.Size())
		if err := f.ReadAt(ts, data, 0); err != nil {
			t.Fatal(err)
		}
		out[ts.Name] = data
	}
	return out
}

// TestOtherKinds reads adapters that PEFT saved and that are not LoRA, or LoRA that computes something else.
func TestOtherKinds(t *testing.T) {
	for name, want := range map[string]string{
		"ia3": `peft_type "IA3"`, "loha": `peft_type "LOHA"`, "lokr": `peft_type "LOKR"`, "adalora": `peft_type "ADALORA"`, "vera": `peft_type "VERA"`,
		"pissa": "path_initial_model_for_weight_conversion", "kasa": "kasa_config is set", "alora": "alora_invocation_tokens is set",
		"qalora": "use_qalora is set", "replication": "layer_replication is set", "parameters": "target_parameters is set",
	} {
		if _, err := Open(filepath.Join(golden, "refused", name)); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, want)
		}
	}
}

// TestContradictions takes away what adapter_config.json says of what the tensors hold.
func TestContradictions(t *testing.T) {
	for name, want := range map[string]string{
		"dora":             "has a magnitude",
		"lora_bias":        "lora_bias is not set",
		"trainable_tokens": "names no rows of it",
	} {
		dir := t.TempDir()
		data, err := os.ReadFile(filepath.Join(golden, "variants", name, weightsFile))
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, weightsFile, data)
		write(t, dir, configFile, []byte(`{"peft_type":"LORA","r":2,"target_modules":["q_proj"]}`))
		if _, err := ReadPEFT(dir); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, want)
		}
	}
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestMalformedConfig(t *testing.T) {
	weights, err := os.ReadFile(filepath.Join(golden, "peft", "plain", weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config string
		class  error
		want   string
	}{
		{``, ErrFormat, "adapter_config.json"},
		{`[]`, ErrFormat, "adapter_config.json"},
		{`{"peft_type":"LORA","r":"4"}`, ErrFormat, "r"},
		{`{"peft_type":"LORA","r":4,"r":4}`, ErrFormat, "duplicate"},
		{`{"peft_type":"LORA","r":-1}`, ErrFormat, "r is -1"},
		{`{"peft_type":"LORA","r":16,"lora_alpha":8}`, ErrFormat, "has rank 4 in adapter_model.safetensors, but adapter_config.json says 16"},
		{`{"peft_type":"LORA","r":4,"rank_pattern":{"layers\\.1":4,"q_proj":8}}`, ErrFormat, `"model.layers.0.self_attn.q_proj" has rank 4`},
		{`{"peft_type":"LORA","r":4,"rank_pattern":{"(?=x)":8}}`, ErrFormat, "expression"},
		{`{"peft_type":"LORA","r":4,"rank_pattern":[1]}`, ErrFormat, "expressions"},
		{`{"peft_type":"LORA","r":4,"target_modules":4}`, ErrFormat, "target_modules"},
		{`{"peft_type":"LORA","r":4,"bias":7}`, ErrFormat, "bias"},
		{`{"peft_type":"IA3","r":4}`, ErrUnsupported, `peft_type "IA3"`},
		{`{"peft_type":"LORA","r":4,"init_lora_weights":"pissa_niter_4"}`, ErrUnsupported, "pissa_niter_4"},
		{`{"peft_type":"LORA","r":4,"use_bdlora":{"nblocks":2}}`, ErrUnsupported, "use_bdlora is set"},
	} {
		dir := t.TempDir()
		write(t, dir, weightsFile, weights)
		write(t, dir, configFile, []byte(c.config))
		_, err := ReadPEFT(dir)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %v with %q", c.config, err, c.class, c.want)
		}
	}
	for _, config := range []string{
		`{"peft_type":"LORA","r":4,"lora_alpha":8,"from_the_future":{"deep":[1]},"use_dora":false,"modules_to_save":[],"loftq_config":{},"alpha_pattern":null}`,
		`{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":"all-linear","init_lora_weights":"gaussian","bias":null}`,
		`{"peft_type":"LORA","r":4,"lora_alpha":8,"fan_in_fan_out":true}`, // PEFT takes it back on linear layers
	} {
		dir := t.TempDir()
		write(t, dir, weightsFile, weights)
		write(t, dir, configFile, []byte(config))
		if a, err := ReadPEFT(dir); err != nil || a.Pairs[0].Scale != 2 {
			t.Errorf("%s: error %v", config, err)
		}
	}
}

func TestMalformedWeights(t *testing.T) {
	a := tensorData(keyPrefix+"m.q"+partA.suffix(), []float32{1, 2, 3, 4, 5, 6}, 2, 3)
	b := tensorData(keyPrefix+"m.q"+partB.suffix(), []float32{1, 2}, 1, 2)
	nan := tensorData(keyPrefix+"m.q"+partA.suffix(), []float32{1, 2, 3, 4, float32(math.NaN()), 6}, 2, 3)
	narrow := tensorData(keyPrefix+"m.q"+partB.suffix(), []float32{1}, 1, 1)
	vector := tensorData(keyPrefix+"m.q"+partB.suffix(), []float32{1, 2}, 2)
	double := safetensors.TensorData{Spec: safetensors.Spec{Name: b.Name, DType: safetensors.F64, Shape: []int{1, 2}}, Data: make([]byte, 16)}
	bare := tensorData("m.q"+partA.suffix(), a64(6), 2, 3)
	nobody := tensorData(keyPrefix+partA.suffix(), a64(6), 2, 3)
	conv := tensorData(keyPrefix+"m.q"+partA.suffix(), a64(6), 2, 3, 1, 1)
	for _, c := range []struct {
		name    string
		tensors []safetensors.TensorData
		class   error
		want    string
	}{
		{"no tensors", nil, ErrFormat, "no pair"},
		{"A alone", []safetensors.TensorData{a}, ErrFormat, `is there without its base_model.model.m.q.lora_B.weight`},
		{"B alone", []safetensors.TensorData{b}, ErrFormat, `is there without its base_model.model.m.q.lora_A.weight`},
		{"ranks", []safetensors.TensorData{a, narrow}, ErrFormat, "the ranks 2 and 1 differ"},
		{"vector", []safetensors.TensorData{a, vector}, ErrFormat, "not two matrices"},
		{"NaN", []safetensors.TensorData{nan, b}, ErrFormat, `"base_model.model.m.q.lora_A.weight" holds NaN at row 1, column 1`},
		{"F64", []safetensors.TensorData{a, double}, ErrUnsupported, "is F64"},
		{"twice", []safetensors.TensorData{a, b, bare}, ErrFormat, "are the same"},
		{"no module", []safetensors.TensorData{nobody}, ErrFormat, "names no module"},
		{"convolution", []safetensors.TensorData{conv, b}, ErrUnsupported, "convolution"},
	} {
		dir := t.TempDir()
		write(t, dir, configFile, []byte(`{"peft_type":"LORA","r":2,"lora_alpha":2}`))
		if err := safetensors.Write(filepath.Join(dir, weightsFile), c.tensors, nil); err != nil {
			t.Fatal(err)
		}
		_, err := ReadPEFT(dir)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %v with %q", c.name, err, c.class, c.want)
		}
	}
}

func a64(n int) []float32 { return make([]float32, n) }

func TestOpenOther(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "m.gguf", []byte("GGUF\x03\x00\x00\x00"))
	write(t, dir, "x.txt", []byte("hello"))
	for path, want := range map[string]string{
		filepath.Join(dir, "m.gguf"):              "it is a GGUF file",
		filepath.Join(dir, "x.txt"):               "it is not an adapter",
		filepath.Join(golden, "ort.onnx_adapter"): "it is an ONNX Runtime adapter",
	} {
		if _, err := Open(path); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such path: error %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder without an adapter: error %v", err)
	}
	write(t, dir, configFile, []byte(`{"peft_type":"LORA"}`))
	write(t, dir, "adapter_model.bin", nil)
	if _, err := Open(dir); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "pickle") {
		t.Errorf("a pickle: error %v", err)
	}
	for _, file := range []string{configFile, weightsFile} {
		if a, err := Open(filepath.Join(golden, "peft", "plain", file)); err != nil || len(a.Pairs) != 4 {
			t.Errorf("%s: error %v", file, err)
		}
	}
}

// TestWritePEFT writes what was read and reads it again: ranks, scales and values must be the same.
func TestWritePEFT(t *testing.T) {
	for _, name := range []string{"plain", "bf16", "f16", "patterns", "regex"} {
		a, err := Open(filepath.Join(golden, "peft", name))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "deep", name)
		if err := WritePEFT(dir, a); err != nil {
			t.Fatal(err)
		}
		b, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a.Pairs, b.Pairs); d != "" {
			t.Errorf("%s (-written +read):\n%s", name, d)
		}
		compareDeltas(t, b, filepath.Join(golden, "peft", name, "delta.safetensors"))
		if name == "plain" { // float32 already: the very bytes of PEFT
			want, _ := os.ReadFile(filepath.Join(golden, "peft", name, weightsFile))
			if got, err := os.ReadFile(filepath.Join(dir, weightsFile)); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: the tensors' file is not PEFT's, error %v", name, err)
			}
		}
	}
}

// What PEFT would not load is not written.
func TestWritePEFTRefused(t *testing.T) {
	biased, table := random(7, "m.layers.0.q").Pairs[0], random(8, "m.embed_tokens").Pairs[0]
	biased.Bias, table.Table = make([]float32, biased.Out), true
	gained := random(9, "m.layers.0.q").Pairs[0]
	gained.Magnitude = make([]float32, gained.Out)
	for want, pairs := range map[string][]Pair{`a pair on the table "m.embed_tokens"`: {biased, table}, "where other modules are DoRA": {gained, table}} {
		dir := filepath.Join(t.TempDir(), "out")
		if err := WritePEFT(dir, &Adapter{Pairs: pairs}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("something was written")
		}
	}
}

func TestWrittenConfig(t *testing.T) {
	a := random(7, "m.layers.0.q", "m.layers.1.q")
	a.Config = Config{R: 4, Alpha: 8, Dropout: 0.05, TargetModules: []string{"q"}, BaseModel: "some/model", TaskType: "CAUSAL_LM"}
	a.Pairs[1].Scale = 0.75
	dir := t.TempDir()
	if err := WritePEFT(dir, a); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "alpha_pattern": {
    "m.layers.1.q": 3
  },
  "base_model_name_or_path": "some/model",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "lora_alpha": 8,
  "lora_dropout": 0.05,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 4,
  "rank_pattern": {},
  "target_modules": [
    "q"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}
`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, error %v", entries, err)
	}
	// A list that does not cover every pair would make PEFT leave some out.
	a.Config.TargetModules = []string{"1.q"}
	if got := targets(a); !slices.Equal(got, []string{"m.layers.0.q", "m.layers.1.q"}) {
		t.Errorf("targets %v", got)
	}
	if err := WritePEFT(t.TempDir(), &Adapter{}); !errors.Is(err, ErrFormat) {
		t.Errorf("an adapter without pairs: error %v", err)
	}
}

func FuzzReadPEFT(f *testing.F) {
	for _, name := range []string{"peft/plain", "peft/patterns", "peft/bf16", "variants/dora", "variants/embedding", "variants/trainable_tokens", "variants/modules_to_save"} {
		config, err := os.ReadFile(filepath.Join(golden, name, configFile))
		if err != nil {
			f.Fatal(err)
		}
		weights, err := os.ReadFile(filepath.Join(golden, name, weightsFile))
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
		c, err := parseConfig(config)
		if err != nil {
			return
		}
		a, err := assemble(c, file)
		if err != nil {
			return
		}
		v, err := a.variants()
		if err != nil {
			return
		}
		again, err := encodeConfig(a, v)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if c, err = parseConfig(again); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		b, err := assemble(c, file)
		if err != nil {
			t.Fatalf("what was written does not fit its tensors: %v", err)
		}
		for i := range a.Pairs { // scales may differ in the last bit
			if s := a.Pairs[i].Scale; math.Abs(s-b.Pairs[i].Scale) > 1e-9*math.Abs(s) {
				t.Fatalf("scale %v became %v", s, b.Pairs[i].Scale)
			}
			b.Pairs[i].Scale = a.Pairs[i].Scale
		}
		if d := cmp.Diff(a.Pairs, b.Pairs); d != "" {
			t.Fatal(d)
		}
	})
}

func tensorData(name string, v []float32, shape ...int) safetensors.TensorData {
	raw := make([]byte, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(raw[4*i:], math.Float32bits(x))
	}
	return safetensors.TensorData{Spec: safetensors.Spec{Name: name, DType: safetensors.F32, Shape: shape}, Data: raw}
}
