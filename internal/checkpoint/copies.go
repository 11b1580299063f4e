package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// PEFT saves a table or head that has a pair beside the pair, as the base has it, and puts it in the
// place of the base's when it loads the adapter.
const (
	copyPrefix = "base_model.model."
	copySuffix = ".base_layer.weight"
	// maxCopyError is how far a copy may be from the model's, relative to the size of both: that of BF16.
	maxCopyError = 5e-3
)

// otherCopy returns the weight of which an adapter's folder holds a copy that is not the model's, and how
// far it is, relative to the model's; "" where there is none. What the model holds quantized is not compared.
func (c *Checkpoint) otherCopy(dir string) (weight string, distance float64, err error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	f, err := safetensors.Open(filepath.Join(dir, "adapter_model.safetensors"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	base, err := Base(c.Config())
	if err != nil {
		return "", 0, err
	}
	own := map[string]Tensor{}
	for _, t := range c.Tensors() {
		own[t.Name] = t
	}
	for _, t := range f.Tensors() {
		module, ok := strings.CutSuffix(strings.TrimPrefix(t.Name, copyPrefix), copySuffix)
		if !ok {
			continue
		}
		if module == base.Head && base.Tied {
			module = base.Table
		}
		name := module + ".weight"
		switch own[name].Codec {
		case "F32", "F16", "BF16":
		default:
			continue
		}
		if !slices.Equal(own[name].Shape, t.Shape) { // then the pair does not fit either
			continue
		}
		if distance, err := c.distance(f, t, name); err != nil || distance > maxCopyError {
			return name, distance, err
		}
	}
	return "", 0, nil
}

// distance is the length of the difference of a tensor in a file and a weight, over that of the weight.
func (c *Checkpoint) distance(f *safetensors.File, t safetensors.Tensor, weight string) (float64, error) {
	codec, err := quantize.Lookup(string(t.DType))
	if err != nil || len(t.Shape) != 2 {
		return 0, nil // reading the adapter says what is wrong
	}
	rows, cols := t.Shape[0], t.Shape[1]
	step := max(1, (1<<18)/cols)
	raw := make([]byte, t.Size()/int64(rows)*int64(min(step, rows)))
	theirs, own := make([]float32, min(step, rows)*cols), make([]float32, min(step, rows)*cols)
	var difference, size float64
	for lo := 0; lo < rows; lo += step {
		n := min(step, rows-lo)
		part := raw[:len(raw)/min(step, rows)*n]
		if err := f.ReadAt(t, part, int64(lo)*int64(len(part)/n)); err != nil {
			return 0, err
		}
		codec.Decode(theirs[:n*cols], part)
		if err := c.Rows(weight, lo, lo+n, own[:n*cols]); err != nil {
			return 0, fmt.Errorf("checkpoint: comparing %q: %w", weight, err)
		}
		for i, v := range own[:n*cols] {
			d := float64(theirs[i]) - float64(v)
			difference += d * d
			size += float64(v) * float64(v)
		}
	}
	if difference == 0 {
		return 0, nil
	}
	return math.Sqrt(difference / size), nil
}
