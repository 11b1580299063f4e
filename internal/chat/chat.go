// Package chat renders conversations by chat templates: the Jinja programs
// that checkpoints carry to say how messages become the one text a model
// reads.
//
// # Basics
//
// [Parse] compiles a template's source; [Template.Render] applies it to an
// [Input]; the text is then tokenized without adding special tokens again.
// [Template.RenderSpans] also tells which bytes of the text are the
// assistant's own, which is what training on answers only needs.
// [Builtin] has templates for checkpoints that bring none.
//
// The engine behaves as jinja2 3.1.6 does in the environment that
// transformers sets up: trim_blocks and lstrip_blocks are on; break,
// continue and {% generation %} are statements; tojson is json.dumps with
// ensure_ascii off; raise_exception and strftime_now are functions; values
// cannot be changed, only namespaces can; an undefined value prints as
// nothing and fails when it is used further. Variables are messages, tools,
// documents, add_generation_prompt, the special tokens by name (bos_token,
// eos_token) and those of Input.Vars.
//
// # Caveats
//
// A template is a program from a stranger. It has no way to reach files, the
// network or the host's objects; include, import, extends, block and
// autoescape do not parse. It ends: work, output, nesting and the size of
// every string and integer are bounded, and passing a bound is [ErrLimit].
//
// Printing a value whose Python text holds a memory address (a generator, a
// bound method) is an error here. The filters pprint, random, striptags,
// urlize and wordwrap, and lipsum, are left out. Integers beyond 2^16384
// are a limit.
package chat

import (
	"encoding/json"
	"fmt"
	"time"
)

// Template is a parsed chat template. It is immutable, and may be used by
// several goroutines at once.
type Template struct {
	source string
	body   []stmt
	frame  frame

	// generates says that the source has a {% generation %} block.
	generates bool
}

// Parse compiles a template. The error is an [*Error] that names the line
// and column, and is [ErrSyntax].
func Parse(source string) (t *Template, err error) {
	defer recoverError(&err)
	if len(source) > maxSource {
		failSyntax(pos{1, 1}, "the template has %d bytes, the limit is %d", len(source), maxSource)
	}
	body := parseTemplate(source)
	t = &Template{source: source, body: body, frame: analyze(body)}
	t.generates = hasGeneration(body)
	return t, nil
}

func hasGeneration(body []stmt) bool {
	for _, st := range body {
		if _, ok := st.(*generationStmt); ok {
			return true
		}
		for _, inner := range statementBodies(st) {
			if hasGeneration(inner) {
				return true
			}
		}
	}
	return false
}

// Source is the text the template was parsed from.
func (t *Template) Source() string { return t.source }

// HasGeneration reports whether the template marks the assistant's words
// itself, with {% generation %} blocks.
func (t *Template) HasGeneration() bool { return t.generates }

// Message is one turn of a conversation.
type Message struct {
	Role    string // system, user, assistant, tool, …
	Content string

	// Extra holds every other field in order: tool_calls, name,
	// reasoning_content, … A "content" in it counts before the field above,
	// and is how content is a list of parts. One with a "role" is the whole
	// message, and the fields above only repeat it: so rows keep their order,
	// and may lack content. Templates do not see fields that are nil.
	Extra *Dict
}

// NewMessage makes a message of a data set's row, as [ParseJSON] gives it.
func NewMessage(row *Dict) (Message, error) {
	role, ok := row.Lookup("role")
	if !ok {
		return Message{}, fmt.Errorf("chat: a message has no \"role\"")
	}
	m := Message{Extra: row}
	m.Role, _ = role.(string)
	content, _ := row.Lookup("content")
	m.Content, _ = content.(string)
	_, textRole := role.(string)
	_, textContent := content.(string)
	if textRole && textContent && row.keys[0] == "role" && row.keys[1] == "content" {
		m.Extra = nil // the plain message, whose order needs no record
		for key, v := range row.All() {
			if key == "role" || key == "content" {
				continue
			}
			if m.Extra == nil {
				m.Extra = &Dict{}
			}
			m.Extra.Set(key, v)
		}
	}
	return m, nil
}

// UnmarshalJSON decodes a message with all its fields, in their order.
func (m *Message) UnmarshalJSON(data []byte) error {
	v, err := ParseJSON(data)
	if err != nil {
		return err
	}
	row, ok := v.(*Dict)
	if !ok {
		return fmt.Errorf("chat: a message is a JSON object, not %s", typeName(v))
	}
	*m, err = NewMessage(row)
	return err
}

var _ json.Unmarshaler = (*Message)(nil)

// reasoningFields are the names a message's reasoning goes by.
var reasoningFields = []string{"reasoning_content", "thinking", "reasoning"}

// dict is the message as templates see it and as transformers hands it over:
// without the fields that are null, which many templates would print, and
// with reasoning under the names thinking and reasoning_content, whichever
// it came by.
func (m Message) dict() (*Dict, error) {
	row := &Dict{}
	_, whole := m.Extra.Lookup("role")
	_, content := m.Extra.Lookup("content")
	if !whole {
		row.Set("role", m.Role)
		if !content {
			row.Set("content", m.Content)
		}
	}
	for k, v := range m.Extra.All() {
		if v != nil {
			row.Set(k, v)
		}
	}
	for _, name := range reasoningFields {
		reasoning, ok := row.Lookup(name)
		if !ok {
			continue
		}
		aliased := &Dict{}
		aliased.Set("thinking", reasoning)
		for k, v := range row.All() {
			aliased.Set(k, v)
		}
		aliased.Set("reasoning_content", reasoning)
		row = aliased
		break
	}
	v, err := fromGo(row, 0)
	if err != nil {
		return nil, err
	}
	return v.(*Dict), nil
}

// Input is what a template renders.
type Input struct {
	Messages []Message

	// Tools and Documents are lists of JSON values for the template's
	// variables of the same names, which are none where these are nil.
	Tools     []any
	Documents []any

	// AddGenerationPrompt asks for the text that opens the assistant's next
	// turn at the end.
	AddGenerationPrompt bool

	// Continue names the field of the last message that is to go on,
	// "content" for most: the text then ends with it, without what the
	// template puts after. It cannot stand beside AddGenerationPrompt.
	Continue string

	// BOSToken and EOSToken are the checkpoint's special tokens; an empty
	// one is undefined in the template. Others go to Vars by name.
	BOSToken, EOSToken string

	// Vars are further variables, such as enable_thinking.
	Vars map[string]any

	// Now is the time strftime_now formats, in its own location; the zero
	// Time stands for the present.
	Now time.Time
}

// context makes the outermost scope of a rendering.
func (in Input) context() (*scope, error) {
	s := &scope{}
	for name, f := range globalFunctions {
		s.vars = append(s.vars, variable{name, &function{name, f}})
	}
	set := func(name string, v any) error {
		value, err := fromGo(v, 0)
		if err != nil {
			return fmt.Errorf("chat: variable %q: %w", name, err)
		}
		s.set(name, value)
		return nil
	}
	var tools, documents any
	if in.Tools != nil {
		tools = in.Tools
	}
	if in.Documents != nil {
		documents = in.Documents
	}
	vars := map[string]any{"tools": tools, "documents": documents, "add_generation_prompt": in.AddGenerationPrompt}
	if in.BOSToken != "" {
		vars["bos_token"] = in.BOSToken
	}
	if in.EOSToken != "" {
		vars["eos_token"] = in.EOSToken
	}
	for name, v := range in.Vars {
		vars[name] = v
	}
	for name, v := range vars {
		if err := set(name, v); err != nil {
			return nil, err
		}
	}
	s.set("self", &selfReference{}) // last: it hides a variable of the name
	messages := make([]any, len(in.Messages))
	for i, m := range in.Messages {
		d, err := m.dict()
		if err != nil {
			return nil, fmt.Errorf("chat: message %d: %w", i, err)
		}
		messages[i] = d
	}
	s.set("messages", newList(messages))
	return s, nil
}

// Render applies the template. Besides failures to run, which are [*Error],
// the error may tell of an input the template cannot take.
func (t *Template) Render(in Input) (string, error) {
	context, err := in.context()
	if err != nil {
		return "", err
	}
	if in.Continue != "" {
		return t.renderContinued(in, context)
	}
	text, _, err := t.run(in, context)
	return text, err
}

// run renders once; the renderer returned has the spans of generation blocks.
func (t *Template) run(in Input, context *scope) (text string, r *renderer, err error) {
	defer recoverError(&err)
	r = &renderer{now: in.Now, out: &output{}, context: context}
	if r.now.IsZero() {
		r.now = time.Now()
	}
	r.statements(t.body, t.frame.open(context))
	return r.out.String(), r, nil
}
