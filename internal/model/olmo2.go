package model

// OLMo 2 (OLMo et al. 2024): norms after each part and none before; q and k are normed over their
// full width, all heads together, before they are rotated.
func init() {
	register(&Arch{
		ModelType: "olmo2",
		Class:     "Olmo2ForCausalLM",
		GGUF:      "olmo2",
		defaults: `{"vocab_size":50304,"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":null,"hidden_act":"silu","max_position_embeddings":2048,"rms_norm_eps":1e-5,"eos_token_id":50279,"pad_token_id":1,
"tie_word_embeddings":false,"rope_theta":10000,"attention_bias":false}`,
		names: sandwich,
		scaling4: func(c *Config) map[string]any {
			if s := c.RopeScaling; s.Type == "linear" {
				return map[string]any{"type": s.Type, "factor": real(s.Factor)}
			}
			return c.RopeScaling.json()
		},
		llamaCpp: limits{square: true, head: "own"},
		readGGUF: func(c *Config, r *ggufReader) {
			if r.count("olmo2"+slidingWindow, 0) > 0 {
				r.become(c, "olmo3")
				c.LocalTheta = c.RopeTheta
			}
		},
	})
}

func olmo2Forward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		q := l.norm("self_attn.q_norm", c.Heads*c.HeadDim, l.query(bias, x))
		k := l.norm("self_attn.k_norm", c.KVHeads*c.HeadDim, l.key(bias, x))
		h := l.attend(bias, q, k, l.value(bias, x))
		x = o.Add(x, l.norm("post_attention_layernorm", c.Hidden, h))
		return o.Add(x, l.norm("post_feedforward_layernorm", c.Hidden, l.mlp(x)))
	})
}
