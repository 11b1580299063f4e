package tokenizer

// This file finds the tokens with a role.

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// eogTexts are the spellings of tokens that end a turn or a document.
var eogTexts = []string{
	"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
	"<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>",
	"<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[", "<|eot|>",
}

// fimTexts are those of tokens that mark the parts of a text with a gap.
var fimTexts = []string{
	"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>",
	"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>",
	"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>",
	"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
	"<|file_sep|>",
}

// shownTexts are those of tokens that are never hidden, whatever their type (gpt-oss).
var shownTexts = []string{"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}

func findEOG(t *Tokenizer) []int32 {
	var ids []int32
	if t.wanted.EOS >= 0 {
		ids = append(ids, t.wanted.EOS)
	}
	for _, text := range eogTexts {
		if id, ok := t.ids[text]; ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// WithConfig returns the tokenizer with the roles that tokenizer_config.json or
// special_tokens_map.json gives to tokens: bos_token, eos_token, unk_token and
// pad_token, each a string or an object with "content". Roles that the file does
// not name stay as they are; null takes one away.
func (t *Tokenizer) WithConfig(config []byte) (*Tokenizer, error) {
	var doc struct {
		BOS jsontext.Value `json:"bos_token"`
		EOS jsontext.Value `json:"eos_token"`
		UNK jsontext.Value `json:"unk_token"`
		PAD jsontext.Value `json:"pad_token"`
	}
	if err := json.Unmarshal(config, &doc, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("tokenizer: reading tokenizer_config.json: %w", jsonError(err))
	}
	ids := t.wanted
	for _, role := range []struct {
		name  string
		value jsontext.Value
		id    *int32
	}{{"bos_token", doc.BOS, &ids.BOS}, {"eos_token", doc.EOS, &ids.EOS}, {"unk_token", doc.UNK, &ids.UNK}, {"pad_token", doc.PAD, &ids.PAD}} {
		text, err := tokenText(role.value)
		switch {
		case err != nil:
			return nil, fmt.Errorf("tokenizer: reading %s in tokenizer_config.json: %w", role.name, jsonError(err))
		case role.value == nil:
			continue
		case text == "":
			*role.id = -1
			continue
		}
		id, ok := t.ids[text]
		if !ok {
			return nil, fmt.Errorf("tokenizer: reading tokenizer_config.json: %w: %s %.40q is not in the vocabulary", ErrFormat, role.name, text)
		}
		*role.id = id
	}
	return t.WithSpecial(ids)
}

// tokenText reads a token given as a string, as an object with "content", or null.
func tokenText(v jsontext.Value) (string, error) {
	if v.Kind() == '{' {
		var token struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(v, &token)
		return token.Content, err
	}
	var text *string
	if v != nil {
		if err := json.Unmarshal(v, &text); err != nil {
			return "", err
		}
	}
	if text == nil {
		return "", nil
	}
	return *text, nil
}

// WithSpecial returns the tokenizer with other roles for its tokens. What
// AddSpecial adds does not change by it.
func (t *Tokenizer) WithSpecial(ids SpecialIDs) (*Tokenizer, error) {
	for _, id := range []int32{ids.BOS, ids.EOS, ids.UNK, ids.PAD} {
		if _, ok := t.Token(id); !ok && id != -1 {
			return nil, fmt.Errorf("tokenizer: naming special tokens: %w: id %d is not in the vocabulary", ErrFormat, id)
		}
	}
	c := &Tokenizer{
		tokens: t.tokens, known: t.known, ids: t.ids, added: t.added, special: t.special,
		raw: t.raw, normal: t.normal, normalize: t.normalize, stages: t.stages, byteLevel: t.byteLevel, spelled: t.spelled,
		model: t.model, prefix: t.prefix, suffix: t.suffix, decoder: t.decoder,
		wanted: ids, doc: t.doc, source: t.source, vocab: t.vocab, scores: t.scores,
	}
	c.eog = findEOG(c)
	return c, nil
}
