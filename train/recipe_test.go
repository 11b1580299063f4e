package train

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRecipeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.yaml")
	text := `# a run
model: m.gguf
data: [a.jsonl, "b c.json"]
out: 'out'
learning_rate: 1e-4
lora_alpha: 8
target_modules: .*\.(q|v)_proj
double_quant: false
chat_template:
seed: 1_000
`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := LoadRecipe(path, "r=4", "target_modules=[q_proj, v_proj]", "eval_data=e.jsonl", "lr_scheduler=cosine", "epochs=2.5")
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "m.gguf" || len(r.Data) != 2 || r.Data[1] != "b c.json" || r.Out != "out" || r.LearningRate != 1e-4 || r.LoraAlpha != 8 ||
		len(r.TargetModules.Modules) != 2 || r.DoubleQuant || r.R != 4 || r.EvalData[0] != "e.jsonl" || r.LRScheduler != "cosine" ||
		r.Epochs != 2.5 || r.Seed != 1000 || r.BatchSize != 4 || !r.Shuffle {
		t.Errorf("%+v", r)
	}
	again, err := ParseRecipe(r.YAML())
	if err != nil {
		t.Fatal(err)
	}
	if key, was, is := r.changed(&again); key != "" {
		t.Errorf("written and read, %s changes from %s to %s", key, was, is)
	}
	if r, err = LoadRecipe(path); err != nil || r.TargetModules.Pattern != `.*\.(q|v)_proj` {
		t.Errorf("expression %q, %v", r.TargetModules.Pattern, err)
	}
	if again, err = ParseRecipe(r.YAML()); err != nil || again.TargetModules.Pattern != r.TargetModules.Pattern {
		t.Errorf("expression written and read: %q, %v", again.TargetModules.Pattern, err)
	}
}

func TestRecipeRefuses(t *testing.T) {
	const good = "model: m\ndata: d\nout: o\n"
	for _, c := range []struct{ text, want string }{
		{good + "learning_rates: 1", `line 4: unknown key "learning_rates"; did you mean "learning_rate"?`},
		{good + "batchsize: 1", `did you mean "batch_size"?`},
		{good + "r: many", `line 4: r is "many", not a whole number`},
		{good + "r: 1.5", `line 4: r is "1.5", not a whole number`},
		{good + "learning_rate: \"1\"", `line 4: learning_rate is "1", not a number`},
		{good + "learning_rate: .nan", `not a number`},
		{good + "shuffle: yes please", `shuffle is "yes please", not true or false`},
		{good + "objective: 3", `objective is the number 3, not a string`},
		{good + "objective: [sft]", `objective is a list, not a string`},
		{good + "r:\n  a: 1", `line 4: r is a mapping, not a whole number`},
		{good + "data: x", `data`},
		{"- a\n- b", `a recipe is a list of "key: value" lines`},
		{"model: [", "not YAML"},
		{"a: 1\n---\nb: 2", "2 documents"},
		{"data: d\nout: o", "model is missing"},
		{"model: m\nout: o", "data is missing"},
		{"model: m\ndata: d", "out is missing"},
		{good + "objective: ppo", `objective "ppo": this version has sft, dpo`},
		{good + "method: half", `method "half": this version has lora, qlora, full`},
		{good + "method: full\nr: 16", "r: method full trains the model itself"},
		{good + "method: full\nlora_alpha: 32", "lora_alpha: method full"},
		{good + "method: full\nlora_dropout: 0", "lora_dropout: method full"},
		{good + "method: full\ntarget_modules: all-linear", "target_modules: method full"},
		{good + "method: full\ninit_adapter: a", "init_adapter: method full"},
		{good + "method: full\ncompute: bf16", `compute "bf16": it is for products with frozen weights`},
		{good + "method: full\nobjective: dpo", `objective "dpo": with method full its reference would be a second copy`},
		{good + "compute: f16", `compute "f16": this version has f32, bf16`},
		{good + "remat: true", "remat is a truth value, not a string"},
		{good + "remat: some", `remat "some": this version has none, block, auto`},
		{good + "remat: auto", "remat auto chooses what fits in memory; set memory"},
		{good + "memory: 4 apples", `memory: size "4 apples": write a number and B, KB, MB, GB or TB`},
		{good + "objective: dpo\nloss_type: ipo", `loss_type "ipo": this version has sigmoid`},
		{good + "objective: dpo\npacking: examples", "preferences are not packed"},
		{good + "packing: some", `packing "some": this version has none, examples, stream`},
		{good + "r: 0", "r is 0, not from 1 to 256"},
		{good + "r: 257", "r is 257, not from 1 to 256"},
		{good + "lora_dropout: 1", "lora_dropout is 1, not from 0 to below 1"},
		{good + "learning_rate: -1", "learning_rate is -1, not a number from 0 on"},
		{good + "epochs: 0", "max_steps and epochs are both 0"},
		{good + "holdout: 0.1\neval_data: e", "exclude each other"},
		{good + "early_stopping: 2", "early_stopping needs eval_steps"},
		{good + "batch_size: 0", "batch_size is 0"},
		{good + "target_modules: []", "target_modules is empty"},
		{good + "optimizer: sgd", `optimizer "sgd"`},
	} {
		r, err := ParseRecipe([]byte(c.text))
		if err == nil {
			r.resolve()
			err = r.Validate()
		}
		if !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line with %q", c.text, err, c.want)
		}
	}
	for _, c := range []struct{ override, want string }{
		{"r", "wanted key=value"}, {"rank=3", "unknown key"}, {"r=x", `r is "x"`}, {"shuffle=1", "true or false"}, {"learning_rate=inf", "not a number"},
	} {
		r := Defaults()
		if err := r.Set(c.override); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("--set %s: error %v, want %q", c.override, err, c.want)
		}
	}
	if _, err := LoadRecipe(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, ErrRecipe) {
		t.Errorf("no file: %v", err)
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		text    string
		rate    float64
		alpha   float64
		shuffle bool
	}{
		{"", 2e-4, 32, true}, {"objective: dpo", 5e-5, 32, true}, {"objective: dpo\nlearning_rate: 0", 0, 32, true},
		{"method: full", 2e-5, 0, true}, {"method: full\nlearning_rate: 1e-3", 1e-3, 0, true}, {"r: 8", 2e-4, 16, true}, {"packing: stream", 2e-4, 32, false}, {"packing: stream\nshuffle: true", 2e-4, 32, true},
	} {
		r, err := ParseRecipe([]byte(c.text))
		if err != nil {
			t.Fatal(err)
		}
		r.resolve()
		if r.LearningRate != c.rate || r.LoraAlpha != c.alpha || r.Shuffle != c.shuffle {
			t.Errorf("%q: rate %v, alpha %v, shuffle %v", c.text, r.LearningRate, r.LoraAlpha, r.Shuffle)
		}
	}
}

// TestRematFollowsMemory: remat is what it is said to be, and else what memory asks for.
func TestRematFollowsMemory(t *testing.T) {
	for text, want := range map[string]string{"": "none", "memory: 2GB": "auto", "memory: 2GB\nremat: none": "none", "remat: block": "block"} {
		r, err := ParseRecipe([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if r.resolve(); r.Remat != want {
			t.Errorf("%q: remat %q, want %q", text, r.Remat, want)
		}
	}
}

// The figures are those of transformers' get_scheduler with warm-up 2 of 6 steps.
func TestRates(t *testing.T) {
	for name, want := range map[string][]float64{
		"constant": {0, 0.5, 1, 1, 1, 1},
		"linear":   {0, 0.5, 1, 0.75, 0.5, 0.25},
		"cosine":   {0, 0.5, 1, 0.8535533905932737, 0.5, 0.1464466094067263},
	} {
		r := Recipe{LRScheduler: name, LearningRate: 1, WarmupSteps: 2}
		for step, w := range want {
			if got := r.rate(step, 6); got < w-1e-15 || got > w+1e-15 {
				t.Errorf("%s, step %d: %v, want %v", name, step, got, w)
			}
		}
	}
}

// FuzzRecipe reads recipes; what is read must be written and read as the same.
func FuzzRecipe(f *testing.F) {
	r := Defaults()
	f.Add(r.YAML())
	f.Add([]byte("model: m\ndata: [a, 'b']\ntarget_modules: .*q_proj\nlearning_rate: 1e-4\nout: |\n  text\n"))
	f.Add([]byte("r: 0x10\nepochs: .5\nseed: 0o17\nout: \"\\u2028\\x07é\"\n"))
	f.Add([]byte("a: &x [1]\nb: *x\n!!str c: d\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecipe(data)
		if err != nil {
			if !errors.Is(err, ErrRecipe) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("error %q", err)
			}
			return
		}
		again, err := ParseRecipe(r.YAML())
		if err != nil {
			t.Fatalf("%v\n%s", err, r.YAML())
		}
		if key, was, is := r.changed(&again); key != "" {
			t.Fatalf("%s changes from %s to %s", key, was, is)
		}
	})
}
