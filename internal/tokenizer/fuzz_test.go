package tokenizer

import (
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
	for _, file := range goldenFiles(f) {
		g := readGolden(f, file)
		f.Add([]byte(g.Tokenizer), g.Cases[12].Text)
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
		if tok.source == nil || tok.normalize != nil || tok.model.unk >= 0 || hasFallback(tok.model) || tok.prefixAt >= 0 {
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

func hasFallback(m *bpe) bool {
	return slices.ContainsFunc(m.fallback[:], func(ids []int32) bool { return ids != nil })
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
