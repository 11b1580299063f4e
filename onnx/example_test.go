package onnx_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/onnx"
)

// zeros is a model whose weights are all zero.
type zeros struct{}

func (zeros) Rows(name string, lo, hi int, dst []float32) error {
	clear(dst)
	return nil
}

func Example() {
	temp, err := os.MkdirTemp("", "bundle")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(temp)
	dir := filepath.Join(temp, "model-onnx")

	err = onnx.Export(context.Background(), dir, onnx.Options{
		Config: []byte(`{"model_type":"llama","hidden_size":16,"intermediate_size":16,"num_hidden_layers":1,
			"num_attention_heads":1,"vocab_size":10,"max_position_embeddings":32,"eos_token_id":1}`),
		Weights: zeros{},
		Targets: []string{"q_proj", "v_proj"},
	})
	if err != nil {
		log.Fatal(err)
	}
	b, err := onnx.OpenBundle(dir)
	if err != nil {
		log.Fatal(err)
	}
	adapter := &adapters.Adapter{Pairs: []adapters.Pair{{
		Module: "model.layers.0.self_attn.q_proj", R: 1, In: 16, Out: 16, Scale: 2, A: make([]float32, 16), B: make([]float32, 16),
	}}}
	if err := b.Add("pirate", adapter, nil); err != nil {
		log.Fatal(err)
	}
	if err := b.SetDefault("pirate"); err != nil {
		log.Fatal(err)
	}
	for _, s := range b.Slots() {
		fmt.Println(s.A, s.In, s.Out)
	}
	fmt.Println(b.Default(), b.Adapters()[0].File)
	// Output:
	// model.layers.0.attn.q_proj.lora_A.weight 16 16
	// model.layers.0.attn.v_proj.lora_A.weight 16 16
	// pirate adapters/pirate.onnx_adapter
}
