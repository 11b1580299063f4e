package inspect

import (
	"fmt"
	"strings"

	"github.com/graftml/graft/gguf"
)

// This file checks the metadata of a GGUF file. The types are those that llama.cpp asks for
// (llama-model-loader.cpp, get_key): an entry of another type stops it, or is read as something else.

// keyTypes are the types of keys by name, and of those of an architecture by what follows its name.
// An array is written as its elements' type behind "[]"; several types are all right where they
// stand with "|" between them.
var keyTypes = map[string]string{
	"general.architecture": "string", "general.type": "string", "general.name": "string", "general.license": "string",
	"general.basename": "string", "general.finetune": "string", "general.size_label": "string", "general.version": "string",
	"general.quantization_version": "uint32", "general.file_type": "uint32", "general.alignment": "uint32",
	"general.tags": "[]string", "general.languages": "[]string",

	"tokenizer.ggml.model": "string", "tokenizer.ggml.pre": "string", "tokenizer.ggml.tokens": "[]string",
	"tokenizer.ggml.token_type": "[]int32", "tokenizer.ggml.scores": "[]float32", "tokenizer.ggml.merges": "[]string",
	"tokenizer.ggml.bos_token_id": "uint32", "tokenizer.ggml.eos_token_id": "uint32", "tokenizer.ggml.eot_token_id": "uint32",
	"tokenizer.ggml.unknown_token_id": "uint32", "tokenizer.ggml.padding_token_id": "uint32", "tokenizer.ggml.seperator_token_id": "uint32",
	"tokenizer.ggml.add_bos_token": "bool", "tokenizer.ggml.add_eos_token": "bool", "tokenizer.ggml.add_space_prefix": "bool",
	"tokenizer.ggml.remove_extra_whitespaces": "bool", "tokenizer.chat_template": "string",

	"split.no": "uint16", "split.count": "uint16", "split.tensors.count": "int32",
}

var archKeyTypes = map[string]string{
	"block_count": "uint32", "context_length": "uint32", "embedding_length": "uint32", "vocab_size": "uint32",
	"feed_forward_length": "uint32|[]uint32|[]int32", "attention.head_count": "uint32|[]uint32|[]int32",
	"attention.head_count_kv": "uint32|[]uint32|[]int32", "attention.key_length": "uint32", "attention.value_length": "uint32",
	"attention.layer_norm_rms_epsilon": "float32", "attention.layer_norm_epsilon": "float32", "attention.sliding_window": "uint32",
	"attention.scale": "float32", "attn_logit_softcapping": "float32", "final_logit_softcapping": "float32",
	"rope.dimension_count": "uint32", "rope.freq_base": "float32", "rope.scaling.type": "string", "rope.scaling.factor": "float32",
	"rope.scaling.original_context_length": "uint32", "rope.scaling.attn_factor": "float32", "logit_scale": "float32",
	"embedding_scale": "float32", "residual_scale": "float32",
}

// typeName is an entry's type as keyTypes writes it.
func typeName(kv gguf.KV) string {
	if kv.Type == gguf.Array {
		return "[]" + kv.Elem().String()
	}
	return kv.Type.String()
}

// checkKeys checks the types of keys, and finds those that are missing.
func (s *subject) checkKeys() {
	f, r := s.h.gguf, s.r
	for _, kv := range f.KVs() {
		want := keyTypes[kv.Key]
		if rest, ok := strings.CutPrefix(kv.Key, r.ggufArch(f)+"."); ok && want == "" {
			want = archKeyTypes[rest]
		}
		if want == "" {
			continue
		}
		fine := false
		for typ := range strings.SplitSeq(want, "|") {
			fine = fine || typ == typeName(kv)
		}
		if !fine {
			r.find(Error, "key-type", kv.Key, "make the file again with a current converter", "its type is %s, llama.cpp reads %s", typeName(kv), strings.ReplaceAll(want, "|", " or "))
		}
	}
	arch := r.ggufArch(f)
	if arch == "" {
		r.find(Error, "key-missing", "general.architecture", "make the file again with a current converter", "the key is missing, so nothing says what the tensors mean")
		return
	}
	for _, k := range []struct {
		key string
		s   Severity
		say string
	}{
		{arch + ".context_length", Error, "the key is missing"}, {arch + ".embedding_length", Error, "the key is missing"},
		{arch + ".block_count", Error, "the key is missing"},
		{arch + ".rope.freq_base", Warning, "the key is missing, and 10000 is taken"},
		{"tokenizer.ggml.tokens", Warning, "the key is missing: the file has no tokenizer"},
		{"tokenizer.ggml.eos_token_id", Warning, "the key is missing, so generation may not stop"},
		{"general.file_type", Note, "the key is missing, so llama.cpp guesses the type it shows"},
	} {
		if _, ok := f.Get(k.key); !ok && (s.c != nil || !strings.Contains(k.key, "rope")) {
			r.find(k.s, "key-missing", k.key, "make the file again with a current converter", "%s", k.say)
		}
	}
	if kind, _, _ := gguf.Value[string](f, "tokenizer.ggml.model"); kind == "gpt2" {
		if _, ok := f.Get("tokenizer.ggml.pre"); !ok {
			r.find(Warning, "key-missing", "tokenizer.ggml.pre", "make the file again with a current converter", "the key is missing: words are split as GPT-2 does, which is wrong for most models")
		}
	}
	tokens, _, _ := gguf.Value[[]string](f, "tokenizer.ggml.tokens")
	if e := s.h.byName["token_embd.weight"]; e != nil && len(e.shape) == 2 && tokens != nil && e.shape[0] != len(tokens) {
		r.find(Error, "tokenizer-size", "tokenizer.ggml.tokens", "make the file again with a current converter", "the file has %d tokens, but the embedding table %d rows; llama.cpp refuses it", len(tokens), e.shape[0])
	}
	for _, list := range []struct {
		key string
		n   func() (int, bool)
	}{
		{"tokenizer.ggml.token_type", func() (int, bool) { v, ok, _ := gguf.Value[[]int32](f, "tokenizer.ggml.token_type"); return len(v), ok }},
		{"tokenizer.ggml.scores", func() (int, bool) { v, ok, _ := gguf.Value[[]float32](f, "tokenizer.ggml.scores"); return len(v), ok }},
	} {
		if n, ok := list.n(); ok && tokens != nil && n != len(tokens) {
			r.find(Error, "tokenizer-lists", list.key, "make the file again with a current converter", "it has %d entries for %d tokens", n, len(tokens))
		}
	}
	for _, role := range []string{"bos", "eos", "eot", "unknown", "padding"} {
		key := fmt.Sprintf("tokenizer.ggml.%s_token_id", role)
		if id, ok, _ := gguf.Value[uint32](f, key); ok && tokens != nil && int64(id) >= int64(len(tokens)) {
			r.find(Error, "special-id-range", key, "make the file again with a current converter", "it is %d, but there are %d tokens", id, len(tokens))
		}
	}
}

func (r *Report) ggufArch(f *gguf.Set) string {
	arch, _, _ := gguf.Value[string](f, "general.architecture")
	return arch
}
