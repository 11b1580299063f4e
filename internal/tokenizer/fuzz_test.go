package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"unicode/utf8"
)

// FuzzParseJSON wants no panic from any file, and the same ids from a tokenizer
// and from its copy by way of a GGUF vocabulary and a new tokenizer.json.
func FuzzParseJSON(f *testing.F) {
	tiny, err := os.ReadFile("testdata/tiny.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tiny, "low lower<|end|> ol")
	// The golden tokenizers' steps around a small vocabulary: mutating their own
	// tens of kilobytes finds nothing.
	for _, file := range goldenFiles(f) {
		g := readGolden(f, file)
		if g.Tokenizer == nil {
			continue
		}
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(g.Tokenizer, &doc); err != nil {
			f.Fatal(err)
		}
		doc["model"] = json.RawMessage(`{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"1":4},"merges":["a b"],"ignore_merges":true}`)
		doc["added_tokens"] = json.RawMessage(`[{"id":5,"content":"<x>","special":true},{"id":6,"content":"ba","lstrip":true,"normalized":true}]`)
		doc["post_processor"] = json.RawMessage(`{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<x>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<x>":{"ids":[5]}}}`)
		data, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "ab ba 11<x> a")
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if len(text) > 1<<10 {
			return
		}
		tok, err := ParseJSON(data)
		if err != nil {
			return
		}
		ids := tok.Encode(text, Options{AddSpecial: true, ParseSpecial: true})
		tok.Decode(ids, true)
		if m, ok := tok.model.(*bpe); !ok || !m.byteLevel || tok.normalize != nil || m.unk >= 0 || m.hasByteFallback() {
			return // a GGUF vocabulary has none of these
		}
		vocab, err := tok.Vocab()
		if err != nil {
			return
		}
		ggml, err := FromVocab(vocab)
		if err != nil {
			t.Skip() // an added token may be what llama.cpp does not accept
		}
		again := reparse(t, ggml)
		for _, opt := range []Options{{}, {ParseSpecial: true}, {AddSpecial: true}} {
			if a, b := ggml.Encode(text, opt), again.Encode(text, opt); !slices.Equal(a, b) {
				t.Errorf("%+v: ids %v from GGUF, %v from its tokenizer.json", opt, a, b)
			}
		}
	})
}

// FuzzEncode wants every byte-level tokenizer without a normalizer to give the
// text back, at once and streamed, and the invariants of ids to hold.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"gpt2", "smollm", "llama3", "o200k", "deepseek"} {
		toks = append(toks, goldenTokenizer(f, name))
	}
	for _, c := range readGolden(f, goldenFiles(f)[0]).Cases {
		f.Add(c.Text)
	}
	f.Add("a\xff\xe4\xb8")
	f.Fuzz(func(t *testing.T, text string) {
		want := validText(text)
		if !utf8.ValidString(want) || utf8.ValidString(text) && want != text {
			t.Fatalf("validText(%q) = %q", text, want)
		}
		for _, tok := range toks {
			for _, opt := range []Options{{}, {ParseSpecial: true}} {
				checkDecode(t, tok, tok.Encode(text, opt), false, want)
			}
		}
	})
}
