package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/train"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "say how much memory training takes, by part, before anything is loaded",
		ArgsUsage: "[RECIPE.yaml]",
		Description: `Takes the recipe, the flags and the --set of "graft train", or the shape of a published model alone.
The batch is taken to be full: batch_size sequences of max_length tokens, twice as many for dpo.
Weights are as Graft holds them: float32, or for qlora NF4 with the embedding, the head and the norms
in float32; with compute bf16, matrices that are not in NF4 take 16 bits. Left out: the program with
its tokenizer (some 35 MB), the rows of data, buffers while the model is read and results are written,
and garbage that has not yet been given back.

  graft plan recipe.yaml
  graft plan --model model.gguf --method qlora --set max_length=512 --json
  graft plan --model model-hf --method full --set batch_size=1
  graft plan --shape 70b --method qlora --device-bytes 64GB`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "set", Usage: "`KEY=VALUE` of the recipe; repeatable"},
			&cli.StringFlag{Name: "objective", Usage: "sft or dpo"},
			&cli.StringFlag{Name: "method", Usage: "lora, qlora or full"},
			&cli.StringFlag{Name: "model", Usage: "`PATH` of the model"},
			&cli.StringFlag{Name: "init-adapter", Aliases: []string{"init"}, Usage: "PEFT `FOLDER` to start from"},
			&cli.StringFlag{Name: "shape", Usage: "in place of a model: 135m, 360m, 1.7b (SmolLM2), 1b, 3b, 8b, 70b (Llama 3), 7b, 13b (Llama 2)"},
			&cli.StringFlag{Name: "device-bytes", Usage: "say whether it fits in `SIZE`, such as 16GB"},
			jsonFlag(),
		},
		Action: planAction,
	}
}

// shapes are published configurations of the llama family.
var shapes = map[string]model.Config{
	"135m": {Hidden: 576, Intermediate: 1536, Layers: 30, Heads: 9, KVHeads: 3, Vocab: 49152, Context: 8192, Tied: true},
	"360m": {Hidden: 960, Intermediate: 2560, Layers: 32, Heads: 15, KVHeads: 5, Vocab: 49152, Context: 8192, Tied: true},
	"1.7b": {Hidden: 2048, Intermediate: 8192, Layers: 24, Heads: 32, KVHeads: 32, Vocab: 49152, Context: 8192, Tied: true},
	"1b":   {Hidden: 2048, Intermediate: 8192, Layers: 16, Heads: 32, KVHeads: 8, Vocab: 128256, Context: 131072, Tied: true},
	"3b":   {Hidden: 3072, Intermediate: 8192, Layers: 28, Heads: 24, KVHeads: 8, Vocab: 128256, Context: 131072, Tied: true},
	"7b":   {Hidden: 4096, Intermediate: 11008, Layers: 32, Heads: 32, KVHeads: 32, Vocab: 32000, Context: 4096},
	"8b":   {Hidden: 4096, Intermediate: 14336, Layers: 32, Heads: 32, KVHeads: 8, Vocab: 128256, Context: 8192},
	"13b":  {Hidden: 5120, Intermediate: 13824, Layers: 40, Heads: 40, KVHeads: 40, Vocab: 32000, Context: 4096},
	"70b":  {Hidden: 8192, Intermediate: 28672, Layers: 80, Heads: 64, KVHeads: 8, Vocab: 128256, Context: 8192},
}

// shapeConfig returns a published configuration.
func shapeConfig(name string) (*model.Config, error) {
	c, ok := shapes[name]
	if !ok {
		return nil, usagef("--shape %q: choose one of %q", name, sortedNames(shapes))
	}
	c.Arch, c.HeadDim, c.RMSEps, c.Act, c.RopeTheta, c.BOS, c.PAD = "llama", c.Hidden/c.Heads, 1e-5, model.SiLU, 10000, -1, -1
	return &c, c.Validate()
}

// planResult is a plan for a script to read. All sizes are bytes.
type planResult struct {
	Model      string           `json:"model"`
	Method     string           `json:"method"`
	Parameters int64            `json:"parameters"`
	Sequences  int              `json:"sequences"` // of a pass
	Length     int              `json:"length"`    // tokens of each
	Parts      map[string]int64 `json:"parts"`
	Total      int64            `json:"total"`
	// ByType is the model's weights alone, had all of them the type; nf4 is the 4-bit codes alone.
	ByType map[string]int64 `json:"weights_by_type"`
	// NF4Held is NF4 as it is published: codes, scales, and 16 bits for embedding, head and norms.
	NF4Held     int64 `json:"weights_nf4_published"`
	KVToken     int64 `json:"kv_cache_per_token"` // float32, when text is generated
	DeviceBytes int64 `json:"device_bytes,omitempty"`
	Fits        *bool `json:"fits,omitempty"`
}

// partNames are the keys of planResult.Parts in the order of printing.
var partNames = []string{"weights", "adapter", "gradients", "optimizer", "activations", "logits", "scratch"}

func planAction(_ context.Context, c *cli.Command) error {
	args, err := arguments(c, 0, 1)
	if err != nil {
		return err
	}
	device, err := parseSize(c.String("device-bytes"))
	if err != nil {
		return err
	}
	recipe, err := planRecipe(c, args)
	if errors.Is(err, train.ErrRecipe) {
		return usagef("%v; see \"graft plan --help\"", err)
	}
	if err != nil {
		return err
	}
	o := engine.MemoryOptions{Full: recipe.Method == "full", Dropout: recipe.LoraDropout > 0, BF16: recipe.Compute == "bf16"}
	if recipe.Method == "qlora" {
		o.Quant = &quantize.Options4{Type: recipe.QuantType, Double: recipe.DoubleQuant}
	}
	name, config := c.String("shape"), (*model.Config)(nil)
	if name != "" {
		config, err = shapeConfig(name)
	} else {
		name = recipe.Model
		config, o.Stored, err = plannedModel(name)
	}
	if err != nil {
		return err
	}
	if err := planBatch(&o, &recipe, config); err != nil {
		return err
	}
	if !o.Full {
		if o.Ranks, err = planRanks(&recipe, config); err != nil {
			return err
		}
	}
	m, err := engine.PlanMemory(config, o)
	if err != nil {
		return err
	}
	r, err := planned(config, m)
	if err != nil {
		return err
	}
	r.Model, r.Method, r.Sequences, r.Length = name, recipe.Method, len(o.Lengths), o.Lengths[0]
	if device > 0 {
		fits := r.Total <= device
		r.DeviceBytes, r.Fits = device, &fits
	}
	if c.Bool("json") {
		return printJSON(r)
	}
	r.print()
	return nil
}

// planRecipe reads and checks the recipe, of which a plan needs neither data nor an output.
func planRecipe(c *cli.Command, args []string) (train.Recipe, error) {
	path := ""
	if len(args) == 1 {
		path = args[0]
	}
	recipe, err := train.LoadRecipe(path, overrides(c)...)
	if err != nil {
		return recipe, err
	}
	if c.IsSet("shape") == (recipe.Model != "") {
		return recipe, usagef("give either a model or --shape")
	}
	checked := recipe
	checked.Model, checked.Data, checked.Out = "-", []string{"-"}, "-"
	return recipe, checked.Validate()
}

// plannedModel opens a model, which reads no weights, and says what it stores in 4 bits.
func plannedModel(path string) (*model.Config, func(string) *quantize.Options4, error) {
	m, err := openCheckpoint(path)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	// Absent keys mean what they mean to transformers.
	var stored struct {
		Double bool `json:"bnb_4bit_use_double_quant"`
	}
	if q := m.Config().Key("quantization_config"); q != nil {
		if err := json.Unmarshal(q, &stored); err != nil {
			return nil, nil, fmt.Errorf("%q: reading quantization_config: %w", path, err)
		}
	}
	packed := map[string]*quantize.Options4{}
	for _, t := range checkpoint.Source(m).Tensors() {
		if t.Codec == "NF4" || t.Codec == "FP4" {
			packed[t.Name] = &quantize.Options4{Double: stored.Double}
		}
	}
	return m.Config(), func(name string) *quantize.Options4 { return packed[name] }, nil
}

// planBatch sets the lengths of the largest batch.
func planBatch(o *engine.MemoryOptions, r *train.Recipe, c *model.Config) error {
	length := r.MaxLength
	if length == train.Defaults().MaxLength {
		length = min(length, c.Context)
	}
	if length > c.Context {
		return fmt.Errorf("max_length %d is more than the model's context of %d", length, c.Context)
	}
	n := r.BatchSize
	if r.Objective == "dpo" {
		n *= 2 // chosen and rejected answers run together
	}
	for range n {
		o.Lengths = append(o.Lengths, length)
	}
	return nil
}

// planRanks says what adapter the recipe makes or starts from.
func planRanks(r *train.Recipe, c *model.Config) (map[string]int, error) {
	ranks := map[string]int{}
	if r.InitAdapter != "" {
		a, err := adapters.ReadPEFT(r.InitAdapter)
		if err != nil {
			return nil, err
		}
		if err := fits(a, c); err != nil {
			return nil, err
		}
		for i := range a.Pairs {
			ranks[a.Pairs[i].Module] = a.Pairs[i].R
		}
		return ranks, nil
	}
	targets, err := model.Targets(c)
	if err != nil {
		return nil, err
	}
	modules := make([]string, len(targets))
	for i, t := range targets {
		modules[i] = t.Module
	}
	chosen, err := r.TargetModules.Choose(modules)
	if err != nil {
		return nil, usagef("%v", err)
	}
	for _, m := range chosen {
		ranks[m] = r.R
	}
	return ranks, nil
}

// planned lays a plan out for printing.
func planned(c *model.Config, m engine.Memory) (*planResult, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, err
	}
	r := &planResult{Parts: map[string]int64{}, Total: m.Total(), KVToken: 2 * 4 * int64(c.Layers) * int64(c.KVHeads) * int64(c.HeadDim)}
	for i, part := range []int64{m.Weights, m.Adapter, m.Gradients, m.Optimizer, m.Activations, m.Logits, m.Scratch} {
		r.Parts[partNames[i]] = part
	}
	for _, p := range params {
		n := int64(p.Elements())
		r.Parameters += n
		if p.Kind == model.KindLinear {
			r.NF4Held += n/2 + n/64 + n/64/256*4
		} else {
			r.NF4Held += 2 * n
		}
	}
	r.ByType = map[string]int64{"f32": 4 * r.Parameters, "bf16": 2 * r.Parameters, "nf4": (r.Parameters + 1) / 2}
	return r, nil
}

func (r *planResult) print() {
	t := newTable()
	t.row("model", fmt.Sprintf("%s, %s values", r.Model, count(r.Parameters)))
	t.row("training", fmt.Sprintf("%s, %d × %d tokens a pass", r.Method, r.Sequences, r.Length))
	for _, name := range partNames {
		t.row(name, size(r.Parts[name]))
	}
	t.row("total", size(r.Total))
	if r.Fits != nil {
		verdict := "fits"
		if !*r.Fits {
			verdict = "does not fit"
		}
		t.row("device", fmt.Sprintf("%s: %s", size(r.DeviceBytes), verdict))
	}
	t.row("weights alone", fmt.Sprintf("f32 %s, bf16 %s, nf4 %s", size(r.ByType["f32"]), size(r.ByType["bf16"]), size(r.ByType["nf4"])))
	t.flush()
	fmt.Fprintf(stdout, "\nThe nf4 figure is 4 bits for every value. With scales, and embedding, head and norms kept in 16 bits, it is %s.\n"+
		"These figures leave out adapters, gradients, optimizer and activations, and in generation %s of KV cache a token.\n",
		size(r.NF4Held), size(r.KVToken))
}
