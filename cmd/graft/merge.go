package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/train/evaluate"
)

func mergeCommand() *cli.Command {
	return &cli.Command{
		Name:      "merge",
		Usage:     "merge adapters into a model",
		ArgsUsage: "BASE ADAPTER[:scale]…",
		Description: `Each tensor keeps its own type unless --type says otherwise; those no adapter touches keep their bytes.
DoRA, adapters on the embedding table and on the head, modules and token rows trained whole go in as
PEFT computes them; a head that shared the table gets a weight of its own where only one of the two
changes. Several adapters add up, whatever their order. The output is proved, as that of convert, against
the base with the adapters beside it. A scale of -1 takes a plain adapter out of a model again.

An adapter trained with qlora was trained on rounded weights. --trained-on nf4 merges it into the
values of those; without it the change goes into the base's own. --measure scores a text on all of them:
the base, the adapter beside either base, merged into either, and the file as written.

  graft merge model.gguf out/pirate -o pirate.gguf --type f16
  graft merge model-hf out/pirate:0.5 out/haiku -o merged-hf
  graft merge model-hf out/pirate -o pirate-q4.gguf --type q4_k_m --measure held-out.txt
  graft merge merged-hf out/pirate:-1 -o model-hf`,
		Flags: append(append(writeFlags(), fourBitFlags()...),
			&cli.StringFlag{Name: "type", Usage: "number `TYPE` of the weights, as for convert"},
			&cli.StringFlag{Name: "trained-on", Usage: "nf4 or fp4: merge into the base's products rounded to 4 bits and decoded, what qlora trains on (`TYPE`)"},
			&cli.StringFlag{Name: "measure", Usage: "score the text in `FILE` before and after, merged into the base and into its products rounded to 4 bits"},
			&cli.StringFlag{Name: "save-delta", Usage: "write the change of each parameter, full size, to this safetensors `FILE` as well"},
			jsonFlag()),
		Action: merge,
	}
}

func merge(ctx context.Context, c *cli.Command) error {
	args := c.Args().Slice()
	if len(args) < 2 {
		return usagef("graft merge takes BASE and at least one ADAPTER; see \"graft merge --help\"")
	}
	form, err := formOf(c, c.String("out"))
	if err != nil {
		return err
	}
	if form == "onnx" {
		return usagef("merge into a folder or a .gguf, then convert that to onnx; or keep the adapter swappable with graft convert --to onnx --adapter")
	}
	if c.Bool("json") && c.String("measure") == "" {
		return usagef("--json prints what --measure finds")
	}
	from := origin{path: args[0], adapters: args[1:]}
	switch t := strings.ToLower(c.String("trained-on")); t {
	case "":
	case "nf4", "fp4":
		o := fourBit(c)
		o.Type = t
		from.round = &o
	default:
		return usagef("--trained-on %q: choose nf4 or fp4", t)
	}
	text := ""
	if path := c.String("measure"); path != "" {
		if text, err = readText(path); err != nil {
			return err
		}
	}
	m, err := from.open()
	if err != nil {
		return err
	}
	defer m.Close()
	merged, err := mergeInto(m, from.adapters)
	if err != nil {
		return err
	}
	if path := c.String("save-delta"); path != "" && !c.Bool("dry-run") {
		if err := saveDelta(ctx, c, m, merged, path, slices.Concat([]string{from.path}, m.Parts, paths(from.adapters))); err != nil {
			return err
		}
	}
	if err := writeModel(ctx, c, merged, checkpoint.Form(form), c.String("type"), from); err != nil {
		return err
	}
	if text == "" || c.Bool("dry-run") {
		return nil
	}
	return measureMerge(ctx, c, from, text)
}

// fourBit takes the options of nf4 and fp4 from their flags.
func fourBit(c *cli.Command) quantize.Options4 {
	return quantize.Options4{Double: c.Bool("double-quant"), BlockSize: c.Int("block-size")}
}

// mergeInto returns a model as adapters change it.
func mergeInto(m *checkpoint.Checkpoint, adapterArgs []string) (*checkpoint.Checkpoint, error) {
	var list []*adapters.Adapter
	for _, arg := range adapterArgs {
		if arg == bare {
			continue
		}
		a, err := openAdapterOn(arg, m)
		if err != nil {
			return nil, err
		}
		if _, scale, err := adapterPath(arg); err == nil && scale < 0 && !additive(a) {
			return nil, usagef("adapter %q: a negative scale takes plain LoRA out of a model; what DoRA or whole parameters replaced is not in the model any more: keep the base", arg)
		}
		list = append(list, a)
	}
	return checkpoint.MergeAdapters(m, list...)
}

// additive reports whether all that an adapter does is to add to the base.
func additive(a *adapters.Adapter) bool {
	return len(a.Whole)+len(a.Rows) == 0 && !slices.ContainsFunc(a.Pairs, func(p adapters.Pair) bool { return p.Magnitude != nil })
}

// measured is one way to have an adapter, and how well it expects the text.
type measured struct {
	What       string  `json:"what"`
	NLL        float64 `json:"nll"` // mean, in nats
	Perplexity float64 `json:"perplexity"`
	Tokens     int     `json:"tokens"`
}

// measureMerge scores a text on the ways to have an adapter, so that the choice is seen.
func measureMerge(ctx context.Context, c *cli.Command, from origin, text string) error {
	own, rounded := origin{path: from.path, adapters: from.adapters}, from
	if rounded.round == nil {
		o := fourBit(c)
		o.Type = "nf4"
		rounded.round = &o
	}
	four := rounded.round.Type
	ways := []struct {
		what   string
		o      origin
		merged bool
	}{
		{"base", origin{path: from.path}, false},
		{"base, adapter beside it", own, false},
		{"base in " + four + ", adapter beside it", rounded, false},
		{"merged into the base", own, true},
		{"merged into the base in " + four, rounded, true},
		{"as written", origin{path: c.String("out")}, false},
	}
	m, err := openCheckpoint(from.path)
	if err != nil {
		return err
	}
	stored := false // in 4 bits: then there is one base
	for _, t := range m.Tensors() {
		stored = stored || t.Codec == "NF4" || t.Codec == "FP4"
	}
	m.Close()
	var rows []measured
	for _, way := range ways {
		if stored && way.o.round != nil {
			continue
		}
		r, err := way.o.scored(c, way.merged)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", way.what, err)
		}
		bar := newProgress("measuring " + way.what)
		s, err := evaluate.Perplexity(ctx, r, r.tok.Encode(text, tokenizer.Options{}), evaluate.Options{Context: min(512, r.context),
			Progress: func(done, total int) { bar.update(int64(done), int64(total)) }})
		bar.finish()
		err = errors.Join(err, r.close())
		if err != nil {
			return fmt.Errorf("measuring %s: %q: %w", way.what, c.String("measure"), err)
		}
		rows = append(rows, measured{way.what, s.NLL, s.Perplexity, s.Tokens})
	}
	if c.Bool("json") {
		return printJSON(rows)
	}
	t := newTable()
	t.row("what", "negative log likelihood", "perplexity")
	for _, r := range rows {
		t.row(r.What, fmt.Sprintf("%.6f", r.NLL), fmt.Sprintf("%.4f", r.Perplexity))
	}
	t.flush()
	return nil
}

// scored opens a model to score a text, its adapters beside it or in its weights.
func (o origin) scored(c *cli.Command, merged bool) (*runner, error) {
	if !merged || isBundle(o.path) {
		return openStored(c, o)
	}
	m, err := o.merged()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return nativeRunner(m, nil, engine.Options{})
}

// saveDelta writes what a merge adds to each parameter that it changes.
func saveDelta(ctx context.Context, c *cli.Command, base, merged *checkpoint.Checkpoint, path string, inputs []string) error {
	if err := checkPlace(path, c.Bool("force"), inputs); err != nil {
		return fmt.Errorf("writing %q: %w", filepath.Clean(path), err)
	}
	bar := newProgress("writing " + path)
	n, err := checkpoint.WriteDelta(ctx, base, merged, path, bar.update)
	bar.finish()
	if err != nil {
		return err
	}
	say("wrote %s: the changes of %d parameters", path, n)
	return nil
}
