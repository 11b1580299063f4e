package chat

// The evaluator's state and its statements.

import (
	"fmt"
	"strings"
	"time"
)

// renderer is one rendering of one template.
type renderer struct {
	now       time.Time
	out       *output
	context   *scope // globals and the caller's variables
	pos       pos    // of the node being evaluated, for errors
	steps     int    // work done, at most maxSteps
	evalDepth int
	depth     int // calls of macros and walks into values under way
	spans     []Span
	captured  bool // a {% generation %} block wrote where its place is unknown
}

// output collects text: the rendering's own at the bottom, above it one for
// every macro, {% set %} or {% filter %} block being rendered.
type output struct {
	strings.Builder
	below *output
}

// scope holds the variables of one scope; inner scopes see outer ones.
type scope struct {
	vars  []variable
	outer *scope
}

type variable struct {
	name  string
	value any // unset hides outer variables of the name
}

type unset struct{}

func (s *scope) lookup(name string) (any, bool) {
	for ; s != nil; s = s.outer {
		for i := range s.vars {
			if s.vars[i].name == name {
				v := s.vars[i].value
				_, missing := v.(unset)
				return v, !missing
			}
		}
	}
	return nil, false
}

func (s *scope) set(name string, v any) {
	for i := range s.vars {
		if s.vars[i].name == name {
			s.vars[i].value = v
			return
		}
	}
	s.vars = append(s.vars, variable{name, v})
}

// open begins a scope inside outer.
func (f *frame) open(outer *scope) *scope {
	s := &scope{outer: outer}
	for _, name := range f.unset {
		s.vars = append(s.vars, variable{name, unset{}})
	}
	return s
}

// fail ends the rendering with an ordinary error at the current node.
func (r *renderer) fail(format string, args ...any) {
	panic(&Error{Line: r.pos.line, Column: r.pos.col, Msg: fmt.Sprintf(format, args...)})
}

func (r *renderer) failLimit(format string, args ...any) {
	panic(&Error{Line: r.pos.line, Column: r.pos.col, Msg: "stopped: " + fmt.Sprintf(format, args...), kind: ErrLimit})
}

// step counts n units of work.
func (r *renderer) step(n int) {
	if n < 0 || n > maxSteps-r.steps {
		r.failLimit("more than %d steps of work", maxSteps)
	}
	r.steps += n
}

// charge counts the work of handling n bytes.
func (r *renderer) charge(n int) { r.step(1 + n/16) }

// text charges for a new string, and bounds it.
func (r *renderer) text(s string) string {
	if len(s) > maxOutput {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	r.charge(len(s))
	return s
}

// nested runs f one level deeper into a macro or a value.
func (r *renderer) nested(f func()) {
	if r.depth++; r.depth > maxDepth {
		r.failLimit("nested deeper than %d levels", maxDepth)
	}
	f()
	r.depth--
}

func (r *renderer) write(s string) {
	r.charge(len(s))
	if len(s) > maxOutput-r.out.Len() {
		r.failLimit("more than %d bytes of output", maxOutput)
	}
	r.out.WriteString(s)
}

// capture renders body into a string of its own.
func (r *renderer) capture(body []stmt, s *scope) (string, signal) {
	r.out = &output{below: r.out}
	sig := r.statements(body, s)
	text := r.out.String()
	r.out = r.out.below
	return text, sig
}

func (r *renderer) statements(body []stmt, s *scope) signal {
	for _, st := range body {
		if sig := r.statement(st, s); sig != proceed {
			return sig
		}
	}
	return proceed
}

func (r *renderer) statement(st stmt, s *scope) signal {
	r.step(1)
	r.pos = st.at()
	switch st := st.(type) {
	case *textStmt:
		r.write(st.text)
	case *printStmt:
		r.write(r.str(r.eval(st.value, s)))
	case *ifStmt:
		for _, br := range st.branches {
			if truth(r.eval(br.test, s)) {
				return r.statements(br.body, s)
			}
		}
		return r.statements(st.orElse, s)
	case *forStmt:
		if !st.recursive {
			return r.loop(st, r.eval(st.iter, s), s, nil)
		}
		r.write(r.recursiveLoop(st, r.eval(st.iter, s), s, nil))
	case *setStmt:
		r.checkNamespaces(st.target, s)
		r.assign(st.target, r.eval(st.value, s), s)
	case *setBlockStmt:
		inner := st.frame.open(s)
		text, sig := r.capture(st.body, inner)
		if sig != proceed {
			return sig
		}
		r.checkNamespaces(st.target, s)
		r.assign(st.target, r.filtered(st.filter, text, inner), s)
	case *macroStmt:
		s.set(st.name, &macro{name: st.name, sig: &st.sig, body: st.body, scope: s})
	case *callBlockStmt:
		caller := &macro{name: "caller", sig: &st.sig, body: st.body, scope: s}
		r.write(r.str(r.evalCall(st.call, s, caller)))
	case *filterBlockStmt:
		inner := st.frame.open(s)
		text, sig := r.capture(st.body, inner)
		if sig != proceed {
			return sig
		}
		r.write(r.str(r.filtered(st.filter, text, inner)))
	case *withStmt:
		inner := st.frame.open(s)
		for i, t := range st.targets {
			r.assign(t, r.eval(st.values[i], s), inner)
		}
		return r.statements(st.body, inner)
	case *generationStmt:
		r.generation(st, s)
	case *loopControl:
		return st.signal
	}
	return proceed
}

// generation renders a {% generation %} block and records where it went.
func (r *renderer) generation(st *generationStmt, s *scope) {
	start := r.out.Len()
	r.nested(func() { r.statements(st.body, st.frame.open(s)) })
	if r.out.below != nil {
		r.captured = true
		return
	}
	if r.out.Len() > start {
		r.spans = append(r.spans, Span{start, r.out.Len()})
	}
}

// filtered applies a filter chain to captured text.
func (r *renderer) filtered(filter expr, text string, s *scope) any {
	if filter == nil {
		return text
	}
	inner := &scope{outer: s}
	inner.set(capturedName, text)
	return r.eval(filter, inner)
}

// capturedName cannot be a variable's name.
const capturedName = "{% %}"

// checkNamespaces fails where a target sets an attribute of what has none.
func (r *renderer) checkNamespaces(t target, s *scope) {
	for _, item := range t.items {
		r.checkNamespaces(item, s)
	}
	if t.attr == "" {
		return
	}
	v, _ := s.lookup(t.name)
	if _, ok := v.(*namespace); !ok {
		r.fail("cannot set %s.%s: %s is not a namespace", t.name, t.attr, t.name)
	}
}

func (r *renderer) assign(t target, v any, s *scope) {
	switch {
	case t.tuple:
		items := r.collect(v)
		if len(items) != len(t.items) {
			r.fail("cannot unpack %d values into %d names", len(items), len(t.items))
		}
		for i, item := range t.items {
			r.assign(item, items[i], s)
		}
	case t.attr != "":
		ns, _ := s.lookup(t.name)
		if n, ok := ns.(*namespace); ok {
			r.setNamespace(n, t.attr, v)
			return
		}
		r.fail("%s is not a namespace", t.name)
	default:
		s.set(t.name, v)
	}
}

// recursiveLoop renders a {% for ... recursive %} over items into a string.
func (r *renderer) recursiveLoop(st *forStmt, items any, s *scope, parent *loopContext) (text string) {
	r.nested(func() {
		r.out = &output{below: r.out}
		r.loop(st, items, s, parent)
		text = r.out.String()
		r.out = r.out.below
	})
	return text
}

// loop runs a {% for %} over items. parent is the loop that called itself
// for them, or nil.
func (r *renderer) loop(st *forStmt, items any, s *scope, parent *loopContext) signal {
	source := items
	if st.test != nil {
		source = r.filteredIterator(st, items, s)
	}
	lc := newLoopContext(r, source)
	if parent != nil {
		lc.depth0 = parent.depth0 + 1
	}
	if st.recursive {
		lc.recurse = func(items any) string { return r.recursiveLoop(st, items, s, lc) }
	}
	// An iteration that continues does not count against the else branch's
	// "nothing happened", unless none ever reached its end: jinja2 clears
	// its flag at the end of the body.
	finished := false
	for {
		r.step(1)
		item, ok := lc.advance()
		if !ok {
			break
		}
		inner := st.bodyFrame.open(s)
		inner.set("loop", lc)
		r.assign(st.target, item, inner)
		sig := r.statements(st.body, inner)
		if sig == breakLoop {
			break
		}
		if sig == proceed {
			finished = true
		}
	}
	if finished || st.orElse == nil {
		return proceed
	}
	return r.statements(st.orElse, st.elseFrame.open(s))
}

// filteredIterator yields the items that pass a loop's own test, testing
// each when the loop comes to it.
func (r *renderer) filteredIterator(st *forStmt, items any, s *scope) *generator {
	return r.where(r.iterate(items), func(item any) bool {
		inner := st.testFrame.open(s)
		r.assign(st.target, item, inner)
		return truth(r.eval(st.test, inner))
	})
}

// where yields the items that pass a test, testing each when it is asked for.
func (r *renderer) where(it *generator, passes func(item any) bool) *generator {
	return &generator{"generator", func() (any, bool) {
		for {
			item, ok := it.next()
			if !ok {
				return nil, false
			}
			r.step(1)
			if passes(item) {
				return item, true
			}
		}
	}}
}
