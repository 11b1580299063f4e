package model

import (
	"fmt"
	"math"
)

// GGUFSource is what FromGGUF asks of a file.
type GGUFSource interface {
	// Uint32, Float32, Bool and String return the value of a key, and false where the key is absent. A
	// key of another type is an error.
	Uint32(key string) (uint32, bool, error)
	Float32(key string) (float32, bool, error)
	Bool(key string) (bool, bool, error)
	String(key string) (string, bool, error)
	// Bools returns the value of a key that is a list of flags or of numbers, of which 0 is false; nil
	// where it is absent or no list.
	Bools(key string) ([]bool, error)
	// HasTensor reports whether the file holds a tensor.
	HasTensor(name string) bool
	// Vector returns the values of a short float32 vector, nil where the file has no tensor of the name.
	Vector(name string) ([]float32, error)
}

// FromGGUF reads a configuration from GGUF metadata. The vocabulary's size is the caller's to give
// (the rows of token_embd). Biases and a tied head show in the tensors that are there.
func FromGGUF(src GGUFSource, vocab int) (*Config, error) {
	r := ggufReader{src: src}
	name := r.str("general.architecture", "")
	if r.err != nil {
		return nil, r.err
	}
	a, err := lookupGGUF(name)
	if err != nil {
		return nil, err
	}
	p := name
	c := &Config{
		Arch: a.ModelType, Vocab: vocab, Act: SiLU, BOS: -1, PAD: -1,
		Layers: r.count(p+".block_count", 0), Context: r.count(p+".context_length", 0),
		Hidden: r.count(p+".embedding_length", 0), Intermediate: r.count(p+".feed_forward_length", 0),
		Heads: r.count(p+".attention.head_count", 0), RMSEps: r.float(p+".attention.layer_norm_rms_epsilon", 0),
		RopeTheta: r.float(p+".rope.freq_base", 10000), Tied: !src.HasTensor("output.weight"),
		AttentionBias: a.has("attention_bias") && src.HasTensor("blk.0.attn_q.bias"),
		MLPBias:       a.has("mlp_bias") && src.HasTensor("blk.0.ffn_up.bias"),
		AttnSoftcap:   r.float(p+attnSoftcap, 0), FinalSoftcap: r.float(p+finalSoftcap, 0),
	}
	if a.has("hidden_activation") {
		c.Act = GELUTanh
	}
	c.KVHeads = r.count(p+".attention.head_count_kv", c.Heads)
	head := 0
	if c.Heads > 0 {
		head = c.Hidden / c.Heads
	}
	c.HeadDim = r.count(p+".attention.key_length", head)
	if err := r.refuse(a, c, p); err != nil {
		return nil, err
	}
	if !a.has("sliding_window") {
		c.Window = 0
	} else if err := r.window(a, c, p); err != nil {
		return nil, err
	}
	if c.RopeScaling, err = r.scaling(c, p); err != nil {
		return nil, err
	}
	if a.readGGUF != nil {
		a.readGGUF(c, &r)
	}
	if r.err != nil {
		return nil, r.err
	}
	return c, c.Validate()
}

// refuse names keys whose meaning this version does not have.
func (r *ggufReader) refuse(a *Arch, c *Config, p string) error {
	if v := r.count(p+".attention.value_length", c.HeadDim); v != c.HeadDim {
		return fmt.Errorf("model: reading GGUF metadata: keys of %d and values of %d features a head: %w", c.HeadDim, v, ErrUnsupported)
	}
	if rot := r.count(p+".rope.dimension_count", c.HeadDim); rot != c.HeadDim {
		if !a.has("partial_rotary_factor") || rot < 1 || rot > c.HeadDim {
			return fmt.Errorf("model: reading GGUF metadata: %s.rope.dimension_count is %d where the head has %d features: %w", p, rot, c.HeadDim, ErrUnsupported)
		}
		c.RotaryDim = rot
	}
	if n := r.count(p+".expert_count", 0); n > 0 {
		return fmt.Errorf("model: reading GGUF metadata: %s.expert_count %d: %w: mixtures of experts need a routed product that this version does not have", p, n, ErrUnsupported)
	}
	for _, key := range []string{p + ".attention.causal", p + ".rope.scaling.finetuned"} {
		if on, ok, err := r.src.Bool(key); err != nil {
			return err
		} else if ok && !on && (key != p+".rope.scaling.finetuned" || a.ModelType == "granite") {
			return fmt.Errorf("model: reading GGUF metadata: %s of false: %w", key, ErrUnsupported)
		}
	}
	for _, key := range []string{attnSoftcap, finalSoftcap} {
		if r.float(p+key, 0) != 0 && !a.has(map[string]string{attnSoftcap: "attn_logit_softcapping", finalSoftcap: "final_logit_softcapping"}[key]) {
			return fmt.Errorf("model: reading GGUF metadata: %s%s: %w: a %s model has no such thing", p, key, ErrUnsupported, a.ModelType)
		}
	}
	return r.err
}

func (r *ggufReader) window(a *Arch, c *Config, p string) error {
	window := r.count(p+slidingWindow, 0)
	list, err := r.src.Bools(p + slidingPattern)
	if err != nil {
		return err
	}
	if list == nil {
		period := r.count(p+slidingPattern, a.period)
		c.setSliding(window, func(i int) bool { return slidesByRule(i, period) })
		return nil
	}
	if len(list) < c.Layers {
		return fmt.Errorf("model: reading GGUF metadata: %s%s lists %d layers of %d", p, slidingPattern, len(list), c.Layers)
	}
	c.setSliding(window, func(i int) bool { return list[i] })
	return nil
}

// become makes a configuration one of the family that shares its general.architecture, with a window.
func (r *ggufReader) become(c *Config, family string) {
	c.Arch = family
	if err := r.window(archs[family], c, archs[family].GGUF); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *ggufReader) scaling(c *Config, p string) (*RopeScaling, error) {
	old := p + ".rope.scale_linear" // the factor's name in files of 2023
	p += ropeScaling
	vectors := map[string][]float32{}
	for _, name := range []string{RopeFreqs, RopeLong, RopeShort} {
		v, err := r.src.Vector(name)
		if err != nil {
			return nil, err
		}
		vectors[name] = v
	}
	kind := r.str(p+"type", "linear") // llama.cpp's default
	if vectors[RopeLong] != nil {
		kind = "longrope" // Phi 3 does not say so
	}
	original := r.count(p+"original_context_length", c.Context)
	switch kind {
	case "none", "linear":
		if vectors[RopeFreqs] != nil {
			return scalingFromDivisors(c, vectors[RopeFreqs])
		}
		if f := r.float(p+"attn_factor", 1); f != 1 {
			return nil, fmt.Errorf("model: reading GGUF metadata: %sattn_factor %v without yarn or longrope: %w", p, f, ErrUnsupported)
		}
		if f := r.float(p+"factor", r.float(old, 1)); kind == "linear" && f != 1 && f != 0 {
			return &RopeScaling{Type: "linear", Factor: f}, nil
		}
		return nil, nil
	case "yarn":
		s := &RopeScaling{Type: "yarn", Factor: r.float(p+"factor", 1), OriginalContext: original,
			BetaFast: r.float(p+"yarn_beta_fast", 32), BetaSlow: r.float(p+"yarn_beta_slow", 1)}
		s.AttentionFactor = r.float(p+"yarn_attn_factor", yarnFactor(s.Factor, 1)*r.float(p+"attn_factor", 1))
		return s, nil
	case "longrope":
		s := &RopeScaling{Type: "longrope", OriginalContext: original}
		for _, v := range vectors[RopeShort] {
			s.Short = append(s.Short, shortest(v))
		}
		for _, v := range vectors[RopeLong] {
			s.Long = append(s.Long, shortest(v))
		}
		s.AttentionFactor = r.float(p+"attn_factor", 1)
		if original > 0 { // the same to the last bit where it is what follows from the rest
			if f := longFactor(float64(c.Context)/float64(original), original); shortest(float32(f)) == s.AttentionFactor {
				s.AttentionFactor = f
			}
		}
		return s, nil
	}
	return nil, fmt.Errorf("model: reading GGUF metadata: %stype %q: %w", p, kind, ErrUnsupported)
}

// ggufReader keeps the first error, so that a configuration reads as a list of keys.
type ggufReader struct {
	src GGUFSource
	err error
}

// has reports whether a number stands under a key.
func (r *ggufReader) has(key string) bool {
	_, ok, _ := r.src.Uint32(key)
	return ok
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
	if len(divisors) != c.rotary()/2 {
		return nil, fmt.Errorf("model: reading GGUF metadata: rope_freqs.weight has %d values where %d rotating features need %d", len(divisors), c.rotary(), c.rotary()/2)
	}
	factor := float32(0)
	for _, d := range divisors {
		factor = max(factor, d)
	}
	for _, bounds := range [][2]float64{{1, 4}, {1, 2}, {1, 8}, {2, 4}, {2, 8}} {
		for original := 32; original <= 1<<20; original *= 2 {
			s := &RopeScaling{Type: "llama3", Factor: shortest(factor), LowFreqFactor: bounds[0], HighFreqFactor: bounds[1], OriginalContext: original}
			probe := *c
			probe.RopeScaling = s
			if s.validate(c.rotary()) == nil && near(probe.RopeDivisors()[RopeFreqs], divisors) {
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
