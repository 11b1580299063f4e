package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/onnx"
)

// Path describes what is at path. What it finds wrong stands in the report; the error is for paths
// that cannot be described at all.
func Path(ctx context.Context, path string, o Options) (*Report, error) {
	r, err := describe(ctx, path, o)
	if err != nil {
		return nil, err
	}
	r.sortFindings()
	return r, nil
}

func describe(ctx context.Context, path string, o Options) (*Report, error) {
	if onnx.IsBundle(path) {
		return describeBundle(path, o)
	}
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil || filepath.Base(path) == name {
			return describePEFT(path, o)
		}
	}
	kind, err := recognise(path)
	switch {
	case err != nil:
		return nil, err
	case kind == "safetensors":
		return describeTensors(ctx, path, o)
	case kind == "gguf":
		a, err := describeGGUFAdapter(ctx, path, o)
		if a != nil || err != nil {
			return a, err
		}
		return describeModel(ctx, path, o)
	case kind == "folder":
		return describeModel(ctx, path, o)
	case filepath.Ext(path) == ".onnx_adapter":
		return describeONNXAdapter(path, o)
	case isData(path):
		return describeData(path, o)
	}
	return nil, fmt.Errorf("inspect: opening %q: neither a model (a GGUF file, a folder of safetensors, an ONNX bundle), nor an adapter, nor data (.jsonl, .json, .txt, also .gz and .zst)", path)
}

// isData reports whether a file's name is that of training data, or of data that package dataset
// says how to convert.
func isData(path string) bool {
	name := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(filepath.Base(path)), ".gz"), ".zst")
	return slices.Contains([]string{".jsonl", ".ndjson", ".json", ".txt", ".md", ".csv", ".tsv", ".parquet", ".arrow", ".feather"}, filepath.Ext(name))
}

// describeTensors describes a safetensors file that is no whole model.
func describeTensors(ctx context.Context, path string, o Options) (*Report, error) {
	h, err := openHeaders(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	r := &Report{Kind: "tensors", Path: path, Form: h.form}
	return r, r.measureAll(ctx, h, headerWeights(h), o)
}

func describePEFT(path string, o Options) (*Report, error) {
	a, err := adapters.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "adapter", Path: path, Form: "peft", Parameters: int64(a.Parameters()), Rank: a.Config.R, Alpha: a.Config.Alpha,
		Targets: a.Config.TargetModules, BaseModel: a.Config.BaseModel, Modules: map[string]int{}}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		r.Modules[p.Module[strings.LastIndexByte(p.Module, '.')+1:]]++
		tensors := []Tensor{{Name: p.Module + " A", Shape: []int{p.R, p.In}, Type: "F32"}, {Name: p.Module + " B", Shape: []int{p.Out, p.R}, Type: "F32"}}
		for k, v := range [][]float32{p.A, p.B} {
			s := statsOf(v, 0)
			s.finish()
			if o.Stats {
				tensors[k].Stats = &s
			}
			if o.Check && s.Zeros == s.Values {
				r.find(Warning, "adapter-zero", fmt.Sprintf("tensor %q", tensors[k].Name), "train it, or leave the module out", "all its values are zero: the module is not changed")
			}
		}
		r.Tensors = append(r.Tensors, tensors...)
	}
	if r.Checked = o.Check; o.Check && r.BaseModel == "" { // opening has read every value
		r.find(Note, "adapter-base-missing", "adapter_config.json", "write it down, so that others know what the adapter is for", "it has no base_model_name_or_path")
	}
	return r, nil
}

func describeONNXAdapter(path string, o Options) (*Report, error) {
	tensors, err := adapters.ReadONNX(path)
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "adapter", Path: path, Form: "onnx_adapter", Checked: o.Check}
	for _, t := range tensors {
		s := statsOf(t.Data, 0)
		s.finish()
		x := Tensor{Name: t.Name, Shape: t.Shape, Type: "F32", Bytes: int64(4 * len(t.Data))}
		if o.Stats {
			x.Stats = &s
		}
		if o.Check {
			r.checkValues(&x, &s)
		}
		r.Tensors, r.Parameters, r.Bytes = append(r.Tensors, x), r.Parameters+int64(len(t.Data)), r.Bytes+x.Bytes
	}
	return r, nil
}

// describeGGUFAdapter describes a GGUF file of LoRA matrices from its header, nil where the file is
// a model.
func describeGGUFAdapter(ctx context.Context, path string, o Options) (*Report, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("inspect: %w", err)
	}
	defer f.Close()
	if kind, _, err := gguf.Value[string](f, "general.type"); err != nil || kind != "adapter" {
		return nil, nil
	}
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
			stem := strings.TrimSuffix(base, ".weight")
			r.Modules[stem[strings.LastIndexByte(stem, '.')+1:]]++
		}
	}
	if o.Check {
		r.checkGGUFAdapter(adapterKind, haveAlpha, bases)
	}
	h, err := openHeaders(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return r, r.measureAll(ctx, h, headerWeights(h), o)
}

// checkGGUFAdapter judges what the header of a GGUF file of LoRA matrices says; halves counts the
// matrices of each pair.
func (r *Report) checkGGUFAdapter(adapterKind string, haveAlpha bool, halves map[string]int) {
	if adapterKind != "lora" {
		r.find(Error, "adapter-type", "adapter.type", "", "it is %q; only lora is known", adapterKind)
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

func describeBundle(path string, o Options) (*Report, error) {
	b, err := onnx.OpenBundle(path)
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "bundle", Path: path, Form: "onnx", Default: b.Default(), Checked: o.Check}
	for _, e := range b.Adapters() {
		r.Adapters = append(r.Adapters, e.Name)
		if !o.Check {
			continue
		}
		if _, err := b.Adapter(e.Name); err != nil {
			r.find(Error, "bundle-adapter", e.File, "add the adapter again (graft adapter add)", "%v", err)
		}
	}
	if info, err := os.Stat(b.ModelFile() + ".data"); err == nil {
		r.Bytes = info.Size()
	}
	if o.Check {
		files, err := folderFiles(path)
		if err != nil {
			return nil, err
		}
		tok := r.checkFolderTokenizer(files)
		if source := files["chat_template.jinja"]; source != nil {
			r.checkTemplate(string(source), tok, nil)
		}
	}
	return r, nil
}
