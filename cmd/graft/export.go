package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/onnx"
	"github.com/graftml/graft/onnx/ort"
)

// bundleFiles are the files of a model's folder that a bundle carries too.
var bundleFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja", "LICENSE"}

func cutName(arg string) (name, path string, ok bool) {
	name, path, ok = strings.Cut(arg, "=")
	return name, path, ok && name != "" && path != ""
}

// exportONNX writes a bundle with its adapters and proves each against the engine.
func exportONNX(ctx context.Context, c *cli.Command, m *checkpoint.Checkpoint, typ string) error {
	if t := strings.ToLower(typ); t != "" && t != "f32" {
		return usagef("--type %s: an ONNX bundle is written in f32 by this version", typ)
	}
	out := c.String("out")
	if err := checkpoint.CheckOutput(out, c.Bool("force")); err != nil {
		return err
	}
	type named struct {
		name, arg string
		adapter   *adapters.Adapter
	}
	var list []named
	for _, arg := range c.StringSlice("adapter") {
		name, a, err := namedAdapter(arg)
		if err != nil {
			return err
		}
		if err := fits(a, m.Config()); err != nil {
			return err
		}
		_, path, _ := cutName(arg)
		list = append(list, named{name, path, a})
	}
	config, err := m.Config().JSON(nil)
	if err != nil {
		return err
	}
	files, err := m.FolderFiles()
	if err != nil {
		return err
	}
	keep := map[string][]byte{}
	for _, name := range bundleFiles {
		if data := files[name]; data != nil {
			keep[name] = data
		}
	}
	// The bundle grows under a temporary name, adapters included, and is renamed when whole.
	temp := filepath.Join(filepath.Dir(filepath.Clean(out)), "."+filepath.Base(filepath.Clean(out))+".making")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	bar := newProgress("writing " + out)
	err = onnx.Export(ctx, temp, onnx.Options{Config: config, Weights: m, Targets: []string{"all-linear"}, Files: keep, Progress: bar.update})
	bar.finish()
	if err != nil {
		return err
	}
	b, err := onnx.OpenBundle(temp)
	if err != nil {
		return err
	}
	for _, a := range list {
		if err := b.Add(a.name, a.adapter); err != nil {
			return err
		}
	}
	if c.Bool("force") {
		if err := os.RemoveAll(out); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, out); err != nil {
		return err
	}
	say("wrote %s: a bundle with %d adapters", out, len(list))
	if err := (&manifest{Version: 1, From: filepath.Base(filepath.Clean(m.Path))}).write(out); err != nil {
		return err
	}
	if c.Bool("no-verify") {
		return nil
	}
	if b, err = onnx.OpenBundle(out); err != nil {
		return err
	}
	if err := proveBundle(ctx, c, m.Path, nil, b, bare, ""); err != nil {
		return err
	}
	for _, a := range list {
		if err := proveBundle(ctx, c, m.Path, []string{a.arg}, b, a.name, a.name); err != nil {
			return err
		}
	}
	return nil
}

// proveBundle runs a bundle with one adapter against the model it was made from and records the figures.
func proveBundle(ctx context.Context, c *cli.Command, base string, baseAdapters []string, b *onnx.Bundle, use, record string) error {
	limit := sameLimit
	if c.IsSet("max-kl") {
		limit = c.Float("max-kl")
	}
	r, err := comparePaths(ctx, c, base, baseAdapters, b.Dir(), []string{use}, verifyText, 512, limit)
	if errors.Is(err, ort.ErrLibrary) {
		say("not verified: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("verifying %q: %w", b.Dir(), err)
	}
	say("verified %s with adapter %s: negative log likelihood %.6f, of the source %.6f; mean KL %.3g, largest logit difference %.3g",
		b.Dir(), use, r.NLL, r.ReferenceNLL, r.MeanKL, r.MaxDiff)
	if !r.Passed {
		return r.failure(base, b.Dir())
	}
	return b.Record(record, r.Figures)
}
