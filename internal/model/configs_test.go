package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// published is what testdata/golden/model/make.py says of one configuration.
type published struct {
	Given, Saved json.RawMessage
	Window, Rope []json.RawMessage // runs of [times, value]
	Scale        []float64         // of scores, embeddings, logits
	Params       map[string][]int
	Tied         bool
}

func readPublished(t testing.TB) map[string]published {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "model", "configs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]published
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// runs undoes the script's [times, value].
func runs[T any](t *testing.T, list []json.RawMessage) []T {
	t.Helper()
	var out []T
	for _, raw := range list {
		var pair []json.RawMessage
		var times int
		var v T
		if err := json.Unmarshal(raw, &pair); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(pair[0], &times); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(pair[1], &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, slices.Repeat([]T{v}, times)...)
	}
	return out
}

func close32(a, b float64) bool { return math.Abs(a-b) <= 3e-7*math.Abs(b) }

// TestConfigsMeanWhatTransformersMakesOfThem reads configurations as they are published and as
// transformers 5 saves them, and compares what each layer does with the modules that transformers makes.
func TestConfigsMeanWhatTransformersMakesOfThem(t *testing.T) {
	for name, g := range readPublished(t) {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig(g.Given)
			if err != nil {
				t.Fatal(err)
			}
			out, err := c.JSON(nil)
			if err != nil {
				t.Fatal(err)
			}
			for form, data := range map[string][]byte{"saved by transformers 5": g.Saved, "written here": out} {
				other, err := ParseConfig(data)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if d := cmp.Diff(c, other, sameConfig, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("%s:\n%s", form, d)
				}
			}
			if c.Tied != g.Tied {
				t.Errorf("tied %v, want %v", c.Tied, g.Tied)
			}
			compareLayers(t, c, g)
			compareParams(t, c, g.Params)
		})
	}
}

func compareLayers(t *testing.T, c *Config, g published) {
	t.Helper()
	windows, ropes := runs[int](t, g.Window), runs[[]float64](t, g.Rope)
	if c.Layers != len(windows) {
		t.Fatalf("%d layers, want %d", c.Layers, len(windows))
	}
	for i := range c.Layers {
		if c.window(i) != windows[i] {
			t.Errorf("layer %d sees %d keys, want %d", i, c.window(i), windows[i])
		}
		if without := c.NoRope != nil && c.NoRope[i]; without || ropes[i] == nil {
			if !without || ropes[i] != nil {
				t.Errorf("layer %d without positions: %v, want %v", i, without, ropes[i] == nil)
			}
			continue
		}
		table := c.rope(i)
		n := len(table.InvFreq)
		got := []float64{float64(n), float64(table.InvFreq[0]), float64(table.InvFreq[n/2]), float64(table.InvFreq[n-1]), float64(table.Scale), 0}
		if table.Long != nil {
			got[5] = float64(table.Long[n-1])
		}
		if !slices.EqualFunc(got, ropes[i], close32) {
			t.Errorf("positions of layer %d are %v, want %v", i, got, ropes[i])
		}
	}
	divisor, embedding := 1.0, 1.0
	if c.LogitsDivisor != 0 {
		divisor = c.LogitsDivisor
	}
	if c.EmbeddingScale != 0 {
		embedding = c.EmbeddingScale
	}
	if got := []float64{c.attentionScale(), embedding, 1 / divisor}; !slices.EqualFunc(got, g.Scale, close32) {
		t.Errorf("scales %v, want %v", got, g.Scale)
	}
}

func compareParams(t *testing.T, c *Config, want map[string][]int) {
	t.Helper()
	params, err := Inventory(c)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]int{}
	for _, p := range params {
		if !strings.Contains(p.Name, ".layers.") || strings.Contains(p.Name, ".layers.0.") {
			got[p.Name] = p.Shape
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("parameters:\n%s", d)
	}
	targets, err := Targets(c)
	if err != nil {
		t.Fatal(err)
	}
	products := map[string]bool{} // PEFT's all-linear: every nn.Linear but the head
	for name, shape := range want {
		if module, ok := strings.CutSuffix(name, ".weight"); ok && len(shape) == 2 && strings.Contains(name, ".layers.") {
			products[module] = true
		}
	}
	n := 0
	for _, l := range targets {
		if strings.Contains(l.Module, ".layers.0.") {
			n++
			if !products[l.Module] {
				t.Errorf("%s is a target", l.Module)
			}
		}
	}
	if n != len(products) {
		t.Errorf("%d targets a layer, want %d", n, len(products))
	}
}

// TestGGUFRoundTrip writes every configuration as metadata and reads it back. What the tokenizer says is
// left out; a Mistral without a window is a llama there.
func TestGGUFRoundTrip(t *testing.T) {
	for name, g := range readPublished(t) {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig(g.Given)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.CheckGGUF(); err != nil {
				t.Fatal(err)
			}
			got, err := FromGGUF(asKeys(t, c), c.Vocab)
			if err != nil {
				t.Fatal(err)
			}
			want := *c
			want.BOS, want.PAD, want.EOS, want.DType = -1, -1, nil, ""
			if want.Arch == "mistral" && want.Window == 0 {
				want.Arch = "llama"
			}
			if d := cmp.Diff(&want, got, sameConfig, cmpopts.EquateEmpty(), cmp.Comparer(close32)); d != "" {
				t.Error(d)
			}
		})
	}
}

// asKeys is a GGUF file of a configuration.
func asKeys(t testing.TB, c *Config) keys {
	t.Helper()
	k := keys{}
	for _, key := range c.GGUFKeys() {
		if k[key.Name] != nil {
			t.Errorf("%s is written twice", key.Name)
		}
		k[key.Name] = key.Value
	}
	for name, v := range c.RopeDivisors() {
		k["vector "+name] = v
	}
	params, err := Inventory(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range params {
		name, ok := c.GGUFName(p.Name)
		if !ok || k["tensor "+name] != nil {
			t.Errorf("%s has GGUF name %q (%v), another has the same: %v", p.Name, name, ok, k["tensor "+name] != nil)
		}
		k["tensor "+name] = true
	}
	return k
}

// edited parses a published configuration with keys changed.
func edited(t *testing.T, name string, change map[string]any) (*Config, error) {
	t.Helper()
	g, ok := readPublished(t)[name]
	if !ok {
		t.Fatalf("no configuration %s", name)
	}
	var m map[string]any
	if err := json.Unmarshal(g.Given, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range change {
		m[k] = v
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return ParseConfig(data)
}

// TestKeysRefused: what changes the computation, and the family's definition lacks, is named.
func TestKeysRefused(t *testing.T) {
	yarn := map[string]any{"rope_type": "yarn", "factor": 4.0}
	for _, r := range []struct {
		model, key string
		value      any
		says       string // "": the key
	}{
		{"TinyLlama-1.1B", "sliding_window", 4096, ""},
		{"TinyLlama-1.1B", "layer_types", []string{"sliding_attention"}, ""},
		{"TinyLlama-1.1B", "partial_rotary_factor", 0.5, ""},
		{"TinyLlama-1.1B", "num_local_experts", 8, ""},
		{"TinyLlama-1.1B", "rope_scaling", map[string]any{"type": "dynamic", "factor": 2.0}, "dynamic"},
		{"TinyLlama-1.1B", "rope_parameters", map[string]any{"rope_theta": 1e4, "mrope_section": []int{1, 2}}, "mrope_section"},
		{"TinyLlama-1.1B", "rope_parameters", map[string]any{"full_attention": map[string]any{"rope_theta": 1e4}}, "rope_parameters"},
		{"TinyLlama-1.1B", "logits_scaling", 2.0, ""},
		{"TinyLlama-1.1B", "final_logit_softcapping", 30.0, ""},
		{"TinyLlama-1.1B", "no_rope_layers", []int{1, 0}, ""},
		{"Mistral-7B-v0.1", "attention_bias", true, ""},
		{"Mistral-7B-v0.1", "layer_types", slices.Concat(slices.Repeat([]string{"sliding_attention"}, 31), []string{"full_attention"}), ""},
		{"Mistral-7B-v0.1", "sliding_window", -1, ""},
		{"Qwen2.5-0.5B", "attention_bias", true, ""},
		{"Qwen2.5-0.5B", "mlp_bias", true, ""},
		{"Qwen2.5-7B with yarn", "layer_types", []string{"full_attention"}, ""},
		{"Qwen3-0.6B", "layer_types", slices.Repeat([]string{"linear_attention"}, 28), "linear_attention"},
		{"Qwen3-0.6B", "num_experts", 128, ""},
		{"gemma-3-1b", "use_bidirectional_attention", true, ""},
		{"gemma-3-1b", "attn_logit_softcapping", 50.0, ""},
		{"gemma-3-1b", "hidden_activation", "gelu", "gelu"},
		{"gemma-3-1b", "sliding_window_pattern", 0, ""},
		{"gemma-3-1b", "rope_parameters", map[string]any{"rope_type": "default", "rope_theta": 1e4}, "rope_parameters"},
		{"gemma-3-1b", "rope_parameters", map[string]any{"sliding_attention": yarn}, "sliding layers"},
		{"gemma-3-4b", "text_config", map[string]any{"model_type": "gemma3n_text"}, "gemma3n_text"},
		{"SmolLM3-3B", "no_rope_layers", []int{1, 0}, ""},
		{"granite-3.3-2b", "residual_multiplier", -0.5, ""},
		{"Phi-4-mini", "partial_rotary_factor", 0.7, ""},
		{"Phi-4-mini", "partial_rotary_factor", 0.5, "factors"},
		{"Phi-4-mini", "partial_rotary_factor", 1.5, ""},
		{"Phi-4-mini", "rope_scaling", map[string]any{"type": "longrope", "short_factor": []int{1}, "long_factor": []int{1}}, "longrope"},
	} {
		says := r.says
		if says == "" {
			says = r.key
		}
		if _, err := edited(t, r.model, map[string]any{r.key: r.value}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s with %s %v: %v, want an error that says %q", r.model, r.key, r.value, err, says)
		}
	}
}

// TestModule: an adapter of a model of several parts names the text model's modules by their place in it.
func TestModule(t *testing.T) {
	for _, r := range []struct{ model, path, want string }{
		{"gemma-3-4b", "model.language_model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj"},
		{"gemma-3-4b", "language_model.model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj"},
		{"gemma-3-4b", "model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj"},
		{"gemma-3-4b", "vision_tower.layers.3.mlp.fc1", "vision_tower.layers.3.mlp.fc1"},
		{"gemma-2-2b", "model.language_model.layers.3.mlp.up_proj", "model.language_model.layers.3.mlp.up_proj"},
	} {
		c, err := edited(t, r.model, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Module(r.path); got != r.want {
			t.Errorf("%s: %s is %s, want %s", r.model, r.path, got, r.want)
		}
	}
}

// TestOldNames: names that a key or a scaling had before mean what they mean now.
func TestOldNames(t *testing.T) {
	want, err := edited(t, "Phi-3-mini-128k", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"su", "yarn"} {
		scaling := map[string]any{"type": kind, "short_factor": want.RopeScaling.Short, "long_factor": want.RopeScaling.Long}
		got, err := edited(t, "Phi-3-mini-128k", map[string]any{"rope_scaling": scaling})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, sameConfig); d != "" {
			t.Errorf("%s:\n%s", kind, d)
		}
	}
}

// TestGGUFRefused: a file that llama.cpp would not load, or would compute otherwise, is not written.
func TestGGUFRefused(t *testing.T) {
	llama3 := map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
	yarn := map[string]any{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
	for _, r := range []struct {
		model  string
		change map[string]any
		says   string
	}{
		{"Qwen3-0.6B", map[string]any{"attention_bias": true}, "attention_bias"},
		{"Qwen3-0.6B", map[string]any{"rope_scaling": llama3}, "llama3"},
		{"Qwen2.5-0.5B", map[string]any{"head_dim": 128}, "heads"},
		{"SmolLM3-3B", map[string]any{"mlp_bias": true}, "mlp_bias"},
		{"SmolLM3-3B", map[string]any{"no_rope_layers": slices.Repeat([]int{1}, 36)}, "no_rope_layers"},
		{"gemma-2-2b", map[string]any{"query_pre_attn_scalar": 144}, "query_pre_attn_scalar"},
		{"gemma-2-2b", map[string]any{"attn_logit_softcapping": nil}, "softcap"},
		{"gemma-2-2b", map[string]any{"tie_word_embeddings": false}, "tie_word_embeddings"},
		{"gemma-3-1b", map[string]any{"query_pre_attn_scalar": 168}, "query_pre_attn_scalar"},
		{"gemma-3-1b", map[string]any{"rope_scaling": yarn}, "yarn"},
		{"OLMo-2-7B", map[string]any{"tie_word_embeddings": true}, "tie_word_embeddings"},
		{"TinyLlama-1.1B", map[string]any{"hidden_act": "gelu_pytorch_tanh"}, "gelu_pytorch_tanh"},
		{"TinyLlama-1.1B", map[string]any{"rope_scaling": map[string]any{"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0}}, "beta_fast"},
	} {
		c, err := edited(t, r.model, r.change)
		if err != nil {
			t.Errorf("%s with %v: %v", r.model, r.change, err)
			continue
		}
		if err := c.CheckGGUF(); err == nil || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s with %v: %v, want an error that says %q", r.model, r.change, err, r.says)
		}
	}
}

// TestGGUFForeign: keys of a file whose meaning is not known are refused by name.
func TestGGUFForeign(t *testing.T) {
	for _, r := range []struct {
		model, key string
		value      any
		says       string // "": the key
	}{
		{"TinyLlama-1.1B", "general.architecture", "qwen3moe", "experts"},
		{"TinyLlama-1.1B", "general.architecture", "starcoder2", "this version knows"},
		{"TinyLlama-1.1B", "llama.expert_count", uint32(8), ""},
		{"TinyLlama-1.1B", "llama.rope.dimension_count", uint32(32), ""},
		{"TinyLlama-1.1B", "llama.attention.value_length", uint32(32), "values"},
		{"TinyLlama-1.1B", "llama.attention.causal", false, ""},
		{"TinyLlama-1.1B", "llama.rope.scaling.type", "dynamic", ""},
		{"TinyLlama-1.1B", "llama.rope.scaling.attn_factor", float32(1.5), ""},
		{"TinyLlama-1.1B", "llama.attn_logit_softcapping", float32(50), ""},
		{"granite-3.3-2b", "granite.rope.scaling.finetuned", false, ""},
		{"gemma-3-1b", "gemma3.attention.sliding_window_pattern", []bool{true}, ""},
		{"gemma-3-1b", "gemma3.attention.head_count", uint32(0), "num_attention_heads"},
		{"gemma-2-2b", "gemma2.block_count", uint32(1 << 31), "num_hidden_layers"},
		{"Phi-4-mini", "vector rope_factors_long.weight", []float32{1, 2}, "longrope"},
		{"Phi-4-mini", "phi3.rope.dimension_count", uint32(300), ""},
	} {
		c, err := edited(t, r.model, nil)
		if err != nil {
			t.Fatal(err)
		}
		k := asKeys(t, c)
		k[r.key] = r.value
		says := r.says
		if says == "" {
			says = r.key
		}
		if _, err := FromGGUF(k, c.Vocab); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s with %s %v: %v, want an error that says %q", r.model, r.key, r.value, err, says)
		}
	}
}

// TestGGUFOldNames: a factor under the name it had in 2023, and a factor of sines and cosines as llama.cpp
// reads it, on top of yarn's own.
func TestGGUFOldNames(t *testing.T) {
	c, err := edited(t, "TinyLlama-1.1B", nil)
	if err != nil {
		t.Fatal(err)
	}
	k := asKeys(t, c)
	k["llama.rope.scale_linear"] = float32(2)
	got, err := FromGGUF(k, c.Vocab)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.RopeScaling; s == nil || s.Type != "linear" || s.Factor != 2 {
		t.Errorf("scaling %+v, want linear by 2", s)
	}
	k["llama.rope.scaling.type"], k["llama.rope.scaling.factor"], k["llama.rope.scaling.attn_factor"] = "yarn", float32(4), float32(0.5)
	if got, err = FromGGUF(k, c.Vocab); err != nil {
		t.Fatal(err)
	}
	if s := got.RopeScaling; s.Type != "yarn" || !close32(s.AttentionFactor, 0.5*(1+0.1*math.Log(4))) {
		t.Errorf("scaling %+v, want yarn with half its attention factor", s)
	}
}

// TestUnknownArchitecture: what is missing is said of families that are near.
func TestUnknownArchitecture(t *testing.T) {
	for name, says := range map[string]string{"mixtral": "experts", "qwen2_moe": "experts", "gemma3n": "alternating", "llama4": "chunks",
		"qwen3_5": "delta", "gemma4": "embeddings of each layer", "nobody": "olmo3, phi3"} {
		_, err := ParseConfig(fmt.Appendf(nil, `{"model_type":%q}`, name))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error that says %q", name, err, says)
		}
	}
	for name := range missing {
		if archs[name] != nil {
			t.Errorf("%s is known, yet it is said to be missing something", name)
		}
	}
}

func FuzzFromGGUF(f *testing.F) {
	for i := range 20 {
		f.Add([]byte{byte(i), 3, 200, 7, 1, 255, byte(i * 13)})
	}
	all := readPublished(f)
	var configs []*Config
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c, err := ParseConfig(all[name].Given)
		if err != nil {
			f.Fatal(err)
		}
		configs = append(configs, c)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		c := configs[int(data[0])%len(configs)]
		k := asKeys(t, c)
		var names []string
		for name := range k {
			names = append(names, name)
		}
		slices.Sort(names)
		for i := 1; i+1 < len(data); i += 2 { // change some values, to the ends of their range too
			name := names[int(data[i])%len(names)]
			switch v := k[name].(type) {
			case uint32:
				k[name] = v<<(data[i+1]%32) ^ uint32(data[i+1])
			case float32:
				k[name] = math.Float32frombits(math.Float32bits(v) ^ 1<<(data[i+1]%32))
			case []bool:
				k[name] = v[:int(data[i+1])%(len(v)+1)]
			case []float32:
				k[name] = v[:int(data[i+1])%(len(v)+1)]
			case bool:
				delete(k, name)
			}
		}
		got, err := FromGGUF(k, c.Vocab)
		if err != nil {
			return
		}
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		if _, err := got.JSON(nil); err != nil {
			t.Fatal(err)
		}
		_ = got.CheckGGUF()
	})
}
