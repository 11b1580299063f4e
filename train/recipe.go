package train

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// This file is what a run can be told: its keys, their defaults and what values they take.
// Reading and writing the file is in recipefile.go, keys of an adapter's variants in variants.go.

// Recipe says all about a run. Its keys are those of the file, named as PEFT and TRL name them where
// they have a name. Start from [Defaults] or [LoadRecipe].
type Recipe struct {
	Model    string   `yaml:"model"`     // checkpoint: GGUF file or folder of safetensors
	Data     []string `yaml:"data"`      // files of rows; see package dataset
	Out      string   `yaml:"out"`       // folder of the results
	EvalData []string `yaml:"eval_data"` // files of rows to measure on
	Holdout  float64  `yaml:"holdout"`   // or the fraction of the data set aside for that

	Objective string `yaml:"objective"` // "sft" or "dpo"
	Method    string `yaml:"method"`    // "lora", "qlora" (the same on weights quantized to 4 bits) or "full": every parameter of the model

	R                 int      `yaml:"r"`
	LoraAlpha         float64  `yaml:"lora_alpha"` // the adapter counts alpha/r; 0 means 2·r
	LoraDropout       float64  `yaml:"lora_dropout"`
	TargetModules     Targets  `yaml:"target_modules"`
	ExcludeModules    Targets  `yaml:"exclude_modules"`     // of the targets, those that get no adapter
	LayersToTransform Layers   `yaml:"layers_to_transform"` // of the targets, those in these blocks
	LayersPattern     []string `yaml:"layers_pattern"`      // what the list of blocks is called in paths; any where empty
	RankPattern       Patterns `yaml:"rank_pattern"`        // ranks other than r
	AlphaPattern      Patterns `yaml:"alpha_pattern"`       // alphas other than lora_alpha
	UseRSLoRA         bool     `yaml:"use_rslora"`          // the adapter counts alpha/√r
	UseDoRA           bool     `yaml:"use_dora"`
	InitLoraWeights   Init     `yaml:"init_lora_weights"`
	LoraBias          bool     `yaml:"lora_bias"`       // a bias with every B
	Bias              string   `yaml:"bias"`            // of the model's own biases "none" are trained, those of the targets ("lora_only") or "all"
	ModulesToSave     []string `yaml:"modules_to_save"` // ends of paths of modules that are trained whole
	// TrainableTokenIndices are rows of the embedding table that are trained by themselves.
	TrainableTokenIndices TokenIndices `yaml:"trainable_token_indices"`
	EnsureWeightTying     bool         `yaml:"ensure_weight_tying"` // what changes the table changes the head that shares it
	InitAdapter           string       `yaml:"init_adapter"`        // adapter to start from; it decides all of the above but the dropout
	// Adapters, where there are any, are trained one after the other on the one base, each into a folder of
	// its name in Out, as a run of its own would.
	Adapters AdapterRecipes `yaml:"adapters"`

	BatchSize                 int     `yaml:"batch_size"` // sequences a pass (pairs, for preferences)
	GradientAccumulationSteps int     `yaml:"gradient_accumulation_steps"`
	MaxLength                 int     `yaml:"max_length"` // tokens a sequence
	MaxSteps                  int     `yaml:"max_steps"`  // 0: as many as epochs take
	Epochs                    float64 `yaml:"epochs"`
	Shuffle                   bool    `yaml:"shuffle"` // true unless packing is stream
	Seed                      int     `yaml:"seed"`

	Packing      string `yaml:"packing"`       // "none", "examples" or "stream"
	TrainOn      string `yaml:"train_on"`      // "assistant" or "all"
	ChatTemplate string `yaml:"chat_template"` // name of a template, or file; "" is the model's own
	Overlong     string `yaml:"overlong"`      // rows above max_length: "auto", "truncate", "drop" or "error"

	LearningRate float64 `yaml:"learning_rate"` // 0: 2e-4, for dpo 5e-5, for method full 2e-5
	// LoraplusLRRatio is how many times the rate of A the rate of B is (LoRA+, Hayou et al. 2024); 0 is once.
	LoraplusLRRatio     float64 `yaml:"loraplus_lr_ratio"`
	LoraplusLREmbedding float64 `yaml:"loraplus_lr_embedding"` // with it, the rate of pairs on the embedding table; 0 means 1e-6

	LRScheduler string  `yaml:"lr_scheduler"` // "constant", "linear" or "cosine"
	WarmupSteps int     `yaml:"warmup_steps"`
	Optimizer   string  `yaml:"optimizer"` // "adamw"
	AdamBeta1   float64 `yaml:"adam_beta1"`
	AdamBeta2   float64 `yaml:"adam_beta2"`
	AdamEpsilon float64 `yaml:"adam_epsilon"`
	WeightDecay float64 `yaml:"weight_decay"`  // of matrices; as in transformers, biases and the gains of norms do not decay
	MaxGradNorm float64 `yaml:"max_grad_norm"` // 0: no clipping

	Compute     string `yaml:"compute"` // "f32", or "bf16": products on bfloat16 operands with float32 sums, and values between operations in bfloat16
	Remat       string `yaml:"remat"`   // blocks whose activations are computed again: "none", "block" (all), or "auto": as few as memory asks for; "" is auto with memory, else none
	Memory      string `yaml:"memory"`  // what the run must fit in, such as "2GB"; "" is no limit
	Threads     int    `yaml:"threads"` // 0: all
	QuantType   string `yaml:"quant_type"`
	DoubleQuant bool   `yaml:"double_quant"`

	SaveSteps     int `yaml:"save_steps"`     // 0: only at the end and when interrupted
	EvalSteps     int `yaml:"eval_steps"`     // 0: only before the first step and after the last
	LoggingSteps  int `yaml:"logging_steps"`  // steps between reports of progress
	EarlyStopping int `yaml:"early_stopping"` // stop after so many evaluations without a better loss; 0: never

	Beta           float64 `yaml:"beta"`      // dpo: strength of the pull to the reference
	LossType       string  `yaml:"loss_type"` // dpo: "sigmoid"
	LabelSmoothing float64 `yaml:"label_smoothing"`

	given map[string]bool // keys that a file or an override set
}

// Targets chooses the products that get an adapter.
type Targets struct {
	// Modules are paths, or their last parts: q_proj stands for every module called so.
	Modules []string
	// Pattern, without Modules, is "all-linear" or a regular expression for whole paths.
	Pattern string
}

// Defaults returns the recipe that a file without keys means.
func Defaults() Recipe {
	return Recipe{
		Objective: "sft", Method: "lora",
		R: 16, TargetModules: Targets{Pattern: "all-linear"}, InitLoraWeights: "true", Bias: "none",
		BatchSize: 4, GradientAccumulationSteps: 1, MaxLength: 1024, Epochs: 1, Shuffle: true, Seed: 42,
		Packing: "none", TrainOn: "assistant", Overlong: "auto",
		LRScheduler: "linear", Optimizer: "adamw", AdamBeta1: 0.9, AdamBeta2: 0.999, AdamEpsilon: 1e-8, MaxGradNorm: 1,
		Compute: "f32", QuantType: "nf4", DoubleQuant: true,
		SaveSteps: 100, LoggingSteps: 1,
		Beta: 0.1, LossType: "sigmoid",
	}
}

// resolve fills in the values that follow from others.
func (r *Recipe) resolve() {
	if r.LoraAlpha == 0 && r.Method != "full" {
		r.LoraAlpha = 2 * float64(r.R)
	}
	if r.LearningRate == 0 && !r.given["learning_rate"] {
		r.LearningRate = 2e-4
		switch {
		case r.Method == "full":
			r.LearningRate = 2e-5
		case r.Objective == "dpo":
			r.LearningRate = 5e-5
		}
	}
	if r.LoraplusLRRatio > 0 && r.LoraplusLREmbedding == 0 {
		r.LoraplusLREmbedding = 1e-6
	}
	if r.Packing == "stream" && !r.given["shuffle"] {
		r.Shuffle = false
	}
	if r.Remat == "" {
		r.Remat = "none"
		if r.Memory != "" {
			r.Remat = "auto"
		}
	}
	if r.Optimizer == "adamw_torch" {
		r.Optimizer = "adamw"
	}
}

// Validate reports the first key whose value a run cannot have. The error wraps ErrRecipe.
func (r *Recipe) Validate() error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("train: checking recipe: %w: %w", ErrRecipe, err)
	}
	return nil
}

func (r *Recipe) validate() error {
	if len(r.Adapters) > 0 {
		return r.validateAdapters()
	}
	for _, c := range []struct{ key, value string }{{"model", r.Model}, {"out", r.Out}} {
		if c.value == "" {
			return fmt.Errorf("%s is missing", c.key)
		}
	}
	if len(r.Data) == 0 {
		return fmt.Errorf("data is missing")
	}
	for _, c := range []struct {
		key, value string
		known      []string
	}{
		{"objective", r.Objective, []string{"sft", "dpo"}}, {"method", r.Method, []string{"lora", "qlora", "full"}},
		{"packing", r.Packing, []string{"none", "examples", "stream"}}, {"train_on", r.TrainOn, []string{"assistant", "all"}},
		{"overlong", r.Overlong, []string{"auto", "truncate", "drop", "error"}},
		{"lr_scheduler", r.LRScheduler, []string{"constant", "linear", "cosine"}}, {"optimizer", r.Optimizer, []string{"adamw"}},
		{"compute", r.Compute, []string{"f32", "bf16"}}, {"quant_type", r.QuantType, []string{"nf4", "fp4"}},
		{"bias", r.Bias, []string{"none", "lora_only", "all"}},
		{"loss_type", r.LossType, []string{"sigmoid"}}, {"remat", cmp.Or(r.Remat, "none"), []string{"none", "block", "auto"}},
	} {
		if slices.Contains(c.known, c.value) {
			continue
		}
		return fmt.Errorf("%s %q: this version has %s", c.key, c.value, strings.Join(c.known, ", "))
	}
	switch {
	case r.Remat == "auto" && r.Memory == "":
		return fmt.Errorf("remat auto chooses what fits in memory; set memory, or use none or block")
	case len(r.EvalData) > 0 && r.Holdout != 0:
		return fmt.Errorf("eval_data and holdout exclude each other")
	case r.Objective == "dpo" && r.Packing != "none":
		return fmt.Errorf("packing %q: preferences are not packed; use none", r.Packing)
	case r.EarlyStopping > 0 && (r.EvalSteps == 0 || len(r.EvalData) == 0 && r.Holdout == 0):
		return fmt.Errorf("early_stopping needs eval_steps, and eval_data or holdout")
	case len(r.TargetModules.Modules) == 0 && r.TargetModules.Pattern == "":
		return fmt.Errorf("target_modules is empty")
	}
	if _, err := ParseSize(r.Memory); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	if r.Method == "full" {
		if err := r.validateFull(); err != nil {
			return err
		}
	}
	if err := r.validateVariants(); err != nil {
		return err
	}
	return r.validateNumbers()
}

func (r *Recipe) validateNumbers() error {
	inf := math.Inf(1)
	for _, c := range []struct {
		key       string
		v, lo, hi float64
		open      bool // hi is excluded
	}{
		{"holdout", r.Holdout, 0, 1, true}, {"r", float64(r.R), 1, 256, false}, {"lora_dropout", r.LoraDropout, 0, 1, true},
		{"lora_alpha", r.LoraAlpha, 0, inf, true},
		{"batch_size", float64(r.BatchSize), 1, 1 << 16, false}, {"gradient_accumulation_steps", float64(r.GradientAccumulationSteps), 1, 1 << 20, false},
		{"max_length", float64(r.MaxLength), 2, 1 << 24, false}, {"max_steps", float64(r.MaxSteps), 0, 1 << 40, false},
		{"epochs", r.Epochs, 0, 1 << 20, false}, {"seed", float64(r.Seed), 0, 1 << 62, false},
		{"loraplus_lr_ratio", r.LoraplusLRRatio, 0, inf, true}, {"loraplus_lr_embedding", r.LoraplusLREmbedding, 0, inf, true},
		{"learning_rate", r.LearningRate, 0, inf, true}, {"warmup_steps", float64(r.WarmupSteps), 0, 1 << 40, false},
		{"adam_beta1", r.AdamBeta1, 0, 1, true}, {"adam_beta2", r.AdamBeta2, 0, 1, true}, {"adam_epsilon", r.AdamEpsilon, 0, 1, false},
		{"weight_decay", r.WeightDecay, 0, inf, true}, {"max_grad_norm", r.MaxGradNorm, 0, inf, true},
		{"threads", float64(r.Threads), 0, 1 << 12, false}, {"save_steps", float64(r.SaveSteps), 0, 1 << 40, false},
		{"eval_steps", float64(r.EvalSteps), 0, 1 << 40, false}, {"logging_steps", float64(r.LoggingSteps), 1, 1 << 40, false},
		{"early_stopping", float64(r.EarlyStopping), 0, 1 << 40, false},
		{"beta", r.Beta, 0, inf, true}, {"label_smoothing", r.LabelSmoothing, 0, 0.5, true},
	} {
		if c.v >= c.lo && (c.v < c.hi || c.v == c.hi && !c.open) {
			continue
		}
		switch {
		case math.IsInf(c.hi, 1):
			return fmt.Errorf("%s is %s, not a number from %s on", c.key, digits(c.v), digits(c.lo))
		case c.open:
			return fmt.Errorf("%s is %s, not from %s to below %s", c.key, digits(c.v), digits(c.lo), digits(c.hi))
		}
		return fmt.Errorf("%s is %s, not from %s to %s", c.key, digits(c.v), digits(c.lo), digits(c.hi))
	}
	if r.MaxSteps == 0 && r.Epochs == 0 {
		return fmt.Errorf("max_steps and epochs are both 0")
	}
	return nil
}

// digits writes a number without an exponent, as a person would have written it.
func digits(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// checkPaths reports inputs that are not there before anything is loaded.
func (r *Recipe) checkPaths() error {
	for _, list := range []struct {
		key   string
		paths []string
	}{{"model", []string{r.Model}}, {"data", r.Data}, {"eval_data", r.EvalData}, {"init_adapter", []string{r.InitAdapter}}} {
		for _, p := range list.paths {
			if p == "" {
				continue
			}
			if _, err := os.Stat(p); err != nil {
				return fmt.Errorf("train: checking recipe: %w: %s: %w", ErrRecipe, list.key, err)
			}
		}
	}
	return nil
}
