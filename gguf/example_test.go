package gguf_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/graftml/graft/gguf"
)

// A small file is written and read back.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.gguf")

	kvs := []gguf.KV{
		gguf.Entry("general.architecture", "llama"),
		gguf.Entry("llama.block_count", uint32(2)),
		gguf.Entry("tokenizer.ggml.tokens", []string{"<s>", "a", "b"}),
	}
	// A weight of shape (3, 64): 3 rows of two Q8_0 blocks.
	weight := gguf.TensorData{
		Spec: gguf.Spec{Name: "token_embd.weight", Dims: []int64{64, 3}, Type: gguf.Q8_0},
		Data: make([]byte, 3*2*34),
	}
	if err := gguf.Write(path, kvs, []gguf.TensorData{weight}); err != nil {
		log.Fatal(err)
	}

	f, err := gguf.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	layers, ok, err := gguf.Value[uint32](f, "llama.block_count")
	fmt.Println(layers, ok, err)
	for _, t := range f.Tensors() {
		fmt.Println(t.Name, t.Dims, t.Type, t.Size)
	}
	// Output:
	// 2 true <nil>
	// token_embd.weight [64 3] Q8_0 204
}
