package checkpoint

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/graftml/graft/safetensors"
)

// FuzzBlocks: a file of blocks is refused, or gives blocks, or an error, for any rows.
func FuzzBlocks(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, BlocksFile)
	tensors := []Tensor{{"w", []int{4, 64}, "F32"}, {"v", []int{2, 256}, "F32"}}
	for _, places := range [][]uint64{{0, 5}, {7, 3}, {8, 9}, {1 << 63, 1<<64 - 1}} {
		var at []byte
		for _, p := range places {
			at = binary.LittleEndian.AppendUint64(at, p)
		}
		err := safetensors.Write(path, []safetensors.TensorData{
			{Spec: safetensors.Spec{Name: blocksName("w", "Q8_0"), DType: safetensors.U8, Shape: []int{2, 34}}, Data: make([]byte, 68)},
			{Spec: safetensors.Spec{Name: placesName("w", "Q8_0"), DType: safetensors.I64, Shape: []int{2}}, Data: at},
			{Spec: safetensors.Spec{Name: blocksName("v", "Q6_K"), DType: safetensors.U8, Shape: []int{2, 210}}, Data: make([]byte, 420)},
		}, map[string]string{"format": blocksFormat})
		if err != nil {
			f.Fatal(err)
		}
		seed, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		s, err := openBlocks(dir, tensors)
		if err != nil {
			return
		}
		defer s.file.Close()
		for _, x := range tensors {
			k, ok := s.weights[x.Name]
			if !ok {
				continue
			}
			_, size := k.codec.Block()
			for lo := range x.Shape[0] {
				for hi := lo + 1; hi <= x.Shape[0]; hi++ {
					_ = s.rawRows(x.Name, lo, hi, make([]float32, (hi-lo)*x.Shape[1]), make([]byte, (hi-lo)*k.rowBlocks*size))
				}
			}
		}
	})
}
