package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/onnx"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "say what a model, adapter or bundle is",
		ArgsUsage: "PATH",
		Description: `Reads headers only; --check reads everything and reports what a reader could trip over.

  graft inspect model.gguf --tensors
  graft inspect out/pirate --json
  graft inspect model-hf --check`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "tensors", Usage: "list the tensors"},
			&cli.BoolFlag{Name: "check", Usage: "read every value; exit 1 where something is wrong"},
			jsonFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			args, err := arguments(c, 1, 1)
			if err != nil {
				return err
			}
			d, err := describe(ctx, args[0], c.Bool("check"))
			if err != nil {
				return err
			}
			if !c.Bool("tensors") {
				d.Tensors = nil
			}
			if c.Bool("json") {
				return printJSON(d)
			}
			d.print()
			return nil
		},
	}
}

// description is what inspect knows; its JSON form is for scripts.
type description struct {
	Kind       string              `json:"kind"` // model, adapter or bundle
	Path       string              `json:"path"`
	Form       string              `json:"form"`
	Arch       string              `json:"architecture,omitempty"`
	Name       string              `json:"name,omitempty"`
	License    string              `json:"license,omitempty"`
	Parameters int64               `json:"parameters,omitempty"`
	Bytes      int64               `json:"bytes,omitempty"`
	Layers     int                 `json:"layers,omitempty"`
	Hidden     int                 `json:"hidden_size,omitempty"`
	Heads      int                 `json:"heads,omitempty"`
	KVHeads    int                 `json:"kv_heads,omitempty"`
	Context    int                 `json:"context,omitempty"`
	Vocab      int                 `json:"vocabulary,omitempty"`
	Tied       bool                `json:"tied_embeddings,omitempty"`
	Template   bool                `json:"chat_template,omitempty"`
	Types      map[string]int      `json:"types,omitempty"` // tensors by type
	Rank       int                 `json:"r,omitempty"`
	Alpha      float64             `json:"lora_alpha,omitempty"`
	Targets    []string            `json:"target_modules,omitempty"`
	BaseModel  string              `json:"base_model,omitempty"`
	Adapters   []string            `json:"adapters,omitempty"`
	Default    string              `json:"default_adapter,omitempty"`
	Checked    bool                `json:"checked,omitempty"`
	Tensors    []tensorDescription `json:"tensors,omitempty"`
}

type tensorDescription struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	Type  string `json:"type"`
}

func describe(ctx context.Context, path string, check bool) (*description, error) {
	if isBundle(path) {
		return describeBundle(path, check)
	}
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return describeAdapter(path, check)
		}
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return describeModel(ctx, m, check)
}

func describeModel(ctx context.Context, m *checkpoint.Checkpoint, check bool) (*description, error) {
	c := m.Config()
	n, err := c.Parameters()
	if err != nil {
		return nil, err
	}
	d := &description{Kind: "model", Path: m.Path, Form: string(m.Form), Arch: c.Arch, Name: m.Meta.Name, License: m.Meta.License, Parameters: n,
		Layers: c.Layers, Hidden: c.Hidden, Heads: c.Heads, KVHeads: c.KVHeads, Context: c.Context, Vocab: c.Vocab, Tied: c.Tied,
		Template: m.Meta.ChatTemplate != "", Types: map[string]int{}}
	for _, t := range m.Tensors() {
		d.Types[t.Codec]++
		d.Tensors = append(d.Tensors, tensorDescription{t.Name, t.Shape, t.Codec})
	}
	if !check {
		return d, nil
	}
	d.Checked = true
	return d, checkModel(ctx, m)
}

// checkModel reads every value, the tokenizer and the chat template, and joins all that is wrong.
func checkModel(ctx context.Context, m *checkpoint.Checkpoint) error {
	var errs []error
	tok, err := m.Tokenizer()
	switch {
	case errors.Is(err, checkpoint.ErrNoTokenizer):
		say("warning: %v", err)
	case err != nil:
		errs = append(errs, err)
	case tok.Size() > m.Config().Vocab:
		errs = append(errs, fmt.Errorf("the tokenizer has %d tokens, the embedding table %d rows", tok.Size(), m.Config().Vocab))
	}
	if _, err := parseTemplate(m.Meta.ChatTemplate); err != nil {
		errs = append(errs, err)
	}
	bar := newProgress("checking " + m.Path)
	defer bar.finish()
	params, err := model.Inventory(m.Config())
	if err != nil {
		return err
	}
	const step = 1 << 20
	buf := []float32{}
	for i, p := range params {
		cols := p.Elements() / p.Shape[0]
		rows := max(1, step/cols)
	tensor:
		for lo := 0; lo < p.Shape[0]; lo += rows {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			hi := min(lo+rows, p.Shape[0])
			buf = slices.Grow(buf[:0], (hi-lo)*cols)[:(hi-lo)*cols]
			if err := m.Rows(p.Name, lo, hi, buf); err != nil {
				errs = append(errs, err)
				break
			}
			for j, v := range buf {
				if v-v != 0 {
					errs = append(errs, fmt.Errorf("tensor %q: row %d, column %d is %v", p.Name, lo+j/cols, j%cols, v))
					break tensor
				}
			}
		}
		bar.update(int64(i+1), int64(len(params)))
	}
	if len(errs) > 0 {
		return fmt.Errorf("checking %q: %w", m.Path, errors.Join(errs...))
	}
	return nil
}

func describeAdapter(path string, check bool) (*description, error) {
	a, err := adapters.Open(path)
	if err != nil {
		return nil, err
	}
	d := &description{Kind: "adapter", Path: path, Form: "peft", Parameters: int64(a.Parameters()), Rank: a.Config.R, Alpha: a.Config.Alpha,
		Targets: a.Config.TargetModules, BaseModel: a.Config.BaseModel, Checked: check} // opening reads every value
	for i := range a.Pairs {
		p := &a.Pairs[i]
		d.Tensors = append(d.Tensors, tensorDescription{p.Module + " A", []int{p.R, p.In}, "F32"}, tensorDescription{p.Module + " B", []int{p.Out, p.R}, "F32"})
	}
	return d, nil
}

func describeBundle(path string, check bool) (*description, error) {
	b, err := onnx.OpenBundle(path)
	if err != nil {
		return nil, err
	}
	d := &description{Kind: "bundle", Path: path, Form: "onnx", Default: b.Default(), Checked: check}
	for _, e := range b.Adapters() {
		d.Adapters = append(d.Adapters, e.Name)
	}
	if check {
		err = checkBundle(b)
	}
	return d, err
}

// checkBundle compares the files of a bundle with its manifest and reads its adapters, tokenizer and
// chat template.
func checkBundle(b *onnx.Bundle) error {
	errs := []error{checkManifest(b.Dir())}
	for _, e := range b.Adapters() {
		_, err := b.Adapter(e.Name)
		errs = append(errs, err)
	}
	_, err := openTokenizer(b.Dir())
	errs = append(errs, err)
	_, err = bundleTemplate(b.Dir())
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("checking %q: %w", b.Dir(), err)
	}
	return nil
}

func (d *description) print() {
	t := newTable()
	t.row(d.Kind, d.Path)
	t.row("form", d.Form)
	if d.Kind == "model" {
		t.row("architecture", d.Arch)
		if d.Name != "" {
			t.row("name", d.Name)
		}
		if d.License != "" {
			t.row("license", d.License)
		}
		t.row("parameters", fmt.Sprintf("%s (%d)", count(d.Parameters), d.Parameters))
		t.row("layers", d.Layers)
		t.row("hidden size", d.Hidden)
		t.row("heads", fmt.Sprintf("%d, %d for keys and values", d.Heads, d.KVHeads))
		t.row("context", d.Context)
		t.row("vocabulary", d.Vocab)
		t.row("tied embeddings", yesNo(d.Tied))
		t.row("chat template", yesNo(d.Template))
		types := ""
		for _, name := range sortedNames(d.Types) {
			types += fmt.Sprintf("%s × %d  ", name, d.Types[name])
		}
		t.row("tensors", types)
	}
	if d.Kind == "adapter" {
		t.row("rank", d.Rank)
		t.row("alpha", d.Alpha)
		t.row("parameters", fmt.Sprintf("%s (%d)", count(d.Parameters), d.Parameters))
		t.row("modules", fmt.Sprintf("%d named in target_modules", len(d.Targets)))
		if d.BaseModel != "" {
			t.row("base model", d.BaseModel)
		}
	}
	if d.Kind == "bundle" {
		for _, name := range d.Adapters {
			mark := ""
			if name == d.Default {
				mark = "default"
			}
			t.row("adapter", name, mark)
		}
	}
	if d.Checked {
		t.row("check", "every value read, nothing wrong")
	}
	t.flush()
	if d.Tensors != nil {
		fmt.Fprintln(stdout)
		t := newTable()
		for _, x := range d.Tensors {
			t.row(x.Name, shape(x.Shape), x.Type)
		}
		t.flush()
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
