package checkpoint

import (
	"context"
	"fmt"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// WriteDelta writes what a merge adds to each parameter that it changes, as float32 under the parameter's
// name, into the safetensors file at path, whole or not at all. It returns how many there are; progress,
// unless nil, is told the bytes done. Merged is what [Merge] returned for base.
func WriteDelta(ctx context.Context, base, merged *Checkpoint, path string, progress func(done, total int64)) (int, error) {
	n, err := writeDelta(ctx, base, merged, path, progress)
	if err != nil {
		return 0, fmt.Errorf("checkpoint: writing the change to %q: %w", path, err)
	}
	return n, nil
}

func writeDelta(ctx context.Context, base, changed *Checkpoint, path string, progress func(done, total int64)) (int, error) {
	m, ok := changed.Source.(*merged)
	if !ok {
		return 0, fmt.Errorf("the model is not merged with anything")
	}
	var specs []safetensors.Spec
	for _, t := range m.tensors {
		if m.delta.Changes(t.Name) {
			specs = append(specs, safetensors.Spec{Name: t.Name, DType: safetensors.F32, Shape: t.Shape})
		}
	}
	l, err := safetensors.Plan(specs, map[string]string{"format": "pt"})
	if err != nil {
		return 0, err
	}
	w, err := safetensors.Create(path, l)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	codec, err := quantize.LookupEncoder("F32")
	if err != nil {
		return 0, err
	}
	var total, done int64
	for _, t := range specs {
		total += 4 * int64((model.Param{Shape: t.Shape}).Elements())
	}
	var is, was []float32
	var raw []byte
	for _, t := range specs {
		rows, cols := t.Shape[0], (model.Param{Shape: t.Shape}).Elements()/t.Shape[0]
		step := max(1, roundedChunk/cols)
		for lo := 0; lo < rows; lo += step {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			hi := min(lo+step, rows)
			n := (hi - lo) * cols
			is, was, raw = sized(is, n), sized(was, n), sized(raw, 4*n)
			if err := changed.Rows(t.Name, lo, hi, is); err != nil {
				return 0, err
			}
			if err := base.Rows(m.stored(t.Name), lo, hi, was); err != nil {
				return 0, err
			}
			for i := range is {
				is[i] -= was[i]
			}
			codec.Encode(raw, is)
			if err := w.WriteAt(t.Name, raw, 4*int64(lo)*int64(cols)); err != nil {
				return 0, err
			}
			if done += int64(len(raw)); progress != nil {
				progress(done, total)
			}
		}
	}
	return len(specs), w.Commit()
}

// sized returns a slice of n values, x where it is large enough.
func sized[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}
