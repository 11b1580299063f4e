package chat

// Attributes and methods of Python's own types.

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// ownAttribute finds an attribute of the object itself, not of its items.
func (r *renderer) ownAttribute(object any, name string) (any, bool) {
	switch o := object.(type) {
	case string:
		return stringMethod(o, name, func(s string) any { return s })
	case markup:
		return stringMethod(string(o), name, func(s string) any { return markup(s) })
	case *Dict:
		return dictMethod(o, name)
	case *seq:
		return seqMethod(o, name)
	case *namespace:
		return o.attrs.find(name)
	case *loopContext:
		return o.attribute(name)
	case *macro:
		switch name {
		case "name":
			return o.name, true
		case "arguments":
			t := &seq{tuple: true}
			for _, p := range o.sig.params {
				t.items = append(t.items, p)
			}
			return t, true
		case "caller":
			return o.sig.usesCaller, true
		case "catch_kwargs":
			return o.sig.usesKwargs, true
		case "catch_varargs":
			return o.sig.usesVarargs, true
		}
	case *span:
		return spanAttribute(o, name)
	}
	return nil, false
}

// unsafeMethod is what a method that would change a value reads as.
func unsafeMethod(kind, name string) *undefined {
	return &undefined{"access to attribute '" + name + "' of '" + kind + "' object is unsafe: a chat template cannot change values, build new ones or use a namespace"}
}

func dictMethod(d *Dict, name string) (any, bool) {
	switch name {
	case "keys", "values", "items":
		return &function{name, func(r *renderer, a args) any {
			r.bind(name, a)
			return &dictView{"dict_" + name, d}
		}}, true
	case "get":
		return &function{name, func(r *renderer, a args) any {
			p := r.bind(name, a, "key", "default?", "/")
			if v, ok := d.find(r.mustHash(p[0])); ok {
				return v
			}
			return or(p[1], nil)
		}}, true
	case "copy":
		return &function{name, func(r *renderer, a args) any {
			r.bind(name, a)
			return &Dict{keys: d.keys, values: d.values, index: d.index}
		}}, true
	case "clear", "pop", "popitem", "setdefault", "update":
		return unsafeMethod("dict", name), true
	}
	return nil, false
}

func seqMethod(s *seq, name string) (any, bool) {
	switch name {
	case "count":
		return &function{name, func(r *renderer, a args) any {
			p := r.bind(name, a, "value", "/")
			n := int64(0)
			for _, item := range s.items {
				if r.equal(item, p[0]) {
					n++
				}
			}
			return n
		}}, true
	case "index":
		return &function{name, func(r *renderer, a args) any {
			p := r.bind(name, a, "value", "start?", "stop?", "/")
			n := int64(len(s.items))
			from, to, _ := r.sliceBounds(n, or(p[1], nil), or(p[2], nil), nil)
			for i := from; i < to; i++ {
				if r.equal(s.items[i], p[0]) {
					return i
				}
			}
			r.fail("the value is not in the list")
			return nil
		}}, true
	}
	if s.tuple {
		return nil, false
	}
	switch name {
	case "copy":
		return &function{name, func(r *renderer, a args) any {
			r.bind(name, a)
			return newList(s.items)
		}}, true
	case "append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove":
		return unsafeMethod("list", name), true
	}
	return nil, false
}

// spanAttribute finds an attribute or method of a range.
func spanAttribute(s *span, name string) (any, bool) {
	switch name {
	case "start":
		return s.start, true
	case "stop":
		return s.stop, true
	case "step":
		return s.step, true
	case "count", "index":
		return &function{name, func(r *renderer, a args) any {
			p := r.bind(name, a, "value", "/")
			for i := range s.len() {
				r.step(1)
				if r.equal(s.start+i*s.step, p[0]) {
					if name == "count" {
						return int64(1)
					}
					return i
				}
			}
			if name == "index" {
				r.fail("the value is not in the range")
			}
			return int64(0)
		}}, true
	}
	return nil, false
}

// stringMethod finds a method of str. same makes results of the receiver's
// own type, so that the methods of markup give markup.
func stringMethod(s, name string, same func(string) any) (any, bool) {
	m, ok := stringMethods[name]
	if !ok {
		return nil, false
	}
	return &function{name, func(r *renderer, a args) any {
		r.charge(len(s))
		return wrapText(r, m(r, s, a), same)
	}}, true
}

// wrapText gives every string of a method's result the receiver's type.
func wrapText(r *renderer, v any, same func(string) any) any {
	switch v := v.(type) {
	case string:
		return same(r.text(v))
	case *seq:
		r.step(len(v.items))
		for i := range v.items {
			v.items[i] = same(v.items[i].(string))
		}
	}
	return v
}

type method func(r *renderer, s string, a args) any

var stringMethods map[string]method

func init() {
	stringMethods = map[string]method{
		"upper":      noArgs(upper),
		"lower":      noArgs(lower),
		"casefold":   noArgs(lower),
		"capitalize": noArgs(capitalize),
		"title":      noArgs(title),
		"swapcase":   noArgs(swapcase),

		"strip":  trimMethod(true, true),
		"lstrip": trimMethod(true, false),
		"rstrip": trimMethod(false, true),

		"startswith": affix("startswith", strings.HasPrefix, true),
		"endswith":   affix("endswith", strings.HasSuffix, false),

		"removeprefix": func(r *renderer, s string, a args) any {
			return strings.TrimPrefix(s, r.textArg(r.bind("removeprefix", a, "prefix", "/")[0], ""))
		},
		"removesuffix": func(r *renderer, s string, a args) any {
			return strings.TrimSuffix(s, r.textArg(r.bind("removesuffix", a, "suffix", "/")[0], ""))
		},

		"split":      func(r *renderer, s string, a args) any { return splitMethod(r, "split", s, a, false) },
		"rsplit":     func(r *renderer, s string, a args) any { return splitMethod(r, "rsplit", s, a, true) },
		"splitlines": splitLinesMethod,
		"partition":  partition("partition", strings.Index, false),
		"rpartition": partition("rpartition", strings.LastIndex, true),

		"join":    joinMethod,
		"replace": replaceMethod,
		"format":  func(r *renderer, s string, a args) any { return r.format(s, a) },
		"format_map": func(r *renderer, s string, a args) any {
			p := r.bind("format_map", a, "mapping", "/")
			return r.format(s, r.evalMapping(p[0]))
		},

		"find":   findMethod("find", strings.Index, false),
		"rfind":  findMethod("rfind", strings.LastIndex, false),
		"index":  findMethod("index", strings.Index, true),
		"rindex": findMethod("rindex", strings.LastIndex, true),
		"count":  countMethod,

		"center": padMethod("center", func(n int) int { return -1 }),
		"ljust":  padMethod("ljust", func(n int) int { return 0 }),
		"rjust":  padMethod("rjust", func(n int) int { return n }),
		"zfill":  zfillMethod,

		"encode": unsupported("encode"), "maketrans": unsupported("maketrans"), "translate": unsupported("translate"),
		"expandtabs": func(r *renderer, s string, a args) any {
			return expandTabs(r, s, r.intArg(r.bind("expandtabs", a, "tabsize?")[0], 8))
		},

		"isdigit":     all(func(c rune) bool { return unicode.IsDigit(c) || unicode.Is(unicode.No, c) && isDigitLike(c) }),
		"isdecimal":   all(unicode.IsDigit),
		"isnumeric":   all(unicode.IsNumber),
		"isalpha":     all(unicode.IsLetter),
		"isalnum":     all(func(c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) }),
		"isspace":     all(isSpace),
		"isprintable": func(r *renderer, s string, a args) any { return strings.IndexFunc(s, notPrintable) < 0 },
		"isascii": func(r *renderer, s string, a args) any {
			return strings.IndexFunc(s, func(c rune) bool { return c >= utf8.RuneSelf }) < 0
		},
		"isidentifier": func(r *renderer, s string, a args) any { return isIdentifier(s) },
		"islower":      func(r *renderer, s string, a args) any { return cased(s, unicode.IsLower, unicode.IsUpper) },
		"isupper":      func(r *renderer, s string, a args) any { return cased(s, unicode.IsUpper, unicode.IsLower) },
		"istitle":      func(r *renderer, s string, a args) any { return isTitle(s) },
	}
}

func notPrintable(c rune) bool { return !isPrintable(c) }

// unsupported is a method that exists, so that it hides an item of its name,
// but that no chat template has a use for.
func unsupported(name string) method {
	return func(r *renderer, s string, a args) any {
		r.fail("the string method %s is not supported", name)
		return nil
	}
}

func noArgs(f func(string) string) method {
	return func(r *renderer, s string, a args) any {
		r.bind("the method", a)
		return f(s)
	}
}

func trimMethod(left, right bool) method {
	return func(r *renderer, s string, a args) any {
		chars := or(r.bind("strip", a, "chars?", "/")[0], nil)
		if chars == nil {
			return trim(s, isSpace, left, right)
		}
		set := r.textArg(chars, "")
		return trim(s, func(c rune) bool { return strings.ContainsRune(set, c) }, left, right)
	}
}

func trim(s string, cut func(rune) bool, left, right bool) string {
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s
}

// affix is startswith or endswith: of a string, or any string of a tuple,
// within optional bounds.
func affix(name string, has func(s, part string) bool, front bool) method {
	return func(r *renderer, s string, a args) any {
		p := r.bind(name, a, "affix", "start?", "end?", "/")
		s, ok := r.window(s, p[1], p[2])
		if !ok {
			return false
		}
		if t, isSeq := p[0].(*seq); isSeq && t.tuple {
			for _, item := range t.items {
				if has(s, r.textArg(item, "")) {
					return true
				}
			}
			return false
		}
		return has(s, r.textArg(p[0], ""))
	}
}

// window is s[start:end]; not ok where start lies beyond its end.
func (r *renderer) window(s string, start, end any) (string, bool) {
	start, end = or(start, nil), or(end, nil)
	if start == nil && end == nil {
		return s, true
	}
	n := int64(runeLen(s))
	if i, isInt := asInt(start); isInt && i > n {
		return "", false
	}
	from, to, _ := r.sliceBounds(n, start, end, nil)
	if from > to {
		return "", false
	}
	return runeSlice(s, int(from), int(to)), true
}

func partition(name string, index func(s, sep string) int, right bool) method {
	return func(r *renderer, s string, a args) any {
		sep := r.textArg(r.bind(name, a, "sep", "/")[0], "")
		if sep == "" {
			r.fail("empty separator")
		}
		i := index(s, sep)
		switch {
		case i >= 0:
			return newTuple(s[:i], sep, s[i+len(sep):])
		case right:
			return newTuple("", "", s)
		}
		return newTuple(s, "", "")
	}
}

func joinMethod(r *renderer, s string, a args) any {
	p := r.bind("join", a, "iterable", "/")
	var b strings.Builder
	for i, item := range r.collect(p[0]) {
		if i > 0 {
			b.WriteString(s)
		}
		part, ok := asText(item)
		if !ok {
			r.fail("sequence item %d: expected a string, not '%s'", i, typeName(item))
		}
		if b.Len() > maxOutput-len(part)-len(s) {
			r.failLimit("a string of more than %d bytes", maxOutput)
		}
		r.charge(len(s) + len(part))
		b.WriteString(part)
	}
	return b.String()
}

func replaceMethod(r *renderer, s string, a args) any {
	p := r.bind("replace", a, "old", "new", "count?", "/")
	return r.replace(s, r.textArg(p[0], ""), r.textArg(p[1], ""), r.intArg(p[2], -1))
}

// replace bounds the result before building it.
func (r *renderer) replace(s, old, to string, count int64) string {
	n := strings.Count(s, old)
	if count >= 0 && count < int64(n) {
		n = int(count)
	}
	if grow := len(to) - len(old); grow > 0 && n > (maxOutput-min(len(s), maxOutput))/grow {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	return r.text(strings.Replace(s, old, to, n))
}

func findMethod(name string, index func(s, sub string) int, must bool) method {
	return func(r *renderer, s string, a args) any {
		p := r.bind(name, a, "sub", "start?", "end?", "/")
		sub := r.textArg(p[0], "")
		from := int64(0)
		if start := or(p[1], nil); start != nil {
			from, _, _ = r.sliceBounds(int64(runeLen(s)), start, nil, nil)
		}
		i := -1
		window, ok := r.window(s, p[1], p[2])
		if ok {
			i = index(window, sub)
		}
		if i >= 0 {
			return from + int64(runeLen(window[:i]))
		}
		if must {
			r.fail("substring not found")
		}
		return int64(-1)
	}
}

func countMethod(r *renderer, s string, a args) any {
	p := r.bind("count", a, "sub", "start?", "end?", "/")
	window, ok := r.window(s, p[1], p[2])
	if !ok {
		return int64(0)
	}
	return int64(strings.Count(window, r.textArg(p[0], "")))
}

// padMethod pads to a width; left says how many of n fill characters stand
// in front, -1 for half of them.
func padMethod(name string, left func(n int) int) method {
	return func(r *renderer, s string, a args) any {
		p := r.bind(name, a, "width", "fillchar?", "/")
		fill := r.textArg(p[1], " ")
		if runeLen(fill) != 1 {
			r.fail("the fill character must be exactly one character long")
		}
		width := r.intArg(p[0], 0)
		if width > maxOutput {
			r.failLimit("a string of more than %d bytes", maxOutput)
		}
		n := int(width) - runeLen(s)
		if n <= 0 {
			return s
		}
		front := left(n)
		if front < 0 {
			front = n/2 + n&int(width)&1
		}
		return strings.Repeat(fill, front) + s + strings.Repeat(fill, n-front)
	}
}

func zfillMethod(r *renderer, s string, a args) any {
	width := r.intArg(r.bind("zfill", a, "width", "/")[0], 0)
	if width > maxOutput {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	n := int(width) - runeLen(s)
	if n <= 0 {
		return s
	}
	sign := ""
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, s = s[:1], s[1:]
	}
	return sign + strings.Repeat("0", n) + s
}

func expandTabs(r *renderer, s string, size int64) string {
	if size > 1024 {
		r.failLimit("tabs wider than 1024 columns")
	}
	var b strings.Builder
	col := int64(0)
	for _, c := range s {
		switch c {
		case '\t':
			if size > 0 {
				n := size - col%size
				b.WriteString(strings.Repeat(" ", int(n)))
				col += n
				r.charge(int(n))
			}
		case '\n', '\r':
			col = 0
			b.WriteRune(c)
		default:
			col++
			b.WriteRune(c)
		}
	}
	return b.String()
}

// all makes a method that is true where s is not empty and ok holds for
// every character.
func all(ok func(rune) bool) method {
	return func(r *renderer, s string, a args) any {
		for _, c := range s {
			if !ok(c) {
				return false
			}
		}
		return s != ""
	}
}

// isDigitLike picks the superscript and circled digits among the numbers
// that are not decimal, which isdigit counts.
func isDigitLike(c rune) bool {
	return c == '²' || c == '³' || c == '¹' || c >= 0x2070 && c <= 0x2089 || c >= 0x2460 && c <= 0x2468
}

func isIdentifier(s string) bool {
	for i, c := range s {
		if c != '_' && !unicode.IsLetter(c) && (i == 0 || !unicode.IsDigit(c) && !unicode.IsMark(c)) {
			return false
		}
	}
	return s != ""
}

// cased reports whether s has characters of the one case and none of the other.
func cased(s string, want, other func(rune) bool) bool {
	return strings.IndexFunc(s, want) >= 0 && strings.IndexFunc(s, other) < 0 && strings.IndexFunc(s, unicode.IsTitle) < 0
}

func isTitle(s string) bool {
	any, inWord := false, false
	for _, c := range s {
		switch {
		case unicode.IsUpper(c) || unicode.IsTitle(c):
			if inWord {
				return false
			}
			any, inWord = true, true
		case unicode.IsLower(c):
			if !inWord {
				return false
			}
			any = true
		default:
			inWord = false
		}
	}
	return any
}

// evalMapping makes keyword arguments of a dictionary.
func (r *renderer) evalMapping(v any) args {
	d, ok := v.(*Dict)
	if !ok {
		r.fail("expected a mapping, not '%s'", typeName(v))
	}
	var a args
	for i, k := range d.keys {
		if name, ok := asText(k); ok {
			a.keyword = append(a.keyword, keyword{name, d.values[i]})
		}
	}
	return a
}
