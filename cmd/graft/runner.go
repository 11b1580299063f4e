package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/onnx/ort"
)

// sequence is a model running one sequence, in either engine.
type sequence interface {
	engine.Sequence
	// EvalEach appends tokens and hands over the logits behind each.
	EvalEach(tokens []int32, each func(at int, logits []float32) error) error
	// ScoreText returns the sum of the negative log likelihoods of a text in windows, and their number.
	ScoreText(tokens []int32, window int, progress func(done int) error) (sum float64, count int, err error)
	// Truncate forgets all but the first n tokens.
	Truncate(n int)
}

// runner is a model ready to run, with what turns text into tokens and back.
type runner struct {
	sequence
	tok      *tokenizer.Tokenizer
	template *chat.Template // nil where the model has none
	context  int
	vocab    int // rows of the embedding table; 0 where it is not known
	stop     []int32
	swap     func(adapter string) error // chooses an adapter by name; "" is the bundle's default
	names    func() []string            // adapters to choose from
	close    func() error
}

// bare names the base without an adapter where a name is asked for.
const bare = "none"

// openRunner opens a model to run it. Adapters of a checkpoint are all applied, adding up; of a
// bundle one can be named. Layout is for the products that the model will be used in most.
func openRunner(c *cli.Command, path string, adapterArgs []string, engineName string, layout kernel.Layout) (*runner, error) {
	if engineName != "" && engineName != "ort" && engineName != "native" {
		return nil, usagef("--engine %q: choose ort or native", engineName)
	}
	if isBundle(path) {
		if c.IsSet("compute") {
			return nil, usagef("--compute is for models that run natively; %q is an ONNX bundle", path)
		}
		if engineName == "native" {
			return nil, usagef("%q is an ONNX bundle, which runs on ONNX Runtime; name the GGUF file or the folder for --engine native", path)
		}
		return openBundleRunner(path, adapterArgs, c.String("ort-lib"))
	}
	if engineName == "ort" {
		return nil, usagef("--engine ort runs an ONNX bundle; make one with graft convert %s -o bundle --to onnx", path)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	compute := c.String("compute")
	if compute != "" && compute != "f32" && compute != "bf16" {
		return nil, usagef("--compute %q: choose f32 or bf16", compute)
	}
	return nativeRunner(m, adapterArgs, engine.Options{BF16: compute == "bf16", Layout: layout})
}

// openStored opens a model of a command that runs two of them, bundles among them, over a text.
func openStored(c *cli.Command, o origin) (*runner, error) {
	if isBundle(o.path) {
		return openBundleRunner(o.path, o.adapters, c.String("ort-lib"))
	}
	m, err := o.open()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return nativeRunner(m, o.adapters, engine.Options{})
}

// computeFlag says how a command that runs a model natively computes products.
func computeFlag() cli.Flag {
	return &cli.StringFlag{Name: "compute", Usage: "f32 or bf16: products on bfloat16 operands, for a model that is not a bundle", Value: "f32", HideDefault: true}
}

// openBundleRunner opens a bundle on ONNX Runtime. One of its adapters can be named, "none" for the
// bare base; where none is, the bundle's default answers.
func openBundleRunner(dir string, adapterArgs []string, library string) (*runner, error) {
	if len(adapterArgs) > 1 {
		return nil, usagef("a bundle answers with one adapter at a time, not with %q together", adapterArgs)
	}
	tok, err := openTokenizer(dir)
	if err != nil {
		return nil, err
	}
	session, err := ort.Open(dir, ort.Options{Library: library})
	if err != nil {
		return nil, err
	}
	r := &runner{tok: tok, context: session.Context(), stop: append(tok.EOG(), session.EOS()...)}
	r.template, err = bundleTemplate(dir)
	var state *ort.State
	r.close = func() error {
		if state != nil {
			state.Close()
		}
		return session.Close()
	}
	r.names = func() []string {
		names := []string{bare}
		for _, e := range session.Bundle().Adapters() {
			names = append(names, e.Name)
		}
		return names
	}
	r.swap = func(name string) error {
		var next *ort.State
		var err error
		switch name {
		case "":
			next, err = session.NewDefaultState()
		case bare:
			next, err = session.NewState("")
		default:
			next, err = session.NewState(name)
		}
		if err != nil {
			return err
		}
		if state != nil {
			state.Close()
		}
		state, r.sequence = next, next
		return nil
	}
	if err == nil {
		err = r.swap(strings.Join(adapterArgs, ""))
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// bundleTemplate reads a bundle's chat template, nil where it has none.
func bundleTemplate(dir string) (*chat.Template, error) {
	template, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading chat template: %w", err)
	}
	return parseTemplate(string(template))
}

// nativeRunner loads a checkpoint into the engine. Weights stay as they are stored: of 4 bits that takes a
// quarter of the memory, for a few percent of the time where many tokens are read at once, and is faster
// where they come one by one.
func nativeRunner(m *checkpoint.Checkpoint, adapterArgs []string, o engine.Options) (*runner, error) {
	tok, err := m.Tokenizer()
	if err != nil {
		return nil, err
	}
	r := &runner{tok: tok, context: m.Config().Context, vocab: m.Config().Vocab, stop: tok.EOG(), close: func() error { return nil }}
	for _, id := range m.Config().EOS {
		r.stop = append(r.stop, int32(id))
	}
	if r.template, err = parseTemplate(m.Meta.ChatTemplate); err != nil {
		return nil, err
	}
	o.AsStored = true
	model, err := engine.Load(m, o)
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", m.Path, err)
	}
	var all []engine.Use
	for i, arg := range adapterArgs {
		if arg == bare {
			continue
		}
		a, err := openAdapterOn(arg, m)
		if err != nil {
			return nil, err
		}
		name := adapterName(arg, i, model.Adapters())
		if err := model.AddAdapter(name, a); err != nil {
			return nil, err
		}
		all = append(all, engine.Use{Name: name})
	}
	state := model.NewState()
	if err := state.Use(all...); err != nil {
		return nil, err
	}
	r.sequence = state
	r.names = func() []string { return append([]string{bare}, model.Adapters()...) }
	r.swap = func(name string) error {
		switch name {
		case bare:
			return state.Use()
		case "":
			return state.Use(all...)
		}
		return state.Use(engine.Use{Name: name})
	}
	return r, nil
}

// adapterName makes the name by which argument i, an adapter given as a path, is chosen: the folder's,
// or where another has that the argument itself, with its number if need be.
func adapterName(arg string, i int, taken []string) string {
	path, _, err := adapterPath(arg)
	if err != nil {
		return fmt.Sprint(i)
	}
	for _, name := range []string{filepath.Base(filepath.Clean(path)), arg} {
		if !slices.Contains(taken, name) {
			return name
		}
	}
	return fmt.Sprintf("%s#%d", arg, i+1)
}

func parseTemplate(source string) (*chat.Template, error) {
	if source == "" {
		return nil, nil
	}
	t, err := chat.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("the model's chat template: %w", err)
	}
	return t, nil
}

// errContext is wrapped by errors about a prompt that is too long.
var errContext = errors.New("does not fit the model's context")

// render wraps messages into the model's chat template and returns the prompt's tokens: up to where the
// assistant is to speak, or with prefill up to the end of the words that are put into its mouth.
func (r *runner) render(messages []chat.Message, prefill string) ([]int32, error) {
	if r.template == nil {
		return nil, fmt.Errorf("the model has no chat template; --raw continues the prompt as it is")
	}
	in := chat.Input{Messages: messages, AddGenerationPrompt: true}
	if prefill != "" {
		in = chat.Input{Messages: append(messages, chat.Message{Role: "assistant", Content: prefill}), Continue: "content"}
	}
	in.BOSToken, _ = r.tok.Token(int32(r.tok.BOS()))
	in.EOSToken, _ = r.tok.Token(int32(r.tok.EOS()))
	text, err := r.template.Render(in)
	if err != nil {
		return nil, fmt.Errorf("rendering the chat template: %w", err)
	}
	return r.tok.Encode(text, tokenizer.Options{ParseSpecial: true}), nil
}

// generate appends a prompt and writes what follows, piece by piece, to emit. It returns the number
// of tokens generated.
func (r *runner) generate(ctx context.Context, prompt []int32, s *engine.Sampler, most int, emit func(text string)) (int, error) {
	if len(prompt) == 0 {
		return 0, fmt.Errorf("the prompt is empty")
	}
	if len(r.Tokens())+len(prompt) >= r.context {
		return 0, fmt.Errorf("the prompt of %d tokens %w of %d", len(r.Tokens())+len(prompt), errContext, r.context)
	}
	stream := r.tok.NewStream(true)
	n := 0
	_, err := engine.Generate(ctx, r, prompt, engine.GenerateOptions{Sampler: s, MaxTokens: most, Context: r.context, Stop: r.stop}, func(token int32) error {
		n++
		emit(stream.Push(token))
		return stdout.err
	})
	if err == nil {
		emit(stream.Flush())
	}
	return n, err
}
