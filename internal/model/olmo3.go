package model

// OLMo 3 (OLMo et al. 2025): OLMo 2 with three sliding layers to one that sees all. Scaling of
// positions does not touch the sliding ones. A GGUF file of it is one of architecture olmo2 with a
// window.
func init() {
	register(&Arch{
		ModelType: "olmo3",
		Class:     "Olmo3ForCausalLM",
		GGUF:      "olmo2",
		defaults: `{"vocab_size":50304,"hidden_size":4096,"intermediate_size":11008,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":null,"hidden_act":"silu","max_position_embeddings":2048,"rms_norm_eps":1e-5,"eos_token_id":50279,"pad_token_id":1,
"tie_word_embeddings":false,"rope_theta":500000,"attention_bias":false,"sliding_window":4096,"layer_types":null}`,
		slides: func(*Config, *hfConfig) (func(i int) bool, error) {
			return func(i int) bool { return (i+1)%4 != 0 }, nil
		},
		localRope: true,
		names:     sandwich,
		period:    4,
		llamaCpp:  limits{square: true, head: "own"},
		writeGGUF: func(c *Config) []Key { // the converter writes it in any case
			if list, regular := c.pattern(4); regular {
				return []Key{{slidingPattern, list}}
			}
			return nil
		},
		ggufReason: func(c *Config) string {
			switch {
			case c.Window == 0:
				return "no sliding layers, which makes it an OLMo 2"
			case c.LocalTheta != c.RopeTheta:
				return "a rope_theta of its own for sliding layers"
			}
			return ""
		},
	})
}
