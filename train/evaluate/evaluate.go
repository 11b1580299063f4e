// Package evaluate measures how well a model predicts a text.
//
// [Perplexity] cuts the text's tokens into windows that do not overlap, one after the other, each as
// long as the context but for the last. In a window every token but the first is predicted from those
// before it, so a text of one window of n tokens is scored on n−1. The figure is the mean negative
// log likelihood in nats; perplexity is its exponential.
package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrText is wrapped by errors about a text or options that leave nothing to score.
var ErrText = errors.New("nothing to score")

// Scorer is a model that scores windows of tokens. It returns the sum of the negative log likelihoods
// of all tokens but the first of each window, and their number. Progress, unless nil, is called with
// the number of tokens done; its error ends the scoring.
type Scorer interface {
	ScoreText(tokens []int32, window int, progress func(done int) error) (sum float64, count int, err error)
}

// Options says what is scored.
type Options struct {
	Context   int // tokens a window; at least 2
	MaxTokens int // the first so many tokens; 0 is all
	// Progress, unless nil, is told the tokens done and all there are.
	Progress func(done, total int)
}

// Result is the figures, with the names of the command line's JSON.
type Result struct {
	NLL             float64 `json:"nll"` // mean, in nats
	Perplexity      float64 `json:"perplexity"`
	Tokens          int     `json:"tokens"` // of the text; the first of each window is not scored
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Perplexity scores a text. It fails with ErrText where fewer than two tokens are left, and with the
// context's error when that is cancelled.
func Perplexity(ctx context.Context, m Scorer, tokens []int32, o Options) (Result, error) {
	if o.Context < 2 {
		return Result{}, fmt.Errorf("evaluate: scoring a text: %w: windows of %d tokens; at least 2 are needed", ErrText, o.Context)
	}
	if o.MaxTokens > 0 && len(tokens) > o.MaxTokens {
		tokens = tokens[:o.MaxTokens]
	}
	if len(tokens) < 2 {
		return Result{}, fmt.Errorf("evaluate: scoring a text: %w: it has %d tokens, at least 2 are needed", ErrText, len(tokens))
	}
	began := time.Now()
	sum, n, err := m.ScoreText(tokens, min(o.Context, len(tokens)), func(done int) error {
		if o.Progress != nil {
			o.Progress(done, len(tokens))
		}
		return ctx.Err()
	})
	if err != nil {
		return Result{}, fmt.Errorf("evaluate: scoring a text: %w", err)
	}
	nll := sum / float64(n)
	if math.IsNaN(nll) || math.IsInf(nll, 0) {
		return Result{}, fmt.Errorf("evaluate: scoring a text: the mean negative log likelihood is %v; the model's weights are broken", nll)
	}
	return Result{NLL: nll, Perplexity: math.Exp(nll), Tokens: len(tokens), TokensPerSecond: float64(len(tokens)) / time.Since(began).Seconds()}, nil
}
