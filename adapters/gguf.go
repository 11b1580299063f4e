package adapters

// A LoRA adapter as llama.cpp lays it out: a GGUF file with two matrices for each tensor of the base that
// it changes, and one alpha for all of them.

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/quantize"
)

// GGUFNames says what the parameters of a base are called in a GGUF file and how their rows lie there.
type GGUFNames struct {
	Arch    string   // general.architecture
	Modules []string // what can have a pair: products, the table and the head
	// Name returns the name of a weight in the file, "blk.0.attn_q.weight" for
	// "model.layers.0.self_attn.q_proj.weight", and false where it has none.
	Name func(weight string) (name string, ok bool)
	// Row returns the place in the file of a row of a weight of so many rows.
	Row func(weight string, row, rows int) int
}

// Keys of the file, beside general.architecture.
const (
	ggufType       = "general.type" // "adapter"
	ggufKind       = "adapter.type" // "lora"
	ggufAlpha      = "adapter.lora.alpha"
	ggufInvocation = "adapter.alora.invocation_tokens"
	ggufBaseHash   = "graft.base_sha256"
	ggufBaseName   = "general.base_model.0.name"
	ggufSuffixA    = ".lora_a"
	ggufSuffixB    = ".lora_b"
)

// instead is what to do with an adapter that another runtime cannot hold.
const instead = "merge it into its base (graft merge BASE ADAPTER -o OUT), or approximate it by plain LoRA (graft adapter convert --approximate R)"

// WriteGGUF writes the adapter as the GGUF file at path, whole or not at all, its matrices in a number
// type ("F32", "F16", "BF16", "Q8_0"; what does not divide into that type's blocks in F16).
//
// llama.cpp multiplies every pair by alpha over its rank, with one alpha for the file. That is chosen so
// that most pairs keep their B as it is; those of another scale (rsLoRA with ranks that differ, alpha
// patterns) have the ratio multiplied into B, which rounds each value once. The error wraps
// [ErrUnsupported] where llama.cpp has no such thing, and names the way around.
func WriteGGUF(path string, a *Adapter, b Base, names GGUFNames, typ string) error {
	if err := writeGGUF(path, a, b, names, typ); err != nil {
		return fmt.Errorf("adapters: writing %q: %w", path, err)
	}
	return nil
}

func writeGGUF(path string, a *Adapter, b Base, names GGUFNames, typ string) error {
	a, err := a.Resolve(b)
	if err != nil {
		return err
	}
	if err := ggufHolds(a, b); err != nil {
		return err
	}
	alpha := sharedAlpha(a.Pairs)
	kvs := []gguf.KV{
		gguf.Entry("general.architecture", names.Arch), gguf.Entry(ggufType, "adapter"), gguf.Entry(ggufKind, "lora"),
		gguf.Entry("general.name", a.Name), gguf.Entry(ggufAlpha, alpha), gguf.Entry("general.quantization_version", uint32(2)),
	}
	if a.Config.BaseModel != "" {
		kvs = append(kvs, gguf.Entry("general.base_model.count", uint32(1)), gguf.Entry(ggufBaseName, filepath.Base(a.Config.BaseModel)))
	}
	if a.Config.BaseHash != "" {
		kvs = append(kvs, gguf.Entry(ggufBaseHash, a.Config.BaseHash))
	}
	var specs []gguf.Spec
	var data [][]byte
	add := func(name string, rows, cols int, values []float32) error {
		t, codec, err := ggufCodec(typ, cols)
		if err != nil {
			return err
		}
		raw := make([]byte, 0)
		size, err := quantize.Size(codec, len(values))
		if err != nil {
			return err
		}
		raw = append(raw, make([]byte, size)...)
		codec.Encode(raw, values)
		specs, data = append(specs, gguf.Spec{Name: name, Type: t, Dims: []int64{int64(cols), int64(rows)}}), append(data, raw)
		return nil
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		name, ok := names.Name(p.Weight())
		if !ok {
			return fmt.Errorf("%w: %q has no name in GGUF", ErrUnsupported, p.Weight())
		}
		bm := scaledBy(p.B, float32(p.Scale*float64(p.R)/float64(alpha)))
		am, rowsA, colsA := p.A, p.R, p.In
		if p.Table { // llama.cpp looks rows of it up
			am, rowsA, colsA = transpose(p.A, p.R, p.In), p.In, p.R
		} else {
			bm = ggufRows(bm, p, names)
		}
		if err := add(name+ggufSuffixA, rowsA, colsA, am); err != nil {
			return err
		}
		if err := add(name+ggufSuffixB, p.Out, p.R, bm); err != nil {
			return err
		}
	}
	layout, err := gguf.Plan(kvs, specs)
	if err != nil {
		return err
	}
	w, err := gguf.Create(path, layout)
	if err != nil {
		return err
	}
	defer w.Close()
	for i, s := range specs {
		if err := w.WriteAt(s.Name, data[i], 0); err != nil {
			return err
		}
	}
	return w.Commit()
}

// ggufHolds reports what of an adapter llama.cpp cannot hold.
func ggufHolds(a *Adapter, b Base) error {
	if len(a.Whole) > 0 {
		return fmt.Errorf("%w: it replaces %q (modules_to_save or trained biases), which a LoRA in GGUF cannot say; %s", ErrUnsupported, a.Whole[0].Name, instead)
	}
	if len(a.Rows) > 0 {
		return fmt.Errorf("%w: it replaces rows of %q (trainable_token_indices), which a LoRA in GGUF cannot say; %s", ErrUnsupported, a.Rows[0].Module, instead)
	}
	for i := range a.Pairs {
		switch p := &a.Pairs[i]; {
		case p.Magnitude != nil:
			return fmt.Errorf("%w: %q has DoRA's magnitudes, which a LoRA in GGUF cannot say; %s", ErrUnsupported, p.Module, instead)
		case p.Bias != nil:
			return fmt.Errorf("%w: %q has a bias on B (lora_bias), which a LoRA in GGUF cannot say; merge it into its base (graft merge) where that has biases", ErrUnsupported, p.Module)
		case p.Table && b.Tied:
			return fmt.Errorf("%w: it adapts the table %q of a model whose head shares it: llama.cpp gives the adapter to both and aborts; merge it into its base (graft merge BASE ADAPTER -o OUT.gguf), which gives the head a weight of its own", ErrUnsupported, p.Module)
		case p.Module == b.Head && b.Tied:
			return fmt.Errorf("%w: it adapts the head %q, which in GGUF is the embedding table: llama.cpp does not load it; merge it into its base (graft merge BASE ADAPTER -o OUT.gguf), which gives the head a weight of its own", ErrUnsupported, p.Module)
		}
	}
	return nil
}

// sharedAlpha is the alpha that most pairs have, as llama.cpp computes alpha/rank; of several the first.
func sharedAlpha(pairs []Pair) float32 {
	counts, best := map[float32]int{}, float32(0)
	for i := range pairs {
		if alpha := float32(pairs[i].Scale * float64(pairs[i].R)); alpha != 0 { // 0 would mean a scale of 1
			counts[alpha]++
		}
	}
	for i := range pairs {
		if alpha := float32(pairs[i].Scale * float64(pairs[i].R)); alpha != 0 && counts[alpha] > counts[best] {
			best = alpha
		}
	}
	if best == 0 {
		return 1
	}
	return best
}

// scaledBy returns x times a factor, x itself where that is 1 but for rounding.
func scaledBy(x []float32, factor float32) []float32 {
	if math.Abs(float64(factor)-1) < 1e-7 {
		return x
	}
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = v * factor
	}
	return out
}

// ggufRows returns the rows of B in the order of the file.
func ggufRows(b []float32, p *Pair, names GGUFNames) []float32 {
	out := make([]float32, len(b))
	for row := range p.Out {
		copy(out[names.Row(p.Weight(), row, p.Out)*p.R:][:p.R], b[row*p.R:])
	}
	return out
}

func ggufCodec(typ string, cols int) (gguf.Type, quantize.Encoder, error) {
	t, err := gguf.ParseType(typ)
	if err != nil {
		return 0, nil, err
	}
	if elems, _ := t.Block(); cols%elems != 0 {
		t = gguf.F16
	}
	codec, err := quantize.LookupEncoder(t.String())
	return t, codec, err
}

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
	f, err := gguf.Open(path)
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

func fromGGUF(f *gguf.File, names GGUFNames) (*Adapter, error) {
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
	modules := map[string]string{}
	for _, m := range names.Modules {
		if name, ok := names.Name(m + ".weight"); ok {
			modules[name] = m
		}
	}
	found := map[string]*[2]gguf.Tensor{} // by the base's tensor
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
		case modules[name] == "":
			return nil, fmt.Errorf("%w: it adapts %q, which the base does not have; was it made for another model?", ErrMismatch, name)
		case len(t.Dims) != 2:
			return nil, fmt.Errorf("%w: tensor %q has %d dimensions, not two", ErrFormat, t.Name, len(t.Dims))
		}
		if found[name] == nil {
			found[name] = new([2]gguf.Tensor)
		}
		found[name][k] = t
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: it holds no pair of %s and %s tensors", ErrFormat, ggufSuffixA, ggufSuffixB)
	}
	a := &Adapter{Config: Config{Alpha: float64(alpha), BaseModel: text(ggufBaseName), BaseHash: text(ggufBaseHash), TaskType: "CAUSAL_LM"}}
	for name, t := range found {
		p, err := ggufPair(f, modules[name], name, t, names)
		if err != nil {
			return nil, err
		}
		if p.Scale = 1; alpha != 0 {
			p.Scale = float64(alpha) / float64(p.R)
		}
		a.Pairs = append(a.Pairs, p)
	}
	SortPairs(a.Pairs)
	a.setDefaults()
	return a, nil
}

// setDefaults takes r and lora_alpha of the configuration from what most pairs have.
func (a *Adapter) setDefaults() {
	ranks := map[int]int{}
	for i := range a.Pairs {
		ranks[a.Pairs[i].R]++
	}
	for i := range a.Pairs {
		if r := a.Pairs[i].R; ranks[r] > ranks[a.Config.R] {
			a.Config.R, a.Config.Alpha = r, a.Config.alpha(r, a.Pairs[i].Scale)
		}
	}
}

// ggufPair reads the two matrices of a module.
func ggufPair(f *gguf.File, module, name string, t *[2]gguf.Tensor, names GGUFNames) (Pair, error) {
	for k, suffix := range []string{ggufSuffixA, ggufSuffixB} {
		if t[k].Name == "" {
			return Pair{}, fmt.Errorf("%w: %q is there without its %s", ErrFormat, t[1-k].Name, name+suffix)
		}
	}
	p := Pair{Module: module, Table: strings.HasPrefix(name, "token_embd."), R: int(t[1].Dims[0]), Out: int(t[1].Dims[1]), In: int(t[0].Dims[0])}
	r := int(t[0].Dims[1])
	if p.Table {
		p.In, r = r, p.In
	}
	if r != p.R {
		return p, fmt.Errorf("%w: %q and %q have the ranks %d and %d", ErrFormat, t[0].Name, t[1].Name, r, p.R)
	}
	a, err := ggufValues(f, t[0])
	if err != nil {
		return p, err
	}
	b, err := ggufValues(f, t[1])
	if err != nil {
		return p, err
	}
	if p.Table {
		p.A, p.B = transpose(a, p.In, p.R), b
		return p, p.validate()
	}
	p.A, p.B = a, make([]float32, len(b))
	for row := range p.Out {
		copy(p.B[row*p.R:(row+1)*p.R], b[names.Row(p.Weight(), row, p.Out)*p.R:])
	}
	return p, p.validate()
}

// ggufValues decodes a tensor.
func ggufValues(f *gguf.File, t gguf.Tensor) ([]float32, error) {
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
