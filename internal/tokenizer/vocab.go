package tokenizer

// This file converts to and from the vocabulary that GGUF's tokenizer.ggml keys hold.

import (
	"fmt"
	"slices"
	"strings"
)

// Token types of GGUF (tokenizer.ggml.token_type).
const (
	TypeNormal      int32 = 1
	TypeUnknown     int32 = 2
	TypeControl     int32 = 3 // special
	TypeUserDefined int32 = 4 // added, not special
	TypeUnused      int32 = 5
	TypeByte        int32 = 6
)

// Vocab is a tokenizer as GGUF keeps it; each field is the tokenizer.ggml key of
// that name. Absent ids are -1; what absent flags default to is up to the reader
// of the file (for AddBOS see DefaultAddBOS).
type Vocab struct {
	Model  string    // "gpt2" is byte-level BPE
	Pre    string    // the pre-tokenizer's name
	Tokens []string  // by id
	Types  []int32   // by id, TypeNormal …; nil if all are normal
	Merges []string  // "left right", best first
	Scores []float32 // by id; only of model "llama"

	BOS, EOS, UNK, PAD int
	AddBOS, AddEOS     bool
	AddSpacePrefix     bool // has no effect on model "gpt2", as in llama.cpp
}

// preTokenizer is what a family of GGUF pre-tokenizer names stands for.
type preTokenizer struct {
	names        []string
	splitters    []splitter
	ignoreMerges bool
	addBOS       bool // where the file does not say
}

var preTokenizers = []preTokenizer{
	{
		names:     []string{"gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "granite-docling"},
		splitters: []splitter{gpt2Scanner},
	}, {
		names:     []string{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
		splitters: []splitter{digitSplitter{individual: true}, gpt2Scanner},
	}, {
		names:        []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2", "pixtral"},
		splitters:    []splitter{llama3Scanner},
		ignoreMerges: true,
		addBOS:       true,
	}, {
		names:     []string{"smaug-bpe", "dbrx", "chatglm-bpe"},
		splitters: []splitter{llama3Scanner},
	}, {
		names:        []string{"glm4"},
		splitters:    []splitter{llama3Scanner},
		ignoreMerges: true,
	}, {
		names:     []string{"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"},
		splitters: []splitter{qwen2Scanner},
	},
}

func findPreTokenizer(name string) *preTokenizer {
	for i, p := range preTokenizers {
		if slices.Contains(p.names, name) {
			return &preTokenizers[i]
		}
	}
	return nil
}

// DefaultAddBOS is the value of add_bos_token where a GGUF file with model "gpt2"
// and this pre-tokenizer lacks the key.
func DefaultAddBOS(pre string) bool {
	p := findPreTokenizer(pre)
	return p != nil && p.addBOS
}

// FromVocab makes a tokenizer from a GGUF vocabulary of model "gpt2". It encodes
// as llama.cpp does, so nothing is normalized, not even for "qwen2".
func FromVocab(v Vocab) (*Tokenizer, error) {
	t, err := fromVocab(v)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: reading a GGUF vocabulary: %w", err)
	}
	return t, nil
}

func fromVocab(v Vocab) (*Tokenizer, error) {
	if v.Model != "gpt2" {
		return nil, fmt.Errorf("tokenizer.ggml.model %q: %w (gpt2 is)", v.Model, ErrUnsupported)
	}
	pre := findPreTokenizer(v.Pre)
	if pre == nil {
		return nil, fmt.Errorf("tokenizer.ggml.pre %q: %w (gpt-2, smollm, llama-bpe, smaug-bpe, glm4, qwen2 and their aliases are)",
			v.Pre, ErrUnsupported)
	}
	if v.Types != nil && len(v.Types) != len(v.Tokens) {
		return nil, fmt.Errorf("%w: %d token types for %d tokens", ErrFormat, len(v.Types), len(v.Tokens))
	}
	for _, s := range []struct {
		name string
		id   int
	}{{"bos", v.BOS}, {"eos", v.EOS}, {"unknown", v.UNK}, {"padding", v.PAD}} {
		if s.id < -1 || s.id >= len(v.Tokens) {
			return nil, fmt.Errorf("%w: %s_token_id is %d of %d tokens", ErrFormat, s.name, s.id, len(v.Tokens))
		}
	}
	v.Tokens, v.Types, v.Merges = slices.Clone(v.Tokens), slices.Clone(v.Types), slices.Clone(v.Merges)
	model := &bpeDocument{Vocab: make(map[string]int64, len(v.Tokens)), IgnoreMerges: pre.ignoreMerges}
	var added []addedToken
	for id, text := range v.Tokens {
		if text == "" {
			text = fmt.Sprintf("[EMPTY_%d]", id)
			v.Tokens[id] = text
		}
		if first, ok := model.Vocab[text]; ok {
			return nil, fmt.Errorf("%w: token %.40q has ids %d and %d", ErrFormat, text, first, id)
		}
		model.Vocab[text] = int64(id)
		if v.Types == nil {
			continue
		}
		switch v.Types[id] {
		case TypeControl, TypeUnknown:
			added = append(added, addedToken{ID: int32(id), Content: text, Special: true})
		case TypeUserDefined:
			added = append(added, addedToken{ID: int32(id), Content: text})
		}
	}
	merges, err := splitMerges(v.Merges)
	if err != nil {
		return nil, err
	}
	model.Merges = merges
	t := &Tokenizer{prefixAt: -1, splitters: pre.splitters, vocab: &v}
	if err := t.setTokens(model, added); err != nil {
		return nil, err
	}
	if err := t.setModel(model); err != nil {
		return nil, err
	}
	t.wanted = SpecialIDs{BOS: int32(v.BOS), EOS: int32(v.EOS), UNK: int32(v.UNK), PAD: int32(v.PAD)}
	if v.AddBOS && v.BOS >= 0 {
		t.prefix = []int32{int32(v.BOS)}
	}
	if v.AddEOS && v.EOS >= 0 {
		t.suffix = []int32{int32(v.EOS)}
	}
	t.finish(v.Pre, true)
	return t, nil
}

// splitMerges reads "left right" at the first space that has something before it.
// Of equal merges only the first counts.
func splitMerges(merges []string) ([]mergeText, error) {
	out := make([]mergeText, 0, len(merges))
	seen := make(map[mergeText]bool, len(merges))
	for i, s := range merges {
		at := -1
		if len(s) > 1 {
			at = strings.IndexByte(s[1:], ' ') + 1
		}
		if at < 1 {
			return nil, fmt.Errorf("%w: merge %d, %.40q, is not two pieces with a space between", ErrFormat, i, s)
		}
		m := mergeText{s[:at], s[at+1:]}
		if !seen[m] {
			seen[m] = true
			out = append(out, m)
		}
	}
	return out, nil
}

// Vocab returns the GGUF vocabulary for the tokenizer, which has no holes: unused
// ids become [PAD<id>]. It fails with ErrUnsupported where GGUF has no name for
// the pre-tokenizer or no key for what the post-processor adds.
func (t *Tokenizer) Vocab() (Vocab, error) {
	v, err := t.toVocab()
	if err != nil {
		return Vocab{}, fmt.Errorf("tokenizer: making a GGUF vocabulary: %w", err)
	}
	return v, nil
}

func (t *Tokenizer) toVocab() (Vocab, error) {
	if t.vocab != nil {
		v := *t.vocab
		v.Tokens, v.Types, v.Merges = slices.Clone(v.Tokens), slices.Clone(v.Types), slices.Clone(v.Merges)
		v.BOS, v.EOS, v.UNK, v.PAD = int(t.wanted.BOS), int(t.wanted.EOS), int(t.wanted.UNK), int(t.wanted.PAD)
		return v, nil
	}
	if t.ggml == "" {
		return Vocab{}, fmt.Errorf("%w: GGUF has no name for this pre_tokenizer", ErrUnsupported)
	}
	v := Vocab{
		Model: "gpt2", Pre: t.ggml,
		BOS: int(t.wanted.BOS), EOS: int(t.wanted.EOS), UNK: int(t.wanted.UNK), PAD: int(t.wanted.PAD),
		AddSpacePrefix: t.prefixAt >= 0,
	}
	only := func(ids []int32, id int32) bool { return len(ids) == 1 && ids[0] == id && id >= 0 }
	v.AddBOS, v.AddEOS = only(t.prefix, t.wanted.BOS), only(t.suffix, t.wanted.EOS)
	if len(t.prefix) > 0 && !v.AddBOS || len(t.suffix) > 0 && !v.AddEOS {
		return Vocab{}, fmt.Errorf("%w: the post_processor adds more than the BOS and EOS tokens (%d, %d); name those in tokenizer_config.json",
			ErrUnsupported, v.BOS, v.EOS)
	}
	v.Tokens, v.Types = slices.Clone(t.tokens), make([]int32, len(t.tokens))
	for id, known := range t.known {
		v.Types[id] = TypeNormal
		if !known {
			v.Tokens[id], v.Types[id] = padToken(id), TypeUnused
		}
	}
	for _, a := range t.added {
		if a.Special || looksSpecial(a.Content) {
			v.Types[a.ID] = TypeControl
			continue
		}
		v.Types[a.ID] = TypeUserDefined
		v.Tokens[a.ID] = strings.ReplaceAll(a.Content, "\u2581", " ")
	}
	seen := make(map[string]int, len(v.Tokens))
	for id, text := range v.Tokens {
		if first, ok := seen[text]; ok {
			return Vocab{}, fmt.Errorf("%w: ids %d and %d would both be %.40q", ErrUnsupported, first, id, text)
		}
		seen[text] = id
	}
	for _, m := range t.merges() {
		left := strings.ReplaceAll(m[0], " ", "Ġ")
		v.Merges = append(v.Merges, left+" "+strings.ReplaceAll(m[1], " ", "Ġ"))
	}
	return v, nil
}

// Pad appends unused tokens until there are n, for models whose embedding has
// more rows than the tokenizer has tokens.
func (v *Vocab) Pad(n int) {
	for id := len(v.Tokens); id < n; id++ {
		v.Tokens = append(v.Tokens, padToken(id))
		if v.Types != nil {
			v.Types = append(v.Types, TypeUnused)
		}
	}
}

func padToken(id int) string { return fmt.Sprintf("[PAD%d]", id) }

// merges returns the model's merges in order of rank.
func (t *Tokenizer) merges() []mergeText {
	type ranked struct {
		pair mergeText
		rank uint32
	}
	all := make([]ranked, 0, len(t.model.merges))
	for key, m := range t.model.merges {
		all = append(all, ranked{mergeText{t.tokens[key>>32], t.tokens[uint32(key)]}, m.rank})
	}
	slices.SortFunc(all, func(a, b ranked) int { return int(a.rank) - int(b.rank) })
	out := make([]mergeText, len(all))
	for i, r := range all {
		out[i] = r.pair
	}
	return out
}

// looksSpecial is the converter's guess that an added token is a control token
// although it is not marked special.
func looksSpecial(text string) bool {
	switch text {
	case "<pad>", "<mask>", "[@BOS@]", "<2mass>":
		return true
	}
	between := func(prefix, suffix string) bool {
		return len(text) >= len(prefix)+len(suffix) && strings.HasPrefix(text, prefix) && strings.HasSuffix(text, suffix)
	}
	return between("<|", "|>") || between("<｜", "｜>") || between("<unused", ">")
}
