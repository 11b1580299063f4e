package adapters

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrFormat is wrapped by errors about files that are not what they claim to be.
	ErrFormat = errors.New("malformed adapter")
	// ErrUnsupported is wrapped by errors about adapters that pairs of matrices cannot represent.
	ErrUnsupported = errors.New("unsupported adapter")
	// ErrMismatch is wrapped by errors about an adapter that does not fit a base model.
	ErrMismatch = errors.New("adapter does not fit the base model")
)

// Pair is the adapter of one product y = x·Wᵀ, W being (Out, In): W becomes W + Scale·B·A (Hu et al.
// 2021). That of an embedding table is the same with x the one-hot row of a token: In is the number of
// rows, Out their width, and W the transpose of the table as it is stored, (In, Out).
type Pair struct {
	Module string    // path of the module as Hugging Face names it: "model.layers.0.self_attn.q_proj"
	Table  bool      // the module is an embedding table
	A      []float32 // (R, In), row-major
	B      []float32 // (Out, R), row-major
	R      int       // rank
	In     int       // features that the product takes
	Out    int       // features that it makes
	Scale  float64   // alpha/R, or alpha/√R with rank-stabilised scaling
	// Bias (Out), unless nil, stands on the product with B (PEFT's lora_bias): y gains Scale·Bias.
	Bias []float32
	// Magnitude (Out), unless nil, makes it DoRA (Liu et al. 2024): W becomes the rows of W + Scale·B·A,
	// each brought to the length that Magnitude says. What a base adds as its own bias stays as it is.
	Magnitude []float32
}

// Weight returns the name of the weight that the pair changes.
func (p *Pair) Weight() string { return p.Module + ".weight" }

// validate checks that the matrices are as large as the pair says.
func (p *Pair) validate() error {
	switch {
	case p.R < 1 || p.In < 1 || p.Out < 1:
		return fmt.Errorf("%w: module %q has rank %d between %d and %d features", ErrFormat, p.Module, p.R, p.In, p.Out)
	case len(p.A) != p.R*p.In || len(p.B) != p.Out*p.R:
		return fmt.Errorf("%w: module %q holds %d and %d values, but A (%d, %d) and B (%d, %d) take %d and %d",
			ErrFormat, p.Module, len(p.A), len(p.B), p.R, p.In, p.Out, p.R, p.R*p.In, p.Out*p.R)
	case p.Bias != nil && len(p.Bias) != p.Out || p.Magnitude != nil && len(p.Magnitude) != p.Out:
		return fmt.Errorf("%w: module %q makes %d features, but its bias has %d values and its magnitude %d", ErrFormat, p.Module, p.Out, len(p.Bias), len(p.Magnitude))
	case math.IsNaN(p.Scale) || math.IsInf(p.Scale, 0):
		return fmt.Errorf("%w: module %q has scale %v", ErrFormat, p.Module, p.Scale)
	}
	return nil
}

// Config is what an adapter's file says besides the matrices. The pairs are what counts: their
// ranks and scales are resolved, and Config is only where defaults come from when one is written.
type Config struct {
	R             int      // rank of modules that no pattern names
	Alpha         float64  // lora_alpha of modules that no pattern names
	RSLoRA        bool     // use_rslora: the scale is alpha/√r (Kalajdzievski 2023)
	Dropout       float64  // on the adapter's input, in training
	TargetModules []string // module paths or their last parts; nil where the file has an expression
	BaseModel     string   // base_model_name_or_path, "" if unknown
	TaskType      string   // "CAUSAL_LM", or "" if unknown
	// TieWeights is PEFT's ensure_weight_tying: what changes the embedding table of a model whose head
	// shares it changes the head in the same way. Without it only trained rows do; see [Adapter.Resolve].
	TieWeights bool
	// BaseHash is the SHA-256 of the model that the adapter was trained on, "" if unknown.
	BaseHash string
	// Notes are what llama.cpp's file says of what the adapter is for, by key: "adapter.lora.task_name",
	// "adapter.lora.prompt_prefix". The other forms keep them beside the tensors; nobody acts on them.
	Notes map[string]string
}

// scale is what a module of rank r and the given alpha is multiplied by.
func (c *Config) scale(r int, alpha float64) float64 {
	if c.RSLoRA {
		return alpha / math.Sqrt(float64(r))
	}
	return alpha / float64(r)
}

// alpha is the inverse of scale. A result that differs from a whole number by rounding only is that
// number, since alphas are nearly always whole.
func (c *Config) alpha(r int, scale float64) float64 {
	alpha := scale * float64(r)
	if c.RSLoRA {
		alpha = scale * math.Sqrt(float64(r))
	}
	if whole := math.Round(alpha); whole != 0 && math.Abs(alpha-whole) < 1e-9*math.Abs(whole) {
		return whole
	}
	return alpha
}

// TokenRows is rows of an embedding table that were trained by themselves (PEFT's
// trainable_token_indices): row Indices[i] of the table becomes row i of Data.
type TokenRows struct {
	Module  string    // of the table: "model.embed_tokens"
	Indices []int     // ids of tokens, each once
	Width   int       // features of a row
	Data    []float32 // (len(Indices), Width), the rows themselves and not differences
}

// Adapter is an adapter of PEFT's LoRA family in memory: pairs, and what is trained whole beside them.
type Adapter struct {
	Name   string // what to call it: the name of its folder or file when it was read
	Config Config
	Pairs  []Pair // one a module, in the order of [SortPairs] when they were read
	// Whole holds parameters that replace the base's, by their full names, sorted: "lm_head.weight" of
	// PEFT's modules_to_save, "model.layers.0.self_attn.q_proj.bias" of trained biases.
	Whole []Tensor
	Rows  []TokenRows // one a table
}

// SortPairs orders pairs by module, numbers inside a path by value: layer 2 comes before layer 10.
func SortPairs(pairs []Pair) {
	slices.SortStableFunc(pairs, func(a, b Pair) int { return compareModules(a.Module, b.Module) })
}

func compareModules(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.Atoi(as[i])
		y, errY := strconv.Atoi(bs[i])
		order := cmp.Compare(as[i], bs[i])
		if errX == nil && errY == nil {
			order = cmp.Or(cmp.Compare(x, y), order)
		}
		if order != 0 {
			return order
		}
	}
	return cmp.Compare(len(as), len(bs))
}

// Pair returns the pair of a module, or nil where the adapter leaves the module alone.
func (a *Adapter) Pair(module string) *Pair {
	for i := range a.Pairs {
		if a.Pairs[i].Module == module {
			return &a.Pairs[i]
		}
	}
	return nil
}

// Parameters returns the number of values in all pairs.
func (a *Adapter) Parameters() int {
	n := 0
	for i := range a.Pairs {
		n += len(a.Pairs[i].A) + len(a.Pairs[i].B)
	}
	return n
}

// Scaled returns an adapter that does factor times as much. It shares the matrices.
func (a *Adapter) Scaled(factor float64) *Adapter {
	out := *a
	out.Config.Alpha *= factor
	out.Pairs = slices.Clone(a.Pairs)
	for i := range out.Pairs {
		out.Pairs[i].Scale *= factor
	}
	return &out
}
