package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/train"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name:      "train",
		Usage:     "train an adapter, or the whole model",
		ArgsUsage: "[RECIPE.yaml]",
		Description: `A recipe is a flat YAML file; flags and --set change it. Rows are JSON, JSONL (also .gz, .zst) or text:
messages, instruction/input/output, prompt/completion, text, conversations; chosen and rejected for
dpo. Method lora trains an adapter, qlora one on weights in 4 bits, and full every weight: that takes
16 bytes a weight in memory and leaves a model folder in float32 for graft and transformers.
Ctrl-C, and even kill -9, leave a state from which --resume continues to the same bytes.
With --memory the run fits in so many bytes, by computing activations again; numbers stay the same.

An adapter is described by PEFT's keys: r, lora_alpha, lora_dropout, target_modules (names, an expression or
all-linear; also embed_tokens and lm_head), exclude_modules, layers_to_transform, layers_pattern,
rank_pattern and alpha_pattern ({q_proj: 4}), use_rslora, use_dora, lora_bias, bias (none, lora_only, all),
modules_to_save, trainable_token_indices, ensure_weight_tying, init_lora_weights (true, false, gaussian,
orthogonal, pissa, pissa_niter_N, olora), loraplus_lr_ratio and loraplus_lr_embedding. PiSSA and OLoRA are
written as the difference to the base as it is, of twice the rank. init_adapter goes on from an adapter in
any form, whose ranks and parts stay. A recipe with a list of adapters trains each into OUT/NAME on one
base in memory:

  model: model.gguf
  out: characters
  adapters:
  - {name: pirate, data: pirate.jsonl}
  - {name: poet, data: poet.jsonl, r: 32, use_dora: true, init_lora_weights: orthogonal}

An adapter remembers what weights it was trained on; commands that use it on others say so.

  graft train recipe.yaml --set learning_rate=1e-4 --set epochs=3
  graft train --model model.gguf --data rows.jsonl -o my-adapter --set max_length=512
  graft train --model model.gguf --data rows.jsonl -o my-adapter --memory 900MB
  graft train --objective dpo --method qlora --model model-hf --data pairs.json -o preferred
  graft train --method full --model model-hf --data rows.jsonl -o tuned
  graft train recipe.yaml --set use_dora=true --set 'rank_pattern={q_proj: 4}' --set modules_to_save=lm_head
  graft train recipe.yaml --init-adapter my-adapter -o further
  graft train recipe.yaml --resume`,
		Flags: append(recipeFlags(),
			&cli.BoolFlag{Name: "resume", Usage: "continue from the state in the output folder"},
			&cli.BoolFlag{Name: "force", Usage: "replace the run in the output folder"},
			jsonFlag()),
		Action: trainAction,
	}
}

// recipeFlags are those that change a recipe, the same for every command that takes one.
func recipeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "set", Usage: "`KEY=VALUE` of the recipe; repeatable"},
		&cli.StringFlag{Name: "objective", Usage: "sft or dpo"},
		&cli.StringFlag{Name: "method", Usage: "lora, qlora or full"},
		&cli.StringFlag{Name: "model", Usage: "`PATH` of the model"},
		&cli.StringSliceFlag{Name: "data", Usage: "`FILE` of rows; repeatable"},
		&cli.StringFlag{Name: "init-adapter", Aliases: []string{"init"}, Usage: "adapter to start from, a `PATH` in any form"},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FOLDER` of the results"},
		memoryFlag(),
	}
}

// overrides turns the flags of recipeFlags into the recipe's keys.
func overrides(c *cli.Command) []string {
	sets := c.StringSlice("set")
	for _, f := range []struct{ flag, key string }{{"objective", "objective"}, {"method", "method"}, {"model", "model"}, {"init-adapter", "init_adapter"}, {"out", "out"}, {"memory", "memory"}} {
		if c.IsSet(f.flag) {
			sets = append(sets, f.key+"="+c.String(f.flag))
		}
	}
	if files := c.StringSlice("data"); len(files) == 1 {
		sets = append(sets, "data="+files[0])
	} else if len(files) > 1 {
		sets = append(sets, "data=["+strings.Join(files, ", ")+"]")
	}
	return sets
}

func trainAction(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 0, 1)
	if err != nil {
		return err
	}
	path := ""
	if len(args) == 1 {
		path = args[0]
	}
	recipe, err := train.LoadRecipe(path, overrides(c)...)
	if err == nil {
		err = recipe.Validate()
	}
	if errors.Is(err, train.ErrRecipe) {
		return usagef("%v; see \"graft train --help\"", err)
	}
	if err != nil {
		return err
	}
	if c.Bool("force") {
		if err := checkReplaced(&recipe); err != nil {
			return err
		}
	}
	show := &trainProgress{}
	result, err := train.Run(ctx, recipe, train.Options{Resume: c.Bool("resume"), Force: c.Bool("force"), Progress: show.event, Planned: keepTo})
	show.clear()
	if errors.Is(err, train.ErrRecipe) {
		return usagef("%v", err)
	}
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped after step %d, whose state is kept; the same command with --resume goes on: %w", show.step, err)
		}
		return err
	}
	if c.Bool("json") {
		return printJSON(summaryOf(result))
	}
	for i, one := range result.Each {
		say("adapter %s, %d of %d:", recipe.Adapters[i].Name, i+1, len(result.Each))
		printResult(&recipe, one)
	}
	if len(result.Each) == 0 {
		printResult(&recipe, result)
	}
	return nil
}

func printResult(recipe *train.Recipe, result *train.Result) {
	t := newTable()
	what := "adapter"
	if recipe.Method == "full" {
		what = "model"
	}
	t.row(what, result.Out)
	t.row("steps", result.Steps)
	t.row("trained values", count(int64(result.Trained)))
	t.row("loss of the last step", fmt.Sprintf("%.4f", result.Loss))
	if result.Evaluated {
		t.row("held-out loss before", held(result, result.FirstEval))
		t.row("held-out loss after", held(result, result.LastEval))
		t.row("kept", fmt.Sprintf("the %s of step %d, held-out loss %.4f", what, result.BestStep, result.BestEval))
	}
	t.row("tokens", fmt.Sprintf("%d in %s, %.0f a second", result.Tokens, result.Elapsed.Round(time.Second), float64(result.Tokens)/result.Elapsed.Seconds()))
	t.flush()
}

// keepTo has garbage collected before it would take the process beyond the plan. Go's limit does not
// count the pages of the program file.
func keepTo(p *train.Plan) {
	const file = 18e6
	debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), p.Total-file))
}

// checkReplaced fails where --force would replace what is no run of ours, or what the run reads.
func checkReplaced(r *train.Recipe) error {
	there, err := os.Stat(r.Out)
	if err != nil {
		return nil // train says what is wrong with it
	}
	inputs := []string{r.Model, r.InitAdapter}
	for _, one := range r.Adapters {
		inputs = append(inputs, one.Keys["init_adapter"])
	}
	for _, in := range inputs {
		if info, err := os.Stat(in); err == nil && os.SameFile(info, there) {
			return fmt.Errorf("writing %q: that is the input %q; give another name", r.Out, in)
		}
	}
	entries, err := os.ReadDir(r.Out)
	if err != nil || len(entries) == 0 {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); name == "recipe.yaml" || name == "adapter_config.json" {
			return nil
		}
	}
	return fmt.Errorf("writing %q: what is there is no run, and --force replaces nothing else; remove it or give another name", r.Out)
}

// held writes a held-out loss, with the perplexity where it is one.
func held(r *train.Result, loss float64) string {
	if r.Objective != "sft" {
		return fmt.Sprintf("%.4f", loss)
	}
	return fmt.Sprintf("%.4f (perplexity %.3f)", loss, math.Exp(loss))
}

// summary is a finished run for a script to read.
type summary struct {
	Out       string   `json:"out"`
	Steps     int      `json:"steps"`
	Tokens    int64    `json:"tokens"`
	Seconds   float64  `json:"seconds"`
	Loss      float64  `json:"loss"`
	Stopped   bool     `json:"stopped_early"`
	FirstEval *float64 `json:"eval_loss_before,omitempty"`
	LastEval  *float64 `json:"eval_loss,omitempty"`
	BestEval  *float64 `json:"best_eval_loss,omitempty"`
	BestStep  int      `json:"best_step,omitempty"`
	// Adapters are the results of each of several; the fields above then are of all together, where that means something.
	Adapters []summary `json:"adapters,omitempty"`
}

func summaryOf(r *train.Result) summary {
	s := summary{Out: r.Out, Steps: r.Steps, Tokens: r.Tokens, Seconds: r.Elapsed.Seconds(), Loss: r.Loss, Stopped: r.Stopped}
	if r.Evaluated {
		s.FirstEval, s.LastEval, s.BestEval, s.BestStep = &r.FirstEval, &r.LastEval, &r.BestEval, r.BestStep
	}
	for _, one := range r.Each {
		s.Adapters = append(s.Adapters, summaryOf(one))
	}
	return s
}

// trainProgress shows a run: a bar on a terminal, else a line now and then.
type trainProgress struct {
	bar  *progressbar.ProgressBar
	last time.Time
	step int
	// adapter is the one that the bar is of.
	adapter string
}

func (p *trainProgress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear() // drawing is not worth failing for
	}
}

func (p *trainProgress) event(e train.Event) {
	switch e.Kind {
	case train.Note:
		p.clear()
		say("%s%s", of(e), e.Text)
	case train.Evaluated:
		p.clear()
		line := fmt.Sprintf("%sstep %d of %d: held-out loss %.4f", of(e), e.Step, e.Total, e.EvalLoss)
		if e.EvalPerplexity > 0 {
			line += fmt.Sprintf(", perplexity %.3f", e.EvalPerplexity)
		}
		say("%s", line)
	case train.Step:
		p.step = e.Step
		p.show(e)
	}
}

// of names the adapter that an event is about, where there are several.
func of(e train.Event) string {
	if e.Adapter == "" {
		return ""
	}
	return e.Adapter + ": "
}

func (p *trainProgress) show(e train.Event) {
	line := fmt.Sprintf("%sstep %d of %d, loss %.4f, %.0f tokens/s, %s left", of(e), e.Step, e.Total, e.Loss, e.TokensPerSecond, e.Left.Round(time.Second))
	if onTerminal() {
		if p.bar == nil || p.adapter != e.Adapter {
			p.clear()
			p.adapter = e.Adapter
			p.bar = progressbar.NewOptions(e.Total, progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
		}
		p.bar.Describe("graft: " + line)
		_ = p.bar.Set(e.Step)
		return
	}
	if e.Step == 1 || e.Step == e.Total || time.Since(p.last) >= lineEvery {
		p.last = time.Now()
		say("%s", line)
	}
}
