package adapters

// A folder as MLX-LM lays it out: adapter_config.json and adapters.safetensors. Its matrices are the
// transposes of PEFT's, with one rank and one scale for all of them.

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/safetensors"
)

const (
	mlxWeightsFile = "adapters.safetensors"
	mlxSuffixA     = ".lora_a"
	mlxSuffixB     = ".lora_b"
	mlxSuffixM     = ".m" // DoRA's magnitudes
)

// mlxConfig is adapter_config.json as far as it is interpreted. Unknown keys are left alone: it is all
// arguments of the run that trained the adapter.
type mlxConfig struct {
	Type       string `json:"fine_tune_type"`
	Model      string `json:"model"`
	Layers     *int   `json:"num_layers"`
	Parameters *struct {
		Rank    *int     `json:"rank"`
		Scale   *float64 `json:"scale"`
		Dropout float64  `json:"dropout"`
	} `json:"lora_parameters"`

	Rest map[string]jsontext.Value `json:",embed"`
}

// IsMLX reports whether an adapter's folder is MLX-LM's.
func IsMLX(dir string) bool {
	_, peft := os.Stat(filepath.Join(dir, weightsFile))
	_, mlx := os.Stat(filepath.Join(dir, mlxWeightsFile))
	return peft != nil && mlx == nil
}

// ReadMLX reads the adapter in folder dir, of any fine_tune_type: of "full" the parameters that replace
// the base's. A pair on the embedding table changes a head that shares the table too, as in MLX. The
// error wraps [ErrFormat] where a file is at fault and [ErrUnsupported] where the adapter is of another
// kind.
func ReadMLX(dir string) (*Adapter, error) {
	a, err := readMLX(dir)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", dir, err)
	}
	a.Name = folderName(dir)
	return a, nil
}

func readMLX(dir string) (*Adapter, error) {
	data, err := wholefile.ReadFile(filepath.Join(dir, configFile), maxConfig, ErrFormat)
	if err != nil {
		return nil, err
	}
	c, err := parseMLX(data)
	if err != nil {
		return nil, err
	}
	f, err := safetensors.Open(filepath.Join(dir, mlxWeightsFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return assembleMLX(c, f)
}

func parseMLX(data []byte) (*mlxConfig, error) {
	var c mlxConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, configFile, err)
	}
	switch c.Type {
	case "", "lora", "dora":
		if c.Parameters == nil || c.Parameters.Scale == nil || c.Parameters.Rank == nil {
			return nil, fmt.Errorf("%w: %s has no lora_parameters with a rank and a scale; older files of MLX do not say which scale they were trained with", ErrFormat, configFile)
		}
	case "full":
	default:
		return nil, fmt.Errorf("%w: fine_tune_type %q; lora, dora and full are known", ErrUnsupported, c.Type)
	}
	return &c, nil
}

func assembleMLX(c *mlxConfig, f *safetensors.File) (*Adapter, error) {
	a := &Adapter{Config: Config{BaseModel: c.Model, TaskType: "CAUSAL_LM"}}
	a.Config.readMetadata(f)
	modules := map[string]*moduleTensors{}
	for _, t := range f.Tensors() {
		module, p := "", parts
		for suffix, part := range map[string]part{mlxSuffixA: partA, mlxSuffixB: partB, mlxSuffixM: partMagnitude} {
			if m, ok := strings.CutSuffix(t.Name, suffix); ok {
				module, p = m, part
			}
		}
		if p == parts {
			if c.Type != "full" {
				return nil, fmt.Errorf("%w: tensor %q is no part of an adapter of type %q", ErrFormat, t.Name, c.Type)
			}
			values, err := floats(f, t)
			if err != nil {
				return nil, err
			}
			a.Whole = append(a.Whole, Tensor{t.Name, slices.Clone(t.Shape), values})
			continue
		}
		if modules[module] == nil {
			modules[module] = &moduleTensors{}
		}
		modules[module][p] = t
	}
	if c.Type == "full" && len(modules) > 0 || c.Type != "full" && len(modules) == 0 || len(modules)+len(a.Whole) == 0 {
		return nil, fmt.Errorf("%w: %s says fine_tune_type %q, but %s holds %d pairs and %d whole parameters", ErrFormat, configFile, c.Type, mlxWeightsFile, len(modules), len(a.Whole))
	}
	for _, module := range slices.SortedFunc(maps.Keys(modules), compareModules) {
		p, err := mlxPair(c, f, module, modules[module])
		if err != nil {
			return nil, err
		}
		a.Pairs = append(a.Pairs, p)
		a.Config.TieWeights = a.Config.TieWeights || p.Table
	}
	slices.SortFunc(a.Whole, func(x, y Tensor) int { return compareModules(x.Name, y.Name) })
	if c.Parameters != nil {
		a.Config.Dropout = c.Parameters.Dropout
	}
	setDefaults(a)
	return a, nil
}

func mlxPair(c *mlxConfig, f *safetensors.File, module string, m *moduleTensors) (Pair, error) {
	ta, tb := m[partA], m[partB]
	dora := c.Type == "dora"
	switch {
	case !m.has(partA) || !m.has(partB):
		return Pair{}, fmt.Errorf("%w: %q lacks its %s or its %s", ErrFormat, module, mlxSuffixA, mlxSuffixB)
	case len(ta.Shape) != 2 || len(tb.Shape) != 2:
		return Pair{}, fmt.Errorf("%w: %q has A %v and B %v, which are not two matrices (experts and convolutions are not known)", ErrUnsupported, module, ta.Shape, tb.Shape)
	case ta.Shape[1] != tb.Shape[0]:
		return Pair{}, fmt.Errorf("%w: %q has A %v and B %v: the ranks %d and %d differ", ErrFormat, module, ta.Shape, tb.Shape, ta.Shape[1], tb.Shape[0])
	case ta.Shape[1] != *c.Parameters.Rank:
		return Pair{}, fmt.Errorf("%w: %q has rank %d in %s, but %s says %d", ErrFormat, module, ta.Shape[1], mlxWeightsFile, configFile, *c.Parameters.Rank)
	case dora != m.has(partMagnitude):
		return Pair{}, fmt.Errorf("%w: fine_tune_type is %q, but %q has magnitudes: %v", ErrFormat, c.Type, module, m.has(partMagnitude))
	}
	p := Pair{Module: module, Table: lastPart(module) == "embed_tokens", In: ta.Shape[0], R: ta.Shape[1], Out: tb.Shape[1], Scale: *c.Parameters.Scale}
	if p.Table && dora {
		return p, fmt.Errorf("%w: %q: MLX's DoRA on a table normalizes its rows, PEFT's its columns; fuse it with MLX (mlx_lm.fuse)", ErrUnsupported, module)
	}
	a, err := floats(f, ta)
	if err != nil {
		return p, err
	}
	b, err := floats(f, tb)
	if err != nil {
		return p, err
	}
	p.A, p.B = transpose(a, p.In, p.R), transpose(b, p.R, p.Out)
	if dora {
		if p.Magnitude, err = floats(f, m[partMagnitude]); err != nil {
			return p, err
		}
	}
	return p, p.validate()
}

// WriteMLX writes the adapter into folder dir as MLX-LM loads it, as float32; see [WritePEFT] for what
// happens to the folder. All pairs get the rank of the largest, with zeros, and the scale that most have,
// with the ratio multiplied into B. The error wraps [ErrUnsupported] where MLX has no such adapter, and
// names the way around.
func WriteMLX(dir string, a *Adapter, b Base) error {
	if err := writeMLX(dir, a, b); err != nil {
		return fmt.Errorf("adapters: writing %q: %w", dir, err)
	}
	return nil
}

func writeMLX(dir string, a *Adapter, b Base) error {
	if !b.Tied || !a.Config.TieWeights { // else the table's changes are the head's in MLX, too
		r, err := a.Resolve(b)
		if err != nil {
			return err
		}
		a = r
	} else if err := a.fits(b); err != nil {
		return err
	} else {
		a = a.withoutMirror(b)
	}
	dora, err := mlxHolds(a, b)
	if err != nil {
		return err
	}
	rank, scale := 0, sharedScale(a.Pairs)
	for i := range a.Pairs {
		rank = max(rank, a.Pairs[i].R)
	}
	var specs []safetensors.Spec
	var values [][]float32
	add := func(name string, v []float32, shape ...int) {
		specs, values = append(specs, safetensors.Spec{Name: name, DType: safetensors.F32, Shape: shape}), append(values, v)
	}
	keys, layers := map[string]bool{}, 0
	for i := range a.Pairs {
		p := widened(&a.Pairs[i], rank)
		factor := p.Scale
		if scale != 0 {
			factor = p.Scale / scale
		}
		add(p.Module+mlxSuffixA, transpose(p.A, p.R, p.In), p.In, p.R)
		add(p.Module+mlxSuffixB, transpose(scaledBy(p.B, float32(factor)), p.Out, p.R), p.R, p.Out)
		if dora {
			add(p.Module+mlxSuffixM, p.Magnitude, p.Out)
		}
		key, layer := mlxKey(p.Module)
		keys[key], layers = true, max(layers, layer+1)
	}
	for layers > 0 { // all of the model's, so that counting from the last finds each
		if _, _, ok := b.Linear(fmt.Sprintf("model.layers.%d.mlp.down_proj", layers)); !ok {
			break
		}
		layers++
	}
	kind := "lora"
	switch {
	case dora:
		kind = "dora"
	case len(a.Whole) > 0:
		kind = "full"
	}
	for i := range a.Whole {
		add(a.Whole[i].Name, a.Whole[i].Data, a.Whole[i].Shape...)
	}
	config := map[string]any{"fine_tune_type": kind, "num_layers": layers}
	if a.Config.BaseModel != "" {
		config["model"] = a.Config.BaseModel
	}
	if kind != "full" {
		config["lora_parameters"] = map[string]any{"rank": rank, "scale": scale, "dropout": a.Config.Dropout, "keys": slices.Sorted(maps.Keys(keys))}
	}
	var h bytes.Buffer
	if err := json.MarshalWrite(&h, config, jsontext.WithIndent("    "), json.Deterministic(true)); err != nil {
		return err
	}
	h.WriteByte('\n')
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if err := safetensors.WriteFloat32(filepath.Join(dir, mlxWeightsFile), specs, values, a.Config.metadata("mlx")); err != nil {
		return err
	}
	return wholefile.WriteFile(filepath.Join(dir, configFile), h.Bytes())
}

// mlxHolds reports what of an adapter MLX cannot hold, and whether it is DoRA.
func mlxHolds(a *Adapter, b Base) (dora bool, err error) {
	if len(a.Rows) > 0 {
		return false, fmt.Errorf("%w: it replaces rows of %q (trainable_token_indices), which MLX has not; %s", ErrUnsupported, a.Rows[0].Module, a.instead(b))
	}
	if len(a.Whole) > 0 && len(a.Pairs) > 0 {
		return false, fmt.Errorf("%w: it has pairs and replaces %q (modules_to_save or trained biases), and MLX takes one or the other; %s", ErrUnsupported, a.Whole[0].Name, a.instead(b))
	}
	if b.Tied && (a.WholeOf(b.Head+".weight") != nil || a.WholeOf(b.Table+".weight") != nil && !a.Config.TieWeights) {
		return false, fmt.Errorf("%w: it replaces the table or the head of a model that has one for both, and MLX changes both; merge it into its base (graft merge), which gives the head a weight of its own", ErrUnsupported)
	}
	for i := range a.Pairs {
		dora = dora || a.Pairs[i].Magnitude != nil
	}
	for i := range a.Pairs {
		switch p := &a.Pairs[i]; {
		case p.Bias != nil:
			return false, fmt.Errorf("%w: %q has a bias on B (lora_bias), which MLX has not; merge it into its base (graft merge) where that has biases", ErrUnsupported, p.Module)
		case dora && (p.Table || p.Magnitude == nil):
			return false, fmt.Errorf("%w: DoRA on a table (%q) is another thing in MLX, which normalizes its rows and not its columns, and one kind is for all modules; %s", ErrUnsupported, p.Module, a.instead(b))
		case b.Tied && p.Table && !a.Config.TieWeights:
			return false, fmt.Errorf("%w: it adapts the table %q and not the head that shares it; MLX changes both; merge it into its base (graft merge), which gives the head a weight of its own", ErrUnsupported, p.Module)
		case b.Tied && p.Module == b.Head:
			return false, fmt.Errorf("%w: it adapts the head %q, which in MLX is the embedding table; merge it into its base (graft merge), which gives the head a weight of its own", ErrUnsupported, p.Module)
		}
	}
	return dora, nil
}

// mlxKey is how MLX names a module among the keys: by its path inside a block, or the whole path.
func mlxKey(module string) (key string, layer int) {
	rest, in := strings.CutPrefix(module, "model.layers.")
	number, inner, ok := strings.Cut(rest, ".")
	layer, err := strconv.Atoi(number)
	if !in || !ok || err != nil {
		return module, -1
	}
	return inner, layer
}

// sharedScale is the scale that most pairs have, of several the first.
func sharedScale(pairs []Pair) float64 {
	counts, best := map[float64]int{}, 0.0
	for i := range pairs {
		counts[pairs[i].Scale]++
	}
	for i := range pairs {
		if s := pairs[i].Scale; s != 0 && (best == 0 || counts[s] > counts[best]) {
			best = s
		}
	}
	return best
}

// widened returns a pair of a higher rank that does the same.
func widened(p *Pair, r int) *Pair {
	if p.R == r {
		return p
	}
	out := *p
	out.R, out.A, out.B = r, make([]float32, r*p.In), make([]float32, p.Out*r)
	copy(out.A, p.A)
	for row := range p.Out {
		copy(out.B[row*r:], p.B[row*p.R:(row+1)*p.R])
	}
	return &out
}
