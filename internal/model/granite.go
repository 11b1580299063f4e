package model

// Granite 3 (IBM 2024): a llama with factors on embeddings, scores, what is added to the residual
// stream, and logits.
func init() {
	register(&Arch{
		ModelType: "granite",
		Class:     "GraniteForCausalLM",
		GGUF:      "granite",
		defaults: `{"vocab_size":32000,"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":null,"hidden_act":"silu","max_position_embeddings":2048,"rms_norm_eps":1e-6,"bos_token_id":1,"eos_token_id":2,
"tie_word_embeddings":false,"rope_theta":10000,"attention_bias":false,"mlp_bias":false,"embedding_multiplier":1.0,
"attention_multiplier":1.0,"residual_multiplier":1.0,"logits_scaling":1.0}`,
		names:    preNorm,
		pairs:    true,
		llamaCpp: limits{outputBias: true, scalings: "llama3 longrope"},
		writeGGUF: func(c *Config) []Key {
			return []Key{
				{".attention.scale", float32(c.AttentionScale)}, {".embedding_scale", float32(c.EmbeddingScale)},
				{".residual_scale", float32(c.ResidualScale)}, {".logit_scale", float32(c.LogitsDivisor)},
			}
		},
		readGGUF: func(c *Config, r *ggufReader) { // where a key is absent, llama.cpp does nothing
			c.AttentionScale = r.float("granite.attention.scale", c.attentionScale())
			c.EmbeddingScale, c.ResidualScale = r.float("granite.embedding_scale", 1), r.float("granite.residual_scale", 1)
			c.LogitsDivisor = r.float("granite.logit_scale", 1)
		},
	})
}

func graniteForward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		x = o.Add(x, o.Scale(c.ResidualScale, l.attend(bias, l.query(bias, h), l.key(bias, h), l.value(bias, h))))
		return o.Add(x, o.Scale(c.ResidualScale, l.mlp(l.norm("post_attention_layernorm", c.Hidden, x))))
	})
}
