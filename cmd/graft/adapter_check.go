package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/inspect"
)

func checkAdapterCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "whether an adapter is sound and fits a model", ArgsUsage: "ADAPTER BASE",
		Description: `Every value is read; names and shapes are compared with the base's, each module by itself; then what the
adapter says of the weights it was trained on, what it makes of a head that shares the embedding table,
and the tokenizer that lies beside it. Exit 1 where something is wrong.

  graft adapter check downloaded model-hf
  graft adapter check pirate.gguf model.gguf --json`,
		Flags: []cli.Flag{jsonFlag()}, Action: checkAdapter,
	}
}

func checkAdapter(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	m, err := openCheckpoint(args[1])
	if err != nil {
		return err
	}
	defer m.Close()
	bar := newProgress("reading " + args[0])
	r, err := inspect.Fit(ctx, args[0], m, func() (*adapters.Adapter, error) { return readAdapter(args[0], m.Config()) }, inspect.Options{Progress: bar.update})
	bar.finish()
	if err != nil {
		return err
	}
	r.Tensors = nil
	return report(c, r)
}

func inspectAdapterCommand() *cli.Command {
	command := inspectCommand()
	command.Usage, command.Description = "what an adapter is, as graft inspect says it", "  graft adapter inspect out/pirate --tensors --check"
	return command
}
