package model

// Mistral (Jiang et al. 2023): a llama whose layers may all see no more than a window of keys.
//
// A GGUF file of it is one of architecture llama. llama.cpp has no window there and sees all keys, so
// that logits part past the window's length; the window is written all the same, under a key that
// llama.cpp does not read, and comes back from it.
func init() {
	register(&Arch{
		ModelType: "mistral",
		Class:     "MistralForCausalLM",
		GGUF:      "llama",
		defaults: `{"vocab_size":32000,"hidden_size":4096,"intermediate_size":14336,"num_hidden_layers":32,"num_attention_heads":32,
"num_key_value_heads":8,"head_dim":null,"hidden_act":"silu","max_position_embeddings":131072,"rms_norm_eps":1e-6,"bos_token_id":1,
"eos_token_id":2,"tie_word_embeddings":false,"rope_theta":10000,"sliding_window":4096}`,
		names:    preNorm,
		pairs:    true,
		llamaCpp: limits{scalings: "llama3 longrope"},
	})
}
