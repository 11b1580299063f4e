package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/inspect"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "say what a model, adapter, bundle or data file is, measure it and find what is wrong",
		ArgsUsage: "PATH",
		Description: `PATH is a model (a GGUF file, whole or any part of a split one, or a folder of safetensors), one
safetensors file, an adapter (a folder of PEFT or MLX, an .onnx_adapter file, a GGUF file of LoRA matrices), an
ONNX bundle, or training data (.jsonl, .json, .txt, also .gz and .zst). Only headers and small files
are read; --stats, --against and --check read every value, on all processors, in little memory.

  graft inspect model.gguf --tensors
  graft inspect model.gguf --tensors --stats
  graft inspect model-q4.gguf --against model-hf --tensors
  graft inspect model-hf --check
  graft inspect rows.jsonl --model model-hf --check
  graft inspect out/pirate --json

--stats gives range, mean, standard deviation, and counts of zeros, NaN and infinities. --against
gives the error of each tensor, PATH's values less OTHER's: RMSE, relative error ‖b−a‖/‖a‖, largest
error, signal to noise in dB, cosine, and the rows furthest off.

--check lists errors, warnings and notes, each with what to do, and exits 1 where there is an error:
values that are not finite, tensors that are missing, left over or of a wrong shape, GGUF keys of a
wrong type, special ids that are no tokens or differ between config.json, generation_config.json and
the tokenizer, a chat template that fails or writes what is no token, an answer's last token that does
not end generation, files that are not those of their manifest, and more. A model that cannot be
opened is described from its headers.

Keys of --json: kind, path, form, files, architecture, name, license, parameters, bytes,
bits_per_weight, layers, hidden_size, intermediate_size, heads, kv_heads, head_dim, context, rope,
vocabulary, tokenizer, tokens, bos_token_id, eos_token_ids, tied_embeddings, chat_template, types; r,
lora_alpha, target_modules, modules, base_model; adapters, default_adapter; data; stats, error,
not_compared; tensors (name, shape, type, bytes, file, offset, stored_as, stats, error); checked,
findings (severity, code, place, message, fix). A key without a value is left out.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "tensors", Usage: "list the tensors"},
			&cli.BoolFlag{Name: "stats", Usage: "read every value and measure the tensors"},
			&cli.StringFlag{Name: "against", Usage: "compare each tensor with that of `OTHER`, a model"},
			&cli.BoolFlag{Name: "check", Usage: "read everything; exit 1 where something is wrong"},
			&cli.StringFlag{Name: "model", Usage: "count the tokens of data as `MODEL` reads it"},
			jsonFlag(),
		},
		Action: inspectPath,
	}
}

func inspectPath(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	bar := newProgress("reading " + args[0])
	r, err := inspect.Path(ctx, args[0], inspect.Options{Tensors: c.Bool("tensors"), Stats: c.Bool("stats"), Check: c.Bool("check"),
		Against: c.String("against"), Model: c.String("model"), Progress: bar.update})
	bar.finish()
	if err != nil {
		return err
	}
	if c.Bool("check") {
		if err := checkManifest(args[0]); err != nil {
			r.Findings = slices.Insert(r.Findings, 0, inspect.Finding{Severity: inspect.Error, Code: "manifest", Place: manifestPath(args[0]), Message: err.Error(), Fix: "write the model again"})
		} else if _, err := os.Stat(manifestPath(args[0])); r.Kind == "bundle" && errors.Is(err, fs.ErrNotExist) {
			r.Findings = append(r.Findings, inspect.Finding{Severity: inspect.Note, Code: "manifest-missing", Place: manifestName, Message: "it is missing, so nothing says what the graph and its weights should be", Fix: "graft verify MODEL BUNDLE compares them with the model"})
		}
	}
	if !c.Bool("tensors") {
		r.Tensors = nil
	}
	return report(c, r)
}

// report prints what was found, and is the command's verdict.
func report(c *cli.Command, r *inspect.Report) error {
	if c.Bool("json") {
		if err := printJSON(r); err != nil {
			return err
		}
	} else {
		printInspection(r)
	}
	return failOn(r)
}

// failOn is the command's verdict: an error that names the first of what is wrong.
func failOn(r *inspect.Report) error {
	errs := r.Errors()
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("inspecting %q: %s", r.Path, errs[0])
	}
	return fmt.Errorf("inspecting %q: %d errors, the first: %s", r.Path, len(errs), errs[0])
}

func printInspection(r *inspect.Report) {
	t := newTable()
	t.row(r.Kind, r.Path)
	row := func(name string, value any, show bool) {
		if show {
			t.row(name, value)
		}
	}
	text := func(name, value string) { row(name, printable(value), value != "") }
	text("form", r.Form)
	text("architecture", r.Arch)
	text("name", r.Name)
	text("license", r.License)
	row("rank", r.Rank, r.Rank > 0)
	row("alpha", r.Alpha, r.Alpha != 0)
	row("parameters", fmt.Sprintf("%s (%d)", count(r.Parameters), r.Parameters), r.Parameters > 0)
	in := ""
	if n := len(r.Files); n > 1 {
		in = fmt.Sprintf(" in %d files", n)
	}
	row("size", size(r.Bytes)+in, r.Bytes > 0)
	row("bits a weight", fmt.Sprintf("%.2f", r.BitsPerWeight), r.BitsPerWeight > 0)
	row("layers", r.Layers, r.Layers > 0)
	gated := ""
	if r.Intermediate > 0 {
		gated = fmt.Sprintf(", %d in the gated unit", r.Intermediate)
	}
	row("hidden size", fmt.Sprint(r.Hidden)+gated, r.Hidden > 0)
	row("heads", fmt.Sprintf("%d of %d, %d for keys and values", r.Heads, r.HeadDim, r.KVHeads), r.Heads > 0)
	row("context", r.Context, r.Context > 0)
	text("rope", r.Rope)
	row("vocabulary", r.Vocab, r.Vocab > 0)
	text("tokenizer", r.Tokenizer)
	row("tokens", r.Tokens, r.Tokens > 0)
	row("end of text", strings.Trim(fmt.Sprint(r.EOS), "[]"), len(r.EOS) > 0)
	if r.Kind == "model" {
		t.row("tied embeddings", yesNo(r.Tied))
		t.row("chat template", yesNo(r.Template))
	}
	row("tensors", counts(r.Types), len(r.Types) > 0)
	row("modules", counts(r.Modules), len(r.Modules) > 0)
	row("DoRA", "yes", r.DoRA)
	for _, name := range r.Also {
		text("replaces", name)
	}
	text("base model", r.BaseModel)
	for _, name := range r.Adapters {
		mark := ""
		if name == r.Default {
			mark = "default"
		}
		t.row("adapter", name, mark)
	}
	if r.Data != nil {
		dataRows(t, r.Data)
	}
	if s := r.Total; s != nil {
		t.row("values", fmt.Sprintf("%.4g to %.4g, mean %.4g, deviation %.4g, %d zeros, %d NaN, %d infinite", s.Min, s.Max, s.Mean, s.Std, s.Zeros, s.NaN, s.Inf))
	}
	if e := r.TotalError; e != nil {
		t.row("error", fmt.Sprintf("RMSE %.4g, relative %.4g, largest %.4g, SNR %s, cosine %.6f", e.RMSE, e.Relative, e.Max, decibels(e), e.Cosine))
		row("not compared", fmt.Sprintf("%d tensors that one of the two lacks", len(r.NotCompared)), len(r.NotCompared) > 0)
	}
	if r.Checked && len(r.Findings) == 0 {
		t.row("check", "everything read, nothing wrong")
	}
	t.flush()
	if len(r.Tensors) > 0 {
		fmt.Fprintln(stdout)
		printTensors(r)
	}
	printFindings(r.Findings)
}

func printFindings(list []inspect.Finding) {
	if len(list) > 0 {
		fmt.Fprintln(stdout)
	}
	for _, f := range list {
		fmt.Fprintf(stdout, "%s  %s\n", f.Severity, printable(f.String()))
		if f.Fix != "" {
			fmt.Fprintf(stdout, "%*s  → %s\n", len(f.Severity), "", f.Fix)
		}
	}
}

func counts(m map[string]int) string {
	var list []string
	for _, name := range sortedNames(m) {
		list = append(list, fmt.Sprintf("%s × %d", printable(name), m[name]))
	}
	return strings.Join(list, "  ")
}

func decibels(e *inspect.Difference) string {
	if e.SNR == nil {
		return "infinite"
	}
	return fmt.Sprintf("%.1f dB", *e.SNR)
}

func dataRows(t table, d *inspect.Data) {
	t.row("rows", d.Rows)
	if len(d.Columns) > 0 {
		t.row("columns", counts(d.Columns))
	}
	spread := func(name string, s *inspect.Spread) {
		if s != nil {
			t.row(name, fmt.Sprintf("%d to %d, median %d, 95 %% up to %d, together %d", s.Min, s.Max, s.Median, s.P95, s.Sum))
		}
	}
	spread("turns", d.Turns)
	if len(d.Roles) > 0 {
		t.row("roles", counts(d.Roles))
	}
	spread("characters", &d.Characters)
	spread("tokens", d.Tokens)
	if d.Tokens != nil {
		t.row("longer than the context", fmt.Sprintf("%d rows (of %d tokens)", d.TooLong, d.Context))
	}
	if d.Duplicates > 0 {
		t.row("duplicates", d.Duplicates)
	}
}

// printTensors lists the tensors, with the columns that were asked for.
func printTensors(r *inspect.Report) {
	t := newTable()
	measured, compared := r.Total != nil, r.TotalError != nil
	head := []any{"tensor", "shape", "type", "size", "offset"}
	if measured {
		head = append(head, "min", "max", "mean", "deviation", "zeros", "NaN", "infinite")
	}
	if compared {
		head = append(head, "RMSE", "relative", "largest", "SNR", "cosine", "worst row")
	}
	t.row(head...)
	for _, x := range r.Tensors {
		where := ""
		if x.Offset > 0 {
			where = fmt.Sprint(x.Offset)
		}
		if x.File != "" {
			where = x.File + ":" + where
		}
		bytes := ""
		if x.Bytes > 0 {
			bytes = size(x.Bytes)
		}
		cells := []any{printable(x.Name), shape(x.Shape), x.Type, bytes, where}
		if s := x.Stats; measured && s != nil {
			cells = append(cells, g(s.Min), g(s.Max), g(s.Mean), g(s.Std), s.Zeros, s.NaN, s.Inf)
		} else if measured {
			cells = append(cells, "", "", "", "", "", "", "")
		}
		if e := x.Error; compared && e != nil {
			worst := ""
			if len(e.Worst) > 0 {
				worst = fmt.Sprintf("%d (%.3g)", e.Worst[0].Row, e.Worst[0].Error)
			}
			cells = append(cells, g(e.RMSE), g(e.Relative), g(e.Max), decibels(e), fmt.Sprintf("%.6f", e.Cosine), worst)
		}
		t.row(cells...)
	}
	t.flush()
}

func g(v float64) string { return fmt.Sprintf("%.4g", v) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
