package train_test

import (
	"fmt"

	"github.com/graftml/graft/train"
)

// A recipe comes from YAML; overrides are written as on the command line.
func ExampleParseRecipe() {
	r, err := train.ParseRecipe([]byte("model: smollm2.gguf\ndata: chats.jsonl\nout: adapter\nmethod: qlora\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := r.Set("max_steps=200"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Method, r.MaxSteps, r.R, r.TargetModules.Pattern)
	fmt.Println(r.Set("learning_rat=1"))
	// Output:
	// qlora 200 16 all-linear
	// train: setting "learning_rat=1": invalid recipe: unknown key "learning_rat"; did you mean "learning_rate"?
}
