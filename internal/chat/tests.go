package chat

// The tests: what stands after "is".

import (
	"math/big"
	"strings"
	"unicode"
)

type test func(r *renderer, v any, a args) any

var tests map[string]test

func init() {
	tests = map[string]test{
		"odd":         remainderTest("odd", 1),
		"even":        remainderTest("even", 0),
		"divisibleby": divisibleTest,
		"defined":     kindTest("defined", func(v any) bool { return !isUndefined(v) }),
		"undefined":   kindTest("undefined", isUndefined),
		"none":        kindTest("none", func(v any) bool { return v == nil }),
		"boolean":     kindTest("boolean", func(v any) bool { _, ok := v.(bool); return ok }),
		"true":        kindTest("true", func(v any) bool { b, ok := v.(bool); return ok && b }),
		"false":       kindTest("false", func(v any) bool { b, ok := v.(bool); return ok && !b }),
		"integer":     kindTest("integer", isInteger),
		"float":       kindTest("float", isFloat),
		"number":      kindTest("number", isNumber),
		"string":      kindTest("string", func(v any) bool { _, ok := asText(v); return ok }),
		"escaped":     kindTest("escaped", func(v any) bool { _, ok := v.(markup); return ok }),
		"mapping":     kindTest("mapping", func(v any) bool { _, ok := v.(*Dict); return ok }),
		"sequence":    kindTest("sequence", isSequence),
		"iterable":    kindTest("iterable", isIterable),
		"callable":    kindTest("callable", isCallable),
		"lower":       caseTest("lower", unicode.IsLower, unicode.IsUpper),
		"upper":       caseTest("upper", unicode.IsUpper, unicode.IsLower),
		"filter": func(r *renderer, v any, a args) any {
			r.bind("filter", a)
			name, _ := r.mustHash(v).(string)
			return filters[name] != nil
		},
		"test": func(r *renderer, v any, a args) any {
			r.bind("test", a)
			name, _ := r.mustHash(v).(string)
			return tests[name] != nil
		},
		"sameas": sameAsTest,
		"in": func(r *renderer, v any, a args) any {
			return r.contains(v, r.bind("in", a, "seq")[0])
		},
	}
	for _, name := range []string{"==", "eq", "equalto"} {
		tests[name] = func(r *renderer, v any, a args) any { return r.equal(v, r.bind("eq", a, "other")[0]) }
	}
	for _, name := range []string{"!=", "ne"} {
		tests[name] = func(r *renderer, v any, a args) any { return !r.equal(v, r.bind("ne", a, "other")[0]) }
	}
	for op, names := range map[string]string{"<": "< lt lessthan", "<=": "<= le", ">": "> gt greaterthan", ">=": ">= ge"} {
		for _, name := range strings.Fields(names) {
			tests[name] = func(r *renderer, v any, a args) any { return r.order(op, v, r.bind(name, a, "other")[0]) }
		}
	}
}

func (r *renderer) callTest(name string, v any, a args) any {
	t, ok := tests[name]
	if !ok {
		r.fail("there is no test '%s'", name)
	}
	return t(r, v, a)
}

func kindTest(name string, is func(any) bool) test {
	return func(r *renderer, v any, a args) any {
		r.bind(name, a)
		return is(v)
	}
}

func caseTest(name string, want, other func(rune) bool) test {
	return func(r *renderer, v any, a args) any {
		r.bind(name, a)
		return cased(r.str(v), want, other)
	}
}

func remainderTest(name string, want int64) test {
	return func(r *renderer, v any, a args) any {
		r.bind(name, a)
		return r.equal(r.binary("%", v, int64(2)), want)
	}
}

func divisibleTest(r *renderer, v any, a args) any {
	return r.equal(r.binary("%", v, r.bind("divisibleby", a, "num")[0]), int64(0))
}

func isUndefined(v any) bool { _, ok := v.(*undefined); return ok }

func isInteger(v any) bool {
	switch v.(type) {
	case int64, *big.Int:
		return true
	}
	return false
}

// isSequence holds for what has a length and takes an index.
func isSequence(v any) bool {
	switch v.(type) {
	case string, markup, *seq, *Dict, *span, *undefined:
		return true
	}
	return false
}

func isIterable(v any) bool {
	switch v.(type) {
	case string, markup, *seq, *Dict, *dictView, *span, *generator, *undefined, *loopContext:
		return true
	}
	return false
}

func isCallable(v any) bool {
	switch v.(type) {
	case *function, *macro, *loopContext, *undefined:
		return true
	}
	return false
}

// sameAsTest is identity: of constants by value, of containers by place.
func sameAsTest(r *renderer, v any, a args) any {
	other := r.bind("sameas", a, "other")[0]
	if _, ok := v.(*big.Int); ok {
		return false
	}
	return v == other
}
