package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// missing says of families near those this version knows what they would need, under Hugging Face's
// and llama.cpp's names.
var missing = map[string]string{
	"mixtral": experts, "qwen2_moe": experts, "qwen2moe": experts, "qwen3_moe": experts, "qwen3moe": experts, "phimoe": experts,
	"olmoe": experts, "granitemoe": experts, "deepseek_v2": latent, "deepseek_v3": latent, "deepseek2": latent,
	"gpt_oss": experts + " and attention sinks", "gpt-oss": experts + " and attention sinks",
	"llama4": experts + ", attention in chunks and a norm of q and k without a gain", "llama4_text": experts + " and attention in chunks",
	"gemma":      "norms that store their gain less one, without Gemma 2's softcaps and second norms",
	"gemma3n":    "alternating updates, layers that share keys and values, and embeddings of each layer",
	"gemma4":     "embeddings of each layer, layers that share keys and values, and a norm of values",
	"qwen3_next": delta, "qwen3next": delta, "qwen3_5": delta, "qwen35": delta, "qwen3_5_text": delta,
	"lfm2": "short convolutions", "mamba": "a state space layer", "mamba2": "a state space layer", "falcon_h1": "a state space layer",
	"granitemoehybrid": "a state space layer", "jamba": "a state space layer",
	"olmo": "norms without gains and clipped products",
	"phi":  "LayerNorm and a unit without a gate", "gpt2": "LayerNorm and learned positions", "gpt_neox": "LayerNorm and parallel parts",
	"falcon": "LayerNorm and parallel parts", "cohere": "LayerNorm and parallel parts", "cohere2": "LayerNorm and parallel parts",
	"ministral": "layers of which some slide", "mistral3": "the text model's place among other parts", "mllama": "cross attention",
	"qwen2_vl": sections, "qwen2_5_vl": sections, "qwen2vl": sections, "qwen3_vl": sections, "qwen3vl": sections,
	"glm": "positions of neighbouring features on a part of each head", "glm4": "positions of neighbouring features on a part of each head",
	"bert": "attention that is not causal", "t5": "an encoder and a decoder", "whisper": "an encoder and a decoder",
}

const (
	experts  = "a product routed over experts"
	latent   = "attention through a latent and a product routed over experts"
	delta    = "gated delta-rule layers with a convolution, and a gate on attention's output"
	sections = "positions in several dimensions, and the encoder of pictures"
)

func unknownArch(name string) error {
	known := strings.Join(slices.Sorted(maps.Keys(archs)), ", ")
	if need := missing[strings.ToLower(name)]; need != "" {
		return fmt.Errorf("model: architecture %q: %w: it needs %s (this version knows %s)", name, ErrUnsupported, need, known)
	}
	return fmt.Errorf("model: architecture %q: %w (this version knows %s)", name, ErrUnsupported, known)
}
