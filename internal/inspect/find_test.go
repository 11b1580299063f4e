package inspect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/onnx"
	"github.com/graftml/graft/safetensors"
)

// This file provokes findings in all but folders, which check_test.go does.

// findInGGUF gives a GGUF file wrong keys, and too few tensors.
func findInGGUF(t *testing.T, p provoked) {
	t.Helper()
	m := named(t, "llama")
	c, err := checkpoint.Open(folder(t, "llama"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sound := filepath.Join(t.TempDir(), "sound.gguf")
	if _, err := checkpoint.Write(context.Background(), c, sound, checkpoint.Options{Form: checkpoint.GGUF}); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(sound)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shape := map[string]bool{}
	for _, k := range m.Config().GGUFKeys() {
		shape[k.Name] = true
	}
	for _, d := range []struct {
		name     string
		severity Severity
		code     string
		kv       gguf.KV
		without  bool // of the key, and not another value for it
	}{
		{"types for half of the tokens", Error, "tokenizer-lists", gguf.Entry("tokenizer.ggml.token_type", make([]int32, 150)), false},
		{"an end out of range", Error, "special-id-range", gguf.Entry("tokenizer.ggml.eos_token_id", uint32(70000)), false},
		{"a key of another type", Error, "key-type", gguf.Entry("tokenizer.ggml.bos_token_id", "one"), false},
		{"fewer tokens than rows", Error, "tokenizer-size", gguf.Entry("tokenizer.ggml.tokens", []string{"a", "b"}), false},
		{"no tokens", Warning, "key-missing", gguf.KV{Key: "tokenizer.ggml.tokens"}, true},
		{"no pre-tokenizer", Warning, "key-missing", gguf.KV{Key: "tokenizer.ggml.pre"}, true},
		{"no file type", Note, "key-missing", gguf.KV{Key: "general.file_type"}, true},
	} {
		var extra []gguf.KV
		for _, kv := range f.KVs() {
			if kv.Key != d.kv.Key && !shape[kv.Key] && (!strings.HasPrefix(kv.Key, "general.") || kv.Key == "general.license") {
				extra = append(extra, kv)
			}
		}
		if !d.without {
			extra = append(extra, d.kv)
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := m.WriteGGUF(path, extra...); err != nil {
			t.Fatal(err)
		}
		p.expect(t, d.name, path, Options{}, d.severity, d.code)
	}

	// Of an architecture that is not known, what the keys and most blocks say.
	var tensors []gguf.TensorData
	for block := range 8 {
		for _, stem := range []string{"ffn_up.weight", "ffn_down.weight"} {
			if block != 5 || stem != "ffn_up.weight" {
				tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: fmt.Sprintf("blk.%d.%s", block, stem), Type: gguf.F32, Dims: []int64{2}}, Data: []byte{0, 0, 0, 1, 0, 0, 0, 2}})
			}
		}
	}
	path := filepath.Join(t.TempDir(), "unknown.gguf")
	if err := gguf.Write(path, []gguf.KV{gguf.Entry("general.architecture", "unheard-of"), gguf.Entry("unheard-of.block_count", uint32(9))}, tensors); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "a tensor less in one block", path, Options{}, Warning, "block-tensor-missing")
	p.expect(t, "a block less", path, Options{}, Error, "block-count")
	p.expect(t, "no context length", path, Options{}, Error, "key-missing")
	if err := gguf.Write(path, nil, tensors); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "no architecture", path, Options{}, Error, "key-missing")
	if f := found(look(t, path, Options{Check: true}), Error, "key-missing"); f.Place != "general.architecture" {
		t.Errorf("no architecture: %v", f)
	}
}

// findInAdapters damages adapters of every form.
func findInAdapters(t *testing.T, p provoked) {
	t.Helper()
	pairs := func(b float32) *adapters.Adapter {
		a := &adapters.Adapter{Config: adapters.Config{R: 2, Alpha: 4}, Pairs: []adapters.Pair{{Module: "model.layers.0.self_attn.q_proj", R: 2, In: 3, Out: 4, Scale: 2,
			A: testmodel.Draw("a", 6), B: testmodel.Draw("b", 8)}}}
		for i := range a.Pairs[0].B {
			a.Pairs[0].B[i] *= b
		}
		return a
	}
	peft := func(a *adapters.Adapter) string {
		dir := filepath.Join(t.TempDir(), "adapter")
		if err := adapters.WritePEFT(dir, a); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := peft(pairs(1))
	r := look(t, dir, Options{Check: true, Stats: true, Against: dir})
	if len(r.Errors()) > 0 || r.Rank != 2 || r.Alpha != 4 || r.Parameters != 14 || r.Modules["q_proj"] != 1 || r.Types["F32"] != 2 || r.Total == nil || r.Bytes != 56 || !r.TotalError.Identical {
		t.Errorf("a sound adapter: %+v", r)
	}
	for _, file := range []string{peftConfigFile, peftWeightsFile} {
		if one := look(t, filepath.Join(dir, file), Options{}); one.Rank != 2 || len(one.Tensors) != 2 {
			t.Errorf("named by its %s: %+v", file, one)
		}
	}
	p.expect(t, "an adapter of no base", dir, Options{}, Note, "adapter-base-missing")
	p.expect(t, "an untrained adapter", peft(pairs(0)), Options{}, Warning, "adapter-zero")
	jsonFile(peftConfigFile, func(m map[string]any) {
		m["use_qalora"], m["base_model_name_or_path"], m["target_modules"] = true, "base", []string{"q_proj"}
	})(t, dir)
	p.expect(t, "an adapter of another kind", dir, Options{}, Warning, "unsupported")
	if r := look(t, dir, Options{}); r.Rank != 2 || r.Alpha != 4 || r.BaseModel != "base" || len(r.Targets) != 1 || r.Parameters != 14 {
		t.Errorf("an adapter of another kind: %+v", r)
	}
	dir = peft(pairs(1))
	set(peftConfigFile, "r", 3)(t, dir)
	p.expect(t, "an adapter of another rank", dir, Options{}, Error, "refused")
	dir = peft(pairs(float32(math.Inf(1))))
	p.expect(t, "an adapter with infinities", dir, Options{}, Error, "not-finite")
	p.expect(t, "an adapter with infinities", dir, Options{}, Error, "refused")

	half := gguf.TensorData{Spec: gguf.Spec{Name: "blk.0.attn_q.weight.lora_a", Type: gguf.F32, Dims: []int64{3, 2}}, Data: make([]byte, 24)}
	for _, c := range []struct {
		code string
		keys []gguf.KV
	}{
		{"adapter-half", []gguf.KV{gguf.Entry("adapter.type", "lora"), gguf.Entry("adapter.lora.alpha", float32(4))}},
		{"adapter-alpha", []gguf.KV{gguf.Entry("adapter.type", "lora")}},
		{"adapter-type", []gguf.KV{gguf.Entry("adapter.type", "control"), gguf.Entry("adapter.lora.alpha", float32(4))}},
	} {
		path := filepath.Join(t.TempDir(), "lora.gguf")
		if err := gguf.Write(path, append([]gguf.KV{gguf.Entry("general.architecture", "llama"), gguf.Entry("general.type", "adapter")}, c.keys...), []gguf.TensorData{half}); err != nil {
			t.Fatal(err)
		}
		p.expect(t, "LoRA matrices", path, Options{}, Error, c.code)
		if r := look(t, path, Options{}); r.Kind != "adapter" || r.Rank != 2 || r.Modules["attn_q"] != 1 {
			t.Errorf("LoRA matrices: %+v", r)
		}
	}

	onnxFile := filepath.Join(t.TempDir(), "a.onnx_adapter")
	if err := adapters.WriteONNX(onnxFile, []adapters.Tensor{{Name: "x", Shape: []int{2, 2}, Data: []float32{1, 2, float32(math.NaN()), 4}}}); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "matrices for a graph", onnxFile, Options{Stats: true}, Error, "not-finite")
}

// findInBundles damages a bundle.
func findInBundles(t *testing.T, p provoked) {
	t.Helper()
	from := folder(t, "llama")
	c, err := checkpoint.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := onnx.Export(context.Background(), dir, onnx.Options{Config: config, Weights: c, Targets: []string{"q_proj"}, Files: testmodel.TokenizerFiles()}); err != nil {
		t.Fatal(err)
	}
	b, err := onnx.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := b.Slots()[0]
	a := &adapters.Adapter{Config: adapters.Config{R: 2, Alpha: 2}, Pairs: []adapters.Pair{{Module: s.Module, R: 2, In: s.In, Out: s.Out, Scale: 1, A: testmodel.Draw("a", 2*s.In), B: testmodel.Draw("b", 2*s.Out)}}}
	if err := b.Add("one", a, nil); err != nil {
		t.Fatal(err)
	}
	r := look(t, dir, Options{Check: true, Stats: true, Tensors: true})
	if len(r.Errors()) > 0 || r.Arch != "llama" || r.Layers != 2 || !r.Template || len(r.Adapters) != 1 || r.Bytes == 0 || len(r.Tensors) < 2 || r.Tensors[0].File != "adapters/one.onnx_adapter" || r.Tensors[0].Stats == nil {
		t.Errorf("a sound bundle: %+v", r)
	}
	if _, err := Path(context.Background(), dir, Options{Against: dir}); err == nil {
		t.Error("a bundle was compared value by value")
	}
	write(t, dir, "adapters/one.onnx_adapter", []byte("x"))
	p.expect(t, "another file", dir, Options{}, Error, "bundle-adapter")
	write(t, dir, "genai_config.json", []byte("["))
	p.expect(t, "a broken configuration", dir, Options{}, Error, "config-invalid")
}

// findInData looks at rows that cannot all be meant.
func findInData(t *testing.T, p provoked) {
	t.Helper()
	dir := t.TempDir()
	row := `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}` + "\n"
	long := fmt.Sprintf(`{"messages": [{"role": "user", "content": %q}, {"role": "assistant", "content": "ho"}]}`, strings.Repeat("x", 400)) + "\n"
	empty := `{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "ho"}]}` + "\n"
	write(t, dir, "rows.jsonl", []byte(row+long+empty+row))
	path, o := filepath.Join(dir, "rows.jsonl"), Options{Model: folder(t, "llama")}
	p.expect(t, "a row twice", path, o, Warning, "data-duplicates")
	p.expect(t, "a row of no words", path, o, Warning, "data-empty-turn")
	p.expect(t, "a row that is too long", path, o, Warning, "data-too-long")
	r := look(t, path, o)
	if d := r.Data; d.Rows != 4 || d.Duplicates != 1 || d.TooLong != 1 || d.Context != 128 || d.Roles["user"] != 4 || d.Turns.Sum != 8 || d.Characters.Max != 402 || d.Tokens.Max < 400 || len(r.Findings) != 0 {
		t.Errorf("%+v, %v", d, r.Findings)
	}
	for _, o := range []Options{{Against: path}, {Model: "absent"}} {
		if _, err := Path(context.Background(), path, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	if _, err := Path(context.Background(), o.Model, Options{Model: o.Model}); err == nil {
		t.Error("the tokens of a model were counted")
	}
}

// findInValues compares models that do not fit, and reads tensors that cannot be read.
func findInValues(t *testing.T, p provoked) {
	t.Helper()
	file := func(dtype safetensors.DType, shape []int, data []byte) string {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		list := []safetensors.TensorData{{Spec: safetensors.Spec{Name: "x", DType: dtype, Shape: shape}, Data: data},
			{Spec: safetensors.Spec{Name: "y", DType: safetensors.F32, Shape: []int{2}}, Data: make([]byte, 8)}}
		if err := safetensors.Write(path, list, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two, four := file(safetensors.F32, []int{2}, make([]byte, 8)), file(safetensors.F32, []int{4}, make([]byte, 16))
	p.expect(t, "another shape", two, Options{Against: four}, Error, "shape-differs")
	numbers := file(safetensors.I64, []int{2}, make([]byte, 16))
	p.expect(t, "whole numbers", numbers, Options{}, Warning, "tensor-type")
	// A tensor that the other file has in a form that is not decoded is measured, and not compared.
	r := look(t, two, Options{Stats: true, Against: numbers})
	if !slices.Equal(r.NotCompared, []string{"x"}) || tensor(t, r, "x").Stats == nil || tensor(t, r, "y").Error == nil {
		t.Errorf("against whole numbers: %+v", r)
	}
	if _, err := Path(context.Background(), two, Options{Against: folder(t, "llama")}); err == nil || !strings.Contains(err.Error(), "no tensor in common") {
		t.Errorf("against another model: %v", err)
	}
	broken := &Report{Kind: "model"}
	w := &weight{Tensor: Tensor{Name: "x", Shape: []int{2}}, rows: 1, cols: 2, unit: 1, read: func(*[]byte, []float32, int) error { return errors.New("the disk is gone") }}
	if err := broken.measureValues(context.Background(), &weights{list: []*weight{w}}, Options{Check: true}); err != nil {
		t.Fatal(err)
	}
	if f := found(broken, Error, "tensor-unreadable"); f == nil || !strings.Contains(f.Message, "the disk is gone") {
		t.Errorf("a disk that is gone: %v", broken.Findings)
	} else {
		p["error tensor-unreadable"] = true
	}
}
