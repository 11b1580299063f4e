// Command graft adapts open-weight language models and runs them anywhere.
//
// It reads real checkpoints (safetensors, GGUF), quantizes them, trains adapters on them with its
// own gradient engine, merges or exports them to GGUF and ONNX, and runs them. One file here is one
// subcommand; "graft help" lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v3"
)

// version is set when a release is built: -ldflags "-X main.version=v1.2.3".
var version = "development"

func main() { os.Exit(run(os.Args)) }

// Exit codes, part of the command's contract.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage marks errors in how the command was called.
var errUsage = errors.New("wrong usage")

func usagef(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errUsage}, a...)...)
}

// run is the command: it returns the exit code. Results go to stdout, everything else to stderr,
// each line of it behind "graft: ".
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() { // a second signal ends the program at once
		<-ctx.Done()
		stop()
	}()
	err := rootCommand().Run(ctx, args)
	if err == nil {
		err = stdout.err
	}
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errUsage) {
		say("%s", strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
		return exitUsage
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		say("interrupted; %v", err)
		return exitFailed
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w; free some space, or write to another disk", err)
	}
	say("%v", err)
	return exitFailed
}

func rootCommand() *cli.Command {
	root := &cli.Command{
		Name:    "graft",
		Usage:   "adapt open-weight language models and run them anywhere",
		Version: version,
		Commands: []*cli.Command{
			pullCommand(), inspectCommand(), tokenizeCommand(), convertCommand(), quantizeCommand(), verifyCommand(), trainCommand(),
			mergeCommand(), adapterCommand(), generateCommand(), chatCommand(), evalCommand(), planCommand(), doctorCommand(),
		},
		Suggest: true,
		Writer:  stdout,
		Description: `A model is a GGUF file, a folder of safetensors, or an ONNX bundle.
An adapter is PATH[:scale], or, for a bundle, one of its adapters' names.

  graft train --model model.gguf --data rows.jsonl -o my-adapter
  graft merge model.gguf my-adapter -o merged.gguf --type f16
  graft convert model.gguf -o bundle --to onnx --adapter mine=my-adapter
  graft generate bundle -p "Hello" --adapter mine`,
	}
	prepare(root)
	return root
}

// prepare gives every command the same manners.
func prepare(c *cli.Command) {
	c.OnUsageError = func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return usagef("%v; see \"%s --help\"", err, c.FullName())
	}
	c.ExitErrHandler = func(context.Context, *cli.Command, error) {} // run decides
	c.DisableSliceFlagSeparator = true                               // a comma in a path or a prompt is a comma
	if len(c.Commands) > 0 {
		c.Action = func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usagef("there is no command %q; \"%s --help\" lists them", c.FullName()+" "+c.Args().First(), c.FullName())
			}
			return cli.ShowSubcommandHelp(c)
		}
	}
	for _, sub := range c.Commands {
		prepare(sub)
	}
}

// say writes one message to stderr. What an input put into it cannot steer the terminal, nor fill it.
func say(format string, a ...any) {
	const longest = 2000
	text := strings.TrimRight(fmt.Sprintf(format, a...), "\n")
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > longest {
			line = line[:longest] + "…"
		}
		fmt.Fprintf(os.Stderr, "graft: %s\n", printable(line))
	}
}

// printable writes control characters and bytes that are not UTF-8 as escapes.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && r != '\t' {
			fmt.Fprintf(&b, `\x%02x`, s[:n])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// arguments returns a command's positional arguments, of which there must be between least and most.
func arguments(c *cli.Command, least, most int) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < least || len(args) > most {
		return nil, usagef("%s takes %s; see \"%s --help\"", c.FullName(), c.ArgsUsage, c.FullName())
	}
	for _, a := range args {
		if a == "" {
			return nil, usagef("an argument of %s is empty", c.FullName())
		}
	}
	return args, nil
}

// readText reads a text file, or standard input for "-".
func readText(path string) (string, error) {
	if path == "-" {
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return "", fmt.Errorf("reading standard input: %w", err)
		}
		return string(data), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading text: %w", err)
	}
	return string(data), nil
}
