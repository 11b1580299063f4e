package tokenizer

// This file makes a tokenizer of its description.

import (
	"cmp"
	"fmt"
	"slices"
)

// builder makes a tokenizer of a document. One of bpe and unigram is set; where the
// description is not of tokenizer.json, the other fields say what is special about it.
type builder struct {
	doc     *document
	bpe     *bpeDocument
	unigram *unigramDocument

	rawAdded bool       // added tokens decode to their own text even where it reads as bytes
	scores   []float32  // by id: merge by score, as SentencePiece and llama.cpp do, instead of by bpe's merges
	rewrite  normalizer // stands for all the steps before the model

	types []int32 // by id, as in a Vocab: which pieces text can become; nil for all
}

var noSpecials = SpecialIDs{-1, -1, -1, -1}

func (b *builder) build() (*Tokenizer, error) {
	t := &Tokenizer{doc: b.doc, wanted: noSpecials}
	t.normalize = b.rewrite
	if b.rewrite == nil {
		if err := t.setNormalizer(b.doc.Normalizer); err != nil {
			return nil, fmt.Errorf("normalizer: %w", err)
		}
		if err := t.setPreTokenizer(b.doc.PreTokenizer); err != nil {
			return nil, fmt.Errorf("pre_tokenizer: %w", err)
		}
	}
	var err error
	if b.unigram != nil {
		err = b.setUnigram(t)
	} else {
		err = b.setBPE(t)
	}
	if err != nil {
		return nil, err
	}
	if err := t.setTemplates(b.doc.PostProcessor); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	t.setMatchers()
	if err := t.setDecoder(b.doc.Decoder, b.rawAdded); err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	t.eog = findEOG(t)
	return t, nil
}

// modelToken is a token of the model with its id.
type modelToken struct {
	text string
	id   int64
}

// setTokens fills the two-way vocabulary from the model's n tokens and the added ones.
func (t *Tokenizer) setTokens(model func(yield func(modelToken) bool), n int, added []addedToken) error {
	// Ids need not be dense, but a few bytes of file must not claim much memory.
	limit := int64(2*(n+len(added)) + 1<<16)
	size := int64(0)
	check := func(text string, id int64) error {
		if id < 0 || id >= limit {
			return fmt.Errorf("%w: token %.40q has id %d, outside 0 to %d", ErrFormat, text, id, limit-1)
		}
		size = max(size, id+1)
		return nil
	}
	for m := range model {
		if err := check(m.text, m.id); err != nil {
			return err
		}
	}
	for _, a := range added {
		if err := check(a.Content, int64(a.ID)); err != nil {
			return err
		}
	}
	t.tokens, t.known = make([]string, size), make([]bool, size)
	t.ids = make(map[string]int32, n+len(added))
	put := func(text string, id int32) error {
		if t.known[id] {
			return fmt.Errorf("%w: id %d is of both %.40q and %.40q", ErrFormat, id, min(t.tokens[id], text), max(t.tokens[id], text))
		}
		t.tokens[id], t.known[id], t.ids[text] = text, true, id
		return nil
	}
	for m := range model {
		if err := put(m.text, int32(m.id)); err != nil {
			return err
		}
	}
	t.special = make(map[int32]bool)
	for i := range added {
		a := &added[i]
		if id, ok := t.ids[a.Content]; !ok {
			if err := put(a.Content, a.ID); err != nil {
				return err
			}
		} else if id != a.ID {
			return fmt.Errorf("%w: token %.40q has ids %d and %d", ErrFormat, a.Content, id, a.ID)
		}
		t.added = append(t.added, a)
		if a.Special {
			t.special[a.ID] = true
		}
	}
	slices.SortStableFunc(t.added, func(a, b *addedToken) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

// setBPE builds the vocabulary and the BPE model over it.
func (b *builder) setBPE(t *Tokenizer) error {
	doc := b.bpe
	err := t.setTokens(func(yield func(modelToken) bool) {
		for text, id := range doc.Vocab {
			if !yield(modelToken{text, id}) {
				return
			}
		}
	}, len(doc.Vocab), b.doc.AddedTokens)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		isSet bool
	}{
		{"dropout", doc.Dropout != nil && *doc.Dropout != 0},
		{"continuing_subword_prefix", doc.ContinuingSubwordPrefix != nil && *doc.ContinuingSubwordPrefix != ""},
		{"end_of_word_suffix", doc.EndOfWordSuffix != nil && *doc.EndOfWordSuffix != ""},
	} {
		if f.isSet {
			return fmt.Errorf("model BPE with %s: %w", f.name, ErrUnsupported)
		}
	}
	// The model knows its own tokens only, not the added ones.
	id := func(piece string) (int32, bool) {
		id, ok := doc.Vocab[piece]
		return int32(id), ok
	}
	unk := int32(-1)
	if doc.UnkToken != nil {
		var ok bool
		if unk, ok = id(*doc.UnkToken); !ok {
			return fmt.Errorf("%w: unk_token %.40q is not in the vocabulary", ErrFormat, *doc.UnkToken)
		}
		t.wanted.UNK = unk
	}
	if b.scores != nil {
		t.scores = b.scores
		t.model = newSPM(t.tokens, b.scores, b.types, unk)
		return nil
	}
	m := &bpe{unk: unk, fuseUnk: doc.FuseUnk, keepGap: b.rawAdded, byteLevel: t.byteLevel, merges: make(map[uint64]merge, len(doc.Merges))}
	m.setSymbols(doc.Vocab, doc.ByteFallback)
	for rank, pair := range doc.Merges {
		left, ok1 := id(pair[0])
		right, ok2 := id(pair[1])
		to, ok3 := id(pair[0] + pair[1])
		if !ok1 || !ok2 || !ok3 {
			missing := pair[0] + pair[1]
			if !ok1 {
				missing = pair[0]
			} else if !ok2 {
				missing = pair[1]
			}
			return fmt.Errorf("%w: merge %d (%.40q %.40q) needs %.40q, which is not in the vocabulary",
				ErrFormat, rank, pair[0], pair[1], missing)
		}
		m.merges[pairKey(left, right)] = merge{uint32(rank), to}
	}
	if !m.byteLevel {
		m.words = newWordBreaks(func(yield func(string) bool) {
			for _, to := range m.merges {
				if !yield(t.tokens[to.id]) {
					return
				}
			}
		})
	}
	if doc.IgnoreMerges {
		m.whole = make(map[string]int32, len(doc.Vocab))
		var buf []byte
		for piece, id := range doc.Vocab {
			if !m.byteLevel {
				m.whole[piece] = int32(id)
			} else if raw, ok := appendBytes(buf[:0], piece); ok {
				m.whole[string(raw)] = int32(id)
			}
		}
	}
	t.model = m
	return nil
}

// setUnigram builds the vocabulary and the unigram model over it.
func (b *builder) setUnigram(t *Tokenizer) error {
	doc := b.unigram
	if t.byteLevel {
		return fmt.Errorf("model Unigram with the pre-tokenizer ByteLevel: %w", ErrUnsupported)
	}
	// Of equal pieces the last counts, as in the reference.
	last := make(map[string]int64, len(doc.Vocab))
	for id, p := range doc.Vocab {
		last[p.piece] = int64(id)
	}
	err := t.setTokens(func(yield func(modelToken) bool) {
		for id, p := range doc.Vocab {
			if last[p.piece] == int64(id) && !yield(modelToken{p.piece, int64(id)}) {
				return
			}
		}
	}, len(doc.Vocab), b.doc.AddedTokens)
	if err != nil {
		return err
	}
	for id, p := range doc.Vocab { // the others have a text, but nothing leads to them
		t.tokens[id], t.known[id] = p.piece, true
	}
	m, err := newUnigram(doc, b.types)
	if err != nil {
		return err
	}
	t.wanted.UNK = m.unk
	t.model = m
	return nil
}

// setMatchers prepares finding the added tokens in a text.
func (t *Tokenizer) setMatchers() {
	var early, late []*addedToken
	for _, a := range t.added {
		if a.Normalized {
			late = append(late, a)
		} else {
			early = append(early, a)
		}
	}
	t.raw = newMatcher(early, func(a *addedToken) string { return a.Content })
	t.normal = newMatcher(late, t.spelling)
}

// spelling returns the text by which an added token is found.
func (t *Tokenizer) spelling(a *addedToken) string {
	if a.Normalized && t.normalize != nil {
		return t.normalize(a.Content)
	}
	return a.Content
}
