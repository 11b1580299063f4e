package tokenizer

// This file is the schema of tokenizer.json, the format of Hugging Face tokenizers. It
// is the form in which every tokenizer is described, also one that comes from a GGUF
// vocabulary or a SentencePiece model: one way in, one way out.

import (
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
	Normalizers   []component `json:"normalizers"`
	Pretokenizers []component `json:"pretokenizers"`
	Processors    []component `json:"processors"`
	Decoders      []component `json:"decoders"`

	AddPrefixSpace   *bool `json:"add_prefix_space"`  // ByteLevel; Metaspace of old files
	UseRegex         *bool `json:"use_regex"`         // ByteLevel; true if absent
	IndividualDigits bool  `json:"individual_digits"` // Digits

	// Split, Replace, and the behavior of Punctuation
	Pattern  pattern  `json:"pattern"`
	Behavior behavior `json:"behavior"`
	Invert   bool     `json:"invert"`

	Content string `json:"content"` // Replace, Strip as a decoder
	Prepend string `json:"prepend"` // Prepend

	StripLeft  bool `json:"strip_left"` // Strip as a normalizer
	StripRight bool `json:"strip_right"`
	Start      int  `json:"start"` // Strip as a decoder
	Stop       int  `json:"stop"`

	// Metaspace
	Replacement   string `json:"replacement"`
	PrependScheme string `json:"prepend_scheme"`
	Split         *bool  `json:"split"` // true if absent

	Charsmap []byte `json:"precompiled_charsmap"` // Precompiled, in base64

	Delimiter string `json:"delimiter"` // CharDelimiterSplit

	// TemplateProcessing
	Single        []templatePiece             `json:"single"`
	SpecialTokens map[string]templateSpecials `json:"special_tokens"`

	// BertProcessing, RobertaProcessing
	Sep templateToken `json:"sep"`
	Cls templateToken `json:"cls"`
}

// pattern is what a Split or Replace looks for.
type pattern struct {
	Regex  *string `json:"Regex"`
	String *string `json:"String"`
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

// templateToken is ["text", id].
type templateToken struct {
	text string
	id   int32
}

// UnmarshalJSONFrom reads the pair.
func (t *templateToken) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var pair []jsontext.Value
	if err := json.UnmarshalDecode(d, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("%w: a token of %d parts", ErrFormat, len(pair))
	}
	if err := json.Unmarshal(pair[0], &t.text); err != nil {
		return err
	}
	return json.Unmarshal(pair[1], &t.id)
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

// unigramDocument is the model part for type Unigram.
type unigramDocument struct {
	Type         string         `json:"type"`
	UnkID        *int32         `json:"unk_id"`
	ByteFallback bool           `json:"byte_fallback"`
	FuseUnk      *bool          `json:"fuse_unk"` // true if absent
	Vocab        []unigramPiece `json:"vocab"`    // by id
}

// unigramPiece is ["piece", score].
type unigramPiece struct {
	piece string
	score float64
}

// UnmarshalJSONFrom reads the pair.
func (p *unigramPiece) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if tok, err := d.ReadToken(); err != nil {
		return err
	} else if tok.Kind() != '[' {
		return fmt.Errorf("%w: a piece of the vocabulary is not a pair", ErrFormat)
	}
	if err := json.UnmarshalDecode(d, &p.piece); err != nil {
		return err
	}
	if err := json.UnmarshalDecode(d, &p.score); err != nil {
		return err
	}
	tok, err := d.ReadToken()
	if err == nil && tok.Kind() != ']' {
		return fmt.Errorf("%w: a piece of the vocabulary has more than two parts", ErrFormat)
	}
	return err
}

// MarshalJSONTo writes the pair.
func (p unigramPiece) MarshalJSONTo(e *jsontext.Encoder) error {
	return json.MarshalEncode(e, []any{p.piece, p.score})
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

// jsonError puts an error of the JSON package under ErrFormat, unless one of ours
// is inside.
func jsonError(err error) error {
	msg := strings.TrimPrefix(err.Error(), "json: ")
	return fmt.Errorf("%w: %.200s", ErrFormat, strings.ReplaceAll(msg, ErrFormat.Error()+": ", ""))
}

// parts returns the components of a sequence, nil for anything else.
func (c *component) parts() []component {
	return slices.Concat(c.Normalizers, c.Pretokenizers, c.Processors, c.Decoders)
}

// flatten lists a component's steps in order, sequences dissolved.
func (c *component) flatten() ([]component, error) { return c.appendFlat(nil, 0) }

const maxNesting = 20 // of Sequences

func (c *component) appendFlat(dst []component, depth int) ([]component, error) {
	if c == nil {
		return dst, nil
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("%w: sequences nested beyond %d", ErrFormat, maxNesting)
	}
	if c.Type != "Sequence" {
		return append(dst, *c), nil
	}
	parts := c.parts()
	var err error
	for i := range parts {
		if dst, err = parts[i].appendFlat(dst, depth+1); err != nil {
			return nil, err
		}
	}
	return dst, nil
}
