package model

// Qwen3 (Yang et al. 2025): a llama that norms each head of q and k before it is rotated, with one
// gain for all heads.
func init() {
	register(&Arch{
		ModelType: "qwen3",
		Class:     "Qwen3ForCausalLM",
		GGUF:      "qwen3",
		defaults: `{"vocab_size":151936,"hidden_size":4096,"intermediate_size":22016,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":32,"head_dim":128,"hidden_act":"silu","max_position_embeddings":32768,"rms_norm_eps":1e-6,"tie_word_embeddings":false,
"rope_theta":10000,"attention_bias":false,"use_sliding_window":false,"sliding_window":4096,"max_window_layers":28,"layer_types":null}`,
		slides: lateLayers,
		names:  preNorm,
	})
}

func qwen3Forward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		q := l.norm("self_attn.q_norm", c.HeadDim, l.query(bias, h))
		k := l.norm("self_attn.k_norm", c.HeadDim, l.key(bias, h))
		x = o.Add(x, l.attend(bias, q, k, l.value(bias, h)))
		return o.Add(x, l.mlp(l.norm("post_attention_layernorm", c.Hidden, x)))
	})
}
