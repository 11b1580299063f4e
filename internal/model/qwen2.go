package model

import "fmt"

// Qwen2 and Qwen2.5 (Yang et al. 2024): a llama with biases on q, k and v. Where use_sliding_window is
// set, layers from max_window_layers on slide; llama.cpp does not know that and sees all keys.
func init() {
	register(&Arch{
		ModelType: "qwen2",
		Class:     "Qwen2ForCausalLM",
		GGUF:      "qwen2",
		defaults: `{"vocab_size":151936,"hidden_size":4096,"intermediate_size":22016,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":32,"hidden_act":"silu","max_position_embeddings":32768,"rms_norm_eps":1e-6,"tie_word_embeddings":false,
"rope_theta":10000,"use_sliding_window":false,"sliding_window":4096,"max_window_layers":28,"layer_types":null}`,
		slides:   lateLayers,
		names:    preNorm,
		llamaCpp: limits{square: true},
	})
}

// lateLayers is the rule of max_window_layers.
func lateLayers(_ *Config, h *hfConfig) (func(i int) bool, error) {
	if h.WindowLayers < 0 {
		return nil, fmt.Errorf("model: configuration: max_window_layers is %d", h.WindowLayers)
	}
	return func(i int) bool { return i >= h.WindowLayers }, nil
}

func qwen2Forward[V any](c *Config, o Ops[V], tokens V) V {
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		x = o.Add(x, l.attend(false, l.query(true, h), l.key(true, h), l.value(true, h)))
		return o.Add(x, l.mlp(l.norm("post_attention_layernorm", c.Hidden, x)))
	})
}
