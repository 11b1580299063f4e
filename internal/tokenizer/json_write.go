package tokenizer

// This file writes a tokenizer.json for a tokenizer that came from GGUF.

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// pretokenizerOf describes the splitters and the byte alphabet for tokenizer.json.
func pretokenizerOf(splitters []splitter) object {
	byteLevel := object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}
	var steps []object
	for _, s := range splitters {
		switch s := s.(type) {
		case digitSplitter:
			steps = append(steps, object{{"type", "Digits"}, {"individual_digits", s.individual}})
		case *scanner:
			if s == gpt2Scanner {
				byteLevel[3].value = true
				continue
			}
			pattern := object{{"Regex", s.pattern}}
			steps = append(steps, object{{"type", "Split"}, {"pattern", pattern}, {"behavior", isolated}, {"invert", false}})
		}
	}
	if len(steps) == 0 {
		return byteLevel
	}
	return object{{"type", "Sequence"}, {"pretokenizers", append(steps, byteLevel)}}
}

// JSON returns a tokenizer.json. That of a tokenizer read from one is the
// original, byte for byte; for one made of a GGUF vocabulary it is a new file with
// which Hugging Face tokenizers encodes the same ids (it has no normalizer then,
// since llama.cpp has none).
func (t *Tokenizer) JSON() ([]byte, error) {
	if t.source != nil {
		return slices.Clone(t.source), nil
	}
	added := make([]object, len(t.added))
	for i, a := range t.added {
		added[i] = object{{"id", a.ID}, {"content", a.Content}, {"single_word", a.SingleWord}, {"lstrip", a.Lstrip},
			{"rstrip", a.Rstrip}, {"normalized", a.Normalized}, {"special", a.Special}}
	}
	vocab := make(object, len(t.tokens))
	for id, text := range t.tokens {
		vocab[id] = member{text, id}
	}
	doc := object{
		{"version", "1.0"},
		{"truncation", nil},
		{"padding", nil},
		{"added_tokens", added},
		{"normalizer", nil},
		{"pre_tokenizer", pretokenizerOf(t.splitters)},
		{"post_processor", t.template()},
		{"decoder", object{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
		{"model", object{
			{"type", "BPE"},
			{"dropout", nil},
			{"unk_token", nil},
			{"continuing_subword_prefix", nil},
			{"end_of_word_suffix", nil},
			{"fuse_unk", false},
			{"byte_fallback", false},
			{"ignore_merges", t.model.whole != nil},
			{"vocab", vocab},
			{"merges", t.merges()},
		}},
	}
	data, err := json.Marshal(doc, jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("tokenizer: writing tokenizer.json: %w", err)
	}
	return append(data, '\n'), nil
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
