package evaluate

import (
	"bytes"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/internal/tokenizer"
)

func parse(t *testing.T, data []byte) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestTokens: a wrong pre-tokenizer shows on the hard texts, and says where; the same tokenizer shows
// nothing; one that only lacks a normalization is told apart.
func TestTokens(t *testing.T) {
	data := testmodel.TokenizerFiles()["tokenizer.json"]
	a := parse(t, data)
	if g := Tokens(a, parse(t, data)); g.Same != g.Texts || g.Texts < 50 || g.First != nil || g.Decomposed {
		t.Errorf("the same tokenizer: %+v", g)
	}
	prefixed := bytes.Replace(data, []byte(`"add_prefix_space":false`), []byte(`"add_prefix_space":true`), 1)
	g := Tokens(a, parse(t, prefixed))
	if bytes.Equal(prefixed, data) || g.Same == g.Texts || g.First == nil || g.Decomposed {
		t.Fatalf("another pre-tokenizer: %+v", g)
	}
	d := g.First
	if !strings.Contains(d.String(), "from id") || len(d.A)+len(d.B) == 0 {
		t.Errorf("the difference is %v", d)
	}
	nfc := bytes.Replace(data, []byte(`"normalizer":null`), []byte(`"normalizer":{"type":"NFC"}`), 1)
	if g := Tokens(parse(t, nfc), a); g.Same == g.Texts || !g.Decomposed {
		t.Errorf("without NFC: %+v", g)
	}
}

func TestTemplates(t *testing.T) {
	template := func(source string) *chat.Template {
		x, err := chat.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	a := template(testmodel.Template)
	for _, c := range []struct {
		b     *chat.Template
		words string
		alike bool
	}{
		{a, "", false},
		{nil, "only A has", false},
		{template(strings.ReplaceAll(testmodel.Template, "{{ m.content }}", "{{ m['content'] }}")), "render alike", true},
		{template(strings.ReplaceAll(testmodel.Template, "<|im_end|>", "</s>")), "renders as", false},
		{template("{{ raise_exception('no') }}"), "in one of the two only", false},
	} {
		got, alike := Templates(a, c.b)
		if (c.words == "") != (got == "") || !strings.Contains(got, c.words) || alike != c.alike {
			t.Errorf("%q, alike %v; want %q, %v", got, alike, c.words, c.alike)
		}
	}
}
