package tokenizer

// This file makes a tokenizer of the vocabulary that GGUF's tokenizer.ggml keys hold. The
// other direction is in vocab_write.go.

import (
	"fmt"
	"math"
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

// The kinds of tokenizer in GGUF (tokenizer.ggml.model).
const (
	modelBPE     = "gpt2"   // byte-level BPE
	modelSPM     = "llama"  // SentencePiece's BPE
	modelUnigram = "t5"     // SentencePiece's unigram model
	modelGemma4  = "gemma4" // BPE of characters by merges
)

// Vocab is a tokenizer as GGUF keeps it; each field is the tokenizer.ggml key of
// that name. Absent ids are -1; what absent keys stand for says DefaultVocab.
type Vocab struct {
	Model  string    // "gpt2" is byte-level BPE, "llama" SentencePiece's BPE, "t5" its unigram model, "gemma4" BPE of characters
	Pre    string    // the pre-tokenizer's name; "default" for models but "gpt2"
	Tokens []string  // by id
	Types  []int32   // by id, TypeNormal …; nil if all are normal
	Merges []string  // "left right", best first; models "gpt2" and "gemma4"
	Scores []float32 // by id; models "llama" and "t5"

	BOS, EOS, UNK, PAD     int
	AddBOS, AddEOS         bool
	AddSpacePrefix         bool   // has no effect on model "gpt2", as in llama.cpp
	RemoveExtraWhitespaces bool   // model "t5"
	Charsmap               []byte // precompiled_charsmap; model "t5"

	// Name is general.name, by which llama.cpp knows models whose special tokens take
	// the whitespace to their right (Phi-3).
	Name string
}

// DefaultVocab returns what llama.cpp takes keys for that a GGUF file with this model and
// pre-tokenizer lacks. Ids hold only where the vocabulary has as many tokens.
func DefaultVocab(model, pre string) Vocab {
	v := Vocab{Model: model, Pre: pre, BOS: -1, EOS: -1, UNK: -1, PAD: -1}
	switch model {
	case modelBPE:
		p := findPreTokenizer(pre)
		v.AddBOS = p != nil && p.addBOS
	case modelSPM:
		v.BOS, v.EOS, v.UNK = 1, 2, 0
		v.AddBOS, v.AddSpacePrefix = true, true
	case modelUnigram:
		v.EOS, v.UNK, v.PAD = 1, 2, 0
		v.AddEOS = true
	case modelGemma4:
		v.AddBOS = true
	}
	return v
}

// FromVocab makes a tokenizer from a GGUF vocabulary. It encodes as llama.cpp does, so
// nothing is normalized, not even for "qwen2".
func FromVocab(v Vocab) (*Tokenizer, error) {
	t, err := fromVocab(v)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: reading a GGUF vocabulary: %w", err)
	}
	return t, nil
}

func fromVocab(v Vocab) (*Tokenizer, error) {
	switch v.Model {
	case modelBPE, modelSPM, modelUnigram, modelGemma4:
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model %q: %w (%s, %s, %s and %s are)",
			v.Model, ErrUnsupported, modelBPE, modelSPM, modelUnigram, modelGemma4)
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
	if v.Model == modelSPM || v.Model == modelUnigram {
		if len(v.Scores) != len(v.Tokens) {
			return nil, fmt.Errorf("%w: %d scores for %d tokens", ErrFormat, len(v.Scores), len(v.Tokens))
		}
		for id, s := range v.Scores {
			if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) {
				return nil, fmt.Errorf("%w: the score of token %d is not a number", ErrFormat, id)
			}
		}
	}
	v = v.clone()
	seen := make(map[string]int, len(v.Tokens))
	for id, text := range v.Tokens {
		if text == "" {
			text = fmt.Sprintf("[EMPTY_%d]", id)
			v.Tokens[id] = text
		}
		if first, ok := seen[text]; ok {
			return nil, fmt.Errorf("%w: token %.40q has ids %d and %d", ErrFormat, text, first, id)
		}
		seen[text] = id
	}
	b := &builder{rawAdded: true, doc: &document{AddedTokens: v.added()}}
	var err error
	switch v.Model {
	case modelBPE:
		err = b.fromBytePairs(&v)
	case modelGemma4:
		err = b.fromGemma4(&v)
	case modelSPM:
		b.fromSPM(&v)
	case modelUnigram:
		err = b.fromUnigram(&v)
	}
	if err != nil {
		return nil, err
	}
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.vocab = &v
	t.wanted = SpecialIDs{BOS: int32(v.BOS), EOS: int32(v.EOS), UNK: int32(v.UNK), PAD: int32(v.PAD)}
	if v.AddBOS && v.BOS >= 0 {
		t.prefix = []int32{int32(v.BOS)}
	}
	if v.AddEOS && v.EOS >= 0 {
		t.suffix = []int32{int32(v.EOS)}
	}
	t.eog = findEOG(t)
	return t, nil
}

// clone copies the slices that a tokenizer may change or keeps.
func (v Vocab) clone() Vocab {
	v.Tokens, v.Types, v.Merges = slices.Clone(v.Tokens), slices.Clone(v.Types), slices.Clone(v.Merges)
	v.Scores = slices.Clone(v.Scores)
	return v
}

// added lists the tokens that are found in a text as a whole: those whose type says so, and
// those that llama.cpp makes special for their text.
func (v *Vocab) added() []addedToken {
	texts := make(map[string]bool, len(eogTexts)+len(fimTexts))
	for _, text := range slices.Concat(eogTexts, fimTexts) {
		texts[text] = true
	}
	var added []addedToken
	hasToolResponse := slices.Contains(v.Tokens, "<|tool_response>")
	for id, text := range v.Tokens {
		typ := TypeNormal
		if v.Types != nil {
			typ = v.Types[id]
		}
		switch {
		case slices.Contains(shownTexts, text):
			typ = TypeUserDefined
		case text == "</s>" && hasToolResponse: // Gemma 4: a word like any other
			typ = TypeNormal
		case texts[text]:
			typ = TypeControl
		}
		switch typ {
		case TypeControl, TypeUnknown:
			added = append(added, addedToken{ID: int32(id), Content: text, Special: true})
		case TypeUserDefined:
			added = append(added, addedToken{ID: int32(id), Content: text})
		}
	}
	if name := strings.ToLower(v.Name); strings.Contains(name, "phi-3") || strings.Contains(name, "phi3") {
		for i := range added {
			switch added[i].Content {
			case "<unk>", "<s>", "<|endoftext|>":
			default:
				added[i].Rstrip = true
			}
		}
	}
	return added
}

// bpeModel describes the vocabulary as a BPE model.
func (v *Vocab) bpeModel() (*bpeDocument, error) {
	model := &bpeDocument{Vocab: make(map[string]int64, len(v.Tokens))}
	for id, text := range v.Tokens {
		model.Vocab[text] = int64(id)
	}
	var err error
	model.Merges, err = splitMerges(v.Merges)
	return model, err
}

func (b *builder) fromBytePairs(v *Vocab) error {
	pre := findPreTokenizer(v.Pre)
	if pre == nil {
		return fmt.Errorf("tokenizer.ggml.pre %q: %w (%s and their aliases are)", v.Pre, ErrUnsupported, preNames())
	}
	var err error
	if b.bpe, err = v.bpeModel(); err != nil {
		return err
	}
	b.bpe.IgnoreMerges = pre.ignoreMerges
	b.doc.PreTokenizer = pre.component()
	b.doc.Decoder = &component{Type: "ByteLevel"}
	return nil
}

func (b *builder) fromGemma4(v *Vocab) error {
	var err error
	if b.bpe, err = v.bpeModel(); err != nil {
		return err
	}
	b.bpe.ByteFallback = true
	lines := splitComponent(`[^\n]+|[\n]+`)
	b.doc.Normalizer, b.doc.PreTokenizer = replaceComponent(" ", underline), &lines
	b.doc.Decoder = underlineDecoder(false)
	return nil
}

func (b *builder) fromSPM(v *Vocab) {
	b.scores = v.Scores
	b.bpe, _ = v.bpeModel() // there are no merges to be wrong
	b.bpe.Merges, b.bpe.ByteFallback, b.bpe.FuseUnk = nil, true, true
	if v.UNK >= 0 {
		b.bpe.UnkToken = &v.Tokens[v.UNK]
	}
	b.doc.Normalizer = underlineNormalizer(v.AddSpacePrefix)
	b.doc.Decoder = underlineDecoder(v.AddSpacePrefix)
}

func (b *builder) fromUnigram(v *Vocab) error {
	m, err := newCharsmap(v.Charsmap)
	if err != nil {
		return fmt.Errorf("tokenizer.ggml.precompiled_charsmap: %w", err)
	}
	b.unigram = &unigramDocument{Vocab: make([]unigramPiece, len(v.Tokens))}
	if v.UNK >= 0 {
		unk := int32(v.UNK)
		b.unigram.UnkID = &unk
	}
	b.types = v.Types
	for id, text := range v.Tokens {
		b.unigram.Vocab[id] = unigramPiece{text, float64(v.Scores[id])}
		if v.Types != nil && v.Types[id] == TypeUserDefined {
			b.unigram.Vocab[id].score = 0 // so that it wins
		}
	}
	keep := newMatcher(userDefined(b.doc.AddedTokens), func(a *addedToken) string { return a.Content })
	b.rewrite = func(s string) string { return spacedText(m, keep, s, v.AddSpacePrefix, v.RemoveExtraWhitespaces) }
	b.doc.Normalizer, b.doc.PreTokenizer = unigramSteps(v.Charsmap, v.AddSpacePrefix, v.RemoveExtraWhitespaces, true)
	b.doc.Decoder = metaspaceComponent(v.AddSpacePrefix, true)
	return nil
}

func userDefined(added []addedToken) []*addedToken {
	var out []*addedToken
	for i := range added {
		if !added[i].Special {
			out = append(out, &added[i])
		}
	}
	return out
}

// spacedText normalizes as llama.cpp does for unigram models: characters by the map, spaces
// to underlines, one in front with prefix, runs of them to one (and one in front) with merge.
func spacedText(m *charsmap, keep *matcher, s string, prefix, merge bool) string {
	var b strings.Builder
	inWord, prefixed := false, false
	fixed := func(string) int { return 0 }
	if keep != nil {
		fixed = func(s string) int { _, n := keep.longest(s); return n }
	}
	for _, r := range m.longest(s, fixed) {
		if r == ' ' {
			inWord = false
			if !merge {
				b.WriteString(underline)
			}
			continue
		}
		if !inWord {
			inWord = true
			if prefix && !prefixed || merge {
				b.WriteString(underline)
				prefixed = true
			}
		}
		b.WriteRune(r)
	}
	return b.String()
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
