package chat

import "sync"

// builtinSources are templates of our own for checkpoints without one.
var builtinSources = map[string]string{
	// ChatML: every turn between <|im_start|>role and <|im_end|>.
	"chatml": `{%- for turn in messages -%}
    {{- '<|im_start|>' ~ turn.role ~ '\n' -}}
    {%- if turn.role == 'assistant' -%}
        {%- generation -%}{{- (turn.content or '') ~ '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- (turn.content or '') ~ '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
`,
}

var builtins = sync.OnceValue(func() map[string]*Template {
	out := map[string]*Template{}
	for name, source := range builtinSources {
		t, err := Parse(source)
		if err != nil {
			panic("chat: builtin template " + name + ": " + err.Error())
		}
		out[name] = t
	}
	return out
})

// Builtin returns the template of that name that comes with this package,
// for a checkpoint that brings none. The names are:
//
//	chatml  <|im_start|>role, newline, content, <|im_end|>, newline
func Builtin(name string) (t *Template, ok bool) {
	t, ok = builtins()[name]
	return t, ok
}
