package gguf

// Byte identity with gguf-py, and ggml's table of types: testdata/golden/gguf.

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/internal/testfile"
)

const golden = "../testdata/golden/gguf"

type goldenFile struct {
	Alignment int64
	Tensors   []struct {
		Name, Type, Data string
		Dims             []int64
	}
	KVs []struct {
		Key, Type, Elem string
		Value           json.RawMessage
	}
}

func goldenFiles(t *testing.T) map[string]goldenFile {
	files := map[string]goldenFile{}
	testfile.ReadJSON(t, filepath.Join(golden, "files.json"), &files)
	if len(files) < 5 {
		t.Fatalf("%d golden files", len(files))
	}
	return files
}

// decodeAs decodes a JSON value as a T, or as a []T.
func decodeAs[T Scalar](t *testing.T, array bool, text json.RawMessage) any {
	t.Helper()
	if array {
		var v []int64
		var slice []T
		// encoding/json takes []uint8 for base64.
		if _, bytes := any(slice).([]uint8); bytes {
			if err := json.Unmarshal(text, &v); err != nil {
				t.Fatal(err)
			}
			b := []uint8{}
			for _, x := range v {
				b = append(b, uint8(x))
			}
			return b
		}
		if err := json.Unmarshal(text, &slice); err != nil {
			t.Fatal(err)
		}
		return slice
	}
	var v T
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// kvs returns the golden file's entries as the package's.
func (g goldenFile) kvs(t *testing.T) []KV {
	t.Helper()
	decoders := map[string]func(*testing.T, bool, json.RawMessage) any{
		"UINT8": decodeAs[uint8], "INT8": decodeAs[int8], "UINT16": decodeAs[uint16], "INT16": decodeAs[int16],
		"UINT32": decodeAs[uint32], "INT32": decodeAs[int32], "UINT64": decodeAs[uint64], "INT64": decodeAs[int64],
		"FLOAT32": decodeAs[float32], "FLOAT64": decodeAs[float64], "BOOL": decodeAs[bool], "STRING": decodeAs[string],
	}
	var kvs []KV
	for _, w := range g.KVs {
		v := decoders[w.Elem](t, w.Type == "ARRAY", w.Value)
		valueType, _, _ := typeOf(v)
		if got := strings.ToUpper(valueType.String()); got != w.Type {
			t.Fatalf("%q: %s, want %s", w.Key, got, w.Type)
		}
		kvs = append(kvs, KV{w.Key, valueType, v})
	}
	return kvs
}

func decodeHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadGolden(t *testing.T) {
	for name, want := range goldenFiles(t) {
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join(golden, name+".gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if diff := cmp.Diff(want.kvs(t), f.KVs()); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			version := 3
			if name == "version2" {
				version = 2
			}
			if f.Version() != version || f.Alignment() != want.Alignment {
				t.Errorf("version %d, alignment %d", f.Version(), f.Alignment())
			}
			if len(f.Tensors()) != len(want.Tensors) {
				t.Fatalf("%d tensors, want %d", len(f.Tensors()), len(want.Tensors))
			}
			for i, w := range want.Tensors {
				got := f.Tensors()[i]
				if got.Name != w.Name || got.Type.String() != w.Type || !cmp.Equal(got.Dims, w.Dims) {
					t.Errorf("tensor %d: %v, want %q %s %v", i, got, w.Name, w.Type, w.Dims)
				}
				data := make([]byte, got.Size)
				if err := f.ReadAt(got, data, 0); err != nil || !bytes.Equal(data, decodeHex(t, w.Data)) {
					t.Errorf("tensor %q: data %x, %v", w.Name, data, err)
				}
			}
		})
	}
}

func TestWriteGolden(t *testing.T) {
	for name, file := range goldenFiles(t) {
		t.Run(name, func(t *testing.T) {
			var tensors []TensorData
			for _, w := range file.Tensors {
				typ, err := ParseType(w.Type)
				if err != nil {
					t.Fatal(err)
				}
				tensors = append(tensors, TensorData{Spec{w.Name, w.Dims, typ}, decodeHex(t, w.Data)})
			}
			path := filepath.Join(t.TempDir(), "out.gguf")
			if err := Write(path, file.kvs(t), tensors); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(golden, name+".gguf"))
			if err != nil {
				t.Fatal(err)
			}
			if name == "version2" {
				want[len(magic)] = versionWritten // we write version 3 only; nothing else differs
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes, want %d:\n%.600q\n%.600q", len(got), len(want), got, want)
			}
		})
	}
}

func TestTypes(t *testing.T) {
	var rows [][4]any // number, name, elements, bytes
	testfile.ReadJSON(t, filepath.Join(golden, "types.json"), &rows)
	for _, row := range rows {
		number, name := Type(row[0].(float64)), row[1].(string)
		elems, size := number.Block()
		if number.String() != name || float64(elems) != row[2] || float64(size) != row[3] {
			t.Errorf("type %d: %s, block (%d, %d), want %v", uint32(number), number, elems, size, row)
		}
		if got, err := ParseType(strings.ToLower(name)); got != number || err != nil {
			t.Errorf("ParseType(%q) = %v, %v", strings.ToLower(name), got, err)
		}
	}
	if len(rows) != len(types) {
		t.Errorf("%d types, ggml has %d", len(types), len(rows))
	}
	if _, err := ParseType("Q4_4"); err == nil {
		t.Error("an unknown name was parsed")
	}
}

// BenchmarkOpen opens a model with a vocabulary of 256,000 pieces, as Gemma's.
func BenchmarkOpen(b *testing.B) {
	vocabulary, scores := make([]string, 256_000), make([]float32, 256_000)
	for i := range vocabulary {
		vocabulary[i] = strings.Repeat("x", 1+i%12)
	}
	l, err := Plan([]KV{Entry("tokens", vocabulary), Entry("scores", scores)}, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(l.Size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewFile(bytes.NewReader(l.Header), l.Size); err != nil {
			b.Fatal(err)
		}
	}
}
