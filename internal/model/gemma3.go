package model

import (
	"fmt"
	"math"
)

// Gemma 3 (Kamath et al. 2025), text: Gemma 2 with a norm on each head of q and k in place of the
// softcap of scores, five sliding layers to one that sees all, and another rotary base in the sliding
// ones. The text model of Gemma3ForConditionalGeneration is read from its place among the others.
func init() {
	register(&Arch{
		ModelType: "gemma3_text",
		Class:     "Gemma3ForCausalLM",
		GGUF:      "gemma3",
		defaults: `{"vocab_size":262208,"hidden_size":2304,"intermediate_size":9216,"num_hidden_layers":26,"num_attention_heads":8,
"num_key_value_heads":4,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh","max_position_embeddings":131072,"rms_norm_eps":1e-6,
"bos_token_id":2,"eos_token_id":1,"pad_token_id":0,"tie_word_embeddings":true,"rope_theta":1000000,"rope_local_base_freq":10000,
"attention_bias":false,"query_pre_attn_scalar":256,"sliding_window":4096,"sliding_window_pattern":6,"layer_types":null,
"final_logit_softcapping":null}`,
		slides: func(_ *Config, h *hfConfig) (func(i int) bool, error) {
			period := or(h.WindowPattern5, or(h.WindowPattern, 6))
			if period < 1 {
				return nil, fmt.Errorf("model: configuration: sliding_window_pattern is %d, not a positive number", period)
			}
			return func(i int) bool { return (i+1)%period != 0 }, nil
		},
		names:     sandwich,
		localRope: true,
		offset:    true,
		llamaCpp:  limits{noYarn: true},

		period:     6,
		readGGUF:   readGemma(62),
		ggufReason: gemmaScale(62),
	})
}

func gemma3Forward[V any](c *Config, o Ops[V], tokens V) V {
	bias := c.AttentionBias
	return decode(c, o, tokens, func(l layer[V], x V) V {
		h := l.norm("input_layernorm", c.Hidden, x)
		q := l.norm("self_attn.q_norm", c.HeadDim, l.query(bias, h))
		k := l.norm("self_attn.k_norm", c.HeadDim, l.key(bias, h))
		h = l.attend(bias, q, k, l.value(bias, h))
		return gemmaRest(l, x, h)
	})
}

// gemmaRest is a block from the output of attention on: Gemma norms both ends of each part.
func gemmaRest[V any](l layer[V], x, h V) V {
	x = l.o.Add(x, l.norm("post_attention_layernorm", l.c.Hidden, h))
	h = l.mlp(l.norm("pre_feedforward_layernorm", l.c.Hidden, x))
	return l.o.Add(x, l.norm("post_feedforward_layernorm", l.c.Hidden, h))
}

// fillLocalRope reads the rotary bases of both types of layer and returns the parameters of those
// that see all. Scaling of the others is not part of the family.
func (c *Config) fillLocalRope(h *hfConfig) (*hfRope, error) {
	full, local := &hfRope{}, &hfRope{}
	if p := h.RopeParameters; p != nil {
		if p.Full == nil && p.Sliding == nil && (p.kind() != "" || p.Theta != nil) {
			return nil, fmt.Errorf("model: configuration: rope_parameters: %w: those of a %s model stand under full_attention and sliding_attention", ErrUnsupported, c.Arch)
		}
		if p.Full != nil {
			full = p.Full
		}
		if p.Sliding != nil {
			local = p.Sliding
		}
	}
	if s := h.RopeScaling; s != nil && (s.kind() != "" || s.Theta != nil) {
		merged := *s // transformers 5 lays rope_scaling over full_attention
		if merged.Theta == nil {
			merged.Theta = full.Theta
		}
		full = &merged
	}
	if k := local.kind(); k != "" && k != "default" {
		return nil, fmt.Errorf("model: configuration: rope scaling %q of sliding layers: %w", k, ErrUnsupported)
	}
	c.LocalTheta = or(local.Theta, or(h.LocalTheta, or(full.Theta, c.RopeTheta)))
	return full, nil
}

// gemmaScale: llama.cpp does not read query_pre_attn_scalar. It takes the width of a head, but for the
// largest model, which it knows by its layers, Hidden / Heads.
func gemmaScale(largest int) func(c *Config) string {
	return func(c *Config) string {
		if want := gemmaScalar(c, largest); c.QueryScalar != want {
			return fmt.Sprintf("query_pre_attn_scalar %v where llama.cpp takes %v", c.QueryScalar, want)
		}
		return ""
	}
}

func gemmaScalar(c *Config, largest int) float64 {
	if c.Layers == largest && c.Heads > 0 {
		return float64(c.Hidden / c.Heads)
	}
	return float64(c.HeadDim)
}

// readGemma sets what is built into llama.cpp.
func readGemma(largest int) func(c *Config, r *ggufReader) {
	return func(c *Config, r *ggufReader) {
		c.QueryScalar, c.EmbeddingScale = gemmaScalar(c, largest), gemmaEmbedding(c)
		if c.Arch == "gemma3_text" {
			c.LocalTheta = r.float("gemma3.rope.freq_base_swa", 10000)
		}
	}
}

// gemmaEmbedding is the factor of embeddings. Where weights are bfloat16, transformers rounds it to
// bfloat16; here and in llama.cpp it is a float32.
func gemmaEmbedding(c *Config) float64 { return float64(float32(math.Sqrt(float64(c.Hidden)))) }
