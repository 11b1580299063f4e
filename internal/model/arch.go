package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrUnsupported is wrapped by errors about a model this version cannot compute.
var ErrUnsupported = errors.New("unsupported model")

// Arch is what differs between families apart from the definition itself: names on disk and the
// order of rows.
type Arch struct {
	ModelType string // Hugging Face's model_type
	Class     string // Hugging Face's class, in config.json's "architectures"
	GGUF      string // general.architecture

	names    map[string]string                // module → GGUF stem, where it departs from the common table
	rowHeads func(c *Config, name string) int // see RowHeads
}

var archs = map[string]*Arch{}

func register(a *Arch) { archs[a.ModelType] = a }

// Lookup returns the architecture of a Hugging Face model_type.
func Lookup(modelType string) (*Arch, error) {
	if a := archs[modelType]; a != nil {
		return a, nil
	}
	return nil, unknownArch(modelType)
}

func lookupGGUF(arch string) (*Arch, error) {
	for _, a := range archs {
		if a.GGUF == arch {
			return a, nil
		}
	}
	return nil, unknownArch(arch)
}

func unknownArch(name string) error {
	return fmt.Errorf("model: architecture %q: %w (this version knows %s)", name, ErrUnsupported,
		strings.Join(slices.Sorted(maps.Keys(archs)), ", "))
}

// Arch returns the configuration's architecture. A Config made by this package always has one.
func (c *Config) architecture() *Arch { return archs[c.Arch] }

// commonNames maps modules outside and inside a block to GGUF stems, where all families agree.
var commonNames = map[string]string{
	"model.embed_tokens": "token_embd",
	"model.norm":         "output_norm",
	"lm_head":            "output",
	"input_layernorm":    "attn_norm",
	"self_attn.q_proj":   "attn_q",
	"self_attn.k_proj":   "attn_k",
	"self_attn.v_proj":   "attn_v",
	"self_attn.o_proj":   "attn_output",
	"mlp.gate_proj":      "ffn_gate",
	"mlp.up_proj":        "ffn_up",
	"mlp.down_proj":      "ffn_down",
}

// GGUFName returns the name a parameter ("model.layers.3.mlp.up_proj.weight") has in a GGUF file
// ("blk.3.ffn_up.weight"), and false for a parameter the family does not have.
func (c *Config) GGUFName(name string) (string, bool) {
	module, suffix, ok := cutLast(name)
	if !ok || suffix != "weight" && suffix != "bias" {
		return "", false
	}
	prefix := ""
	if rest, in := strings.CutPrefix(module, "model.layers."); in {
		layer, inner, ok := strings.Cut(rest, ".")
		if !ok {
			return "", false
		}
		prefix, module = "blk."+layer+".", inner
	}
	stem, ok := c.architecture().names[module]
	if !ok {
		if stem, ok = commonNames[module]; !ok {
			return "", false
		}
	}
	return prefix + stem + "." + suffix, true
}

// RowHeads returns the number of heads over which the rows of a parameter are reordered in a GGUF
// file, or 0 where the order is the same. With d rows a head, GGUF row h·d+2p+c is Hugging Face's
// row h·d+c·(d/2)+p.
func (c *Config) RowHeads(name string) int {
	if f := c.architecture().rowHeads; f != nil {
		return f(c, name)
	}
	return 0
}

// moduleOf cuts "model.layers.N." and ".weight" or ".bias" off.
func moduleOf(name string) string {
	module, _, _ := cutLast(name)
	if rest, in := strings.CutPrefix(module, "model.layers."); in {
		_, module, _ = strings.Cut(rest, ".")
	}
	return module
}

func cutLast(name string) (before, after string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}
