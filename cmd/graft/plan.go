package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/train"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "say how much memory training takes, by part, before anything is loaded",
		ArgsUsage: "[RECIPE.yaml]",
		Description: `Takes the recipe, the flags and the --set of "graft train", or the shape of a published model alone.
Data and output are not looked at.
The batch is taken to be full: batch_size sequences of max_length tokens, twice as many for dpo.
Weights are as Graft holds them: as they are stored where that is smaller than float32, or for qlora in
NF4 but for the embedding, the head and the norms; with compute bf16, other matrices take 16 bits,
and so do the values between operations, the residual stream aside. "program" is an estimate of
all else: the program, its tokenizer and data, and what the allocator sets aside. Left out: rows of
data beyond a few megabytes.
With --memory as many blocks are computed again in the backward pass as it takes to fit; that changes
time, not numbers.

  graft plan recipe.yaml
  graft plan --model model.gguf --method qlora --set max_length=512 --json
  graft plan recipe.yaml --memory 900MB
  graft plan --model model-hf --method full --set batch_size=1
  graft plan --shape 70b --method qlora --device-bytes 64GB`,
		Flags: append(recipeFlags(),
			&cli.StringFlag{Name: "shape", Usage: "in place of a model: 135m, 360m, 1.7b (SmolLM2), 1b, 3b, 8b, 70b (Llama 3), 7b, 13b (Llama 2)"},
			&cli.StringFlag{Name: "device-bytes", Usage: "say whether it fits in `SIZE`, such as 16GB"},
			jsonFlag()),
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

// shapeConfig returns a published configuration, as a config.json.
func shapeConfig(name string) ([]byte, error) {
	c, ok := shapes[name]
	if !ok {
		return nil, usagef("--shape %q: choose one of %q", name, sortedNames(shapes))
	}
	return json.Marshal(map[string]any{"model_type": "llama", "hidden_size": c.Hidden, "intermediate_size": c.Intermediate,
		"num_hidden_layers": c.Layers, "num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "vocab_size": c.Vocab,
		"max_position_embeddings": c.Context, "tie_word_embeddings": c.Tied})
}

// planResult is a plan for a script to read. All sizes are bytes.
type planResult struct {
	Model       string           `json:"model"`
	Method      string           `json:"method"`
	Parameters  int64            `json:"parameters"`
	Sequences   int              `json:"sequences"` // of a pass
	Length      int              `json:"length"`    // tokens of each
	Parts       map[string]int64 `json:"parts"`
	Total       int64            `json:"total"`
	RematBlocks int              `json:"remat_blocks"` // of the model's blocks, how many are computed again
	Blocks      int              `json:"blocks"`
	// ByType is the model's weights alone, had all of them the type; nf4 is the 4-bit codes alone.
	ByType map[string]int64 `json:"weights_by_type"`
	// NF4Held is NF4 as it is published: codes, scales, and 16 bits for embedding, head and norms.
	NF4Held     int64    `json:"weights_nf4_published"`
	KVToken     int64    `json:"kv_cache_per_token"` // float32, when text is generated
	DeviceBytes int64    `json:"device_bytes,omitempty"`
	Memory      int64    `json:"memory,omitempty"` // the recipe's limit
	Fits        *bool    `json:"fits,omitempty"`   // in both of them
	ToFit       *fitting `json:"to_fit,omitempty"` // where it does not fit the device as it is

	order []train.Part // Parts in the order of printing
}

// fitting is the plan under a limit of memory.
type fitting struct {
	RematBlocks int   `json:"remat_blocks"`
	Total       int64 `json:"total"`
}

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
	name := cmp.Or(c.String("shape"), recipe.Model)
	config, text, err := plannedConfig(c.String("shape"), recipe.Model)
	if err != nil {
		return err
	}
	plan, err := train.PlanMemory(recipe, text)
	if errors.Is(err, train.ErrRecipe) {
		return usagef("%v", err)
	}
	if err != nil {
		return err
	}
	r, err := planned(config, plan)
	if err != nil {
		return err
	}
	r.Model, r.Method = name, recipe.Method
	if device > 0 || plan.Limit > 0 {
		fits := plan.Fits() && (device == 0 || r.Total <= device)
		r.DeviceBytes, r.Fits = device, &fits
		if r.Total > device && device > 0 && recipe.Memory == "" && recipe.Remat == "" {
			limited := recipe
			limited.Memory = c.String("device-bytes")
			p, err := train.PlanMemory(limited, text)
			if err != nil {
				return err
			}
			r.ToFit = &fitting{p.RematBlocks, p.Total}
		}
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

// plannedConfig returns the configuration of a shape, and its text, or that of a model.
func plannedConfig(shape, path string) (*model.Config, []byte, error) {
	if shape != "" {
		text, err := shapeConfig(shape)
		if err != nil {
			return nil, nil, err
		}
		config, err := model.ParseConfig(text)
		return config, text, err
	}
	m, err := openCheckpoint(path)
	if err != nil {
		return nil, nil, err
	}
	return m.Config(), nil, m.Close()
}

// planned lays a plan out for printing.
func planned(c *model.Config, p *train.Plan) (*planResult, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, err
	}
	r := &planResult{Parts: map[string]int64{}, Total: p.Total, Sequences: len(p.Lengths), Length: p.Lengths[0], RematBlocks: p.RematBlocks,
		Blocks: c.Layers, Memory: p.Limit, KVToken: 2 * 4 * int64(c.Layers) * int64(c.KVHeads) * int64(c.HeadDim), order: p.Parts}
	for _, part := range p.Parts {
		r.Parts[part.Name] = part.Bytes
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
	for _, part := range r.order {
		t.row(part.Name, size(part.Bytes))
	}
	t.row("total", size(r.Total))
	t.row("computed again", fmt.Sprintf("%d of %d blocks", r.RematBlocks, r.Blocks))
	for _, limit := range []struct {
		name  string
		bytes int64
	}{{"device", r.DeviceBytes}, {"memory", r.Memory}} {
		verdict := "fits"
		if r.Total > limit.bytes {
			verdict = "does not fit"
		}
		if limit.bytes > 0 {
			t.row(limit.name, fmt.Sprintf("%s: %s", size(limit.bytes), verdict))
		}
	}
	if f := r.ToFit; f != nil {
		verdict := "fits"
		if f.Total > r.DeviceBytes {
			verdict = "does not fit; a smaller batch_size or max_length takes less"
		}
		t.row("with --memory", fmt.Sprintf("%s, %d blocks computed again: %s", size(f.Total), f.RematBlocks, verdict))
	}
	t.row("weights alone", fmt.Sprintf("f32 %s, bf16 %s, nf4 %s", size(r.ByType["f32"]), size(r.ByType["bf16"]), size(r.ByType["nf4"])))
	t.flush()
	fmt.Fprintf(stdout, "\nThe nf4 figure is 4 bits for every value. With scales, and embedding, head and norms kept in 16 bits, it is %s.\n"+
		"These figures leave out adapters, gradients, optimizer and activations, and in generation %s of KV cache a token.\n",
		size(r.NF4Held), size(r.KVToken))
}
