package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/train/evaluate"
)

func evalCommand() *cli.Command {
	return &cli.Command{
		Name:  "eval",
		Usage: "measure a model",
		Commands: []*cli.Command{{
			Name:      "perplexity",
			Usage:     "how well a model expects a text",
			ArgsUsage: "MODEL",
			Description: `The text is cut into windows of --context tokens, no special tokens added; every token of a window but
the first is scored. nll is the mean negative log likelihood in nats.

  graft eval perplexity model.gguf --text notes.txt
  graft eval perplexity model.gguf --text notes.txt --compute bf16
  graft eval perplexity bundle --adapter pirate --text notes.txt --json`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "text", Usage: "`FILE`, or - for standard input", Required: true},
				adapterFlag(),
				&cli.IntFlag{Name: "context", Usage: "tokens a window (`N`); by default 512, or what the model takes", HideDefault: true},
				&cli.IntFlag{Name: "max-tokens", Usage: "score the first `N` tokens; 0 for all"},
				computeFlag(), jsonFlag(), ortFlag(),
			},
			Action: perplexity,
		}},
	}
}

func perplexity(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	text, err := readText(c.String("text"))
	if err != nil {
		return err
	}
	r, err := openRunner(c, args[0], c.StringSlice("adapter"), "", kernel.ForForward)
	if err != nil {
		return err
	}
	defer r.close()
	window := min(512, r.context)
	if c.IsSet("context") {
		window = c.Int("context")
	}
	if window < 2 || window > r.context {
		return usagef("--context %d: the model takes windows of 2 to %d tokens", window, r.context)
	}
	if c.Int("max-tokens") < 0 {
		return usagef("--max-tokens %d is negative", c.Int("max-tokens"))
	}
	bar := newProgress("scoring")
	s, err := evaluate.Perplexity(ctx, r, r.tok.Encode(text, tokenizer.Options{}), evaluate.Options{Context: window, MaxTokens: c.Int("max-tokens"),
		Progress: func(done, total int) { bar.update(int64(done), int64(total)) }})
	bar.finish()
	if err != nil {
		return fmt.Errorf("%q: %w", c.String("text"), err)
	}
	if c.Bool("json") {
		return printJSON(s)
	}
	fmt.Fprintf(stdout, "perplexity %.4f, mean negative log likelihood %.6f over %d tokens, %.1f tokens/s\n", s.Perplexity, s.NLL, s.Tokens, s.TokensPerSecond)
	return nil
}
