package safetensors

import (
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"testing"
)

func TestWriteFloat32(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	long := make([]float32, 2*pieceValues+3) // three pieces
	for i := range long {
		long[i] = float32(i) / 7
	}
	specs := []Spec{{Name: "long", DType: F32, Shape: []int{len(long)}}, {Name: "square", DType: F32, Shape: []int{2, 2}}}
	values := [][]float32{long, {1, -2, float32(math.Inf(1)), 0}}
	if err := WriteFloat32(path, specs, values, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, s := range specs {
		tensor, ok := f.Tensor(s.Name)
		raw := make([]byte, tensor.Size())
		if !ok || len(raw) != 4*len(values[i]) {
			t.Fatalf("%s: %d bytes, there %v", s.Name, len(raw), ok)
		}
		if err := f.ReadAt(tensor, raw, 0); err != nil {
			t.Fatal(err)
		}
		for k, want := range values[i] {
			if got := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*k:])); got != want {
				t.Fatalf("%s[%d] is %v, want %v", s.Name, k, got, want)
			}
		}
	}
	for _, wrong := range []struct {
		specs  []Spec
		values [][]float32
	}{{specs, values[:1]}, {specs[1:], [][]float32{{1}}}, {[]Spec{{Name: "x", DType: F16, Shape: []int{1}}}, [][]float32{{1}}}} {
		if err := WriteFloat32(path+"2", wrong.specs, wrong.values, nil); !errors.Is(err, ErrLayout) {
			t.Errorf("%v: %v, want ErrLayout", wrong.specs, err)
		}
	}
}
