package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// ErrUnsupported is wrapped by errors about a model this version cannot compute.
var ErrUnsupported = errors.New("unsupported model")

// Arch is what differs between families apart from the definition itself: defaults, names on disk,
// the order of rows, and what a GGUF file can say.
type Arch struct {
	ModelType string // Hugging Face's model_type
	Class     string // Hugging Face's class, in config.json's "architectures"
	GGUF      string // general.architecture

	// defaults is a config.json of what the family's class in transformers assumes of absent keys.
	// The family has the keys that stand here and no other optional one.
	defaults string
	keys     map[string]bool // those of defaults

	// slides is the rule by which layers slide where config.json has no layer_types; nil: all do.
	slides func(c *Config, h *hfConfig) (func(i int) bool, error)
	// scaling4 makes rope_scaling where transformers 4 allows of it some keys only.
	scaling4 func(c *Config) map[string]any

	localRope bool              // sliding layers have rotary frequencies of their own
	names     map[string]string // module → GGUF stem, where it departs from the common table
	pairs     bool              // ggml rotates neighbouring features, see RowHeads
	offset    bool              // gains are stored less one in a folder, see Offset
	period    int               // in llama.cpp the last of so many layers does not slide; 0: all slide
	llamaCpp  limits
	// writeGGUF makes keys beyond the common ones, and readGGUF reads them, and sets what is built into
	// llama.cpp. ggufReason says what else llama.cpp would compute otherwise, "" for nothing.
	writeGGUF  func(c *Config) []Key
	readGGUF   func(c *Config, r *ggufReader)
	ggufReason func(c *Config) string
}

// limits is what the family has in llama.cpp's loader, where that is less than in transformers.
type limits struct {
	outputBias bool   // a bias of o_proj, and of the gated unit
	square     bool   // heads together must be as wide as the residual stream
	head       string // "own": needs an output head of its own, "tied": has none
	scalings   string // types of rope scaling, apart from yarn and linear
	noYarn     bool
}

var archs = map[string]*Arch{}

// has reports whether the family's configuration has an optional key.
func (a *Arch) has(key string) bool { return a.keys[key] }

func register(a *Arch) {
	var defaults map[string]any
	if err := json.Unmarshal([]byte(a.defaults), &defaults); err != nil {
		panic(fmt.Sprintf("model: internal error: defaults of %s: %v", a.ModelType, err))
	}
	a.keys = map[string]bool{}
	for k := range defaults {
		a.keys[k] = true
	}
	archs[a.ModelType] = a
}

// Lookup returns the architecture of a Hugging Face model_type.
func Lookup(modelType string) (*Arch, error) {
	if a := archs[modelType]; a != nil {
		return a, nil
	}
	return nil, unknownArch(modelType)
}

// lookupGGUF returns the architecture of a general.architecture. Where two share one, it is the one
// of the same name; a Mistral with a window shows in a key, see mistral.go.
func lookupGGUF(arch string) (*Arch, error) {
	if a := archs[arch]; a != nil && a.GGUF == arch {
		return a, nil
	}
	for _, name := range slices.Sorted(maps.Keys(archs)) {
		if archs[name].GGUF == arch {
			return archs[name], nil
		}
	}
	return nil, unknownArch(arch)
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
	"self_attn.q_norm":   "attn_q_norm",
	"self_attn.k_norm":   "attn_k_norm",
	"mlp.gate_proj":      "ffn_gate",
	"mlp.up_proj":        "ffn_up",
	"mlp.down_proj":      "ffn_down",
}

// preNorm are the names of families with a norm before each part, sandwich those of families with
// norms on both sides: the same Hugging Face name is another tensor.
var (
	preNorm  = map[string]string{"post_attention_layernorm": "ffn_norm"}
	sandwich = map[string]string{
		"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
		"post_feedforward_layernorm": "post_ffw_norm",
	}
)

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

// GGUFArch returns what a GGUF file calls the family: its general.architecture.
func (c *Config) GGUFArch() string { return c.architecture().GGUF }

// RowHeads returns the number of heads over which the rows of a parameter are reordered in a GGUF
// file, or 0 where the order is the same. With d rows a head, GGUF row h·d+2p+c is Hugging Face's
// row h·d+c·(d/2)+p: ggml rotates neighbouring features in some families, Hugging Face halves.
func (c *Config) RowHeads(name string) int {
	if !c.architecture().pairs {
		return 0
	}
	switch moduleOf(name) {
	case "self_attn.q_proj":
		return c.Heads
	case "self_attn.k_proj":
		return c.KVHeads
	}
	return 0
}

// Offset returns what a GGUF file adds to the values of a parameter: 1 for the gains of Gemma's
// norms, which Hugging Face stores less one, and 0 for all else. The sum is rounded to float32, so
// that a gain below 2⁻⁸ in size may come back changed in its last bits, unless it is rounded to
// bfloat16 again: of those, all above 2⁻¹⁶ are kept.
func (c *Config) Offset(name string) float32 {
	if c.architecture().offset && strings.HasSuffix(name, "norm.weight") {
		return 1
	}
	return 0
}

// textParts maps the model_type of models of several parts to that of their text model.
var textParts = map[string]string{"gemma3": "gemma3_text"}

// FolderNames returns the names a parameter may have in a folder of safetensors: its own, and for
// the text model in a model of several parts those that transformers 4 and 5 give it.
func (c *Config) FolderNames(name string) []string {
	if !c.prefixed {
		return []string{name}
	}
	inner := strings.TrimPrefix(name, "model.")
	return []string{"language_model." + name, "model.language_model." + inner, name}
}

// Module returns the path that a module has in this model for the one it has inside a model of several
// parts, which adapters trained on that model name. Other paths stay as they are.
func (c *Config) Module(path string) string {
	for _, text := range textParts {
		if text != c.Arch {
			continue
		}
		for _, prefix := range []string{"model.language_model.", "language_model.model."} {
			if inner, in := strings.CutPrefix(path, prefix); in {
				return "model." + inner
			}
		}
	}
	return path
}

// Foreign reports whether a tensor of a folder belongs to another part of the model.
func (c *Config) Foreign(name string) bool {
	if !c.prefixed {
		return false
	}
	name = strings.TrimPrefix(name, "model.")
	return strings.HasPrefix(name, "vision_tower.") || strings.HasPrefix(name, "multi_modal_projector.")
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
