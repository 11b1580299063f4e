package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/imatrix"
	"github.com/graftml/graft/internal/tokenizer"
)

// imatrixFlags are those of importance matrices.
func imatrixFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "imatrix", Usage: "`FILE` of llama.cpp's importance matrix (GGUF or .dat), or a text to compute one from: errors are kept small where they matter"},
		&cli.StringFlag{Name: "imatrix-out", Usage: "write the importance matrix that was computed to `FILE`, which llama.cpp reads too"},
	}
}

// importance returns the importance matrix that --imatrix names, nil without: read where the
// file is one, else computed by running the model on the text that it is.
func importance(ctx context.Context, c *cli.Command, m *checkpoint.Checkpoint, form checkpoint.Form) (*imatrix.Matrix, error) {
	path, out := c.String("imatrix"), c.String("imatrix-out")
	if path == "" {
		if out != "" {
			return nil, usagef("--imatrix-out writes what --imatrix TEXT computes; name a text")
		}
		return nil, nil
	}
	if form != checkpoint.GGUF {
		return nil, usagef("--imatrix is for GGUF's types; name the output something.gguf")
	}
	matrix, err := imatrix.IsFile(path)
	if err != nil {
		return nil, err
	}
	if matrix {
		if out != "" {
			return nil, usagef("--imatrix-out: %q is an importance matrix already", path)
		}
		return imatrix.Read(path)
	}
	if out != "" && !c.Bool("force") {
		if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
			return nil, usagef("%q already exists; --force replaces it", out)
		}
	}
	r, err := computeImportance(ctx, m, path)
	if err != nil || out == "" {
		return r, err
	}
	if err := r.Write(out); err != nil {
		return nil, fmt.Errorf("%q: %w", out, err)
	}
	say("wrote %s: %d entries from %d pieces of %d tokens", out, len(r.Entries), r.Chunks, r.ChunkSize)
	return r, nil
}

// computeImportance runs a model on a text, whose special tokens are not read as such, in windows of 512
// tokens, as llama.cpp's tool does.
func computeImportance(ctx context.Context, m *checkpoint.Checkpoint, path string) (*imatrix.Matrix, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	tok, err := m.Tokenizer()
	if err != nil {
		return nil, err
	}
	vocab, err := tok.Vocab()
	if err != nil {
		return nil, err
	}
	bos := int32(-1)
	tokens := tok.Encode(text, tokenizer.Options{})
	if vocab.AddBOS && vocab.BOS >= 0 {
		bos = int32(vocab.BOS)
		tokens = append([]int32{bos}, tokens...)
	}
	model, err := engine.Load(m, engine.Options{AsStored: true})
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", m.Path, err)
	}
	bar := newProgress("computing importance")
	r, err := model.Importance(tokens, min(512, m.Config().Context), bos, func(done, total int) error {
		bar.update(int64(done), int64(total))
		return ctx.Err()
	})
	bar.finish()
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	r.Datasets = []string{filepath.Base(path)}
	return r, nil
}
