package tokenizer

// This file reads SentencePiece models (tokenizer.model), a protobuf of pieces, of how they
// were trained and of how text is normalized. It describes them as transformers converts
// them to tokenizer.json, with the settings of tokenizer_config.json.

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
)

// spModel is what matters of a SentencePiece ModelProto.
type spModel struct {
	pieces []spPiece

	kind             uint64 // 1 is unigram, 2 BPE
	whitespaceSuffix bool
	byteFallback     bool
	unk, bos, eos    int64
	pad              int64

	charsmap    []byte
	dummyPrefix bool
	mergeSpaces bool
	escape      bool
}

type spPiece struct {
	text  string
	score float32
	typ   int32 // as in GGUF
}

// spConfig is what matters of tokenizer_config.json.
type spConfig struct {
	Class       string             `json:"tokenizer_class"`
	Legacy      *bool              `json:"legacy"`
	AddPrefix   *bool              `json:"add_prefix_space"`
	AddBOS      *bool              `json:"add_bos_token"`
	AddEOS      *bool              `json:"add_eos_token"`
	AddedTokens map[string]spAdded `json:"added_tokens_decoder"`
}

type spAdded struct {
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	Lstrip     bool   `json:"lstrip"`
	Rstrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// ParseSentencePiece reads a tokenizer.model of SentencePiece, of kind BPE or unigram, and
// the tokenizer_config.json beside it, which may be nil: added tokens, whether BOS and EOS
// are added (BOS is, with BPE, unless it says otherwise), legacy treatment of spaces. Roles
// of tokens are the model's: WithConfig takes those of the configuration.
func ParseSentencePiece(model, config []byte) (*Tokenizer, error) {
	t, err := parseSentencePiece(model, config)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: reading tokenizer.model: %w", err)
	}
	return t, nil
}

func parseSentencePiece(model, config []byte) (*Tokenizer, error) {
	m := &spModel{kind: 1, bos: 1, eos: 2, pad: -1, dummyPrefix: true, mergeSpaces: true, escape: true}
	if err := m.read(model); err != nil {
		return nil, err
	}
	var c spConfig
	if config != nil {
		if err := json.Unmarshal(config, &c, jsontext.AllowDuplicateNames(true)); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: %w", jsonError(err))
		}
	}
	return m.tokenizer(&c)
}

// fields walks the fields of a message.
func fields(data []byte, found func(num protowire.Number, typ protowire.Type, v []byte, n uint64) error) error {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%w: not a SentencePiece model (%w)", ErrFormat, protowire.ParseError(n))
		}
		data = data[n:]
		var v []byte
		var x uint64
		switch typ {
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var y uint32
			y, n = protowire.ConsumeFixed32(data)
			x = uint64(y)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(num, typ, data)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d of a SentencePiece model is cut off (%w)", ErrFormat, num, protowire.ParseError(n))
		}
		data = data[n:]
		if err := found(num, typ, v, x); err != nil {
			return err
		}
	}
	return nil
}

// read parses a ModelProto. The field numbers are those of sentencepiece_model.proto.
func (m *spModel) read(data []byte) error {
	err := fields(data, func(num protowire.Number, typ protowire.Type, v []byte, _ uint64) error {
		if typ != protowire.BytesType {
			return nil
		}
		switch num {
		case 1:
			return m.readPiece(v)
		case 2:
			return m.readTrainer(v)
		case 3:
			return m.readNormalizer(v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case len(m.pieces) == 0:
		return fmt.Errorf("%w: a SentencePiece model without pieces", ErrFormat)
	case m.kind != 1 && m.kind != 2:
		return fmt.Errorf("SentencePiece model type %d: %w (1, unigram, and 2, BPE, are)", m.kind, ErrUnsupported)
	case m.whitespaceSuffix:
		return fmt.Errorf("treat_whitespace_as_suffix: %w", ErrUnsupported)
	case !m.escape:
		return fmt.Errorf("escape_whitespaces off: %w", ErrUnsupported)
	case m.unk < 0 || m.unk >= int64(len(m.pieces)):
		return fmt.Errorf("%w: unk_id is %d of %d pieces", ErrFormat, m.unk, len(m.pieces))
	}
	for _, id := range []*int64{&m.bos, &m.eos, &m.pad} {
		if *id < 0 || *id >= int64(len(m.pieces)) || m.pieces[*id].typ == TypeNormal {
			*id = -1
		}
	}
	return nil
}

func (m *spModel) readPiece(data []byte) error {
	p := spPiece{typ: TypeNormal}
	err := fields(data, func(num protowire.Number, typ protowire.Type, v []byte, x uint64) error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			p.text = string(v)
		case num == 2 && typ == protowire.Fixed32Type:
			p.score = math.Float32frombits(uint32(x))
		case num == 3 && typ == protowire.VarintType:
			p.typ = int32(min(x, 99))
		}
		return nil
	})
	id := len(m.pieces)
	switch s := float64(p.score); {
	case err != nil:
		return err
	case p.text == "" || !utf8.ValidString(p.text):
		return fmt.Errorf("%w: piece %d is %.40q", ErrFormat, id, p.text)
	case math.IsNaN(s) || math.IsInf(s, 0):
		return fmt.Errorf("%w: the score of piece %d is not a number", ErrFormat, id)
	case p.typ < TypeNormal || p.typ > TypeByte:
		return fmt.Errorf("%w: piece %d, %.40q, is of type %d", ErrFormat, id, p.text, p.typ)
	}
	m.pieces = append(m.pieces, p)
	return nil
}

func (m *spModel) readTrainer(data []byte) error {
	return fields(data, func(num protowire.Number, typ protowire.Type, _ []byte, x uint64) error {
		if typ != protowire.VarintType {
			return nil
		}
		switch num {
		case 3:
			m.kind = x
		case 24:
			m.whitespaceSuffix = x != 0
		case 35:
			m.byteFallback = x != 0
		case 40:
			m.unk = int64(int32(x))
		case 41:
			m.bos = int64(int32(x))
		case 42:
			m.eos = int64(int32(x))
		case 43:
			m.pad = int64(int32(x))
		}
		return nil
	})
}

func (m *spModel) readNormalizer(data []byte) error {
	return fields(data, func(num protowire.Number, typ protowire.Type, v []byte, x uint64) error {
		switch {
		case num == 2 && typ == protowire.BytesType:
			m.charsmap = slices.Clone(v)
		case num == 3 && typ == protowire.VarintType:
			m.dummyPrefix = x != 0
		case num == 4 && typ == protowire.VarintType:
			m.mergeSpaces = x != 0
		case num == 5 && typ == protowire.VarintType:
			m.escape = x != 0
		}
		return nil
	})
}

func (m *spModel) tokenizer(c *spConfig) (*Tokenizer, error) {
	b := &builder{doc: &document{}}
	if err := m.addTokens(b.doc, c); err != nil {
		return nil, err
	}
	prefix := m.dummyPrefix
	if c.AddPrefix != nil {
		prefix = *c.AddPrefix
	}
	if m.kind == 1 {
		unk, fuse := int32(m.unk), true
		b.unigram = &unigramDocument{UnkID: &unk, ByteFallback: m.byteFallback, FuseUnk: &fuse}
		for _, p := range m.pieces {
			b.unigram.Vocab = append(b.unigram.Vocab, unigramPiece{p.text, float64(p.score)})
		}
	} else {
		unk := m.pieces[m.unk].text
		b.bpe = &bpeDocument{UnkToken: &unk, ByteFallback: m.byteFallback, FuseUnk: true, Vocab: make(map[string]int64, len(m.pieces))}
		b.scores, b.types = make([]float32, len(m.pieces)), make([]int32, len(m.pieces))
		for id, p := range m.pieces {
			if first, ok := b.bpe.Vocab[p.text]; ok {
				return nil, fmt.Errorf("%w: piece %.40q has ids %d and %d", ErrFormat, p.text, first, id)
			}
			b.bpe.Vocab[p.text] = int64(id)
			b.scores[id], b.types[id] = p.score, p.typ
		}
	}
	m.describe(b.doc, prefix, c.Legacy != nil && !*c.Legacy)
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.wanted = SpecialIDs{BOS: int32(m.bos), EOS: int32(m.eos), UNK: int32(m.unk), PAD: int32(m.pad)}
	if addBOS := c.AddBOS == nil && m.kind == 2 || c.AddBOS != nil && *c.AddBOS; addBOS && m.bos >= 0 {
		t.prefix = []int32{int32(m.bos)}
	}
	if addEOS := c.AddEOS == nil && strings.HasPrefix(c.Class, "T5") || c.AddEOS != nil && *c.AddEOS; addEOS && m.eos >= 0 {
		t.suffix = []int32{int32(m.eos)}
	}
	t.eog = findEOG(t)
	return t, nil
}

// describe sets the steps around the model. Without merging of spaces they are those of
// Llama and Gemma: an underline comes in front of every stretch of text, or, where the
// configuration says legacy is off, of what starts the text.
func (m *spModel) describe(d *document, prefix, modern bool) {
	if m.kind == 1 || m.mergeSpaces {
		// No piece of a model that was split at spaces has an underline inside.
		split := !slices.ContainsFunc(m.pieces, func(p spPiece) bool { return strings.LastIndex(p.text, underline) > 0 })
		d.Normalizer, d.PreTokenizer = unigramSteps(m.charsmap, prefix, m.mergeSpaces, split)
		d.Decoder = metaspaceComponent(prefix, split)
		if m.byteFallback {
			d.Decoder = underlineDecoder(prefix)
		}
		return
	}
	d.Decoder = underlineDecoder(prefix)
	if modern {
		no := false
		d.PreTokenizer = &component{Type: "Metaspace", Replacement: underline, PrependScheme: "first", Split: &no}
		if !prefix {
			d.PreTokenizer.PrependScheme = "never"
		}
	} else {
		d.Normalizer = underlineNormalizer(prefix)
	}
	if len(m.charsmap) > 0 {
		steps, _ := d.Normalizer.flatten() // two at most
		d.Normalizer = &component{Type: "Sequence", Normalizers: append(sequenceOf(component{Type: "Precompiled", Charsmap: m.charsmap}), steps...)}
	}
}

// addTokens lists the added tokens: the model's control and user-defined pieces, and those
// of the configuration, which may rename pieces and add new ids.
func (m *spModel) addTokens(d *document, c *spConfig) error {
	added := make(map[int32]addedToken)
	for id, p := range m.pieces {
		switch p.typ {
		case TypeUnknown, TypeControl:
			added[int32(id)] = addedToken{ID: int32(id), Content: p.text, Special: true}
		case TypeUserDefined:
			added[int32(id)] = addedToken{ID: int32(id), Content: p.text}
		}
	}
	for key, a := range c.AddedTokens {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 || a.Content == "" {
			return fmt.Errorf("%w: tokenizer_config.json: added_tokens_decoder has %.40q: %.40q", ErrFormat, key, a.Content)
		}
		added[int32(id)] = addedToken{ID: int32(id), Content: a.Content, SingleWord: a.SingleWord, Lstrip: a.Lstrip, Rstrip: a.Rstrip,
			Normalized: a.Normalized, Special: a.Special}
		if id < int64(len(m.pieces)) {
			m.pieces[id].text = a.Content
		}
	}
	for _, a := range added {
		d.AddedTokens = append(d.AddedTokens, a)
	}
	slices.SortFunc(d.AddedTokens, func(a, b addedToken) int { return int(a.ID - b.ID) })
	return nil
}
