package model

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// smol is SmolLM2-135M's shape as transformers 4 and 5 write it.
const (
	smol4 = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":576,"intermediate_size":1536,
"num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"vocab_size":49152,"max_position_embeddings":8192,
"rms_norm_eps":1e-05,"hidden_act":"silu","tie_word_embeddings":true,"rope_theta":100000,"rope_scaling":null,
"torch_dtype":"bfloat16","bos_token_id":1,"eos_token_id":2,"pad_token_id":2,"initializer_range":0.041}`
	smol5 = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":576,"intermediate_size":1536,"head_dim":64,
"num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,"vocab_size":49152,"max_position_embeddings":8192,
"rms_norm_eps":1e-05,"hidden_act":"silu","tie_word_embeddings":true,"rope_parameters":{"rope_theta":100000.0,"rope_type":"default"},
"dtype":"bfloat16","bos_token_id":1,"eos_token_id":2,"pad_token_id":2,"initializer_range":0.041}`
)

var sameConfig = cmpopts.IgnoreUnexported(Config{})

func TestConfigForms(t *testing.T) {
	a, err := ParseConfig([]byte(smol4))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseConfig([]byte(smol5))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, b, sameConfig); d != "" {
		t.Errorf("transformers 4 and 5 forms differ:\n%s", d)
	}
	out, err := a.JSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseConfig(out)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(a, c, sameConfig); d != "" {
		t.Errorf("written and read again:\n%s", d)
	}
	var keys map[string]any
	if err := json.Unmarshal(out, &keys); err != nil {
		t.Fatal(err)
	}
	if keys["initializer_range"] != 0.041 {
		t.Errorf("initializer_range is lost: %v", keys["initializer_range"])
	}
}

func TestInventory(t *testing.T) {
	c, err := ParseConfig([]byte(smol4))
	if err != nil {
		t.Fatal(err)
	}
	params, err := Inventory(c)
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 + 30*9 + 1; len(params) != want { // as the published checkpoint: 272 tensors
		t.Errorf("%d parameters, want %d", len(params), want)
	}
	if n, _ := c.Parameters(); n != 134515008 { // SmolLM2-135M's published count
		t.Errorf("%d values, want 134515008", n)
	}
	targets, err := Targets(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) != 210 {
		t.Errorf("%d targets, want 210", len(targets))
	}
	seen := map[string]bool{}
	for _, p := range params {
		g, ok := c.GGUFName(p.Name)
		if !ok || seen[g] {
			t.Errorf("%s has GGUF name %q (%v), seen before: %v", p.Name, g, ok, seen[g])
		}
		seen[g] = true
	}
	for name, want := range map[string]string{
		"model.layers.7.post_attention_layernorm.weight": "blk.7.ffn_norm.weight",
		"model.layers.29.self_attn.o_proj.weight":        "blk.29.attn_output.weight",
		"model.embed_tokens.weight":                      "token_embd.weight",
	} {
		if got, _ := c.GGUFName(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if h := c.RowHeads("model.layers.0.self_attn.k_proj.weight"); h != 3 {
		t.Errorf("k_proj rows go over %d heads, want 3", h)
	}
	if h := c.RowHeads("model.layers.0.self_attn.v_proj.weight"); h != 0 {
		t.Errorf("v_proj rows go over %d heads, want 0", h)
	}
}

type keys map[string]any

func at[T any](k keys, key string) (T, bool, error) {
	var none T
	v, ok := k[key]
	if !ok {
		return none, false, nil
	}
	x, ok := v.(T)
	if !ok {
		return none, false, errors.New(key + " has another type")
	}
	return x, true, nil
}
func (k keys) Uint32(key string) (uint32, bool, error)   { return at[uint32](k, key) }
func (k keys) Float32(key string) (float32, bool, error) { return at[float32](k, key) }
func (k keys) String(key string) (string, bool, error)   { return at[string](k, key) }
func (k keys) Bool(key string) (bool, bool, error)       { return at[bool](k, key) }
func (k keys) HasTensor(name string) bool                { return k["tensor "+name] == true }

func (k keys) Bools(key string) ([]bool, error) {
	v, _ := k[key].([]bool)
	return v, nil
}

func (k keys) Vector(name string) ([]float32, error) {
	v, _ := k["vector "+name].([]float32)
	return v, nil
}

func TestGGUFKeysRoundTrip(t *testing.T) {
	llama3 := &RopeScaling{Type: "llama3", Factor: 32, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}
	for _, scaling := range []*RopeScaling{nil, {Type: "linear", Factor: 4}, llama3} {
		c, err := ParseConfig([]byte(smol4))
		if err != nil {
			t.Fatal(err)
		}
		c.RopeScaling, c.DType = scaling, ""
		k := keys{}
		for _, key := range c.GGUFKeys() {
			k[key.Name] = key.Value
		}
		for name, v := range c.RopeDivisors() {
			k["vector "+name] = v
		}
		got, err := FromGGUF(k, c.Vocab)
		if err != nil {
			t.Fatal(err)
		}
		got.BOS, got.PAD, got.EOS = c.BOS, c.PAD, c.EOS // the tokenizer's keys, not the shape's
		if d := cmp.Diff(c, got, sameConfig); d != "" {
			t.Errorf("scaling %+v:\n%s", scaling, d)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for change, edit := range map[string]func(map[string]any){
		"unknown architecture":  func(m map[string]any) { m["model_type"] = "mamba" },
		"no layers":             func(m map[string]any) { m["num_hidden_layers"] = 0 },
		"negative width":        func(m map[string]any) { m["hidden_size"] = -1 },
		"heads do not divide":   func(m map[string]any) { m["num_key_value_heads"] = 2 },
		"odd head":              func(m map[string]any) { m["head_dim"] = 63 },
		"huge vocabulary":       func(m map[string]any) { m["vocab_size"] = 1 << 40 },
		"scaling":               func(m map[string]any) { m["rope_scaling"] = map[string]any{"type": "magic", "factor": 2} },
		"activation":            func(m map[string]any) { m["hidden_act"] = "relu" },
		"a string for a number": func(m map[string]any) { m["hidden_size"] = "576" },
	} {
		var m map[string]any
		if err := json.Unmarshal([]byte(smol4), &m); err != nil {
			t.Fatal(err)
		}
		edit(m)
		data, _ := json.Marshal(m)
		if _, err := ParseConfig(data); err == nil {
			t.Errorf("%s: accepted", change)
		}
	}
}

// The frequencies of the published llama3 rule at its corners: short waves kept, long ones slowed.
func TestLlama3Frequencies(t *testing.T) {
	plain := newRopeTable(64, 500000, nil).InvFreq
	scaled := newRopeTable(64, 500000, &RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}).InvFreq
	if plain[0] != 1 || scaled[0] != 1 {
		t.Errorf("fastest frequency %v, scaled %v, want 1", plain[0], scaled[0])
	}
	if got, want := scaled[31], plain[31]/8; math.Abs(float64(got-want)) > 1e-12 {
		t.Errorf("slowest frequency %v, want %v", got, want)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(smol4))
	f.Add([]byte(smol5))
	for _, g := range readPublished(f) {
		f.Add([]byte(g.Given))
		f.Add([]byte(g.Saved))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		out, err := c.JSON(nil)
		if err != nil {
			t.Fatalf("accepted but not written: %v", err)
		}
		again, err := ParseConfig(out)
		if err != nil {
			t.Fatalf("written but refused: %v\n%s", err, out)
		}
		if d := cmp.Diff(c, again, sameConfig, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("changed by writing:\n%s", d)
		}
	})
}

// TestGGUFNote: who writes a model for llama.cpp is told where it drops a window.
func TestGGUFNote(t *testing.T) {
	for text, want := range map[string]bool{
		`{"model_type":"mistral","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":8192,"sliding_window":4096}`:        true,
		`{"model_type":"mistral","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":8192,"sliding_window":null}`:        false,
		`{"model_type":"gemma2","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"query_pre_attn_scalar":16,"sliding_window":64}`: false,
	} {
		c, err := ParseConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if note := c.GGUFNote(); (note != "") != want {
			t.Errorf("%s: %q", text, note)
		}
	}
}
