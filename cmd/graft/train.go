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

  graft train recipe.yaml --set learning_rate=1e-4 --set epochs=3
  graft train --model model.gguf --data rows.jsonl -o my-adapter --set max_length=512
  graft train --model model.gguf --data rows.jsonl -o my-adapter --memory 900MB
  graft train --objective dpo --method qlora --model model-hf --data pairs.json -o preferred
  graft train --method full --model model-hf --data rows.jsonl -o tuned
  graft train recipe.yaml --resume`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "set", Usage: "`KEY=VALUE` of the recipe; repeatable"},
			&cli.StringFlag{Name: "objective", Usage: "sft or dpo"},
			&cli.StringFlag{Name: "method", Usage: "lora, qlora or full"},
			&cli.StringFlag{Name: "model", Usage: "`PATH` of the model"},
			&cli.StringSliceFlag{Name: "data", Usage: "`FILE` of rows; repeatable"},
			&cli.StringFlag{Name: "init-adapter", Aliases: []string{"init"}, Usage: "PEFT `FOLDER` to start from"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FOLDER` of the results"},
			memoryFlag(),
			&cli.BoolFlag{Name: "resume", Usage: "continue from the state in the output folder"},
			&cli.BoolFlag{Name: "force", Usage: "replace the run in the output folder"},
			jsonFlag(),
		},
		Action: trainAction,
	}
}

// overrides turns flags into the recipe's keys.
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
		t.row("held-out loss before", held(recipe, result.FirstEval))
		t.row("held-out loss after", held(recipe, result.LastEval))
		t.row("kept", fmt.Sprintf("the %s of step %d, held-out loss %.4f", what, result.BestStep, result.BestEval))
	}
	t.row("tokens", fmt.Sprintf("%d in %s, %.0f a second", result.Tokens, result.Elapsed.Round(time.Second), float64(result.Tokens)/result.Elapsed.Seconds()))
	t.flush()
	return nil
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
	for _, in := range []string{r.Model, r.InitAdapter} {
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
func held(r train.Recipe, loss float64) string {
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
}

func summaryOf(r *train.Result) summary {
	s := summary{Out: r.Out, Steps: r.Steps, Tokens: r.Tokens, Seconds: r.Elapsed.Seconds(), Loss: r.Loss, Stopped: r.Stopped}
	if r.Evaluated {
		s.FirstEval, s.LastEval, s.BestEval, s.BestStep = &r.FirstEval, &r.LastEval, &r.BestEval, r.BestStep
	}
	return s
}

// trainProgress shows a run: a bar on a terminal, else a line now and then.
type trainProgress struct {
	bar  *progressbar.ProgressBar
	last time.Time
	step int
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
		say("%s", e.Text)
	case train.Evaluated:
		p.clear()
		line := fmt.Sprintf("step %d of %d: held-out loss %.4f", e.Step, e.Total, e.EvalLoss)
		if e.EvalPerplexity > 0 {
			line += fmt.Sprintf(", perplexity %.3f", e.EvalPerplexity)
		}
		say("%s", line)
	case train.Step:
		p.step = e.Step
		p.show(e)
	}
}

func (p *trainProgress) show(e train.Event) {
	line := fmt.Sprintf("step %d of %d, loss %.4f, %.0f tokens/s, %s left", e.Step, e.Total, e.Loss, e.TokensPerSecond, e.Left.Round(time.Second))
	if onTerminal() {
		if p.bar == nil {
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
