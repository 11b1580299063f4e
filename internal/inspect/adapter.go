package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
)

// This file describes adapters in their three forms.

const (
	peftConfigFile  = "adapter_config.json"
	peftWeightsFile = "adapter_model.safetensors"
	mlxWeightsFile  = "adapters.safetensors"
)

// peftFolder is the folder of PEFT or MLX that a path is, or is one of the two files of; "" for anything else.
func peftFolder(path string) string {
	for _, name := range []string{peftConfigFile, peftWeightsFile, mlxWeightsFile} {
		if filepath.Base(path) == name {
			return filepath.Dir(path)
		}
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return path
		}
	}
	return ""
}

// lastPart is what a module is called in its block.
func lastPart(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }

// describePEFT describes a folder of PEFT, from its headers alone where package adapters refuses it.
func describePEFT(ctx context.Context, path string, o Options) (*Report, error) {
	a, refused := adapters.Open(path)
	dir := peftFolder(path)
	h, err := openHeaders(dir)
	if err != nil {
		return nil, cmp.Or(refused, err)
	}
	defer h.Close()
	r := &Report{Kind: "adapter", Path: path, Form: "peft", Modules: map[string]int{}}
	ws := headerWeights(h)
	for _, w := range ws.list {
		r.Parameters += int64(w.values())
	}
	if refused != nil {
		if err := r.peftKeys(dir); err != nil {
			return nil, err
		}
		r.refuse(refused)
		return r, r.measureAll(ctx, h, ws, o)
	}
	if adapters.IsMLX(dir) {
		r.Form = "mlx"
	}
	for i := range a.Whole {
		r.Also = append(r.Also, a.Whole[i].Name)
	}
	for i := range a.Rows {
		r.Also = append(r.Also, fmt.Sprintf("%d rows of %s", len(a.Rows[i].Indices), a.Rows[i].Module))
	}
	r.DoRA = slices.ContainsFunc(a.Pairs, func(p adapters.Pair) bool { return p.Magnitude != nil })
	r.Rank, r.Alpha, r.Targets, r.BaseModel = a.Config.R, a.Config.Alpha, a.Config.TargetModules, a.Config.BaseModel
	for i := range a.Pairs {
		r.Modules[lastPart(a.Pairs[i].Module)]++
	}
	if o.Check && r.BaseModel == "" {
		r.find(Note, "adapter-base-missing", peftConfigFile, "write it down, so that others know what the adapter is for", "it has no base_model_name_or_path")
	}
	return r, r.measureAll(ctx, h, ws, o)
}

// peftKeys fills in what an adapter_config.json says, whatever kind of adapter it describes.
func (r *Report) peftKeys(dir string) error {
	files, err := folderFiles(dir)
	if err != nil {
		return err
	}
	var keys map[string]any
	_ = json.Unmarshal(files[peftConfigFile], &keys) // the refusal says what does not parse
	number := func(key string) float64 { v, _ := keys[key].(float64); return v }
	r.Rank, r.Alpha = int(max(-1, min(number("r"), 1<<30))), number("lora_alpha")
	r.BaseModel, _ = keys["base_model_name_or_path"].(string)
	list, _ := keys["target_modules"].([]any)
	for _, v := range list {
		if name, ok := v.(string); ok {
			r.Targets = append(r.Targets, name)
		}
	}
	return nil
}

// refuse notes why a model or an adapter cannot be opened as one.
func (r *Report) refuse(err error) {
	if unsupported(err) {
		r.find(Warning, "unsupported", "", "use a newer version, or another tool", "this version cannot run it: %v", err)
		return
	}
	r.find(Error, "refused", "", "download or make it again", "it cannot be opened as %s: %v", map[string]string{"model": "a model", "adapter": "an adapter"}[r.Kind], err)
}

func describeONNXAdapter(path string, o Options) (*Report, error) {
	tensors, err := adapters.ReadONNX(path)
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "adapter", Path: path, Form: "onnx_adapter", Checked: o.Check}
	for i := range tensors {
		r.addTensor(&tensors[i], "", o)
	}
	return r, nil
}

// addTensor adds a tensor of an .onnx_adapter file, which is read whole.
func (r *Report) addTensor(t *adapters.Tensor, file string, o Options) {
	s := statsOf(t.Data, 0)
	s.finish()
	x := Tensor{Name: t.Name, Shape: t.Shape, Type: "F32", Bytes: int64(4 * len(t.Data)), File: file}
	if o.Stats {
		x.Stats = &s
	}
	if o.Check {
		r.checkValues(&x, &s)
	}
	r.Tensors = append(r.Tensors, x)
	if r.Kind == "adapter" {
		r.Parameters, r.Bytes = r.Parameters+int64(len(t.Data)), r.Bytes+x.Bytes
	}
}

// describeGGUFAdapter describes a GGUF file of LoRA matrices.
func describeGGUFAdapter(ctx context.Context, path string, h *headers, o Options) (*Report, error) {
	f := h.gguf
	r := &Report{Kind: "adapter", Path: path, Form: "gguf", Modules: map[string]int{}}
	var errs []error
	get := func(key string, to *string) {
		v, _, err := gguf.Value[string](f, key)
		*to, errs = v, append(errs, err)
	}
	var adapterKind string
	get("general.architecture", &r.Arch)
	get("general.name", &r.Name)
	get("general.license", &r.License)
	get("general.base_model.0.name", &r.BaseModel)
	get("adapter.type", &adapterKind)
	alpha, haveAlpha, err := gguf.Value[float32](f, "adapter.lora.alpha")
	r.Alpha = float64(alpha)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("inspect: opening %q: %w", path, err)
	}
	bases := map[string]int{} // halves of each pair
	for _, t := range f.Tensors() {
		r.Parameters += t.Elements()
		base, isA := strings.CutSuffix(t.Name, ".lora_a")
		if b, isB := strings.CutSuffix(t.Name, ".lora_b"); isB {
			base = b
		} else if !isA {
			continue
		}
		if bases[base]++; isA && len(t.Dims) == 2 {
			r.Rank = max(r.Rank, int(t.Dims[1]))
			r.Modules[lastPart(strings.TrimSuffix(base, ".weight"))]++
		}
	}
	if o.Check {
		r.checkGGUFAdapter(adapterKind, haveAlpha, bases)
	}
	return r, r.measureAll(ctx, h, headerWeights(h), o)
}

// checkGGUFAdapter judges what the header of a GGUF file of LoRA matrices says; halves counts the
// matrices of each pair.
func (r *Report) checkGGUFAdapter(adapterKind string, haveAlpha bool, halves map[string]int) {
	if adapterKind != "lora" {
		r.find(Error, "adapter-type", "adapter.type", "make the file again", "it is %q; only lora is known", adapterKind)
	}
	if !haveAlpha {
		r.find(Error, "adapter-alpha", "adapter.lora.alpha", "make the file again", "the key is missing, so the scale is unknown")
	}
	for _, base := range slices.Sorted(maps.Keys(halves)) {
		if halves[base] != 2 {
			r.find(Error, "adapter-half", fmt.Sprintf("tensor %q", base), "make the file again", "it has only one of lora_a and lora_b")
		}
	}
}
