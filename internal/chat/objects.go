package chat

// The objects of a template: macros, loops, namespaces, and the global
// functions.

import (
	"strings"
)

// macro is a {% macro %}, or the block of a {% call %}.
type macro struct {
	name  string
	sig   *signature
	body  []stmt
	scope *scope // where it was defined
}

func (m *macro) call(r *renderer, a args) any {
	inner := m.sig.frame.open(m.scope)
	given := a.positional
	var rest []any
	if len(given) > len(m.sig.params) {
		given, rest = given[:len(m.sig.params)], given[len(m.sig.params):]
	}
	extra := &Dict{}
	for _, k := range a.keyword {
		extra.Set(k.name, k.value)
	}
	taken := map[string]bool{}
	values := make([]any, len(m.sig.params))
	explicitCaller := false
	for i, name := range m.sig.params {
		values[i] = absent{}
		if i < len(given) {
			values[i] = given[i]
		} else if v, ok := extra.find(name); ok {
			values[i] = v
			taken[name] = true
		}
		explicitCaller = explicitCaller || name == "caller"
	}
	if m.sig.usesCaller && !explicitCaller {
		caller, ok := extra.find("caller")
		if !ok {
			caller = &undefined{"no caller is defined"}
		}
		taken["caller"] = true
		inner.set("caller", caller)
	}
	kwargs := &Dict{}
	for name, v := range extra.All() {
		if taken[name] {
			continue
		}
		if !m.sig.usesKwargs {
			r.fail("macro '%s' takes no keyword argument '%s'", m.name, name)
		}
		kwargs.Set(name, v)
	}
	if m.sig.usesKwargs {
		inner.set("kwargs", kwargs)
	}
	if m.sig.usesVarargs {
		inner.set("varargs", newTuple(rest...))
	} else if len(rest) > 0 {
		r.fail("macro '%s' takes not more than %d arguments", m.name, len(m.sig.params))
	}
	for i, name := range m.sig.params {
		inner.set(name, values[i])
	}
	text := ""
	r.nested(func() {
		m.defaults(r, inner)
		text, _ = r.capture(m.body, inner)
	})
	return text
}

// defaults fills the parameters that were not given, in order, so that a
// default can use the parameters before it.
func (m *macro) defaults(r *renderer, inner *scope) {
	required := len(m.sig.params) - len(m.sig.defaults)
	for i, name := range m.sig.params {
		v, _ := inner.lookup(name)
		if _, missing := v.(absent); !missing {
			continue
		}
		if i < required {
			inner.set(name, &undefined{"parameter '" + name + "' was not provided"})
			continue
		}
		inner.set(name, &undefined{"parameter '" + name + "' is not set yet"})
		inner.set(name, r.eval(m.sig.defaults[i-required], inner))
	}
}

// loopContext is the variable "loop".
type loopContext struct {
	r       *renderer
	source  any
	it      *generator
	index0  int64
	depth0  int64
	total   int64 // -1 until asked for
	recurse func(items any) string

	before, current any
	next            any
	peeked, ended   bool
	changedTo       *seq // what loop.changed saw last
}

func newLoopContext(r *renderer, source any) *loopContext {
	return &loopContext{r: r, source: source, it: r.iterate(source), index0: -1, total: -1}
}

func (l *loopContext) peek() (any, bool) {
	if !l.peeked {
		v, ok := l.it.next()
		l.next, l.ended, l.peeked = v, !ok, true
	}
	return l.next, !l.ended
}

func (l *loopContext) advance() (any, bool) {
	v, ok := l.peek()
	if !ok {
		return nil, false
	}
	l.peeked = false
	l.index0++
	l.before, l.current = l.current, v
	return v, true
}

func (l *loopContext) length() int64 {
	if l.total >= 0 {
		return l.total
	}
	if _, isGenerator := l.source.(*generator); isGenerator {
		rest := l.r.collect(l.it)
		l.it = sliceIterator("list_iterator", rest)
		l.total = int64(len(rest)) + l.index0 + 1
		if l.peeked && !l.ended {
			l.total++
		}
	} else {
		l.total, _ = length(l.source)
	}
	return l.total
}

func (l *loopContext) attribute(name string) (any, bool) {
	switch name {
	case "index":
		return l.index0 + 1, true
	case "index0":
		return l.index0, true
	case "first":
		return l.index0 == 0, true
	case "last":
		_, more := l.peek()
		return !more, true
	case "length":
		return l.length(), true
	case "revindex":
		return l.length() - l.index0, true
	case "revindex0":
		return l.length() - l.index0 - 1, true
	case "depth":
		return l.depth0 + 1, true
	case "depth0":
		return l.depth0, true
	case "previtem":
		if l.index0 == 0 {
			return &undefined{"there is no previous item"}, true
		}
		return l.before, true
	case "nextitem":
		if v, ok := l.peek(); ok {
			return v, true
		}
		return &undefined{"there is no next item"}, true
	case "cycle":
		return &function{"cycle", func(r *renderer, a args) any {
			if len(a.positional) == 0 || len(a.keyword) > 0 {
				r.fail("no items for cycling given")
			}
			return a.positional[l.index0%int64(len(a.positional))]
		}}, true
	case "changed":
		return &function{"changed", func(r *renderer, a args) any {
			now := newTuple(a.positional...)
			if l.changedTo != nil && r.equal(l.changedTo, now) {
				return false
			}
			l.changedTo = now
			return true
		}}, true
	}
	return nil, false
}

func (r *renderer) setNamespace(n *namespace, name string, v any) {
	if strings.HasPrefix(name, "_") {
		r.fail("a chat template cannot set the underscore attribute '%s' of a namespace", name)
	}
	n.attrs.put(name, name, v)
}

// globalFunctions are the names every template can call.
var globalFunctions = map[string]func(r *renderer, a args) any{
	"range":     makeRange,
	"dict":      makeDict,
	"namespace": makeNamespace,
	"cycler":    makeCycler,
	"joiner":    makeJoiner,
	"raise_exception": func(r *renderer, a args) any {
		p := r.bind("raise_exception", a, "message")
		panic(&Error{Line: r.pos.line, Column: r.pos.col, Msg: r.str(p[0]), kind: ErrRaised})
	},
	"strftime_now": func(r *renderer, a args) any {
		p := r.bind("strftime_now", a, "format")
		return r.text(strftime(r.now, r.textArg(p[0], "")))
	},
}

func makeRange(r *renderer, a args) any {
	p := r.bind("range", a, "start", "stop?", "step?", "/")
	s := &span{0, 0, 1}
	if _, single := p[1].(absent); single {
		s.stop = r.intArg(p[0], 0)
	} else {
		s.start, s.stop, s.step = r.intArg(p[0], 0), r.intArg(p[1], 0), r.intArg(p[2], 1)
	}
	if s.step == 0 {
		r.fail("range() arg 3 must not be zero")
	}
	const far = 1 << 60 // keeps the arithmetic of len from overflowing
	if s.start > far || s.start < -far || s.stop > far || s.stop < -far || s.step > far || s.step < -far || s.len() > maxRange {
		r.failLimit("a range of more than %d items", maxRange)
	}
	return s
}

// dictFrom is dict(source, **keywords).
func (r *renderer) dictFrom(fn string, a args) *Dict {
	d := &Dict{}
	if len(a.positional) > 1 {
		r.fail("%s expected at most 1 argument, got %d", fn, len(a.positional))
	}
	if len(a.positional) == 1 {
		source, ok := a.positional[0].(*Dict)
		if !ok {
			for _, pair := range r.collect(a.positional[0]) {
				kv := r.collect(pair)
				if len(kv) != 2 {
					r.fail("%s needs pairs, got %d values", fn, len(kv))
				}
				d.put(r.mustHash(kv[0]), kv[0], kv[1])
			}
		} else {
			r.step(source.Len())
			for i, k := range source.keys {
				d.put(r.mustHash(k), k, source.values[i])
			}
		}
	}
	for _, k := range a.keyword {
		d.Set(k.name, k.value)
	}
	return d
}

func makeDict(r *renderer, a args) any { return r.dictFrom("dict", a) }

func makeNamespace(r *renderer, a args) any {
	n := &namespace{attrs: *r.dictFrom("namespace", a)}
	for _, k := range n.attrs.keys {
		if name, ok := asText(k); ok && strings.HasPrefix(name, "_") {
			r.fail("a chat template cannot set the underscore attribute '%s' of a namespace", name)
		}
	}
	return n
}

// makeCycler gives an object whose next() goes round its items for ever.
func makeCycler(r *renderer, a args) any {
	items := a.positional
	if len(items) == 0 || len(a.keyword) > 0 {
		r.fail("at least one item has to be provided")
	}
	at := 0
	n := &namespace{}
	n.attrs.Set("current", items[0])
	n.attrs.Set("next", &function{"next", func(r *renderer, _ args) any {
		v := items[at]
		at = (at + 1) % len(items)
		n.attrs.Set("current", items[at])
		return v
	}})
	n.attrs.Set("reset", &function{"reset", func(*renderer, args) any {
		at = 0
		n.attrs.Set("current", items[0])
		return nil
	}})
	return n
}

// makeJoiner gives a function that is empty the first time it is called and
// the separator after that.
func makeJoiner(r *renderer, a args) any {
	p := r.bind("joiner", a, "sep?")
	used := false
	return &function{"joiner", func(*renderer, args) any {
		if !used {
			used = true
			return ""
		}
		return or(p[0], ", ")
	}}
}
