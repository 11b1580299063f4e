package inspect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
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
	kind, err := kindOf(path)
	if err != nil {
		return nil, err
	}
	if o.Model != "" && kind != "data" {
		return nil, fmt.Errorf("inspect: counting the tokens of %q: it is no training data", path)
	}
	if o.Against != "" && (kind == "data" || kind == "bundle" || kind == "onnx_adapter") {
		return nil, fmt.Errorf("inspect: comparing %q with %q: only models, adapters and files of tensors are compared value by value", path, o.Against)
	}
	switch kind {
	case "bundle":
		return describeBundle(path, o)
	case "peft":
		return describePEFT(ctx, path, o)
	case "safetensors":
		return describeTensors(ctx, path, o)
	case "gguf":
		return describeGGUF(ctx, path, o)
	case "folder":
		return describeModel(ctx, path, nil, o)
	case "onnx_adapter":
		return describeONNXAdapter(path, o)
	}
	return describeData(path, o)
}

// kindOf tells what a path is: "bundle", "peft", "safetensors", "gguf", "folder", "onnx_adapter" or "data".
func kindOf(path string) (string, error) {
	if onnx.IsBundle(path) {
		return "bundle", nil
	}
	if peftFolder(path) != "" {
		return "peft", nil
	}
	kind, err := recognise(path)
	switch {
	case err != nil || kind != "":
		return kind, err
	case filepath.Ext(path) == ".onnx_adapter":
		return "onnx_adapter", nil
	case isData(path):
		return "data", nil
	}
	return "", fmt.Errorf("inspect: opening %q: neither a model (a GGUF file, a folder of safetensors, an ONNX bundle), nor an adapter, nor data (.jsonl, .json, .txt, also .gz and .zst)", path)
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

// describeGGUF describes a GGUF file, a model or LoRA matrices.
func describeGGUF(ctx context.Context, path string, o Options) (*Report, error) {
	h, err := openHeaders(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if kind, _, err := gguf.Value[string](h.gguf, "general.type"); err == nil && kind == "adapter" {
		return describeGGUFAdapter(ctx, path, h, o)
	}
	return describeModel(ctx, path, h, o)
}

func describeBundle(path string, o Options) (*Report, error) {
	b, err := onnx.OpenBundle(path)
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "bundle", Path: path, Form: "onnx", Default: b.Default(), Modules: map[string]int{}, Checked: o.Check}
	for _, s := range b.Slots() {
		r.Modules[lastPart(s.Module)]++
	}
	for _, e := range b.Adapters() {
		r.Adapters = append(r.Adapters, e.Name)
		if !o.Check && !o.Stats && !o.Tensors {
			continue
		}
		tensors, err := b.Tensors(e.Name)
		if err != nil {
			r.find(Error, "bundle-adapter", e.File, "add the adapter again (graft adapter add)", "%v", err)
		}
		for i := range tensors {
			r.addTensor(&tensors[i], e.File, o)
		}
	}
	if info, err := os.Stat(b.ModelFile() + ".data"); err == nil {
		r.Bytes = info.Size()
	}
	files, err := folderFiles(path)
	if err != nil {
		return nil, err
	}
	r.Template = files["chat_template.jinja"] != nil
	r.genaiKeys(files["genai_config.json"])
	if o.Check {
		tok := r.checkTokenizer(checkpoint.FolderTokenizer(files))
		if source := r.folderTemplate(files); source != "" {
			r.checkTemplate(source, tok, nil)
		}
	}
	return r, nil
}

// genaiKeys fills in what the configuration of onnxruntime-genai says.
func (r *Report) genaiKeys(data []byte) {
	var c struct {
		Model struct {
			Type    string         `json:"type"`
			Context int            `json:"context_length"`
			Vocab   int            `json:"vocab_size"`
			EOS     jsontext.Value `json:"eos_token_id"`
			Decoder struct {
				Hidden  int `json:"hidden_size"`
				Layers  int `json:"num_hidden_layers"`
				Heads   int `json:"num_attention_heads"`
				KVHeads int `json:"num_key_value_heads"`
				HeadDim int `json:"head_size"`
			} `json:"decoder"`
		} `json:"model"`
	}
	if err := json.Unmarshal(data, &c); data != nil && err != nil {
		r.find(Error, "config-invalid", "genai_config.json", "write the bundle again", "%v", err)
		return
	}
	m, d := c.Model, c.Model.Decoder
	r.Arch, r.Context, r.Vocab, r.EOS, r.Hidden, r.Layers, r.Heads, r.KVHeads, r.HeadDim = m.Type, m.Context, m.Vocab, idList(m.EOS), d.Hidden, d.Layers, d.Heads, d.KVHeads, d.HeadDim
}
