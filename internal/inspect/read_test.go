package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
)

// readBytes is how many bytes the process has read so far, -1 where the system does not say.
func readBytes(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return -1
	}
	var n int64
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		return -1
	}
	return n
}

// classes are the errors that the malformed corpus expects.
var classes = map[string]map[string]error{
	"gguf":        {"format": gguf.ErrFormat, "unsupported": gguf.ErrUnsupported},
	"safetensors": {"format": safetensors.ErrFormat},
}

// TestMalformed: a file of the malformed corpus is refused with an error of its class that names the file,
// or described where its bytes are in order, whatever it means.
func TestMalformed(t *testing.T) {
	n := 0
	for _, kind := range []string{"gguf", "safetensors"} {
		dir := filepath.Join("..", "..", "testdata", "malformed", kind)
		expected, err := os.ReadFile(filepath.Join(dir, "expected.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(expected)) {
			fields := strings.Split(line, "\t")
			if len(fields) < 2 {
				t.Fatalf("line %q", line)
			}
			data, err := os.ReadFile(filepath.Join(dir, fields[0]+".bin"))
			if err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(t.TempDir(), "bad."+kind)
			if err := os.WriteFile(bad, data, 0o666); err != nil {
				t.Fatal(err)
			}
			n++
			r, err := Path(context.Background(), bad, Options{Check: true, Stats: true, Tensors: true})
			switch class := fields[1]; {
			case class == "ok" && err != nil: // it need not be a model
				t.Errorf("%s %s: %v", kind, fields[0], err)
			case class == "ok":
			case err == nil:
				t.Errorf("%s %s is taken for sound: %v", kind, fields[0], r.Findings)
			case !errors.Is(err, classes[kind][class]) || !strings.Contains(err.Error(), "bad."+kind):
				t.Errorf("%s %s: %v, want %v and the name of the file", kind, fields[0], err, classes[kind][class])
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d files", n)
	}
}

// TestHeaderOnly: what is described without being measured needs headers and small files alone, of a
// model of 40 gigabytes as of any.
func TestHeaderOnly(t *testing.T) {
	for _, name := range []string{"m.gguf", "folder"} {
		path, headers := large(t, name)
		before := readBytes(t)
		r := look(t, path, Options{Tensors: true})
		// Each header is read twice, by who runs models and by who lists what files hold.
		if after := readBytes(t); before >= 0 && after-before > 2*headers+1<<20 {
			t.Errorf("%s: %d bytes read, and the headers have %d of %d", name, after-before, headers, r.Bytes)
		}
		if r.Bytes < 40e9 || len(r.Tensors) < 360 || r.Parameters < 20e9 {
			t.Errorf("%s: %d bytes in %d tensors, %d parameters", name, r.Bytes, len(r.Tensors), r.Parameters)
		}
	}
}

// large makes a sparse model of 40 GB, and says how much of it is not weights.
func large(t testing.TB, name string) (path string, headers int64) {
	t.Helper()
	c, err := testmodel.Tall(44)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), name)
	if err := testmodel.WriteSparse(path, c, 4<<30); err != nil {
		t.Fatal(err)
	}
	h, err := openHeaders(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	files := []string{path}
	if h.form != "gguf" {
		entries, err := filepath.Glob(filepath.Join(path, "*"))
		if err != nil {
			t.Fatal(err)
		}
		files = entries
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		headers += info.Size()
	}
	for _, s := range h.tensors {
		headers -= s.bytes
	}
	return path, headers
}

// BenchmarkOpen describes a sparse model of 40 gigabytes.
func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"m.gguf", "folder"} {
		b.Run(name, func(b *testing.B) {
			path, _ := large(b, name)
			for b.Loop() {
				if _, err := Path(context.Background(), path, Options{Tensors: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
