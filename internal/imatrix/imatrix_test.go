package imatrix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/testfile"
)

const golden = "../../testdata/golden/imatrix"

// TestRead: both forms give the means that llama-quantize makes of them.
func TestRead(t *testing.T) {
	var want map[string]map[string][]float32
	testfile.ReadJSON(t, filepath.Join(golden, "want.json"), &want)
	if len(want) != 2 {
		t.Fatalf("%d files", len(want))
	}
	for file, entries := range want {
		path := filepath.Join(golden, file)
		if is, err := IsFile(path); !is || err != nil {
			t.Errorf("%s is recognized: %v, %v", file, is, err)
		}
		m, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Entries) != len(entries) || len(entries) == 0 {
			t.Errorf("%s has %d entries, want %d", file, len(m.Entries), len(entries))
		}
		for name, mean := range entries {
			if got := m.Entries[name].Mean; !slices.Equal(got, mean) {
				t.Errorf("%s: %q has the means %v, want %v", file, name, got, mean)
			}
		}
	}
	m, err := Read(filepath.Join(golden, "experts.gguf"))
	if err != nil || m.Chunks != 5 || m.ChunkSize != 512 || !slices.Equal(m.Datasets, []string{"a.txt", "b.txt"}) {
		t.Errorf("%d chunks of %d from %q, %v", m.Chunks, m.ChunkSize, m.Datasets, err)
	}
	if m, err = Read(filepath.Join(golden, "legacy.dat")); err != nil || m.Chunks != 9 || !slices.Equal(m.Datasets, []string{"c.txt"}) {
		t.Errorf("%d chunks from %q, %v", m.Chunks, m.Datasets, err)
	}
}

func TestRecognize(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "GG": false, "GGUF": true, "Once upon a time": false, "\xef\xbb\xbfBOM": false, "\n\n\n\n\n\n\n\n\n\n": false,
		"\x02\x00\x00\x00\x05\x00\x00\x00abcde": true, "\x00\x00\x00\x00\x05\x00\x00\x00abcde": false,
	} {
		if got := Recognize([]byte(text)); got != want {
			t.Errorf("%q is an importance matrix: %v", text, got)
		}
	}
	if _, err := IsFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func example() *Matrix {
	return &Matrix{Datasets: []string{"text"}, Chunks: 2, ChunkSize: 8, Entries: map[string]Entry{
		"blk.1.ffn_up.weight": {Sums: []float32{16, 8}, Count: 16, Mean: []float32{1, 0.5}},
		"blk.0.ffn_up.weight": {Sums: []float32{32, 0}, Count: 16, Mean: []float32{2, 0}},
	}}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "im.gguf")
	want := example()
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Chunks != 2 || got.ChunkSize != 8 || !slices.Equal(got.Datasets, want.Datasets) || !slices.Equal(slices.Sorted(maps.Keys(got.Entries)), slices.Sorted(maps.Keys(want.Entries))) {
		t.Errorf("read back %+v", got)
	}
	for name, e := range want.Entries {
		if g := got.Entries[name]; !slices.Equal(g.Mean, e.Mean) || !slices.Equal(g.Sums, e.Sums) || g.Count != e.Count {
			t.Errorf("%q is %v, want %v", name, g, e)
		}
	}
}

// le puts numbers one after the other as a file has them.
func le(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		case float64:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(p)))
		case string:
			b = append(b, p...)
		}
	}
	return b
}

// file is a GGUF file of float32 tensors with the first of an importance matrix's three keys.
func file(t *testing.T, keys int, tensors map[string][]float32) []byte {
	t.Helper()
	kvs := []gguf.KV{gguf.Entry(keyDatasets, []string{"x"}), gguf.Entry(keyChunks, uint32(1)), gguf.Entry(keyChunkSize, uint32(1))}
	var list []gguf.TensorData
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		x := tensors[name]
		spec := gguf.Spec{Name: name, Dims: []int64{int64(len(x))}, Type: gguf.F32}
		data := make([]byte, 0, 4*len(x))
		for _, v := range x {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		list = append(list, gguf.TensorData{Spec: spec, Data: data})
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := gguf.Write(path, kvs[:keys], list); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHostile(t *testing.T) {
	nan := float32(math.NaN())
	for what, c := range map[string]struct {
		data []byte
		want string // in the error
	}{
		"nothing":             {nil, "neither GGUF"},
		"a text":              {[]byte("It was a dark and stormy night."), "neither GGUF"},
		"no entries":          {le(0), "neither GGUF"},
		"many entries":        {le(1 << 30), "neither GGUF"},
		"a long name":         {le(1, 1<<30, "x"), "has a length of"},
		"a cut name":          {le(1, 9, "blk"), "claims 0 values"},
		"many values":         {le(1, 3, "blk", 1, 1<<30, 1.0), "claims 1073741824 values"},
		"negative values":     {le(1, 3, "blk", 1, -1), "claims -1 values"},
		"cut values":          {le(1, 3, "blk", 1, 2, 1.0), "claims 2 values"},
		"one entry too few":   {le(2, 3, "blk", 1, 1, 1.0), "has a length of 0"},
		"an entry twice":      {le(2, 3, "blk", 1, 1, 1.0, 3, "blk", 1, 1, 1.0), `two entries "blk"`},
		"a negative square":   {le(1, 3, "blk", 1, 1, -1.0), `entry "blk": the mean square of column 0 is -1`},
		"NaN":                 {le(1, 3, "blk", 1, 2, 1.0, math.NaN()), "column 1 is NaN"},
		"a cut end":           {le(1, 3, "blk", 1, 1, 1.0, 5, 100, "text"), "within an entry"},
		"cut GGUF":            {[]byte("GGUF\x03"), "malformed GGUF"},
		"a model":             {file(t, 0, map[string][]float32{"token_embd.weight": {1}}), "something else"},
		"no entry in GGUF":    {file(t, 3, map[string][]float32{"x": {1}}), "no entry"},
		"sums without counts": {file(t, 3, map[string][]float32{"x.in_sum2": {1}}), `no "x.counts"`},
		"counts without sums": {file(t, 3, map[string][]float32{"x.counts": {1}}), `no "x.in_sum2"`},
		"too many counts":     {file(t, 3, map[string][]float32{"x.counts": {1, 2}, "x.in_sum2": {1}}), "1 values for 2 counts"},
		"NaN in GGUF":         {file(t, 3, map[string][]float32{"x.counts": {1}, "x.in_sum2": {nan}}), "is NaN"},
	} {
		_, err := Parse(c.data)
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
}

// FuzzParse: what is read can be written, and is then the same.
func FuzzParse(f *testing.F) {
	testfile.AddSeeds(f, golden+"/*.gguf", golden+"/*.dat")
	f.Add(le(1, 3, "blk", 1, 2, 1.0, 2.0))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v of no class", err)
			}
			return
		}
		path := filepath.Join(t.TempDir(), "im.gguf")
		if err := m.Write(path); err != nil {
			if errors.Is(err, gguf.ErrLayout) {
				return // a name that GGUF cannot hold
			}
			t.Fatal(err)
		}
		again, err := Read(path)
		if err != nil {
			if errors.Is(err, ErrFormat) && len(m.Entries) > 0 {
				return // names that end as the tensors' do, or a mean past the largest float32
			}
			t.Fatal(err)
		}
		for name, e := range m.Entries {
			if !bytes.Equal(floatBytes(e.Sums), floatBytes(again.Entries[name].Sums)) {
				t.Errorf("%q is %v, was %v", name, again.Entries[name].Sums, e.Sums)
			}
		}
	})
}

func floatBytes(x []float32) []byte {
	var b []byte
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}
