package adapters

// Reading a LoRA adapter in GGUF, whoever wrote it.

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/quantize"
)

// IsGGUF reports whether the file at path begins as GGUF does.
func IsGGUF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [4]byte
	_, err = io.ReadFull(f, head[:])
	return err == nil && string(head[:]) == "GGUF"
}

// ReadGGUF reads a LoRA adapter in GGUF, its matrices in any type, as the adapter of a base. Gains of norms
// that some tools put beside them are left out: llama.cpp does not apply them either. The error wraps
// [ErrFormat] where the file is at fault, [ErrMismatch] where it is for another base and
// [ErrUnsupported] where it is something else.
func ReadGGUF(path string, names GGUFNames) (*Adapter, error) {
	f, err := gguf.OpenSet(path)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", path, err)
	}
	defer f.Close()
	a, err := fromGGUF(f, names)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", path, err)
	}
	a.Name = strings.TrimSuffix(filepath.Base(path), ".gguf")
	return a, nil
}

// ggufFile is a file in one part or in several.
type ggufFile interface {
	gguf.Metadata
	KVs() []gguf.KV
	Tensors() []gguf.Tensor
	ReadAt(t gguf.Tensor, p []byte, off int64) error
}

func fromGGUF(f ggufFile, names GGUFNames) (*Adapter, error) {
	text := func(key string) string {
		v, _, _ := gguf.Value[string](f, key)
		return v
	}
	if kind := text(ggufType); kind != "adapter" {
		return nil, fmt.Errorf("%w: general.type is %q; a LoRA's is \"adapter\", and a model is no adapter", ErrUnsupported, kind)
	}
	if kind := text(ggufKind); kind != "lora" {
		return nil, fmt.Errorf("%w: adapter.type is %q; only lora is known", ErrUnsupported, kind)
	}
	if _, ok := f.Get(ggufInvocation); ok {
		return nil, fmt.Errorf("%w: it has %s: an adapter active only after certain tokens (aLoRA)", ErrUnsupported, ggufInvocation)
	}
	if arch := text("general.architecture"); arch != names.Arch {
		return nil, fmt.Errorf("%w: it is for the architecture %q, and the base's is %q", ErrMismatch, arch, names.Arch)
	}
	alpha, _, err := gguf.Value[float32](f, ggufAlpha)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if alpha-alpha != 0 {
		return nil, fmt.Errorf("%w: %s is %v", ErrFormat, ggufAlpha, alpha)
	}
	found, err := ggufMatrices(f, names)
	if err != nil {
		return nil, err
	}
	a := &Adapter{Config: Config{Alpha: float64(alpha), BaseModel: text(ggufBaseName), BaseHash: text(ggufBaseHash), TaskType: "CAUSAL_LM"}}
	if a.Config.Notes, err = ggufNotesOf(f); err != nil {
		return nil, err
	}
	modules := names.modules()
	for name, t := range found {
		p, err := readGGUFPair(f, name, t)
		if err != nil {
			return nil, err
		}
		if p.Scale = 1; alpha != 0 {
			p.Scale = float64(alpha) / float64(p.R)
		}
		pairs := []Pair{p.Pair}
		if module := modules[name]; module != "" {
			pairs[0].Module = module
		} else if pairs, err = names.split(&p); err != nil {
			return nil, err
		}
		for i := range pairs {
			if err := names.unpermute(&pairs[i]); err != nil {
				return nil, err
			}
		}
		a.Pairs = append(a.Pairs, pairs...)
	}
	SortPairs(a.Pairs)
	for i := 1; i < len(a.Pairs); i++ {
		if a.Pairs[i].Module == a.Pairs[i-1].Module {
			return nil, fmt.Errorf("%w: %q is adapted by itself and as a part of a joint tensor", ErrFormat, a.Pairs[i].Module)
		}
	}
	setDefaults(a)
	return a, nil
}

// modules are the base's modules by the tensors that their weights are.
func (n *GGUFNames) modules() map[string]string {
	out := map[string]string{}
	for _, m := range n.Modules {
		if name, ok := n.Name(m + ".weight"); ok {
			out[name] = m
		}
	}
	return out
}

// ggufMatrices sorts the tensors of a file by the base's tensor that they change: its A and its B.
func ggufMatrices(f ggufFile, names GGUFNames) (map[string]*[2]gguf.Tensor, error) {
	modules, found := names.modules(), map[string]*[2]gguf.Tensor{}
	for _, t := range f.Tensors() {
		if strings.HasSuffix(t.Name, "_norm.weight") {
			continue
		}
		name, k := strings.TrimSuffix(t.Name, ggufSuffixA), 0
		if name == t.Name {
			name, k = strings.TrimSuffix(t.Name, ggufSuffixB), 1
		}
		switch {
		case name == t.Name:
			return nil, fmt.Errorf("%w: tensor %q is neither a %s nor a %s", ErrFormat, t.Name, ggufSuffixA, ggufSuffixB)
		case modules[name] == "" && names.Fused(name) == nil:
			return nil, fmt.Errorf("%w: it adapts %q, which the base does not have; was it made for another model?", ErrMismatch, name)
		case len(t.Dims) != 2 || t.Dims[0] < 1 || t.Dims[1] < 1:
			return nil, fmt.Errorf("%w: tensor %q has the dimensions %d, which are no matrix", ErrFormat, t.Name, t.Dims)
		}
		if found[name] == nil {
			found[name] = new([2]gguf.Tensor)
		}
		found[name][k] = t
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: it holds no pair of %s and %s tensors", ErrFormat, ggufSuffixA, ggufSuffixB)
	}
	return found, nil
}

// ggufNotesOf returns what the file says of what the adapter is for. Keys that change what it does and
// are not known are refused.
func ggufNotesOf(f ggufFile) (map[string]string, error) {
	var notes map[string]string
	for _, kv := range f.KVs() {
		if !strings.HasPrefix(kv.Key, "adapter.") || kv.Key == ggufKind || kv.Key == ggufAlpha {
			continue
		}
		text, ok := kv.Value.(string)
		if !ok || !strings.HasPrefix(kv.Key, ggufNotes) {
			return nil, fmt.Errorf("%w: it has the key %q, which is not known", ErrUnsupported, kv.Key)
		}
		if notes == nil {
			notes = map[string]string{}
		}
		notes[kv.Key] = text
	}
	return notes, nil
}

// readGGUFPair reads the two matrices that change a tensor of the base, as they stand in the file.
func readGGUFPair(f ggufFile, name string, t *[2]gguf.Tensor) (ggufPair, error) {
	for k, suffix := range []string{ggufSuffixA, ggufSuffixB} {
		if t[k].Name == "" {
			return ggufPair{}, fmt.Errorf("%w: %q is there without its %s", ErrFormat, t[1-k].Name, name+suffix)
		}
	}
	p := ggufPair{Pair{Module: name, Table: strings.HasPrefix(name, "token_embd."), R: int(t[1].Dims[0]), Out: int(t[1].Dims[1]), In: int(t[0].Dims[0])}}
	r := int(t[0].Dims[1])
	if p.Table {
		p.In, r = r, p.In
	}
	if r != p.R {
		return p, fmt.Errorf("%w: %q and %q have the ranks %d and %d", ErrFormat, t[0].Name, t[1].Name, r, p.R)
	}
	var err error
	if p.A, err = ggufValues(f, t[0]); err == nil {
		p.B, err = ggufValues(f, t[1])
	}
	if err == nil && p.Table {
		p.A = transpose(p.A, p.In, p.R)
	}
	if err == nil {
		err = p.validate()
	}
	return p, err
}

// unpermute brings the rows of B from the order of the file into the base's.
func (n *GGUFNames) unpermute(p *Pair) error {
	if p.Table {
		return nil
	}
	b := make([]float32, len(p.B))
	for row := range p.Out {
		from := n.Row(p.Weight(), row, p.Out)
		if from < 0 || from >= p.Out {
			return fmt.Errorf("%w: %q has %d rows there, which are no whole number of heads", ErrMismatch, p.Module, p.Out)
		}
		copy(b[row*p.R:(row+1)*p.R], p.B[from*p.R:])
	}
	p.B = b
	return nil
}

// ggufValues decodes a tensor.
func ggufValues(f ggufFile, t gguf.Tensor) ([]float32, error) {
	codec, err := quantize.Lookup(t.Type.String())
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	raw := make([]byte, t.Size)
	if err := f.ReadAt(t, raw, 0); err != nil {
		return nil, err
	}
	out := make([]float32, t.Elements())
	codec.Decode(out, raw)
	if i := slices.IndexFunc(out, func(v float32) bool { return v-v != 0 }); i >= 0 {
		return nil, fmt.Errorf("%w: tensor %q holds %v at value %d; the run that made it diverged", ErrFormat, t.Name, out[i], i)
	}
	return out, nil
}
