package chat

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, source string) *Template {
	t.Helper()
	tmpl, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func render(source string) (string, error) {
	tmpl, err := Parse(source)
	if err != nil {
		return "", err
	}
	return tmpl.Render(Input{})
}

func TestErrorsNameTheirPlace(t *testing.T) {
	for _, c := range []struct {
		source       string
		line, column int
		kind         error
		says         string
	}{
		{"a\n{{ x.y }}", 2, 6, nil, "'x' is undefined"},
		{"{{ 1 +\n  'a' }}", 1, 6, nil, "unsupported operand"},
		{"é{{ raise_exception('no ' ~ 1) }}", 1, 20, ErrRaised, "no 1"},
		{"{% if x %}\n{{ y", 2, 1, ErrSyntax, "never closed"},
		{"\n\n  {% for x in y %}", 3, 6, ErrSyntax, "{% for %} is never closed"},
		{"{% include 'x' %}", 1, 4, ErrSyntax, "include"},
		{"{{ x|nope }}", 1, 5, ErrSyntax, "nope"},
		{"{{ range(200000) }}", 1, 9, ErrLimit, "range"},
	} {
		_, err := render(c.source)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an *Error", c.source, err)
			continue
		}
		if e.Line != c.line || e.Column != c.column || !strings.Contains(e.Msg, c.says) {
			t.Errorf("%q: %v, want line %d, column %d and %q", c.source, err, c.line, c.column, c.says)
		}
		if e.Unwrap() != c.kind {
			t.Errorf("%q: kind %v, want %v", c.source, e.Unwrap(), c.kind)
		}
	}
}

// TestLimits has templates that would loop for ever, or grow without bound.
func TestLimits(t *testing.T) {
	loops := strings.Repeat("{% for a in range(99999) %}", 4) + strings.Repeat("{% endfor %}", 4)
	double := "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = EXPR %}{% endfor %}{{ ns.x|length }}"
	with := func(e string) string { return strings.ReplaceAll(double, "EXPR", e) }
	for name, source := range map[string]string{
		"loops":             loops,
		"output":            "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
		"concat":            with("ns.x ~ ns.x"),
		"add":               with("ns.x + ns.x"),
		"multiply":          with("ns.x * 1000"),
		"replace":           with("ns.x.replace('a', 'aaaaaaaaaa')"),
		"replace filter":    with("ns.x|replace('', ns.x)"),
		"join":              with("ns.x.join([ns.x, ns.x])"),
		"join filter":       with("[ns.x, ns.x]|join(ns.x)"),
		"format":            with("'%s%s' % (ns.x, ns.x)"),
		"format method":     with("'{0}{0}'.format(ns.x)"),
		"width":             "{{ '%*d' % (999999999, 1) }}",
		"format width":      "{{ '{:999999999}'.format(1) }}",
		"center":            "{{ 'a'.center(999999999) }}",
		"indent":            "{{ ('a\n' * 1000)|indent(999999) }}",
		"json indent":       with("[[ns.x]]|tojson(indent=999)"),
		"list":              with("[ns.x, ns.x]") + "{{ ns.x }}",
		"shared list":       "{% set ns = namespace(x=1, y=1) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
		"shared json":       with("{'a': ns.x, 'b': ns.x}") + "{{ ns.x|tojson }}",
		"shared hash":       with("(ns.x, ns.x)") + "{{ {ns.x: 1} }}",
		"list growth":       with("[1] * 99999 + [ns.x] * 99999"),
		"nested namespaces": "{% set a = namespace() %}{% set a.a = a %}{{ a }}",
		"recursion":         "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"recursive loop":    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
		"caller recursion":  "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}",
		"power":             "{{ 9 ** 99999 }}",
		"big integers":      "{% set ns = namespace(x=99) %}{% for i in range(999) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
		"shifting tabs":     "{{ ('\t' * 1000000).expandtabs(1000) }}",
		"batch":             "{{ [1]|batch(999999999, 0)|list|length }}",
		"slice":             "{{ [1]|slice(999999999)|list|length }}",
		"billion":           "{{ 'x' * 10 ** 9 }}",
		"billion items":     "{{ ([0] * 10 ** 9)|length }}",
		"range":             "{% for i in range(10 ** 12) %}{% endfor %}",
		"nested macros":     "{% macro a(n) %}{% for i in range(99999) %}{{ b(n) }}{% endfor %}{% endmacro %}{% macro b(n) %}{% for i in range(99999) %}{{ n }}{% endfor %}{% endmacro %}{{ a(1) }}",
		"mutual recursion":  "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
		"macro by value":    "{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}",
		"lazy filters":      "{{ range(99999)|map('string')|map('list')|map('tojson')|map('replace', '\"', 'xxxxxxxxxxxxxxxxxxxx')|join|length }}" + loops,
		"groups":            "{% set l = range(99999)|list %}{% for i in l %}{% for g in l|batch(2) %}{% endfor %}{% endfor %}",
		"sorting":           "{% set l = range(99999)|list %}{% for i in l %}{% set x = l|sort(reverse=true) %}{% endfor %}",
		"membership":        "{% set l = range(99999)|list %}{% for i in l %}{% set x = 'a' in l %}{% endfor %}",
		"searching":         "{% set s = 'a' * 999999 %}{% for i in range(99999) %}{% set x = s.count('aaaaaaaaab') %}{% endfor %}",
		"json text":         "{% set s = '\"' * 999999 %}{% for i in range(99999) %}{% set x = s|tojson %}{% endfor %}",
		"big divisions":     "{% set n = 10 ** 4000 %}{% for i in range(99999) %}{% for j in range(99999) %}{% set x = n * n // 7 % 3 %}{% endfor %}{% endfor %}",
		"set block":         with("ns.x") + "{% set ns.x %}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}{% endset %}",
	} {
		if testing.Short() && slices.Contains([]string{"json text", "groups", "shared hash", "shared json", "json indent", "shifting tabs", "nested macros", "sorting", "membership"}, name) {
			continue // seconds each under the race detector, which has nothing to find in one goroutine
		}
		start := time.Now()
		text, err := render(source)
		if !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %d bytes, %v, want ErrLimit", name, len(text), err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: stopped only after %v", name, took)
		}
	}
	for tag, source := range map[string]string{
		"include": "{% include '/etc/passwd' %}", "import": "{% import 'os' as os %}", "from": "{% from 'x' import y %}",
		"extends": "{% extends 'base' %}", "block": "{% block x %}{% endblock %}", "do": "{% do messages.append(1) %}", "autoescape": "{% autoescape true %}{% endautoescape %}",
	} {
		if _, err := Parse(source); !errors.Is(err, ErrSyntax) || !strings.Contains(err.Error(), tag) {
			t.Errorf("%s: %v, want ErrSyntax that names the tag", source, err)
		}
	}
	for _, source := range []string{
		"{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__init__.__globals__ }}", "{{ range.__self__.open('x') }}", "{{ self._TemplateReference__context.x }}",
		"{{ open('/etc/passwd') }}", "{{ '{0.__class__.a}'.format(1) }}", "{{ messages.append(1) }}", "{{ namespace.__init__.__globals__['os'] }}", "{{ (1)|attr('__class__')|attr('mro') }}",
		"{% set ns = namespace() %}{% set ns._x = 1 %}",
	} {
		if text, err := render(source); err == nil {
			t.Errorf("%s: %q, no error", source, text)
		}
	}
	for name, source := range map[string]string{
		"parentheses": "{{ " + strings.Repeat("(", 9999) + "1" + strings.Repeat(")", 9999) + " }}",
		"lists":       "{{ " + strings.Repeat("[", 9999),
		"nots":        "{{ " + strings.Repeat("not ", 99999) + "1 }}",
		"minuses":     "{{ " + strings.Repeat("-", 99999) + "1 }}",
		"sums":        "{{ 1" + strings.Repeat(" + 1", 99999) + " }}",
		"attributes":  "{{ a" + strings.Repeat(".b", 99999) + " }}",
		"filters":     "{{ 1" + strings.Repeat("|string", 9999) + " }}",
		"ifs":         strings.Repeat("{% if 1 %}", 9999),
		"conditions":  "{{ 1" + strings.Repeat(" if 1 else 1", 9999) + " }}",
		"targets":     "{% set " + strings.Repeat("(", 9999) + "a",
		"big literal": "{{ " + strings.Repeat("9", 5000) + " }}",
		"length":      strings.Repeat("x", maxSource+1),
	} {
		if _, err := Parse(source); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v, want ErrSyntax", name, err)
		}
	}
}

func TestMessageJSON(t *testing.T) {
	for _, c := range []struct{ row, want string }{
		{`{"role":"user","content":"Hi"}`, `{"role": "user", "content": "Hi"}`},
		{`{"content":"Hi","role":"user"}`, `{"content": "Hi", "role": "user"}`},
		{`{"role":"user","name":"x","content":"Hi","z":1,"a":[1.5,null,true,{"k":12345678901234567890}]}`,
			`{"role": "user", "name": "x", "content": "Hi", "z": 1, "a": [1.5, null, true, {"k": 12345678901234567890}]}`},
		{`{"role":"assistant","content":null,"a":{"b":null}}`, `{"role": "assistant", "a": {"b": null}}`},
		{`{"role":"assistant"}`, `{"role": "assistant"}`},
		{`{"role":"user","content":[{"type":"text","text":"x"}]}`, `{"role": "user", "content": [{"type": "text", "text": "x"}]}`},
		{`{"role":"assistant","content":"","reasoning":"r"}`,
			`{"thinking": "r", "role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r"}`},
	} {
		var m Message
		if err := json.Unmarshal([]byte(c.row), &m); err != nil {
			t.Fatal(err)
		}
		got, err := mustParse(t, "{{ messages[0]|tojson }}").Render(Input{Messages: []Message{m}})
		if err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.row, got, err, c.want)
		}
	}
	for _, row := range []string{`[]`, `{}`, `{"content":"x"}`, `"x"`, `{"role":"user"`} {
		var m Message
		if err := json.Unmarshal([]byte(row), &m); err == nil {
			t.Errorf("%s: no error", row)
		}
	}
	if _, err := ParseJSON([]byte(strings.Repeat("[", 1000) + strings.Repeat("]", 1000))); err == nil {
		t.Error("deep JSON: no error")
	}
	if _, err := ParseJSON([]byte(`{} {}`)); err == nil {
		t.Error("text after the value: no error")
	}
}

func TestInput(t *testing.T) {
	tmpl := mustParse(t, "{{ bos_token is defined }} {{ tools }} {{ documents }} {{ add_generation_prompt }} {{ x }} {{ y }} {{ strftime_now('%Y') }}")
	got, err := tmpl.Render(Input{Vars: map[string]any{"x": map[string]any{"b": 1, "a": []any{1.0, "é"}}, "y": []string{"z"}},
		Now: time.Date(2001, 2, 3, 0, 0, 0, 0, time.UTC)})
	if want := "False None None False {'a': [1.0, 'é'], 'b': 1} ['z'] 2001"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := tmpl.Render(Input{Vars: map[string]any{"x": struct{}{}}}); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("a struct as a variable: %v", err)
	}
}

func TestContinue(t *testing.T) {
	tmpl := mustParse(t, "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.thinking %}[{{ m.thinking|trim }}]{% endif %}<end>{% endfor %}")
	reasoned := Message{Role: "assistant", Extra: &Dict{}}
	reasoned.Extra.Set("thinking", "so far ")
	for _, c := range []struct {
		in   Input
		want string // "" is an error
	}{
		{Input{Messages: turns("user", "u", "assistant", "a "), Continue: "content"}, "<user>u<end><assistant>a "},
		{Input{Messages: []Message{reasoned}, Continue: "thinking"}, "<assistant>[so far"},
		{Input{Messages: turns("user", "u"), Continue: "content", AddGenerationPrompt: true}, ""},
		{Input{Messages: turns("user", "u"), Continue: "thinking"}, ""},
		{Input{Messages: turns("user", "u"), Continue: "role\x00"}, ""},
		{Input{Continue: "content"}, ""},
	} {
		got, err := tmpl.Render(c.in)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: got %q, %v, want %q", c.in, got, err, c.want)
		}
		if _, _, err := tmpl.RenderSpans(c.in); !errors.Is(err, ErrSpans) {
			t.Errorf("spans of a turn that goes on: %v, want ErrSpans", err)
		}
	}
}

// TestTemplatesAreShared renders one template from several goroutines.
func TestTemplatesAreShared(t *testing.T) {
	tmpl, _ := Builtin("chatml")
	in := Input{Messages: []Message{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Yo"}}}
	want, err := tmpl.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	for range 8 {
		go func() {
			got, _ := tmpl.Render(in)
			done <- got
		}()
	}
	for range 8 {
		if got := <-done; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
