package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/tokenizer"
)

func tokenizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tokenize",
		Usage:     "print the token ids of a text, one JSON array a line of input",
		ArgsUsage: "MODEL",
		Description: `Text comes from --text or standard input. A newline at the end of a line belongs to no array.
--special reads the texts of special tokens as those tokens. --decode goes the other way: one
JSON array a line in, one JSON string a line out.

  echo "Hello there" | graft tokenize model.gguf
  graft tokenize model-folder --text notes.txt --special`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "text", Usage: "read this `FILE` and not standard input"},
			&cli.BoolFlag{Name: "decode", Usage: "token ids in, text out"},
			&cli.BoolFlag{Name: "special", Usage: "read special tokens in the text; with --decode write them"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			args, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			tok, err := openTokenizer(args[0])
			if err != nil {
				return err
			}
			in := io.Reader(os.Stdin)
			if path := c.String("text"); path != "" && path != "-" {
				f, err := os.Open(path)
				if err != nil {
					return fmt.Errorf("reading text: %w", err)
				}
				defer f.Close()
				in = f
			}
			return tokenizeLines(ctx, in, stdout, tok, c.Bool("decode"), c.Bool("special"))
		},
	}
}

// openTokenizer reads the tokenizer of a model, which may be a bundle, or a tokenizer.json itself.
func openTokenizer(path string) (*tokenizer.Tokenizer, error) {
	if isBundle(path) {
		path = filepath.Join(path, "tokenizer.json")
	}
	if filepath.Base(path) == "tokenizer.json" {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading tokenizer: %w", err)
		}
		return tokenizer.ParseJSON(data)
	}
	return checkpoint.OpenTokenizer(path)
}

func tokenizeLines(ctx context.Context, in io.Reader, out io.Writer, tok *tokenizer.Tokenizer, decode, special bool) error {
	r, w := bufio.NewReaderSize(in, 1<<20), bufio.NewWriter(out)
	defer w.Flush()
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for n := 1; ; n++ {
		line, err := r.ReadString('\n')
		if line == "" && errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading line %d: %w", n, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if l := len(line); line[l-1] == '\n' {
			line = line[:l-1]
		}
		if !decode {
			ids := tok.Encode(line, tokenizer.Options{ParseSpecial: special})
			if ids == nil {
				ids = []int32{}
			}
			if err := enc.Encode(ids); err != nil {
				return err
			}
			continue
		}
		var ids []int32
		if err := json.Unmarshal([]byte(line), &ids); err != nil {
			return fmt.Errorf("line %d is not a JSON array of token ids: %w", n, err)
		}
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok {
				return fmt.Errorf("line %d: token %d is not in the vocabulary of %d", n, id, tok.Size())
			}
		}
		if err := enc.Encode(tok.Decode(ids, !special)); err != nil {
			return err
		}
	}
}
