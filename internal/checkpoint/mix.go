package checkpoint

import (
	"fmt"
	"slices"
	"strings"

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

// chooseMix looks Options.Type up, and where it is a mix lets it choose for every tensor.
func (w *writing) chooseMix() error {
	name := strings.ToUpper(w.o.Type)
	if name == "" || name == "NF4" || name == "FP4" {
		return nil
	}
	mix, err := quantize.LookupMix(name)
	if err != nil {
		if _, err := quantize.LookupEncoder(name); err != nil {
			return fmt.Errorf("there is no type %q to write; there are %s", w.o.Type, TypeNames())
		}
		return nil
	}
	if w.o.Form != GGUF {
		return fmt.Errorf("a safetensors folder cannot hold type %s; choose f32, f16, bf16, nf4 or fp4, or write a .gguf", w.o.Type)
	}
	c := w.c.Config()
	m := quantize.MixModel{Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads}
	m.Arch, _ = c.GGUFKeys()[0].Value.(string)
	list := w.c.Tensors()
	tensors := make([]quantize.MixTensor, len(list))
	for i, t := range list {
		name, ok := c.GGUFName(t.Name)
		if !ok {
			return fmt.Errorf("tensor %q has no name in GGUF", t.Name)
		}
		tensors[i] = quantize.MixTensor{Name: name, Shape: t.Shape}
	}
	w.mix, w.mixed = &mix, map[string]string{}
	for i, typ := range mix.Types(m, tensors) {
		w.mixed[list[i].Name] = typ
	}
	return nil
}
