package evaluate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/tokenizer"
)

// Agreement says whether two tokenizers give the same ids for texts that are hard to tokenize.
type Agreement struct {
	Texts int              `json:"texts"`
	Same  int              `json:"same"`
	First *TokenDifference `json:"first_difference,omitempty"`
	// Decomposed tells that only texts in decomposed Unicode differ: a tokenizer that normalizes to
	// NFC has that in tokenizer.json, and a GGUF file has no place for it.
	Decomposed bool `json:"only_decomposed,omitempty"`
}

// TokenDifference is where the ids of a text part.
type TokenDifference struct {
	Text    string  `json:"text"`
	Special bool    `json:"special"` // spellings of special tokens were read as those tokens
	At      int     `json:"at"`      // index of the first id that differs
	A       []int32 `json:"a"`       // ids from there on, a few
	B       []int32 `json:"b"`
}

func (d *TokenDifference) String() string {
	return fmt.Sprintf("%.60q: from id %d on %v and %v", d.Text, d.At, d.A, d.B)
}

// adversarial are texts on which wrong pre-tokenizers, normalizers and special tokens show.
var adversarial = []string{
	"", " ", "  ", "   a", "a   ", "\n", "\n\n", " \n \n", "\r\n\r\n", "\t\tif x:\n\t\t\treturn", "a\u00a0b\u2003c\u3000d\u200b\u200de", "\ufeffBOM",
	"I'm you'll we've he'd it's they're I'M YOU'LL 'tis 'S", "don’t can’t", "1", "12", "123", "1234", "12345678901234567890", "3.14159e-10 1,000,000.00 ٣٤٥ ½ Ⅻ ²",
	"v1.2.3-rc.4+build", "_under_score__ camelCase HTTPServer snake-case", "a.b,c;d:e!f?g…h", "!!!???...,,,;;;", "((([[[{{{}}}]]])))", "<<>>==!=&&||->=>::",
	"https://example.org/a%20b?q=1&r=é#x", "user@example.org", "C:\\Temp\\new\\n", "\"quoted\" 'single' “curly” «guillemets»", "$12.50 €21 £3 ¥400 90.7 %",
	"def f(x):\n    return x**2  # sq\n", "SELECT * FROM t WHERE a >= 'b';", "{\"k\": [1, null, true]}", "\\frac{a}{b} \\alpha^2",
	"Ærøskøbing Straße naïve façade İstanbul ıI ẞ ﬁ ŉ", "Привет, мир! ЁЖИК ёжик", "Ελληνικά ΣΊΣΥΦΟΣ ς", "你好，世界。中文分詞", "こんにちは、カタカナ ｶﾀｶﾅ 漢字", "안녕하세요 한국어",
	"مرحبا بالعالم ١٢٣", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "ქართული Հայերեն ትግርኛ", "👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪☕️", "𝒳𝓎𝔷 𐍈 𠜎 𠮷", "\x00\x01\x7f\u0085", "\xff\xfe bad \xc3\x28 utf8 \xed\xa0\x80",
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "==================================", "                                 x", "\n\n\n\n\n\n\n\nx",
	"<s>", "</s>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "<|begin_of_text|>", "[INST] x [/INST]", "<bos><start_of_turn>user", "<unk><pad><mask>", "<0x0A>", "▁a ▁▁b", "Ġthe Ċ", "[PAD1]",
}

// decomposed are texts that NFC changes.
var decomposed = []string{"e\u0301a\u0300o\u0308", "A\u030angstro\u0308m", "\u1112\u1161\u11ab", "q\u0323\u0307", "\u212b \u2126"}

// Tokens compares two tokenizers on a built-in set of hard texts and on the spellings of a's special
// tokens, each with spellings of special tokens read as such and as plain text.
func Tokens(a, b *tokenizer.Tokenizer) Agreement {
	texts := slices.Clone(adversarial)
	const manySpecial = 64
	for id := int32(0); int(id) < a.Size() && len(texts) < len(adversarial)+manySpecial; id++ {
		if text, ok := a.Token(id); ok && a.IsSpecial(id) {
			texts = append(texts, "x"+text+" y"+text+text)
		}
	}
	var g Agreement
	plain := 0
	for i, text := range append(texts, decomposed...) {
		d := differAt(a, b, text)
		g.Texts++
		switch {
		case d == nil:
			g.Same++
		case i < len(texts):
			plain++
			fallthrough
		default:
			if g.First == nil {
				g.First = d
			}
		}
	}
	g.Decomposed = g.Same < g.Texts && plain == 0
	return g
}

// differAt compares the ids of a text, nil where they are the same.
func differAt(a, b *tokenizer.Tokenizer, text string) *TokenDifference {
	for _, special := range []bool{false, true} {
		x, y := a.Encode(text, tokenizer.Options{ParseSpecial: special}), b.Encode(text, tokenizer.Options{ParseSpecial: special})
		if slices.Equal(x, y) {
			continue
		}
		at := 0
		for at < min(len(x), len(y)) && x[at] == y[at] {
			at++
		}
		const few = 6
		return &TokenDifference{Text: strings.ToValidUTF8(text, "\ufffd"), Special: special, At: at, A: x[at:min(len(x), at+few)], B: y[at:min(len(y), at+few)]}
	}
	return nil
}

// TextDifference compares the ids of one text as Tokens does, nil where they are the same.
func TextDifference(a, b *tokenizer.Tokenizer, text string) *TokenDifference {
	d := differAt(a, b, text)
	if d != nil {
		d.Text = "the text"
	}
	return d
}

// Templates compares two chat templates, nil for none, and says in a few words how they differ, "" for
// the same. Alike tells that they are written in different ways but render alike.
func Templates(a, b *chat.Template) (difference string, alike bool) {
	switch {
	case a == nil && b == nil:
		return "", false
	case a == nil:
		return "only B has a chat template", false
	case b == nil:
		return "only A has a chat template", false
	case a.Source() == b.Source():
		return "", false
	}
	user, assistant, system := chat.Message{Role: "user", Content: "Hello"}, chat.Message{Role: "assistant", Content: "Hi."}, chat.Message{Role: "system", Content: "Be brief."}
	for _, c := range []chat.Input{
		{Messages: []chat.Message{user}, AddGenerationPrompt: true}, {Messages: []chat.Message{user, assistant}},
		{Messages: []chat.Message{system, user, assistant, user}, AddGenerationPrompt: true},
	} {
		c.BOSToken, c.EOSToken = "<bos>", "<eos>"
		x, errA := a.Render(c)
		y, errB := b.Render(c)
		switch {
		case (errA == nil) != (errB == nil):
			return fmt.Sprintf("a conversation of %d turns renders in one of the two only: %v", len(c.Messages), errors.Join(errA, errB)), false
		case x != y:
			return fmt.Sprintf("a conversation of %d turns renders as %.80q and as %.80q", len(c.Messages), x, y), false
		}
	}
	return "the chat templates are written differently and render alike", true
}
