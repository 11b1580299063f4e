package adapters_test

import (
	"fmt"
	"log"
	"os"

	"github.com/graftml/graft/adapters"
)

func Example() {
	dir, err := os.MkdirTemp("", "adapter")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A rank-1 adapter of one product of three features to two.
	a := &adapters.Adapter{
		Config: adapters.Config{R: 1, Alpha: 2, TaskType: "CAUSAL_LM"},
		Pairs: []adapters.Pair{{
			Module: "model.layers.0.self_attn.q_proj", R: 1, In: 3, Out: 2, Scale: 2,
			A: []float32{1, 2, 3}, B: []float32{10, 20},
		}},
	}
	if err := adapters.WritePEFT(dir, a); err != nil { // PEFT loads this folder
		log.Fatal(err)
	}
	b, err := adapters.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	row := []float32{0.5, 0.5, 0.5} // row 1 of the base's weight
	base := adapters.Base{Linear: func(string) (out, in int, ok bool) { return 2, 3, true }}
	change, err := adapters.NewChange(base, nil, b)
	if err != nil {
		log.Fatal(err)
	}
	change.Apply("model.layers.0.self_attn.q_proj.weight", 1, 2, row)
	fmt.Println(b.Config.R, b.Pairs[0].Scale, row)
	// Output: 1 2 [40.5 80.5 120.5]
}

func ExampleCombine() {
	pair := func(b0, b1 float32) *adapters.Adapter {
		return &adapters.Adapter{Pairs: []adapters.Pair{{
			Module: "model.layers.0.self_attn.q_proj", R: 1, In: 2, Out: 2, Scale: 1, A: []float32{1, 2}, B: []float32{b0, b1},
		}}}
	}
	sum, _, err := adapters.Combine([]adapters.Weighted{{Adapter: pair(1, 0), Weight: 0.5}, {Adapter: pair(0, 1), Weight: -1}},
		adapters.CombineOptions{Method: "cat"})
	if err != nil {
		log.Fatal(err)
	}
	small, report, err := adapters.Resize(sum, 1, 0) // both have the same rows in A, so that one rank is enough
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum.Pairs[0].R, sum.Pairs[0].A, small.Pairs[0].R, report[0].Residual < 1e-6)
	// Output: 2 [0.5 1 -1 -2] 1 true
}
