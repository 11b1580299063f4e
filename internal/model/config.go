package model

import (
	"fmt"
	"math"

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
	AttentionBias bool // of all four products; a bias that a family always has is not said here
	MLPBias       bool
	RopeTheta     float64
	RopeScaling   *RopeScaling // nil: none
	RotaryDim     int          // features of a head that rotate, the first ones; 0: all
	DType         string       // number type the weights were published in: "float32", "bfloat16", "float16"
	BOS, PAD      int          // token ids, −1 where there is none
	EOS           []int        // ids that end a sequence

	Window         int     // keys that a sliding layer sees, its own position included; 0: no layer slides
	Sliding        []bool  // (Layers) which layers slide where Window is set; nil: all
	LocalTheta     float64 // Gemma 3: RopeTheta of sliding layers, which no scaling touches
	NoRope         []bool  // (Layers) layers without rotary positions; nil: none
	QueryScalar    float64 // Gemma: scores are divided by its root; 0: by that of HeadDim
	AttnSoftcap    float64 // scores s become c·tanh(s/c); 0: they stay
	FinalSoftcap   float64 // the same for logits
	EmbeddingScale float64 // Granite: factor of embeddings; 0: none. Likewise the next three.
	AttentionScale float64 // factor of scores, in place of the root
	ResidualScale  float64 // factor of what is added to the residual stream
	LogitsDivisor  float64 // logits are divided by it

	prefixed bool // stored inside a model of several parts, see FolderNames
	tables   [2]*RopeTable
	keys     map[string]jsontext.Value // keys of a config.json this package does not interpret
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
	case c.Act != SiLU && c.Act != GELUTanh:
		return fmt.Errorf("model: configuration: activation %q: %w (this version knows %s and %s)", c.Act, ErrUnsupported, SiLU, GELUTanh)
	case c.RotaryDim != 0 && (c.RotaryDim < 2 || c.RotaryDim >= c.HeadDim || c.RotaryDim%2 != 0):
		return fmt.Errorf("model: configuration: partial_rotary_factor makes %d of %d features rotate, not an even number of them", c.RotaryDim, c.HeadDim)
	case c.Window < 0 || c.Window > 1<<30:
		return fmt.Errorf("model: configuration: sliding_window is %d, not between 1 and %d", c.Window, 1<<30)
	case c.Sliding != nil && len(c.Sliding) != c.Layers:
		return fmt.Errorf("model: configuration: layer_types lists %d layers of %d", len(c.Sliding), c.Layers)
	case c.NoRope != nil && len(c.NoRope) != c.Layers:
		return fmt.Errorf("model: configuration: no_rope_layers lists %d layers of %d", len(c.NoRope), c.Layers)
	case c.LocalTheta != 0 && (!(c.LocalTheta > 1) || math.IsInf(c.LocalTheta, 0)):
		return fmt.Errorf("model: configuration: the rope_theta of sliding layers is %v, not a number above 1", c.LocalTheta)
	}
	for _, f := range []struct {
		key string
		v   float64
	}{
		{"query_pre_attn_scalar", c.QueryScalar}, {"attn_logit_softcapping", c.AttnSoftcap}, {"final_logit_softcapping", c.FinalSoftcap},
		{"embedding_multiplier", c.EmbeddingScale}, {"attention_multiplier", c.AttentionScale}, {"residual_multiplier", c.ResidualScale},
		{"logits_scaling", c.LogitsDivisor},
	} {
		if !(f.v >= 0) || f.v > 1e9 || f.v != 0 && f.v < 1e-9 {
			return fmt.Errorf("model: configuration: %s is %v, not a positive number", f.key, f.v)
		}
	}
	return c.RopeScaling.validate(c.rotary())
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

// window returns the number of keys that layer i sees, 0 where it sees all.
func (c *Config) window(i int) int {
	if c.slides(i) {
		return c.Window
	}
	return 0
}

func (c *Config) slides(i int) bool {
	return c.Window > 0 && (c.Sliding == nil || c.Sliding[i])
}

// setSliding says which layers slide, in the one way there is for each answer.
func (c *Config) setSliding(window int, slides func(i int) bool) {
	c.Window, c.Sliding = window, nil
	if window == 0 || c.Layers < 1 || c.Layers > maxLayers {
		return
	}
	list, n := make([]bool, c.Layers), 0
	for i := range list {
		if list[i] = slides(i); list[i] {
			n++
		}
	}
	switch n {
	case 0:
		c.Window = 0
	case c.Layers:
	default:
		c.Sliding = list
	}
}

// rotary returns the number of features of a head that rotate.
func (c *Config) rotary() int {
	if c.RotaryDim != 0 {
		return c.RotaryDim
	}
	return c.HeadDim
}

// rope returns the table of layer i.
func (c *Config) rope(i int) *RopeTable {
	if c.LocalTheta != 0 && c.slides(i) {
		if c.tables[1] == nil {
			c.tables[1] = newRopeTable(c.rotary(), c.LocalTheta, nil)
		}
		return c.tables[1]
	}
	if c.tables[0] == nil {
		c.tables[0] = newRopeTable(c.rotary(), c.RopeTheta, c.RopeScaling)
	}
	return c.tables[0]
}

// attentionScale returns what multiplies q·k.
func (c *Config) attentionScale() float64 {
	switch {
	case c.AttentionScale != 0:
		return c.AttentionScale
	case c.QueryScalar != 0:
		return 1 / math.Sqrt(c.QueryScalar)
	}
	return 1 / math.Sqrt(float64(c.HeadDim))
}
