package adapters

// A folder as PEFT lays it out: adapter_config.json and adapter_model.safetensors.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
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
	// baseHashKey is the key of the weights' metadata that says what the adapter was trained on.
	baseHashKey = "graft.base_sha256"
	// maxConfig is far above the size of any adapter_config.json; all-linear lists take some 100 KB.
	maxConfig = 16 << 20
)

// Open reads an adapter: a folder of PEFT's or of MLX-LM's, or one of the two files in it. An error that
// wraps [ErrUnsupported] says what the path is instead, where that can be told.
func Open(path string) (*Adapter, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("adapters: opening %q: %w", path, err)
	}
	dir := path
	if base := filepath.Base(path); !info.IsDir() && (base == configFile || base == weightsFile || base == mlxWeightsFile) {
		dir = filepath.Dir(path)
	}
	if info.IsDir() || dir != path {
		if IsMLX(dir) {
			return ReadMLX(dir)
		}
		return ReadPEFT(dir)
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

// ReadPEFT reads the adapter in folder dir, of any variant of LoRA that [Adapter] has. Tensors may be
// F32, F16 or BF16. The error wraps [ErrFormat] where a file is at fault and [ErrUnsupported] where the
// adapter is of another kind.
func ReadPEFT(dir string) (*Adapter, error) {
	a, err := readPEFT(dir)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", dir, err)
	}
	a.Name = folderName(dir)
	return a, nil
}

// folderName is what an adapter in a folder is called.
func folderName(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return filepath.Base(abs)
	}
	return filepath.Base(dir)
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

// part is one of the tensors that make up what an adapter does to a module.
type part int

const (
	partA part = iota
	partB
	partBias      // of the product with B
	partMagnitude // DoRA
	partTableA
	partTableB
	partRows
	parts
)

// partSuffixes are the ends of the names of tensors, behind the module's path. The first of a part is
// how it is written; some versions of PEFT have another for the magnitude.
var partSuffixes = []struct {
	suffix string
	part   part
}{
	{".lora_A.weight", partA}, {".lora_B.weight", partB}, {".lora_B.bias", partBias},
	{".lora_magnitude_vector", partMagnitude}, {".lora_magnitude_vector.weight", partMagnitude},
	{".lora_embedding_A", partTableA}, {".lora_embedding_B", partTableB},
	{".token_adapter.trainable_tokens_delta", partRows},
}

func (p part) suffix() string {
	for _, s := range partSuffixes {
		if s.part == p {
			return s.suffix
		}
	}
	panic("adapters: a part without a name")
}

// cutPart splits the name of a tensor in its module and what it is of it.
func cutPart(name string) (module string, p part, ok bool) {
	for _, s := range partSuffixes {
		if module, ok := strings.CutSuffix(name, s.suffix); ok {
			return module, s.part, true
		}
	}
	return "", 0, false
}

// moduleTensors is the tensors of a module by their parts; those that are absent have no name.
type moduleTensors [parts]safetensors.Tensor

func (m *moduleTensors) has(p part) bool { return m[p].Name != "" }

// adapterTensors is the tensors of a file, sorted by what they are.
type adapterTensors struct {
	modules map[string]*moduleTensors
	whole   map[string]safetensors.Tensor // by the parameter's name
}

// gather sorts the tensors of a file.
func gather(pc *peftConfig, tensors []safetensors.Tensor) (*adapterTensors, error) {
	g := &adapterTensors{modules: map[string]*moduleTensors{}, whole: map[string]safetensors.Tensor{}}
	for _, t := range tensors {
		name := strings.TrimPrefix(t.Name, keyPrefix)
		if module, p, ok := cutPart(name); ok {
			if module == "" {
				return nil, fmt.Errorf("%w: tensor %q names no module", ErrFormat, t.Name)
			}
			m := g.modules[module]
			if m == nil {
				m = &moduleTensors{}
				g.modules[module] = m
			}
			if m.has(p) { // once with the prefix and once without
				return nil, fmt.Errorf("%w: tensors %q and %q are the same", ErrFormat, m[p].Name, t.Name)
			}
			m[p] = t
			continue
		}
		switch {
		case strings.Contains(name, ".lora_"):
			return nil, fmt.Errorf("%w: tensor %q is a part of LoRA that is not known", ErrUnsupported, t.Name)
		case strings.HasSuffix(name, ".base_layer.weight"), strings.Contains(name, ".original_module."):
			continue // a copy of the base's own weight, which PEFT saves beside adapted tables
		case strings.HasSuffix(name, ".base_layer.bias"):
			if pc.Bias == nil || *pc.Bias == "none" {
				continue
			}
			name = strings.TrimSuffix(name, ".base_layer.bias") + ".bias"
		}
		name = strings.Replace(name, ".modules_to_save.", ".", 1)
		if old, ok := g.whole[name]; ok {
			return nil, fmt.Errorf("%w: tensors %q and %q are the same", ErrFormat, old.Name, t.Name)
		}
		g.whole[name] = t
	}
	return g, nil
}

// assemble makes an adapter of a configuration and a file of tensors.
func assemble(pc *peftConfig, f *safetensors.File) (*Adapter, error) {
	config, err := pc.config()
	if err != nil {
		return nil, err
	}
	g, err := gather(pc, f.Tensors())
	if err != nil {
		return nil, err
	}
	if len(g.modules)+len(g.whole) == 0 {
		return nil, fmt.Errorf("%w: %s holds no pair of lora_A and lora_B tensors, and nothing else either", ErrFormat, weightsFile)
	}
	config.readMetadata(f)
	a := &Adapter{Config: config}
	for _, module := range slices.SortedFunc(maps.Keys(g.modules), compareModules) {
		m := g.modules[module]
		if m.has(partRows) {
			if err := a.readRows(pc, f, module, m[partRows]); err != nil {
				return nil, err
			}
			rest := *m
			rest[partRows] = safetensors.Tensor{}
			if m = &rest; m.empty() {
				continue
			}
		}
		if err := a.readPair(pc, f, module, m); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(g.whole), compareModules) {
		if err := a.readWhole(pc, f, name, g.whole[name]); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (m *moduleTensors) empty() bool {
	for p := range parts {
		if m.has(p) {
			return false
		}
	}
	return true
}

// readPair reads the pair of a module.
func (a *Adapter) readPair(pc *peftConfig, f *safetensors.File, module string, m *moduleTensors) error {
	p := Pair{Module: module, Table: m.has(partTableA) || m.has(partTableB)}
	ka, kb := partA, partB
	if p.Table {
		ka, kb = partTableA, partTableB
		if m.has(partA) || m.has(partB) {
			return fmt.Errorf("%w: %q has the tensors of a product and of a table", ErrFormat, module)
		}
	}
	ta, tb := m[ka], m[kb]
	switch {
	case !m.has(ka) && !m.has(kb):
		for k := range parts {
			if m.has(k) {
				return fmt.Errorf("%w: %q is there without its %s", ErrFormat, m[k].Name, keyPrefix+module+ka.suffix())
			}
		}
	case !m.has(ka):
		return fmt.Errorf("%w: %q is there without its %s", ErrFormat, tb.Name, keyPrefix+module+ka.suffix())
	case !m.has(kb):
		return fmt.Errorf("%w: %q is there without its %s", ErrFormat, ta.Name, keyPrefix+module+kb.suffix())
	case len(ta.Shape) == 4 || len(tb.Shape) == 4:
		return fmt.Errorf("%w: %q adapts a convolution; only linear products are known", ErrUnsupported, module)
	case len(ta.Shape) != 2 || len(tb.Shape) != 2:
		return fmt.Errorf("%w: %q has A %v and B %v, which are not two matrices", ErrFormat, module, ta.Shape, tb.Shape)
	case ta.Shape[0] != tb.Shape[1]:
		return fmt.Errorf("%w: %q has A %v and B %v: the ranks %d and %d differ", ErrFormat, module, ta.Shape, tb.Shape, ta.Shape[0], tb.Shape[1])
	case m.has(partMagnitude) != pc.DoRA:
		return fmt.Errorf("%w: use_dora is %v in %s, but %q has a magnitude in %s: %v", ErrFormat, pc.DoRA, configFile, module, weightsFile, m.has(partMagnitude))
	case m.has(partBias) && !pc.LoraBias:
		return fmt.Errorf("%w: %s holds %q, but lora_bias is not set in %s", ErrFormat, weightsFile, m[partBias].Name, configFile)
	}
	p.R, p.In, p.Out = ta.Shape[0], ta.Shape[1], tb.Shape[0]
	if r := pc.RankPattern.lookup(module, a.Config.R); r != p.R {
		return fmt.Errorf("%w: %q has rank %d in %s, but %s says %d", ErrFormat, module, p.R, weightsFile, configFile, r)
	}
	p.Scale = a.Config.scale(p.R, pc.AlphaPattern.lookup(module, a.Config.Alpha))
	for _, to := range []struct {
		part part
		dst  *[]float32
	}{{ka, &p.A}, {kb, &p.B}, {partBias, &p.Bias}, {partMagnitude, &p.Magnitude}} {
		if !m.has(to.part) {
			continue
		}
		var err error
		if *to.dst, err = floats(f, m[to.part]); err != nil {
			return err
		}
	}
	a.Pairs = append(a.Pairs, p)
	return p.validate()
}

// readRows reads the replaced rows of a table.
func (a *Adapter) readRows(pc *peftConfig, f *safetensors.File, module string, t safetensors.Tensor) error {
	indices, ok := pc.TokenIndices.of(module)
	if !ok {
		return fmt.Errorf("%w: %s holds %q, but trainable_token_indices in %s names no rows of it", ErrFormat, weightsFile, t.Name, configFile)
	}
	if len(t.Shape) != 2 || t.Shape[0] != len(indices) {
		return fmt.Errorf("%w: %q has shape %v, but trainable_token_indices names %d rows", ErrFormat, t.Name, t.Shape, len(indices))
	}
	data, err := floats(f, t)
	if err != nil {
		return err
	}
	a.Rows = append(a.Rows, TokenRows{Module: module, Indices: indices, Width: t.Shape[1], Data: data})
	return a.Rows[len(a.Rows)-1].validate()
}

// readWhole reads a parameter that replaces the base's.
func (a *Adapter) readWhole(pc *peftConfig, f *safetensors.File, name string, t safetensors.Tensor) error {
	data, err := floats(f, t)
	if err != nil {
		return err
	}
	a.Whole = append(a.Whole, Tensor{Name: name, Shape: slices.Clone(t.Shape), Data: data})
	module, ok := strings.CutSuffix(name, ".weight")
	if ok && lastPart(module) == "embed_tokens" && !slices.ContainsFunc(pc.ModulesToSave, func(m string) bool { return names(m, module) }) {
		// PEFT saves the table of a model that was given more tokens, and loads it into the base itself,
		// where a head that shares it sees it.
		a.Config.TieWeights = true
	}
	return nil
}

// floats reads a whole tensor. Values that are not numbers are an error: one would spread to every
// output of the model.
func floats(f *safetensors.File, t safetensors.Tensor) ([]float32, error) {
	raw := make([]byte, t.Size())
	if err := f.ReadAt(t, raw, 0); err != nil {
		return nil, err
	}
	if len(t.Shape) == 0 {
		return nil, fmt.Errorf("%w: tensor %q has no dimensions", ErrFormat, t.Name)
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
			cols := max(1, t.Shape[len(t.Shape)-1])
			return nil, fmt.Errorf("%w: tensor %q holds %v at row %d, column %d; the run that made it diverged", ErrFormat, t.Name, v, i/cols, i%cols)
		}
	}
	return out, nil
}

// metadata is what stands beside the tensors.
func (c *Config) metadata(format string) map[string]string {
	out := map[string]string{"format": format}
	maps.Copy(out, c.Notes)
	if c.BaseHash != "" {
		out[baseHashKey] = c.BaseHash
	}
	return out
}

// readMetadata is its inverse.
func (c *Config) readMetadata(f *safetensors.File) {
	for key, text := range f.Metadata() {
		switch {
		case key == baseHashKey:
			c.BaseHash = text
		case strings.HasPrefix(key, ggufNotes):
			if c.Notes == nil {
				c.Notes = map[string]string{}
			}
			c.Notes[key] = text
		}
	}
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
	if len(a.Pairs)+len(a.Whole)+len(a.Rows) == 0 {
		return fmt.Errorf("%w: it changes nothing", ErrFormat)
	}
	v, err := a.variants()
	if err != nil {
		return err
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
		ka, kb := partA, partB
		if p.Table {
			ka, kb = partTableA, partTableB
		}
		add(p.Module+ka.suffix(), p.A, p.R, p.In)
		add(p.Module+kb.suffix(), p.B, p.Out, p.R)
		if p.Magnitude != nil {
			add(p.Module+partMagnitude.suffix(), p.Magnitude, p.Out)
		}
		switch {
		case p.Bias != nil:
			add(p.Module+partBias.suffix(), p.Bias, p.Out)
		case v.loraBias && !p.Table:
			add(p.Module+partBias.suffix(), make([]float32, p.Out), p.Out)
		}
	}
	for i := range a.Rows {
		r := &a.Rows[i]
		if err := r.validate(); err != nil {
			return err
		}
		add(r.Module+partRows.suffix(), r.Data, len(r.Indices), r.Width)
	}
	for i := range a.Whole {
		t := &a.Whole[i]
		if err := t.validate(); err != nil {
			return err
		}
		name := t.Name
		if module, ok := strings.CutSuffix(name, ".bias"); ok && a.Pair(module) != nil {
			name = module + ".base_layer.bias"
		}
		add(name, t.Data, t.Shape...)
	}
	config, err := encodeConfig(a, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := safetensors.WriteFloat32(filepath.Join(dir, weightsFile), specs, values, a.Config.metadata("pt")); err != nil {
		return err
	}
	return wholefile.WriteFile(filepath.Join(dir, configFile), config)
}
