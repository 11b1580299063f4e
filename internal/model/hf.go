package model

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// hfConfig is config.json as far as it is interpreted.
type hfConfig struct {
	Architectures  []string       `json:"architectures,omitzero"`
	ModelType      string         `json:"model_type"`
	Hidden         int            `json:"hidden_size"`
	Intermediate   int            `json:"intermediate_size"`
	Layers         int            `json:"num_hidden_layers"`
	Heads          int            `json:"num_attention_heads"`
	KVHeads        *int           `json:"num_key_value_heads"`
	HeadDim        *int           `json:"head_dim"`
	Vocab          int            `json:"vocab_size"`
	Context        int            `json:"max_position_embeddings"`
	RMSEps         float64        `json:"rms_norm_eps"`
	Act            string         `json:"hidden_act"`
	Activation     string         `json:"hidden_activation"` // Gemma's name for it
	Tied           bool           `json:"tie_word_embeddings"`
	AttentionBias  bool           `json:"attention_bias"`
	MLPBias        bool           `json:"mlp_bias"`
	RopeTheta      *float64       `json:"rope_theta"`
	LocalTheta     *float64       `json:"rope_local_base_freq"`
	RopeScaling    *hfRope        `json:"rope_scaling"`
	RopeParameters *hfRope        `json:"rope_parameters"`
	Partial        *float64       `json:"partial_rotary_factor"`
	Original       *int           `json:"original_max_position_embeddings"`
	DType          string         `json:"dtype"`
	TorchDType     string         `json:"torch_dtype"`
	BOS            *int           `json:"bos_token_id"`
	PAD            *int           `json:"pad_token_id"`
	EOS            jsontext.Value `json:"eos_token_id"`

	Window         *int     `json:"sliding_window"`
	UseWindow      *bool    `json:"use_sliding_window"`
	WindowLayers   int      `json:"max_window_layers"`
	WindowPattern  *int     `json:"sliding_window_pattern"`
	WindowPattern5 *int     `json:"_sliding_window_pattern"` // as transformers 5 saves it
	LayerTypes     []string `json:"layer_types"`
	RopeLayers     []int    `json:"no_rope_layers"` // 1: with rotary positions
	RopeInterval   int      `json:"no_rope_layer_interval"`
	QueryScalar    *float64 `json:"query_pre_attn_scalar"`
	AttnSoftcap    *float64 `json:"attn_logit_softcapping"`
	FinalSoftcap   *float64 `json:"final_logit_softcapping"`
	EmbeddingScale *float64 `json:"embedding_multiplier"`
	AttentionScale *float64 `json:"attention_multiplier"`
	ResidualScale  *float64 `json:"residual_multiplier"`
	LogitsDivisor  *float64 `json:"logits_scaling"`
	Bidirectional  *bool    `json:"use_bidirectional_attention"`

	Unknown jsontext.Value `json:",embed"`
}

// ParseConfig reads a Hugging Face config.json, in the form of transformers 4 (rope_theta,
// rope_scaling, torch_dtype) or 5 (rope_parameters, dtype). Absent keys take the defaults of the
// family's class in transformers 5.23. What would change the computation and the family's
// definition does not have is refused by name.
func ParseConfig(data []byte) (*Config, error) {
	var head struct {
		ModelType string         `json:"model_type"`
		Text      jsontext.Value `json:"text_config"`
		Unknown   jsontext.Value `json:",embed"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("model: reading configuration: %w", err)
	}
	name := head.ModelType
	text, several := textParts[name]
	if several {
		name = text
	}
	a, err := Lookup(name)
	if err != nil {
		return nil, err
	}
	var h hfConfig
	if err := json.Unmarshal([]byte(a.defaults), &h); err != nil {
		panic(fmt.Sprintf("model: internal error: defaults of %s: %v", name, err))
	}
	if several && head.Text != nil && head.Text.Kind() != 'n' {
		if err := json.Unmarshal(head.Text, &h); err != nil {
			return nil, fmt.Errorf("model: reading configuration: text_config: %w", err)
		}
		if h.ModelType != "" && h.ModelType != name {
			return nil, fmt.Errorf("model: reading configuration: text_config: %w", unknownArch(h.ModelType))
		}
	}
	// What describes all parts stands above and goes before: types of numbers, special tokens. The rest
	// there is about pictures.
	unknown := h.Unknown
	h.Unknown = nil
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("model: reading configuration: %w", err)
	}
	if several {
		h.Unknown = unknown
	}
	c := &Config{Arch: name, prefixed: several}
	if err := c.fill(a, &h); err != nil {
		return nil, err
	}
	return c, c.Validate()
}

// fill takes over what a config.json says, h being laid over the family's defaults.
func (c *Config) fill(a *Arch, h *hfConfig) error {
	c.Hidden, c.Intermediate, c.Layers, c.Heads, c.Vocab, c.Context = h.Hidden, h.Intermediate, h.Layers, h.Heads, h.Vocab, h.Context
	c.KVHeads, c.RMSEps, c.Tied = or(h.KVHeads, h.Heads), h.RMSEps, h.Tied
	c.AttentionBias, c.MLPBias = h.AttentionBias, h.MLPBias
	c.BOS, c.PAD, c.DType = or(h.BOS, -1), or(h.PAD, -1), h.DType
	c.Act = Activation(h.Act)
	if a.has("hidden_activation") {
		c.Act = Activation(h.Activation)
	}
	if c.DType == "" {
		c.DType = h.TorchDType
	}
	if h.HeadDim != nil {
		c.HeadDim = *h.HeadDim
	} else if h.Heads > 0 {
		c.HeadDim = h.Hidden / h.Heads
	}
	var err error
	if c.EOS, err = parseIDs(h.EOS); err != nil {
		return err
	}
	if h.Unknown != nil {
		if err := json.Unmarshal(h.Unknown, &c.keys); err != nil {
			return fmt.Errorf("model: reading configuration: %w", err)
		}
	}
	if err := c.refuse(a, h); err != nil {
		return err
	}
	if err := c.fillWindow(a, h); err != nil {
		return err
	}
	if a.has("query_pre_attn_scalar") {
		c.QueryScalar, c.EmbeddingScale = or(h.QueryScalar, float64(c.HeadDim)), gemmaEmbedding(c)
	}
	c.AttnSoftcap, c.FinalSoftcap = or(h.AttnSoftcap, 0), or(h.FinalSoftcap, 0)
	if a.has("logits_scaling") {
		c.EmbeddingScale, c.AttentionScale = or(h.EmbeddingScale, 1), or(h.AttentionScale, 1)
		c.ResidualScale, c.LogitsDivisor = or(h.ResidualScale, 1), or(h.LogitsDivisor, 1)
	}
	if a.has("no_rope_layers") {
		if err := c.fillNoRope(h); err != nil {
			return err
		}
	}
	return c.fillRope(a, h)
}

// refuse names the first key that changes the computation in a way the family's definition lacks.
// transformers would not read it, but then the weights were not made by transformers.
func (c *Config) refuse(a *Arch, h *hfConfig) error {
	no := func(key string, v any) error {
		return fmt.Errorf("model: configuration: %s %v: %w: a %s model has no such thing", key, v, ErrUnsupported, a.ModelType)
	}
	for _, f := range []struct {
		key string
		on  bool
	}{
		{"attention_bias", h.AttentionBias}, {"mlp_bias", h.MLPBias}, {"use_bidirectional_attention", or(h.Bidirectional, false)},
		{"use_sliding_window", or(h.UseWindow, false)},
	} {
		if f.on && (!a.has(f.key) || f.key == "use_bidirectional_attention") {
			return no(f.key, true)
		}
	}
	for _, f := range []struct {
		key     string
		v       *float64
		neutral float64
	}{
		{"attn_logit_softcapping", h.AttnSoftcap, 0}, {"final_logit_softcapping", h.FinalSoftcap, 0},
		{"embedding_multiplier", h.EmbeddingScale, 1}, {"attention_multiplier", h.AttentionScale, 1},
		{"residual_multiplier", h.ResidualScale, 1}, {"logits_scaling", h.LogitsDivisor, 1},
		{"partial_rotary_factor", h.Partial, 1}, {"rope_local_base_freq", h.LocalTheta, 0},
	} {
		if f.v != nil && *f.v != f.neutral && !a.has(f.key) {
			return no(f.key, *f.v)
		}
	}
	if h.Window != nil && *h.Window != 0 && !a.has("sliding_window") && or(h.UseWindow, true) {
		return no("sliding_window", *h.Window)
	}
	if !a.has("no_rope_layers") && slices.Contains(h.RopeLayers, 0) {
		return no("no_rope_layers", h.RopeLayers)
	}
	for _, key := range []string{"num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"} {
		if v := c.keys[key]; v != nil && v.Kind() == '0' && string(v) != "0" {
			return fmt.Errorf("model: configuration: %s %s: %w: mixtures of experts need a routed product that this version does not have", key, v, ErrUnsupported)
		}
	}
	return nil
}

func (c *Config) fillWindow(a *Arch, h *hfConfig) error {
	sliding := 0
	for _, t := range h.LayerTypes {
		switch t {
		case "full_attention":
		case "sliding_attention":
			sliding++
		default:
			return fmt.Errorf("model: configuration: layer_types %q: %w (this version knows full_attention and sliding_attention)", t, ErrUnsupported)
		}
	}
	if !a.has("sliding_window") {
		if sliding > 0 {
			return fmt.Errorf("model: configuration: layer_types: %w: a %s model has no sliding layers", ErrUnsupported, a.ModelType)
		}
		return nil
	}
	window := or(h.Window, 0)
	if a.has("use_sliding_window") && !or(h.UseWindow, false) {
		window = 0
	}
	if window < 0 || window > 1<<30 {
		return fmt.Errorf("model: configuration: sliding_window is %d, not between 1 and %d", window, 1<<30)
	}
	rule := func(int) bool { return true }
	switch {
	case window == 0 || h.LayerTypes == nil:
		if a.slides != nil {
			var err error
			if rule, err = a.slides(c, h); err != nil {
				return err
			}
		}
	case !a.has("layer_types") && sliding != len(h.LayerTypes):
		return fmt.Errorf("model: configuration: layer_types: %w: in a %s model all layers slide or none", ErrUnsupported, a.ModelType)
	case len(h.LayerTypes) != c.Layers:
		return fmt.Errorf("model: configuration: layer_types lists %d layers of %d", len(h.LayerTypes), c.Layers)
	default:
		rule = func(i int) bool { return h.LayerTypes[i] == "sliding_attention" }
	}
	c.setSliding(window, rule)
	return nil
}

func (c *Config) fillNoRope(h *hfConfig) error {
	if h.RopeLayers == nil && h.RopeInterval < 1 {
		return fmt.Errorf("model: configuration: no_rope_layer_interval is %d, not a positive number", h.RopeInterval)
	}
	if h.RopeLayers != nil && len(h.RopeLayers) < c.Layers {
		return fmt.Errorf("model: configuration: no_rope_layers lists %d layers of %d", len(h.RopeLayers), c.Layers)
	}
	c.setNoRope(func(i int) bool {
		if h.RopeLayers != nil {
			return h.RopeLayers[i] == 0
		}
		return (i+1)%h.RopeInterval == 0
	})
	return nil
}

func (c *Config) setNoRope(without func(i int) bool) {
	if c.Layers < 1 || c.Layers > maxLayers {
		return // Validate refuses it
	}
	list := make([]bool, c.Layers)
	for i := range list {
		list[i] = without(i)
	}
	c.NoRope = nil
	if slices.Contains(list, true) {
		c.NoRope = list
	}
}

// parseIDs reads eos_token_id: a number, a list of numbers, or null.
func parseIDs(v jsontext.Value) ([]int, error) {
	if v == nil || v.Kind() == 'n' {
		return nil, nil
	}
	if v.Kind() != '[' {
		v = slices.Concat(jsontext.Value("["), v, jsontext.Value("]"))
	}
	var ids []int
	if err := json.Unmarshal(v, &ids); err != nil {
		return nil, fmt.Errorf("model: reading configuration: eos_token_id: %w", err)
	}
	return ids, nil
}

func or[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}
