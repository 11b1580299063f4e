package chat

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// marked is the text with every span between « and ».
func marked(text string, spans []Span) string {
	var b strings.Builder
	at := 0
	for _, s := range spans {
		b.WriteString(text[at:s.Start] + "«" + text[s.Start:s.End] + "»")
		at = s.End
	}
	return b.String() + text[at:]
}

func readTemplate(t *testing.T, name string) *Template {
	t.Helper()
	source, err := os.ReadFile("../../testdata/golden/chat/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(source))
}

func turns(pairs ...string) []Message {
	var out []Message
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Message{Role: pairs[i], Content: pairs[i+1]})
	}
	return out
}

func TestRenderSpans(t *testing.T) {
	chatml, _ := Builtin("chatml")
	reasoned := turns("user", "1", "assistant", "<think>\nhm\n</think>\n\none", "user", "2", "assistant", "<think>\nah\n</think>\n\ntwo")
	called := turns("user", "1", "assistant", "", "tool", "r", "assistant", "one")
	called[1].Extra = &Dict{}
	called[1].Extra.Set("tool_calls", []any{map[string]any{"function": map[string]any{"name": "f", "arguments": map[string]any{"x": 1}}}})
	for _, c := range []struct {
		name string
		tmpl *Template
		in   Input
		want string
	}{
		{"builtin", chatml, Input{Messages: turns("system", "s", "user", "u", "assistant", "a", "user", "v", "assistant", "b")},
			"<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n«a<|im_end|>»\n<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n«b<|im_end|>»\n"},
		{"derived", readTemplate(t, "turns.jinja"), Input{Messages: turns("system", "s", "user", "u", "assistant", "a\n", "user", "é", "assistant", "")},
			"<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n«a\n<|im_end|>»\n<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\n«<|im_end|>»\n"},
		{"prompt at the end", readTemplate(t, "turns.jinja"), Input{Messages: turns("system", "s", "assistant", "a", "user", "u"), AddGenerationPrompt: true},
			"<|im_start|>system\ns<|im_end|>\n<|im_start|>assistant\n«a<|im_end|>»\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"},
		{"no prompt in the template", readTemplate(t, "brackets.jinja"), Input{Messages: turns("user", "u", "assistant", " a ", "user", "v"), BOSToken: "<s>", EOSToken: "</s>"},
			"<s>[INST] u[/INST]« a</s>»[INST] v[/INST]"},
		{"earlier reasoning dropped", readTemplate(t, "thinking.jinja"), Input{Messages: reasoned},
			"<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n«one<|im_end|>»\n<|im_start|>user\n2<|im_end|>\n<|im_start|>assistant\n«<think>\nah\n</think>\n\ntwo<|im_end|>»\n"},
		{"tool call", readTemplate(t, "thinking.jinja"), Input{Messages: called},
			"<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\n«<call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</call><|im_end|>»\n<|im_start|>user\n<result>\nr\n</result><|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\none<|im_end|>»\n"},
		{"another end last", mustParse(t, "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ ('<stop>' if loop.last else '<end>') }}{% endfor %}{{ '<assistant>' if add_generation_prompt }}"),
			Input{Messages: turns("user", "u", "assistant", "a", "user", "v")}, ""},
		{"prompt opens a block", mustParse(t, "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ '<end>' }}{% endfor %}{{ '<assistant><think>\\n' if add_generation_prompt }}"),
			Input{Messages: turns("user", "u", "assistant", "a", "user", "v", "assistant", "<tag>")}, "<user>u<end><assistant>«a<end>»<user>v<end><assistant>«<tag><end>»"},
		{"own end kept where there is no token", mustParse(t, "{% for m in messages %}{{ m.content ~ '\\n' }}{% endfor %}"),
			Input{Messages: turns("user", "u", "assistant", "code\n\n", "user", "v")}, "u\n«code\n\n»\nv\n"},
	} {
		text, spans, err := c.tmpl.RenderSpans(c.in)
		if c.want == "" {
			if !errors.Is(err, ErrSpans) || !strings.Contains(err.Error(), "message 1") {
				t.Errorf("%s: %q, %v, want ErrSpans of message 1", c.name, marked(text, spans), err)
			}
			continue
		}
		if err != nil || marked(text, spans) != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.name, err, marked(text, spans), c.want)
		}
		if plain, err := c.tmpl.Render(c.in); err != nil || plain != text {
			t.Errorf("%s: Render gives %q, %v, RenderSpans %q", c.name, plain, err, text)
		}
	}
}

func TestRenderSpansFails(t *testing.T) {
	in := Input{Messages: turns("user", "u", "assistant", "a")}
	for name, source := range map[string]string{
		"generation in a macro": "{% macro m() %}{% generation %}x{% endgeneration %}{% endmacro %}{{ m()|upper }}",
		"counts its messages":   "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}",
		"needs two messages":    "{{ messages[1].content }}",
	} {
		_, _, err := mustParse(t, source).RenderSpans(in)
		if !errors.Is(err, ErrSpans) {
			t.Errorf("%s: %v, want ErrSpans", name, err)
		}
	}
	refuses := mustParse(t, "{{ raise_exception('never') }}")
	if _, _, err := refuses.RenderSpans(in); !errors.Is(err, ErrRaised) {
		t.Errorf("a template that refuses: %v, want ErrRaised", err)
	}
}

// TestBuiltinChatML holds the builtin against a template that has no marks:
// the same text, and the same spans derived.
func TestBuiltinChatML(t *testing.T) {
	builtin, ok := Builtin("chatml")
	if !ok {
		t.Fatal("no chatml")
	}
	plain := mustParse(t, "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
	for _, messages := range [][]Message{nil, turns("user", "u"), turns("system", " s\n", "user", "", "assistant", "a", "user", "{{ x }}", "assistant", " é ")} {
		for _, prompt := range []bool{false, true} {
			in := Input{Messages: messages, AddGenerationPrompt: prompt}
			a, as, aErr := builtin.RenderSpans(in)
			b, bs, bErr := plain.RenderSpans(in)
			if aErr != nil || bErr != nil || marked(a, as) != marked(b, bs) {
				t.Errorf("builtin %q, %v; plain %q, %v", marked(a, as), aErr, marked(b, bs), bErr)
			}
		}
	}
	if _, ok := Builtin("nope"); ok {
		t.Error("there is a builtin called nope")
	}
}
