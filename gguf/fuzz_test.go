package gguf

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/graftml/graft/internal/testfile"
)

// FuzzFile checks that a file that opens can be written again and then holds the
// same metadata and tensors.
func FuzzFile(f *testing.F) {
	testfile.AddSeeds(f, malformed+"/*.bin", golden+"/*.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("error %v of no class", err)
			}
			return
		}
		if first.Alignment() > 1<<20 {
			return // a file without tensors may claim it, but its copy would be padded to it
		}
		var tensors []TensorData
		for _, tensor := range first.Tensors() {
			td := TensorData{Spec{tensor.Name, tensor.Dims, tensor.Type}, make([]byte, tensor.Size)}
			if err := first.ReadAt(tensor, td.Data, 0); err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, td)
		}
		path := filepath.Join(t.TempDir(), "out.gguf")
		if err := Write(path, first.KVs(), tensors); err != nil {
			t.Fatal(err)
		}
		second, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if diff := cmp.Diff(first.KVs(), second.KVs(), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("metadata (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(first.Tensors(), second.Tensors()); diff != "" {
			t.Errorf("tensors (-first +second):\n%s", diff)
		}
		for i, tensor := range second.Tensors() {
			got := make([]byte, tensor.Size)
			if err := second.ReadAt(tensor, got, 0); err != nil || !bytes.Equal(got, tensors[i].Data) {
				t.Errorf("tensor %q: %x, %v", tensor.Name, got, err)
			}
		}
	})
}
