package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/tokenizer"
)

func samplingFlags() []cli.Flag {
	return []cli.Flag{
		adapterFlag(),
		&cli.StringFlag{Name: "engine", Usage: "`NAME`: ort for a bundle, native for everything else; chosen by the model"},
		&cli.StringFlag{Name: "system", Usage: "system message (`TEXT`)"},
		&cli.IntFlag{Name: "max-tokens", Usage: "`N` tokens at most", Value: 256},
		&cli.FloatFlag{Name: "temperature", Usage: "0 always takes the most likely token"},
		&cli.IntFlag{Name: "top-k", Usage: "choose among the `K` most likely; 0 for all"},
		&cli.FloatFlag{Name: "top-p", Usage: "choose among the likeliest whose probabilities reach `P`", Value: 1},
		&cli.Uint64Flag{Name: "seed", Usage: "of the choices"},
		ortFlag(),
	}
}

func sampler(c *cli.Command) (*engine.Sampler, error) {
	s := &engine.Sampler{Temperature: c.Float("temperature"), TopK: c.Int("top-k"), TopP: c.Float("top-p"), Seed: c.Uint64("seed")}
	switch {
	case !(s.Temperature >= 0 && s.Temperature <= 100):
		return nil, usagef("--temperature %v is not between 0 and 100", s.Temperature)
	case s.TopK < 0:
		return nil, usagef("--top-k %d is negative", s.TopK)
	case !(s.TopP > 0 && s.TopP <= 1):
		return nil, usagef("--top-p %v is not between 0 and 1", s.TopP)
	case c.Int("max-tokens") < 1:
		return nil, usagef("--max-tokens %d is not positive", c.Int("max-tokens"))
	}
	return s, nil
}

// openSampled opens the model of a command that generates, with its sampler. The caller closes the runner.
func openSampled(c *cli.Command) (*runner, *engine.Sampler, error) {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return nil, nil, err
	}
	s, err := sampler(c)
	if err != nil {
		return nil, nil, err
	}
	r, err := openRunner(c, args[0], c.StringSlice("adapter"), c.String("engine"), kernel.ByRows)
	return r, s, err
}

func generateCommand() *cli.Command {
	return &cli.Command{
		Name:      "generate",
		Usage:     "answer prompts",
		ArgsUsage: "MODEL",
		Description: `A prompt is a user's message in the model's chat template; with --raw it is text to continue. Several
-p are answered one by one, each as a conversation of its own. --prefill puts the first words of the
answer into the model's mouth.

  graft generate model.gguf -p "What is a graft?" --adapter out/pirate
  graft generate bundle -p "What is a graft?" --adapter pirate
  graft generate model-hf -p "Once upon a time" --raw --temperature 0.8 --seed 7`,
		Flags: append(samplingFlags(),
			&cli.StringSliceFlag{Name: "prompt", Aliases: []string{"p"}, Usage: "`TEXT` of a prompt, - for standard input; repeatable", Required: true},
			&cli.StringFlag{Name: "prefill", Usage: "`TEXT` that the answer begins with"},
			&cli.BoolFlag{Name: "raw", Usage: "continue the prompt without the chat template"},
			jsonFlag()),
		Action: generate,
	}
}

// answer is one prompt's result, in its JSON form.
type answer struct {
	Prompt          string  `json:"prompt"`
	Text            string  `json:"text"`
	PromptTokens    int     `json:"prompt_tokens"`
	Tokens          int     `json:"tokens"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

func generate(ctx context.Context, c *cli.Command) error {
	prefill := c.String("prefill")
	if prefill != "" && c.Bool("raw") {
		return usagef("--prefill needs the chat template: with --raw, write it at the end of the prompt")
	}
	r, s, err := openSampled(c)
	if err != nil {
		return err
	}
	defer r.close()
	answers := []answer{}
	for _, prompt := range c.StringSlice("prompt") {
		if prompt == "-" {
			if prompt, err = readText("-"); err != nil {
				return err
			}
		}
		ids, err := promptTokens(c, r, prompt)
		if err != nil {
			return err
		}
		r.Truncate(0)
		var text strings.Builder
		text.WriteString(prefill)
		if !c.Bool("json") {
			fmt.Fprint(stdout, prefill)
		}
		start := time.Now()
		n, err := r.generate(ctx, ids, s, c.Int("max-tokens"), func(piece string) {
			text.WriteString(piece)
			if !c.Bool("json") {
				fmt.Fprint(stdout, piece)
			}
		})
		if err != nil {
			return err
		}
		if !c.Bool("json") {
			fmt.Fprintln(stdout)
		}
		answers = append(answers, answer{prompt, text.String(), len(ids), n, float64(n) / time.Since(start).Seconds()})
	}
	if c.Bool("json") {
		return printJSON(answers)
	}
	return nil
}

func promptTokens(c *cli.Command, r *runner, prompt string) ([]int32, error) {
	if c.Bool("raw") {
		return r.tok.Encode(prompt, tokenizer.Options{AddSpecial: true, ParseSpecial: true}), nil
	}
	var messages []chat.Message
	if system := c.String("system"); system != "" {
		messages = append(messages, chat.Message{Role: "system", Content: system})
	}
	return r.render(append(messages, chat.Message{Role: "user", Content: prompt}), c.String("prefill"))
}

func chatCommand() *cli.Command {
	return &cli.Command{
		Name:      "chat",
		Usage:     "talk with a model; adapters can be swapped while it runs",
		ArgsUsage: "MODEL",
		Description: `Each line of standard input is a message. Lines that begin with a slash are orders:

  /adapter NAME   answer with this adapter from now on ("none": the bare base; without a name: a
                  bundle's default, which "graft adapter swap" changes also while this runs)
  /adapters       list the adapters
  /new            forget the conversation
  /quit           end

  graft chat bundle
  graft chat model.gguf --adapter out/pirate --adapter out/haiku`,
		Flags:  samplingFlags(),
		Action: talk,
	}
}

// conversation is the state of a chat.
type conversation struct {
	*runner
	system   string
	messages []chat.Message
}

func talk(ctx context.Context, c *cli.Command) error {
	r, s, err := openSampled(c)
	if err != nil {
		return err
	}
	defer r.close()
	t := &conversation{runner: r, system: c.String("system")}
	t.forget()
	lines, failed := readLines(os.Stdin)
	watched := term.IsTerminal(int(os.Stdin.Fd()))
	for {
		if watched {
			fmt.Fprint(os.Stderr, "> ")
		}
		var line string
		var more bool
		select {
		case line, more = <-lines:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !more {
			return *failed
		}
		if !watched {
			fmt.Fprintln(stdout, "> "+line) // a piped talk reads as a transcript
		}
		switch {
		case strings.TrimSpace(line) == "":
		case line == "/quit":
			return nil
		case strings.HasPrefix(line, "/"):
			if err := t.order(line); err != nil {
				say("%v", err) // a mistyped order does not end the talk
			}
		default:
			err := t.reply(ctx, line, s, c.Int("max-tokens"))
			if errors.Is(err, errContext) {
				say("%v; /new forgets the conversation", err)
				continue
			}
			if err != nil {
				return err
			}
		}
	}
}

// readLines hands over the lines of a reader, so that waiting for one can be interrupted. The error
// may be read when the channel is closed.
func readLines(r io.Reader) (lines <-chan string, failed *error) {
	out, failed := make(chan string), new(error)
	go func() {
		defer close(out)
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				out <- strings.TrimRight(line, "\r\n")
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				*failed = fmt.Errorf("reading standard input: %w", err)
				return
			}
		}
	}()
	return out, failed
}

func (t *conversation) forget() {
	t.messages = nil
	if t.system != "" {
		t.messages = []chat.Message{{Role: "system", Content: t.system}}
	}
	t.Truncate(0)
}

func (t *conversation) order(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch rest = strings.TrimSpace(rest); word {
	case "/adapter":
		return t.swap(rest)
	case "/adapters":
		for _, name := range t.names() {
			fmt.Fprintln(stdout, name)
		}
		return nil
	case "/new":
		t.forget()
		return nil
	}
	return fmt.Errorf("there is no order %q; \"graft chat --help\" lists them", word)
}

// reply answers a message. Only what the model has not seen yet is evaluated, unless the template
// renders earlier turns in another way than before.
func (t *conversation) reply(ctx context.Context, line string, s *engine.Sampler, most int) error {
	t.messages = append(t.messages, chat.Message{Role: "user", Content: line})
	ids, err := t.render(t.messages, "")
	if err != nil {
		return err
	}
	same := 0 // tokens at the front that the model has seen already
	for seen := t.Tokens(); same < len(seen) && same < len(ids)-1 && seen[same] == ids[same]; {
		same++
	}
	t.Truncate(same)
	fresh := ids[same:]
	var text strings.Builder
	if _, err := t.generate(ctx, fresh, s, most, func(piece string) {
		text.WriteString(piece)
		fmt.Fprint(stdout, piece)
	}); err != nil {
		t.messages = t.messages[:len(t.messages)-1] // as if it had not been said
		return err
	}
	fmt.Fprintln(stdout)
	t.messages = append(t.messages, chat.Message{Role: "assistant", Content: text.String()})
	return nil
}
