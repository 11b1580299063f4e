package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/quantize"
)

// describeModel describes a model, from its headers alone where package checkpoint refuses it. Of a
// folder they are opened here, and h is nil.
func describeModel(ctx context.Context, path string, h *headers, o Options) (*Report, error) {
	m, refused := checkpoint.Open(path)
	if refused == nil {
		defer m.Close()
	}
	if h == nil {
		var err error
		if h, err = openHeaders(path); err != nil {
			return nil, cmp.Or(refused, err)
		}
		defer h.Close()
	}
	if refused != nil {
		return describeRefused(ctx, path, h, refused, o)
	}
	c := m.Config()
	n, err := c.Parameters()
	if err != nil {
		return nil, err
	}
	r := &Report{Kind: "model", Path: path, Form: string(m.Form), Name: m.Meta.Name, License: m.Meta.License, Parameters: n, Tokenizer: m.Meta.Tokenizer, Template: m.Meta.ChatTemplate != ""}
	r.configure(c)
	if o.Check {
		s := subject{r: r, m: m, h: h, c: c, files: m.Meta.Files}
		if err := s.check(path); err != nil {
			return nil, err
		}
	}
	return r, r.measureAll(ctx, h, modelWeights(m, h), o)
}

// configure fills in what a configuration says.
func (r *Report) configure(c *model.Config) {
	r.Arch, r.Layers, r.Hidden, r.Intermediate, r.Heads, r.KVHeads, r.HeadDim = c.Arch, c.Layers, c.Hidden, c.Intermediate, c.Heads, c.KVHeads, c.HeadDim
	r.Context, r.Vocab, r.Tied, r.EOS = c.Context, c.Vocab, c.Tied, c.EOS
	if c.BOS >= 0 {
		r.BOS = &c.BOS
	}
	r.Rope = "theta " + strconv.FormatFloat(c.RopeTheta, 'g', -1, 64)
	if s := c.RopeScaling; s != nil {
		r.Rope += fmt.Sprintf(", %s scaling", s.Type)
		if s.Factor != 0 {
			r.Rope += fmt.Sprintf(" by %g", s.Factor)
		}
	}
}

// unsupported reports whether an error says that a file may be fine but not known here.
func unsupported(err error) bool {
	for _, sentinel := range []error{model.ErrUnsupported, gguf.ErrUnsupported, quantize.ErrUnsupported, tokenizer.ErrUnsupported, adapters.ErrUnsupported} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// describeRefused describes a model that cannot be opened as one.
func describeRefused(ctx context.Context, path string, h *headers, refused error, o Options) (*Report, error) {
	r := &Report{Kind: "model", Path: path, Form: h.form}
	ws := headerWeights(h)
	for _, w := range ws.list {
		r.Parameters += int64(w.values())
	}
	s := subject{r: r, h: h}
	if h.gguf != nil {
		r.headerKeys(h.gguf)
	} else {
		var err error
		if s.files, err = folderFiles(path); err != nil {
			return nil, err
		}
		r.configKeys(s.files["config.json"])
		if c, err := model.ParseConfig(s.files["config.json"]); err == nil {
			s.c = c
			r.configure(c)
		}
	}
	r.refuse(refused)
	if o.Check {
		if err := s.check(path); err != nil {
			return nil, err
		}
	}
	return r, r.measureAll(ctx, h, ws, o)
}

// headerKeys fills in what the metadata of a GGUF file says, whatever the architecture.
func (r *Report) headerKeys(f *gguf.Set) {
	str := func(key string) string { v, _, _ := gguf.Value[string](f, key); return v }
	r.Arch, r.Name, r.License = str("general.architecture"), str("general.name"), str("general.license")
	r.Template = str("tokenizer.chat_template") != ""
	r.Tokenizer = strings.TrimSpace(str("tokenizer.ggml.model") + " " + str("tokenizer.ggml.pre"))
	for key, to := range map[string]*int{"block_count": &r.Layers, "embedding_length": &r.Hidden, "feed_forward_length": &r.Intermediate,
		"attention.head_count": &r.Heads, "attention.head_count_kv": &r.KVHeads, "attention.key_length": &r.HeadDim, "context_length": &r.Context} {
		v, _, _ := gguf.Value[uint32](f, r.Arch+"."+key)
		*to = int(v)
	}
	tokens, _, _ := gguf.Value[[]string](f, "tokenizer.ggml.tokens")
	r.Tokens = len(tokens)
}

// configKeys fills in what a config.json says, whatever the architecture.
func (r *Report) configKeys(data []byte) {
	var keys map[string]jsontext.Value
	_ = json.Unmarshal(data, &keys) // what does not parse is among the findings
	number := func(key string, to *int) { _ = json.Unmarshal(keys[key], to) }
	_ = json.Unmarshal(keys["model_type"], &r.Arch)
	for key, to := range map[string]*int{"num_hidden_layers": &r.Layers, "hidden_size": &r.Hidden, "intermediate_size": &r.Intermediate, "vocab_size": &r.Vocab,
		"num_attention_heads": &r.Heads, "num_key_value_heads": &r.KVHeads, "head_dim": &r.HeadDim, "max_position_embeddings": &r.Context} {
		number(key, to)
	}
}

// measureAll fills in the tensors: what they are, and what was asked about their values.
func (r *Report) measureAll(ctx context.Context, h *headers, ws *weights, o Options) error {
	r.Files, r.Bytes, r.Types = h.files, 0, map[string]int{}
	for _, s := range h.tensors {
		r.Bytes += s.bytes
	}
	for _, w := range ws.list {
		r.Types[w.Type]++
	}
	if r.Kind == "tensors" {
		for _, w := range ws.list {
			r.Parameters += int64(w.values())
		}
	}
	if r.Parameters > 0 {
		r.BitsPerWeight = 8 * float64(r.Bytes) / float64(r.Parameters)
	}
	if o.Check || o.Stats || o.Against != "" {
		if err := r.measureValues(ctx, ws, o); err != nil {
			return err
		}
	}
	for _, w := range ws.list {
		t := w.Tensor
		if !o.Stats {
			t.Stats = nil
		}
		r.Tensors = append(r.Tensors, t)
	}
	return nil
}

// measureValues reads every value.
func (r *Report) measureValues(ctx context.Context, ws *weights, o Options) error {
	var list []*measurement
	for _, w := range ws.list {
		list = append(list, &measurement{w: w, floor: floorShare})
	}
	if o.Against != "" {
		close, err := r.pairUp(list, o.Against)
		if err != nil {
			return err
		}
		defer close()
	}
	if err := measure(ctx, list, o.Progress); err != nil {
		return err
	}
	total, diff := Stats{Min: math.Inf(1), Max: math.Inf(-1), first: -1}, Difference{maxAt: -1}
	for _, m := range list {
		if s := m.w.Stats; s != nil {
			part := *s
			if part.finite() == 0 {
				part.Min, part.Max = math.Inf(1), math.Inf(-1)
			}
			total.join(part)
		}
		if e := m.w.Error; e != nil {
			diff.join(*e)
		}
	}
	if o.Stats && total.Values > 0 {
		total.finish()
		r.Total = &total
	}
	if diff.n > 0 {
		diff.finish(0, nil, 0)
		r.TotalError = &diff
	}
	r.Checked = o.Check
	for _, m := range list {
		switch err := m.w.unreadable; {
		case err == nil:
		case !unsupported(err):
			r.find(Error, "tensor-unreadable", fmt.Sprintf("tensor %q", m.w.Name), "download the file again", "%v", err)
		case o.Check:
			r.find(Warning, "tensor-type", fmt.Sprintf("tensor %q", m.w.Name), "", "its type %s is not decoded, so its values were not read", m.w.Type)
		}
		if o.Check && m.w.Stats != nil {
			r.checkValues(&m.w.Tensor, m.w.Stats)
		}
	}
	return nil
}

// pairUp opens the reference and gives each tensor its counterpart.
func (r *Report) pairUp(list []*measurement, path string) (close func(), err error) {
	ws, close, err := openWeights(path)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, m := range list {
		ref := ws.byName[m.w.Name]
		used[m.w.Name] = true
		switch {
		case ref == nil || ref.unreadable != nil:
			r.NotCompared = append(r.NotCompared, m.w.Name)
		case !slices.Equal(ref.Shape, m.w.Shape):
			r.find(Error, "shape-differs", fmt.Sprintf("tensor %q", m.w.Name), "compare checkpoints of the same model", "its shape is %v, in %q it is %v", m.w.Shape, path, ref.Shape)
		default:
			m.ref = ref
		}
	}
	if len(r.NotCompared) == len(list) && len(list) > 0 {
		close()
		return nil, fmt.Errorf("inspect: comparing %q with %q: they have no tensor in common", r.Path, path)
	}
	for _, w := range ws.list {
		if !used[w.Name] {
			r.NotCompared = append(r.NotCompared, w.Name)
		}
	}
	return close, nil
}

// openWeights opens the tensors of a model, or of a file of tensors.
func openWeights(path string) (*weights, func(), error) {
	m, err := checkpoint.Open(path)
	if err == nil {
		h, err := openHeaders(path)
		if err != nil {
			m.Close()
			return nil, nil, err
		}
		return modelWeights(m, h), func() { m.Close(); h.Close() }, nil
	}
	h, herr := openHeaders(path)
	if herr != nil {
		return nil, nil, err
	}
	return headerWeights(h), h.Close, nil
}

// smallFiles are the files of a folder that say what a model is.
var smallFiles = []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
	"chat_template.jinja", "model.safetensors.index.json", "README.md", "genai_config.json", peftConfigFile}

// maxSmallFile bounds what is read whole.
const maxSmallFile = 256 << 20

var errTooLarge = errors.New("too large to read whole")

func folderFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range smallFiles {
		data, err := wholefile.ReadFile(filepath.Join(dir, name), maxSmallFile, errTooLarge)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("inspect: opening %q: %w", dir, err)
		}
		files[name] = data
	}
	return files, nil
}
