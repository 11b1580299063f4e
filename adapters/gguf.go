package adapters

// A LoRA adapter as llama.cpp lays it out: a GGUF file with two matrices for each tensor of the base that
// it changes, and one alpha for all of them.

import (
	"fmt"
	"maps"
	"math"
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
	// Row returns the place in the file of a row of a weight of so many rows, which are those of the base.
	Row func(weight string, row, rows int) int
	// Rows returns the number of rows of a module's weight.
	Rows func(module string) int
	// Fused lists the modules that are one tensor, "blk.0.attn_qkv.weight", in a file whose q, k and v
	// llama.cpp's converter has joined (--fuse-qkv), in the order of their rows; nil for any other name.
	Fused func(name string) []string
	// FuseQKV makes [WriteGGUF] write for such a file.
	FuseQKV bool
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
	ggufNotes      = "adapter.lora." // what the keys begin with that say what the adapter is for
)

// instead is what to do with an adapter that another runtime cannot hold: approximating it helps where
// what changes is matrices, and none of them a table and a head in one.
func (a *Adapter) instead(b Base) string {
	const merge, approximate = "merge it into its base (graft merge BASE ADAPTER -o OUT)", ", or approximate it by plain LoRA (graft adapter convert --approximate R)"
	ends := func(module string) bool { return b.Tied && (module == b.Table || module == b.Head) }
	for i := range a.Whole {
		if module, _ := strings.CutSuffix(a.Whole[i].Name, ".weight"); len(a.Whole[i].Shape) != 2 || ends(module) {
			return merge
		}
	}
	for i := range a.Rows {
		if ends(a.Rows[i].Module) {
			return merge
		}
	}
	for i := range a.Pairs {
		if p := &a.Pairs[i]; p.Bias != nil || ends(p.Module) {
			return merge
		}
	}
	return merge + approximate
}

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
	pairs, err := ggufPairs(a.Pairs, names)
	if err != nil {
		return err
	}
	alpha := sharedAlpha(pairs)
	var tensors []gguf.TensorData
	for i := range pairs {
		p := &pairs[i]
		t, err := p.tensors(alpha, typ)
		if err != nil {
			return err
		}
		tensors = append(tensors, t...)
	}
	return gguf.Write(path, ggufKeys(a, names.Arch, alpha), tensors)
}

// ggufKeys is the metadata, in the order of llama.cpp's converter.
func ggufKeys(a *Adapter, arch string, alpha float32) []gguf.KV {
	kvs := []gguf.KV{
		gguf.Entry("general.architecture", arch), gguf.Entry(ggufType, "adapter"), gguf.Entry(ggufKind, "lora"), gguf.Entry("general.name", a.Name),
	}
	if a.Config.BaseModel != "" {
		kvs = append(kvs, gguf.Entry("general.base_model.count", uint32(1)), gguf.Entry(ggufBaseName, filepath.Base(a.Config.BaseModel)))
	}
	kvs = append(kvs, gguf.Entry(ggufAlpha, alpha))
	for _, key := range slices.Sorted(maps.Keys(a.Config.Notes)) {
		kvs = append(kvs, gguf.Entry(key, a.Config.Notes[key]))
	}
	if a.Config.BaseHash != "" {
		kvs = append(kvs, gguf.Entry(ggufBaseHash, a.Config.BaseHash))
	}
	return append(kvs, gguf.Entry("general.quantization_version", uint32(2)))
}

// ggufPair is a pair as the file has it: Module is the name of the base's tensor, and the rows of B are in
// the order that they have there.
type ggufPair struct{ Pair }

// ggufPairs gives the pairs of an adapter the names and rows of the file.
func ggufPairs(pairs []Pair, names GGUFNames) ([]ggufPair, error) {
	var out []ggufPair
	fused := map[string]*[]*ggufPair{} // by the joint tensor, parallel to its modules
	var order []string
	for i := range pairs {
		p := &pairs[i]
		name, ok := names.Name(p.Weight())
		if !ok {
			return nil, fmt.Errorf("%w: %q has no name in GGUF", ErrUnsupported, p.Weight())
		}
		g := ggufPair{*p}
		g.Module, g.B = name, ggufRows(p, names)
		joint, parts := names.joint(p.Module, name)
		if joint == "" {
			out = append(out, g)
			continue
		}
		if fused[joint] == nil {
			list := make([]*ggufPair, len(parts))
			fused[joint], order = &list, append(order, joint)
		}
		(*fused[joint])[slices.Index(parts, p.Module)] = &g
	}
	for _, joint := range order {
		p, err := names.join(joint, *fused[joint])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// ggufRows returns the rows of B in the order of the file.
func ggufRows(p *Pair, names GGUFNames) []float32 {
	if p.Table {
		return p.B
	}
	out := make([]float32, len(p.B))
	for row := range p.Out {
		copy(out[names.Row(p.Weight(), row, p.Out)*p.R:][:p.R], p.B[row*p.R:])
	}
	return out
}

// tensors encodes the two matrices of a pair.
func (p *ggufPair) tensors(alpha float32, typ string) ([]gguf.TensorData, error) {
	a, rows, cols := p.A, p.R, p.In
	if p.Table { // llama.cpp looks rows of it up
		a, rows, cols = transpose(p.A, p.R, p.In), p.In, p.R
	}
	ta, err := ggufTensor(p.Module+ggufSuffixA, typ, a, rows, cols)
	if err != nil {
		return nil, err
	}
	b := scaledBy(p.B, float32(p.Scale*float64(p.R)/float64(alpha)))
	tb, err := ggufTensor(p.Module+ggufSuffixB, typ, b, p.Out, p.R)
	return []gguf.TensorData{ta, tb}, err
}

// ggufTensor encodes a matrix (rows, cols).
func ggufTensor(name, typ string, values []float32, rows, cols int) (gguf.TensorData, error) {
	t, codec, err := ggufCodec(typ, cols)
	if err != nil {
		return gguf.TensorData{}, err
	}
	size, err := quantize.Size(codec, len(values))
	if err != nil {
		return gguf.TensorData{}, err
	}
	data := make([]byte, size)
	codec.Encode(data, values)
	if ok, known := quantize.FiniteBytes(codec, data); known && !ok {
		return gguf.TensorData{}, fmt.Errorf("%w: tensor %q has values that %s does not reach; write F32 or BF16", ErrUnsupported, name, t)
	}
	return gguf.TensorData{Spec: gguf.Spec{Name: name, Type: t, Dims: []int64{int64(cols), int64(rows)}}, Data: data}, nil
}

// ggufHolds reports what of an adapter llama.cpp cannot hold.
func ggufHolds(a *Adapter, b Base) error {
	if len(a.Whole) > 0 {
		return fmt.Errorf("%w: it replaces %q (modules_to_save or trained biases), which a LoRA in GGUF cannot say; %s", ErrUnsupported, a.Whole[0].Name, a.instead(b))
	}
	if len(a.Rows) > 0 {
		return fmt.Errorf("%w: it replaces rows of %q (trainable_token_indices), which a LoRA in GGUF cannot say; %s", ErrUnsupported, a.Rows[0].Module, a.instead(b))
	}
	for i := range a.Pairs {
		switch p := &a.Pairs[i]; {
		case p.Magnitude != nil:
			return fmt.Errorf("%w: %q has DoRA's magnitudes, which a LoRA in GGUF cannot say; %s", ErrUnsupported, p.Module, a.instead(b))
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
func sharedAlpha(pairs []ggufPair) float32 {
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
