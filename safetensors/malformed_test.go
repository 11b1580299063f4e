package safetensors

// What is refused: the corpus in testdata/malformed/safetensors, folders whose files do
// not fit each other, and ranges outside a tensor.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/testfile"
)

const malformed = "../testdata/malformed/safetensors"

// stricter are the files that the reference reads and we refuse, since the written
// specification forbids them.
var stricter = []string{"leading_spaces", "metadata_key_twice", "entry_array", "name_twice", "name_twice_escaped"}

func TestMalformed(t *testing.T) {
	testfile.Malformed(t, malformed, 70, map[string]error{"format": ErrFormat}, stricter, openAndClose)
}

func openAndClose(path string) error {
	f, err := Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// TestTruncated cuts a good file at every byte.
func TestTruncated(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join(golden, "order.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := NewFile(strings.NewReader(string(whole[:n])), int64(n)); !errors.Is(err, ErrFormat) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
		// A file that shrinks while it is open.
		if f, err := NewFile(strings.NewReader(string(whole[:n])), int64(len(whole))); err == nil {
			last := f.Tensors()[len(f.Tensors())-1]
			if err := f.ReadAt(last, make([]byte, last.Size()), 0); !errors.Is(err, ErrFormat) {
				t.Errorf("cut at byte %d after opening: %v", n, err)
			}
		}
	}
}

// writeFolder writes files, of which those ending in .safetensors hold one U8[1]
// tensor a name.
func writeFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if !strings.HasSuffix(name, ".safetensors") {
			if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var tensors []TensorData
		for _, tensor := range strings.Fields(content) {
			tensors = append(tensors, TensorData{Spec{tensor, U8, []int{1}}, []byte{tensor[0]}})
		}
		if err := Write(path, tensors, map[string]string{"file": name, name: "set"}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFolder(t *testing.T) {
	const index = "model.safetensors.index.json"
	cases := []struct {
		name  string
		files map[string]string
		words string // "" when the folder is fine
		want  error
	}{
		{"single", map[string]string{"model.safetensors": "a b"}, "", nil},
		{"single before index", map[string]string{"model.safetensors": "a b", index: "{"}, "", nil},
		{"shards", map[string]string{"1.safetensors": "b", "2.safetensors": "a",
			index: `{"metadata":{"total_size":2.0},"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}`}, "", nil},
		{"nothing", map[string]string{"other.safetensors": "a"}, "neither model.safetensors nor an index", fs.ErrNotExist},
		{"shard missing", map[string]string{"1.safetensors": "a",
			index: `{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`}, "2.safetensors", fs.ErrNotExist},
		{"tensor missing", map[string]string{"1.safetensors": "a",
			index: `{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}`}, `"b" in 1.safetensors, which does not hold it`, ErrFormat},
		{"tensor not listed", map[string]string{"1.safetensors": "a b",
			index: `{"weight_map":{"a":"1.safetensors"}}`}, `1.safetensors holds tensor "b"`, ErrFormat},
		{"wrong shard", map[string]string{"1.safetensors": "a", "2.safetensors": "b",
			index: `{"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}`}, `but it is in 1.safetensors`, ErrFormat},
		{"tensor in two shards", map[string]string{"1.safetensors": "a c", "2.safetensors": "b c",
			index: `{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}}`}, `"c" is in both 1.safetensors and 2.safetensors`, ErrFormat},
		{"index lists twice", map[string]string{"1.safetensors": "a",
			index: `{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}`}, "duplicate", ErrFormat},
		{"no weight_map", map[string]string{index: `{"metadata":{}}`}, "weight_map is missing", ErrFormat},
		{"weight_map empty", map[string]string{index: `{"weight_map":{}}`}, "empty", ErrFormat},
		{"weight_map of numbers", map[string]string{index: `{"weight_map":{"a":1}}`}, "string", ErrFormat},
		{"index not JSON", map[string]string{index: `{"weight_map":`}, index, ErrFormat},
		{"index cut in two", map[string]string{index: `{"weight_map":{"a":"1.safetensors"}} {}`}, "follows", ErrFormat},
	}
	for _, shard := range []string{"../out.safetensors", "/etc/out.safetensors", "..", ".", "", "sub/out.safetensors", `..\out.safetensors`, "c:out.safetensors", "a\\u0000"} {
		cases = append(cases, struct {
			name  string
			files map[string]string
			words string
			want  error
		}{"path " + shard, map[string]string{index: fmt.Sprintf(`{"weight_map":{"a":"%s"}}`, strings.ReplaceAll(shard, `..\o`, `..\\o`))}, "plain file name", ErrFormat})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := writeFolder(t, c.files)
			s, err := OpenFolder(dir)
			if c.words != "" {
				if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), dir) {
					t.Errorf("error %v, want %q of class %v", err, c.words, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if len(s.Tensors()) != 2 {
				t.Errorf("%d tensors", len(s.Tensors()))
			}
			for _, name := range []string{"a", "b"} {
				var p [1]byte
				if err := s.ReadAt(name, p[:], 0); err != nil || p[0] != name[0] {
					t.Errorf("tensor %q: %q, %v", name, p, err)
				}
			}
			if err := s.ReadAt("c", nil, 0); !errors.Is(err, ErrLayout) {
				t.Errorf("reading a missing tensor: %v", err)
			}
			if got, want := len(s.Metadata()), 1+len(s.Files()); got != want || s.Metadata()["file"] != s.Files()[0] {
				t.Errorf("metadata %v of files %v", s.Metadata(), s.Files())
			}
		})
	}
}

func TestReadAtBounds(t *testing.T) {
	f, err := Open(filepath.Join(golden, "order.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, _ := f.Tensor("b") // 8 bytes
	moved := b
	moved.End++
	for _, c := range []struct {
		tensor Tensor
		n      int
		off    int64
		ok     bool
	}{
		{b, 8, 0, true}, {b, 0, 8, true}, {b, 3, 5, true}, {b, 4, 5, false}, {b, 0, 9, false}, {b, 1, -1, false},
		{b, 1, 1 << 62, false}, {moved, 1, 0, false}, {Tensor{Name: "other"}, 0, 0, false},
	} {
		err := f.ReadAt(c.tensor, make([]byte, c.n), c.off)
		if (err == nil) != c.ok || err != nil && !(errors.Is(err, ErrLayout) && strings.Contains(err.Error(), c.tensor.Name)) {
			t.Errorf("%d bytes at %d of %v: %v", c.n, c.off, c.tensor, err)
		}
	}
}

// TestFolderOfLinks opens shards that are symbolic links to files elsewhere, as in
// the cache of huggingface_hub.
func TestFolderOfLinks(t *testing.T) {
	blobs := writeFolder(t, map[string]string{"model.safetensors": "a"})
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(blobs, "model.safetensors"), filepath.Join(dir, "model.safetensors")); err != nil {
		t.Skip("this system does not let the test make a symbolic link: ", err)
	}
	s, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.Tensor("a"); !ok {
		t.Error("the tensor is missing")
	}
}
