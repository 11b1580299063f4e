package model

import "math"

// RopeTable holds the rotary frequencies of one kind of layer (Su et al. 2021). Interpreters that
// need sines and cosines keep them per table.
type RopeTable struct {
	InvFreq []float32 // (HeadDim/2) radians a position
}

func (c *Config) rope() *RopeTable {
	if c.table == nil {
		c.table = newRopeTable(c.HeadDim, c.RopeTheta, c.RopeScaling)
	}
	return c.table
}

// newRopeTable computes in float32 where transformers does, so that angles agree to the last bit or
// nearly so.
func newRopeTable(dim int, theta float64, s *RopeScaling) *RopeTable {
	t := &RopeTable{InvFreq: make([]float32, dim/2)}
	for i := range t.InvFreq {
		power := float32(2*i) / float32(dim)
		f := 1 / float32(math.Pow(theta, float64(power)))
		if s != nil {
			f = s.apply(f)
		}
		t.InvFreq[i] = f
	}
	return t
}

func (s *RopeScaling) apply(f float32) float32 {
	if s.Type == "linear" {
		return f / float32(s.Factor)
	}
	return f / float32(s.divisor(float64(f)))
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

// RopeDivisors returns the (HeadDim/2) divisors that GGUF keeps in rope_freqs.weight for llama3
// scaling, or nil where the model has none.
func (c *Config) RopeDivisors() []float32 {
	s := c.RopeScaling
	if s == nil || s.Type != "llama3" {
		return nil
	}
	out := make([]float32, c.HeadDim/2)
	for i := range out {
		out[i] = float32(s.divisor(float64(1 / float32(math.Pow(c.RopeTheta, float64(float32(2*i)/float32(c.HeadDim)))))))
	}
	return out
}

// CosSin fills cos and sin, each (positions, len(InvFreq)), for positions 0, 1, …
func (t *RopeTable) CosSin(cos, sin []float32) {
	half := len(t.InvFreq)
	for i := range cos {
		angle := float64(float32(i/half) * t.InvFreq[i%half])
		cos[i], sin[i] = float32(math.Cos(angle)), float32(math.Sin(angle))
	}
}
