package onnx

import (
	"bytes"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/model"
)

// genaiTypes are the architectures of ours that onnxruntime-genai knows by name.
var genaiTypes = []string{"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "smollm3", "granite"}

// genaiConfig returns the genai_config.json that onnxruntime-genai reads: what the graph's inputs
// and outputs are called and how large its cache is, with greedy search as the default.
func genaiConfig(c *model.Config) ([]byte, error) {
	kind := c.Arch
	if !slices.Contains(genaiTypes, kind) {
		kind = "decoder" // the runtime does not know it by name, nor need it
	}
	m := map[string]any{
		"type": kind, "vocab_size": c.Vocab, "context_length": c.Context,
		"decoder": map[string]any{
			"filename": modelFile, "head_size": c.HeadDim, "hidden_size": c.Hidden,
			"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "num_hidden_layers": c.Layers,
			"session_options": map[string]any{"log_id": "onnxruntime-genai", "provider_options": []any{}},
			"inputs": map[string]any{"input_ids": inputIDs, "attention_mask": attentionMask,
				"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
			"outputs": map[string]any{"logits": logitsOutput,
				"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
		},
	}
	if c.BOS >= 0 {
		m["bos_token_id"] = c.BOS
	}
	switch len(c.EOS) {
	case 0:
	case 1:
		m["eos_token_id"] = c.EOS[0]
	default:
		m["eos_token_id"] = c.EOS
	}
	switch {
	case c.PAD >= 0:
		m["pad_token_id"] = c.PAD
	case len(c.EOS) > 0:
		m["pad_token_id"] = c.EOS[0] // never seen: sequences are not padded, but the runtime wants one
	}
	search := map[string]any{
		"do_sample": false, "early_stopping": true, "length_penalty": 1.0, "max_length": c.Context, "min_length": 0,
		"no_repeat_ngram_size": 0, "num_beams": 1, "num_return_sequences": 1, "past_present_share_buffer": true,
		"repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "diversity_penalty": 0.0,
	}
	return indented(map[string]any{"model": m, "search": search})
}

// indented returns JSON that people read and that is always the same.
func indented(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := json.MarshalWrite(&b, v, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
