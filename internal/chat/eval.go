package chat

// Expressions and calls.

import "strings"

func (r *renderer) eval(e expr, s *scope) any {
	if r.evalDepth++; r.evalDepth > maxEvalDepth {
		r.failLimit("an evaluation nested deeper than %d levels", maxEvalDepth)
	}
	v := r.evalNode(e, s)
	r.evalDepth--
	return v
}

func (r *renderer) evalNode(e expr, s *scope) any {
	r.step(1)
	r.pos = e.at()
	switch e := e.(type) {
	case *constExpr:
		return e.value
	case *nameExpr:
		if v, ok := s.lookup(e.name); ok {
			return v
		}
		return &undefined{reprString(e.name) + " is undefined"}
	case *capturedExpr:
		v, _ := s.lookup(capturedName)
		return v
	case *attrExpr:
		object := r.eval(e.object, s)
		r.pos = e.pos
		return r.attribute(object, e.name)
	case *itemExpr:
		object, index := r.eval(e.object, s), r.eval(e.index, s)
		r.pos = e.pos
		return r.item(object, index)
	case *sliceExpr:
		object := r.eval(e.object, s)
		start, stop, step := r.optional(e.start, s), r.optional(e.stop, s), r.optional(e.step, s)
		r.pos = e.pos
		return r.slice(object, start, stop, step)
	case *callExpr:
		return r.evalCall(e, s, nil)
	case *filterExpr:
		operand := r.eval(e.operand, s)
		a := r.evalArgs(e.args, s)
		r.pos = e.pos
		return r.callFilter(e.name, operand, a)
	case *testExpr:
		operand := r.eval(e.operand, s)
		a := r.evalArgs(e.args, s)
		r.pos = e.pos
		return r.callTest(e.name, operand, a)
	case *binaryExpr:
		left, right := r.eval(e.left, s), r.eval(e.right, s)
		r.pos = e.pos
		return r.binary(e.op, left, right)
	case *logicExpr:
		left := r.eval(e.left, s)
		if truth(left) == e.or {
			return left
		}
		return r.eval(e.right, s)
	case *condExpr:
		switch {
		case truth(r.eval(e.test, s)):
			return r.eval(e.yes, s)
		case e.no != nil:
			return r.eval(e.no, s)
		}
		return &undefined{"the inline if is false and has no else"}
	case *unaryExpr:
		v := r.eval(e.operand, s)
		r.pos = e.pos
		if e.op == "not" {
			return !truth(v)
		}
		return r.unary(e.op, v)
	case *compareExpr:
		return r.evalCompare(e, s)
	}
	return r.evalBuild(e, s)
}

// evalBuild evaluates the expressions that build strings and containers.
func (r *renderer) evalBuild(e expr, s *scope) any {
	switch e := e.(type) {
	case *concatExpr:
		var b strings.Builder
		for _, item := range e.items {
			part := r.str(r.eval(item, s))
			r.pos = e.pos
			if len(part) > maxOutput-b.Len() {
				r.failLimit("a string of more than %d bytes", maxOutput)
			}
			b.WriteString(part)
		}
		return r.text(b.String())
	case *seqExpr:
		items := make([]any, len(e.items))
		for i, item := range e.items {
			items[i] = r.eval(item, s)
		}
		return &seq{items, e.tuple}
	case *dictExpr:
		d := &Dict{}
		for i := range e.keys {
			key, value := r.eval(e.keys[i], s), r.eval(e.values[i], s)
			r.pos = e.pos
			d.put(r.mustHash(key), key, value)
		}
		return d
	}
	panic("chat: internal error: an expression of no known kind")
}

func (r *renderer) optional(e expr, s *scope) any {
	if e == nil {
		return nil
	}
	return r.eval(e, s)
}

// evalCompare evaluates a chain of comparisons: a < b < c is a < b and b < c,
// stopping at the first that fails.
func (r *renderer) evalCompare(e *compareExpr, s *scope) any {
	left := r.eval(e.first, s)
	for _, c := range e.rest {
		right := r.eval(c.operand, s)
		r.pos = e.pos
		var ok bool
		switch c.op {
		case "==":
			ok = r.equal(left, right)
		case "!=":
			ok = !r.equal(left, right)
		case "in":
			ok = r.contains(left, right)
		case "not in":
			ok = !r.contains(left, right)
		default:
			ok = r.order(c.op, left, right)
		}
		if !ok {
			return false
		}
		left = right
	}
	return true
}

// args are the evaluated arguments of a call.
type args struct {
	positional []any
	keyword    []keyword
}

type keyword struct {
	name  string
	value any
}

func (r *renderer) evalArgs(a callArgs, s *scope) args {
	var out args
	for _, e := range a.positional {
		out.positional = append(out.positional, r.eval(e, s))
	}
	for _, k := range a.keyword {
		out.keyword = append(out.keyword, keyword{k.name, r.eval(k.value, s)})
	}
	if a.star != nil {
		out.positional = append(out.positional, r.collect(r.eval(a.star, s))...)
	}
	if a.kw != nil {
		v := r.eval(a.kw, s)
		d, ok := v.(*Dict)
		if !ok {
			r.fail("the argument after ** must be a mapping, not %s", typeName(v))
		}
		for i, key := range d.keys {
			name, ok := asText(key)
			if !ok {
				r.fail("keywords must be strings")
			}
			for _, k := range out.keyword {
				if k.name == name {
					r.fail("multiple values for keyword argument '%s'", name)
				}
			}
			out.keyword = append(out.keyword, keyword{name, d.values[i]})
		}
	}
	return out
}

// evalCall evaluates a call; caller is the block of a {% call %}, or nil.
func (r *renderer) evalCall(e *callExpr, s *scope, caller *macro) any {
	callee := r.eval(e.callee, s)
	a := r.evalArgs(e.args, s)
	if caller != nil {
		a.keyword = append(a.keyword, keyword{"caller", caller})
	}
	r.pos = e.pos
	return r.call(callee, a)
}

func (r *renderer) call(callee any, a args) any {
	switch f := callee.(type) {
	case *function:
		return f.call(r, a)
	case *macro:
		return f.call(r, a)
	case *loopContext:
		p := r.bind("loop", a, "iterable")
		if f.recurse == nil {
			r.fail("the loop needs the 'recursive' marker to be called")
		}
		return f.recurse(p[0])
	}
	r.failUndefined(callee)
	r.fail("'%s' object is not callable", typeName(callee))
	return nil
}

// absent stands for a parameter that was not given and has no default.
type absent struct{}

// bind orders arguments by parameter, as Python does for a function of the
// signature params: "name" must be given, "name?" may be. A parameter before
// a "/" cannot be given by keyword.
func (r *renderer) bind(fn string, a args, params ...string) []any {
	positionalOnly := -1
	names := make([]string, 0, len(params))
	for _, p := range params {
		if p == "/" {
			positionalOnly = len(names)
			continue
		}
		names = append(names, p)
	}
	out := make([]any, len(names))
	for i := range out {
		out[i] = absent{}
	}
	if len(a.positional) > len(names) {
		r.fail("%s() takes at most %d arguments, got %d", fn, len(names), len(a.positional))
	}
	copy(out, a.positional)
	for _, k := range a.keyword {
		found := false
		for i, name := range names {
			if strings.TrimSuffix(name, "?") != k.name || i < positionalOnly {
				continue
			}
			if _, free := out[i].(absent); !free {
				r.fail("%s() got multiple values for argument '%s'", fn, k.name)
			}
			out[i], found = k.value, true
		}
		if !found {
			r.fail("%s() got an unexpected keyword argument '%s'", fn, k.name)
		}
	}
	for i, name := range names {
		if _, missing := out[i].(absent); missing && !strings.HasSuffix(name, "?") {
			r.fail("%s() misses the argument '%s'", fn, name)
		}
	}
	return out
}

// or is a bound parameter, or def where it was not given.
func or(v, def any) any {
	if _, missing := v.(absent); missing {
		return def
	}
	return v
}

// intArg is a bound parameter that must be an integer.
func (r *renderer) intArg(v any, def int64) int64 {
	v = or(v, def)
	n, ok := asInt(v)
	if !ok {
		r.failUndefined(v)
		r.fail("'%s' object cannot be interpreted as an integer", typeName(v))
	}
	return n
}

// textArg is a bound parameter that must be a string.
func (r *renderer) textArg(v any, def string) string {
	s, ok := asText(or(v, def))
	if !ok {
		r.failUndefined(v)
		r.fail("expected a string, not '%s'", typeName(v))
	}
	return s
}
