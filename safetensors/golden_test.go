package safetensors

// Byte identity with the reference implementations: testdata/golden/safetensors.

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/internal/testfile"
)

const golden = "../testdata/golden/safetensors"

type goldenFile struct {
	Metadata map[string]string
	Tensors  []struct {
		Name, DType, Data string
		Shape             []int
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
			f, err := Open(filepath.Join(golden, name+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if diff := cmp.Diff(want.Metadata, f.Metadata()); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if len(f.Tensors()) != len(want.Tensors) {
				t.Errorf("%d tensors, want %d", len(f.Tensors()), len(want.Tensors))
			}
			for _, w := range want.Tensors {
				got, ok := f.Tensor(w.Name)
				if !ok || string(got.DType) != w.DType || !cmp.Equal(got.Shape, w.Shape) {
					t.Errorf("tensor %q: %v, want %s %v", w.Name, got, w.DType, w.Shape)
					continue
				}
				data := make([]byte, got.Size())
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
			for _, i := range rand.Perm(len(file.Tensors)) {
				w := file.Tensors[i]
				tensors = append(tensors, TensorData{Spec{w.Name, DType(w.DType), w.Shape}, decodeHex(t, w.Data)})
			}
			path := filepath.Join(t.TempDir(), "out.safetensors")
			if err := Write(path, tensors, file.Metadata); err != nil {
				t.Fatal(err)
			}
			equalFiles(t, path, filepath.Join(golden, name+".safetensors"))
		})
	}
}

func equalFiles(t *testing.T, got, want string) {
	t.Helper()
	g, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(g, w) {
		t.Errorf("%s differs from %s:\n%.600q\n%.600q", got, want, g, w)
	}
}

type goldenShards struct {
	Sharded struct {
		Limit   int64
		Tensors [][2]any // name, shape
	}
	Plans []struct {
		Limit int64
		Names []string
		Sizes []int
		Files map[string][]string
		Index string
	}
}

// TestShardedGolden saves the model of the golden folder again: the same shards,
// headers and index as transformers'.
func TestShardedGolden(t *testing.T) {
	var g goldenShards
	testfile.ReadJSON(t, filepath.Join(golden, "shards.json"), &g)
	dir := filepath.Join(golden, "sharded")
	set, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	var specs []Spec
	for _, row := range g.Sharded.Tensors {
		name := row[0].(string)
		shape := []int{}
		for _, d := range row[1].([]any) {
			shape = append(shape, int(d.(float64)))
		}
		got, ok := set.Tensor(name)
		if !ok || got.DType != F32 || !cmp.Equal(got.Shape, shape) {
			t.Errorf("tensor %q: %v, want F32 %v", name, got, shape)
		}
		specs = append(specs, Spec{name, F32, shape})
	}
	if len(set.Tensors()) != len(specs) {
		t.Errorf("%d tensors, want %d", len(set.Tensors()), len(specs))
	}
	plan, err := PlanShards(specs, g.Sharded.Limit, "model", set.Metadata())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	for _, shard := range plan.Files {
		w, err := Create(filepath.Join(out, shard.Name), shard.Layout)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for _, tensor := range shard.Layout.Tensors {
			data := make([]byte, tensor.Size())
			if err := set.ReadAt(tensor.Name, data, 0); err != nil {
				t.Fatal(err)
			}
			if err := w.WriteAt(tensor.Name, data, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		equalFiles(t, filepath.Join(out, shard.Name), filepath.Join(dir, shard.Name))
	}
	if got, want := len(plan.Files), len(set.Files()); got != want || got < 3 {
		t.Errorf("%d shards, want %d", got, want)
	}
	index, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(index), string(plan.Index())); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
}

// TestPlanShardsGolden compares plans with huggingface_hub's, odd names included.
func TestPlanShardsGolden(t *testing.T) {
	var g goldenShards
	testfile.ReadJSON(t, filepath.Join(golden, "shards.json"), &g)
	for _, want := range g.Plans {
		t.Run(fmt.Sprint(want.Limit), func(t *testing.T) {
			var specs []Spec
			for i, name := range want.Names {
				specs = append(specs, Spec{name, U8, []int{want.Sizes[i]}})
			}
			plan, err := PlanShards(specs, want.Limit, "model", nil)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]map[string]bool{}
			for _, shard := range plan.Files {
				got[shard.Name] = map[string]bool{}
				for _, tensor := range shard.Layout.Tensors {
					got[shard.Name][tensor.Name] = true
				}
			}
			files := map[string]map[string]bool{}
			for file, names := range want.Files {
				files[file] = map[string]bool{}
				for _, name := range names {
					files[file][name] = true
				}
			}
			if diff := cmp.Diff(files, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.Index, string(plan.Index())); diff != "" {
				t.Errorf("index (-want +got):\n%s", diff)
			}
			if plan.Index() == nil {
				return
			}
			read, err := parseIndex(strings.NewReader(want.Index))
			if err != nil || len(read) != len(specs) {
				t.Errorf("reading the index: %d tensors, %v", len(read), err)
			}
		})
	}
}

// countingReader counts the bytes read of a file that is otherwise absent.
type countingReader struct {
	header []byte
	read   int64
}

func (r *countingReader) ReadAt(p []byte, off int64) (int, error) {
	r.read += int64(len(p))
	clear(p)
	if off < int64(len(r.header)) {
		copy(p, r.header[off:])
	}
	return len(p), nil
}

// TestOpenReadsHeaderOnly opens a file of 70 GB of which only the header exists.
func TestOpenReadsHeaderOnly(t *testing.T) {
	l, err := Plan([]Spec{{"a", BF16, []int{35e9}}, {"b", F32, nil}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &countingReader{header: l.Header}
	f, err := NewFile(r, l.Size)
	if err != nil {
		t.Fatal(err)
	}
	if r.read != int64(len(l.Header)) {
		t.Errorf("%d bytes were read of a header of %d", r.read, len(l.Header))
	}
	if diff := cmp.Diff(l.Tensors, f.Tensors()); diff != "" {
		t.Errorf("tensors (-planned +read):\n%s", diff)
	}
	r.read = 0
	if err := f.ReadAt(f.Tensors()[1], make([]byte, 5), 34e9); err != nil || r.read != 5 {
		t.Errorf("5 bytes of a tensor: %d were read, %v", r.read, err)
	}
}
