package model

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Config is the shape of one decoder, whatever file it came from. The zero Config is not valid.
type Config struct {
	Arch          string // Hugging Face's model_type
	Hidden        int    // features of the residual stream
	Intermediate  int    // features of the gated unit
	Layers        int
	Heads         int // query heads
	KVHeads       int // key and value heads
	HeadDim       int
	Vocab         int // rows of the embedding table
	Context       int // longest sequence the model was made for, in tokens
	RMSEps        float64
	Act           Activation
	Tied          bool // the head shares the embedding table
	AttentionBias bool
	MLPBias       bool
	RopeTheta     float64
	RopeScaling   *RopeScaling // nil: none
	DType         string       // number type the weights were published in: "float32", "bfloat16", "float16"
	BOS, PAD      int          // token ids, −1 where there is none
	EOS           []int        // ids that end a sequence

	table *RopeTable                // made once, see rope
	keys  map[string]jsontext.Value // keys of a config.json this package does not interpret
}

// RopeScaling is a change to the rotary frequencies.
type RopeScaling struct {
	Type            string // "linear" or "llama3"
	Factor          float64
	LowFreqFactor   float64 // llama3
	HighFreqFactor  float64 // llama3
	OriginalContext int     // llama3
}

// Limits on what a configuration may claim, far above any model there is: they keep products of
// sizes inside an int.
const (
	maxWidth  = 1 << 20
	maxLayers = 1 << 12
	maxVocab  = 1 << 24
)

// Validate reports what makes a configuration impossible, naming the Hugging Face key.
func (c *Config) Validate() error {
	if archs[c.Arch] == nil {
		return unknownArch(c.Arch)
	}
	for _, f := range []struct {
		key    string
		v, max int
	}{
		{"hidden_size", c.Hidden, maxWidth}, {"intermediate_size", c.Intermediate, maxWidth},
		{"num_hidden_layers", c.Layers, maxLayers}, {"num_attention_heads", c.Heads, maxWidth},
		{"num_key_value_heads", c.KVHeads, maxWidth}, {"head_dim", c.HeadDim, maxWidth},
		{"vocab_size", c.Vocab, maxVocab}, {"max_position_embeddings", c.Context, 1 << 30},
	} {
		if f.v < 1 || f.v > f.max {
			return fmt.Errorf("model: configuration: %s is %d, not between 1 and %d", f.key, f.v, f.max)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("model: configuration: num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("model: configuration: head_dim %d is odd, rotary positions need pairs", c.HeadDim)
	case c.Heads*c.HeadDim > maxWidth:
		return fmt.Errorf("model: configuration: %d heads of %d features are more than %d", c.Heads, c.HeadDim, maxWidth)
	case !(c.RMSEps > 0) || c.RMSEps > 1:
		return fmt.Errorf("model: configuration: rms_norm_eps is %v, not a small positive number", c.RMSEps)
	case !(c.RopeTheta > 1) || math.IsInf(c.RopeTheta, 0):
		return fmt.Errorf("model: configuration: rope_theta is %v, not a number above 1", c.RopeTheta)
	case c.Act != SiLU:
		return fmt.Errorf("model: configuration: hidden_act %q: %w (this version knows silu)", c.Act, ErrUnsupported)
	}
	return c.RopeScaling.validate()
}

func (s *RopeScaling) validate() error {
	if s == nil {
		return nil
	}
	switch s.Type {
	case "linear":
		if !(s.Factor > 0) || math.IsInf(s.Factor, 0) {
			return fmt.Errorf("model: configuration: rope scaling factor %v is not a positive number", s.Factor)
		}
	case "llama3":
		if !(s.Factor > 0) || !(s.LowFreqFactor > 0) || !(s.HighFreqFactor > s.LowFreqFactor) || s.OriginalContext < 1 {
			return fmt.Errorf("model: configuration: llama3 rope scaling: factor %v, low %v, high %v, original context %d do not make a scale",
				s.Factor, s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext)
		}
	default:
		return fmt.Errorf("model: configuration: rope scaling type %q: %w (this version knows linear and llama3)", s.Type, ErrUnsupported)
	}
	return nil
}

// Parameters returns the number of values in the model's weights, a shared table counted once.
func (c *Config) Parameters() (int64, error) {
	params, err := Inventory(c)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, p := range params {
		n += int64(p.Elements())
	}
	return n, nil
}

func (c *Config) embedding() Linear {
	return Linear{Module: "model.embed_tokens", In: c.Vocab, Out: c.Hidden}
}

func (c *Config) head() Linear {
	p := Linear{Module: "lm_head", In: c.Hidden, Out: c.Vocab}
	if c.Tied {
		p.Tied = "model.embed_tokens"
	}
	return p
}

func (c *Config) attentionScale() float64 { return 1 / math.Sqrt(float64(c.HeadDim)) }

// hfRope is rope_scaling of transformers 4 and rope_parameters of transformers 5.
type hfRope struct {
	Theta           *float64 `json:"rope_theta,omitzero"`
	Type            string   `json:"rope_type,omitzero"`
	OldType         string   `json:"type,omitzero"`
	Factor          float64  `json:"factor,omitzero"`
	LowFreqFactor   float64  `json:"low_freq_factor,omitzero"`
	HighFreqFactor  float64  `json:"high_freq_factor,omitzero"`
	OriginalContext int      `json:"original_max_position_embeddings,omitzero"`
}

// hfConfig is config.json as far as it is interpreted.
type hfConfig struct {
	Architectures  []string       `json:"architectures,omitzero"`
	ModelType      string         `json:"model_type"`
	Hidden         int            `json:"hidden_size"`
	Intermediate   int            `json:"intermediate_size"`
	Layers         int            `json:"num_hidden_layers"`
	Heads          int            `json:"num_attention_heads"`
	KVHeads        *int           `json:"num_key_value_heads,omitzero"`
	HeadDim        *int           `json:"head_dim,omitzero"`
	Vocab          int            `json:"vocab_size"`
	Context        int            `json:"max_position_embeddings"`
	RMSEps         *float64       `json:"rms_norm_eps,omitzero"`
	Act            string         `json:"hidden_act,omitzero"`
	Tied           *bool          `json:"tie_word_embeddings,omitzero"`
	AttentionBias  bool           `json:"attention_bias"`
	MLPBias        bool           `json:"mlp_bias"`
	RopeTheta      *float64       `json:"rope_theta,omitzero"`
	RopeScaling    *hfRope        `json:"rope_scaling,omitzero"`
	RopeParameters *hfRope        `json:"rope_parameters,omitzero"`
	DType          string         `json:"dtype,omitzero"`
	TorchDType     string         `json:"torch_dtype,omitzero"`
	BOS            *int           `json:"bos_token_id,omitzero"`
	PAD            *int           `json:"pad_token_id,omitzero"`
	EOS            jsontext.Value `json:"eos_token_id,omitzero"`

	Unknown jsontext.Value `json:",embed"`
}

// ParseConfig reads a Hugging Face config.json, in the form of transformers 4 (rope_theta,
// rope_scaling, torch_dtype) or 5 (rope_parameters, dtype). Absent keys take the defaults of
// transformers' LlamaConfig.
func ParseConfig(data []byte) (*Config, error) {
	var h hfConfig
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("model: reading configuration: %w", err)
	}
	if _, err := Lookup(h.ModelType); err != nil {
		return nil, err
	}
	c := &Config{
		Arch: h.ModelType, Hidden: h.Hidden, Intermediate: h.Intermediate, Layers: h.Layers, Heads: h.Heads,
		KVHeads: or(h.KVHeads, h.Heads), Vocab: h.Vocab, Context: h.Context, RMSEps: or(h.RMSEps, 1e-6),
		Act: Activation(h.Act), Tied: or(h.Tied, false), AttentionBias: h.AttentionBias, MLPBias: h.MLPBias,
		RopeTheta: or(h.RopeTheta, 10000), DType: h.DType, BOS: or(h.BOS, -1), PAD: or(h.PAD, -1),
	}
	if c.Act == "" {
		c.Act = SiLU
	}
	if c.DType == "" {
		c.DType = h.TorchDType
	}
	if c.Context == 0 {
		c.Context = 2048
	}
	if h.HeadDim != nil {
		c.HeadDim = *h.HeadDim
	} else if h.Heads > 0 {
		c.HeadDim = h.Hidden / h.Heads
	}
	for _, r := range []*hfRope{h.RopeScaling, h.RopeParameters} {
		if r == nil {
			continue
		}
		c.RopeTheta = or(r.Theta, c.RopeTheta)
		c.RopeScaling = r.scaling()
	}
	var err error
	if c.EOS, err = parseIDs(h.EOS); err != nil {
		return nil, err
	}
	if h.Unknown != nil {
		if err := json.Unmarshal(h.Unknown, &c.keys); err != nil {
			return nil, fmt.Errorf("model: reading configuration: %w", err)
		}
	}
	return c, c.Validate()
}

func (r *hfRope) scaling() *RopeScaling {
	t := r.Type
	if t == "" {
		t = r.OldType
	}
	if t == "" || t == "default" {
		return nil
	}
	return &RopeScaling{t, r.Factor, r.LowFreqFactor, r.HighFreqFactor, r.OriginalContext}
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

// JSON writes a config.json that transformers 4 and 5 both read: the keys of either form stand
// side by side. Keys that ParseConfig did not interpret are kept, except a quantization_config,
// which describes bytes and not the model: whoever writes the bytes sets it in extra.
func (c *Config) JSON(extra map[string]any) ([]byte, error) {
	h := map[string]any{
		"architectures": []string{c.architecture().Class}, "model_type": c.Arch,
		"hidden_size": c.Hidden, "intermediate_size": c.Intermediate, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"vocab_size": c.Vocab, "max_position_embeddings": c.Context, "rms_norm_eps": c.RMSEps,
		"hidden_act": string(c.Act), "tie_word_embeddings": c.Tied,
		"attention_bias": c.AttentionBias, "mlp_bias": c.MLPBias, "rope_theta": c.RopeTheta,
		"rope_parameters": c.ropeParameters(), "rope_scaling": nil,
	}
	if c.RopeScaling != nil {
		h["rope_scaling"] = c.ropeParameters()
	}
	if c.DType != "" {
		h["dtype"], h["torch_dtype"] = c.DType, c.DType
	}
	for key, id := range map[string]int{"bos_token_id": c.BOS, "pad_token_id": c.PAD} {
		if id >= 0 {
			h[key] = id
		} else {
			h[key] = nil
		}
	}
	switch len(c.EOS) {
	case 0:
		h["eos_token_id"] = nil
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

func (c *Config) ropeParameters() map[string]any {
	m := map[string]any{"rope_theta": c.RopeTheta, "rope_type": "default"}
	if s := c.RopeScaling; s != nil {
		m["rope_type"], m["factor"] = s.Type, s.Factor
		if s.Type == "llama3" {
			m["low_freq_factor"], m["high_freq_factor"] = s.LowFreqFactor, s.HighFreqFactor
			m["original_max_position_embeddings"] = s.OriginalContext
		}
	}
	return m
}
