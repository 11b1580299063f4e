package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/onnx"
)

func adapterCommand() *cli.Command {
	return &cli.Command{
		Name:  "adapter",
		Usage: "convert, check, combine, extract and resize adapters; list, add, remove and swap those of a bundle",
		Description: `Every change to a bundle is atomic: a program that has it open sees the old state or the new one.

  graft adapter convert out/pirate --base model.gguf -o pirate.gguf
  graft adapter add bundle pirate=out/pirate
  graft adapter swap bundle pirate
  graft adapter list bundle`,
		Commands: []*cli.Command{
			convertAdapterCommand(), checkAdapterCommand(), inspectAdapterCommand(), combineAdaptersCommand(), extractAdapterCommand(), resizeAdapterCommand(),
			{
				Name: "list", Usage: "list a bundle's adapters", ArgsUsage: "BUNDLE", Flags: []cli.Flag{jsonFlag()},
				Description: "  graft adapter list bundle --json",
				Action:      listAdapters,
			},
			{
				Name: "add", Usage: "add an adapter to a bundle", ArgsUsage: "BUNDLE NAME=PATH[:scale]",
				Description: `The adapter may be in any form. One in GGUF, one with DoRA and one with trained token rows need the model
that the bundle was made from (--base).

  graft adapter add bundle pirate=out/pirate:0.8
  graft adapter add bundle pirate=pirate.gguf --base model.gguf`,
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "base", Usage: "the `MODEL` that the bundle was made from"},
					&cli.BoolFlag{Name: "force", Usage: "replace the adapter of that name"},
				},
				Action: addAdapter,
			},
			{
				Name: "remove", Usage: "remove an adapter from a bundle, of which it is not the default", ArgsUsage: "BUNDLE NAME",
				Description: "  graft adapter remove bundle pirate",
				Action: onBundle(2, func(b *onnx.Bundle, args []string) error {
					if err := b.Remove(args[1]); err != nil {
						return err
					}
					say("removed %s from %s", args[1], args[0])
					return nil
				}),
			},
			{
				Name: "swap", Usage: "make an adapter the bundle's default; \"none\" is the bare base", ArgsUsage: "BUNDLE NAME",
				Description: "  graft adapter swap bundle pirate",
				Action: onBundle(2, func(b *onnx.Bundle, args []string) error {
					name := args[1]
					if name == bare {
						name = ""
					}
					if err := b.SetDefault(name); err != nil {
						return err
					}
					say("%s now answers with %s", args[0], args[1])
					return nil
				}),
			},
		},
	}
}

// onBundle is an action on an opened bundle, named by the first of n arguments.
func onBundle(n int, do func(b *onnx.Bundle, args []string) error) cli.ActionFunc {
	return func(_ context.Context, c *cli.Command) error {
		args, err := arguments(c, n, n)
		if err != nil {
			return err
		}
		b, err := onnx.OpenBundle(args[0])
		if err != nil && !isBundle(args[0]) {
			return fmt.Errorf("%w; this command wants a bundle, which graft convert MODEL -o BUNDLE --to onnx makes", err)
		}
		if err != nil {
			return err
		}
		return do(b, args)
	}
}

func listAdapters(ctx context.Context, c *cli.Command) error {
	return onBundle(1, func(b *onnx.Bundle, _ []string) error {
		type row struct {
			onnx.Entry
			Default bool `json:"default"`
		}
		rows := []row{}
		for _, e := range b.Adapters() {
			rows = append(rows, row{e, e.Name == b.Default()})
		}
		if c.Bool("json") {
			return printJSON(rows)
		}
		t := newTable()
		t.row("name", "modules", "parameters", "default")
		for _, r := range rows {
			t.row(r.Name, r.Modules, count(int64(r.Parameters)), yesNo(r.Default))
		}
		t.row(bare, 0, 0, yesNo(b.Default() == ""))
		t.flush()
		return nil
	})(ctx, c)
}

func addAdapter(ctx context.Context, c *cli.Command) error {
	return onBundle(2, func(b *onnx.Bundle, args []string) error {
		name, path, ok := cutName(args[1])
		if !ok {
			return usagef("adapter %q: write NAME=PATH", args[1])
		}
		if !c.Bool("force") && slices.ContainsFunc(b.Adapters(), func(e onnx.Entry) bool { return e.Name == name }) {
			return fmt.Errorf("%s has an adapter %q; --force replaces it, for requests that come after", args[0], name)
		}
		a, gains, err := adapterForBundle(b, c.String("base"), path)
		if err != nil {
			return err
		}
		if err := b.Add(name, a, gains); err != nil {
			return err
		}
		say("added %s to %s: %d modules, %s parameters", name, args[0], len(a.Pairs), count(int64(a.Parameters())))
		return nil
	})(ctx, c)
}

// adapterForBundle opens an adapter argument as slots hold it, as far as that can be told without the base
// where none is named.
func adapterForBundle(bundle *onnx.Bundle, base, arg string) (*adapters.Adapter, map[string][]float32, error) {
	if base != "" {
		m, err := openCheckpoint(base)
		if err != nil {
			return nil, nil, err
		}
		defer m.Close()
		own, err := checkpoint.Hash(m)
		if err != nil {
			return nil, nil, err
		}
		if source := bundle.Source(); source != "" && source != own {
			return nil, nil, fmt.Errorf("--base %q is not the model that the bundle was made from (%.12s… and %.12s…)", base, own, source)
		}
		b, err := checkpoint.Base(m.Config())
		if err != nil {
			return nil, nil, err
		}
		return slotAdapter(arg, m, b)
	}
	path, scale, err := adapterPath(arg)
	if err != nil {
		return nil, nil, err
	}
	if adapters.IsGGUF(path) {
		return nil, nil, usagef("adapter %q is in GGUF, which names its base's tensors; name the base too: --base MODEL", path)
	}
	a, err := adapters.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if scale != 1 {
		a = a.Scaled(scale)
	}
	return a, nil, nil
}
