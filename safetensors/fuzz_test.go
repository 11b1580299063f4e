package safetensors

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
// same tensors and metadata.
func FuzzFile(f *testing.F) {
	testfile.AddSeeds(f, malformed+"/*.bin", golden+"/*.safetensors", golden+"/sharded/*.safetensors")
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v, want ErrFormat", err)
			}
			return
		}
		var tensors []TensorData
		for _, tensor := range first.Tensors() {
			td := TensorData{Spec{tensor.Name, tensor.DType, tensor.Shape}, make([]byte, tensor.Size())}
			if err := first.ReadAt(tensor, td.Data, 0); err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, td)
		}
		path := filepath.Join(t.TempDir(), "out.safetensors")
		if err := Write(path, tensors, first.Metadata()); err != nil {
			t.Fatal(err)
		}
		second, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if diff := cmp.Diff(first.Metadata(), second.Metadata(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("metadata (-first +second):\n%s", diff)
		}
		if len(second.Tensors()) != len(tensors) {
			t.Errorf("%d tensors, then %d", len(tensors), len(second.Tensors()))
		}
		for _, want := range tensors {
			got, ok := second.Tensor(want.Name)
			if !ok || got.DType != want.DType || !cmp.Equal(got.Shape, want.Shape) {
				t.Fatalf("tensor %q: %v, want %v", want.Name, got, want.Spec)
			}
			data := make([]byte, got.Size())
			if err := second.ReadAt(got, data, 0); err != nil || !bytes.Equal(data, want.Data) {
				t.Errorf("tensor %q: %x, %v", want.Name, data, err)
			}
		}
	})
}

// FuzzIndex checks that no index makes a reader look outside its folder.
func FuzzIndex(f *testing.F) {
	testfile.AddSeeds(f, golden+"/sharded/*.json")
	f.Add([]byte(`{"weight_map":{"a":"../b","c":"d\u0000","e":"\\\\host\\f","g":"C:h"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		weightMap, err := parseIndex(bytes.NewReader(data))
		if err != nil {
			return
		}
		for tensor, shard := range weightMap {
			if checkPlainName(shard) == nil && filepath.Dir(filepath.Join("folder", shard)) != "folder" {
				t.Errorf("tensor %q: shard %q lies outside", tensor, shard)
			}
		}
	})
}
