package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
)

// This file is full training, as far as it differs from training an adapter: what cannot be asked for,
// and the model that is written at the end. Embeddings that are tied to the head are one parameter, in
// memory as in the file.

// adapterKeys are the keys that only an adapter has.
var adapterKeys = append([]string{"r", "lora_alpha", "lora_dropout", "loraplus_lr_ratio", "loraplus_lr_embedding", "adapters", "init_adapter"}, shapeKeys...)

// shapeKeys are those of what an adapter is made of, besides r and lora_alpha.
var shapeKeys = []string{"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
	"use_rslora", "use_dora", "init_lora_weights", "lora_bias", "bias", "modules_to_save", "trainable_token_indices", "ensure_weight_tying"}

// validateFull reports the first key that full training cannot follow.
func (r *Recipe) validateFull() error {
	for _, key := range adapterKeys {
		if r.given[key] || !r.isDefault(key) {
			return fmt.Errorf("%s: method full trains the model itself and has no adapter; leave the key out, or use method lora", key)
		}
	}
	switch {
	case r.Objective == "dpo":
		return fmt.Errorf("objective %q: with method full its reference would be a second copy of the model; use method lora or qlora, after a full run with objective sft where that is wanted", r.Objective)
	case r.Compute != "f32":
		return fmt.Errorf("compute %q: it is for products with frozen weights, and method full freezes none; use f32", r.Compute)
	}
	return nil
}

// checkBase reports a model that cannot be trained or written as a whole, before hours are spent on it.
func checkBase(r *Recipe, c *checkpoint.Checkpoint) error {
	for _, t := range c.Tensors() {
		if t.Codec == "NF4" || t.Codec == "FP4" {
			return fmt.Errorf("train: checking recipe: %w: method full: model %q holds %q in %s, which takes no small changes; use method qlora, or the model it was made from (\"graft convert MODEL -o OUT --type f32\" decodes this one)",
				ErrRecipe, r.Model, t.Name, t.Codec)
		}
	}
	if _, err := c.FolderFiles(); err != nil {
		return fmt.Errorf("train: preparing to write the model: %w", err)
	}
	return nil
}

// trained is a checkpoint whose values are those in memory.
type trained struct {
	checkpoint.Source // of which only the configuration is left
	params            []engine.Param
}

// Tensors lists the parameters as they are trained and written, whatever the base's number types.
func (t *trained) Tensors() []checkpoint.Tensor {
	out := make([]checkpoint.Tensor, len(t.params))
	for i, p := range t.params {
		out[i] = checkpoint.Tensor{Name: p.Name, Shape: p.Shape, Codec: "F32"}
	}
	return out
}

func (t *trained) Rows(name string, lo, hi int, dst []float32) error {
	i := slices.IndexFunc(t.params, func(p engine.Param) bool { return p.Name == name })
	if i < 0 {
		return fmt.Errorf("train: reading tensor %q: it is not trained", name)
	}
	p := &t.params[i]
	cols := len(p.Value) / p.Shape[0]
	copy(dst, p.Value[lo*cols:hi*cols])
	return nil
}

// modelDir is where the model grows, within state/.
const modelDir = "model"

// writeModel writes the trained model as a Hugging Face folder in float32. It is made and read back
// beside the state; then its files move to their places, the configuration last: without one, a folder
// is no model.
func (r *run) writeModel(ctx context.Context) error {
	dir := filepath.Join(r.recipe.Out, stateDir, modelDir)
	defer os.RemoveAll(dir)
	tidy(filepath.Dir(dir))
	src := &trained{r.base.Source, r.optimizer.params}
	if _, err := checkpoint.Write(ctx, r.base.With(src), dir, checkpoint.Options{Form: checkpoint.Safetensors}); err != nil {
		return fmt.Errorf("train: writing the model: %w", err)
	}
	if err := src.compare(dir); err != nil {
		return fmt.Errorf("train: reading the written model back: %w", err)
	}
	for _, name := range checkpoint.FolderNames() {
		if name == cardFile {
			continue // the base's; the run writes its own
		}
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(r.recipe.Out, name)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("train: writing the model: %w", err)
		}
	}
	return nil
}

// release gives back all but the parameters, so that writing results adds nothing to a run's
// peak.
func (r *run) release() {
	params := r.optimizer.params
	for i := range params {
		params[i].Grad = nil
	}
	r.session, r.optimizer = nil, &optimizer{params: params}
	debug.FreeOSMemory()
}

// compare reads a written model and fails where a bit of it is another.
func (t *trained) compare(dir string) error {
	c, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Tokenizer(); err != nil {
		return err
	}
	var buf []float32
	for _, p := range t.params {
		cols := len(p.Value) / p.Shape[0]
		step := max(1, pieceValues/cols)
		buf = slices.Grow(buf[:0], step*cols)
		for lo := 0; lo < p.Shape[0]; lo += step {
			hi := min(lo+step, p.Shape[0])
			got := buf[:(hi-lo)*cols]
			if err := c.Rows(p.Name, lo, hi, got); err != nil {
				return err
			}
			for i, v := range p.Value[lo*cols : hi*cols] {
				if math.Float32bits(got[i]) != math.Float32bits(v) {
					return fmt.Errorf("tensor %q: row %d, column %d is %v, not %v", p.Name, lo+i/cols, i%cols, got[i], v)
				}
			}
		}
	}
	return nil
}
