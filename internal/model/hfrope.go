package model

import (
	"cmp"
	"fmt"
	"math"

	"github.com/go-json-experiment/json/jsontext"
)

// hfRope is rope_scaling of transformers 4 and rope_parameters of transformers 5, which for some
// families holds one for each type of layer.
type hfRope struct {
	Theta           *float64  `json:"rope_theta,omitzero"`
	Type            string    `json:"rope_type,omitzero"`
	OldType         string    `json:"type,omitzero"`
	Partial         *float64  `json:"partial_rotary_factor,omitzero"`
	Factor          float64   `json:"factor,omitzero"`
	LowFreqFactor   float64   `json:"low_freq_factor,omitzero"`
	HighFreqFactor  float64   `json:"high_freq_factor,omitzero"`
	OriginalContext int       `json:"original_max_position_embeddings,omitzero"`
	AttentionFactor float64   `json:"attention_factor,omitzero"`
	BetaFast        float64   `json:"beta_fast,omitzero"`
	BetaSlow        float64   `json:"beta_slow,omitzero"`
	MScale          float64   `json:"mscale,omitzero"`
	MScaleAll       float64   `json:"mscale_all_dim,omitzero"`
	Truncate        *bool     `json:"truncate,omitzero"`
	Short           []float64 `json:"short_factor,omitzero"`
	Long            []float64 `json:"long_factor,omitzero"`

	Full     *hfRope        `json:"full_attention,omitzero"`
	Sliding  *hfRope        `json:"sliding_attention,omitzero"`
	Sections jsontext.Value `json:"mrope_section,omitzero"`
}

func (r *hfRope) kind() string {
	if r.Type == "" {
		return r.OldType
	}
	return r.Type
}

func (c *Config) fillRope(a *Arch, h *hfConfig) error {
	r := h.RopeScaling
	if r == nil || r.kind() == "" && r.Theta == nil && r.Full == nil && r.Sliding == nil {
		r = h.RopeParameters // transformers 5 looks here second
	}
	c.RopeTheta = or(h.RopeTheta, 0)
	if a.localRope {
		var err error
		if r, err = c.fillLocalRope(h); err != nil {
			return err
		}
	}
	if r == nil {
		r = &hfRope{}
	}
	if r.Full != nil || r.Sliding != nil {
		return fmt.Errorf("model: configuration: rope_parameters by type of layer: %w: a %s model has one kind of positions", ErrUnsupported, a.ModelType)
	}
	if r.Sections != nil && r.Sections.Kind() != 'n' {
		return fmt.Errorf("model: configuration: mrope_section: %w (positions in several dimensions)", ErrUnsupported)
	}
	c.RopeTheta = or(r.Theta, c.RopeTheta)
	if p := or(r.Partial, or(h.Partial, 1)); p != 1 {
		if !a.has("partial_rotary_factor") {
			return fmt.Errorf("model: configuration: partial_rotary_factor %v: %w: in a %s model heads rotate whole", p, ErrUnsupported, a.ModelType)
		}
		if !(p > 0 && p < 1) {
			return fmt.Errorf("model: configuration: partial_rotary_factor is %v, not between 0 and 1", p)
		}
		c.RotaryDim = int(float64(c.HeadDim) * p)
		if c.RotaryDim == 0 {
			return fmt.Errorf("model: configuration: partial_rotary_factor %v leaves nothing of %d features", p, c.HeadDim)
		}
	}
	var err error
	c.RopeScaling, err = c.scaling(a, r, h.Original)
	return err
}

// scaling reads a rope dictionary. Every attention factor that transformers would derive is written
// out, so that it stays what it is when the rest is copied.
func (c *Config) scaling(a *Arch, r *hfRope, original *int) (*RopeScaling, error) {
	kind := r.kind()
	if kind == "su" || kind == "yarn" && a.ModelType == "phi3" {
		kind = "longrope" // names that Phi 3 had before
	}
	s := &RopeScaling{Type: kind, Factor: r.Factor}
	from := or(original, r.OriginalContext)
	if from == 0 {
		from = c.Context
	}
	ratio := r.Factor
	if ratio == 0 && from > 0 {
		ratio = float64(c.Context) / float64(from)
	}
	switch kind {
	case "", "default":
		return nil, nil
	case "llama3":
		s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext = r.LowFreqFactor, r.HighFreqFactor, from
	case "yarn":
		s.Factor, s.OriginalContext, s.AttentionFactor = ratio, from, r.AttentionFactor
		s.BetaFast, s.BetaSlow, s.Untruncated = cmp.Or(r.BetaFast, 32), cmp.Or(r.BetaSlow, 1), !or(r.Truncate, true)
		if s.AttentionFactor == 0 {
			s.AttentionFactor = yarnFactor(ratio, 1)
			if r.MScale != 0 && r.MScaleAll != 0 {
				s.AttentionFactor = yarnFactor(ratio, r.MScale) / yarnFactor(ratio, r.MScaleAll)
			}
		}
	case "longrope":
		s.OriginalContext, s.AttentionFactor, s.Short, s.Long = from, r.AttentionFactor, r.Short, r.Long
		if s.AttentionFactor == 0 {
			s.AttentionFactor = longFactor(ratio, from)
		}
		s.Factor = 0 // it has done what it does
	}
	return s, nil
}

// partialRotary is the factor that transformers makes RotaryDim of, rounding down.
func (c *Config) partialRotary() float64 {
	f := float64(c.rotary()) / float64(c.HeadDim)
	for int(float64(c.HeadDim)*f) < c.rotary() {
		f = math.Nextafter(f, 2)
	}
	return f
}
