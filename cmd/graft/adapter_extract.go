package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
)

func extractAdapterCommand() *cli.Command {
	return &cli.Command{
		Name: "extract", Usage: "make an adapter of the difference of two models", ArgsUsage: "BASE TUNED",
		Description: `Writes an adapter, a PEFT folder, that makes of BASE what TUNED is, as nearly as its rank allows: the best
approximation of every linear product's difference. Products that do not differ are left out. What
differs besides (norms, biases, the embedding table) is named; --whole takes it along as it is.
--energy gives each product the smallest rank that keeps that share of its difference.

  graft adapter extract model-hf tuned-hf --rank 16 -o difference
  graft adapter extract model.gguf tuned-hf --energy 0.95 --rank 64 --whole --report -o difference`,
		Flags: []cli.Flag{
			outFlag("the adapter, a folder"), forceFlag(), rankFlag("of the adapter"), energyFlag(),
			&cli.BoolFlag{Name: "whole", Usage: "take what differs and is no linear product along as it is"},
			reportFlag(), jsonFlag(),
		},
		Action: extractAdapter,
	}
}

func extractAdapter(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	if !c.IsSet("rank") && !c.IsSet("energy") {
		return usagef("%s wants --rank or --energy", c.FullName())
	}
	base, err := openCheckpoint(args[0])
	if err != nil {
		return err
	}
	defer base.Close()
	tuned, err := openCheckpoint(args[1])
	if err != nil {
		return err
	}
	defer tuned.Close()
	b, names, err := sameParameters(base, tuned)
	if err != nil {
		return err
	}
	out, err := newAdapterOutput(c, slices.Concat(args, base.Parts, tuned.Parts)...)
	if err != nil {
		return err
	}
	defer out.discard()
	bar := newProgress("comparing weights")
	a, report, err := adapters.Extract(ctx, b, names, untied(base), untied(tuned), adapters.ExtractOptions{
		Rank: c.Int("rank"), Energy: c.Float("energy"), Whole: c.Bool("whole"), Values: c.Bool("report") || c.Bool("json"), Progress: bar.update,
	})
	bar.finish()
	if err != nil {
		return err
	}
	a.Config.BaseModel = args[0]
	if a.Config.BaseHash, err = checkpoint.Hash(base); err != nil {
		return err
	}
	if err := out.writeAdapter(a); err != nil {
		return err
	}
	for _, d := range report.Left {
		say("note: %s differs too (by %s of its norm) and is not in the adapter; --whole takes it along", d.Name, percent(d.Relative))
	}
	worst := adapters.ModuleReport{}
	for _, m := range report.Modules {
		if m.Residual >= worst.Residual {
			worst = m
		}
	}
	if worst.Module != "" {
		say("of the differences of %d products up to %s is lost, the most in %s; %d parameters do not differ",
			len(report.Modules), percent(worst.Residual), worst.Module, report.Equal)
	}
	switch {
	case c.Bool("json"):
		return printJSON(report)
	case c.Bool("report"):
		printModules(report.Modules)
	}
	return nil
}

// sameParameters returns what the parameters are that two models have in common, which are to be all.
func sameParameters(base, tuned *checkpoint.Checkpoint) (b adapters.Base, names []string, err error) {
	if b, err = checkpoint.Base(base.Config()); err != nil {
		return b, nil, err
	}
	head := b.Head + ".weight"
	for _, t := range tuned.Tensors() {
		want, ok := b.Shape(t.Name)
		if !ok {
			return b, nil, fmt.Errorf("%s has %s, which %s does not; the two are no models of one kind", tuned.Path, t.Name, base.Path)
		}
		if !slices.Equal(want, t.Shape) {
			return b, nil, fmt.Errorf("%s is %s in %s, but %s in %s; a difference needs equal shapes", t.Name, shape(t.Shape), tuned.Path, shape(want), base.Path)
		}
		names = append(names, t.Name)
	}
	for _, t := range base.Tensors() {
		switch {
		case slices.Contains(names, t.Name):
		case t.Name == head: // tuned has the table for it
			names = append(names, head)
		default:
			return b, nil, fmt.Errorf("%s has no %s, which %s has; the two are no models of one kind", tuned.Path, t.Name, base.Path)
		}
	}
	return b, names, nil
}

// untied reads a model's rows, those of the table for a head that shares it.
func untied(m *checkpoint.Checkpoint) adapters.ReadRows {
	b, err := checkpoint.Base(m.Config())
	if err != nil {
		return m.Rows
	}
	return b.Untied(m.Rows)
}
