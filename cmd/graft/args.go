package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/onnx"
	"github.com/graftml/graft/train"
)

// Flags that several commands have.
func outFlag(what string) cli.Flag {
	return &cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "where to write " + what, Required: true}
}

func forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "replace what an earlier run left there, once the new output is whole"}
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func adapterFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "adapter", Usage: "adapter `PATH[:scale]`, several add up; of a bundle one by name, or none"}
}

func ortFlag() cli.Flag {
	return &cli.StringFlag{Name: "ort-lib", Usage: "ONNX Runtime's shared library (`FILE`); else GRAFT_ORT_LIB, ./quickstart/lib, the system's"}
}

func maxKLFlag(usage string) cli.Flag {
	return &cli.FloatFlag{Name: "max-kl", Usage: usage, HideDefault: true, Validator: func(v float64) error {
		if !(v >= 0) {
			return errors.New("want a number of nats, 0 or more")
		}
		return nil
	}}
}

func memoryFlag() cli.Flag {
	return &cli.StringFlag{Name: "memory", Usage: "fit training in `SIZE`, such as 900MB: computes as many blocks again as that takes"}
}

// atLeast is the validator of a number.
func atLeast(least int) func(int) error {
	return func(v int) error {
		if v < least {
			return fmt.Errorf("want %d or more", least)
		}
		return nil
	}
}

// isBundle reports whether a path is an ONNX bundle.
func isBundle(path string) bool {
	return onnx.IsBundle(path)
}

// openCheckpoint opens a model that is not a bundle.
func openCheckpoint(path string) (*checkpoint.Checkpoint, error) {
	if isBundle(path) {
		return nil, fmt.Errorf("%q is an ONNX bundle; this command wants the GGUF file or the folder it was made from", path)
	}
	return checkpoint.Open(path)
}

// adapterPath cuts "PATH:scale" in two; a path that exists as it stands has no scale.
func adapterPath(arg string) (path string, scale float64, err error) {
	if _, err := os.Stat(arg); err == nil {
		return arg, 1, nil
	}
	i := strings.LastIndexByte(arg, ':')
	if i < 0 {
		return arg, 1, nil
	}
	scale, err = strconv.ParseFloat(arg[i+1:], 64)
	if err != nil || scale-scale != 0 {
		if _, err := os.Stat(arg[:i]); err == nil {
			return "", 0, usagef("adapter %q: the scale %q is not a finite number", arg, arg[i+1:])
		}
		return arg, 1, nil // a colon in a name: opening it says what is wrong
	}
	if arg[:i] == "" {
		return "", 0, usagef("adapter %q has no path before the scale", arg)
	}
	return arg[:i], scale, nil
}

// paths returns the paths of adapter arguments.
func paths(args []string) []string {
	var out []string
	for _, arg := range args {
		if path, _, err := adapterPath(arg); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// readAdapter reads an adapter in any form for a model.
func readAdapter(path string, c *model.Config) (*adapters.Adapter, error) {
	if filepath.Ext(path) == ".onnx_adapter" {
		return openONNXAdapter(path, c)
	}
	return checkpoint.OpenAdapter(path, c)
}

// openAdapter opens an adapter argument and checks it against the model it is for.
func openAdapter(arg string, c *model.Config) (*adapters.Adapter, error) {
	path, scale, err := adapterPath(arg)
	if err != nil {
		return nil, err
	}
	a, err := readAdapter(path, c)
	if err != nil {
		return nil, err
	}
	b, err := checkpoint.Base(c)
	if err != nil {
		return nil, err
	}
	if _, err := a.Resolve(b); err != nil {
		return nil, err
	}
	if scale != 1 {
		a = a.Scaled(scale)
	}
	return a, nil
}

// warned holds the warnings given: a command may open an adapter several times, to use it and to check
// what it did.
var warned sync.Map

// openAdapterOn is openAdapter on a base that is open, with a warning where the adapter was trained on
// another.
func openAdapterOn(arg string, m *checkpoint.Checkpoint) (*adapters.Adapter, error) {
	a, err := openAdapter(arg, m.Config())
	if err != nil {
		return nil, err
	}
	path, _, err := adapterPath(arg)
	if err != nil {
		return nil, err
	}
	warning, err := m.SameBase(path, a)
	if err != nil {
		return nil, err
	}
	if _, again := warned.LoadOrStore(warning, true); !again && warning != "" {
		say("warning: %s", warning)
	}
	return a, nil
}

// openONNXAdapter reads an .onnx_adapter file for a model that it was exported for.
func openONNXAdapter(path string, c *model.Config) (*adapters.Adapter, error) {
	tensors, err := adapters.ReadONNX(path)
	if err != nil {
		return nil, err
	}
	slots, err := slotsOf(c)
	if err != nil {
		return nil, err
	}
	return onnx.FromTensors(strings.TrimSuffix(filepath.Base(path), ".onnx_adapter"), tensors, slots)
}

// formOf decides what an output is to be: what --to says, else what its name looks like.
func formOf(c *cli.Command, out string) (string, error) {
	switch to := c.String("to"); to {
	case "gguf", "safetensors", "onnx":
		return to, nil
	case "":
	default:
		return "", usagef("--to %q: choose gguf, safetensors or onnx", to)
	}
	switch filepath.Ext(out) {
	case ".gguf":
		return "gguf", nil
	case ".onnx":
		return "", usagef("an ONNX model is a folder; give -o a folder and --to onnx")
	case ".safetensors":
		return "", usagef("a safetensors model is a folder; give -o a folder")
	}
	return "safetensors", nil
}

// parseSize reads "5GB", "500MB" or a number of bytes, and "5G" and "500M" as gguf-split has them.
func parseSize(s string) (int64, error) {
	if strings.HasSuffix(s, "M") || strings.HasSuffix(s, "G") {
		s += "B"
	}
	n, err := train.ParseSize(s)
	if err != nil {
		return 0, usagef("%v", err)
	}
	return n, nil
}

// notFound adds a hint to an error about a missing file.
func notFound(err error, hint string) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}
