package model

import "math"

// RopeTable holds the rotary frequencies of one kind of layer (Su et al. 2021). Interpreters that
// need sines and cosines keep them per table.
type RopeTable struct {
	InvFreq []float32 // (pairs) radians a position; fewer pairs than HeadDim/2 rotate a part of each head
	Scale   float32   // multiplies cosines and sines
	// Long, of as many values, is used in place of InvFreq for sequences of more than Original
	// positions (LongRoPE, Ding et al. 2024), those in a cache included; nil where there is but one set.
	Long     []float32
	Original int
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
	t := &RopeTable{InvFreq: make([]float32, dim/2), Scale: 1}
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

// Rows returns how many rows of CosSin sequences of up to n positions read.
func (t *RopeTable) Rows(n int) int {
	if t.Long != nil && n > t.Original {
		return t.Original + n
	}
	return n
}

// CosSin fills cos and sin, each (rows, pairs), times Scale. Row p is position p; with Long, the rows
// from Original on are positions 0, 1, … by the frequencies of Long.
func (t *RopeTable) CosSin(cos, sin []float32) {
	pairs := len(t.InvFreq)
	for row := range len(cos) / max(pairs, 1) {
		freq, p := t.InvFreq, row
		if t.Long != nil && row >= t.Original {
			freq, p = t.Long, row-t.Original
		}
		for i, f := range freq {
			angle := float64(float32(p) * f)
			at := row*pairs + i
			cos[at], sin[at] = float32(math.Cos(angle))*t.Scale, float32(math.Sin(angle))*t.Scale
		}
	}
}
