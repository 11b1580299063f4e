package chat

// Which bytes of a rendering are the assistant's own words.

import (
	"fmt"
	"strings"
)

// Span is the bytes [Start, End) of a rendered text.
type Span struct{ Start, End int }

// RenderSpans renders as [Template.Render] does and returns, in order, the
// bytes that the assistant writes: what a model is to learn when it is
// trained on answers only.
//
// A template with {% generation %} blocks says so itself, and the spans are
// what its blocks wrote. For any other the spans are derived: for every
// assistant message the conversation is rendered up to it, with the
// generation prompt, and up to and with it. Where both are beginnings of the
// whole text, the span lies between them, so it starts where generation
// would. It ends with the end-of-turn token: whitespace that the template
// puts after the message's own text, such as the newline after <|im_end|>,
// separates turns, comes after the model has stopped, and is not in it.
//
// Some templates render a message differently when others follow, as those
// do that drop earlier reasoning, or end the last turn with another token.
// Such a turn's end is found by rendering the conversation with other
// contents in its place or after it. Where that fails too, the error is [ErrSpans] and
// names the turn.
func (t *Template) RenderSpans(in Input) (string, []Span, error) {
	if in.Continue != "" {
		return "", nil, fmt.Errorf("%w: a turn that is to go on has no end", ErrSpans)
	}
	context, err := in.context()
	if err != nil {
		return "", nil, err
	}
	text, r, err := t.run(in, context)
	if err != nil {
		return "", nil, err
	}
	if t.generates {
		if r.captured {
			return "", nil, fmt.Errorf("%w: a {%% generation %%} block stands in a macro, {%% set %%} or {%% filter %%} block, so its place is unknown; move it out", ErrSpans)
		}
		return text, r.spans, nil
	}
	d := &deriver{t: t, in: in, context: context, text: text}
	spans, err := d.spans()
	if err != nil {
		return "", nil, err
	}
	return text, spans, nil
}

// deriver finds spans by rendering beginnings of a conversation.
type deriver struct {
	t       *Template
	in      Input
	context *scope
	text    string // the whole rendering
}

// prefix renders the first n messages.
func (d *deriver) prefix(n int, prompt bool) (string, error) {
	all, _ := d.context.lookup("messages")
	s := &scope{outer: d.context}
	s.set("messages", newList(all.(*seq).items[:n:n]))
	s.set("add_generation_prompt", prompt)
	text, _, err := d.t.run(d.in, s)
	return text, err
}

func (d *deriver) spans() ([]Span, error) {
	var spans []Span
	end := 0 // of the last span
	for i, m := range d.in.Messages {
		if m.Role != "assistant" {
			continue
		}
		s, err := d.turn(i, end)
		if err != nil {
			return nil, err
		}
		if s.End > s.Start {
			spans = append(spans, s)
			end = s.End
		}
	}
	return spans, nil
}

// turn finds the span of assistant message i, which begins at or after from.
func (d *deriver) turn(i, from int) (Span, error) {
	fail := func(format string, args ...any) (Span, error) {
		return Span{}, fmt.Errorf("%w: message %d: %s; train on all of the text, or use a template with {%% generation %%} blocks",
			ErrSpans, i, fmt.Sprintf(format, args...))
	}
	before, err := d.prefix(i, true)
	if err != nil {
		return fail("the messages before it do not render by themselves (%v)", err)
	}
	upTo := d.text
	if i+1 < len(d.in.Messages) || d.in.AddGenerationPrompt {
		if upTo, err = d.prefix(i+1, false); err != nil {
			return fail("the messages up to it do not render by themselves (%v)", err)
		}
	}
	start, ok := d.start(i, before)
	if !ok || start < from {
		return fail("the template renders the messages before it differently once it follows")
	}
	end := 0
	if len(upTo) >= start && strings.HasPrefix(d.text, upTo) {
		end = len(upTo)
	} else if end, ok = d.probedEnd(i, start, upTo); !ok {
		return fail("the template renders it differently once other messages follow")
	}
	return Span{start, d.trimSeparator(i, start, end)}, nil
}

// start is where message i begins: after the generation prompt where the
// template writes the prompt in front of recorded answers too. A prompt may
// go on where they do not, such as one that opens a <think> block; the answer
// then starts where the two part.
func (d *deriver) start(i int, before string) (int, bool) {
	if strings.HasPrefix(d.text, before) {
		return len(before), true
	}
	bare, err := d.prefix(i, false)
	if err != nil || !strings.HasPrefix(d.text, bare) || !strings.HasPrefix(before, bare) {
		return 0, false
	}
	header := wholeTokens(before[len(bare) : len(bare)+commonPrefix(d.text[len(bare):], before[len(bare):])])
	return len(bare) + len(header), header != ""
}

// wholeTokens cuts off the end of s what could be the first half of a
// special token such as <|im_end|> or [/INST].
func wholeTokens(s string) string {
	for _, pair := range []string{"<>", "[]"} {
		if open := strings.LastIndexByte(s, pair[0]); open > strings.LastIndexByte(s, pair[1]) {
			s = s[:open]
		}
	}
	return s
}

// probe renders the conversation twice, with the content of message i
// replaced by one letter and by another, and its other fields kept or not.
func (d *deriver) probe(i int, keep bool) (one, other string, ok bool) {
	all, _ := d.context.lookup("messages")
	var texts [2]string
	for n, content := range []string{"A", "B"} {
		items := append([]any(nil), all.(*seq).items...)
		message := &Dict{}
		for key, v := range items[i].(*Dict).All() {
			if keep || key == "role" {
				message.Set(key, v)
			}
		}
		message.Set("content", content)
		items[i] = message
		s := &scope{outer: d.context}
		s.set("messages", newList(items))
		text, _, err := d.t.run(d.in, s)
		if err != nil {
			return "", "", false
		}
		texts[n] = text
	}
	return texts[0], texts[1], true
}

// probedEnd finds the end of message i where its rendering as the last
// message, upTo, is not how the whole text has it.
func (d *deriver) probedEnd(i, start int, upTo string) (int, bool) {
	calls, _ := d.in.Messages[i].Extra.Lookup("tool_calls")
	if calls == nil {
		// What endings with different answers share is what follows the
		// answer, of which the end-of-turn token is the first.
		one, other, ok := d.probe(i, false)
		if !ok {
			return 0, false
		}
		rest := one[len(one)-commonSuffix(one, other):]
		end := len(d.text) - len(rest)
		if end < start || !strings.HasSuffix(d.text, rest) {
			return 0, false
		}
		return end + len(leadingToken(rest)), true
	}
	// Calls stand between the answer and its end. The turn lies before the
	// content of the next message, and ends with the same token as upTo.
	if i+1 >= len(d.in.Messages) {
		return 0, false
	}
	one, other, ok := d.probe(i+1, true)
	if !ok {
		return 0, false
	}
	next := min(commonPrefix(one, other), commonPrefix(one, d.text))
	token := trailingToken(strings.TrimRightFunc(upTo, isSpace))
	if next < start || token == "" {
		return 0, false
	}
	at := strings.LastIndex(d.text[start:next], token)
	return start + at + len(token), at >= 0
}

// trailingToken is the special token that s ends with, or "".
func trailingToken(s string) string {
	for _, pair := range []string{"<>", "[]"} {
		if open := strings.LastIndexByte(s, pair[0]); open >= 0 && s[len(s)-1] == pair[1] {
			return s[open:]
		}
	}
	return ""
}

// leadingToken is the special token that s begins with, or "".
func leadingToken(s string) string {
	for _, pair := range []string{"<>", "[]"} {
		if close := strings.IndexByte(s, pair[1]); close > 0 && s[0] == pair[0] {
			return s[:close+1]
		}
	}
	return ""
}

// trimSeparator takes whitespace off the end of a span that the template put
// after the message's own text.
func (d *deriver) trimSeparator(i, start, end int) int {
	body := d.text[start:end]
	trimmed := strings.TrimRightFunc(body, isSpace)
	// A message that itself ends in whitespace, in a template without an
	// end-of-turn token, keeps it.
	if content := d.in.Messages[i].Content; content != "" && strings.HasSuffix(strings.TrimRightFunc(content, isSpace), lastWord(trimmed)) {
		if at := strings.LastIndex(body, content); at >= 0 && at+len(content) > len(trimmed) {
			return start + at + len(content)
		}
	}
	return start + len(trimmed)
}

// lastWord is the last 16 bytes of s, enough to tell content from a token.
func lastWord(s string) string { return s[max(0, len(s)-16):] }

func commonSuffix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[len(a)-1-i] != b[len(b)-1-i] {
			return i
		}
	}
	return n
}

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
