package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/tokenizer"
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
  graft eval perplexity bundle --adapter pirate --text notes.txt --json`,
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "text", Usage: "`FILE`, or - for standard input", Required: true},
				adapterFlag(),
				&cli.IntFlag{Name: "context", Usage: "tokens a window (`N`)", Value: 512},
				&cli.IntFlag{Name: "max-tokens", Usage: "score the first `N` tokens; 0 for all"},
				jsonFlag(), ortFlag(),
			},
			Action: perplexity,
		}},
	}
}

// score is the result of perplexity; its JSON form is part of the contract.
type score struct {
	NLL             float64 `json:"nll"`
	Perplexity      float64 `json:"perplexity"`
	Tokens          int     `json:"tokens"` // of the text; the first of each window is not scored
	TokensPerSecond float64 `json:"tokens_per_second"`
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
	r, err := openRunner(c, args[0], c.StringSlice("adapter"), "")
	if err != nil {
		return err
	}
	defer r.close()
	window := c.Int("context")
	if window < 2 || window > r.context {
		return usagef("--context %d: the model takes windows of 2 to %d tokens", window, r.context)
	}
	ids := r.tok.Encode(text, tokenizer.Options{})
	if most := c.Int("max-tokens"); most > 0 {
		ids = ids[:min(most, len(ids))]
	}
	if len(ids) < 2 {
		return fmt.Errorf("text %q has %d tokens, and scoring wants at least 2", c.String("text"), len(ids))
	}
	start := time.Now()
	bar := newProgress("scoring")
	sum, n, err := r.ScoreText(ids, window, func(done int) error {
		bar.update(int64(done), int64(len(ids)))
		return ctx.Err()
	})
	bar.finish()
	if err != nil {
		return err
	}
	s := score{sum / float64(n), math.Exp(sum / float64(n)), len(ids), float64(len(ids)) / time.Since(start).Seconds()}
	if c.Bool("json") {
		return printJSON(s)
	}
	fmt.Printf("perplexity %.4f, mean negative log likelihood %.6f over %d tokens, %.1f tokens/s\n", s.Perplexity, s.NLL, s.Tokens, s.TokensPerSecond)
	return nil
}
