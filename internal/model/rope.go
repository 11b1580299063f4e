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
