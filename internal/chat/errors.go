package chat

// Errors, and the limits that keep a hostile template from harming its host.

import (
	"errors"
	"fmt"
)

// What kind of failure an [*Error] is; test with errors.Is.
var (
	// ErrSyntax marks a template that does not parse, or uses what this
	// engine leaves out (include, import, extends, block, autoescape).
	ErrSyntax = errors.New("chat: template does not parse")
	// ErrRaised marks a conversation that the template itself refused by
	// calling raise_exception, as many do when roles do not alternate.
	ErrRaised = errors.New("chat: template refused the conversation")
	// ErrLimit marks a rendering stopped because it worked, wrote or
	// recursed more than any honest template does.
	ErrLimit = errors.New("chat: template passes a limit")
	// ErrSpans marks a conversation whose assistant spans cannot be found;
	// the message names the turn.
	ErrSpans = errors.New("chat: assistant spans cannot be found")
)

const (
	maxSource    = 1 << 20  // bytes of template source
	maxOutput    = 16 << 20 // bytes of any one string, the rendered text too
	maxSteps     = 8 << 20  // units of work: one a node, one for every 16 bytes copied
	maxDepth     = 200      // nesting of source, of macro calls, of printed values
	maxEvalDepth = 5000     // Go frames of evaluation, below any stack's end
	maxIntDigits = 4300     // decimal digits of an integer, as in Python
	maxIntBits   = 1 << 14  // bits of an integer that arithmetic may build
	maxRange     = 100000   // items of range(), as in jinja2's sandbox
)

// Error is a failure to parse or render a template. Line and Column count
// from 1 and name the place in the template's source. Unwrap gives one of
// the package's sentinels, or nil for an ordinary runtime error such as an
// undefined variable's attribute.
type Error struct {
	Line, Column int
	Msg          string
	kind         error
}

func (e *Error) Error() string {
	return fmt.Sprintf("chat: template line %d, column %d: %s", e.Line, e.Column, e.Msg)
}

func (e *Error) Unwrap() error { return e.kind }

// The lexer, parser and evaluator report failure by panicking with *Error,
// which Parse and Render recover: template code fails at any depth, and
// there is nothing to clean up on the way out.

func failSyntax(at pos, format string, args ...any) {
	panic(&Error{Line: at.line, Column: at.col, Msg: fmt.Sprintf(format, args...), kind: ErrSyntax})
}

// recoverError turns a panic with *Error into *err; any other panic goes on.
func recoverError(err *error) {
	switch r := recover().(type) {
	case nil:
	case *Error:
		*err = r
	default:
		panic(r)
	}
}
