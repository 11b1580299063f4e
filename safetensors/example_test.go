package safetensors_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"

	"github.com/graftml/graft/safetensors"
)

// A small file is written and read back.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")

	var data []byte
	for _, v := range []float32{1, 2.5, -3} {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	weight := safetensors.TensorData{
		Spec: safetensors.Spec{Name: "norm.weight", DType: safetensors.F32, Shape: []int{3}},
		Data: data,
	}
	if err := safetensors.Write(path, []safetensors.TensorData{weight}, map[string]string{"format": "pt"}); err != nil {
		log.Fatal(err)
	}

	f, err := safetensors.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	for _, t := range f.Tensors() {
		last := make([]byte, 4)
		if err := f.ReadAt(t, last, t.Size()-4); err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Name, t.DType, t.Shape, math.Float32frombits(binary.LittleEndian.Uint32(last)))
	}
	// Output: norm.weight F32 [3] -3
}

// A model is planned as shards, here of at most 10 GB each, before a byte of it is
// read or written.
func ExamplePlanShards() {
	specs := []safetensors.Spec{
		{Name: "embed", DType: safetensors.BF16, Shape: []int{128_000, 8192}},
		{Name: "up", DType: safetensors.BF16, Shape: []int{32 * 28_672, 8192}},
		{Name: "norm", DType: safetensors.F32, Shape: []int{8192}},
	}
	plan, err := safetensors.PlanShards(specs, 10e9, "model", map[string]string{"format": "pt"})
	if err != nil {
		log.Fatal(err)
	}
	for _, shard := range plan.Files {
		fmt.Println(shard.Name, shard.Layout.Size, shard.Layout.Tensors[0].Name)
	}
	// Output:
	// model-00001-of-00002.safetensors 15032385656 up
	// model-00002-of-00002.safetensors 2097184952 norm
}
