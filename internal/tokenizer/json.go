package tokenizer

// This file reads tokenizer.json.

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

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
	if len(doc.Model) == 0 || doc.Model.Kind() != '{' {
		return nil, fmt.Errorf("%w: no model", ErrFormat)
	}
	kind, err := modelKind(doc.Model)
	if err != nil {
		return nil, err
	}
	b := builder{doc: &doc}
	switch kind {
	case "BPE":
		b.bpe, err = parseBPE(doc.Model)
	case "Unigram":
		b.unigram = new(unigramDocument)
		err = json.Unmarshal(doc.Model, b.unigram)
	default:
		return nil, fmt.Errorf("model type %q: %w (BPE and Unigram are)", kind, ErrUnsupported)
	}
	if err != nil {
		return nil, jsonError(err)
	}
	doc.Model = nil // as long as the file
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.source = slices.Clone(data)
	if len(t.prefix) > 0 {
		t.wanted.BOS = t.prefix[0]
	}
	return t, nil
}

// parseBPE reads a model of type BPE: its merges, which are half of the work, beside all else.
func parseBPE(model jsontext.Value) (*bpeDocument, error) {
	var merges struct {
		Merges []mergeText `json:"merges"`
	}
	failed := make(chan error, 1)
	go func() { failed <- json.Unmarshal(model, &merges) }()
	doc := new(bpeDocument)
	skip := json.WithUnmarshalers(json.UnmarshalFromFunc(func(d *jsontext.Decoder, _ *[]mergeText) error { return d.SkipValue() }))
	err := json.Unmarshal(model, doc, skip)
	if mergesErr := <-failed; err == nil {
		err = mergesErr
	}
	doc.Merges = merges.Merges
	return doc, err
}

// modelKind returns the model's type, which nearly always comes first. Files of before 2020 leave it out.
func modelKind(model jsontext.Value) (string, error) {
	d := jsontext.NewDecoder(bytes.NewReader(model))
	if _, err := d.ReadToken(); err == nil {
		if key, err := d.ReadToken(); err == nil && key.Kind() == '"' && key.String() == "type" {
			if kind, err := d.ReadToken(); err == nil && kind.Kind() == '"' {
				return kind.String(), nil
			}
		}
	}
	var kind struct {
		Type   string         `json:"type"`
		Merges jsontext.Value `json:"merges"`
		UnkID  jsontext.Value `json:"unk_id"`
	}
	if err := json.Unmarshal(model, &kind); err != nil {
		return "", jsonError(err)
	}
	switch {
	case kind.Type == "" && kind.Merges != nil:
		return "BPE", nil
	case kind.Type == "" && kind.UnkID != nil:
		return "Unigram", nil
	}
	return kind.Type, nil
}
