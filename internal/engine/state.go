package engine

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/internal/autograd"
)

// State is one use of a model without training: a sequence that grows token by token, or texts to
// score. It has a choice of adapters and memory of its own, and is not safe for concurrent use.
type State struct {
	model  *Model
	tape   *autograd.Tape
	scorer *autograd.Tape
	cache  *autograd.Cache
	tokens []int32 // what the cache holds
	logits []float32
	bounds [2]int32 // offsets of the one sequence of a cached pass
}

// Use names an adapter that the model holds.
type Use struct {
	Name  string
	Scale float64 // multiplies the scale of the adapter's pairs; 0 means 1. What replaces parameters stays.
}

// NewState returns an empty state that uses no adapter.
func (m *Model) NewState() *State {
	return &State{model: m, tape: autograd.NewTape(m.graph, autograd.Generating), scorer: autograd.NewTape(m.graph, autograd.Scoring),
		cache: m.graph.NewCache()}
}

// Use chooses the adapters, which add up; none is the bare model. The state is empty afterwards,
// since what it held was computed with other weights. It fails with ErrAdapter, and changes nothing,
// on a name the model does not hold and where two adapters replace the same parameter.
func (s *State) Use(uses ...Use) error {
	chosen, err := s.model.choose(uses)
	if err != nil {
		return err
	}
	chosen[0].use(s.tape)
	chosen[0].use(s.scorer)
	s.Truncate(0)
	return nil
}

// Tokens returns what has been evaluated. The slice must not be changed.
func (s *State) Tokens() []int32 { return s.tokens }

// Truncate forgets all but the first n tokens.
func (s *State) Truncate(n int) {
	s.cache.Truncate(n)
	s.tokens = s.tokens[:s.cache.Len()]
}

// prefill is the number of tokens of a prompt evaluated at a time: enough for fast products, few
// enough that the memory for activations stays small.
const prefill = 256

// Eval appends tokens to the sequence and returns the logits (vocabulary) of what follows the last.
// The slice is valid until the next call. It fails with ErrBatch on ids outside the vocabulary and
// where the sequence would pass the model's context.
//
// A model with frequencies of its own for long sequences (model.RopeTable) sees every sequence as if it
// ran at once: the call that takes it past the length where they begin, or back, runs all of it again.
func (s *State) Eval(tokens []int32) ([]float32, error) {
	var last []float32
	err := s.eval(tokens, func(lo, n, total int) {
		if lo+n == total {
			last = s.rows(n-1, n)
		}
	})
	return last, err
}

// EvalEach is Eval that hands over the logits behind every token, in order; at counts from 0 within
// tokens. The slice is valid during the call only.
func (s *State) EvalEach(tokens []int32, each func(at int, logits []float32) error) error {
	var failed error
	err := s.eval(tokens, func(lo, n, _ int) {
		vocab, step := s.model.config.Vocab, max(1, prefillLogits/s.model.config.Vocab)
		for i := 0; i < n && failed == nil; i += step {
			rows := s.rows(i, min(i+step, n))
			for k := 0; k < len(rows)/vocab && failed == nil; k++ {
				failed = each(lo+i+k, rows[k*vocab:(k+1)*vocab])
			}
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// prefillLogits is the number of logits that exist at a time.
const prefillLogits = 4 << 20

func (s *State) rows(lo, hi int) []float32 {
	s.logits = resize(s.logits, (hi-lo)*s.model.config.Vocab)
	s.tape.Logits(s.logits, lo, hi)
	return s.logits
}

// eval runs tokens through the model in pieces and calls after behind each with its first token, its
// length and the number of all tokens.
func (s *State) eval(tokens []int32, after func(lo, n, total int)) error {
	if len(tokens) == 0 {
		return fmt.Errorf("engine: evaluating: %w: no tokens", ErrBatch)
	}
	c := s.model.config
	if have := s.cache.Len(); len(tokens) > c.Context-have {
		return fmt.Errorf("engine: evaluating: %w: %d tokens after %d pass the model's context of %d", ErrBatch, len(tokens), have, c.Context)
	}
	for i, t := range tokens {
		if t < 0 || int(t) >= c.Vocab {
			return fmt.Errorf("engine: evaluating: %w: token %d at place %d is not below the vocabulary's %d", ErrBatch, t, i, c.Vocab)
		}
	}
	if have := s.cache.Len(); !s.cache.Reach(have + len(tokens)) {
		before := slices.Clone(s.tokens)
		s.tokens = s.tokens[:0]
		s.run(before, func(int, int) {})
	}
	s.run(tokens, func(lo, n int) { after(lo, n, len(tokens)) })
	return nil
}

// run runs tokens behind those in the cache.
func (s *State) run(tokens []int32, after func(lo, n int)) {
	for lo := 0; lo < len(tokens); lo += prefill {
		piece := tokens[lo:min(lo+prefill, len(tokens))]
		s.bounds = [2]int32{0, int32(len(piece))}
		s.tape.Forward(autograd.Batch{Tokens: piece, Seq: s.bounds[:]}, autograd.Mode{Cache: s.cache})
		s.tokens = append(s.tokens, piece...)
		after(lo, len(piece))
	}
}

// Score returns the negative log likelihood of every target of a batch, in the order of the tokens
// that have one. The state's own sequence stays as it is. The slice is valid until the next call. It
// fails with ErrAdapter where a sequence names an adapter that the model does not hold.
func (s *State) Score(b Batch) ([]float32, error) {
	pass, err := s.pass(b)
	if err != nil {
		return nil, err
	}
	s.scorer.Forward(pass, autograd.Mode{})
	nll, _ := s.scorer.NLL()
	return nll, nil
}

// EvalBatch returns the logits of what follows each sequence of a batch (sequences, vocabulary). It needs
// no targets, and no sequence is empty. The state's own sequence stays as it is. The slice is
// valid until the next call.
func (s *State) EvalBatch(b Batch) ([]float32, error) {
	if b.Targets == nil {
		b.Targets = make([]int32, len(b.Tokens)) // as any batch has them
	}
	pass, err := s.pass(b)
	if err != nil {
		return nil, err
	}
	for i, lo := range b.Seq[:len(b.Seq)-1] {
		if lo == b.Seq[i+1] {
			return nil, fmt.Errorf("engine: evaluating a batch: %w: sequence %d is empty", ErrBatch, i)
		}
	}
	pass.Targets = nil
	s.tape.Forward(pass, autograd.Mode{})
	vocab := s.model.config.Vocab
	s.logits = resize(s.logits, (len(b.Seq)-1)*vocab)
	for i, end := range b.Seq[1:] {
		s.tape.Logits(s.logits[i*vocab:(i+1)*vocab], int(end)-1, int(end))
	}
	return s.logits, nil
}

// pass is a batch as a tape takes it.
func (s *State) pass(b Batch) (out autograd.Batch, err error) {
	if err := s.model.check(b); err != nil {
		return out, err
	}
	out = autograd.Batch{Tokens: b.Tokens, Seq: b.Seq, Targets: b.Targets}
	if b.Uses != nil {
		out.Choices, err = s.model.choices(b.Uses)
	}
	return out, err
}

// scoreTokens is about how many tokens ScoreText runs at a time.
const scoreTokens = 1024

// ScoreText cuts a text into windows of the given number of tokens and returns the sum of the
// negative log likelihoods of all tokens but the first of each window, and their number. Progress,
// unless nil, is called with the tokens done; its error ends the scoring.
func (s *State) ScoreText(tokens []int32, window int, progress func(done int) error) (sum float64, count int, err error) {
	if window < 2 || window > s.model.config.Context {
		return 0, 0, fmt.Errorf("engine: scoring: %w: windows of %d tokens; the model takes 2 to %d", ErrBatch, window, s.model.config.Context)
	}
	for done := 0; done < len(tokens); {
		b := Batch{Seq: []int32{0}}
		for done < len(tokens) && (len(b.Tokens) == 0 || len(b.Tokens)+window <= scoreTokens) {
			piece := tokens[done:min(done+window, len(tokens))]
			b.Tokens = append(b.Tokens, piece...)
			b.Targets = append(append(b.Targets, piece[1:]...), -1)
			b.Seq = append(b.Seq, int32(len(b.Tokens)))
			done += len(piece)
		}
		nll, err := s.Score(b)
		if err != nil {
			return 0, 0, err
		}
		for _, v := range nll {
			sum += float64(v)
		}
		count += len(nll)
		if progress != nil {
			if err := progress(done); err != nil {
				return 0, 0, err
			}
		}
	}
	return sum, count, nil
}
