package chat

// The % operator of strings.

import (
	"strings"
	"unicode/utf8"
)

// percentFormat is format % value.
func (r *renderer) percentFormat(format string, value any, escape bool) string {
	tuple, isTuple := value.(*seq)
	var values []any
	if isTuple && tuple.tuple {
		values = tuple.items
	} else {
		isTuple = false
		values = []any{value}
	}
	mapping, isMapping := value.(*Dict)
	// Python takes whatever can be subscripted for a mapping, and does not
	// mind what of it is left over.
	subscripts := isSequence(value) && !isTuple
	if _, isText := asText(value); isText {
		subscripts = false
	}
	used := 0
	take := func() any {
		if used >= len(values) {
			r.fail("not enough arguments for format string")
		}
		used++
		return values[used-1]
	}
	var b strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			b.WriteByte(format[i])
			i++
			continue
		}
		i++
		var v any
		named := false
		if i < len(format) && format[i] == '(' {
			end := strings.IndexByte(format[i:], ')')
			if end < 0 {
				r.fail("incomplete format key")
			}
			if !isMapping {
				r.fail("format requires a mapping")
			}
			key := format[i+1 : i+end]
			var ok bool
			if v, ok = mapping.find(key); !ok {
				r.fail("the format's mapping has no key '%s'", key)
			}
			i += end + 1
			named, used = true, len(values)
		}
		spec, next := r.percentSpec(format, i, take)
		i = next
		if spec.verb == '%' {
			b.WriteByte('%')
			continue
		}
		if !named {
			v = take()
		}
		r.appendBounded(&b, r.percentValue(spec, v, escape))
	}
	if used < len(values) && !subscripts {
		r.fail("not all arguments converted during string formatting")
	}
	return r.text(b.String())
}

func (r *renderer) appendBounded(b *strings.Builder, s string) {
	if len(s) > maxOutput-b.Len() {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	r.charge(len(s))
	b.WriteString(s)
}

// percentSpec reads flags, width, precision and verb from format[i:].
func (r *renderer) percentSpec(format string, i int, take func() any) (formatSpec, int) {
	spec := formatSpec{fill: ' ', precision: -1}
	for ; i < len(format); i++ {
		switch format[i] {
		case '-':
			spec.align = '<'
			continue
		case '+':
			spec.sign = '+'
			continue
		case ' ':
			if spec.sign == 0 {
				spec.sign = ' '
			}
			continue
		case '0':
			spec.zero = true
			continue
		case '#':
			spec.alternate = true
			continue
		}
		break
	}
	number := func() int {
		if i < len(format) && format[i] == '*' {
			i++
			return int(min(max(r.intArg(take(), 0), -maxOutput-1), maxOutput+1))
		}
		n := 0
		for ; i < len(format) && format[i] >= '0' && format[i] <= '9'; i++ {
			n = min(n*10+int(format[i]-'0'), maxOutput+1)
		}
		return n
	}
	if spec.width = number(); spec.width < 0 {
		spec.width, spec.align = -spec.width, '<'
	}
	if i < len(format) && format[i] == '.' {
		i++
		spec.precision = max(number(), 0)
	}
	for i < len(format) && strings.IndexByte("hlL", format[i]) >= 0 {
		i++
	}
	if i >= len(format) {
		r.fail("incomplete format")
	}
	r.checkSpec(spec)
	spec.verb = format[i]
	return spec, i + 1
}

func (r *renderer) checkSpec(spec formatSpec) {
	if spec.width > maxOutput || spec.precision > maxOutput {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
}

func (r *renderer) percentValue(spec formatSpec, v any, escape bool) string {
	switch spec.verb {
	case 's', 'r', 'a':
		text := ""
		if spec.verb == 's' {
			text = r.str(v)
		} else if text = r.repr(v); spec.verb == 'a' {
			text = asciiOnly(text)
		}
		if _, safe := v.(markup); escape && !safe {
			text = escapeHTML(text)
		}
		if spec.precision >= 0 && runeLen(text) > spec.precision {
			text = runeSlice(text, 0, spec.precision)
		}
		if spec.align == 0 {
			spec.align = '>'
		}
		return pad(spec, "", text)
	case 'c':
		if s, ok := asText(v); ok && runeLen(s) == 1 {
			return pad(formatSpec{fill: ' ', align: '>', width: spec.width}, "", s)
		}
		n, ok := asInt(v)
		if !ok || n < 0 || n > utf8.MaxRune {
			r.fail("%%c requires int or char")
		}
		return pad(formatSpec{fill: ' ', align: '>', width: spec.width}, "", string(rune(n)))
	case 'd', 'i', 'u', 'x', 'X', 'o':
		if f, isFloat := v.(float64); isFloat && strings.IndexByte("diu", spec.verb) >= 0 {
			v = r.floatToInt(f)
		}
		if !isNumber(v) || isFloat(v) {
			r.failUndefined(v)
			r.fail("%%%c format: a number is required, not %s", spec.verb, typeName(v))
		}
		if strings.IndexByte("iu", spec.verb) >= 0 {
			spec.verb = 'd'
		}
		digits := spec.precision
		spec.precision = -1
		return r.formatInt(spec, toBig(v), digits)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if !isNumber(v) {
			r.failUndefined(v)
			r.fail("must be a real number, not %s", typeName(v))
		}
		return r.formatFloat(spec, r.toFloat(v))
	}
	r.fail("unsupported format character '%c'", spec.verb)
	return ""
}
