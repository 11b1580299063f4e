package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/inspect"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/onnx"
	"github.com/graftml/graft/train/evaluate"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "run two models on the same text and compare",
		ArgsUsage: "A B",
		Description: `B is measured against A, each a GGUF file, a folder or an ONNX bundle: token ids, on the text and on a
built-in set of texts that are hard to tokenize; the largest and the mean difference of a logit; the
divergence KL(A‖B) in nats a token, mean, median, 90 and 99 % and largest; how often both hold the
same token for the most likely; mean negative log likelihood and perplexity of each; chat templates.

Exit 1 where the mean divergence passes --max-kl, where token ids differ, or where a file is not the
one its manifest describes. Without --max-kl B is taken to be made from A: the limit is what rounding
to B's number types explains (1e-4 for f32 or A's own types, 1e-3 for f16, 0.01 for bf16, 0.02 for
q8_0, 1 for fewer bits), and, but for bundles, each row of each tensor is compared as well. Where one
embedding table is padded, the rows that both have are compared.

  graft verify model.gguf model-hf
  graft verify model-hf model-q4.gguf --text notes.txt --max-tokens 4096 --json
  graft verify model.gguf bundle --adapter out/pirate --b-adapter pirate --max-kl 0.01

Keys of --json: tokens, vocabulary, max_logit_difference, mean_logit_difference, mean_kl, kl (p50, p90,
p99, max, max_at), top1, reference_nll, nll, reference_perplexity, perplexity, same_token_ids,
adversarial_token_ids (texts, same, first_difference, only_decomposed), max_kl (the limit),
largest_tensor_error, findings (severity, code, place, message, fix), passed. reference_ is A.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "text", Usage: "`FILE` to run them on; by default a text of our own"},
			&cli.IntFlag{Name: "max-tokens", Usage: "compare the first `N` tokens, in windows of the shorter context; 0 for all", Value: 512, Validator: atLeast(0)},
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
	evaluate.Divergence
	SameTokens  bool                `json:"same_token_ids"`
	Adversarial *evaluate.Agreement `json:"adversarial_token_ids,omitempty"` // nil where it was not asked for
	MaxKL       float64             `json:"max_kl"`
	Weights     *tensorError        `json:"largest_tensor_error,omitempty"` // nil where weights were not compared
	Findings    []inspect.Finding   `json:"findings,omitempty"`
	Passed      bool                `json:"passed"`

	parted *evaluate.TokenDifference // where the text's ids part
}

// figures are what a manifest keeps.
func (r *comparison) figures() onnx.Figures {
	return onnx.Figures{Tokens: r.Tokens, MaxDiff: r.MaxDiff, MeanKL: r.MeanKL, Top1: r.Top1, NLL: r.NLL, ReferenceNLL: r.ReferenceNLL}
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
	p := pair{a: origin{path: args[0], adapters: c.StringSlice("adapter")}, b: origin{path: args[1], adapters: c.StringSlice("b-adapter")}}
	limit := c.Float("max-kl")
	var weights *tensorError
	if !c.IsSet("max-kl") {
		if limit, err = limitFor(args[0], args[1]); err != nil {
			return err
		}
		if !isBundle(args[0]) && !isBundle(args[1]) {
			if weights, err = compareWeights(ctx, p.a, p.b); err != nil {
				return err
			}
		}
	}
	p.text, p.most, p.limit, p.hard = text, c.Int("max-tokens"), limit, true
	r, err := p.compare(ctx, c)
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

// pair is two models to run on a text.
type pair struct {
	a, b  origin
	text  string
	most  int     // tokens, 0 for all
	limit float64 // of the mean divergence
	hard  bool    // compare tokenizers on hard texts too, and chat templates
}

// compare opens the models, runs both on the text and judges the figures.
func (p *pair) compare(ctx context.Context, c *cli.Command) (*comparison, error) {
	ra, err := openStored(c, p.a)
	if err != nil {
		return nil, fmt.Errorf("opening A: %w", err)
	}
	defer ra.close()
	rb, err := openStored(c, p.b)
	if err != nil {
		return nil, fmt.Errorf("opening B: %w", err)
	}
	defer rb.close()
	r := &comparison{MaxKL: p.limit, parted: evaluate.TextDifference(ra.tok, rb.tok, p.text)}
	r.SameTokens = r.parted == nil
	if p.hard {
		r.compareTexts(ra, rb)
	}
	ids := ra.tok.Encode(p.text, tokenizer.Options{})
	if p.most > 0 {
		ids = ids[:min(len(ids), p.most)]
	}
	bar := newProgress("comparing")
	r.Divergence, err = evaluate.Compare(ctx, ra, rb, ids, min(ra.context, rb.context), func(done, total int) { bar.update(int64(done), int64(total)) })
	bar.finish()
	if err != nil {
		return nil, err
	}
	if ra.vocab != rb.vocab && ra.vocab > 0 && rb.vocab > 0 {
		r.find(inspect.Note, "vocabulary-differs", "", "A's embedding table has %d rows and B's %d; the first %d are compared", ra.vocab, rb.vocab, r.Vocabulary)
	}
	r.Passed = r.tokensPassed() && r.MeanKL <= p.limit // false for NaN
	return r, nil
}

// compareTexts compares what turns text into tokens.
func (r *comparison) compareTexts(a, b *runner) {
	g := evaluate.Tokens(a.tok, b.tok)
	r.Adversarial = &g
	switch {
	case g.Decomposed:
		r.find(inspect.Warning, "token-ids-decomposed", "normalize text to NFC before it is tokenized", "decomposed Unicode gives other ids, as where tokenizer.json normalizes and a GGUF file cannot: %v", g.First)
	case g.Same < g.Texts:
		r.find(inspect.Error, "token-ids", "convert the model again; tokenizer.ggml.pre or the tokenizer's files are not those of the model", "%d of %d hard texts give other token ids, first %v", g.Texts-g.Same, g.Texts, g.First)
	}
	special := tokenizer.Options{AddSpecial: true}
	if x, y := a.tok.Encode("a", special), b.tok.Encode("a", special); !slices.Equal(x, y) && r.SameTokens {
		r.find(inspect.Warning, "added-special-tokens", "correct add_bos_token and add_eos_token", "with special tokens added, \"a\" is %v in A and %v in B", x, y)
	}
	if a.tok.EOS() != b.tok.EOS() {
		r.find(inspect.Warning, "eos-differs", "make them the same", "the end-of-sequence token is %d in A and %d in B", a.tok.EOS(), b.tok.EOS())
	}
	if d, alike := evaluate.Templates(a.template, b.template); alike {
		r.find(inspect.Note, "template-differs", "", "%s", d)
	} else if d != "" {
		r.find(inspect.Warning, "template-differs", "copy the chat template of the model", "%s", d)
	}
}

func (r *comparison) find(s inspect.Severity, code, fix, format string, a ...any) {
	r.Findings = append(r.Findings, inspect.Finding{Severity: s, Code: code, Message: fmt.Sprintf(format, a...), Fix: fix})
}

// tokensPassed reports whether the token ids agree, as far as both forms can express them.
func (r *comparison) tokensPassed() bool {
	return r.SameTokens && (r.Adversarial == nil || r.Adversarial.Same == r.Adversarial.Texts || r.Adversarial.Decomposed)
}

// judge takes the weights into account.
func (r *comparison) judge(weights *tensorError) {
	r.Weights = weights
	r.Passed = r.Passed && (weights == nil || weights.passed())
}

func (r *comparison) print(a, b string) {
	t := newTable()
	t.row("", "A", "B")
	t.row("model", a, b)
	t.row("mean negative log likelihood", fmt.Sprintf("%.6f", r.ReferenceNLL), fmt.Sprintf("%.6f", r.NLL))
	t.row("perplexity", fmt.Sprintf("%.4f", r.ReferencePPL), fmt.Sprintf("%.4f", r.PPL))
	t.flush()
	t = newTable()
	t.row("tokens compared", fmt.Sprintf("%d, over %d logits each", r.Tokens, r.Vocabulary))
	t.row("same token ids", yesNo(r.SameTokens))
	if g := r.Adversarial; g != nil {
		t.row("same on hard texts", fmt.Sprintf("%d of %d", g.Same, g.Texts))
	}
	t.row("largest logit difference", fmt.Sprintf("%.3g (mean %.3g)", r.MaxDiff, r.MeanDiff))
	t.row("mean KL divergence", fmt.Sprintf("%.3g (limit %.3g)", r.MeanKL, r.MaxKL))
	t.row("KL of tokens", fmt.Sprintf("median %.3g, 90 %% up to %.3g, 99 %% up to %.3g, largest %.3g behind token %d", r.KL.Median, r.KL.P90, r.KL.P99, r.KL.Max, r.KL.MaxAt))
	t.row("same most likely token", fmt.Sprintf("%.2f %%", 100*r.Top1))
	if r.Weights != nil {
		t.row("largest tensor error", r.Weights)
	}
	t.row("passed", yesNo(r.Passed))
	t.flush()
	printFindings(r.Findings)
}

func (r *comparison) failure(a, b string) error {
	if !r.SameTokens {
		return fmt.Errorf("verifying %q against %q: the tokenizers give different token ids for the same text, from id %d on: %v and %v", b, a, r.parted.At, r.parted.A, r.parted.B)
	}
	if !r.tokensPassed() {
		return fmt.Errorf("verifying %q against %q: the tokenizers give different token ids for %d of %d hard texts, first %v", b, a, r.Adversarial.Texts-r.Adversarial.Same, r.Adversarial.Texts, r.Adversarial.First)
	}
	if r.Weights != nil && r.Weights.NotFinite {
		return fmt.Errorf("verifying %q against %q: tensor %q holds values that are not finite, the first in row %d", b, a, r.Weights.Name, r.Weights.Row)
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
