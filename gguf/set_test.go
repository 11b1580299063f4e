package gguf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/gguf"
)

// model returns metadata and tensors of a small model.
func model() ([]gguf.KV, []gguf.TensorData) {
	kvs := []gguf.KV{gguf.Entry("general.architecture", "llama"), gguf.Entry("general.alignment", uint32(64)), gguf.Entry("names", []string{"a", "b"})}
	var tensors []gguf.TensorData
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		n := 40 * (i + 1)
		tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: name, Dims: []int64{int64(n)}, Type: gguf.F32}, Data: bytes.Repeat([]byte{byte(i + 1)}, 4*n)})
	}
	return kvs, tensors
}

// writeParts writes the small model in parts and returns their paths.
func writeParts(t *testing.T, dir string, maxBytes int64) []string {
	t.Helper()
	kvs, tensors := model()
	var specs []gguf.Spec
	data := map[string][]byte{}
	for _, x := range tensors {
		specs = append(specs, x.Spec)
		data[x.Name] = x.Data
	}
	parts, err := gguf.PlanParts(kvs, specs, maxBytes, "m")
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, p := range parts {
		path := filepath.Join(dir, p.Name)
		w, err := gguf.Create(path, p.Layout)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range p.Layout.Tensors {
			if err := w.WriteAt(x.Name, data[x.Name], 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != p.Layout.Size {
			t.Errorf("%s: %v, %v; planned %d bytes", p.Name, info.Size(), err, p.Layout.Size)
		}
		paths = append(paths, path)
	}
	return paths
}

// TestParts: whichever part is opened, the model is that which was written.
func TestParts(t *testing.T) {
	kvs, tensors := model()
	for maxBytes, want := range map[int64][]string{
		1 << 30: {"m.gguf"},
		960:     {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"},
		1:       {"m-00001-of-00005.gguf", "m-00002-of-00005.gguf", "m-00003-of-00005.gguf", "m-00004-of-00005.gguf", "m-00005-of-00005.gguf"},
	} {
		paths := writeParts(t, t.TempDir(), maxBytes)
		for i, path := range paths {
			if filepath.Base(path) != want[i] {
				t.Errorf("part %d is %s, want %s", i, filepath.Base(path), want[i])
			}
			s, err := gguf.OpenSet(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if diff := cmp.Diff(kvs, s.KVs()); diff != "" {
				t.Errorf("metadata of %s:\n%s", path, diff)
			}
			if !cmp.Equal(s.Paths(), paths) {
				t.Errorf("paths %q, want %q", s.Paths(), paths)
			}
			if names, ok, err := gguf.Value[[]string](s, "names"); !ok || err != nil || len(names) != 2 {
				t.Errorf("names: %v, %v, %v", names, ok, err)
			}
			if _, ok := s.Get("split.count"); ok {
				t.Error("the model says that it is a part")
			}
			if len(s.Tensors()) != len(tensors) {
				t.Fatalf("%d tensors, want %d", len(s.Tensors()), len(tensors))
			}
			for j, x := range s.Tensors() {
				got := make([]byte, x.Size)
				if err := s.ReadAt(x, got, 0); err != nil || x.Name != tensors[j].Name || !bytes.Equal(got, tensors[j].Data) {
					t.Errorf("tensor %d, %q: %v", j, x.Name, err)
				}
			}
			if _, ok := s.Tensor("absent"); ok {
				t.Error("a tensor that is not there")
			}
		}
	}
}

func TestFirstPart(t *testing.T) {
	for path, want := range map[string]string{"d/m-00002-of-00003.gguf": "d/m-00001-of-00003.gguf", "m-00001-of-00001.gguf": "m-00001-of-00001.gguf",
		"m.gguf": "m.gguf", "m-00004-of-00003.gguf": "m-00004-of-00003.gguf", "m-00000-of-00003.gguf": "m-00000-of-00003.gguf"} {
		if got := gguf.FirstPart(path); got != want {
			t.Errorf("first part of %s: %s, want %s", path, got, want)
		}
	}
}

// TestPartsRefused: parts that are missing, of another model, or lie about themselves.
func TestPartsRefused(t *testing.T) {
	const second = "m-00002-of-00003.gguf"
	part := func(no, count uint16, all int32, name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			kvs := []gguf.KV{gguf.Entry("split.no", no), gguf.Entry("split.count", count), gguf.Entry("split.tensors.count", all)}
			var tensors []gguf.TensorData
			if name != "" {
				tensors = []gguf.TensorData{{Spec: gguf.Spec{Name: name, Dims: []int64{4}, Type: gguf.F32}, Data: make([]byte, 16)}}
			}
			if err := gguf.Write(filepath.Join(dir, second), kvs, tensors); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		class  error
		words  string
	}{
		"missing":        {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, second)) }, fs.ErrNotExist, "part 2 of 3 is missing"},
		"cut":            {func(t *testing.T, dir string) { os.Truncate(filepath.Join(dir, second), 40) }, gguf.ErrFormat, second},
		"another number": {part(2, 3, 5, "d"), gguf.ErrFormat, "part 3 of 3"},
		"another count":  {part(1, 4, 5, "d"), gguf.ErrFormat, "part 2 of 4"},
		"another total":  {part(1, 3, 6, "d"), gguf.ErrFormat, "with 6 tensors in all"},
		"a tensor less":  {part(1, 3, 5, "c"), gguf.ErrFormat, `tensor "c" is in both`},
		"fewer tensors":  {part(1, 3, 5, ""), gguf.ErrFormat, "the 3 parts hold 4 tensors, and each says that there are 5"},
		"negative total": {part(1, 3, -1, "d"), gguf.ErrFormat, "part 2 of 3 with -1 tensors"},
		"past the count": {part(3, 3, 5, "d"), gguf.ErrFormat, "part 4 of 3"},
		"types": {func(t *testing.T, dir string) {
			if err := gguf.Write(filepath.Join(dir, second), []gguf.KV{gguf.Entry("split.no", uint32(1)), gguf.Entry("split.count", uint16(3))}, nil); err != nil {
				t.Fatal(err)
			}
		}, gguf.ErrType, "split.no"},
		"a whole file": {func(t *testing.T, dir string) {
			if err := gguf.Write(filepath.Join(dir, second), nil, nil); err != nil {
				t.Fatal(err)
			}
		}, gguf.ErrFormat, "part 1 of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			paths := writeParts(t, dir, 960)
			c.damage(t, dir)
			_, err := gguf.OpenSet(paths[0])
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), paths[0]) {
				t.Errorf("error %v, want %v with %q", err, c.class, c.words)
			}
		})
	}
	dir := t.TempDir()
	paths := writeParts(t, dir, 960)
	renamed := filepath.Join(dir, "renamed.gguf")
	if err := os.Rename(paths[1], renamed); err != nil {
		t.Fatal(err)
	}
	if _, err := gguf.OpenSet(renamed); !errors.Is(err, gguf.ErrFormat) || !strings.Contains(err.Error(), "must be called NAME-00002-of-00003.gguf") {
		t.Errorf("a renamed part: %v", err)
	}
	if _, err := gguf.PlanParts(nil, nil, 0, "m"); !errors.Is(err, gguf.ErrLayout) {
		t.Errorf("parts of no bytes: %v", err)
	}
}

// FuzzPart: a part says what it may, and no name of a part leads out of its folder.
func FuzzPart(f *testing.F) {
	dir := f.TempDir()
	kvs := []gguf.KV{gguf.Entry("split.no", uint16(0)), gguf.Entry("split.count", uint16(1)), gguf.Entry("split.tensors.count", int32(0))}
	for i, list := range [][]gguf.KV{kvs, kvs[1:], nil, {gguf.Entry("split.count", uint16(2)), gguf.Entry("split.tensors.count", int32(0))}} {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := gguf.Write(path, list, nil); err != nil {
			f.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "m-00001-of-00002.gguf")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := gguf.OpenSet(path)
		if err != nil {
			if !errors.Is(err, gguf.ErrFormat) && !errors.Is(err, gguf.ErrUnsupported) && !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("error %v of no class", err)
			}
			return
		}
		defer s.Close()
		if s.Paths()[0] != path || len(s.Paths()) != 1 {
			t.Errorf("parts %q", s.Paths())
		}
		// Written in parts and read again it is the same.
		var specs []gguf.Spec
		var total int64
		for _, x := range s.Tensors() {
			specs = append(specs, gguf.Spec{Name: x.Name, Dims: x.Dims, Type: x.Type})
			total += x.Size
		}
		if kv, ok := s.Get("general.alignment"); ok && kv.Value.(uint32) > 1<<16 {
			return // every part would be padded to it
		}
		parts, err := gguf.PlanParts(s.KVs(), specs, total/2+1, "n")
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		for _, p := range parts {
			w, err := gguf.Create(filepath.Join(dir, p.Name), p.Layout)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range p.Layout.Tensors {
				buf := make([]byte, x.Size)
				own, _ := s.Tensor(x.Name)
				if err := s.ReadAt(own, buf, 0); err != nil {
					t.Fatal(err)
				}
				if err := w.WriteAt(x.Name, buf, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		again, err := gguf.OpenSet(filepath.Join(dir, parts[len(parts)-1].Name))
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if len(again.KVs()) != len(s.KVs()) || len(again.Tensors()) != len(s.Tensors()) {
			t.Errorf("%d entries and %d tensors, then %d and %d", len(s.KVs()), len(s.Tensors()), len(again.KVs()), len(again.Tensors()))
		}
	})
}

// TestPartsOfGGUFPy reads parts that gguf-py wrote, and plans the same division.
func TestPartsOfGGUFPy(t *testing.T) {
	const dir = "../testdata/golden/gguf/split"
	s, err := gguf.OpenSet(filepath.Join(dir, gguf.PartName("parts", 1, 3)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if name, _, err := gguf.Value[string](s, "general.name"); err != nil || name != "In parts" {
		t.Errorf("name %q, %v", name, err)
	}
	var specs []gguf.Spec
	for i, x := range s.Tensors() {
		data := make([]byte, x.Size)
		if err := s.ReadAt(x, data, 0); err != nil {
			t.Fatal(err)
		}
		for j := range len(data) / 4 {
			if v := math.Float32frombits(binary.LittleEndian.Uint32(data[4*j:])); v != float32(i)+0.5 {
				t.Fatalf("tensor %q, element %d: %v", x.Name, j, v)
			}
		}
		if want := string(rune('a' + i)); x.Name != want || x.Elements() != int64(8*(i+1)) {
			t.Errorf("tensor %d is %q with %d elements, want %q", i, x.Name, x.Elements(), want)
		}
		specs = append(specs, gguf.Spec{Name: x.Name, Dims: x.Dims, Type: x.Type})
	}
	parts, err := gguf.PlanParts(s.KVs(), specs, 200, "parts")
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range s.Paths() {
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if i >= len(parts) || parts[i].Name != filepath.Base(path) || !cmp.Equal(parts[i].Layout.Tensors, f.Tensors()) {
			t.Errorf("part %d is planned otherwise than %s", i, path)
		}
	}
}
