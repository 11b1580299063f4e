package tokenizer

// This file makes the vocabulary for a GGUF file.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Vocab returns the GGUF vocabulary for the tokenizer, which has no holes: unused
// ids become [PAD<id>]. It fails with ErrUnsupported where GGUF has no name for
// the pre-tokenizer or no key for what the post-processor adds.
func (t *Tokenizer) Vocab() (Vocab, error) { return t.VocabAs("") }

// VocabAs is Vocab with the name of the pre-tokenizer given, for those whose structure says
// none; "" finds it by the structure.
func (t *Tokenizer) VocabAs(pre string) (Vocab, error) {
	v, err := t.toVocab(pre)
	if err != nil {
		return Vocab{}, fmt.Errorf("tokenizer: making a GGUF vocabulary: %w", err)
	}
	return v, nil
}

func (t *Tokenizer) toVocab(pre string) (Vocab, error) {
	if pre != "" && findPreTokenizer(pre) == nil {
		return Vocab{}, fmt.Errorf("pre-tokenizer %q: %w (%s and their aliases are)", pre, ErrUnsupported, preNames())
	}
	if t.vocab != nil {
		v := t.vocab.clone()
		v.BOS, v.EOS, v.UNK, v.PAD = int(t.wanted.BOS), int(t.wanted.EOS), int(t.wanted.UNK), int(t.wanted.PAD)
		if pre != "" {
			v.Pre = pre
		}
		return v, nil
	}
	v := Vocab{BOS: int(t.wanted.BOS), EOS: int(t.wanted.EOS), UNK: int(t.wanted.UNK), PAD: int(t.wanted.PAD)}
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
	var err error
	switch m := t.model.(type) {
	case *bpe:
		if m.byteLevel {
			err = t.bytePairVocab(&v, m, pre)
			break
		}
		t.markBytes(&v, m.byteTokens[:])
		if err = t.underlineVocab(&v); err == nil {
			v.Scores, err = m.scores(t.tokens, t.added)
		}
	case *spm:
		t.markBytes(&v, m.byteTokens[:])
		err = t.underlineVocab(&v)
		v.Scores = slices.Clone(t.scores)
		for len(v.Scores) < len(v.Tokens) {
			v.Scores = append(v.Scores, -1000) // added tokens
		}
	case *unigram:
		t.markBytes(&v, m.byteTokens[:])
		err = t.unigramVocab(&v, m)
	}
	if err != nil {
		return Vocab{}, err
	}
	for _, a := range t.added {
		switch {
		case a.ID == t.wanted.UNK && v.Model != modelBPE: // byte-level BPE has none in GGUF
			v.Types[a.ID] = TypeUnknown
		case a.Special || looksSpecial(a.Content):
			v.Types[a.ID] = TypeControl
		default:
			v.Types[a.ID] = TypeUserDefined
			v.Tokens[a.ID] = strings.ReplaceAll(a.Content, underline, " ")
		}
	}
	seen := make(map[string]int, len(v.Tokens))
	for id, text := range v.Tokens {
		if first, ok := seen[text]; ok {
			return Vocab{}, fmt.Errorf("%w: ids %d and %d would both be %.40q", ErrUnsupported, first, id, text)
		}
		seen[text] = id
	}
	return v, nil
}

func (t *Tokenizer) bytePairVocab(v *Vocab, m *bpe, pre string) error {
	v.Model, v.Pre = modelBPE, pre
	if pre == "" {
		var err error
		if v.Pre, err = nameOf(t.doc.PreTokenizer, m.whole != nil); err != nil {
			return err
		}
	}
	steps, err := t.doc.PreTokenizer.flatten()
	if err != nil {
		return err
	}
	for _, c := range steps {
		if c.Type == "ByteLevel" && (c.AddPrefixSpace == nil || *c.AddPrefixSpace) {
			v.AddSpacePrefix = true
		}
	}
	for _, m := range m.ranked(t.tokens) {
		left := strings.ReplaceAll(m[0], " ", "Ġ")
		v.Merges = append(v.Merges, left+" "+strings.ReplaceAll(m[1], " ", "Ġ"))
	}
	return nil
}

// markBytes gives byte tokens their type, unknown tokens theirs.
func (t *Tokenizer) markBytes(v *Vocab, byteTokens []int32) {
	for b, id := range byteTokens {
		if id >= 0 && t.tokens[id] == byteToken(byte(b)) {
			v.Types[id] = TypeByte
		}
	}
	if t.wanted.UNK >= 0 {
		v.Types[t.wanted.UNK] = TypeUnknown
	}
}

// underlineVocab describes the steps around SentencePiece's BPE. What GGUF cannot say is
// refused, but for "first": there a space comes in front of text behind special tokens too.
func (t *Tokenizer) underlineVocab(v *Vocab) error {
	v.Model, v.Pre = modelSPM, "default"
	if !slices.Contains(v.Types, TypeByte) {
		return fmt.Errorf("%w: a vocabulary of characters without byte tokens (<0x00> …): llama.cpp stops at characters that it lacks", ErrUnsupported)
	}
	refuse := func(what, kind string) error {
		return fmt.Errorf("%w: GGUF has no SentencePiece tokenizer with the %s %q", ErrUnsupported, what, kind)
	}
	spaces := false // have become underlines
	steps, err := t.doc.Normalizer.flatten()
	if err != nil {
		return err
	}
	for _, c := range steps {
		switch {
		case c.Type == "Prepend" && c.Prepend == underline && !v.AddSpacePrefix:
			v.AddSpacePrefix = true
		case c.Type == "Replace" && c.Pattern.String != nil && *c.Pattern.String == " " && c.Content == underline:
			spaces = true
		default:
			return refuse("normalizer", c.Type)
		}
	}
	if steps, err = t.doc.PreTokenizer.flatten(); err != nil {
		return err
	}
	for _, c := range steps {
		switch {
		case c.Type == "Split" && spaces && c.Pattern.String != nil && *c.Pattern.String == " ": // there are none left
		case c.Type == "Metaspace" && c.Replacement == underline && !spaces && c.Split != nil && !*c.Split:
			scheme, err := c.prependScheme()
			if err != nil {
				return err
			}
			spaces, v.AddSpacePrefix = true, scheme != "never"
		default:
			return refuse("pre_tokenizer", c.Type)
		}
	}
	if !spaces {
		return fmt.Errorf("%w: GGUF has no BPE of characters that does not turn spaces into underlines", ErrUnsupported)
	}
	return nil
}

func (t *Tokenizer) unigramVocab(v *Vocab, m *unigram) error {
	v.Model, v.Pre = modelUnigram, "default"
	v.Scores = make([]float32, len(t.tokens))
	for id := range v.Scores {
		v.Scores[id] = -10000
		if id < len(m.scores) {
			v.Scores[id] = float32(m.scores[id])
		}
	}
	steps, err := t.doc.Normalizer.flatten()
	if err != nil {
		return err
	}
	pre, err := t.doc.PreTokenizer.flatten()
	if err != nil {
		return err
	}
	for _, c := range slices.Concat(steps, pre) {
		regex, text := c.Pattern.Regex, c.Pattern.String
		switch {
		case c.Type == "Precompiled":
			v.Charsmap = c.Charsmap
		case c.Type == "Strip" && !c.StripLeft: // goes with the next
		case c.Type == "Replace" && regex != nil && *regex == " {2,}", c.Type == "WhitespaceSplit":
			v.RemoveExtraWhitespaces = true
		case c.Type == "Replace" && text != nil && *text == " " && c.Content == underline:
		case c.Type == "Prepend" && c.Prepend == underline:
			v.AddSpacePrefix = true
		case c.Type == "Metaspace" && c.Replacement == underline:
			scheme, err := c.prependScheme()
			if err != nil {
				return err
			}
			v.AddSpacePrefix = scheme != "never"
		default:
			return fmt.Errorf("%w: GGUF has no unigram tokenizer with the step %q", ErrUnsupported, c.Type)
		}
	}
	return nil
}

// scores returns scores by which llama.cpp, which knows no list of merges, merges in the
// same order: minus the rank of the first merge that makes a piece. That is right where the
// list has every pair that makes a piece, as lists derived from a SentencePiece model have.
func (m *bpe) scores(tokens []string, added []*addedToken) ([]float32, error) {
	scores := make([]float32, len(tokens))
	ranks := make([]uint32, len(tokens))
	pairs := 0
	for _, to := range m.merges {
		if r := to.rank + 1; ranks[to.id] == 0 || r < ranks[to.id] {
			ranks[to.id] = r
		}
	}
	isAdded := make(map[int32]bool, len(added))
	for _, a := range added {
		isAdded[a.ID] = true
	}
	ids := make(map[string]int32, len(tokens))
	for id, text := range tokens {
		ids[text] = int32(id)
	}
	missing := 0
	for id, text := range tokens {
		scores[id] = -float32(len(m.merges))
		if ranks[id] == 0 {
			continue
		}
		scores[id] = -float32(ranks[id] - 1)
		if isAdded[int32(id)] {
			continue
		}
		if err := eachPair(ids, text, func(left, right int32) {
			pairs++
			if _, ok := m.merges[pairKey(left, right)]; !ok {
				missing++
			}
		}); err != nil {
			return nil, err
		}
	}
	if missing > pairs/100 {
		return nil, fmt.Errorf("%w: the merges are not those of a SentencePiece model (%d of %d pairs are missing), and GGUF keeps no others for BPE of characters",
			ErrUnsupported, missing, pairs)
	}
	return scores, nil
}

// maxPiece bounds the pieces whose pairs are looked for, which takes quadratic time.
const maxPiece = 1 << 10

// eachPair calls found with every pair of pieces that text is made of.
func eachPair(ids map[string]int32, text string, found func(left, right int32)) error {
	if len(text) > maxPiece {
		return fmt.Errorf("%w: a piece of %d bytes (at most %d)", ErrUnsupported, len(text), maxPiece)
	}
	for i := range text {
		if i == 0 {
			continue
		}
		left, ok1 := ids[text[:i]]
		right, ok2 := ids[text[i:]]
		if ok1 && ok2 {
			found(left, right)
		}
	}
	return nil
}

// merges lists what merging by score amounts to, for tokenizer.json: every pair that makes
// a piece, in order of the scores.
func (m *spm) merges(tokens []string) ([]mergeText, error) {
	type scored struct {
		score    float32
		to       int32
		from, by int32
	}
	var all []scored
	for text, id := range m.ids {
		if err := eachPair(m.ids, text, func(left, right int32) {
			all = append(all, scored{m.scores[id], id, left, right})
		}); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.to, b.to), cmp.Compare(a.from, b.from), cmp.Compare(a.by, b.by))
	})
	out := make([]mergeText, len(all))
	for i, s := range all {
		out[i] = mergeText{tokens[s.from], tokens[s.by]}
	}
	return out, nil
}

// Pad appends unused tokens until there are n, for models whose embedding has
// more rows than the tokenizer has tokens.
func (v *Vocab) Pad(n int) {
	for id := len(v.Tokens); id < n; id++ {
		v.Tokens = append(v.Tokens, padToken(id))
		if v.Types != nil {
			v.Types = append(v.Types, TypeUnused)
		}
		if v.Scores != nil {
			v.Scores = append(v.Scores, -10000)
		}
	}
}

func padToken(id int) string { return fmt.Sprintf("[PAD%d]", id) }

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
