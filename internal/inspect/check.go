package inspect

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
)

// This file checks what a model's files say about its tensors; what they say about its text is in
// checktext.go.

// subject is a model to check.
type subject struct {
	r     *Report
	m     *checkpoint.Checkpoint // nil where package checkpoint refuses it
	h     *headers
	c     *model.Config     // nil where the configuration cannot be read
	files map[string][]byte // small files of a folder
}

// check reads all but the values.
func (s *subject) check(path string) error {
	if s.h.gguf != nil {
		s.checkKeys()
		s.checkBlocks()
	} else {
		files, err := folderFiles(path) // config.json and the index too
		if err != nil {
			return err
		}
		s.files = files
		s.checkFolder()
	}
	s.checkInventory()
	if err := s.checkHead(); err != nil {
		return err
	}
	s.checkText()
	if s.r.License == "" && s.m != nil {
		s.r.find(Note, "licence-missing", "", "name it: license in the front matter of README.md, or the GGUF key general.license", "no licence is named")
	}
	return nil
}

// checkValues judges the figures of one tensor.
func (r *Report) checkValues(t *Tensor, s *Stats) {
	place := fmt.Sprintf("tensor %q", t.Name)
	cols := 1
	if len(t.Shape) > 1 {
		_, cols = rowsOf(t.Shape)
	}
	switch {
	case s.NaN+s.Inf > 0:
		r.find(Error, "not-finite", place, "the checkpoint is damaged: download or make it again", "row %d, column %d is %v; %d of its %d values are not finite",
			s.first/max(1, cols), s.first%max(1, cols), s.value, s.NaN+s.Inf, s.Values)
	case s.Values > 1 && s.Zeros == s.Values:
		if r.Kind == "adapter" {
			r.find(Warning, "adapter-zero", place, "train it, or leave the module out", "all its values are zero: the module is not changed")
		} else if !strings.HasSuffix(t.Name, "bias") && r.Kind != "bundle" {
			r.find(Warning, "all-zero", place, "download or make the checkpoint again, unless that is meant", "all its values are zero")
		}
	case s.Values > 1 && s.Min == s.Max && len(t.Shape) > 1:
		r.find(Warning, "all-equal", place, "download or make the checkpoint again, unless that is meant", "all its values are %g", s.Min)
	}
	if top := max(math.Abs(s.Min), math.Abs(s.Max)); top > 65504 {
		r.find(Warning, "beyond-f16", place, "write it as bf16 or f32", "its largest value %g has no place in F16", top)
	}
}

// checkInventory compares a refused folder's tensors with what its configuration calls for: opening
// stops at the first that is wrong, and this names them all.
func (s *subject) checkInventory() {
	if s.m != nil || s.c == nil || s.h.gguf != nil {
		return
	}
	params, err := model.Inventory(s.c)
	if err != nil {
		return // the refusal says why
	}
	known := map[string]bool{}
	for _, p := range params {
		var t *stored
		for _, name := range s.c.FolderNames(p.Name) {
			known[name] = true
			t = cmp.Or(t, s.h.byName[name])
			for _, suffix := range []string{"qweight", "weight_packed"} { // codes in words
				t = cmp.Or(t, s.h.byName[strings.TrimSuffix(name, "weight")+suffix])
			}
		}
		place := fmt.Sprintf("tensor %q", p.Name)
		switch {
		case t == nil:
			s.r.find(Error, "tensor-missing", place, "download the model again, or correct config.json", "it is missing; its shape would be %v", p.Shape)
		case strings.HasSuffix(t.name, p.Name) && s.h.byName[t.name+".absmax"] == nil && !slices.Equal(t.shape, p.Shape):
			s.r.find(Error, "tensor-shape", place, "correct config.json, or download the model again", "its shape is %v, the configuration calls for %v", t.shape, p.Shape)
		}
	}
	for _, t := range s.h.tensors {
		if !known[t.name] && !s.besideWeight(t.name, known) {
			s.r.find(Error, "tensor-extra", fmt.Sprintf("tensor %q", t.name), "remove it, or correct config.json", "a %s model of this configuration has no such tensor", s.c.Arch)
		}
	}
}

// besideWeight reports whether a tensor of a folder is no parameter but belongs to one, or to none that
// is read: scales, codes in words, frequencies, another part of the model.
func (s *subject) besideWeight(name string, known map[string]bool) bool {
	if strings.HasSuffix(name, ".rotary_emb.inv_freq") || s.c.Foreign(name) || s.c.Tied && slices.Contains(s.c.FolderNames("lm_head.weight"), name) {
		return true
	}
	module, last := "", name
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		module, last = name[:i], name[i+1:]
	}
	return known[module] || // of a weight in 4 bits
		known[strings.TrimSuffix(module, ".quant_state")] ||
		last != "bias" && known[module+".weight"]
}

// checkBlocks finds blocks that lack a tensor most others have, in a GGUF file of any architecture.
func (s *subject) checkBlocks() {
	if s.m != nil {
		return
	}
	blocks, stems := map[string]bool{}, map[string]map[string]bool{}
	for _, t := range s.h.tensors {
		rest, ok := strings.CutPrefix(t.name, "blk.")
		n, stem, ok2 := strings.Cut(rest, ".")
		if !ok || !ok2 {
			continue
		}
		blocks[n] = true
		if stems[stem] == nil {
			stems[stem] = map[string]bool{}
		}
		stems[stem][n] = true
	}
	for _, stem := range slices.Sorted(maps.Keys(stems)) {
		have := stems[stem]
		if lack := len(blocks) - len(have); lack == 0 || lack > len(blocks)/4 {
			continue // kinds of blocks alternate in some families
		}
		for _, n := range slices.Sorted(maps.Keys(blocks)) {
			if !have[n] {
				s.r.find(Warning, "block-tensor-missing", fmt.Sprintf("tensor %q", "blk."+n+"."+stem), "download the file again", "block %s lacks it; %d of %d blocks have it", n, len(have), len(blocks))
			}
		}
	}
	if s.r.Layers > 0 && len(blocks) > 0 && s.r.Layers != len(blocks) {
		s.r.find(Error, "block-count", s.r.Arch+".block_count", "download the file again", "it is %d, but the file holds tensors of %d blocks", s.r.Layers, len(blocks))
	}
}

// checkHead finds a head that repeats the embedding table, or contradicts a configuration that ties it.
func (s *subject) checkHead() error {
	embedding, head := "model.embed_tokens.weight", "lm_head.weight"
	if s.h.gguf != nil {
		embedding, head = "token_embd.weight", "output.weight"
	}
	e, o := s.h.byName[embedding], s.h.byName[head]
	if e == nil || o == nil {
		return nil
	}
	same, err := sameBytes(e, o)
	place := fmt.Sprintf("tensor %q", head)
	switch {
	case err != nil:
		return fmt.Errorf("inspect: %w", err)
	case s.c != nil && s.c.Tied && !same && s.h.gguf == nil:
		s.r.find(Warning, "tied-head-differs", place, "remove the tensor, or set tie_word_embeddings to false", "the configuration ties the head to the embedding table, and so readers ignore this tensor, which is another")
	case same && (s.c == nil || !s.c.Tied):
		s.r.find(Note, "head-duplicate", place, "tie_word_embeddings and one copy would save its bytes", "it is byte for byte the embedding table")
	}
	return nil
}

// sameBytes compares two tensors as they are stored, to the first difference.
func sameBytes(a, b *stored) (bool, error) {
	if a.typ != b.typ || !slices.Equal(a.shape, b.shape) {
		return false, nil
	}
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < a.bytes; off += int64(len(x)) {
		n := min(int64(len(x)), a.bytes-off)
		if err := errors.Join(a.read(x[:n], off), b.read(y[:n], off)); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// checkFolder checks config.json, the index and the marks of the files.
func (s *subject) checkFolder() {
	r := s.r
	var keys map[string]jsontext.Value
	if err := json.Unmarshal(s.files["config.json"], &keys); err != nil {
		if s.files["config.json"] != nil {
			r.find(Error, "config-invalid", "config.json", "correct it", "%v", err)
		}
		return
	}
	if s.c == nil {
		if _, err := model.ParseConfig(s.files["config.json"]); err != nil && !unsupported(err) {
			r.find(Error, "config-invalid", "config.json", "correct it", "%v", err)
		}
	}
	var text map[string]jsontext.Value // of a model of several parts, what it says of the text model
	_ = json.Unmarshal(keys["text_config"], &text)
	maps.Copy(keys, text)
	theta := func(v jsontext.Value) bool {
		var inner map[string]jsontext.Value
		return json.Unmarshal(v, &inner) == nil && inner["rope_theta"] != nil
	}
	if s.c != nil && keys["rope_theta"] == nil && !theta(keys["rope_parameters"]) && !theta(keys["rope_scaling"]) {
		r.find(Warning, "rope-missing", "config.json", "add rope_theta as the model was trained with", "it has no rope_theta, and %g is taken", s.c.RopeTheta)
	}
	if keys["rms_norm_eps"] == nil && s.c != nil {
		r.find(Warning, "norm-epsilon-missing", "config.json", "add rms_norm_eps as the model was trained with", "it has no rms_norm_eps, and %g is taken", s.c.RMSEps)
	}
	if s.c != nil {
		if a, err := model.Lookup(s.c.Arch); err == nil {
			var classes []string
			_ = json.Unmarshal(keys["architectures"], &classes)
			if text == nil && len(classes) > 0 && !slices.Contains(classes, a.Class) {
				r.find(Warning, "architecture-class", "config.json", "use a checkpoint for causal language modelling", "architectures is %q; only %s is read", classes, a.Class)
			}
		}
		s.checkDType()
	}
	if s.h.meta["format"] == "" {
		r.find(Warning, "format-mark-missing", "", `write it with __metadata__ {"format": "pt"}`, "the safetensors files have no format in their metadata, and releases of transformers before 4.56 refuse them")
	}
	s.checkIndex()
}

// checkDType compares the number type that the configuration names with what most bytes are.
func (s *subject) checkDType() {
	want, ok := map[string]string{"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[s.c.DType]
	if !ok || s.h.meta == nil && len(s.h.tensors) == 0 {
		return
	}
	held := map[string]int64{}
	for _, t := range s.h.tensors {
		held[t.typ] += t.bytes
	}
	most := ""
	for _, typ := range slices.Sorted(maps.Keys(held)) {
		if most == "" || held[typ] > held[most] {
			most = typ
		}
	}
	if most != want && (most == "F32" || most == "BF16" || most == "F16") {
		s.r.find(Note, "dtype-differs", "config.json", "", "dtype is %s, but most of the bytes are %s", s.c.DType, most)
	}
}

// checkIndex compares the index's total_size with what the shards hold.
func (s *subject) checkIndex() {
	data := s.files["model.safetensors.index.json"]
	if data == nil || len(s.h.files) < 2 {
		return
	}
	var index struct {
		Metadata struct {
			Total *int64 `json:"total_size"`
		} `json:"metadata"`
	}
	var held int64
	for _, t := range s.h.tensors {
		held += t.bytes
	}
	if err := json.Unmarshal(data, &index); err == nil && index.Metadata.Total != nil && *index.Metadata.Total != held {
		s.r.find(Warning, "index-size", "model.safetensors.index.json", "write the model again", "total_size is %d, but the tensors have %d bytes", *index.Metadata.Total, held)
	}
}
