package adapters

// A folder as PEFT lays it out: adapter_config.json and adapter_model.safetensors.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/safetensors"
)

const (
	configFile  = "adapter_config.json"
	weightsFile = "adapter_model.safetensors"
	// keyPrefix stands before the module's path in the names of tensors.
	keyPrefix = "base_model.model."
	suffixA   = ".lora_A.weight"
	suffixB   = ".lora_B.weight"
	// maxConfig is far above the size of any adapter_config.json; all-linear lists take some 100 KB.
	maxConfig = 16 << 20
)

// Open reads an adapter: a PEFT folder or one of the two files in it. An error that wraps
// [ErrUnsupported] says what the path is instead, where that can be told.
func Open(path string) (*Adapter, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("adapters: opening %q: %w", path, err)
	}
	if info.IsDir() {
		return ReadPEFT(path)
	}
	if base := filepath.Base(path); base == configFile || base == weightsFile {
		return ReadPEFT(filepath.Dir(path))
	}
	return nil, fmt.Errorf("adapters: opening %q: %w: it is %s; give the folder with %s and %s", path, ErrUnsupported, describe(path), configFile, weightsFile)
}

// describe says what a file that is not a PEFT adapter is, from its first bytes.
func describe(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "not readable"
	}
	defer f.Close()
	var head [8]byte
	n, _ := io.ReadFull(f, head[:])
	switch {
	case n >= 4 && string(head[:4]) == "GGUF":
		return "a GGUF file"
	case n == 8 && string(head[4:]) == onnxIdentifier:
		return "an ONNX Runtime adapter, which names graph inputs and not modules"
	}
	return "not an adapter"
}

// ReadPEFT reads the adapter in folder dir. Tensors may be F32, F16 or BF16. The error wraps
// [ErrFormat] where a file is at fault and [ErrUnsupported] where the adapter is more than pairs.
func ReadPEFT(dir string) (*Adapter, error) {
	a, err := readPEFT(dir)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", dir, err)
	}
	a.Name = filepath.Base(dir)
	if abs, err := filepath.Abs(dir); err == nil {
		a.Name = filepath.Base(abs)
	}
	return a, nil
}

func readPEFT(dir string) (*Adapter, error) {
	data, err := wholefile.ReadFile(filepath.Join(dir, configFile), maxConfig, ErrFormat)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	f, err := safetensors.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		if _, binErr := os.Stat(filepath.Join(dir, "adapter_model.bin")); errors.Is(err, fs.ErrNotExist) && binErr == nil {
			return nil, fmt.Errorf("%w: its weights are adapter_model.bin, a pickle that can run code; save it again with PEFT as safetensors", ErrUnsupported)
		}
		return nil, err
	}
	defer f.Close()
	return assemble(config, f)
}

// factor is where the two tensors of a module are, while they are being gathered.
type factor struct{ a, b safetensors.Tensor }

// assemble makes an adapter of a configuration and a file of tensors.
func assemble(pc *peftConfig, f *safetensors.File) (*Adapter, error) {
	config, err := pc.config()
	if err != nil {
		return nil, err
	}
	modules := map[string]*factor{}
	for _, t := range f.Tensors() {
		if err := gather(modules, t); err != nil {
			return nil, err
		}
	}
	if len(modules) == 0 {
		return nil, fmt.Errorf("%w: %s holds no pair of lora_A and lora_B tensors", ErrFormat, weightsFile)
	}
	a := &Adapter{Config: config, Pairs: make([]Pair, 0, len(modules))}
	for module, t := range modules {
		a.Pairs = append(a.Pairs, Pair{Module: module})
		if err := pairShape(&a.Pairs[len(a.Pairs)-1], t); err != nil {
			return nil, err
		}
	}
	SortPairs(a.Pairs)
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if r := pc.RankPattern.lookup(p.Module, config.R); r != p.R {
			return nil, fmt.Errorf("%w: %q has rank %d in %s, but %s says %d", ErrFormat, p.Module, p.R, weightsFile, configFile, r)
		}
		p.Scale = config.scale(p.R, pc.AlphaPattern.lookup(p.Module, config.Alpha))
		t := modules[p.Module]
		if p.A, err = floats(f, t.a); err == nil {
			p.B, err = floats(f, t.b)
		}
		if err != nil {
			return nil, err
		}
		if err := p.validate(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// gather puts one tensor of the file where it belongs.
func gather(modules map[string]*factor, t safetensors.Tensor) error {
	name := strings.TrimPrefix(t.Name, keyPrefix)
	if strings.HasSuffix(name, ".base_layer.weight") {
		return nil // a copy of the base's own weight, which PEFT saves beside adapted tables
	}
	put := func(module string, b bool) error {
		if module == "" {
			return fmt.Errorf("%w: tensor %q names no module", ErrFormat, t.Name)
		}
		m := modules[module]
		if m == nil {
			m = &factor{}
			modules[module] = m
		}
		slot := &m.a
		if b {
			slot = &m.b
		}
		if slot.Name != "" { // once with the prefix and once without
			return fmt.Errorf("%w: tensors %q and %q are the same", ErrFormat, slot.Name, t.Name)
		}
		*slot = t
		return nil
	}
	if module, ok := strings.CutSuffix(name, suffixA); ok {
		return put(module, false)
	}
	if module, ok := strings.CutSuffix(name, suffixB); ok {
		return put(module, true)
	}
	return fmt.Errorf("%w: tensor %q: %s; merge the adapter into its base with PEFT (merge_and_unload) first", ErrUnsupported, t.Name, foreign(name))
}

// foreign says what a tensor is that belongs to no pair.
func foreign(name string) string {
	switch {
	case strings.Contains(name, ".lora_magnitude_vector"):
		return "a DoRA magnitude"
	case strings.Contains(name, ".lora_embedding_"):
		return "an adapter on an embedding table"
	case strings.HasSuffix(name, ".lora_B.bias"):
		return "a bias on a B matrix"
	case strings.Contains(name, ".trainable_tokens_delta"):
		return "replaced rows of an embedding table"
	case strings.HasSuffix(name, ".bias"):
		return "a trained bias"
	}
	return "a whole trained parameter"
}

// pairShape sets the sizes of a pair from its tensors' shapes.
func pairShape(p *Pair, t *factor) error {
	switch {
	case t.a.Name == "":
		return fmt.Errorf("%w: %q is there without its %s", ErrFormat, t.b.Name, keyPrefix+p.Module+suffixA)
	case t.b.Name == "":
		return fmt.Errorf("%w: %q is there without its %s", ErrFormat, t.a.Name, keyPrefix+p.Module+suffixB)
	case len(t.a.Shape) == 4 || len(t.b.Shape) == 4:
		return fmt.Errorf("%w: %q adapts a convolution; only linear products are known", ErrUnsupported, p.Module)
	case len(t.a.Shape) != 2 || len(t.b.Shape) != 2:
		return fmt.Errorf("%w: %q has A %v and B %v, which are not two matrices", ErrFormat, p.Module, t.a.Shape, t.b.Shape)
	case t.a.Shape[0] != t.b.Shape[1]:
		return fmt.Errorf("%w: %q has A %v and B %v: the ranks %d and %d differ", ErrFormat, p.Module, t.a.Shape, t.b.Shape, t.a.Shape[0], t.b.Shape[1])
	}
	p.R, p.In, p.Out = t.a.Shape[0], t.a.Shape[1], t.b.Shape[0]
	return nil
}

// floats reads a whole tensor. Values that are not numbers are an error: one would spread to every
// output of the model.
func floats(f *safetensors.File, t safetensors.Tensor) ([]float32, error) {
	raw := make([]byte, t.Size())
	if err := f.ReadAt(t, raw, 0); err != nil {
		return nil, err
	}
	out := make([]float32, t.Elements())
	switch t.DType {
	case safetensors.F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
	case safetensors.BF16:
		kernel.BF16ToF32(out, raw)
	case safetensors.F16:
		kernel.F16ToF32(out, raw)
	default:
		return nil, fmt.Errorf("%w: tensor %q is %s; F32, F16 and BF16 are known", ErrUnsupported, t.Name, t.DType)
	}
	for i, v := range out {
		if v != v || math.IsInf(float64(v), 0) {
			return nil, fmt.Errorf("%w: tensor %q holds %v at row %d, column %d; the run that made it diverged", ErrFormat, t.Name, v, i/t.Shape[1], i%t.Shape[1])
		}
	}
	return out, nil
}

// WritePEFT writes the adapter into folder dir, which is made where it does not exist, as float32 in
// the form that PEFT loads. Each of the two files appears whole or not at all, the
// configuration last; other files of the folder stay.
func WritePEFT(dir string, a *Adapter) error {
	if err := writePEFT(dir, a); err != nil {
		return fmt.Errorf("adapters: writing %q: %w", dir, err)
	}
	return nil
}

func writePEFT(dir string, a *Adapter) error {
	if len(a.Pairs) == 0 {
		return fmt.Errorf("%w: it has no pairs", ErrFormat)
	}
	var specs []safetensors.Spec
	var values [][]float32 // of each spec
	add := func(name string, v []float32, shape ...int) {
		specs = append(specs, safetensors.Spec{Name: keyPrefix + name, DType: safetensors.F32, Shape: shape})
		values = append(values, v)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if err := p.validate(); err != nil {
			return err
		}
		add(p.Module+suffixA, p.A, p.R, p.In)
		add(p.Module+suffixB, p.B, p.Out, p.R)
	}
	config, err := encodeConfig(a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := safetensors.WriteFloat32(filepath.Join(dir, weightsFile), specs, values, map[string]string{"format": "pt"}); err != nil {
		return err
	}
	return wholefile.WriteFile(filepath.Join(dir, configFile), config)
}
