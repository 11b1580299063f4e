package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/internal/checkpoint"
)

// Flags of the commands that write a model.
func writeFlags() []cli.Flag {
	return []cli.Flag{
		outFlag("the model: a name ending in .gguf, or a folder"),
		forceFlag(),
		&cli.StringFlag{Name: "to", Usage: "`FORM`: gguf, safetensors or onnx; by default what the name looks like"},
		&cli.StringSliceFlag{Name: "tensor-type", Usage: "`PATTERN=TYPE` for matrices whose name has the regular expression in it; repeatable, the first that fits counts"},
		&cli.StringFlag{Name: "shard-size", Aliases: []string{"split-max-size"}, Usage: "largest safetensors file, or part of a GGUF model, such as 5GB (`SIZE`); by default one file"},
		&cli.StringFlag{Name: "pre", Usage: "`NAME` of the pre-tokenizer for GGUF (tokenizer.ggml.pre), where the tokenizer's structure says none or another"},
		&cli.BoolFlag{Name: "forget-blocks", Usage: "neither keep beside a folder's tensors what it takes to write the same quantized blocks again, nor use it"},
		&cli.BoolFlag{Name: "dry-run", Usage: "print what would be written and its size; write nothing"},
		&cli.IntFlag{Name: "workers", Usage: "`N` workers; by default one a processor", HideDefault: true, Validator: atLeast(0)},
		&cli.BoolFlag{Name: "report", Usage: "print the error of each tensor"},
		&cli.BoolFlag{Name: "no-verify", Usage: "do not run the output against the input"},
		maxKLFlag("fail the verification past this mean divergence in nats (`KL`); by default what suits the type"),
		ortFlag(),
	}
}

// fourBitFlags are those of nf4 and fp4.
func fourBitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "double-quant", Usage: "quantize the scales of nf4 and fp4 too; --double-quant=false does not", Value: true},
		&cli.IntFlag{Name: "block-size", Usage: "weights a scale of nf4 and fp4 (`N`)", Value: 64},
	}
}

func convertCommand() *cli.Command {
	return &cli.Command{
		Name:      "convert",
		Usage:     "write a model in another format or number type, or as an ONNX bundle",
		ArgsUsage: "IN",
		Description: `Tokenizer, chat template and special tokens go along. A tensor whose type does not change keeps its
bytes. Folders may hold weights in bitsandbytes' 4 and 8 bits, in 8-bit floats with or without scales,
and as GPTQ, AWQ and compressed-tensors pack them; they are taken at the values that those tools
compute with. The output is run against the input on a fixed text and compared tensor by tensor before it
takes its place; where they part further than the number type explains, nothing is written.

  graft convert model.gguf -o model-hf
  graft convert model-hf -o model.gguf --type f16
  graft convert model-hf -o model.gguf --type f16 --shard-size 2GB --dry-run
  graft convert model.gguf -o bundle --to onnx --adapter pirate=out/pirate --adapter haiku=out/haiku`,
		Flags: append(append(writeFlags(), fourBitFlags()...),
			&cli.StringFlag{Name: "type", Usage: "number `TYPE` of the weights, by default each tensor's own: " + checkpoint.TypeNames()},
			&cli.StringSliceFlag{Name: "adapter", Usage: "`NAME=PATH[:scale]` of an adapter to put into an ONNX bundle; repeatable"},
			&cli.StringSliceFlag{Name: "slots", Usage: "places for adapters in an ONNX bundle beside those of its linear layers: table, head, dora (`PLACE`); those that --adapter needs are there without it"}),
		Action: func(ctx context.Context, c *cli.Command) error { return convert(ctx, c, c.String("type")) },
	}
}

func quantizeCommand() *cli.Command {
	return &cli.Command{
		Name:      "quantize",
		Usage:     "write a model with fewer bits a weight",
		ArgsUsage: "IN",
		Description: `nf4 and fp4 make a folder in bitsandbytes' form, byte for byte what bitsandbytes writes, which
transformers loads. ggml's types make a GGUF file: each tensor gets the type that llama-quantize gives
it in a file of that name, and byte for byte what it writes. With an importance matrix, made by
llama.cpp or here from a text like those the model is for, fewer bits lose less.

  graft quantize model.gguf -o model-nf4 --type nf4
  graft quantize model-hf -o model-q4.gguf --type q4_k_m
  graft quantize model-hf -o model.gguf --type q4_0 --tensor-type attn_v=q8_0 --tensor-type 'layers\.[01]\.mlp=q8_0'
  graft quantize model-hf -o model-q3.gguf --type q3_k_m --imatrix notes.txt --report

--tensor-type looks for a regular expression in a matrix's Hugging Face name and its GGUF name.
A GGUF model larger than --shard-size becomes NAME-00001-of-0000N.gguf and so on, which llama.cpp
loads by the first; as an input any of the parts will do.`,
		Flags: append(append(append(writeFlags(), fourBitFlags()...), imatrixFlags()...),
			&cli.StringFlag{Name: "type", Usage: "number `TYPE`: " + checkpoint.TypeNames(), Required: true}),
		Action: func(ctx context.Context, c *cli.Command) error { return convert(ctx, c, c.String("type")) },
	}
}

// convert is convert and quantize.
func convert(ctx context.Context, c *cli.Command, typ string) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	form, err := formOf(c, c.String("out"))
	if err != nil {
		return err
	}
	m, err := openCheckpoint(args[0])
	if err != nil {
		return err
	}
	defer m.Close()
	if form == "onnx" {
		for _, name := range []string{"tensor-type", "dry-run", "shard-size", "forget-blocks", "pre"} {
			if c.IsSet(name) {
				return usagef("--%s is for a GGUF file or a folder, not for an ONNX bundle", name)
			}
		}
		return exportONNX(ctx, c, m, typ)
	}
	if len(c.StringSlice("adapter")) > 0 {
		return usagef("--adapter makes an ONNX bundle with swappable adapters (--to onnx); to change the weights use graft merge")
	}
	return writeModel(ctx, c, m, checkpoint.Form(form), typ, origin{path: args[0]})
}

// writeModel writes a model and proves the output against the input with its adapters.
func writeModel(ctx context.Context, c *cli.Command, m *checkpoint.Checkpoint, form checkpoint.Form, typ string, from origin) error {
	o, err := writeOptions(c, form, typ)
	if err != nil {
		return err
	}
	if o.Importance, err = importance(ctx, c, m, form); err != nil {
		return err
	}
	o.ImportanceFile = filepath.Base(c.String("imatrix"))
	if c.Bool("dry-run") {
		return dryRun(ctx, c, m, o)
	}
	var parts []string
	if form == checkpoint.GGUF && o.ShardSize > 0 {
		plan, err := checkpoint.Plan(ctx, m, c.String("out"), o)
		if err != nil {
			return err
		}
		for _, f := range plan.Files {
			parts = append(parts, f.Name)
		}
	}
	out, err := newOutputParts(c, parts, slices.Concat([]string{from.path}, m.Parts, paths(from.adapters)))
	if err != nil {
		return err
	}
	defer out.discard()
	bar := newProgress("writing " + out.name)
	o.Progress, o.Unsynced = bar.update, true
	sums := map[string]string{}
	o.Hashed = func(file, sum string) { sums[file] = sum }
	report, err := checkpoint.Write(ctx, m, filepath.Join(out.temp, filepath.Base(filepath.Clean(c.String("out")))), o)
	bar.finish()
	if err != nil {
		return out.explain(err)
	}
	synced := out.sync() // while the output is proved
	if err := proveWritten(ctx, c, from, out, report, sums); err != nil {
		return out.explain(err)
	}
	if err := <-synced; err != nil {
		return out.explain(fmt.Errorf("writing %q: %w", out.name, err))
	}
	if err := out.finish(); err != nil {
		return err
	}
	var bytes int64
	for _, t := range report {
		bytes += t.Bytes
	}
	if c.Bool("report") {
		printReport(report)
	}
	say("wrote %s: %d tensors, %s", out.name, len(report), size(bytes))
	if note := m.Config().GGUFNote(); note != "" && form == checkpoint.GGUF {
		say("note: %s", note)
	}
	return nil
}

// writeOptions takes the options of a command that writes a model from its flags.
func writeOptions(c *cli.Command, form checkpoint.Form, typ string) (o checkpoint.Options, err error) {
	o = checkpoint.Options{
		Form: form, Type: strings.ToLower(typ), Workers: c.Int("workers"), Errors: c.Bool("report"), ForgetBlocks: c.Bool("forget-blocks"), Pre: c.String("pre"),
		FourBit: fourBit(c),
	}
	if o.Pre != "" && form != checkpoint.GGUF {
		return o, usagef("--pre names what a GGUF file calls the pre-tokenizer; a folder has the tokenizer itself")
	}
	for _, arg := range c.StringSlice("tensor-type") {
		rule, err := checkpoint.ParseTensorType(arg)
		if err != nil {
			return o, usagef("%v", err)
		}
		o.TensorTypes = append(o.TensorTypes, rule)
	}
	o.ShardSize, err = parseSize(c.String("shard-size"))
	return o, err
}

// dryRun prints what would be written.
func dryRun(ctx context.Context, c *cli.Command, m *checkpoint.Checkpoint, o checkpoint.Options) error {
	plan, err := checkpoint.Plan(ctx, m, c.String("out"), o)
	if err != nil {
		return err
	}
	t := newTable()
	t.row("tensor", "shape", "from", "to", "bytes")
	for _, w := range plan.Tensors {
		t.row(w.Name, shape(w.Shape), w.From, w.Codec, w.Bytes)
	}
	t.flush()
	fmt.Fprintln(stdout)
	t = newTable()
	t.row("file", "tensors", "bytes")
	var total int64
	for _, f := range plan.Files {
		t.row(f.Name, f.Tensors, f.Bytes)
		total += f.Bytes
	}
	t.row("in all", len(plan.Tensors), total)
	t.flush()
	if plan.Blocks {
		say("beside them comes %s, as large as the quantized blocks that cannot be computed again; --forget-blocks does without", checkpoint.BlocksFile)
	}
	return nil
}

// printReport prints what became of each tensor. The error is relative to the tensor's own size.
func printReport(report []checkpoint.Written) {
	t := newTable()
	t.row("tensor", "shape", "from", "to", "size", "rms error", "relative")
	for _, w := range report {
		errs, relative := "-", "-"
		if w.RMS > 0 && w.From != w.Codec {
			errs, relative = fmt.Sprintf("%.3g", w.RMSE), fmt.Sprintf("%.3g", w.RMSE/w.RMS)
		}
		t.row(w.Name, shape(w.Shape), w.From, w.Codec, size(w.Bytes), errs, relative)
	}
	t.flush()
}
