package model

import (
	"fmt"
	"math"
	"slices"
)

// RopeScaling is a change to the rotary frequencies.
type RopeScaling struct {
	Type            string // "linear", "llama3", "yarn" or "longrope"
	Factor          float64
	LowFreqFactor   float64 // llama3
	HighFreqFactor  float64 // llama3
	OriginalContext int     // llama3, yarn, longrope: tokens the model was first trained on

	AttentionFactor float64   // yarn, longrope: multiplies sines and cosines
	BetaFast        float64   // yarn: rotations within OriginalContext above which a frequency is kept
	BetaSlow        float64   // yarn: and below which it is divided by Factor
	Untruncated     bool      // yarn: the bounds are not rounded to whole pairs
	Short, Long     []float64 // longrope: (rotating features / 2) divisors up to OriginalContext, and beyond
}

func (s *RopeScaling) validate(rotary int) error {
	if s == nil {
		return nil
	}
	positive := func(vs ...float64) bool {
		return !slices.ContainsFunc(vs, func(v float64) bool { return !(v > 0) || v > 1e9 })
	}
	switch s.Type {
	case "linear":
		if !positive(s.Factor) {
			return fmt.Errorf("model: configuration: rope scaling factor %v is not a positive number", s.Factor)
		}
	case "llama3":
		if !positive(s.Factor, s.LowFreqFactor) || !(s.HighFreqFactor > s.LowFreqFactor) || s.OriginalContext < 1 {
			return fmt.Errorf("model: configuration: llama3 rope scaling: factor %v, low %v, high %v, original context %d do not make a scale",
				s.Factor, s.LowFreqFactor, s.HighFreqFactor, s.OriginalContext)
		}
	case "yarn":
		if !positive(s.Factor, s.AttentionFactor, s.BetaFast, s.BetaSlow) || s.OriginalContext < 1 {
			return fmt.Errorf("model: configuration: yarn rope scaling: factor %v, attention factor %v, beta_fast %v, beta_slow %v, original context %d do not make a scale",
				s.Factor, s.AttentionFactor, s.BetaFast, s.BetaSlow, s.OriginalContext)
		}
	case "longrope":
		if len(s.Short) != rotary/2 || len(s.Long) != rotary/2 {
			return fmt.Errorf("model: configuration: longrope has %d short and %d long factors where %d features rotate, which need %d of each",
				len(s.Short), len(s.Long), rotary, rotary/2)
		}
		if !positive(s.Short...) || !positive(s.Long...) || !positive(s.AttentionFactor) || s.OriginalContext < 1 {
			return fmt.Errorf("model: configuration: longrope: attention factor %v, original context %d or one of the factors is not a positive number",
				s.AttentionFactor, s.OriginalContext)
		}
	default:
		return fmt.Errorf("model: configuration: rope scaling type %q: %w (this version knows linear, llama3, yarn and longrope)", s.Type, ErrUnsupported)
	}
	return nil
}

// newRopeTable makes the table of heads of which dim features rotate. It computes in float32 where
// transformers does, so that angles agree to the last bit or nearly so.
func newRopeTable(dim int, theta float64, s *RopeScaling) *RopeTable {
	t := &RopeTable{InvFreq: make([]float32, dim/2), Scale: 1}
	power := func(i int) float32 { return float32(math.Pow(theta, float64(float32(2*i)/float32(dim)))) }
	for i := range t.InvFreq {
		t.InvFreq[i] = 1 / power(i)
	}
	if s == nil {
		return t
	}
	switch s.Type {
	case "linear":
		for i := range t.InvFreq {
			t.InvFreq[i] /= float32(s.Factor)
		}
	case "llama3":
		for i, f := range t.InvFreq {
			t.InvFreq[i] = f / float32(s.divisor(float64(f)))
		}
	case "yarn":
		t.Scale = float32(s.AttentionFactor)
		ramp := s.ramp(dim, theta)
		for i, f := range t.InvFreq {
			slow := ramp(i)
			t.InvFreq[i] = 1/(float32(s.Factor)*power(i))*slow + f*(1-slow)
		}
	case "longrope":
		t.Scale, t.Original = float32(s.AttentionFactor), s.OriginalContext
		t.Long = make([]float32, dim/2)
		for i := range t.InvFreq {
			t.InvFreq[i] = 1 / (float32(s.Short[i]) * power(i))
			t.Long[i] = 1 / (float32(s.Long[i]) * power(i))
		}
	}
	return t
}

// divisor is the llama3 rule: long waves are slowed by the factor, short ones kept, those between
// blended. It is also the value GGUF stores in rope_freqs.weight.
func (s *RopeScaling) divisor(f float64) float64 {
	wave := 2 * math.Pi / f
	low, high := float64(s.OriginalContext)/s.LowFreqFactor, float64(s.OriginalContext)/s.HighFreqFactor
	switch {
	case wave < high:
		return 1
	case wave > low:
		return s.Factor
	}
	smooth := (float64(s.OriginalContext)/wave - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
	return 1 / ((1-smooth)/s.Factor + smooth)
}

// ramp is the yarn rule (Peng et al. 2023): the share of the slowed frequency in that of pair i.
func (s *RopeScaling) ramp(dim int, theta float64) func(i int) float32 {
	bound := func(rotations float64) float64 {
		return float64(dim) * math.Log(float64(s.OriginalContext)/(rotations*2*math.Pi)) / (2 * math.Log(theta))
	}
	low, high := bound(s.BetaFast), bound(s.BetaSlow)
	if !s.Untruncated {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, float64(dim-1))
	if low == high {
		high += 0.001
	}
	return func(i int) float32 {
		return min(max((float32(i)-float32(low))/float32(high-low), 0), 1)
	}
}

// yarnFactor is the attention factor that yarn proposes for a context so many times as long.
func yarnFactor(scale, weight float64) float64 {
	if scale <= 1 {
		return 1
	}
	return 0.1*weight*math.Log(scale) + 1
}

// longFactor is the attention factor that longrope proposes.
func longFactor(scale float64, original int) float64 {
	if scale <= 1 || original < 2 {
		return 1
	}
	return math.Sqrt(1 + math.Log(scale)/math.Log(float64(original)))
}

// RopeDivisors returns the divisors of rotary frequencies that a GGUF file keeps in tensors, by the
// name of the tensor: rope_freqs.weight for llama3 scaling, two for longrope, none elsewhere.
func (c *Config) RopeDivisors() map[string][]float32 {
	s := c.RopeScaling
	if s == nil {
		return nil
	}
	out := make([]float32, c.rotary()/2)
	switch s.Type {
	case "llama3":
		for i, f := range newRopeTable(c.rotary(), c.RopeTheta, nil).InvFreq {
			out[i] = float32(s.divisor(float64(f)))
		}
		return map[string][]float32{RopeFreqs: out}
	case "longrope":
		long := make([]float32, len(out))
		for i := range out {
			out[i], long[i] = float32(s.Short[i]), float32(s.Long[i])
		}
		return map[string][]float32{RopeShort: out, RopeLong: long}
	}
	return nil
}

// Tensors of a GGUF file that hold divisors of rotary frequencies.
const (
	RopeFreqs = "rope_freqs.weight"
	RopeLong  = "rope_factors_long.weight"
	RopeShort = "rope_factors_short.weight"
)
