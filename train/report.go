package train

import (
	"bytes"
	"fmt"
	"image/color"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/graftml/graft/internal/wholefile"
)

// This file writes what people read: the curve of the loss and the model card.

const (
	plotFile = "loss.svg"
	cardFile = "README.md"
)

// plot draws the losses of metrics.jsonl over the steps.
func (r *run) plot() error {
	var losses, evals plotter.XYs
	err := eachMetrics(r.recipe.Out, func(m *metrics, _ []byte) {
		if m.Loss != nil {
			losses = append(losses, plotter.XY{X: float64(m.Step), Y: *m.Loss})
		}
		if m.EvalLoss != nil {
			evals = append(evals, plotter.XY{X: float64(m.Step), Y: *m.EvalLoss})
		}
	})
	if err != nil {
		return err
	}
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = "step", "loss"
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	for _, c := range []struct {
		name   string
		points plotter.XYs
		color  color.RGBA
	}{{"training", losses, color.RGBA{0x1f, 0x77, 0xb4, 0xff}}, {"held out", evals, color.RGBA{0xd6, 0x27, 0x28, 0xff}}} {
		if len(c.points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(c.points)
		if err != nil {
			return fmt.Errorf("train: drawing %s: %w", plotFile, err)
		}
		line.Color, dots.Color = c.color, c.color
		line.Width, dots.Radius, dots.Shape = vg.Points(1.5), vg.Points(1.5), draw.CircleGlyph{}
		p.Add(line)
		if len(c.points) <= 50 {
			p.Add(dots)
		}
		p.Legend.Add(c.name, line)
	}
	canvas := vgsvg.NewWith(vgsvg.UseWH(7*vg.Inch, 4*vg.Inch))
	p.Draw(draw.New(canvas))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return fmt.Errorf("train: drawing %s: %w", plotFile, err)
	}
	return r.writeFile(plotFile, b.Bytes())
}

func (r *run) writeFile(name string, data []byte) error {
	if err := wholefile.WriteFile(filepath.Join(r.recipe.Out, name), data); err != nil {
		return fmt.Errorf("train: writing %s: %w", name, err)
	}
	return nil
}

// card writes the model card.
func (r *run) card(result *Result) error {
	var b bytes.Buffer
	recipe := r.recipe
	full := recipe.Method == "full"
	library, tag, what := "peft", "lora", "A LoRA adapter of `%s`, trained by Graft."
	if full {
		library, tag, what = "transformers", "full", "`%s` with all its parameters trained by Graft, in float32."
	}
	fmt.Fprintf(&b, "---\nbase_model: %s\nlibrary_name: %s\npipeline_tag: text-generation\ntags: [%s, %s, graft]\n", quoteYAML(recipe.Model), library, tag, recipe.Objective)
	if r.base.Meta.License != "" {
		fmt.Fprintf(&b, "license: %s\n", quoteYAML(r.base.Meta.License))
	}
	if languages := r.base.Meta.Languages; len(languages) > 0 {
		fmt.Fprintf(&b, "language: %s\n", listYAML(languages))
	}
	fmt.Fprintf(&b, "---\n\n# %s\n\n"+what+"\n\n", filepath.Base(filepath.Clean(recipe.Out)), filepath.Base(recipe.Model))
	row := func(name string, format string, v ...any) {
		fmt.Fprintf(&b, "| %s | "+format+" |\n", append([]any{name}, v...)...)
	}
	b.WriteString("| | |\n|---|---|\n")
	row("objective", "%s", recipe.Objective)
	if full {
		row("method", "full")
	} else {
		row("method", "%s, rank %d, alpha %v, dropout %v", recipe.Method, recipe.R, recipe.LoraAlpha, recipe.LoraDropout)
		if kind := r.kind(); kind != "" {
			row("variant", "%s", kind)
		}
		row("trained on", "`%s`, weights %.12s…", filepath.Base(recipe.Model), r.adapter.Config.BaseHash)
	}
	if recipe.Method == "qlora" {
		row("base in", "%s, double quantization %v", recipe.QuantType, recipe.DoubleQuant)
	}
	row("trained values", "%d", result.Trained)
	row("data", "%s (%d examples)", strings.Join(baseNames(recipe.Data), ", "), len(r.train.lengths()))
	row("steps", "%d of %d sequences, %d tokens in all", result.Steps, recipe.BatchSize*recipe.GradientAccumulationSteps, result.Tokens)
	row("learning rate", "%v, %s, %d steps of warm-up", recipe.LearningRate, recipe.LRScheduler, recipe.WarmupSteps)
	if result.Evaluated {
		row("held-out loss before", "%.4f", result.FirstEval)
		row("held-out loss after", "%.4f (step %d, the best)", result.BestEval, result.BestStep)
	}
	if result.Stopped {
		row("ended by", "early stopping")
	}
	fmt.Fprintf(&b, "\n![loss](%s)\n\nThe exact recipe is in `%s`, every step's figures in `%s`.\n\n", plotFile, recipeFile, metricsFile)
	b.WriteString(usage(full))
	return r.writeFile(cardFile, b.Bytes())
}

// kind says what an adapter is besides plain LoRA, "" where it is nothing else.
func (r *run) kind() string {
	var out []string
	add := func(is bool, format string, v ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, v...))
		}
	}
	a, recipe := r.adapter, r.recipe
	add(recipe.UseDoRA, "DoRA")
	add(recipe.UseRSLoRA, "rank-stabilised scale")
	add(recipe.LoraplusLRRatio > 0, "LoRA+ with ratio %v", recipe.LoraplusLRRatio)
	add(recipe.InitLoraWeights != "true", "init_lora_weights %s", recipe.InitLoraWeights)
	add(r.frozen != nil, "written with rank %d, as the difference to the base", 2*recipe.R)
	add(len(recipe.RankPattern) > 0, "ranks by pattern")
	add(recipe.LoraBias, "biases on B")
	add(len(a.Whole) > 0, "%d parameters replaced whole", len(a.Whole))
	for i := range a.Rows {
		out = append(out, fmt.Sprintf("%d rows of %s replaced", len(a.Rows[i].Indices), a.Rows[i].Module))
	}
	add(recipe.EnsureWeightTying, "table and head change together")
	return strings.Join(out, ", ")
}

// usage shows how the result is loaded.
func usage(full bool) string {
	if full {
		return "```sh\ngraft generate THIS_FOLDER -p \"...\"\ngraft convert THIS_FOLDER -o model.gguf --type f16\n```\n\n" +
			"```python\nfrom transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(\"THIS_FOLDER\")\n```\n"
	}
	return "```sh\ngraft generate MODEL --adapter THIS_FOLDER -p \"...\"\ngraft merge MODEL THIS_FOLDER -o merged.gguf\n```\n\n" +
		"```python\nfrom peft import PeftModel\nmodel = PeftModel.from_pretrained(base, \"THIS_FOLDER\")\n```\n"
}

func baseNames(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = "`" + filepath.Base(p) + "`"
	}
	return out
}
