package chat

// Rendering up to the middle of the last message.

import (
	"fmt"
	"slices"
	"strings"
)

// continueMark is put after the text that is to go on, to find it in the
// rendering. The space at its end tells whether the template trims the text.
// It has transformers' spelling: templates that cut a text show the mark's length.
const continueMark = "CONTINUE_FINAL_MESSAGE_TAG "

// renderContinued renders and cuts off what follows the field that is to go on.
func (t *Template) renderContinued(in Input, context *scope) (string, error) {
	fail := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("chat: continuing %q of the last message: %w", in.Continue, fmt.Errorf(format, args...))
	}
	if in.AddGenerationPrompt {
		return fail("a generation prompt would open another turn")
	}
	all, _ := context.lookup("messages")
	messages := all.(*seq)
	if len(messages.items) == 0 {
		return fail("there are no messages")
	}
	last := messages.items[len(messages.items)-1].(*Dict)
	value, ok := last.Lookup(in.Continue)
	if !ok {
		return fail("the message has no such field")
	}
	fields := []string{in.Continue}
	if slices.Contains(reasoningFields, in.Continue) {
		// Reasoning stands under several names, of which the template reads one.
		fields = nil
		for _, name := range reasoningFields {
			if other, ok := last.Lookup(name); ok && other == value {
				fields = append(fields, name)
			}
		}
	}
	if !slices.ContainsFunc(fields, func(name string) bool { return strings.Contains(t.source, name) }) {
		return fail("the template does not use the field")
	}
	var text string
	switch v := value.(type) {
	case string:
		text = v
		for _, name := range fields {
			last.Set(name, v+continueMark)
		}
	case *seq:
		if text, ok = markLastText(v); !ok {
			return fail("none of its parts is a text")
		}
	default:
		return fail("it is a %s, not a text", typeName(value))
	}
	rendered, _, err := t.run(in, context)
	if err != nil {
		return "", err
	}
	mark := strings.TrimRight(continueMark, " ")
	at := strings.LastIndex(rendered, mark)
	if at < 0 || !strings.Contains(rendered, strings.TrimFunc(text, isSpace)) {
		return fail("the template does not write it as it is")
	}
	if strings.HasPrefix(rendered[at:], continueMark) {
		return rendered[:at], nil
	}
	return strings.TrimRightFunc(rendered[:at], isSpace), nil
}

// markLastText puts the mark after the last text of a content in parts.
func markLastText(parts *seq) (text string, ok bool) {
	for _, part := range slices.Backward(parts.items) {
		d, isDict := part.(*Dict)
		if !isDict {
			continue
		}
		if v, has := d.Lookup("text"); has {
			if text, ok = v.(string); ok {
				d.Set("text", text+continueMark)
			}
			return text, ok
		}
	}
	return "", false
}
