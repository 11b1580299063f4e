package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// pieceValues is how many values WriteFloat32 encodes at a time.
const pieceValues = 1 << 18

// WriteFloat32 writes a file of float32 tensors that are in memory: values has those of each spec,
// in row-major order. They are encoded a megabyte at a time, so that no tensor is copied whole. Like
// every file of this package it appears whole or not at all. It fails with ErrLayout where a spec is
// of another type or has another number of values.
func WriteFloat32(path string, specs []Spec, values [][]float32, metadata map[string]string) error {
	if len(specs) != len(values) {
		return fmt.Errorf("safetensors: writing %q: %w: %d tensors with the values of %d", path, ErrLayout, len(specs), len(values))
	}
	layout, err := Plan(specs, metadata)
	if err != nil {
		return err
	}
	for i, s := range specs {
		n := 1
		for _, d := range s.Shape {
			n *= d
		}
		if s.DType != F32 || n != len(values[i]) {
			return fmt.Errorf("safetensors: writing %q: %w: tensor %q is %s of shape %v and gets %d float32 values", path, ErrLayout, s.Name, s.DType, s.Shape, len(values[i]))
		}
	}
	w, err := Create(path, layout)
	if err != nil {
		return err
	}
	defer w.Close()
	var raw []byte
	for i, v := range values {
		at := int64(0)
		for piece := range slices.Chunk(v, pieceValues) {
			raw = slices.Grow(raw[:0], 4*len(piece))[:4*len(piece)]
			for k, x := range piece {
				binary.LittleEndian.PutUint32(raw[4*k:], math.Float32bits(x))
			}
			if err := w.WriteAt(specs[i].Name, raw, at); err != nil {
				return err
			}
			at += int64(len(raw))
		}
	}
	return w.Commit()
}
