// Package train trains low-rank adapters (LoRA, and QLoRA on 4-bit weights), or whole models, on the
// CPU.
//
// # Basics
//
// A [Recipe] says all about a run; [LoadRecipe] reads one from YAML. [Run] does what it says:
//
//	r, err := train.LoadRecipe("recipe.yaml", "max_steps=100")
//	…
//	result, err := train.Run(ctx, r, train.Options{Progress: func(e train.Event) { fmt.Println(e.Step, e.Loss) }})
//
// There is one loop, and an objective for each kind of data: sft predicts the next token of texts,
// conversations and completions; dpo (Rafailov et al. 2023) prefers one answer over another, the
// reference being the same weights with the adapter left out. Both average over the whole effective
// batch, sft by tokens and dpo by pairs, however many passes it is accumulated from. The update is
// AdamW as PyTorch computes it; biases and the gains of norms do not decay, as in transformers. Method
// full trains every parameter of the model instead of an adapter, for sft, in float32. Rows, forms and
// batches are those of package train/dataset.
//
// # Adapters
//
// Keys have PEFT's names and meaning. use_rslora, rank_pattern, alpha_pattern, exclude_modules,
// layers_to_transform and layers_pattern say where pairs stand, of what rank and scale; target_modules may
// name embed_tokens and lm_head. use_dora, lora_bias, bias, modules_to_save and trainable_token_indices train
// more than pairs; ensure_weight_tying changes a head that shares the embedding table with it. A key that
// matches nothing in the model is an error. loraplus_lr_ratio gives B its own learning rate (LoRA+).
//
// With init_lora_weights pissa, pissa_niter_N or olora pairs begin as the leading part of the weights, which
// is taken out of them in memory only. What is written is the difference, a plain adapter of twice the rank for
// the base as it is; with qlora, for the base in 4 bits. Going on from it goes on with twice the rank.
//
// Recipes can list adapters, each with a name and what it has otherwise than the others: all are trained on
// one base in memory, one after the other, each into a folder of its name in out and to the bytes that a run
// of its own would write. Memory is that of the one that takes most. They share model, method and number
// formats.
//
// An adapter holds a hash of the base it was trained on ([Recipe].Model may be a GGUF file in blocks of a few
// bits, which stay as they are); a run that goes on from one on another base says so.
//
// # Output
//
// The folder out gets adapter_model.safetensors and adapter_config.json, as PEFT lays them out,
// recipe.yaml (every key), metrics.jsonl, loss.svg, README.md (a model card) and state/. Of full
// training it gets a model in place of the adapter: model.safetensors in float32 and config.json, with
// the base's tokenizer, chat template, generation defaults and licence.
//
// metrics.jsonl has an object for each step: step, epoch, loss, lr, grad_norm (before clipping),
// tokens (of the sequences), target_tokens (that carry a loss), tokens_per_second; where an
// evaluation follows also eval_loss and eval_perplexity; for dpo rewards/chosen, rewards/rejected,
// rewards/accuracies, rewards/margins, logps/chosen and logps/rejected as TRL defines them, and with an
// evaluation their eval_ forms. Where there is data to evaluate on, an object of step 0 comes first.
//
// The adapter or model written is that of the evaluation with the lowest loss, counted after the first
// step, and without evaluations that of the last step.
//
// # Memory
//
// Before weights are read a run is planned ([PlanMemory], [Plan]) for the largest batch there is. With
// the recipe's memory it must fit in that: as many blocks as it takes keep only their input, and are
// computed again in the backward pass (remat auto), which changes time and no number.
//
// # Interruption
//
// state/ holds all a run needs to go on: a file of weights, moments and counters, and beside it, where
// there are evaluations, the best weights so far. Files are replaced by a rename, so whenever a run
// dies there is a whole state. It is written every save_steps, when the context is cancelled and at the
// end. A run that resumes from it ends in the same bytes as one that was never interrupted, on any
// number of threads.
package train

import "errors"

var (
	// ErrRecipe is wrapped by errors about what a recipe says.
	ErrRecipe = errors.New("invalid recipe")
	// ErrExists is wrapped by errors about a folder that holds something already.
	ErrExists = errors.New("the output exists")
	// ErrState is wrapped by errors about a run that cannot be resumed.
	ErrState = errors.New("cannot resume")
	// ErrDiverged is wrapped by errors about a run whose numbers are not finite any more.
	ErrDiverged = errors.New("training diverged")
)
