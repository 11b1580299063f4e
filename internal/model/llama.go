package model

import "fmt"

// The llama family (Touvron et al. 2023): Llama 1–3, SmolLM, SmolLM2, TinyLlama. RMSNorm before each
// part, rotary positions, grouped-query attention and a SiLU-gated unit.
func init() {
	register(&Arch{
		ModelType: "llama",
		Class:     "LlamaForCausalLM",
		GGUF:      "llama",
		defaults: `{"vocab_size":32000,"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":null,"head_dim":null,"hidden_act":"silu","max_position_embeddings":2048,"rms_norm_eps":1e-6,"bos_token_id":1,
"eos_token_id":2,"tie_word_embeddings":false,"rope_theta":10000,"attention_bias":false,"mlp_bias":false}`,
		names:    preNorm,
		pairs:    true,
		llamaCpp: limits{outputBias: true, scalings: "llama3 longrope"},
		// Mistral shares general.architecture with this family; a window shows which it is.
		readGGUF: func(c *Config, r *ggufReader) {
			if r.count("llama"+slidingWindow, 0) == 0 {
				return
			}
			r.become(c, "mistral")
			if r.err == nil && (c.AttentionBias || c.MLPBias) {
				r.err = fmt.Errorf("model: reading GGUF metadata: llama%s together with biases: %w", slidingWindow, ErrUnsupported)
			}
		},
	})
}

func llamaForward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		x = o.Add(x, l.attend(bias, l.query(bias, h), l.key(bias, h), l.value(bias, h)))
		return o.Add(x, l.mlp(l.norm("post_attention_layernorm", c.Hidden, x)))
	})
}
