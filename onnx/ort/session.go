package ort

// Sessions and states, as far as they do not touch the C library: see native.go and nocgo.go.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/onnx"
)

// ErrInput is wrapped by errors about what a caller gave: tokens outside the vocabulary, a sequence
// longer than the context.
var ErrInput = errors.New("invalid input")

// Options say how a bundle is run.
type Options struct {
	Library string // path of libonnxruntime or its folder; "" looks where FindLibrary does
	Threads int    // for one operation; 0 lets ONNX Runtime choose
}

// shape is the size of a graph, from genai_config.json.
type shape struct {
	layers, kvHeads, headDim, vocab, context int
	eos                                      []int32
	longAfter                                int // see onnx.Bundle.LongAfter
}

// readShape reads genai_config.json of a bundle.
func readShape(dir string) (*shape, error) {
	var c struct {
		Model struct {
			Vocab   int            `json:"vocab_size"`
			Context int            `json:"context_length"`
			EOS     jsontext.Value `json:"eos_token_id"`
			Decoder struct {
				HeadDim int `json:"head_size"`
				KVHeads int `json:"num_key_value_heads"`
				Layers  int `json:"num_hidden_layers"`
			} `json:"decoder"`
		} `json:"model"`
	}
	data, err := os.ReadFile(filepath.Join(dir, "genai_config.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%w: genai_config.json: %w", onnx.ErrFormat, err)
	}
	s := &shape{c.Model.Decoder.Layers, c.Model.Decoder.KVHeads, c.Model.Decoder.HeadDim, c.Model.Vocab, c.Model.Context, nil, 0}
	for _, v := range []int{s.layers, s.kvHeads, s.headDim, s.vocab, s.context} {
		if v < 1 || v > 1<<24 {
			return nil, fmt.Errorf("%w: genai_config.json: a size of %d", onnx.ErrFormat, v)
		}
	}
	switch c.Model.EOS.Kind() {
	case '0':
		s.eos = make([]int32, 1)
		err = json.Unmarshal(c.Model.EOS, &s.eos[0])
	case '[':
		err = json.Unmarshal(c.Model.EOS, &s.eos)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: genai_config.json: eos_token_id: %w", onnx.ErrFormat, err)
	}
	return s, nil
}

// Session is a bundle's graph, loaded. It is safe for concurrent use; the states it gives are not.
type Session struct {
	bundle *onnx.Bundle
	shape  *shape
	slots  []onnx.Slot
	graph  *graph

	mu     sync.Mutex
	loaded map[string]*feed // by name; "" is the bare base
	closed bool
}

// feed is an adapter in memory: tensors for all slots.
type feed struct {
	*inputs
	hash string // of the file
	uses int    // states that have it, and one more while it is the latest of its name
}

// Open loads the bundle in folder dir. The error wraps [ErrLibrary] where ONNX Runtime is missing.
func Open(dir string, o Options) (*Session, error) {
	s, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("ort: opening %q: %w", dir, err)
	}
	return s, nil
}

func open(dir string, o Options) (*Session, error) {
	bundle, err := onnx.OpenBundle(dir)
	if err != nil {
		return nil, err
	}
	s := &Session{bundle: bundle, slots: bundle.Slots(), loaded: map[string]*feed{}}
	if s.shape, err = readShape(dir); err != nil {
		return nil, err
	}
	s.shape.longAfter = bundle.LongAfter()
	library, err := FindLibrary(o.Library)
	if err != nil {
		return nil, err
	}
	if s.graph, err = openGraph(library, bundle.ModelFile(), o.Threads, s.shape, s.slots); err != nil {
		return nil, err
	}
	return s, nil
}

// Close frees the graph. States must be closed before.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for _, f := range s.loaded {
		f.free()
	}
	clear(s.loaded)
	return s.graph.close()
}

// Bundle returns what the session was opened from, for its adapters.
func (s *Session) Bundle() *onnx.Bundle { return s.bundle }

// Vocab returns the number of logits a token has.
func (s *Session) Vocab() int { return s.shape.vocab }

// Context returns the longest sequence in tokens.
func (s *Session) Context() int { return s.shape.context }

// EOS returns the tokens that end a text.
func (s *Session) EOS() []int32 { return slices.Clone(s.shape.eos) }

// Default returns the bundle's default adapter as the manifest has it now, "" for the bare base.
func (s *Session) Default() (string, error) {
	if _, err := s.bundle.Reload(); err != nil {
		return "", err
	}
	return s.bundle.Default(), nil
}

// NewState returns an empty sequence that is run with an adapter of the bundle, or with "" the bare
// base. The manifest is looked at first: an adapter that was added or replaced since is loaded. The
// error wraps [onnx.ErrNoAdapter] where the bundle does not have it.
func (s *Session) NewState(adapter string) (*State, error) {
	f, err := s.acquire(adapter)
	if err != nil {
		return nil, fmt.Errorf("ort: using adapter %q: %w", adapter, err)
	}
	return &State{session: s, feed: f, adapter: adapter}, nil
}

// NewDefaultState is [Session.NewState] with the adapter that is the bundle's default now.
// [State.Adapter] says which that is; a later swap does not change the state.
func (s *Session) NewDefaultState() (*State, error) {
	for try := 0; ; try++ {
		name, err := s.Default()
		if err != nil {
			return nil, fmt.Errorf("ort: using the default adapter: %w", err)
		}
		t, err := s.NewState(name)
		if !errors.Is(err, onnx.ErrNoAdapter) || try == 10 { // removed in between: another is the default
			return t, err
		}
	}
}

// acquire returns the feed of an adapter, counted as used once more.
func (s *Session) acquire(name string) (*feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: the session is closed", ErrInput)
	}
	hash := ""
	if name != "" {
		if _, err := s.bundle.Reload(); err != nil {
			return nil, err
		}
		for _, e := range s.bundle.Adapters() {
			if e.Name == name {
				hash = e.SHA256
			}
		}
	}
	if f := s.loaded[name]; f != nil && f.hash == hash && (name == "" || hash != "") {
		f.uses++
		return f, nil
	}
	s.release(s.loaded[name])
	delete(s.loaded, name)
	f := &feed{hash: hash, uses: 2}
	var err error
	if name == "" {
		f.inputs, err = newInputs(s.slots, nil)
	} else if tensors, sum, readErr := s.bundle.Load(name); readErr != nil {
		err = readErr
	} else {
		f.hash = sum // of what was read, which may be newer than what was looked for
		f.inputs, err = newInputs(s.slots, tensors)
	}
	if err != nil {
		return nil, err
	}
	s.loaded[name] = f
	return f, nil
}

// release counts one use less; the last frees the memory. The caller holds s.mu.
func (s *Session) release(f *feed) {
	if f == nil {
		return
	}
	if f.uses--; f.uses == 0 {
		f.free()
	}
}

// State is one sequence of tokens with its key-value cache and its adapter. It is not safe for
// concurrent use; states of one session run side by side.
type State struct {
	session *Session
	feed    *feed
	adapter string
	tokens  []int32
	cache   cache
	long    bool // the cache is that of a sequence longer than longAfter
}

// Close frees the cache.
func (t *State) Close() error {
	if t.feed == nil {
		return nil
	}
	t.cache.free()
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	t.session.release(t.feed)
	t.feed = nil
	return nil
}

// Adapter returns the name that the state was made with.
func (t *State) Adapter() string { return t.adapter }

// Tokens returns what has been evaluated. The slice must not be changed.
func (t *State) Tokens() []int32 { return t.tokens }

// Truncate forgets all but the first n tokens.
func (t *State) Truncate(n int) { t.tokens = t.tokens[:min(max(n, 0), len(t.tokens))] }

// prefill is how many tokens are run at a time. The graph makes logits for all of them, 25 MB for a
// vocabulary of 50,000.
const prefill = 128

// Eval appends tokens to the sequence and returns the logits (vocabulary) of what follows the last.
// The slice is valid until the next call. The error wraps [ErrInput] on ids outside the vocabulary and
// where the sequence would pass the model's context.
//
// A graph with frequencies of its own for long sequences sees every sequence as if it ran at once: the
// call that takes it past the length where they begin, or back, runs all of it again.
func (t *State) Eval(tokens []int32) ([]float32, error) {
	var last []float32
	err := t.eval(tokens, func(_ int, logits []float32) error {
		last = logits[len(logits)-t.session.shape.vocab:]
		return nil
	})
	return last, err
}

// EvalEach is Eval that hands over the logits behind every token, in order; at counts from 0 within
// tokens. The slice is valid during the call only.
func (t *State) EvalEach(tokens []int32, each func(at int, logits []float32) error) error {
	v := t.session.shape.vocab
	return t.eval(tokens, func(lo int, logits []float32) error {
		for i := range len(logits) / v {
			if err := each(lo+i, logits[i*v:(i+1)*v]); err != nil {
				return err
			}
		}
		return nil
	})
}

// eval runs tokens in pieces and calls after behind each with its first token and its logits (n, V).
func (t *State) eval(tokens []int32, after func(lo int, logits []float32) error) error {
	sh := t.session.shape
	if t.feed == nil {
		return fmt.Errorf("ort: evaluating: %w: the state is closed", ErrInput)
	}
	if len(tokens) == 0 {
		return fmt.Errorf("ort: evaluating: %w: no tokens", ErrInput)
	}
	if n := len(t.tokens) + len(tokens); n > sh.context {
		return fmt.Errorf("ort: evaluating: %w: %d tokens are more than the model's context of %d", ErrInput, n, sh.context)
	}
	for i, id := range tokens {
		if id < 0 || int(id) >= sh.vocab {
			return fmt.Errorf("ort: evaluating: %w: token %d is %d, outside the vocabulary of %d", ErrInput, i, id, sh.vocab)
		}
	}
	if long := sh.longAfter > 0 && len(t.tokens)+len(tokens) > sh.longAfter; long != t.long {
		t.long = long
		if before := slices.Clone(t.tokens); len(before) > 0 {
			t.tokens = t.tokens[:0]
			if err := t.run(before, func(int, []float32) error { return nil }); err != nil {
				return err
			}
		}
	}
	return t.run(tokens, after)
}

// run runs tokens behind those in the cache. On an error only what has been run is there.
func (t *State) run(tokens []int32, after func(lo int, logits []float32) error) error {
	reach := 0
	if t.long {
		reach = t.session.shape.longAfter + 1
	}
	for lo := 0; lo < len(tokens); lo += prefill {
		piece := tokens[lo:min(lo+prefill, len(tokens))]
		logits, err := t.session.graph.run(&t.cache, t.feed.inputs, len(t.tokens), piece, reach)
		if err != nil {
			return fmt.Errorf("ort: evaluating: %w", err)
		}
		t.tokens = append(t.tokens, piece...)
		if err := after(lo, logits); err != nil {
			return err
		}
	}
	return nil
}

// ScoreText cuts a text into windows of the given number of tokens and returns the sum of the
// negative log likelihoods of all tokens but the first of each window, and their number. Progress,
// unless nil, is called with the tokens done; its error ends the scoring. The state is left with the last window.
func (t *State) ScoreText(tokens []int32, window int, progress func(done int) error) (sum float64, count int, err error) {
	if window < 2 {
		return 0, 0, fmt.Errorf("ort: scoring: %w: windows of %d tokens", ErrInput, window)
	}
	for lo := 0; lo < len(tokens); lo += window {
		text := tokens[lo:min(lo+window, len(tokens))]
		t.Truncate(0)
		err := t.EvalEach(text, func(at int, logits []float32) error {
			if at+1 < len(text) {
				sum += kernel.LogSumExp(logits) - float64(logits[text[at+1]])
				count++
			}
			return nil
		})
		if err == nil && progress != nil {
			err = progress(lo + len(text))
		}
		if err != nil {
			return sum, count, err
		}
	}
	return sum, count, nil
}

// End says why a generation ended.
type End string

// The ways a generation ends.
const (
	EndStop    End = "stop"    // a stop token was chosen
	EndLength  End = "length"  // MaxTokens were generated
	EndContext End = "context" // the sequence fills the context
)

// GenerateOptions says how to continue a prompt.
type GenerateOptions struct {
	// Pick chooses a token by its logits (vocabulary), at random for instance; nil takes the most
	// likely one.
	Pick      func(logits []float32) (int32, error)
	MaxTokens int     // 0: up to the model's context
	Stop      []int32 // tokens that end the text; nil takes the model's own
}

// mostLikely returns the token of the largest logit.
func mostLikely(logits []float32) (int32, error) {
	best := kernel.ArgMax(logits)
	if best < 0 {
		return 0, errors.New("ort: generating: the logits are no numbers; is the model damaged?")
	}
	return int32(best), nil
}

// Generate appends the prompt to the sequence, then token after token, and calls emit for each that
// is not a stop token. It ends early with emit's or the context's error.
func (t *State) Generate(ctx context.Context, prompt []int32, o GenerateOptions, emit func(token int32) error) (End, error) {
	pick := o.Pick
	if pick == nil {
		pick = mostLikely
	}
	stop := o.Stop
	if stop == nil {
		stop = t.session.shape.eos
	}
	logits, err := t.Eval(prompt)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		token, err := pick(logits)
		if err != nil {
			return "", err
		}
		if slices.Contains(stop, token) {
			return EndStop, nil
		}
		if err := emit(token); err != nil {
			return "", err
		}
		switch {
		case n == o.MaxTokens:
			return EndLength, nil
		case len(t.tokens) >= t.session.shape.context:
			return EndContext, nil
		}
		if logits, err = t.Eval([]int32{token}); err != nil {
			return "", err
		}
	}
}
