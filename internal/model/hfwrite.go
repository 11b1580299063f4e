package model

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// JSON writes a config.json that transformers 4 and 5 both read: the keys of either form stand
// side by side. Keys that ParseConfig did not interpret are kept, except a quantization_config,
// which describes bytes and not the model: whoever writes the bytes sets it in extra. Of a model of
// several parts, only the text model is written.
func (c *Config) JSON(extra map[string]any) ([]byte, error) {
	a := c.architecture()
	h := map[string]any{
		"architectures": []string{a.Class}, "model_type": c.Arch,
		"hidden_size": c.Hidden, "intermediate_size": c.Intermediate, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads,
		"vocab_size": c.Vocab, "max_position_embeddings": c.Context, "rms_norm_eps": real(c.RMSEps),
		"tie_word_embeddings": c.Tied, "rope_theta": real(c.RopeTheta), "rope_scaling": nil,
		"rope_parameters": c.ropeParameters(),
		"bos_token_id":    id(c.BOS), "pad_token_id": id(c.PAD), "eos_token_id": nil,
	}
	for k, v := range map[string]any{
		"hidden_act": string(c.Act), "hidden_activation": string(c.Act), "attention_bias": c.AttentionBias, "mlp_bias": c.MLPBias,
		"head_dim": c.HeadDim, "partial_rotary_factor": real(c.partialRotary()),
		"query_pre_attn_scalar": c.queryScalar(), "attn_logit_softcapping": orNull(c.AttnSoftcap), "final_logit_softcapping": orNull(c.FinalSoftcap),
		"embedding_multiplier": real(c.EmbeddingScale), "attention_multiplier": real(c.AttentionScale),
		"residual_multiplier": real(c.ResidualScale), "logits_scaling": real(c.LogitsDivisor),
		"no_rope_layers": c.ropeLayers(), "rope_local_base_freq": real(c.LocalTheta),
	} {
		if a.has(k) {
			h[k] = v
		}
	}
	if c.Heads > 0 && c.HeadDim*c.Heads != c.Hidden {
		h["head_dim"] = c.HeadDim
	}
	c.windowKeys(a, h)
	if s := c.RopeScaling; s != nil {
		h["rope_scaling"] = s.json()
		if a.scaling4 != nil {
			h["rope_scaling"] = a.scaling4(c)
		}
		if a.has("original_max_position_embeddings") {
			h["original_max_position_embeddings"] = s.OriginalContext
		}
	} else if a.has("original_max_position_embeddings") {
		h["original_max_position_embeddings"] = c.Context
	}
	if c.DType != "" {
		h["dtype"], h["torch_dtype"] = c.DType, c.DType
	}
	switch len(c.EOS) {
	case 0:
	case 1:
		h["eos_token_id"] = c.EOS[0]
	default:
		h["eos_token_id"] = c.EOS
	}
	for k, v := range c.keys {
		if _, known := h[k]; !known && k != "quantization_config" {
			h[k] = v
		}
	}
	for k, v := range extra {
		h[k] = v
	}
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, h, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
		return nil, fmt.Errorf("model: writing configuration: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Key returns a key of the config.json that this package does not interpret, as JSON, or nil.
func (c *Config) Key(name string) []byte { return c.keys[name] }

func id(v int) any {
	if v < 0 {
		return nil
	}
	return v
}

func orNull(v float64) any {
	if v == 0 {
		return nil
	}
	return real(v)
}

func (c *Config) queryScalar() any {
	if s := c.QueryScalar; s == float64(int(s)) {
		return int(s) // the class wants a whole number
	}
	return real(c.QueryScalar)
}

// real is a number that stays one of floating point when it is whole: transformers 5 looks at the type.
type real float64

// MarshalJSON writes 20 as 20.0.
func (r real) MarshalJSON() ([]byte, error) {
	if v := float64(r); v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.AppendFloat(nil, v, 'f', 1, 64), nil
	}
	return json.Marshal(float64(r))
}

func reals(vs []float64) []real {
	out := make([]real, len(vs))
	for i, v := range vs {
		out[i] = real(v)
	}
	return out
}

func (c *Config) windowKeys(a *Arch, h map[string]any) {
	if !a.has("sliding_window") {
		return
	}
	h["sliding_window"] = nil
	if c.Window > 0 {
		h["sliding_window"] = c.Window
	} else if a.has("query_pre_attn_scalar") {
		h["sliding_window"] = c.Context // Gemma's class wants a number, though no layer uses it
	}
	if a.has("use_sliding_window") {
		h["use_sliding_window"] = c.Window > 0
	}
	if !a.has("layer_types") {
		return
	}
	types, full := make([]string, c.Layers), 0
	for i := range types {
		types[i] = "full_attention"
		if c.slides(i) {
			types[i] = "sliding_attention"
		} else if full == i {
			full++
		}
	}
	h["layer_types"] = types
	if a.has("max_window_layers") {
		h["max_window_layers"] = full // what versions without layer_types go by
	}
}

// ropeLayers is no_rope_layers, in which a layer without rotary positions is 0.
func (c *Config) ropeLayers() []int {
	list := make([]int, c.Layers)
	for i := range list {
		if c.NoRope == nil || !c.NoRope[i] {
			list[i] = 1
		}
	}
	return list
}

func (c *Config) ropeParameters() map[string]any {
	m := map[string]any{"rope_type": "default"}
	if c.RopeScaling != nil {
		m = c.RopeScaling.json()
	}
	m["rope_theta"] = real(c.RopeTheta)
	if c.RotaryDim != 0 {
		m["partial_rotary_factor"] = real(c.partialRotary())
	}
	if c.LocalTheta == 0 {
		return m
	}
	return map[string]any{"full_attention": m, "sliding_attention": map[string]any{"rope_type": "default", "rope_theta": real(c.LocalTheta)}}
}

// json returns the dictionary that transformers takes scaling from.
func (s *RopeScaling) json() map[string]any {
	m := map[string]any{"rope_type": s.Type}
	switch s.Type {
	case "linear":
		m["factor"] = real(s.Factor)
	case "llama3":
		m["factor"], m["low_freq_factor"], m["high_freq_factor"] = real(s.Factor), real(s.LowFreqFactor), real(s.HighFreqFactor)
	case "yarn":
		m["factor"], m["attention_factor"], m["beta_fast"], m["beta_slow"] = real(s.Factor), real(s.AttentionFactor), real(s.BetaFast), real(s.BetaSlow)
		if s.Untruncated {
			m["truncate"] = false
		}
	case "longrope":
		m["short_factor"], m["long_factor"], m["attention_factor"] = reals(s.Short), reals(s.Long), real(s.AttentionFactor)
	}
	if s.OriginalContext > 0 {
		m["original_max_position_embeddings"] = s.OriginalContext
	}
	return m
}
