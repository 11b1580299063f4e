package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/quantize"
)

// TypeNames lists what Options.Type may be, in the order a person wants them: GGUF's mixes and
// codecs, then those of folders.
func TypeNames() string {
	names := []string{"f32", "f16", "bf16"}
	for _, m := range quantize.Mixes() {
		names = append(names, strings.ToLower(m))
	}
	for _, c := range quantize.Names() {
		name := strings.ToLower(c)
		if c, err := quantize.Lookup(c); err == nil && quantize.CanEncode(c) && name != "f64" && !slices.Contains(names, name) && !strings.HasSuffix(name, "_k") {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ") + "; for a folder f32, f16, bf16, nf4 or fp4"
}

// noType refuses a type that cannot be written.
func noType(name string) error {
	return fmt.Errorf("there is no type %q to write (%w); there are %s", name, quantize.ErrUnsupported, TypeNames())
}

// chooseMix looks Options.Type up, and where it is a mix lets it choose for every tensor.
func (w *writing) chooseMix() error {
	name := strings.ToUpper(w.o.Type)
	if w.o.Importance != nil && w.o.Form != GGUF {
		return fmt.Errorf("an importance matrix is for GGUF's types, not for a folder; write a .gguf")
	}
	if name == "" || name == "NF4" || name == "FP4" {
		return nil
	}
	mix, err := quantize.LookupMix(name)
	if err != nil {
		if _, err := quantize.LookupEncoder(name); err != nil {
			return noType(w.o.Type)
		}
		return nil
	}
	if w.o.Form != GGUF {
		return fmt.Errorf("a safetensors folder cannot hold type %s; choose f32, f16, bf16, nf4 or fp4, or write a .gguf", w.o.Type)
	}
	m, tensors, err := w.mixModel()
	if err != nil {
		return err
	}
	w.mix, w.mixed = &mix, map[string]string{}
	for i, typ := range mix.Types(m, tensors) {
		w.mixed[w.c.Tensors()[i].Name] = typ
	}
	return nil
}

// mixModel is the model as mixes see it, its tensors in their order.
func (w *writing) mixModel() (quantize.MixModel, []quantize.MixTensor, error) {
	c := w.c.Config()
	m := quantize.MixModel{Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads, Importance: w.o.Importance != nil}
	m.Arch, _ = c.GGUFKeys()[0].Value.(string)
	list := w.c.Tensors()
	tensors := make([]quantize.MixTensor, len(list))
	for i, t := range list {
		name, ok := c.GGUFName(t.Name)
		if !ok {
			return m, nil, fmt.Errorf("tensor %q has no name in GGUF", t.Name)
		}
		tensors[i] = quantize.MixTensor{Name: name, Shape: t.Shape}
	}
	return m, tensors, nil
}

// fileType is general.file_type: the mix's, where the tensors have the types that it gives them, else that
// of the type that most bytes have; false where that has no number.
func (w *writing) fileType() (uint32, bool) {
	if w.mix != nil && len(w.o.TensorTypes) == 0 {
		return w.mix.FileType(), true // others may give the same types
	}
	main := w.mainCodec()
	number, ok := fileTypes[main]
	if codec, err := quantize.Lookup(main); err != nil {
		return number, ok
	} else if elems, _ := codec.Block(); elems == 1 {
		return number, ok
	}
	m, tensors, err := w.mixModel()
	if err != nil {
		return number, ok
	}
	for _, name := range quantize.Mixes() {
		mix, err := quantize.LookupMix(name)
		if err != nil {
			continue
		}
		for _, m.Importance = range []bool{false, true} {
			if w.like(mix.Types(m, tensors)) {
				return mix.FileType(), true
			}
		}
	}
	return number, ok
}

// like reports whether the tensors have these types, "" standing for what a mix leaves alone.
func (w *writing) like(types []string) bool {
	for i, t := range w.tensors {
		if len(t.Shape) > 1 && types[i] != "" && types[i] != t.Codec {
			return false
		}
	}
	return true
}

// importance is what the importance matrix says of a tensor's columns; nil where it says nothing, and of
// blocks that have nothing to choose.
func (w *writing) importance(t *target) ([]float32, error) {
	if w.o.Importance == nil || len(t.Shape) < 2 {
		return nil, nil
	}
	if elems, _ := t.codec.Block(); elems == 1 {
		return nil, nil
	}
	name, _ := w.c.Config().GGUFName(t.Name)
	mean := w.o.Importance.Entries[name].Mean
	switch {
	case mean == nil || len(mean) == t.cols:
		return mean, nil
	case name == "token_embd.weight": // llama.cpp's older matrices have it wrong, and are read all the same
		return nil, nil
	}
	return nil, fmt.Errorf("the importance matrix has %d columns for %q, not %d; it is of another model", len(mean), name, t.cols)
}

// importanceKeys are what llama-quantize writes of the importance matrix it used.
func (w *writing) importanceKeys() []gguf.KV {
	m := w.o.Importance
	if m == nil {
		return nil
	}
	keys := []gguf.KV{gguf.Entry("quantize.imatrix.file", w.o.ImportanceFile)}
	if len(m.Datasets) > 0 {
		keys = append(keys, gguf.Entry("quantize.imatrix.dataset", m.Datasets[0]))
	}
	keys = append(keys, gguf.Entry("quantize.imatrix.entries_count", uint32(len(m.Entries))))
	if m.Chunks > 0 {
		keys = append(keys, gguf.Entry("quantize.imatrix.chunks_count", uint32(m.Chunks)))
	}
	return keys
}
