package tokenizer

// This file reads tokenizer.json, the format of Hugging Face tokenizers, as far
// as byte-level BPE goes. Other models and steps are refused by name.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// component is a normalizer, pre-tokenizer, post-processor or decoder: the fields
// of all kinds that are supported.
type component struct {
	Type string `json:"type"`

	// Sequence, by what it is a sequence of
	Normalizers   []component `json:"normalizers,omitempty"`
	Pretokenizers []component `json:"pretokenizers,omitempty"`
	Processors    []component `json:"processors,omitempty"`
	Decoders      []component `json:"decoders,omitempty"`

	AddPrefixSpace   bool  `json:"add_prefix_space,omitzero"`  // ByteLevel
	UseRegex         *bool `json:"use_regex,omitempty"`        // ByteLevel; true if absent
	IndividualDigits bool  `json:"individual_digits,omitzero"` // Digits

	// Split
	Pattern struct {
		Regex  *string `json:"Regex"`
		String *string `json:"String"`
	} `json:"pattern,omitzero"`
	Behavior behavior `json:"behavior,omitempty"`
	Invert   bool     `json:"invert,omitzero"`

	// TemplateProcessing
	Single        []templatePiece             `json:"single,omitempty"`
	SpecialTokens map[string]templateSpecials `json:"special_tokens,omitempty"`
}

type templatePiece struct {
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
}

type templateSpecials struct {
	IDs []int32 `json:"ids"`
}

// document is the top level of tokenizer.json. Truncation and padding are left to
// the caller, as transformers does.
type document struct {
	AddedTokens   []addedToken   `json:"added_tokens"`
	Normalizer    *component     `json:"normalizer"`
	PreTokenizer  *component     `json:"pre_tokenizer"`
	PostProcessor *component     `json:"post_processor"`
	Decoder       *component     `json:"decoder"`
	Model         jsontext.Value `json:"model"`
}

// bpeDocument is the model part for type BPE.
type bpeDocument struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int64 `json:"vocab"`
	Merges                  []mergeText      `json:"merges"`
}

// mergeText is one merge: "left right" or ["left", "right"].
type mergeText [2]string

// UnmarshalJSONFrom reads either spelling.
func (m *mergeText) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		var pair []string
		if err := json.UnmarshalDecode(d, &pair); err != nil {
			return err
		}
		if len(pair) != 2 {
			return fmt.Errorf("%w: a merge of %d pieces", ErrFormat, len(pair))
		}
		*m = mergeText(pair)
		return nil
	}
	var s string
	if err := json.UnmarshalDecode(d, &s); err != nil {
		return err
	}
	left, right, ok := strings.Cut(s, " ")
	if !ok || strings.Contains(right, " ") {
		return fmt.Errorf("%w: merge %q is not two pieces with a space between", ErrFormat, s)
	}
	*m = mergeText{left, right}
	return nil
}

// MarshalJSONTo writes the pair.
func (m mergeText) MarshalJSONTo(e *jsontext.Encoder) error {
	return json.MarshalEncode(e, m[:])
}

// ParseJSON reads a tokenizer.json. The file's truncation and padding settings
// are ignored. Roles of tokens (BOS, EOS …) are in another file: see WithConfig.
func ParseJSON(data []byte) (*Tokenizer, error) {
	t, err := parseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: reading tokenizer.json: %w", err)
	}
	return t, nil
}

func parseJSON(data []byte) (*Tokenizer, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, jsonError(err)
	}
	var kind struct {
		Type   string         `json:"type"`
		Merges jsontext.Value `json:"merges"`
	}
	if len(doc.Model) == 0 || doc.Model.Kind() != '{' {
		return nil, fmt.Errorf("%w: no model", ErrFormat)
	}
	if err := json.Unmarshal(doc.Model, &kind); err != nil {
		return nil, jsonError(err)
	}
	if kind.Type == "" && kind.Merges != nil {
		kind.Type = "BPE" // files of before 2020 leave the type out
	}
	if kind.Type != "BPE" {
		return nil, fmt.Errorf("model type %q: %w (only byte-level BPE is)", kind.Type, ErrUnsupported)
	}
	var model bpeDocument
	if err := json.Unmarshal(doc.Model, &model); err != nil {
		return nil, jsonError(err)
	}
	p := pipeline{prefixAt: -1}
	if err := p.read(&doc); err != nil {
		return nil, err
	}
	t := &Tokenizer{prefixAt: p.prefixAt, splitters: p.splitters, source: slices.Clone(data), wanted: noSpecials}
	if p.nfc {
		t.normalize = nfc
	}
	if err := t.setTokens(&model, doc.AddedTokens); err != nil {
		return nil, err
	}
	if err := t.setModel(&model); err != nil {
		return nil, err
	}
	if err := t.setTemplates(doc.PostProcessor); err != nil {
		return nil, err
	}
	if len(t.prefix) > 0 {
		t.wanted.BOS = t.prefix[0]
	}
	t.finish(t.nameByStructure(), false)
	return t, nil
}

// jsonError puts an error of the JSON package under ErrFormat, unless one of ours
// is inside.
func jsonError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "json: ")
	return fmt.Errorf("%w: %.200s", ErrFormat, strings.ReplaceAll(msg, ErrFormat.Error()+": ", ""))
}

var noSpecials = SpecialIDs{-1, -1, -1, -1}

// setTokens fills the two-way vocabulary from the model's and the added tokens.
func (t *Tokenizer) setTokens(model *bpeDocument, added []addedToken) error {
	// Ids need not be dense, but a few bytes of file must not claim much memory.
	limit := int64(2*(len(model.Vocab)+len(added)) + 1<<16)
	size := int64(0)
	check := func(text string, id int64) error {
		if id < 0 || id >= limit {
			return fmt.Errorf("%w: token %.40q has id %d, outside 0 to %d", ErrFormat, text, id, limit-1)
		}
		size = max(size, id+1)
		return nil
	}
	for text, id := range model.Vocab {
		if err := check(text, id); err != nil {
			return err
		}
	}
	for _, a := range added {
		if err := check(a.Content, int64(a.ID)); err != nil {
			return err
		}
	}
	t.tokens, t.known = make([]string, size), make([]bool, size)
	t.ids = make(map[string]int32, len(model.Vocab)+len(added))
	put := func(text string, id int32) error {
		if t.known[id] {
			return fmt.Errorf("%w: id %d is of both %.40q and %.40q", ErrFormat, id, min(t.tokens[id], text), max(t.tokens[id], text))
		}
		t.tokens[id], t.known[id], t.ids[text] = text, true, id
		return nil
	}
	for text, id := range model.Vocab {
		if err := put(text, int32(id)); err != nil {
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

// setModel builds the BPE model over the vocabulary.
func (t *Tokenizer) setModel(doc *bpeDocument) error {
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
	id := func(piece string) (int32, bool) {
		id, ok := doc.Vocab[piece]
		return int32(id), ok
	}
	m := &bpe{unk: -1, fuseUnk: doc.FuseUnk, merges: make(map[uint64]merge, len(doc.Merges))}
	for b := range m.bytes {
		m.bytes[b] = -1
		if id, ok := id(string(byteRune[b])); ok {
			m.bytes[b] = id
		}
	}
	if doc.UnkToken != nil {
		unk, ok := id(*doc.UnkToken)
		if !ok {
			return fmt.Errorf("%w: unk_token %.40q is not in the vocabulary", ErrFormat, *doc.UnkToken)
		}
		m.unk = unk
		t.wanted.UNK = unk
	}
	if doc.ByteFallback {
		m.setByteFallback(id)
	}
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
	if doc.IgnoreMerges {
		m.whole = make(map[string]int32, len(doc.Vocab))
		var buf []byte
		for piece, id := range doc.Vocab {
			if raw, ok := appendBytes(buf[:0], piece); ok {
				m.whole[string(raw)] = int32(id)
			}
		}
	}
	t.model = m
	return nil
}

// finish derives what follows from the vocabulary. With rawAdded, added tokens
// decode to their own text even where it reads as bytes.
func (t *Tokenizer) finish(ggml string, rawAdded bool) {
	t.ggml = ggml
	var early, late []*addedToken
	added := make(map[int32]*addedToken, len(t.added))
	for _, a := range t.added {
		added[a.ID] = a
		if a.Normalized {
			late = append(late, a)
		} else {
			early = append(early, a)
		}
	}
	t.raw = newMatcher(early, func(a *addedToken) string { return a.Content })
	normalized := func(a *addedToken) string {
		if t.normalize == nil {
			return a.Content
		}
		return t.normalize(a.Content)
	}
	t.normal = newMatcher(late, normalized)
	t.plain = make([][]byte, len(t.tokens))
	var all []byte
	for id, text := range t.tokens {
		start := len(all)
		a := added[int32(id)]
		if a != nil && a.Normalized {
			text = normalized(a)
		}
		if a != nil && rawAdded {
			all = append(all, text...)
		} else {
			all, _ = appendBytes(all, text)
		}
		t.plain[id] = all[start:len(all):len(all)]
	}
	t.eog = findEOG(t)
}
