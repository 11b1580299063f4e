package model

import (
	"fmt"
	"math"
)

// Key is one GGUF metadata entry. Value is a uint32, float32, bool or string.
type Key struct {
	Name  string
	Value any
}

// GGUFKeys returns the metadata that describes the shape, general.architecture first, with the
// types llama.cpp insists on.
func (c *Config) GGUFKeys() []Key {
	a := c.architecture().GGUF
	keys := []Key{
		{"general.architecture", a},
		{a + ".block_count", uint32(c.Layers)},
		{a + ".context_length", uint32(c.Context)},
		{a + ".embedding_length", uint32(c.Hidden)},
		{a + ".feed_forward_length", uint32(c.Intermediate)},
		{a + ".attention.head_count", uint32(c.Heads)},
		{a + ".attention.head_count_kv", uint32(c.KVHeads)},
		{a + ".attention.key_length", uint32(c.HeadDim)},
		{a + ".attention.value_length", uint32(c.HeadDim)},
		{a + ".attention.layer_norm_rms_epsilon", float32(c.RMSEps)},
		{a + ".rope.freq_base", float32(c.RopeTheta)},
		{a + ".rope.dimension_count", uint32(c.HeadDim)},
		{a + ".vocab_size", uint32(c.Vocab)},
	}
	if s := c.RopeScaling; s != nil && s.Type == "linear" {
		keys = append(keys, Key{a + ".rope.scaling.type", "linear"}, Key{a + ".rope.scaling.factor", float32(s.Factor)})
	}
	return keys
}

// GGUFSource is what FromGGUF asks of a file.
type GGUFSource interface {
	// Uint32, Float32 and String return the value of a key, and false where the key is absent. A key
	// of another type is an error.
	Uint32(key string) (uint32, bool, error)
	Float32(key string) (float32, bool, error)
	String(key string) (string, bool, error)
	// HasTensor reports whether the file holds a tensor.
	HasTensor(name string) bool
}

// FromGGUF reads a configuration from GGUF metadata. The vocabulary's size is the caller's to give
// (the rows of token_embd), and so are divisors, the rope_freqs.weight tensor or nil. Biases and a
// tied head show in the tensors that are there.
func FromGGUF(src GGUFSource, vocab int, divisors []float32) (*Config, error) {
	r := ggufReader{src: src}
	name := r.str("general.architecture", "")
	if r.err != nil {
		return nil, r.err
	}
	a, err := lookupGGUF(name)
	if err != nil {
		return nil, err
	}
	p := name + "."
	c := &Config{
		Arch: a.ModelType, Vocab: vocab, Act: SiLU, BOS: -1, PAD: -1,
		Layers: r.count(p+"block_count", 0), Context: r.count(p+"context_length", 0),
		Hidden: r.count(p+"embedding_length", 0), Intermediate: r.count(p+"feed_forward_length", 0),
		Heads: r.count(p+"attention.head_count", 0), RMSEps: r.float(p+"attention.layer_norm_rms_epsilon", 0),
		RopeTheta: r.float(p+"rope.freq_base", 10000), Tied: !src.HasTensor("output.weight"),
		AttentionBias: src.HasTensor("blk.0.attn_q.bias"), MLPBias: src.HasTensor("blk.0.ffn_up.bias"),
	}
	c.KVHeads = r.count(p+"attention.head_count_kv", c.Heads)
	head := 0
	if c.Heads > 0 {
		head = c.Hidden / c.Heads
	}
	c.HeadDim = r.count(p+"attention.key_length", head)
	if v := r.count(p+"attention.value_length", c.HeadDim); r.err == nil && v != c.HeadDim {
		return nil, fmt.Errorf("model: reading GGUF metadata: keys of %d and values of %d features a head: %w", c.HeadDim, v, ErrUnsupported)
	}
	if rot := r.count(p+"rope.dimension_count", c.HeadDim); r.err == nil && rot != c.HeadDim {
		return nil, fmt.Errorf("model: reading GGUF metadata: %srope.dimension_count is %d where the head has %d features: %w", p, rot, c.HeadDim, ErrUnsupported)
	}
	switch kind := r.str(p+"rope.scaling.type", "none"); kind {
	case "none":
	case "linear":
		if f := r.float(p+"rope.scaling.factor", 1); f != 1 {
			c.RopeScaling = &RopeScaling{Type: "linear", Factor: f}
		}
	default:
		return nil, fmt.Errorf("model: reading GGUF metadata: %srope.scaling.type %q: %w", p, kind, ErrUnsupported)
	}
	if r.err != nil {
		return nil, r.err
	}
	if divisors != nil {
		if c.RopeScaling, err = scalingFromDivisors(c, divisors); err != nil {
			return nil, err
		}
	}
	return c, c.Validate()
}

// ggufReader keeps the first error, so that a configuration reads as a list of keys.
type ggufReader struct {
	src GGUFSource
	err error
}

func (r *ggufReader) count(key string, otherwise int) int {
	v, ok, err := r.src.Uint32(key)
	if err != nil && r.err == nil {
		r.err = err
	}
	if !ok {
		return otherwise
	}
	return int(v)
}

func (r *ggufReader) float(key string, otherwise float64) float64 {
	v, ok, err := r.src.Float32(key)
	if err != nil && r.err == nil {
		r.err = err
	}
	if !ok {
		return otherwise
	}
	return shortest(v)
}

func (r *ggufReader) str(key, otherwise string) string {
	v, ok, err := r.src.String(key)
	if err != nil && r.err == nil {
		r.err = err
	}
	if !ok {
		return otherwise
	}
	return v
}

// scalingFromDivisors finds the llama3 parameters behind a rope_freqs.weight: a GGUF file keeps only
// the result. Several sets of parameters make the same divisors; the one with the published bounds
// (1 and 4) is preferred.
func scalingFromDivisors(c *Config, divisors []float32) (*RopeScaling, error) {
	if len(divisors) != c.HeadDim/2 {
		return nil, fmt.Errorf("model: reading GGUF metadata: rope_freqs.weight has %d values where a head of %d features needs %d", len(divisors), c.HeadDim, c.HeadDim/2)
	}
	factor := float32(0)
	for _, d := range divisors {
		factor = max(factor, d)
	}
	for _, bounds := range [][2]float64{{1, 4}, {1, 2}, {1, 8}, {2, 4}, {2, 8}} {
		for original := 32; original <= 1<<20; original *= 2 {
			s := &RopeScaling{"llama3", shortest(factor), bounds[0], bounds[1], original}
			probe := *c
			probe.RopeScaling = s
			if s.validate() == nil && near(probe.RopeDivisors(), divisors) {
				return s, nil
			}
		}
	}
	return nil, fmt.Errorf("model: reading GGUF metadata: rope_freqs.weight is no llama3 scaling this version recognises: %w", ErrUnsupported)
}

func near(a, b []float32) bool {
	for i := range a {
		if d := math.Abs(float64(a[i]) - float64(b[i])); !(d <= 1e-5*math.Abs(float64(a[i]))) {
			return false
		}
	}
	return true
}
