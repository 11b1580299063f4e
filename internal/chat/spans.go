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
// do that drop earlier reasoning. Such a turn is found again by the parts of
// it that the whole text shares, if that leaves no doubt; otherwise the
// error is [ErrSpans] and names the turn.
func (t *Template) RenderSpans(in Input) (string, []Span, error) {
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
	start, ok := d.start(i, before, upTo)
	if !ok || start < from {
		return fail("the template renders the messages before it differently once it follows")
	}
	end := 0
	if strings.HasPrefix(d.text, upTo) {
		end = len(upTo)
	} else if end, ok = d.realign(i, start, upTo); !ok {
		return fail("the template renders it differently once other messages follow")
	}
	return Span{start, d.trimSeparator(i, start, end)}, nil
}

// start is where message i begins: after the generation prompt where the
// template writes the prompt in front of answers too, else after what the
// prompt and the message share.
func (d *deriver) start(i int, before, upTo string) (int, bool) {
	if strings.HasPrefix(d.text, before) {
		return len(before), true
	}
	bare, err := d.prefix(i, false)
	if err != nil || !strings.HasPrefix(d.text, bare) || !strings.HasPrefix(before, bare) {
		return 0, false
	}
	// A prompt that goes on where a recorded answer does not, such as one
	// that opens a <think> block: the answer starts where they part, or at
	// the last line they share.
	shared := commonPrefix(d.text, before)
	if shared < len(before) && shared > len(bare) {
		if nl := strings.LastIndexByte(d.text[len(bare):shared], '\n'); nl >= 0 {
			shared = len(bare) + nl + 1
		}
	}
	return shared, shared > len(bare)
}

// realign finds the end of message i in the whole text when its rendering as
// the last message is not how it is rendered there. The end is that of the
// longest ending of upTo that starts the text's next message: the text up
// to where the rendering of the following messages begins.
func (d *deriver) realign(i, start int, upTo string) (int, bool) {
	// What follows the message in the conversation renders the same with
	// the message's own reasoning gone, so the rest of the whole text is an
	// ending shared by the rendering of the messages up to the next
	// assistant turn and its prompt.
	next := i + 1
	for next < len(d.in.Messages) && d.in.Messages[next].Role == "assistant" {
		next++
	}
	if next >= len(d.in.Messages) {
		return 0, false
	}
	content := strings.TrimSpace(d.in.Messages[i].Content)
	if content == "" || d.in.Messages[next].Content == "" {
		return 0, false
	}
	tail := upTo[strings.LastIndex(upTo, content)+max(len(content), 0):]
	if strings.LastIndex(upTo, content) < 0 {
		return 0, false
	}
	at := strings.Index(d.text[start:], content+tail)
	if at < 0 || strings.Contains(d.text[start:start+at], strings.TrimSpace(d.in.Messages[next].Content)) {
		return 0, false
	}
	return start + at + len(content) + len(tail), true
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

func commonPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
