package testmodel

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Template is the chat template of test models: ChatML without a default system message.
const Template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// TokenizerFiles returns the tokenizer files of a folder for the test models: byte-level BPE with
// the pre-tokenizer of SmolLM, whose 300 tokens are 3 special ones, the 256 bytes and merges of some
// common pairs.
func TokenizerFiles() map[string][]byte {
	vocab := map[string]int{}
	add := func(token string) { vocab[token] = len(vocab) }
	specials := []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	for _, s := range specials {
		add(s)
	}
	for b := range 256 {
		add(byteRune(byte(b)))
	}
	space := byteRune(' ')
	var merges [][2]string
	for _, p := range [][2]string{{"h", "e"}, {"t", "he"}, {space, "the"}, {"i", "n"}, {"r", "e"}, {"o", "n"}, {"e", "r"}, {"a", "t"}, {space, "s"}, {space, "a"},
		{space, "w"}, {space, "o"}, {"n", "d"}, {space, "c"}, {"o", "r"}, {"e", "s"}, {"e", "n"}, {"a", "n"}, {"i", "s"}, {"i", "t"}, {space, "f"}, {space, "b"}, {"a", "r"},
		{"a", "l"}, {"o", "u"}, {space, "m"}, {"in", "g"}, {space, "d"}, {"l", "l"}, {space, "p"}, {"e", "d"}, {"o", "m"}, {"i", "on"}, {space, "h"}, {space, "l"},
		{"l", "e"}, {"i", "c"}, {space, "n"}, {"a", "s"}, {"v", "e"}, {"c", "h"}} {
		merges = append(merges, p)
		add(p[0] + p[1])
	}
	var added []map[string]any
	for id, s := range specials {
		added = append(added, map[string]any{"id": id, "content": s, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	spec := map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil,
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Digits", "individual_digits": true},
			map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		}},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges},
	}
	config := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": specials[1], "eos_token": specials[2], "unk_token": specials[0], "model_max_length": 128}
	return map[string][]byte{"tokenizer.json": encodeJSON(spec), "tokenizer_config.json": encodeJSON(config), "chat_template.jinja": []byte(Template)}
}

func encodeJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("testmodel: internal error: %v", err)) // strings and numbers only
	}
	return data
}

// byteRune writes a byte as byte-level BPE does: printable ones as they are, the other 68 from
// U+0100 on.
func byteRune(b byte) string {
	plain := func(b byte) bool { return b >= 33 && b <= 126 || b >= 161 && b <= 172 || b >= 174 }
	r := rune(b)
	if !plain(b) {
		r = 0x100
		for x := range b {
			if !plain(x) {
				r++
			}
		}
	}
	return string(utf8.AppendRune(nil, r))
}
