package model

// SmolLM3 (Hugging Face 2025): a llama without rotary positions in every fourth layer. llama.cpp has
// that rule built in, so a GGUF file can hold no other; it knows no window.
func init() {
	every4th := func(i int) bool { return (i+1)%4 == 0 }
	register(&Arch{
		ModelType: "smollm3",
		Class:     "SmolLM3ForCausalLM",
		GGUF:      "smollm3",
		defaults: `{"vocab_size":128256,"hidden_size":2048,"intermediate_size":11008,"num_hidden_layers":36,"num_attention_heads":16,
"num_key_value_heads":4,"hidden_act":"silu","max_position_embeddings":32768,"rms_norm_eps":1e-6,"bos_token_id":128000,
"eos_token_id":128001,"pad_token_id":128004,"tie_word_embeddings":true,"rope_theta":2000000,"attention_bias":false,"mlp_bias":false,
"use_sliding_window":false,"sliding_window":null,"layer_types":null,"no_rope_layers":null,"no_rope_layer_interval":4}`,
		// The layers that slide are those without positions.
		slides: func(c *Config, h *hfConfig) (func(i int) bool, error) {
			if err := c.fillNoRope(h); err != nil {
				return nil, err
			}
			return func(i int) bool { return c.NoRope != nil && c.NoRope[i] }, nil
		},
		names:    preNorm,
		pairs:    true,
		readGGUF: func(c *Config, _ *ggufReader) { c.setNoRope(every4th) },
		ggufReason: func(c *Config) string {
			for i := range c.Layers {
				if (c.NoRope != nil && c.NoRope[i]) != every4th(i) {
					return "no_rope_layers other than every fourth"
				}
			}
			return ""
		},
	})
}
