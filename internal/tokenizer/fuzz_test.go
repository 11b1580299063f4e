package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
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
		doc["model"] = json.RawMessage(`{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"1":4,"<":7,"x":8,">":9},"merges":["a b"],"ignore_merges":true}`)
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
		// What the vocabulary has no symbol for, tokenizers leaves out, so that its neighbours may merge;
		// llama.cpp's stays between them.
		if m := tok.model.(*bpe); slices.ContainsFunc([]byte(validText(text)), func(b byte) bool { return m.bytes[b] < 0 }) {
			return
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

// FuzzSentencePiece wants no panic from any file, and the same ids from a BPE model and from
// the GGUF vocabulary that is made of it, where it has all bytes.
func FuzzSentencePiece(f *testing.F) {
	// A model of few bytes: mutating tens of kilobytes finds nothing.
	small := smallModel(2)
	f.Add(small, []byte(`{"legacy":false,"added_tokens_decoder":{"9":{"content":"<x>","special":true}}}`), "ab bab<x>")
	f.Add(smallModel(1), []byte(`{"add_prefix_space":false}`), "ab bab<x>")
	f.Fuzz(func(t *testing.T, model, config []byte, text string) {
		if len(text) > 1<<10 {
			return
		}
		tok, err := ParseSentencePiece(model, config)
		if err != nil {
			return
		}
		exercise(t, tok, text)
	})
}

// smallModel is a SentencePiece model of few pieces, of type 1, unigram, or 2, BPE; more
// follows the rest.
func smallModel(kind byte, more ...byte) []byte {
	return slices.Concat(modelPiece("<unk>", 2), modelPiece("<s>", 3), modelPiece("</s>", 3), modelPiece("a", 1), modelPiece("b", 1),
		modelPiece("ab", 1), modelPiece(underline, 1), modelPiece("bab", 4), []byte{0x12, 2, 0x18, kind}, []byte{0x1a, 2, 0x20, 0}, more)
}

// modelPiece is one piece as it stands in a model, with the score -1.
func modelPiece(text string, typ byte) []byte {
	p := append([]byte{0x0a, byte(len(text))}, text...)
	p = append(p, 0x15, 0, 0, 0x80, 0xbf, 0x18, typ)
	return append([]byte{0x0a, byte(len(p))}, p...)
}

// FuzzVocab wants no panic from any vocabulary of a GGUF file.
func FuzzVocab(f *testing.F) {
	f.Add("<unk>\n<s>\na\nb\nab\n\u2581\n<0x41>\n[x]", "\x02\x03\x01\x01\x01\x01\x06\x04", "a b", byte(0), "ab ba [x]")
	f.Add("<unk>\n<s>\na\nb\nab\n\u2581a\n<0x41>\n[x]", "\x02\x03\x01\x01\x05\x01\x06\x04", "", byte(0xf5), "ab  A [x]")
	f.Add("a\nb\nab\nĠ\n\n|", "", "a b\nĠ ab", byte(2), "ab 11 ab")
	f.Add("a\nb\nab\n\u2581\n<0x0A>\n<turn|>", "", "a b", byte(7), "ab\n\nab")
	f.Fuzz(func(t *testing.T, tokens, types, merges string, flags byte, text string) {
		if len(text) > 1<<10 || len(tokens) > 1<<12 {
			return
		}
		model := []string{modelSPM, modelUnigram, modelBPE, modelGemma4}[flags&3]
		v := DefaultVocab(model, preTokenizers[int(flags>>2)%len(preTokenizers)].names[0])
		v.Tokens = strings.Split(tokens, "\n")
		for i := range v.Tokens {
			v.Scores = append(v.Scores, float32(len(v.Tokens[i])%5)-float32(i))
			if types != "" {
				v.Types = append(v.Types, int32(types[i%len(types)]))
			}
		}
		if merges != "" {
			v.Merges = strings.Split(merges, "\n")
		}
		v.AddSpacePrefix, v.RemoveExtraWhitespaces = flags&16 != 0, flags&32 != 0
		if flags&64 != 0 {
			v.Charsmap, v.Name = []byte(types), "phi-3"
		}
		for _, id := range []*int{&v.BOS, &v.EOS, &v.UNK, &v.PAD} {
			*id = min(*id, len(v.Tokens)-1)
		}
		tok, err := FromVocab(v)
		if err != nil {
			return
		}
		exercise(t, tok, text)
	})
}

// exercise encodes, decodes, and passes the tokenizer through both of the forms that it can
// be written in.
func exercise(t *testing.T, tok *Tokenizer, text string) {
	for _, opt := range []Options{{}, {ParseSpecial: true, AddSpecial: true}} {
		ids := tok.Encode(text, opt)
		for _, id := range ids {
			if _, ok := tok.Token(id); !ok {
				t.Fatalf("Encode(%q) = %v: id %d is unknown", text, ids, id)
			}
		}
		checkDecode(t, tok, ids, false, tok.Decode(ids, false))
	}
	if data, err := tok.JSON(); err == nil {
		again, err := ParseJSON(data)
		if err != nil {
			t.Fatalf("reading back %s: %v", data, err)
		}
		again.Encode(text, Options{ParseSpecial: true})
	}
	vocab, err := tok.Vocab()
	if err != nil {
		return
	}
	again, err := FromVocab(vocab)
	if err != nil {
		return // an added token may be what llama.cpp does not accept
	}
	again.Encode(text, Options{ParseSpecial: true})
}

// FuzzEncode wants every tokenizer that loses nothing to give the text back, at once and
// streamed, and of the others the two ways of decoding to agree.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"gpt2", "smollm", "llama3", "o200k", "deepseek"} {
		toks = append(toks, goldenTokenizer(f, name))
	}
	for _, c := range readGolden(f, goldenFiles(f)[0]).Cases {
		f.Add(c.Text)
	}
	f.Add("a\xff\xe4\xb8")
	var bytes, lossy []*Tokenizer // that give back all but the underline; that do not
	for _, name := range []string{"llama2", "gemma"} {
		bytes = append(bytes, goldenTokenizer(f, name))
	}
	for _, name := range []string{"qwen2", "phi3", "llama2-modern", "t5", "albert", "unigram-bytes", "bare", "falcon", "model-bpe"} {
		lossy = append(lossy, goldenTokenizer(f, name))
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range lossy {
			ids := tok.Encode(text, Options{ParseSpecial: true})
			checkDecode(t, tok, ids, true, tok.Decode(ids, true))
		}
		want := validText(text)
		if !utf8.ValidString(want) || utf8.ValidString(text) && want != text {
			t.Fatalf("validText(%q) = %q", text, want)
		}
		for _, tok := range toks {
			for _, opt := range []Options{{}, {ParseSpecial: true}} {
				checkDecode(t, tok, tok.Encode(text, opt), false, want)
			}
		}
		if strings.Contains(want, underline) {
			return // a space like any other
		}
		for _, tok := range bytes {
			checkDecode(t, tok, tok.Encode(text, Options{}), false, want)
		}
	})
}
