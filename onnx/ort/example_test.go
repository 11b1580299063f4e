package ort_test

import (
	"context"
	"fmt"
	"log"

	"github.com/graftml/graft/onnx/ort"
)

func Example() {
	s, err := ort.Open("model-onnx", ort.Options{Threads: 2})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	prompt := []int32{1, 9690, 198} // from the model's tokenizer
	for _, adapter := range []string{"", "pirate"} {
		state, err := s.NewState(adapter)
		if err != nil {
			log.Fatal(err)
		}
		end, err := state.Generate(context.Background(), prompt, ort.GenerateOptions{MaxTokens: 64}, func(token int32) error {
			fmt.Print(token, " ")
			return nil
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(end)
		state.Close()
	}
}
