package train

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/graftml/graft/safetensors"
)

// This file moves float32 tensors between memory and disk a piece at a time: a copy of a large one
// would show in a run's peak memory.

// pieceValues is how many values are read at a time.
const pieceValues = 1 << 18

// tensorFile is a file of vectors to be written.
type tensorFile struct {
	specs  []safetensors.Spec
	values [][]float32 // of each spec
}

func (f *tensorFile) add(name string, v []float32) {
	f.specs = append(f.specs, safetensors.Spec{Name: name, DType: safetensors.F32, Shape: []int{len(v)}})
	f.values = append(f.values, v)
}

// write makes the file, which appears whole or not at all.
func (f *tensorFile) write(path string, meta map[string]string) error {
	return safetensors.WriteFloat32(path, f.specs, f.values, meta)
}

// tensorReader reads vectors, with one buffer for all of them.
type tensorReader struct {
	*safetensors.File
	raw []byte
}

// find returns a vector of n values.
func (f *tensorReader) find(name string, n int) (safetensors.Tensor, error) {
	t, ok := f.Tensor(name)
	if !ok || t.DType != safetensors.F32 || t.Size() != int64(4*n) {
		return t, fmt.Errorf("tensor %q is missing or has another size", name)
	}
	return t, nil
}

// read fills dst.
func (f *tensorReader) read(name string, dst []float32) error {
	t, err := f.find(name, len(dst))
	if err != nil {
		return err
	}
	if f.raw == nil {
		f.raw = make([]byte, 4*pieceValues)
	}
	for lo := 0; lo < len(dst); lo += pieceValues {
		piece := dst[lo:min(lo+pieceValues, len(dst))]
		if err := f.ReadAt(t, f.raw[:4*len(piece)], 4*int64(lo)); err != nil {
			return err
		}
		for i := range piece {
			piece[i] = math.Float32frombits(binary.LittleEndian.Uint32(f.raw[4*i:]))
		}
	}
	return nil
}
