package engine

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// Sampler chooses the next token from logits, in the order of transformers: temperature, then the
// TopK most likely, then the fewest of these whose probabilities reach TopP.
type Sampler struct {
	Temperature float64 // 0: always the most likely token
	TopK        int     // 0: all
	TopP        float64 // 0 or 1: all
	Seed        uint64  // decides all choices, together with their number

	drawn      uint64
	candidates []candidate
	index      []int32
}

type candidate struct {
	token int32
	p     float64 // probability, not normalised
}

// Pick returns a token. It fails with ErrModel where the logits hold nothing to choose from.
func (s *Sampler) Pick(logits []float32) (int32, error) {
	best := kernel.ArgMax(logits)
	if best < 0 || math.IsInf(float64(logits[best]), 0) {
		return 0, fmt.Errorf("engine: sampling: %w: the logits are not finite", ErrModel)
	}
	if s.Temperature <= 0 || s.TopK == 1 {
		return int32(best), nil
	}
	total := s.weigh(logits, logits[best])
	if s.TopP > 0 && s.TopP < 1 {
		total = s.nucleus(total, len(logits))
	}
	r := random{hash(s.Seed, s.drawn)}
	s.drawn++
	u := r.float64() * total
	for _, c := range s.candidates {
		if u -= c.p; u < 0 {
			return c.token, nil
		}
	}
	return s.candidates[len(s.candidates)-1].token, nil
}

// weigh fills the candidates with exp((logit − top)/temperature) and returns the sum.
func (s *Sampler) weigh(logits []float32, top float32) (total float64) {
	s.candidates = s.candidates[:0]
	take := func(token int32) {
		if p := math.Exp(float64(logits[token]-top) / s.Temperature); p > 0 {
			s.candidates = append(s.candidates, candidate{token, p})
			total += p
		}
	}
	if s.TopK > 0 && s.TopK < len(logits) {
		if cap(s.index) < s.TopK {
			s.index = make([]int32, s.TopK)
		}
		n := kernel.TopK(s.index[:s.TopK], logits)
		for _, token := range s.index[:n] {
			take(token)
		}
		return total
	}
	for token := range logits {
		take(int32(token))
	}
	return total
}

// nucleus keeps the fewest candidates whose probabilities reach TopP (Holtzman et al. 2020) and
// returns their sum. Candidates less likely than (1 − TopP)/V together weigh less than 1 − TopP, so
// none of them is ever needed and only the others are sorted.
func (s *Sampler) nucleus(total float64, vocab int) float64 {
	least := total * (1 - s.TopP) / float64(vocab)
	s.candidates = slices.DeleteFunc(s.candidates, func(c candidate) bool { return c.p < least })
	slices.SortFunc(s.candidates, func(a, b candidate) int {
		switch {
		case a.p > b.p:
			return -1
		case a.p < b.p:
			return 1
		}
		return int(a.token - b.token)
	})
	sum := 0.0
	for i, c := range s.candidates {
		if sum += c.p; sum >= s.TopP*total {
			s.candidates = s.candidates[:i+1]
			break
		}
	}
	return sum
}

// End says why a generation ended.
type End string

// The ways a generation ends.
const (
	EndStop    End = "stop"    // a stop token was chosen
	EndLength  End = "length"  // MaxTokens were generated
	EndContext End = "context" // the sequence fills the context
)

// Sequence is a model running one sequence: a [State], or one of another runtime.
type Sequence interface {
	// Eval appends tokens and returns the logits behind the last. The slice is valid until the next call.
	Eval(tokens []int32) ([]float32, error)
	// Tokens is the sequence so far.
	Tokens() []int32
}

// GenerateOptions says how to continue a prompt.
type GenerateOptions struct {
	Sampler   *Sampler // nil: always the most likely token
	MaxTokens int      // 0: up to the context
	Context   int      // tokens that the sequence can hold
	Stop      []int32  // tokens that end the text
}

// Generate appends the prompt to the sequence, then token after token, and calls emit for each that
// is not a stop token. The last one emitted may not be part of the sequence yet. It ends early with
// emit's or the context's error.
func Generate(ctx context.Context, s Sequence, prompt []int32, o GenerateOptions, emit func(token int32) error) (End, error) {
	sampler := o.Sampler
	if sampler == nil {
		sampler = &Sampler{}
	}
	logits, err := s.Eval(prompt)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		token, err := sampler.Pick(logits)
		if err != nil {
			return "", err
		}
		if slices.Contains(o.Stop, token) {
			return EndStop, nil
		}
		if err := emit(token); err != nil {
			return "", err
		}
		switch {
		case n == o.MaxTokens:
			return EndLength, nil
		case len(s.Tokens()) >= o.Context:
			return EndContext, nil
		}
		next := [1]int32{token}
		if logits, err = s.Eval(next[:]); err != nil {
			return "", err
		}
	}
}
