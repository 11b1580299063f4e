package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/onnx"
)

// The forms of adapters.
const (
	formPEFT = "peft"
	formGGUF = "gguf"
	formMLX  = "mlx"
	formONNX = "onnx"
)

func convertAdapterCommand() *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "write an adapter in the form of another runtime", ArgsUsage: "IN[:scale]",
		Description: `PEFT's folder, llama.cpp's LoRA in GGUF, MLX-LM's folder, ONNX Runtime's .onnx_adapter: each to each. Scales
(rsLoRA, patterns of ranks and alphas) are folded in where the other form has one for all; what it cannot
hold at all is refused, with the way around. What is written is read again and compared. With --approximate
DoRA, and tables and heads trained whole, become the plain LoRA of that rank that is nearest to them.

  graft adapter convert out/pirate --base model.gguf -o pirate.gguf
  graft adapter convert pirate.gguf --base model-hf -o pirate
  graft adapter convert out/pirate --base model-hf --to mlx -o pirate-mlx
  graft adapter convert out/dora --base model-hf --approximate 32 --report -o dora.gguf`,
		Flags: []cli.Flag{
			outFlag("the adapter: a name ending in .gguf or .onnx_adapter, or a folder"), forceFlag(),
			&cli.StringFlag{Name: "base", Usage: "the `MODEL` that it is for, in any form", Required: true},
			&cli.StringFlag{Name: "to", Usage: "`FORM`: peft, gguf, mlx or onnx; by default what the name looks like"},
			&cli.IntFlag{Name: "approximate", Usage: "what the form cannot hold becomes plain LoRA of rank `R` that comes near it", HideDefault: true, Validator: atLeast(1)},
			&cli.BoolFlag{Name: "report", Usage: "print what --approximate loses in each module"},
			&cli.BoolFlag{Name: "fuse-qkv", Usage: "the base's GGUF file has q, k and v in one tensor, as llama.cpp's --fuse-qkv makes it"},
			&cli.StringFlag{Name: "type", Usage: "number `TYPE` of the matrices in GGUF: f32, f16, bf16 or q8_0", Value: "f32"},
		},
		Action: convertAdapter,
	}
}

// adapterForm decides what form an adapter is to be written in.
func adapterForm(c *cli.Command) (string, error) {
	switch to := c.String("to"); to {
	case formPEFT, formGGUF, formMLX, formONNX:
		return to, nil
	case "":
	default:
		return "", usagef("--to %q: choose peft, gguf, mlx or onnx", to)
	}
	switch filepath.Ext(c.String("out")) {
	case ".gguf":
		return formGGUF, nil
	case ".onnx_adapter":
		return formONNX, nil
	}
	return formPEFT, nil
}

func convertAdapter(ctx context.Context, c *cli.Command) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	form, err := adapterForm(c)
	if err != nil {
		return err
	}
	typ := strings.ToUpper(c.String("type"))
	if c.IsSet("type") && form != formGGUF {
		return usagef("--type is for GGUF; the other forms are written in float32")
	}
	if c.Bool("fuse-qkv") && form != formGGUF {
		return usagef("--fuse-qkv is for GGUF")
	}
	if !slices.Contains([]string{"F32", "F16", "BF16", "Q8_0"}, typ) {
		return usagef("--type %q: choose f32, f16, bf16 or q8_0", c.String("type"))
	}
	m, err := openCheckpoint(c.String("base"))
	if err != nil {
		return err
	}
	defer m.Close()
	a, err := openAdapterOn(args[0], m)
	if err != nil {
		return err
	}
	out, err := newOutput(c, append(paths(args), m.Path)...)
	if err != nil {
		return err
	}
	defer out.discard()
	b, err := checkpoint.Base(m.Config())
	if err != nil {
		return err
	}
	var lost []adapters.ModuleReport
	if rank := c.Int("approximate"); rank > 0 {
		bar := newProgress("approximating")
		a, lost, err = a.Approximate(ctx, b, m.Rows, rank, bar.update)
		bar.finish()
	} else if form != formPEFT {
		a, err = foldRows(a, b, m)
	}
	if err != nil {
		return out.explain(err)
	}
	if err := writeAdapterForm(out.path(), form, typ, c.Bool("fuse-qkv"), a, b, m); err != nil {
		return out.explain(err)
	}
	if err := out.finish(); err != nil {
		return err
	}
	say("wrote %s: %d modules, %s parameters", out.name, len(a.Pairs), count(int64(a.Parameters())))
	if len(lost) > 0 {
		worst := slices.MaxFunc(lost, func(x, y adapters.ModuleReport) int { return cmp.Compare(x.Residual, y.Residual) })
		say("approximated %d modules; of their changes up to %s is lost, the most in %s", len(lost), percent(worst.Residual), worst.Module)
	}
	if c.Bool("report") {
		printModules(lost)
	}
	return nil
}

// writeAdapterForm writes an adapter and reads it again.
func writeAdapterForm(path, form, typ string, fuse bool, a *adapters.Adapter, b adapters.Base, m *checkpoint.Checkpoint) error {
	var err error
	limit := 1e-5 // of scales that are multiplied in
	switch form {
	case formPEFT:
		err = adapters.WritePEFT(path, a)
	case formGGUF:
		if typ != "F32" {
			limit = 0.05
		}
		var names adapters.GGUFNames
		if names, err = checkpoint.GGUFNames(m.Config()); err == nil {
			names.FuseQKV = fuse
			err = adapters.WriteGGUF(path, a, b, names, typ)
		}
	case formMLX:
		err = adapters.WriteMLX(path, a, b)
	case formONNX:
		return writeONNXAdapter(path, a, m, b)
	}
	if err != nil {
		return err
	}
	back, err := checkpoint.OpenAdapter(path, m.Config())
	if err != nil {
		return fmt.Errorf("reading again what was written: %w", err)
	}
	one, err := a.Resolve(b)
	if err != nil {
		return err
	}
	two, err := back.Resolve(b)
	if err != nil {
		return fmt.Errorf("reading again what was written: %w", err)
	}
	if d, where := adapters.Distance(one, two); !(d <= limit) {
		return fmt.Errorf("what was written does something else: relative error %.3g in %s, more than %.3g", d, where, limit)
	}
	return nil
}

// foldRows makes pairs of an adapter's replaced rows. On a model whose head shares its table the rows are
// one change of both, and stay so.
func foldRows(a *adapters.Adapter, b adapters.Base, m *checkpoint.Checkpoint) (*adapters.Adapter, error) {
	if len(a.Rows) == 0 {
		return a, nil
	}
	folded, err := a.FoldRows(b, m.Rows)
	if err == nil && b.Tied && a.TokenRows(b.Head) == nil && a.Pair(b.Table) == nil && a.Pair(b.Head) == nil {
		folded.Config.TieWeights = true
	}
	return folded, err
}

// slotsOf returns the slots that a bundle of a model can have.
func slotsOf(c *model.Config) ([]onnx.Slot, error) {
	config, err := c.JSON(nil)
	if err != nil {
		return nil, err
	}
	return onnx.SlotsOf(config)
}

// writeONNXAdapter writes an adapter as the file that a bundle made of its base takes.
func writeONNXAdapter(path string, a *adapters.Adapter, m *checkpoint.Checkpoint, b adapters.Base) error {
	slots, err := slotsOf(m.Config())
	if err != nil {
		return err
	}
	if a, err = a.Resolve(b); err != nil {
		return err
	}
	gains, err := a.Gains(b, m.Rows)
	if err != nil {
		return err
	}
	names := map[string]adapters.ONNXSlot{}
	for _, s := range slots {
		names[s.Module] = adapters.ONNXSlot{A: s.A, B: s.B, Gain: s.Gain}
	}
	tensors, err := a.ONNXTensors(func(module string) (adapters.ONNXSlot, bool) {
		s, ok := names[module]
		return s, ok
	}, gains)
	if err != nil {
		return err
	}
	if err := adapters.WriteONNX(path, tensors); err != nil {
		return err
	}
	back, err := adapters.ReadONNX(path)
	if err == nil && !slices.EqualFunc(tensors, back, func(x, y adapters.Tensor) bool {
		return x.Name == y.Name && slices.Equal(x.Shape, y.Shape) && slices.Equal(x.Data, y.Data)
	}) {
		err = fmt.Errorf("what was written reads back otherwise")
	}
	return err
}
