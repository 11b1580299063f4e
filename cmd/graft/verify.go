package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/onnx"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "run two models on the same text and compare",
		ArgsUsage: "A B",
		Description: `B is measured against A: the largest difference of a logit, the mean divergence KL(A‖B) in nats a token,
how often both hold the same token for the most likely, and the mean negative log likelihood of each.
Exit 1 where the divergence passes --max-kl, where token ids differ, or where a file is not the one
its manifest describes. Without --max-kl B is taken to be made from A: the limit is what rounding to
B's number types explains (1e-4 for f32 or A's own types, 1e-3 for f16, 0.01 for bf16, 0.02 for q8_0,
1 for 4 and 5 bits), and, but for bundles, each row of each tensor is compared as well.

  graft verify model.gguf model-hf
  graft verify model.gguf bundle --adapter out/pirate --b-adapter pirate --text notes.txt`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "text", Usage: "`FILE` to run them on; by default a text of our own"},
			&cli.IntFlag{Name: "max-tokens", Usage: "compare the first `N` tokens", Value: 512, Validator: atLeast(2)},
			&cli.StringSliceFlag{Name: "adapter", Usage: "adapter of A (`PATH[:scale]`, or a name in a bundle); repeatable"},
			&cli.StringSliceFlag{Name: "b-adapter", Usage: "adapter of B; repeatable"},
			maxKLFlag("exit 1 past this mean divergence (`KL`, nats)"),
			jsonFlag(), ortFlag(),
		},
		Action: verify,
	}
}

// comparison is what verify prints.
type comparison struct {
	onnx.Figures
	SameTokens bool         `json:"same_token_ids"`
	MaxKL      float64      `json:"max_kl"`
	Weights    *tensorError `json:"largest_tensor_error,omitempty"` // nil where weights were not compared
	Passed     bool         `json:"passed"`
}

func verify(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	text := verifyText
	if path := c.String("text"); path != "" {
		if text, err = readText(path); err != nil {
			return err
		}
	}
	for _, path := range args {
		if err := checkManifest(path); err != nil {
			return err
		}
	}
	limit := c.Float("max-kl")
	var weights *tensorError
	if !c.IsSet("max-kl") {
		if limit, err = limitFor(args[0], args[1]); err != nil {
			return err
		}
		if !isBundle(args[0]) && !isBundle(args[1]) {
			if weights, err = compareWeights(ctx, args[0], c.StringSlice("adapter"), args[1], c.StringSlice("b-adapter")); err != nil {
				return err
			}
		}
	}
	r, err := comparePaths(ctx, c, args[0], c.StringSlice("adapter"), args[1], c.StringSlice("b-adapter"), text, c.Int("max-tokens"), limit)
	if err != nil {
		return err
	}
	r.judge(weights)
	if c.Bool("json") {
		if err := printJSON(r); err != nil {
			return err
		}
	} else {
		r.print(args[0], args[1])
	}
	if !r.Passed {
		return r.failure(args[0], args[1])
	}
	return nil
}

// comparePaths opens two models, runs both on a text and judges the figures.
func comparePaths(ctx context.Context, c *cli.Command, a string, aAdapters []string, b string, bAdapters []string, text string, most int, limit float64) (*comparison, error) {
	ra, err := openStored(c, a, aAdapters)
	if err != nil {
		return nil, err
	}
	defer ra.close()
	rb, err := openStored(c, b, bAdapters)
	if err != nil {
		return nil, err
	}
	defer rb.close()
	ids := ra.tok.Encode(text, tokenizer.Options{})
	r := &comparison{MaxKL: limit, SameTokens: slices.Equal(ids, rb.tok.Encode(text, tokenizer.Options{}))}
	ids = ids[:min(len(ids), most, ra.context, rb.context)]
	if len(ids) < 2 {
		return nil, fmt.Errorf("the text has %d tokens, and a comparison wants at least 2", len(ids))
	}
	if r.Figures, err = compare(ctx, ra, rb, ids); err != nil {
		return nil, err
	}
	r.Passed = r.SameTokens && r.MeanKL <= limit // false for NaN
	return r, nil
}

// judge takes the weights into account.
func (r *comparison) judge(weights *tensorError) {
	r.Weights = weights
	r.Passed = r.Passed && (weights == nil || weights.passed())
}

// compareStep is the number of tokens whose logits both models hold at a time.
const compareStep = 64

// compare runs both on tokens and measures b against a.
func compare(ctx context.Context, a, b sequence, ids []int32) (onnx.Figures, error) {
	a.Truncate(0)
	b.Truncate(0)
	f := onnx.Figures{Tokens: len(ids)}
	var same, scored int
	var held []float32
	var kl, nllA, nllB float64
	for lo := 0; lo < len(ids); lo += compareStep {
		if ctx.Err() != nil {
			return f, ctx.Err()
		}
		part := ids[lo:min(lo+compareStep, len(ids))]
		held = held[:0]
		if err := a.EvalEach(part, func(_ int, logits []float32) error {
			held = append(held, logits...)
			return nil
		}); err != nil {
			return f, err
		}
		vocab := len(held) / len(part)
		err := b.EvalEach(part, func(at int, q []float32) error {
			if len(q) != vocab {
				return fmt.Errorf("the vocabularies have %d and %d tokens", vocab, len(q))
			}
			p := held[at*vocab : (at+1)*vocab]
			lp, lq := logSum(p), logSum(q)
			d, diff := divergence(p, q, lp, lq)
			kl += d
			f.MaxDiff = max(f.MaxDiff, diff)
			if kernel.ArgMax(p) == kernel.ArgMax(q) {
				same++
			}
			if next := lo + at + 1; next < len(ids) {
				nllA += lp - float64(p[ids[next]])
				nllB += lq - float64(q[ids[next]])
				scored++
			}
			return nil
		})
		if err != nil {
			return f, err
		}
	}
	f.MeanKL, f.Top1 = kl/float64(len(ids)), float64(same)/float64(len(ids))
	f.ReferenceNLL, f.NLL = nllA/float64(scored), nllB/float64(scored)
	return f, nil
}

// logSum is log Σ exp(x), summed in float64: a divergence is a small difference of such sums.
func logSum(x []float32) float64 {
	top := slices.Max(x)
	var s float64
	for _, v := range x {
		s += math.Exp(float64(v - top))
	}
	return float64(top) + math.Log(s)
}

// divergence is KL(p‖q) of two rows of logits, and their largest difference.
func divergence(p, q []float32, lp, lq float64) (kl, diff float64) {
	for i := range p {
		a, b := float64(p[i])-lp, float64(q[i])-lq
		kl += math.Exp(a) * (a - b)
		diff = max(diff, math.Abs(float64(p[i])-float64(q[i])))
	}
	return kl, diff
}

func (r *comparison) print(a, b string) {
	t := newTable()
	t.row("", "A", "B")
	t.row("model", a, b)
	t.row("mean negative log likelihood", fmt.Sprintf("%.6f", r.ReferenceNLL), fmt.Sprintf("%.6f", r.NLL))
	t.row("perplexity", fmt.Sprintf("%.4f", math.Exp(r.ReferenceNLL)), fmt.Sprintf("%.4f", math.Exp(r.NLL)))
	t.flush()
	t = newTable()
	t.row("tokens compared", r.Tokens)
	t.row("same token ids", yesNo(r.SameTokens))
	t.row("largest logit difference", fmt.Sprintf("%.3g", r.MaxDiff))
	t.row("mean KL divergence", fmt.Sprintf("%.3g (limit %.3g)", r.MeanKL, r.MaxKL))
	t.row("same most likely token", fmt.Sprintf("%.2f %%", 100*r.Top1))
	if r.Weights != nil {
		t.row("largest tensor error", r.Weights)
	}
	t.row("passed", yesNo(r.Passed))
	t.flush()
}

func (r *comparison) failure(a, b string) error {
	if !r.SameTokens {
		return fmt.Errorf("verifying %q against %q: the tokenizers give different token ids for the same text", b, a)
	}
	if r.Weights != nil && !r.Weights.passed() {
		return fmt.Errorf("verifying %q against %q: tensor %q is not the same: relative error %.3g in row %d is past the limit of %.3g", b, a, r.Weights.Name, r.Weights.Error, r.Weights.Row, r.Weights.Limit)
	}
	return fmt.Errorf("verifying %q against %q: mean divergence %.3g nats a token is past the limit of %.3g", b, a, r.MeanKL, r.MaxKL)
}

// limitFor chooses a limit for b, taken to be made from a: what rounding to b's number types, where
// they are not a's, can explain.
func limitFor(a, b string) (float64, error) {
	sa, err := matrices(a)
	if err != nil {
		return 0, err
	}
	sb, err := matrices(b)
	if err != nil {
		return 0, err
	}
	limit := sameLimit
	for name, s := range sb {
		if sa[name] != s {
			limit = max(limit, s.klLimit())
		}
	}
	return limit, nil
}

const sameLimit = 1e-4 // both hold the same numbers: only the order of sums differs

// matrices says how each weight matrix of a model is kept. A bundle holds float32.
func matrices(path string) (map[string]storage, error) {
	if isBundle(path) {
		return nil, nil
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	out := map[string]storage{}
	for _, t := range m.Tensors() {
		if len(t.Shape) > 1 {
			if out[t.Name], err = storageOf(m, t); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// verifyText is what models are compared on where the user names no text: prose, dialogue, numbers,
// code and other scripts, so that a wrong tokenizer shows as well as a wrong tensor.
var verifyText = strings.TrimSpace(`
A graft joins a shoot of one plant to the root of another, and the two grow on as one. The gardener
cuts both at a slant, binds them so that bark meets bark, and seals the wound with wax. By the third
week, if all goes well, sap crosses the join; by the second summer nobody can find the place.

"How many trees did you do this year?" asked the boy.
"Forty-three," she said, "and 39 took. That is 90.7 %, my best since 2011."
"And what do they cost at the market?"
"Between $12.50 and $18, depending on the root. The pears fetch more: €21 or so."

The same idea serves in other trades. An engineer who cannot rebuild a bridge replaces one span; a
programmer who cannot retrain a model of 70,000,000,000 numbers trains a few million beside them:

    def forward(x, w, a, b, scale):
        return x @ w.T + scale * (x @ a.T) @ b.T   # the base stays as it was

Whether the result is right is a question of measurement and not of taste. Take a text, run both
models on it, and compare what each expects at every place. If the numbers agree to five digits the
copy is faithful; if they part at the second, something was lost on the way: a scale, a row, a sign.

Naïve façades, coöperation, Ærøskøbing, Straße, Привет, 你好, こんにちは, مرحبا, 🌱🌳 — and a last
line with   three  spaces,	a tab, and an ending that is plain.`)
