package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
)

func combineAdaptersCommand() *cli.Command {
	return &cli.Command{
		Name: "combine", Usage: "add adapters up, each times a weight", ArgsUsage: "ADAPTER[:weight]…",
		Description: `Writes one adapter, a PEFT folder, that does what several do together; a negative weight takes one away.
No model is needed. Methods, as PEFT's add_weighted_adapter has them:

  svd              the sum, by its best approximation of --rank (by default the largest there is)
  cat              the sum itself; its rank is the sum of ranks
  linear           A with A and B with B: cheap and rough, as products of one adapter's A with another's B come in
  ties             keeps the --density of values that are largest, and of each only those of the sign that prevails
  dare_linear      keeps the --density of values at random (--seed), grown to make up for the others
  dare_ties        both
  magnitude_prune  keeps the largest --density of values
  ties_svd, dare_linear_svd, dare_ties_svd, magnitude_prune_svd
                   the same on the changes of whole weights, then their best approximation of --rank

Ranks and modules may differ. Biases, modules and token rows trained whole are combined too, with --base
or where their weights sum to 1. DoRA is kept where no other adapter changes the module, and refused otherwise.
--report says what is lost in each module, and how much every two adapters have in common: the cosine
of the angle between their changes, and the share of values that they pull in opposite directions.

  graft adapter combine pirate:0.7 haiku:0.3 -o both
  graft adapter combine pirate haiku --method ties_svd --density 0.4 --rank 32 --report -o both
  graft adapter combine pirate haiku:-1 --method cat -o difference`,
		Flags: []cli.Flag{
			outFlag("the adapter, a folder"), forceFlag(),
			&cli.StringFlag{Name: "method", Usage: strings.Join(adapters.Methods(), ", "), Value: "svd", HideDefault: true},
			rankFlag("of what svd and the _svd methods make"),
			&cli.FloatFlag{Name: "density", Usage: "share of values to keep, above 0 and up to 1", HideDefault: true},
			&cli.StringFlag{Name: "majority-sign", Usage: "how ties votes: total, by the sum of values, or frequency, by their number"},
			&cli.Uint64Flag{Name: "seed", Usage: "decides which values dare keeps"},
			&cli.StringFlag{Name: "base", Usage: "the `MODEL` that they are for, for a check, for forms that need it, and where weights of whole parameters do not sum to 1"},
			reportFlag(), jsonFlag(),
		},
		Action: combineAdapters,
	}
}

func rankFlag(of string) cli.Flag {
	return &cli.IntFlag{Name: "rank", Usage: "rank `R` " + of, HideDefault: true, Validator: atLeast(1)}
}

func energyFlag() cli.Flag {
	return &cli.FloatFlag{Name: "energy", Usage: "keep this share of each change, such as 0.95, by the smallest rank that does; with --rank at most that", HideDefault: true}
}

func reportFlag() cli.Flag {
	return &cli.BoolFlag{Name: "report", Usage: "print what each module loses, with singular values"}
}

func combineAdapters(ctx context.Context, c *cli.Command) error {
	args := c.Args().Slice()
	if len(args) == 0 {
		return usagef("graft adapter combine takes at least one ADAPTER[:weight]; see \"graft adapter combine --help\"")
	}
	var m *checkpoint.Checkpoint
	var err error
	var base adapters.ReadRows
	if c.String("base") != "" {
		if m, err = openCheckpoint(c.String("base")); err != nil {
			return err
		}
		defer m.Close()
		base = untied(m)
	}
	list, err := weightedAdapters(m, args)
	if err != nil {
		return err
	}
	if c.IsSet("density") && c.Float("density") == 0 {
		return usagef("--density 0 keeps nothing; it goes above 0 and up to 1")
	}
	inputs := paths(args)
	if m != nil {
		inputs = append(append(inputs, m.Path), m.Parts...)
	}
	out, err := newAdapterOutput(c, inputs...)
	if err != nil {
		return err
	}
	defer out.discard()
	a, report, err := adapters.Combine(list, adapters.CombineOptions{
		Method: c.String("method"), Rank: c.Int("rank"), Density: c.Float("density"),
		MajoritySign: c.String("majority-sign"), Seed: c.Uint64("seed"), Base: base, Report: c.Bool("report") || c.Bool("json"),
	})
	if err != nil {
		return err
	}
	if err := out.writeAdapter(a); err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return printJSON(report)
	case c.Bool("report"):
		if len(report.Modules) > 0 {
			printModules(report.Modules)
		}
		if len(report.Overlaps) > 0 {
			t := newTable()
			t.row("module", "adapter", "and", "cosine", "sign conflicts")
			for _, o := range report.Overlaps {
				t.row(o.Module, args[o.First], args[o.Second], fmt.Sprintf("%.3f", o.Cosine), percent(o.Conflicts))
			}
			t.flush()
		}
	}
	return nil
}

// weightedAdapters reads the arguments of combine, and checks them against the base where there is one.
func weightedAdapters(m *checkpoint.Checkpoint, args []string) ([]adapters.Weighted, error) {
	var list []adapters.Weighted
	var seen []os.FileInfo
	for _, arg := range args {
		path, weight, err := adapterPath(arg)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(path)
		for i, other := range seen {
			if err == nil && os.SameFile(info, other) {
				return nil, usagef("%s and %s are the same adapter; name it once, with the sum of the weights", args[i], arg)
			}
		}
		seen = append(seen, info)
		var a *adapters.Adapter
		if m != nil {
			a, err = openAdapter(path, m.Config())
		} else {
			a, err = adapters.Open(path)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, adapters.Weighted{Adapter: a, Weight: weight})
	}
	return list, nil
}

// newAdapterOutput is newOutput for an adapter in PEFT's form.
func newAdapterOutput(c *cli.Command, inputs ...string) (*output, error) {
	switch filepath.Ext(c.String("out")) {
	case ".gguf", ".onnx_adapter", ".safetensors":
		return nil, usagef("%s writes a PEFT folder; graft adapter convert makes other forms of it", c.FullName())
	}
	return newOutput(c, inputs...)
}

// writeAdapter writes an adapter in PEFT's form to its place.
func (o *output) writeAdapter(a *adapters.Adapter) error {
	if err := adapters.WritePEFT(o.path(), a); err != nil {
		return o.explain(err)
	}
	if err := o.finish(); err != nil {
		return err
	}
	say("wrote %s: %d modules, %s parameters", o.name, len(a.Pairs), count(int64(a.Parameters())))
	return nil
}

// printModules prints what pairs of matrices leave out.
func printModules(modules []adapters.ModuleReport) {
	t := newTable()
	t.row("module", "rank", "lost", "singular values")
	for _, m := range modules {
		t.row(m.Module, m.Rank, percent(m.Residual), someValues(m.Values))
	}
	t.flush()
}

// someValues are the first singular values and the last.
func someValues(v []float64) string {
	var b strings.Builder
	for i, x := range v {
		if i >= 6 && i < len(v)-1 {
			if i == 6 {
				b.WriteString(" …")
			}
			continue
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%.3g", x)
	}
	return b.String()
}

func percent(v float64) string { return fmt.Sprintf("%.3g %%", 100*v) }

func resizeAdapterCommand() *cli.Command {
	return &cli.Command{
		Name: "resize", Usage: "lower the rank of an adapter", ArgsUsage: "ADAPTER",
		Description: `Replaces every pair of matrices by its best approximation of a rank, exactly computed. No model is needed.
Pairs of no higher rank stay as they are. --report prints what is lost and the singular values, which show
what rank would do.

  graft adapter resize pirate --rank 8 -o pirate-r8 --report
  graft adapter resize pirate --energy 0.99 -o pirate-small`,
		Flags:  []cli.Flag{outFlag("the adapter, a folder"), forceFlag(), rankFlag("to lower it to"), energyFlag(), reportFlag(), jsonFlag()},
		Action: resizeAdapter,
	}
}

func resizeAdapter(_ context.Context, c *cli.Command) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	if !c.IsSet("rank") && !c.IsSet("energy") {
		return usagef("%s wants --rank or --energy", c.FullName())
	}
	a, err := adapters.Open(args[0])
	if err != nil {
		return err
	}
	out, err := newAdapterOutput(c, args...)
	if err != nil {
		return err
	}
	defer out.discard()
	small, report, err := adapters.Resize(a, c.Int("rank"), c.Float("energy"))
	if err != nil {
		return err
	}
	if err := out.writeAdapter(small); err != nil {
		return err
	}
	switch {
	case c.Bool("json"):
		return printJSON(report)
	case c.Bool("report"):
		printModules(report)
	}
	return nil
}
