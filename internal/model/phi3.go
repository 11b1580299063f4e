package model

// Phi 3, 3.5 and 4 (Abdin et al. 2024): a llama whose q, k and v are one product and whose gate and up
// are another. Long-context ones scale positions by longrope (Ding et al. 2024); Phi-4-mini rotates a
// part of each head.
//
// llama.cpp turns the family's window off, so that logits part past it. Which set of longrope's
// factors it uses goes by the context that was asked for; here, as in transformers, by the length of
// the sequence.
func init() {
	register(&Arch{
		ModelType: "phi3",
		Class:     "Phi3ForCausalLM",
		GGUF:      "phi3",
		defaults: `{"vocab_size":32064,"hidden_size":3072,"intermediate_size":8192,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":null,"hidden_act":"silu","max_position_embeddings":4096,"original_max_position_embeddings":4096,"rms_norm_eps":1e-5,
"bos_token_id":1,"eos_token_id":32000,"pad_token_id":32000,"tie_word_embeddings":false,"rope_theta":10000,"partial_rotary_factor":1.0,
"sliding_window":null}`,
		names:    map[string]string{"post_attention_layernorm": "ffn_norm", "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
		llamaCpp: limits{square: true, scalings: "longrope"},
		scaling4: (*Config).phi3Scaling,
		writeGGUF: func(c *Config) (keys []Key) {
			if c.Window == 0 { // llama.cpp tells Phi 4 by it
				keys = append(keys, Key{slidingWindow, uint32(0)})
			}
			if c.RopeScaling == nil {
				keys = append(keys, Key{ropeScaling + "original_context_length", uint32(c.Context)})
			}
			return keys
		},
	})
}

func phi3Forward[V any](c *Config, o Ops[V], tokens V) V {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		qkv := o.Split(l.linear("self_attn.qkv_proj", c.Hidden, q+2*kv, false, h), q, kv, kv)
		x = o.Add(x, l.attend(false, qkv[0], qkv[1], qkv[2]))

		h = l.norm("post_attention_layernorm", c.Hidden, x)
		pair := o.Split(l.linear("mlp.gate_up_proj", c.Hidden, 2*c.Intermediate, false, h), c.Intermediate, c.Intermediate)
		return o.Add(x, l.linear("mlp.down_proj", c.Intermediate, c.Hidden, false, o.Gated(c.Act, pair[0], pair[1])))
	})
}

// phi3Scaling is rope_scaling as transformers 4 wants it of this family: three keys, no more. The
// factor of sines and cosines stands there only where it is not the one that follows from the rest.
func (c *Config) phi3Scaling() map[string]any {
	s := c.RopeScaling
	m := map[string]any{"type": s.Type, "short_factor": reals(s.Short), "long_factor": reals(s.Long)}
	if s.AttentionFactor != longFactor(float64(c.Context)/float64(s.OriginalContext), s.OriginalContext) {
		m["attention_factor"] = real(s.AttentionFactor)
	}
	return m
}
