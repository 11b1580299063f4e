package model

// Gemma 2 (Gemma Team 2024): norms that store their gain less one, on both ends of each part;
// embeddings times the root of their width; a GELU-gated unit; softcaps on scores and logits; every
// other layer slides.
func init() {
	register(&Arch{
		ModelType: "gemma2",
		Class:     "Gemma2ForCausalLM",
		GGUF:      "gemma2",
		defaults: `{"vocab_size":256000,"hidden_size":2304,"intermediate_size":9216,"num_hidden_layers":26,"num_attention_heads":8,
"num_key_value_heads":4,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh","max_position_embeddings":8192,"rms_norm_eps":1e-6,
"bos_token_id":2,"eos_token_id":1,"pad_token_id":0,"tie_word_embeddings":true,"rope_theta":10000,"attention_bias":false,
"query_pre_attn_scalar":256,"sliding_window":4096,"layer_types":null,"final_logit_softcapping":30.0,"attn_logit_softcapping":50.0}`,
		slides: func(*Config, *hfConfig) (func(i int) bool, error) {
			return func(i int) bool { return i%2 == 0 }, nil
		},
		names:    sandwich,
		offset:   true,
		llamaCpp: limits{head: "tied"},
		period:   2,
		readGGUF: func(c *Config, r *ggufReader) {
			readGemma(46)(c, r)
			if !r.has("gemma2" + slidingWindow) {
				c.setSliding(4096, func(i int) bool { return i%2 == 0 })
			}
			c.AttnSoftcap, c.FinalSoftcap = r.float("gemma2.attn_logit_softcapping", 50), r.float("gemma2.final_logit_softcapping", 30)
		},
		ggufReason: func(c *Config) string {
			if c.AttnSoftcap == 0 || c.FinalSoftcap == 0 {
				return "a softcap of none, which llama.cpp takes for 50 and 30"
			}
			if c.Window == 0 {
				return "no sliding layers"
			}
			return gemmaScale(46)(c)
		},
	})
}

func gemma2Forward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		return gemmaRest(l, x, l.attend(bias, l.query(bias, h), l.key(bias, h), l.value(bias, h)))
	})
}
