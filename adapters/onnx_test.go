package adapters

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/graftml/graft/internal/testfile"
)

// TestReadONNX reads a file that ONNX Runtime wrote.
func TestReadONNX(t *testing.T) {
	tensors, err := ReadONNX(filepath.Join(golden, "ort.onnx_adapter"))
	if err != nil {
		t.Fatal(err)
	}
	type value struct {
		Shape []int     `json:"shape"`
		Data  []float32 `json:"data"`
	}
	var want map[string]value
	testfile.ReadJSON(t, filepath.Join(golden, "ort.json"), &want)
	got := map[string]value{}
	for _, ts := range tensors {
		got[ts.Name] = value{ts.Shape, ts.Data}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestWriteONNX pins the bytes. Files of the same form were loaded by onnxruntime 1.32.
func TestWriteONNX(t *testing.T) {
	tensors := []Tensor{{"x.A", []int{2, 1}, []float32{1, -2}}, {"x.B", []int{1, 3}, []float32{0.5, 0, 4}}, {"none", []int{4, 0}, nil}}
	path := filepath.Join(t.TempDir(), "a.onnx_adapter")
	if err := WriteONNX(path, tensors); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if got, want := hex.EncodeToString(sum[:]), "2296f1a6e9113e882e2433c46ea2cb6f919755747c513f1d8b2e3d814ae64650"; got != want {
		t.Errorf("%d bytes with hash %s, want %s", len(data), got, want)
	}
	got, err := ReadONNX(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(tensors, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-written +read):\n%s", d)
	}
}

func TestONNXTensors(t *testing.T) {
	a := random(8, "m.q")
	tensors, err := a.ONNXTensors(func(m string) (ONNXSlot, bool) { return ONNXSlot{A: m + ".A", B: m + ".B"}, true }, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &a.Pairs[0]
	want := delta(p)
	ta, tb := tensors[0], tensors[1]
	if !slices.Equal(ta.Shape, []int{p.In, p.R}) || !slices.Equal(tb.Shape, []int{p.R, p.Out}) || ta.Name != "m.q.A" || tb.Name != "m.q.B" {
		t.Fatalf("%v %v %v %v", ta.Name, ta.Shape, tb.Name, tb.Shape)
	}
	// x·A·B for x the unit vector i is column i of the change.
	for i := range p.In {
		for o := range p.Out {
			sum := 0.0
			for k := range p.R {
				sum += float64(ta.Data[i*p.R+k]) * float64(tb.Data[k*p.Out+o])
			}
			if d := sum - want[o*p.In+i]; d > 1e-5 || d < -1e-5 {
				t.Fatalf("input %d output %d: %v, want %v", i, o, sum, want[o*p.In+i])
			}
		}
	}
	_, err = a.ONNXTensors(func(string) (ONNXSlot, bool) { return ONNXSlot{}, false }, nil)
	if !errors.Is(err, ErrMismatch) {
		t.Errorf("no slot: error %v", err)
	}
}

func TestMalformedONNX(t *testing.T) {
	good, err := EncodeONNX([]Tensor{{"x", []int{2, 2}, []float32{1, 2, 3, 4}}, {"y", []int{1}, []float32{5}}})
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		class  error
	}{
		{"empty", func(b []byte) []byte { return nil }, ErrFormat},
		{"identifier", func(b []byte) []byte { b[4] = 'X'; return b }, ErrFormat},
		{"root outside", func(b []byte) []byte { le.PutUint32(b, 1<<31); return b }, ErrFormat},
		{"vtable outside", func(b []byte) []byte { le.PutUint32(b[20:], 1<<30); return b }, ErrFormat},
		{"vtable length", func(b []byte) []byte { le.PutUint16(b[8:], 3); return b }, ErrFormat},
		{"field outside its table", func(b []byte) []byte { le.PutUint16(b[12:], 200); return b }, ErrFormat},
		{"version", func(b []byte) []byte { le.PutUint32(b[24:], 2); return b }, ErrUnsupported},
		{"number of parameters", func(b []byte) []byte { le.PutUint32(b[40:], 1<<30); return b }, ErrFormat},
		{"the same twice", func(b []byte) []byte { le.PutUint32(b[48:], le.Uint32(b[44:])-4); return b }, ErrFormat},
		{"type", func(b []byte) []byte { le.PutUint32(b[52+12:], 10); return b }, ErrUnsupported},
	} {
		if _, err := DecodeONNX(c.change(slices.Clone(good))); !errors.Is(err, c.class) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.class)
		}
	}
	for n := range len(good) - 4 { // the last bytes may be padding
		if _, err := DecodeONNX(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a file", n, len(good))
		}
	}
	for _, ts := range []Tensor{{"", []int{1}, []float32{1}}, {"x", []int{2}, []float32{1}}, {"x", []int{-1}, nil}, {"x", []int{1 << 20, 1 << 20}, nil}, {"x", make([]int, 9), nil}} {
		if _, err := EncodeONNX([]Tensor{ts}); !errors.Is(err, ErrFormat) {
			t.Errorf("%v: error %v", ts, err)
		}
	}
}

func FuzzDecodeONNX(f *testing.F) {
	for _, tensors := range [][]Tensor{nil, {{"x", []int{2, 1}, []float32{1, 2}}}, {{"x", []int{4, 0}, nil}, {"long name", []int{3}, []float32{1, 2, 3}}}} {
		data, err := EncodeONNX(tensors)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	ort, err := os.ReadFile(filepath.Join(golden, "ort.onnx_adapter"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ort)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeONNX(data)
		if err != nil {
			return
		}
		again, err := EncodeONNX(a)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		b, err := DecodeONNX(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if d := cmp.Diff(a, b, cmpopts.EquateEmpty(), cmpopts.EquateNaNs()); d != "" {
			t.Fatal(d)
		}
	})
}
