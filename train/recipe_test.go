package train

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
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
		{good + "use_dora: true\nlora_bias: true", "use_dora and lora_bias exclude each other"},
		{good + "use_dora: true\ninit_lora_weights: pissa", "use_dora and init_lora_weights pissa exclude each other"},
		{good + "init_lora_weights: eva", `init_lora_weights "eva": this version has true, false, gaussian`},
		{good + "init_lora_weights: pissa_niter_0", `init_lora_weights "pissa_niter_0"`},
		{good + "init_lora_weights: 3", "init_lora_weights is a number, not true, false or a name"},
		{good + "bias: some", `bias "some": this version has none, lora_only, all`},
		{good + "rank_pattern: [4]", "rank_pattern is a list, not a mapping"},
		{good + "rank_pattern: {q_proj: many}", `rank_pattern has for "q_proj" a value that is no number`},
		{good + "rank_pattern: {q_proj: 1.5}", `rank_pattern: the rank of "q_proj" is 1.5`},
		{good + "rank_pattern: {'q(': 4}", `rank_pattern has "q(", which is not a regular expression`},
		{good + "rank_pattern: {q: 4, q: 5}", "q"},
		{good + "layers_to_transform: [a]", "layers_to_transform is not a list of whole numbers"},
		{good + "layers_pattern: layers", "layers_pattern says where layers_to_transform count"},
		{good + "layers_to_transform: 1\ntarget_modules: .*_proj", "layers_to_transform: the expression in target_modules says itself"},
		{good + "trainable_token_indices: {embed_tokens: x}", `trainable_token_indices has for "embed_tokens" no list`},
		{good + "loraplus_lr_embedding: 1e-5", "loraplus_lr_embedding goes with loraplus_lr_ratio"},
		{good + "loraplus_lr_ratio: -1", "loraplus_lr_ratio is -1"},
		{good + "method: full\nuse_dora: true", "use_dora: method full"},
		{good + "method: full\nadapters: [{name: a}]", "method full trains the model itself"},
		{good + "adapters: [a]", "adapters has as entry 1 no plain value, not a mapping with a name"},
		{good + "adapters: a", "adapters is no plain value, not a list of mappings"},
		{good + "adapters: [{r: 4}]", "adapters: entry 1 has no name"},
		{good + "adapters: [{name: a/b}]", `adapters: the name "a/b" cannot be that of a folder`},
		{good + "adapters: [{name: a}, {name: A}]", `adapters: two have the name "A"`},
		{good + "adapters: [{name: a, lr: 1}]", `adapters has in entry 1 an unknown key "lr"`},
		{good + "adapters: [{name: a, r: x}]", `adapters has in entry 1: r is "x", not a whole number`},
		{good + "adapters: [{name: a, model: other}]", `adapters: "a" has a model of its own`},
		{good + "adapters: [{name: a, adapters: []}]", "adapters has in entry 1 adapters of its own"},
		{good + "adapters: [{name: a, r: 0}]", `adapters: "a": r is 0, not from 1 to 256`},
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

// TestDesignRefuses: what a recipe says of an adapter must be so of the model.
func TestDesignRefuses(t *testing.T) {
	tied, err := testmodel.Config("llama")
	if err != nil {
		t.Fatal(err)
	}
	if base, err := checkpoint.Base(tied); err != nil || !base.Tied {
		t.Fatal("the test wants a model whose head shares its table")
	}
	for _, c := range []struct{ text, want string }{
		{"target_modules: [q_proj, nose]", `target_modules: no product of the model is called "nose"`},
		{"exclude_modules: [lm_head]", `exclude_modules: "lm_head" names none of the targets`},
		{"exclude_modules: .*nose", `exclude_modules: ".*nose" names none of the targets`},
		{"exclude_modules: .*", "leave none of them"},
		{"layers_to_transform: [0, 7]", "layers_to_transform: no target is in layer 7"},
		{"layers_to_transform: [0]\nlayers_pattern: h", "layers_to_transform: no target is in layer 0"},
		{"rank_pattern: {nose: 4}", `rank_pattern: "nose" is the first to match none of the targets`},
		{"rank_pattern: {q_proj: 4, 'self_attn\\.q_proj': 2}", `rank_pattern: "self_attn\\.q_proj" is the first to match none`},
		{"alpha_pattern: {nose: 4}", `alpha_pattern: "nose"`},
		{"rank_pattern: {q_proj: 250}", "r: rank 250 of"},
		{"init_lora_weights: pissa\nr: 60", "at most 32"},
		{"init_lora_weights: orthogonal\nr: 3", "init_lora_weights orthogonal needs even ranks"},
		{"init_lora_weights: pissa\ntarget_modules: [lm_head]", "init_lora_weights pissa is for products inside blocks"},
		{"lora_bias: true\ntarget_modules: [embed_tokens]", "lora_bias: a pair on the embedding table"},
		{"use_dora: true\nlora_dropout: 0.1\ntarget_modules: [q_proj, lm_head]", "lora_dropout: the head"},
		{"bias: lora_only", "bias lora_only: there is no such bias"},
		{"modules_to_save: [nose]", `modules_to_save: no module of the model is called "nose"`},
		{"modules_to_save: [lm_head]\ntarget_modules: [q_proj, lm_head]", `target_modules and modules_to_save both name "lm_head"`},
		{"trainable_token_indices: [3, 3]", "trainable_token_indices: token 3 stands there twice"},
		{"trainable_token_indices: [100000]", "trainable_token_indices: token 100000"},
		{"trainable_token_indices: {q_proj: [1]}", "neither the embedding table"},
		{"trainable_token_indices: [1]\nmodules_to_save: [embed_tokens]", "trainable_token_indices and modules_to_save both name"},
	} {
		r, err := ParseRecipe([]byte("model: m\ndata: d\nout: o\n" + c.text))
		if err == nil {
			r.resolve()
			err = r.Validate()
		}
		if err == nil {
			_, err = r.design(tied)
		}
		if !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line with %q", c.text, err, c.want)
		}
	}
}

// TestDesign: what the keys choose, by PEFT's rules.
func TestDesign(t *testing.T) {
	c, err := testmodel.Config("llama")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"target_modules: .*q_proj|lm_head":                                           "model.layers.0.self_attn.q_proj 16 2, model.layers.1.self_attn.q_proj 16 2, lm_head 16 2",
		"layers_to_transform: 1\nexclude_modules: .*mlp.*|.*[vo]_proj":               "model.layers.1.self_attn.q_proj 16 2, model.layers.1.self_attn.k_proj 16 2",
		"target_modules: [q_proj]\nuse_rslora: true\nr: 4":                           "model.layers.0.self_attn.q_proj 4 4, model.layers.1.self_attn.q_proj 4 4",
		"target_modules: [q_proj]\nrank_pattern: {0.self_attn.q_proj: 4, q_proj: 8}": "model.layers.0.self_attn.q_proj 4 8, model.layers.1.self_attn.q_proj 8 4",
		"target_modules: [q_proj]\nalpha_pattern: {'.*1.self_attn.q_proj': 4}":       "model.layers.0.self_attn.q_proj 16 2, model.layers.1.self_attn.q_proj 16 0.25",
		"target_modules: [q_proj]\nmodules_to_save: [self_attn]":                     "target_modules and modules_to_save both name",
		"exclude_modules: .*mlp.*\nmodules_to_save: [0.self_attn, norm]\nr: 2": "model.layers.1.self_attn.q_proj 2 2, model.layers.1.self_attn.k_proj 2 2, model.layers.1.self_attn.v_proj 2 2, model.layers.1.self_attn.o_proj 2 2" +
			"; model.layers.0.input_layernorm model.layers.0.post_attention_layernorm model.layers.0.self_attn.k_proj model.layers.0.self_attn.o_proj model.layers.0.self_attn.q_proj model.layers.0.self_attn.v_proj model.layers.1.input_layernorm model.layers.1.post_attention_layernorm model.norm",
	} {
		r, err := ParseRecipe([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		r.resolve()
		d, err := r.design(c)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		var list []string
		for _, m := range d.Modules {
			list = append(list, fmt.Sprint(m.Module, " ", m.R, " ", m.Scale))
		}
		got := strings.Join(list, ", ")
		if len(d.Whole) > 0 {
			got += "; " + strings.ReplaceAll(strings.Join(d.Whole, " "), ".weight", "")
		}
		if got != want {
			t.Errorf("%q:\n%s\nwant\n%s", text, got, want)
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
	f.Add([]byte("rank_pattern: {q_proj: 4, \".*[0-3]\\\\.x\": 8}\nalpha_pattern:\n  k_proj: .5\nlayers_to_transform: [0, 3]\ntrainable_token_indices: {embed_tokens: [1, 2]}\ninit_lora_weights: true\n"))
	f.Add([]byte("adapters:\n- name: a\n  r: 8\n  rank_pattern: {q: 4}\n  data: [x, 'y z']\n- {name: b, init_lora_weights: pissa}\n"))
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
