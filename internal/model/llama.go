package model

import "fmt"

// The llama family (Touvron et al. 2023): Llama 1–3, SmolLM, SmolLM2, TinyLlama and Mistral's
// layout without a window. RMSNorm before each part, rotary positions, grouped-query attention and
// a SiLU-gated unit.
func init() {
	register(&Arch{
		ModelType: "llama",
		Class:     "LlamaForCausalLM",
		GGUF:      "llama",
		names:     map[string]string{"post_attention_layernorm": "ffn_norm"},
		// ggml rotates neighbouring features for this family, Hugging Face halves: the rows of q and
		// k stand in another order in a GGUF file.
		rowHeads: func(c *Config, name string) int {
			switch moduleOf(name) {
			case "self_attn.q_proj":
				return c.Heads
			case "self_attn.k_proj":
				return c.KVHeads
			}
			return 0
		},
	})
}

func llamaForward[V any](c *Config, o Ops[V], tokens V) V {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	x := o.Embed(c.embedding(), tokens)
	for i := range c.Layers {
		at := fmt.Sprintf("model.layers.%d.", i)
		linear := func(module string, in, out int, bias bool) Linear {
			return Linear{Module: at + module, In: in, Out: out, Bias: bias}
		}
		norm := func(module string) Norm { return Norm{Module: at + module, Width: c.Hidden, Eps: c.RMSEps} }
		x = o.Block(i, x)

		h := o.RMSNorm(norm("input_layernorm"), x)
		qs := o.Rope(Rope{i, c.Heads, c.HeadDim, c.rope()}, o.Linear(linear("self_attn.q_proj", c.Hidden, q, c.AttentionBias), h))
		ks := o.Rope(Rope{i, c.KVHeads, c.HeadDim, c.rope()}, o.Linear(linear("self_attn.k_proj", c.Hidden, kv, c.AttentionBias), h))
		vs := o.Linear(linear("self_attn.v_proj", c.Hidden, kv, c.AttentionBias), h)
		h = o.Attention(Attention{Layer: i, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: c.attentionScale()}, qs, ks, vs)
		x = o.Add(x, o.Linear(linear("self_attn.o_proj", q, c.Hidden, c.AttentionBias), h))

		h = o.RMSNorm(norm("post_attention_layernorm"), x)
		gate := o.Linear(linear("mlp.gate_proj", c.Hidden, c.Intermediate, c.MLPBias), h)
		up := o.Linear(linear("mlp.up_proj", c.Hidden, c.Intermediate, c.MLPBias), h)
		x = o.Add(x, o.Linear(linear("mlp.down_proj", c.Intermediate, c.Hidden, c.MLPBias), o.Gated(c.Act, gate, up)))
	}
	return o.Head(Head{Linear: c.head()}, o.RMSNorm(Norm{Module: "model.norm", Width: c.Hidden, Eps: c.RMSEps}, x))
}
