package tokenizer

// This file writes a tokenizer.json for a tokenizer that came from elsewhere.

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// JSON returns a tokenizer.json. That of a tokenizer read from one is the
// original, byte for byte; for one made of a GGUF vocabulary or a SentencePiece model it is
// a new file with which Hugging Face tokenizers encodes the same ids (for byte-level BPE of
// GGUF it has no normalizer then, since llama.cpp has none).
func (t *Tokenizer) JSON() ([]byte, error) {
	if t.source != nil {
		return slices.Clone(t.source), nil
	}
	model, err := t.modelObject()
	if err != nil {
		return nil, fmt.Errorf("tokenizer: writing tokenizer.json: %w", err)
	}
	added := make([]object, len(t.added))
	for i, a := range t.added {
		added[i] = object{{"id", a.ID}, {"content", a.Content}, {"single_word", a.SingleWord}, {"lstrip", a.Lstrip},
			{"rstrip", a.Rstrip}, {"normalized", a.Normalized}, {"special", a.Special}}
	}
	doc := object{
		{"version", "1.0"},
		{"truncation", nil},
		{"padding", nil},
		{"added_tokens", added},
		{"normalizer", t.doc.Normalizer},
		{"pre_tokenizer", t.doc.PreTokenizer},
		{"post_processor", t.template()},
		{"decoder", t.doc.Decoder},
		{"model", model},
	}
	data, err := json.Marshal(doc, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("tokenizer: writing tokenizer.json: %w", err)
	}
	return append(data, '\n'), nil
}

// modelObject describes the model.
func (t *Tokenizer) modelObject() (object, error) {
	if m, ok := t.model.(*unigram); ok {
		vocab := make([]unigramPiece, len(m.scores))
		for id, score := range m.scores {
			vocab[id] = unigramPiece{t.tokens[id], score}
		}
		var unk any
		if m.unk >= 0 {
			unk = m.unk
		}
		return object{{"type", "Unigram"}, {"unk_id", unk}, {"vocab", vocab}, {"byte_fallback", m.hasByteFallback()}}, nil
	}
	vocab := make(object, 0, len(t.tokens))
	for id, text := range t.tokens {
		if t.known[id] {
			vocab = append(vocab, member{text, id})
		}
	}
	var unk any
	merges, fuse, fallback, ignore := []mergeText(nil), false, false, false
	switch m := t.model.(type) {
	case *spm:
		var err error
		if merges, err = m.merges(t.tokens); err != nil {
			return nil, err
		}
		fuse, fallback = true, true
		if m.unk >= 0 {
			unk = t.tokens[m.unk]
		}
	case *bpe:
		merges, fuse, fallback, ignore = m.ranked(t.tokens), m.fuseUnk, m.hasByteFallback(), m.whole != nil
		if m.unk >= 0 {
			unk = t.tokens[m.unk]
		}
	}
	return object{
		{"type", "BPE"},
		{"dropout", nil},
		{"unk_token", unk},
		{"continuing_subword_prefix", nil},
		{"end_of_word_suffix", nil},
		{"fuse_unk", fuse},
		{"byte_fallback", fallback},
		{"ignore_merges", ignore},
		{"vocab", vocab},
		{"merges", merges},
	}, nil
}

// ranked returns the merges in order of rank.
func (m *bpe) ranked(tokens []string) []mergeText {
	type ranked struct {
		pair mergeText
		rank uint32
	}
	all := make([]ranked, 0, len(m.merges))
	for key, m := range m.merges {
		all = append(all, ranked{mergeText{tokens[key>>32], tokens[uint32(key)]}, m.rank})
	}
	slices.SortFunc(all, func(a, b ranked) int { return int(a.rank) - int(b.rank) })
	out := make([]mergeText, len(all))
	for i, r := range all {
		out[i] = r.pair
	}
	return out
}

func (m *bpe) hasByteFallback() bool {
	return slices.ContainsFunc(m.byteTokens[:], func(id int32) bool { return id >= 0 })
}

func (m *unigram) hasByteFallback() bool {
	return slices.ContainsFunc(m.byteTokens[:], func(id int32) bool { return id >= 0 })
}

// template describes what AddSpecial adds.
func (t *Tokenizer) template() object {
	text := func(id string, typeID int) object {
		return object{{"Sequence", object{{"id", id}, {"type_id", typeID}}}}
	}
	specials := object{}
	tokens := func(ids []int32, typeID int) (pieces []object) {
		for _, id := range ids {
			name := t.tokens[id]
			pieces = append(pieces, object{{"SpecialToken", object{{"id", name}, {"type_id", typeID}}}})
			if !slices.ContainsFunc(specials, func(m member) bool { return m.name == name }) {
				specials = append(specials, member{name, object{{"id", name}, {"ids", []int32{id}}, {"tokens", []string{name}}}})
			}
		}
		return pieces
	}
	single := slices.Concat(tokens(t.prefix, 0), []object{text("A", 0)}, tokens(t.suffix, 0))
	pair := slices.Concat(single, tokens(t.prefix, 1), []object{text("B", 1)}, tokens(t.suffix, 1))
	return object{{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}}
}

// MarshalJSONTo writes those components that descriptions of our own are made of, with all
// the fields that the reference wants.
func (c *component) MarshalJSONTo(e *jsontext.Encoder) error {
	o := object{{"type", c.Type}}
	isTrue := func(p *bool) bool { return p == nil || *p }
	list := func(name string, parts []component) {
		out := make([]*component, len(parts))
		for i := range parts {
			out[i] = &parts[i]
		}
		o = append(o, member{name, out})
	}
	switch c.Type {
	case "Sequence":
		for _, l := range []struct {
			name  string
			parts []component
		}{{"normalizers", c.Normalizers}, {"pretokenizers", c.Pretokenizers}, {"decoders", c.Decoders}} {
			if l.parts != nil {
				list(l.name, l.parts)
			}
		}
	case "ByteLevel":
		o = append(o, member{"add_prefix_space", isTrue(c.AddPrefixSpace)}, member{"trim_offsets", true}, member{"use_regex", isTrue(c.UseRegex)})
	case "Digits":
		o = append(o, member{"individual_digits", c.IndividualDigits})
	case "Punctuation":
		o = append(o, member{"behavior", c.Behavior})
	case "Split":
		o = append(o, member{"pattern", c.Pattern.object()}, member{"behavior", c.Behavior}, member{"invert", c.Invert})
	case "Replace":
		o = append(o, member{"pattern", c.Pattern.object()}, member{"content", c.Content})
	case "Prepend":
		o = append(o, member{"prepend", c.Prepend})
	case "Metaspace":
		o = append(o, member{"replacement", c.Replacement}, member{"prepend_scheme", c.PrependScheme}, member{"split", isTrue(c.Split)})
	case "Precompiled":
		o = append(o, member{"precompiled_charsmap", c.Charsmap})
	case "Strip": // as a normalizer and as a decoder
		if c.Content == "" {
			o = append(o, member{"strip_left", c.StripLeft}, member{"strip_right", c.StripRight})
		} else {
			o = append(o, member{"content", c.Content}, member{"start", c.Start}, member{"stop", c.Stop})
		}
	case "ByteFallback", "Fuse", "NFC":
	default:
		return fmt.Errorf("internal error: writing %q", c.Type)
	}
	return json.MarshalEncode(e, o)
}

func (p pattern) object() object {
	if p.Regex != nil {
		return object{{"Regex", *p.Regex}}
	}
	return object{{"String", *p.String}}
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSONTo writes the members in order.
func (o object) MarshalJSONTo(e *jsontext.Encoder) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, m := range o {
		if err := e.WriteToken(jsontext.String(m.name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(e, m.value); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}
