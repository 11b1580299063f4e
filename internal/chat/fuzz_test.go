package chat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzParse parses and renders hostile templates: none may panic, hang or
// fail with anything but an *Error.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../testdata/golden/chat/*.jinja")
	if err != nil || len(files) == 0 {
		f.Fatal("no templates to seed with", err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(source))
	}
	features, err := os.ReadFile("../../testdata/golden/chat/features.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, source := range strings.Split(string(features), "\n====\n") {
		f.Add(source)
	}
	in := Input{Messages: turns("system", "s", "user", "u", "assistant", "a"), AddGenerationPrompt: true,
		Vars: map[string]any{"i": 7, "l": []any{3, 1, 2}, "s": "Hello, World", "d": map[string]any{"a": 1}}}
	f.Fuzz(func(t *testing.T, source string) {
		var e *Error
		tmpl, err := Parse(source)
		if err != nil {
			if !errors.As(err, &e) || !errors.Is(err, ErrSyntax) {
				t.Fatalf("Parse: %v", err)
			}
			return
		}
		continued := in
		continued.AddGenerationPrompt, continued.Continue = false, "content"
		_, _ = tmpl.Render(continued)
		text, spans, err := tmpl.RenderSpans(in)
		if err != nil {
			if !errors.As(err, &e) && !errors.Is(err, ErrSpans) {
				t.Fatalf("RenderSpans: %v", err)
			}
			return
		}
		at := 0
		for _, s := range spans {
			if s.Start < at || s.End <= s.Start || s.End > len(text) {
				t.Fatalf("spans %v of %d bytes", spans, len(text))
			}
			at = s.End
		}
	})
}

// FuzzParseJSON holds that what parses prints as JSON that parses to the same.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{`{"role":"user","content":"Hi","n":[1,-2.5e3,true,null,"\u00e9\ud83d\udc4b"]}`, `[1e400]`, `{"a":1,"a":2}`, `12345678901234567890`} {
		f.Add([]byte(seed))
	}
	dump, err := Parse("{{ x|tojson }}")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseJSON(data)
		if err != nil {
			return
		}
		text, err := dump.Render(Input{Vars: map[string]any{"x": v}})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, "Infinity") {
			return // not JSON, as in Python
		}
		again, err := ParseJSON([]byte(text))
		if err != nil {
			t.Fatalf("%q does not parse: %v", text, err)
		}
		if text2, err := dump.Render(Input{Vars: map[string]any{"x": again}}); err != nil || text2 != text {
			t.Fatalf("%q becomes %q, %v", text, text2, err)
		}
	})
}
