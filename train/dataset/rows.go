package dataset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// This file knows the forms of rows: which fields each has, and what they mean.

// Form is the form of a file's rows.
type Form string

// The forms of rows; see the package's documentation.
const (
	FormText       Form = "text"
	FormChat       Form = "messages"
	FormShareGPT   Form = "conversations"
	FormAlpaca     Form = "instruction/output"
	FormCompletion Form = "prompt/completion"
	FormPreference Form = "chosen/rejected"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant" or "tool"
	Content string

	// JSON is the whole message, an object, where it says more than the two above: tool_calls,
	// reasoning_content, name, … Otherwise it is "".
	JSON string
}

// Conversation is what a chat template renders.
type Conversation struct {
	Messages []Message
	Tools    string // a JSON list of the tools' schemas, "" for none
	Vars     string // a JSON object of further variables of the template, "" for none
}

// Side is one part of a row: a text, or turns of a conversation.
type Side struct {
	Text     string
	Messages []Message
}

// Chat reports whether the side is turns of a conversation.
func (s *Side) Chat() bool { return s.Messages != nil }

// Row is one row, whatever its form.
type Row struct {
	Place int // line or element of the file, from 1
	// Prompt is the text of a text row, the whole of a conversation, or what is before the answer.
	Prompt Side
	// Answer is a completion, or the chosen one of two. It is empty in text rows and conversations.
	Answer Side
	// Rejected is the worse answer of a preference row.
	Rejected Side
	// Tools and Vars go with conversations, see Conversation: the fields "tools" and "chat_template_kwargs".
	Tools, Vars string
}

// maxFields bounds the names that File.Fields remembers: a file could have others in each row.
const maxFields = 1000

// fields are a row's values by name.
type fields map[string]jsontext.Value

func (v fields) has(name string) bool {
	f, ok := v[name]
	return ok && f.Kind() != 'n'
}

// names lists the fields for messages.
func (v fields) names() string {
	var names []string
	for n := range v {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) > 12 {
		names = append(names[:12], "…")
	}
	for i, n := range names {
		if len(n) > 40 {
			names[i] = n[:40] + "…"
		}
		names[i] = fmt.Sprintf("%q", names[i])
	}
	if len(names) == 0 {
		return "no fields"
	}
	return "the fields " + strings.Join(names, ", ")
}

// formOf tells a row's form from its fields.
func formOf(v fields) (Form, bool) {
	switch {
	case v.has("chosen") && v.has("rejected"):
		return FormPreference, true
	case v.has("messages"):
		return FormChat, true
	case v.has("conversations"):
		return FormShareGPT, true
	case v.has("instruction") && v.has("output"):
		return FormAlpaca, true
	case v.has("prompt") && v.has("completion"):
		return FormCompletion, true
	case v.has("text"):
		return FormText, true
	}
	return "", false
}

// add parses one row and appends it.
func (f *File) add(place int, data []byte) error {
	if data[0] != '{' {
		return fmt.Errorf("%w: a row must be an object with named fields", ErrFormat)
	}
	v := fields{}
	if err := json.Unmarshal(data, &v); err != nil {
		return jsonError(err)
	}
	if f.Fields == nil {
		f.Fields = map[string]int{}
	}
	for name := range v {
		if _, known := f.Fields[name]; known || len(f.Fields) < maxFields {
			f.Fields[name]++
		}
	}
	form, ok := formOf(v)
	switch {
	case !ok && f.Form != "":
		return fmt.Errorf("%w: it has %s, but the rows before have the form %s", ErrFormat, v.names(), f.Form)
	case !ok:
		return fmt.Errorf("%w: it has %s; wanted messages, conversations, instruction and output, prompt and completion, text, or chosen and rejected",
			ErrFormat, v.names())
	case f.Form != "" && form != f.Form:
		return fmt.Errorf("%w: its form is %s (%s), but the rows before have the form %s; one file has one form", ErrFormat, form, v.names(), f.Form)
	}
	f.Form = form
	row, err := parsers[form](v)
	if err != nil {
		return err
	}
	if row.Prompt.Chat() || row.Answer.Chat() {
		if row.Tools, err = v.tools(); err == nil {
			row.Vars, err = v.variables()
		}
		if err != nil {
			return err
		}
	}
	row.Place = place
	f.Rows = append(f.Rows, row)
	return nil
}

var parsers = map[Form]func(fields) (Row, error){
	FormText: func(v fields) (r Row, err error) {
		r.Prompt.Text, err = v.text("text")
		return r, err
	},
	FormChat: func(v fields) (r Row, err error) {
		r.Prompt.Messages, err = v.messages("messages")
		return r, err
	},
	FormShareGPT: func(v fields) (r Row, err error) {
		r.Prompt.Messages, err = v.conversation()
		return r, err
	},
	FormAlpaca: func(v fields) (r Row, err error) {
		r.Prompt.Messages, err = v.instruction()
		if err != nil {
			return r, err
		}
		answer, err := v.text("output")
		r.Prompt.Messages = append(r.Prompt.Messages, Message{Role: "assistant", Content: answer})
		return r, err
	},
	FormCompletion: func(v fields) (r Row, err error) {
		if r.Prompt, err = v.side("prompt", "user"); err != nil {
			return r, err
		}
		if r.Answer, err = v.side("completion", "assistant"); err != nil {
			return r, err
		}
		alike(&r.Prompt, "user", &r.Answer)
		return r, nil
	},
	FormPreference: preference,
}

// alike makes messages of a text that stands beside messages.
func alike(a *Side, role string, others ...*Side) {
	for _, o := range others {
		if a.Chat() && !o.Chat() {
			o.Messages, o.Text = []Message{{Role: "assistant", Content: o.Text}}, ""
		}
		if !a.Chat() && o.Chat() {
			a.Messages, a.Text = []Message{{Role: role, Content: a.Text}}, ""
			alike(a, role, others...)
		}
	}
}

func preference(v fields) (r Row, err error) {
	if r.Answer, err = v.side("chosen", "assistant"); err != nil {
		return r, err
	}
	if r.Rejected, err = v.side("rejected", "assistant"); err != nil {
		return r, err
	}
	alike(&r.Answer, "assistant", &r.Rejected)
	switch {
	case v.has("conversations"):
		r.Prompt.Messages, err = v.conversation()
	case v.has("messages"):
		r.Prompt.Messages, err = v.messages("messages")
	case v.has("instruction"):
		r.Prompt.Messages, err = v.instruction()
	case r.Answer.Chat() && r.Answer.Messages[0].Role != "assistant":
		return sharedPrompt(r)
	case v.has("prompt"):
		r.Prompt, err = v.side("prompt", "user")
	default:
		return sharedPrompt(r)
	}
	alike(&r.Prompt, "user", &r.Answer, &r.Rejected)
	return r, err
}

// sharedPrompt takes what both answers begin with for the prompt, as TRL's extract_prompt does: turn
// by turn, or character by character up to the space before the first that differs.
func sharedPrompt(r Row) (Row, error) {
	if r.Answer.Chat() {
		a, b := r.Answer.Messages, r.Rejected.Messages
		n := 0
		for n < min(len(a), len(b))-1 && a[n] == b[n] {
			n++
		}
		if n == 0 {
			return r, fmt.Errorf("%w: \"chosen\" and \"rejected\" share no first turn, and there is no \"prompt\"", ErrFormat)
		}
		r.Prompt.Messages, r.Answer.Messages, r.Rejected.Messages = a[:n:n], a[n:], b[n:]
		return r, nil
	}
	a, b := []rune(r.Answer.Text), []rune(r.Rejected.Text)
	n := 0
	for n < min(len(a), len(b))-1 && a[n] == b[n] {
		n++
	}
	if n > 0 && a[n-1] == ' ' && a[n] != b[n] {
		n--
	}
	if n == 0 {
		return r, fmt.Errorf("%w: \"chosen\" and \"rejected\" do not begin alike, and there is no \"prompt\"", ErrFormat)
	}
	r.Prompt.Text, r.Answer.Text, r.Rejected.Text = string(a[:n]), string(a[n:]), string(b[n:])
	return r, nil
}

// text returns a string field.
func (v fields) text(name string) (string, error) {
	f, ok := v[name]
	if !ok {
		return "", fmt.Errorf("%w: field %q is missing; it has %s", ErrFormat, name, v.names())
	}
	if f.Kind() != '"' {
		return "", fmt.Errorf("%w: field %q is %s, not a string", ErrFormat, name, kindName(f))
	}
	return unquote(f)
}

// optional returns a string field, "" where it is absent or null.
func (v fields) optional(name string) (string, error) {
	if !v.has(name) {
		return "", nil
	}
	return v.text(name)
}

func unquote(v jsontext.Value) (s string, err error) {
	if err := json.Unmarshal(v, &s); err != nil {
		return "", jsonError(err)
	}
	return s, nil
}

func kindName(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '0':
		return "a number"
	case 'n':
		return "null"
	}
	return "a truth value"
}

// side reads a string, a message or a list of messages. A single message or ShareGPT turn without
// a role gets the one given.
func (v fields) side(name, role string) (Side, error) {
	f, ok := v[name]
	if !ok {
		return Side{}, fmt.Errorf("%w: field %q is missing; it has %s", ErrFormat, name, v.names())
	}
	switch f.Kind() {
	case '"':
		text, err := unquote(f)
		return Side{Text: text}, err
	case '{':
		m, err := message(f)
		if err != nil {
			return Side{}, fmt.Errorf("field %q: %w", name, err)
		}
		return Side{Messages: []Message{m}}, nil
	case '[':
		m, err := v.messages(name)
		return Side{Messages: m}, err
	}
	return Side{}, fmt.Errorf("%w: field %q is %s, neither a string nor messages", ErrFormat, name, kindName(f))
}

// instruction makes the question of an Alpaca row, with what is said before it.
func (v fields) instruction() ([]Message, error) {
	system, err := v.optional("system")
	if err != nil {
		return nil, err
	}
	question, err := v.text("instruction")
	if err != nil {
		return nil, err
	}
	input, err := v.optional("input")
	if err != nil {
		return nil, err
	}
	var out []Message
	if system != "" {
		out = append(out, Message{Role: "system", Content: system})
	}
	if v.has("history") {
		var turns [][2]string
		if err := json.Unmarshal(v["history"], &turns); err != nil {
			return nil, fmt.Errorf("%w: field \"history\" is not an array of pairs of strings", ErrFormat)
		}
		for _, t := range turns {
			out = append(out, Message{Role: "user", Content: t[0]}, Message{Role: "assistant", Content: t[1]})
		}
	}
	if input != "" {
		question += "\n\n" + input
	}
	return append(out, Message{Role: "user", Content: question}), nil
}

// conversation reads the turns of a ShareGPT row.
func (v fields) conversation() ([]Message, error) {
	system, err := v.optional("system")
	if err != nil {
		return nil, err
	}
	turns, err := v.messages("conversations")
	if err != nil || system == "" {
		return turns, err
	}
	return append([]Message{{Role: "system", Content: system}}, turns...), nil
}

// messages reads a list of turns.
func (v fields) messages(name string) ([]Message, error) {
	var list []jsontext.Value
	if f := v[name]; f.Kind() != '[' {
		return nil, fmt.Errorf("%w: field %q is %s, not a list of messages", ErrFormat, name, kindName(f))
	} else if err := json.Unmarshal(f, &list); err != nil {
		return nil, jsonError(err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: field %q has no messages", ErrFormat, name)
	}
	out := make([]Message, len(list))
	for i, m := range list {
		var err error
		if out[i], err = message(m); err != nil {
			return nil, fmt.Errorf("field %q: message %d: %w", name, i+1, err)
		}
	}
	return out, nil
}

// roles are the names of speakers; ShareGPT's come first.
var roles = map[string]string{
	"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool",
	"system": "system", "user": "user", "assistant": "assistant", "model": "assistant", "tool": "tool", "developer": "developer",
}

// message reads {"role", "content"} or {"from", "value"}.
func message(data jsontext.Value) (Message, error) {
	if data.Kind() != '{' {
		return Message{}, fmt.Errorf("%w: it is %s, not an object", ErrFormat, kindName(data))
	}
	v := fields{}
	if err := json.Unmarshal(data, &v); err != nil {
		return Message{}, jsonError(err)
	}
	speaker, body := "role", "content"
	if v.has("from") {
		speaker, body = "from", "value"
	}
	name, err := v.text(speaker)
	if err != nil {
		return Message{}, err
	}
	role, ok := roles[name]
	if !ok {
		return Message{}, fmt.Errorf("%w: %q is no known role; wanted system, user (human), assistant (gpt) or tool (observation)", ErrFormat, clip(name))
	}
	m := Message{Role: role}
	calls := v.has("tool_calls") || v.has("function_call")
	if speaker == "from" {
		if calls {
			return Message{}, fmt.Errorf("%w: tool calls are rendered of messages with \"role\" and \"content\" only", ErrFormat)
		}
	} else if v.more() {
		m.JSON = string(data)
	}
	switch {
	case v[body].Kind() == '[':
		m.Content, err = parts(v[body])
	case calls && !v.has(body): // who calls may say nothing
	default:
		m.Content, err = v.text(body)
	}
	return m, err
}

// more reports whether a message has fields besides its role and content.
func (v fields) more() bool {
	for name := range v {
		if name != "role" && name != "content" && v.has(name) {
			return true
		}
	}
	return false
}

// tools reads the field "tools": schemas, or a string that has them as JSON.
func (v fields) tools() (string, error) {
	if !v.has("tools") {
		return "", nil
	}
	f := v["tools"]
	if f.Kind() == '"' {
		text, err := unquote(f)
		if err != nil {
			return "", err
		}
		f = jsontext.Value(text)
	}
	var list []jsontext.Value
	if err := json.Unmarshal(f, &list); err != nil {
		return "", fmt.Errorf("%w: field \"tools\" is no list of schemas", ErrFormat)
	}
	for i, tool := range list {
		if tool.Kind() != '{' {
			return "", fmt.Errorf("%w: field \"tools\": element %d is %s, not the schema of a tool", ErrFormat, i+1, kindName(tool))
		}
	}
	if list == nil {
		return "", nil
	}
	return string(f), nil
}

// variables reads the field "chat_template_kwargs".
func (v fields) variables() (string, error) {
	const name = "chat_template_kwargs"
	if !v.has(name) {
		return "", nil
	}
	var vars fields
	if err := json.Unmarshal(v[name], &vars); err != nil {
		return "", fmt.Errorf("%w: field %q is %s, not an object of variables", ErrFormat, name, kindName(v[name]))
	}
	for _, own := range []string{"messages", "tools", "chat_template"} {
		if _, ok := vars[own]; ok {
			return "", fmt.Errorf("%w: field %q sets %q, which the row itself says", ErrFormat, name, own)
		}
	}
	return string(v[name]), nil
}

// parts joins a content that is a list of texts.
func parts(data jsontext.Value) (string, error) {
	var list []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return "", fmt.Errorf("%w: \"content\" is neither a string nor a list of texts", ErrFormat)
	}
	var b strings.Builder
	for _, p := range list {
		if p.Type != "text" {
			return "", fmt.Errorf("%w: \"content\" has a part of type %q; only text is known", ErrFormat, clip(p.Type))
		}
		b.WriteString(p.Text)
	}
	return b.String(), nil
}

// clip shortens what a file says for a message.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
