package engine

import (
	"fmt"
	"slices"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/autograd"
)

// This file trains: losses, log probabilities and gradients. It knows no optimizer and no schedule.

// Batch is the tokens of one pass, sequences one after the other without padding.
type Batch struct {
	Tokens []int32 // (T)
	// Seq holds where sequences begin, and T: sequence i is tokens [Seq[i], Seq[i+1]). No token
	// attends to another sequence, and positions count from 0 in each.
	Seq []int32
	// Targets (T) holds the token that is to follow at each place, or −1 where no loss is wanted.
	Targets []int32
	// Weights (T) multiply the losses; nil is 1 everywhere.
	Weights []float32
	// Uses, unless nil, has the adapters of each sequence, in place of those a State has chosen; a
	// sequence without any is that of the bare model. A Session takes none.
	Uses [][]Use
}

// Param is something trained. Value is the parameter itself: an optimizer writes to it.
type Param struct {
	Name  string // an adapter's as PEFT stores it, a weight's as Hugging Face names it
	Shape []int
	Value []float32
	Grad  []float32
}

// SessionOptions says what a session trains.
type SessionOptions struct {
	// Adapter is trained in place: its values are the parameters. Nil with Full.
	Adapter *adapters.Adapter
	// Frozen, unless nil, is pairs on products inside blocks that act beside those of Adapter and are not
	// trained. What is off with the adapter (ReferenceLogProbs) they are, too.
	Frozen *adapters.Adapter
	// Dropout is the probability that a value of an adapter's input is dropped (PEFT's lora_dropout).
	Dropout float64
	// Full trains every weight of the model, which must be dense and have no other user.
	Full bool
	// Remat is the number of blocks whose activations are not kept but computed again: less memory,
	// more time, the same bits. A number above what there are is all.
	Remat int
	// KeepLogits keeps the logits of all targets for the gradient of the head, where that or a pair on it
	// is trained, rather than make them twice: more memory, less time, the same bits. With DoRA on the
	// head, or its rows alone, it changes nothing.
	KeepLogits bool
	// Seed decides the dropout masks, together with the number of the pass.
	Seed uint64
}

// Session computes losses of a model and their gradients in what it trains. A steady step allocates
// nothing. It is not safe for concurrent use.
type Session struct {
	model  *Model
	tape   *autograd.Tape
	params []Param
	tied   *tiedPairs // nil where no pair acts on the table and the head

	seed    uint64
	pass    uint64
	weights []float32 // (M) of the targets of the last Loss
	scaled  []float32 // (M) scratch
	logps   []float32 // (M) results of LogProbs
}

// NewSession prepares training. It fails with ErrAdapter where the adapter does not fit.
func (m *Model) NewSession(o SessionOptions) (*Session, error) {
	if (o.Adapter == nil) == !o.Full {
		return nil, fmt.Errorf("engine: preparing training: %w: give either an adapter or full training", ErrAdapter)
	}
	if !(o.Dropout >= 0 && o.Dropout < 1) {
		return nil, fmt.Errorf("engine: preparing training: %w: dropout %v is not in [0, 1)", ErrAdapter, o.Dropout)
	}
	s := &Session{model: m, seed: o.Seed, tape: autograd.NewTape(m.graph, autograd.Training)}
	s.tape.SetRemat(o.Remat)
	s.tape.KeepLogits(o.KeepLogits)
	if o.Full {
		return s, s.trainWeights()
	}
	return s, s.trainAdapter(o.Adapter, o.Frozen, o.Dropout)
}

// trainWeights gives every weight of the model a gradient.
func (s *Session) trainWeights() error {
	for _, p := range s.model.params {
		w := s.model.weights[p.Name]
		if w.Matrix.F32 == nil {
			return fmt.Errorf("engine: preparing training: %w: full training of %q, which is not held in float32; load the model without quantization and in float32", ErrModel, p.Name)
		}
		w.Grad = make([]float32, len(w.Matrix.F32))
		s.params = append(s.params, Param{p.Name, p.Shape, w.Matrix.F32, w.Grad})
		if table, head := s.model.Ends(); head.Tied != "" && p.Name == table.Weight() {
			s.model.output.Grad = w.Grad
		}
	}
	return nil
}

// Params lists what is trained, in the order of the computation.
func (s *Session) Params() []Param { return s.params }

// ZeroGrad sets all gradients to zero.
func (s *Session) ZeroGrad() {
	for _, p := range s.params {
		clear(p.Grad)
	}
}

// Pass returns the number of training passes so far, which dropout masks depend on. A run that
// resumes sets what it had.
func (s *Session) Pass() uint64 { return s.pass }

// SetPass sets the number of training passes so far.
func (s *Session) SetPass(n uint64) { s.pass = n }

// ActivationBytes returns the memory that passes of so many tokens take besides weights, adapters
// and the head's scratch.
func (s *Session) ActivationBytes(tokens int) int64 { return s.tape.ActivationBytes(tokens) }

// Loss runs a training pass, with dropout, and returns the weighted sum of the negative log
// likelihoods and the sum of the weights of the targets: their quotient is the mean loss.
func (s *Session) Loss(b Batch) (sum, weight float64, err error) {
	if err := s.forward(b, s.training()); err != nil {
		return 0, 0, err
	}
	sum, weight = s.sum(b)
	return sum, weight, nil
}

// Evaluate is Loss without dropout and without a backward pass to follow.
func (s *Session) Evaluate(b Batch) (sum, weight float64, err error) {
	if err := s.forward(b, autograd.Mode{LossOnly: true}); err != nil {
		return 0, 0, err
	}
	sum, weight = s.sum(b)
	return sum, weight, nil
}

func (s *Session) sum(b Batch) (sum, weight float64) {
	nll, at := s.tape.NLL()
	s.weights = resize(s.weights, len(nll))
	for i, v := range nll {
		w := float32(1)
		if b.Weights != nil {
			w = b.Weights[at[i]]
		}
		s.weights[i] = w
		sum += float64(w) * float64(v)
		weight += float64(w)
	}
	return sum, weight
}

// Backward adds scale times the gradient of the last Loss, the weighted sum, to the gradients.
func (s *Session) Backward(scale float64) {
	s.scaled = resize(s.scaled, len(s.weights))
	for i, w := range s.weights {
		s.scaled[i] = float32(scale * float64(w))
	}
	s.backward()
}

func (s *Session) backward() {
	s.tape.Backward(s.scaled)
	if s.tied != nil {
		s.tied.collect()
	}
}

// LogProbs runs a training pass, with dropout, and returns the log probability of each target, in
// the order of the tokens that have one. The slice is valid until the next pass.
func (s *Session) LogProbs(b Batch) ([]float32, error) { return s.logProbs(b, s.training()) }

// ReferenceLogProbs is LogProbs of the model without the adapter, to which no backward pass follows.
func (s *Session) ReferenceLogProbs(b Batch) ([]float32, error) {
	return s.logProbs(b, autograd.Mode{NoAdapters: true})
}

// EvaluateLogProbs is LogProbs without dropout and without a backward pass to follow.
func (s *Session) EvaluateLogProbs(b Batch) ([]float32, error) {
	return s.logProbs(b, autograd.Mode{LossOnly: true})
}

func (s *Session) logProbs(b Batch, mode autograd.Mode) ([]float32, error) {
	if err := s.forward(b, mode); err != nil {
		return nil, err
	}
	nll, _ := s.tape.NLL()
	s.logps = resize(s.logps, len(nll))
	for i, v := range nll {
		s.logps[i] = -v
	}
	return s.logps, nil
}

// BackwardLogProbs adds the gradient of Σ coef[i]·logp[i] to the gradients, logp being what the last
// LogProbs returned: coef holds the derivatives of an objective in the log probabilities.
func (s *Session) BackwardLogProbs(coef []float32) {
	s.scaled = resize(s.scaled, len(coef))
	for i, c := range coef {
		s.scaled[i] = -c
	}
	s.backward()
}

// training returns the mode of the next training pass and counts it.
func (s *Session) training() autograd.Mode {
	key := hash(s.seed, s.pass)
	s.pass++
	return autograd.Mode{DropKey: key | 1}
}

func (s *Session) forward(b Batch, mode autograd.Mode) error {
	if err := s.model.check(b); err != nil {
		return err
	}
	if b.Uses != nil {
		return fmt.Errorf("engine: running a batch: %w: its sequences choose adapters, but a session trains one", ErrBatch)
	}
	if s.tied != nil {
		s.tied.refresh()
	}
	s.tape.Forward(autograd.Batch{Tokens: b.Tokens, Seq: b.Seq, Targets: b.Targets}, mode)
	return nil
}

// check reports a batch that the graph cannot take.
func (m *Model) check(b Batch) error {
	n := len(b.Tokens)
	switch {
	case n == 0:
		return fmt.Errorf("engine: running a batch: %w: it has no tokens", ErrBatch)
	case len(b.Targets) != n || b.Weights != nil && len(b.Weights) != n:
		return fmt.Errorf("engine: running a batch: %w: %d tokens with %d targets and %d weights", ErrBatch, n, len(b.Targets), len(b.Weights))
	case b.Uses != nil && len(b.Uses) != len(b.Seq)-1:
		return fmt.Errorf("engine: running a batch: %w: %d choices of adapters for %d sequences", ErrBatch, len(b.Uses), len(b.Seq)-1)
	case len(b.Seq) < 2 || b.Seq[0] != 0 || int(b.Seq[len(b.Seq)-1]) != n || !slices.IsSorted(b.Seq):
		return fmt.Errorf("engine: running a batch: %w: offsets %v do not divide %d tokens", ErrBatch, b.Seq, n)
	}
	for i, t := range b.Tokens {
		if t < 0 || int(t) >= m.config.Vocab || int(b.Targets[i]) >= m.config.Vocab {
			return fmt.Errorf("engine: running a batch: %w: token %d or its target %d at place %d is not below the vocabulary's %d", ErrBatch, t, b.Targets[i], i, m.config.Vocab)
		}
	}
	return nil
}

func resize(x []float32, n int) []float32 {
	if cap(x) < n {
		return make([]float32, n)
	}
	return x[:n]
}
