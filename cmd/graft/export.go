package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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
	type named struct {
		name, arg string
		adapter   *adapters.Adapter
		gains     map[string][]float32
	}
	var list []named
	base, err := checkpoint.Base(m.Config())
	if err != nil {
		return err
	}
	targets, gains := []string{"all-linear"}, false
	for _, s := range strings.FieldsFunc(strings.Join(c.StringSlice("slots"), ","), func(r rune) bool { return r == ',' }) {
		switch s {
		case "table":
			targets = append(targets, base.Table)
		case "head":
			targets = append(targets, base.Head)
		case "dora":
			gains = true
		default:
			return usagef("--slots %q: choose table, head or dora", s)
		}
	}
	for _, arg := range c.StringSlice("adapter") {
		name, path, ok := cutName(arg)
		if !ok {
			return usagef("adapter %q: write NAME=PATH", arg)
		}
		if slices.ContainsFunc(list, func(other named) bool { return other.name == name }) {
			return usagef("--adapter: two adapters are to be called %q; give one of them another name", name)
		}
		a, g, err := slotAdapter(path, m, base)
		if err != nil {
			return err
		}
		for _, module := range []string{base.Table, base.Head} {
			if a.Pair(module) != nil && !slices.Contains(targets, module) {
				targets = append(targets, module)
			}
		}
		gains = gains || len(g) > 0
		list = append(list, named{name, path, a, g})
	}
	inputs := []string{m.Path}
	for _, a := range list {
		inputs = append(inputs, paths([]string{a.arg})...)
	}
	out, err := newOutput(c, inputs...)
	if err != nil {
		return err
	}
	defer out.discard()
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
	source, err := checkpoint.Hash(m)
	if err != nil {
		return err
	}
	bar := newProgress("writing " + out.name)
	err = onnx.Export(ctx, out.path(), onnx.Options{Source: source, Config: config, Weights: m, Targets: targets, Gains: gains, Files: keep, Progress: bar.update})
	bar.finish()
	if err != nil {
		return out.explain(err)
	}
	b, err := onnx.OpenBundle(out.path())
	if err != nil {
		return out.explain(err)
	}
	for _, a := range list {
		if err := b.Add(a.name, a.adapter, a.gains); err != nil {
			return out.explain(err)
		}
	}
	if err := (&manifest{Version: 1, From: filepath.Base(filepath.Clean(m.Path))}).write(out.path()); err != nil {
		return out.explain(err)
	}
	if !c.Bool("no-verify") {
		err := proveBundle(ctx, c, m.Path, nil, b, bare, "", out.name)
		for i := 0; err == nil && i < len(list); i++ {
			err = proveBundle(ctx, c, m.Path, []string{list[i].arg}, b, list[i].name, list[i].name, out.name)
		}
		if errors.Is(err, ort.ErrLibrary) {
			say("not verified: %v", out.explain(err))
		} else if err != nil {
			return out.explain(err)
		}
	}
	if err := out.finish(); err != nil {
		return err
	}
	say("wrote %s: a bundle with %d adapters", out.name, len(list))
	return nil
}

// slotAdapter opens an adapter as a graph's slots hold it: replaced rows as pairs, and of DoRA the gains.
func slotAdapter(arg string, m *checkpoint.Checkpoint, base adapters.Base) (*adapters.Adapter, map[string][]float32, error) {
	a, err := openAdapterOn(arg, m)
	if err != nil {
		return nil, nil, err
	}
	if a, err = a.FoldRows(base, m.Rows); err != nil {
		return nil, nil, err
	}
	gains, err := a.Gains(base, m.Rows)
	return a, gains, err
}

// proveBundle runs a bundle, called name, with one of its adapters against the model it was made
// from and records the figures.
func proveBundle(ctx context.Context, c *cli.Command, base string, baseAdapters []string, b *onnx.Bundle, use, record, name string) error {
	limit := sameLimit
	if c.IsSet("max-kl") {
		limit = c.Float("max-kl")
	}
	p := pair{a: origin{path: base, adapters: baseAdapters}, b: origin{path: b.Dir(), adapters: []string{use}}, text: verifyText, most: 512, limit: limit}
	r, err := p.compare(ctx, c)
	if err != nil {
		return fmt.Errorf("verifying %q: %w", name, err)
	}
	if !r.Passed {
		return notWritten(r.failure(base, name))
	}
	say("verified %s with adapter %s: negative log likelihood %.6f, of the source %.6f; mean KL %.3g, largest logit difference %.3g",
		name, use, r.NLL, r.ReferenceNLL, r.MeanKL, r.MaxDiff)
	return b.Record(record, r.figures())
}
