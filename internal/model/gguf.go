package model

import (
	"fmt"
	"strings"
)

// Key is one GGUF metadata entry. Value is a uint32, float32, bool, string or []bool.
type Key struct {
	Name  string
	Value any
}

// Keys behind the name of the architecture that several families use.
const (
	slidingWindow  = ".attention.sliding_window"
	slidingPattern = ".attention.sliding_window_pattern"
	attnSoftcap    = ".attn_logit_softcapping"
	finalSoftcap   = ".final_logit_softcapping"
	localTheta     = ".rope.freq_base_swa"
	ropeScaling    = ".rope.scaling."
)

// GGUFKeys returns the metadata that describes the shape, general.architecture first, with the
// types llama.cpp insists on.
func (c *Config) GGUFKeys() []Key {
	arch := c.architecture()
	a := arch.GGUF
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
		{a + ".rope.dimension_count", uint32(c.rotary())},
		{a + ".vocab_size", uint32(c.Vocab)},
	}
	add := func(name string, v any) { keys = append(keys, Key{a + name, v}) }
	for _, k := range c.scalingKeys() {
		add(ropeScaling+k.Name, k.Value)
	}
	if c.LocalTheta != 0 {
		add(localTheta, float32(c.LocalTheta))
	}
	if c.Window > 0 {
		add(slidingWindow, uint32(c.Window))
		if list, regular := c.pattern(arch.period); !regular {
			add(slidingPattern, list)
		}
	}
	if c.AttnSoftcap != 0 {
		add(attnSoftcap, float32(c.AttnSoftcap))
	}
	if c.FinalSoftcap != 0 {
		add(finalSoftcap, float32(c.FinalSoftcap))
	}
	if arch.writeGGUF != nil {
		for _, k := range arch.writeGGUF(c) {
			add(k.Name, k.Value)
		}
	}
	return keys
}

// pattern lists the layers that slide and reports whether they follow llama.cpp's rule.
func (c *Config) pattern(period int) (list []bool, regular bool) {
	list, regular = make([]bool, c.Layers), true
	for i := range list {
		list[i] = c.slides(i)
		regular = regular && list[i] == slidesByRule(i, period)
	}
	return list, regular
}

func slidesByRule(i, period int) bool { return period == 0 || i%period < period-1 }

func (c *Config) scalingKeys() []Key {
	s := c.RopeScaling
	if s == nil {
		return nil
	}
	switch s.Type {
	case "linear":
		return []Key{{"type", "linear"}, {"factor", float32(s.Factor)}}
	case "yarn":
		keys := []Key{{"type", "yarn"}, {"factor", float32(s.Factor)}, {"original_context_length", uint32(s.OriginalContext)}}
		if s.BetaFast != 32 || s.BetaSlow != 1 {
			keys = append(keys, Key{"yarn_beta_fast", float32(s.BetaFast)}, Key{"yarn_beta_slow", float32(s.BetaSlow)})
		}
		if own := yarnFactor(s.Factor, 1); s.AttentionFactor != own { // llama.cpp multiplies its own by the first
			keys = append(keys, Key{"attn_factor", float32(s.AttentionFactor / own)}, Key{"yarn_attn_factor", float32(s.AttentionFactor)})
		}
		return keys
	case "longrope":
		return []Key{{"type", "longrope"}, {"original_context_length", uint32(s.OriginalContext)}, {"attn_factor", float32(s.AttentionFactor)}}
	}
	return nil // llama3 is a tensor
}

// GGUFNote says what llama.cpp computes otherwise from a GGUF file of the model, though the file says it: "" for
// nothing. See CheckGGUF for what it computes otherwise from all of them.
func (c *Config) GGUFNote() string {
	switch c.Arch {
	case "gemma2", "gemma3_text", "olmo3":
		return ""
	}
	if c.Window > 0 && c.Window < c.Context {
		return fmt.Sprintf("llama.cpp has no sliding window for %s and sees all keys: on texts longer than %d tokens its answers are not this model's", c.Arch, c.Window)
	}
	return ""
}

// CheckGGUF reports what of the model llama.cpp would not load, or compute otherwise, from a GGUF
// file, naming the Hugging Face key. A window that it leaves out is not among it: see mistral.go.
func (c *Config) CheckGGUF() error {
	a := c.architecture()
	reason := c.llamaCppLacks(a)
	if reason == "" && a.ggufReason != nil {
		reason = a.ggufReason(c)
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("model: writing GGUF metadata: %s: %w by llama.cpp for architecture %s; write a folder instead (-o a name without .gguf)", reason, ErrUnsupported, a.GGUF)
}

func (c *Config) llamaCppLacks(a *Arch) string {
	own := SiLU
	if a.has("hidden_activation") {
		own = GELUTanh
	}
	l := a.llamaCpp
	switch {
	case c.Act != own:
		return fmt.Sprintf("activation %s in place of %s", c.Act, own)
	case c.AttentionBias && !l.outputBias:
		return "attention_bias, which gives o_proj a bias"
	case c.MLPBias && !l.outputBias:
		return "mlp_bias"
	case l.square && c.Heads*c.HeadDim != c.Hidden:
		return fmt.Sprintf("%d heads of %d features where hidden_size is %d", c.Heads, c.HeadDim, c.Hidden)
	case l.head == "own" && c.Tied:
		return "tie_word_embeddings"
	case l.head == "tied" && !c.Tied:
		return "tie_word_embeddings of false"
	}
	s := c.RopeScaling
	if s == nil {
		return ""
	}
	switch {
	case s.Type == "yarn" && (s.BetaFast != 32 || s.BetaSlow != 1 || s.Untruncated):
		return fmt.Sprintf("yarn rope scaling with beta_fast %v, beta_slow %v, truncate %t in place of 32, 1, true", s.BetaFast, s.BetaSlow, !s.Untruncated)
	case s.Type == "yarn" && l.noYarn,
		s.Type != "yarn" && s.Type != "linear" && !strings.Contains(l.scalings, s.Type):
		return s.Type + " rope scaling"
	}
	return ""
}
