package tokenizer

// This file is the pipeline: text → added tokens → normalizer → pre-tokenizer →
// model → post-processor. What the stages are comes from json.go or vocab.go.

import (
	"errors"
	"slices"
	"sync"
)

var (
	// ErrFormat means that a tokenizer's description contradicts itself.
	ErrFormat = errors.New("malformed tokenizer")
	// ErrUnsupported means a kind of tokenizer, or a part of one, that this
	// package does not implement; the message names it.
	ErrUnsupported = errors.New("not supported")
)

// Options say how a text is encoded.
type Options struct {
	// AddSpecial adds what the post-processor adds around a text, such as <s>.
	AddSpecial bool
	// ParseSpecial turns the text of special tokens into their ids. Without it
	// they are plain text: right for input that a stranger wrote. User-defined
	// added tokens are found in any case.
	ParseSpecial bool
}

// Tokenizer turns text into token ids and back. It never changes once made, and
// is safe for use by several goroutines. Make one with ParseJSON or FromVocab.
type Tokenizer struct {
	tokens  []string // by id; "" with known false is a hole
	known   []bool
	ids     map[string]int32
	added   []*addedToken // by id
	special map[int32]bool

	raw, normal    *matcher   // added tokens found before and after normalizing
	normalize      normalizer // nil for none
	stages         []stage
	byteLevel      bool // the vocabulary spells bytes in GPT-2's alphabet
	spelled        bool // and so do the pieces behind the last stage
	model          subwords
	prefix, suffix []int32 // put around the text by AddSpecial

	decoder
	wanted SpecialIDs
	eog    []int32

	doc    *document // the description of the steps around the model
	source []byte    // the tokenizer.json this came from
	vocab  *Vocab    // or the GGUF vocabulary
	scores []float32 // or the scores of the SentencePiece model

	works sync.Pool
}

// SpecialIDs are the ids of the tokens with a role, -1 where there is none.
type SpecialIDs struct{ BOS, EOS, UNK, PAD int32 }

// Size is the number of ids: one more than the highest.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// Token returns the text of a token as the vocabulary spells it (byte-level
// tokens in GPT-2's byte alphabet, where Ġ is a space).
func (t *Tokenizer) Token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(t.tokens) || !t.known[id] {
		return "", false
	}
	return t.tokens[id], true
}

// ID returns the id of a token, spelled as Token returns it.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// IsSpecial reports whether the token is a special (control) token, which Decode
// can skip.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.special[id] }

// Special returns the ids of the tokens with a role. A tokenizer.json does not
// name them: see WithConfig.
func (t *Tokenizer) Special() SpecialIDs { return t.wanted }

// BOS returns the id of the beginning-of-sequence token, -1 if there is none.
func (t *Tokenizer) BOS() int32 { return t.wanted.BOS }

// EOS returns the id of the end-of-sequence token, -1 if there is none.
func (t *Tokenizer) EOS() int32 { return t.wanted.EOS }

// UNK returns the id of the unknown token, -1 if there is none.
func (t *Tokenizer) UNK() int32 { return t.wanted.UNK }

// PAD returns the id of the padding token, -1 if there is none.
func (t *Tokenizer) PAD() int32 { return t.wanted.PAD }

// EOG returns the ids that end generation, ascending: EOS and the tokens that are
// known by their text to end a turn or a document, as llama.cpp finds them.
func (t *Tokenizer) EOG() []int32 { return slices.Clone(t.eog) }

// Encode returns the ids of a text. Ill-formed UTF-8 is read as U+FFFD, one for
// each maximal ill-formed part.
func (t *Tokenizer) Encode(text string, opt Options) []int32 {
	return t.AppendEncode(nil, text, opt)
}

// AppendEncode appends the ids of a text to dst; see Encode.
func (t *Tokenizer) AppendEncode(dst []int32, text string, opt Options) []int32 {
	w, _ := t.works.Get().(*work)
	if w == nil {
		w = newWork()
	}
	e := encoder{t: t, w: w, dst: dst}
	if opt.AddSpecial {
		e.dst = append(e.dst, t.prefix...)
	}
	found := func(id int32) { e.dst = append(e.dst, id) }
	t.raw.each(validText(text), opt.ParseSpecial, func(s string, begin int) {
		if t.normalize != nil {
			s = t.normalize(s)
		}
		t.normal.each(s, opt.ParseSpecial, func(s string, at int) { e.encode(s, 0, begin == 0 && at == 0) }, found)
	}, found)
	if opt.AddSpecial {
		e.dst = append(e.dst, t.suffix...)
	}
	if cap(w.spans) > maxScratch {
		w.spans = nil
	}
	t.works.Put(w)
	return e.dst
}

// encoder is the state of one AppendEncode.
type encoder struct {
	t   *Tokenizer
	w   *work
	dst []int32
}

// encode takes s through the stages from number step on and encodes the pieces. first
// tells whether s starts the text. The spans of all stages under way lie stacked in w.spans.
func (e *encoder) encode(s string, step int, first bool) {
	if s == "" {
		return
	}
	if step == len(e.t.stages) {
		if e.t.spelled {
			raw, _ := appendBytes(nil, s)
			s = string(raw)
		}
		e.dst = e.t.model.append(e.dst, s, e.w)
		return
	}
	st := &e.t.stages[step]
	if st.rewrite != nil {
		s = st.rewrite(s, first)
	}
	if st.split == nil {
		e.encode(s, step+1, first)
		return
	}
	base := len(e.w.spans)
	e.w.spans = st.split.split(e.w.spans, s)
	for i := base; i < len(e.w.spans); i++ {
		at := e.w.spans[i]
		e.encode(s[at.begin:at.end], step+1, first && at.begin == 0)
	}
	e.w.spans = e.w.spans[:base]
}

// subwords is a model: it appends the ids of one pre-token to dst.
type subwords interface {
	append(dst []int32, word string, w *work) []int32
}
