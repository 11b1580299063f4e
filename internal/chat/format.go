package chat

// String formatting as str.format does it, and the layout of numbers that
// the % operator shares.

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// formatSpec is how one value is to be laid out.
type formatSpec struct {
	fill      rune
	align     byte // < > ^ = or 0
	sign      byte // + space or 0
	alternate bool
	zero      bool
	width     int
	group     byte // , _ or 0
	precision int  // -1 for none
	verb      byte // 0 for none
}

func isFloat(v any) bool { _, ok := v.(float64); return ok }

func asciiOnly(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c < utf8.RuneSelf {
			b.WriteRune(c)
		} else {
			b.WriteString(asciiEscape(c))
		}
	}
	return b.String()
}

// pad lays out sign and body in the spec's width.
func pad(spec formatSpec, sign, body string) string {
	n := spec.width - runeLen(sign) - runeLen(body)
	if n <= 0 {
		return sign + body
	}
	fill := strings.Repeat(string(spec.fill), n)
	switch spec.align {
	case '<':
		return sign + body + fill
	case '^':
		half := utf8.RuneLen(spec.fill) * (n / 2)
		return fill[:half] + sign + body + fill[half:]
	case '=':
		return sign + fill + body
	}
	return fill + sign + body
}

func signOf(spec formatSpec, negative bool) string {
	switch {
	case negative:
		return "-"
	case spec.sign != 0:
		return string(spec.sign)
	}
	return ""
}

// numberPad applies the zero flag and the default alignment of numbers.
func numberPad(spec formatSpec, sign, body string) string {
	if spec.zero && (spec.align == 0 || spec.align == '=') {
		spec.align = '='
		if spec.fill == ' ' {
			spec.fill = '0'
		}
	}
	return pad(spec, sign, body)
}

func (r *renderer) formatInt(spec formatSpec, n *big.Int, minDigits int) string {
	base := map[byte]int{'x': 16, 'X': 16, 'o': 8, 'b': 2}[spec.verb]
	if base == 0 {
		base = 10
	}
	digits := new(big.Int).Abs(n).Text(base)
	if base == 10 && len(digits) > maxIntDigits {
		r.bigDigits(n)
	}
	prefix := ""
	if spec.alternate && base != 10 {
		prefix = "0" + string(spec.verb)
	}
	if spec.verb == 'X' {
		digits = strings.ToUpper(digits)
	}
	if len(digits) < minDigits {
		digits = strings.Repeat("0", minDigits-len(digits)) + digits
	}
	every := 3
	if base != 10 {
		every = 4
	}
	return numberPad(spec, signOf(spec, n.Sign() < 0)+prefix, groupDigits(digits, spec.group, every))
}

// groupDigits puts the separator between groups of digits of an integer, or
// of a decimal's integer part.
func groupDigits(s string, sep byte, every int) string {
	if sep == 0 {
		return s
	}
	whole, rest := s, ""
	if i := strings.IndexAny(s, ".e"); i >= 0 {
		whole, rest = s[:i], s[i:]
	}
	var b strings.Builder
	for i := range whole {
		if i > 0 && (len(whole)-i)%every == 0 {
			b.WriteByte(sep)
		}
		b.WriteByte(whole[i])
	}
	return b.String() + rest
}

func (r *renderer) formatFloat(spec formatSpec, f float64) string {
	negative := math.Signbit(f) && !math.IsNaN(f)
	a := math.Abs(f)
	body := ""
	percent := spec.verb == '%'
	if percent {
		a *= 100
	}
	precision := spec.precision
	if precision < 0 {
		precision = 6
	}
	if precision > 10000 {
		r.failLimit("more than 10000 digits of a number")
	}
	lowerVerb := spec.verb | 0x20
	switch {
	case math.IsNaN(f):
		body = "nan"
	case math.IsInf(f, 0):
		body = "inf"
	case spec.verb == 0 && spec.precision < 0:
		body = floatRepr(a)
	case spec.verb == 0 || lowerVerb == 'g':
		body = generalFloat(a, max(precision, 1), spec)
	case lowerVerb == 'e':
		body = strconv.FormatFloat(a, 'e', precision, 64)
	default:
		body = strconv.FormatFloat(a, 'f', precision, 64)
	}
	if spec.verb >= 'A' && spec.verb <= 'Z' {
		body = strings.ToUpper(body)
	}
	if percent {
		body += "%"
	}
	return numberPad(spec, signOf(spec, negative), groupDigits(body, spec.group, 3))
}

// generalFloat is the g format: fixed or exponent, whichever suits the size.
func generalFloat(a float64, precision int, spec formatSpec) string {
	s := strconv.FormatFloat(a, 'e', precision-1, 64)
	exp, _ := strconv.Atoi(s[strings.IndexByte(s, 'e')+1:])
	limit := precision
	if spec.verb == 0 {
		limit-- // without a verb one digit always follows the point
	}
	if exp < -4 || exp >= limit {
		mantissa, tail, _ := strings.Cut(s, "e")
		if strings.Contains(mantissa, ".") && !spec.alternate {
			mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		}
		return mantissa + "e" + tail
	}
	s = strconv.FormatFloat(a, 'f', precision-1-exp, 64)
	if strings.Contains(s, ".") && !spec.alternate {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if spec.verb == 0 && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func (r *renderer) floatToInt(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.fail("cannot convert float %s to integer", floatRepr(f))
	}
	n, _ := big.NewFloat(f).Int(nil)
	return normInt(n)
}

// format is str.format.
func (r *renderer) format(s string, a args) string {
	auto := 0
	return r.formatFields(s, a, &auto, 2)
}

// formatFields replaces the {fields} of s; levels counts how deep fields in
// format specifications may go.
func (r *renderer) formatFields(s string, a args, auto *int, levels int) string {
	if levels < 0 {
		r.fail("format fields are nested too deeply")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c := s[i]
		if c != '{' && c != '}' {
			b.WriteByte(c)
			i++
			continue
		}
		if i+1 < len(s) && s[i+1] == c {
			b.WriteByte(c)
			i += 2
			continue
		}
		if c == '}' {
			r.fail("single '}' encountered in format string")
		}
		end, depth := i+1, 1
		for ; end < len(s) && depth > 0; end++ {
			switch s[end] {
			case '{':
				depth++
			case '}':
				depth--
			}
		}
		if depth > 0 {
			r.fail("expected '}' before end of format string")
		}
		r.appendBounded(&b, r.formatField(s[i+1:end-1], a, auto, levels))
		i = end
	}
	return b.String()
}

func (r *renderer) formatField(field string, a args, auto *int, levels int) string {
	at := strings.IndexAny(field, "!:")
	for j := 0; j < len(field); j++ { // a ! or : inside [ ] belongs to the key
		if field[j] == '[' {
			if e := strings.IndexByte(field[j:], ']'); e >= 0 {
				j += e
				continue
			}
		}
		if at = -1; field[j] == '!' || field[j] == ':' {
			at = j
			break
		}
	}
	name, conversion, spec := field, "", ""
	if at >= 0 {
		name = field[:at]
		rest := field[at:]
		if rest[0] == '!' {
			conversion, rest, _ = strings.Cut(rest[1:], ":")
			spec = rest
		} else {
			spec = rest[1:]
		}
	}
	v := r.formatLookup(name, a, auto)
	switch conversion {
	case "s":
		v = r.str(v)
	case "r":
		v = r.repr(v)
	case "a":
		v = asciiOnly(r.repr(v))
	case "":
		if strings.HasPrefix(field[max(at, 0):], "!") {
			r.fail("end of string while looking for conversion specifier")
		}
	default:
		r.fail("unknown conversion specifier '%s'", conversion)
	}
	return r.formatValue(v, r.formatFields(spec, a, auto, levels-1))
}

// formatLookup resolves a field name such as 0.name[key].
func (r *renderer) formatLookup(name string, a args, auto *int) any {
	end := strings.IndexAny(name, ".[")
	if end < 0 {
		end = len(name)
	}
	first, rest := name[:end], name[end:]
	var v any
	if first == "" {
		if *auto < 0 {
			r.fail("cannot switch from manual field specification to automatic field numbering")
		}
		first = strconv.Itoa(*auto)
		*auto++
	} else if _, err := strconv.Atoi(first); err == nil {
		if *auto > 0 {
			r.fail("cannot switch from automatic field numbering to manual field specification")
		}
		*auto = -1
	}
	if n, err := strconv.Atoi(first); err == nil && n >= 0 {
		if n >= len(a.positional) {
			r.fail("replacement index %d out of range for positional args tuple", n)
		}
		v = a.positional[n]
	} else {
		found := false
		for _, k := range a.keyword {
			if k.name == first {
				v, found = k.value, true
			}
		}
		if !found {
			r.fail("the format has no argument '%s'", first)
		}
	}
	for rest != "" {
		if rest[0] == '.' {
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			v, rest = r.attribute(v, rest[1:end]), rest[end:]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if rest[0] != '[' || end < 0 {
			r.fail("malformed field name '%s'", name)
		}
		var key any = rest[1:end]
		if n, err := strconv.ParseInt(rest[1:end], 10, 64); err == nil {
			key = n
		}
		v, rest = r.item(v, key), rest[end+1:]
	}
	return v
}

// formatValue is format(v, spec).
func (r *renderer) formatValue(v any, spec string) string {
	if spec == "" {
		return r.str(v)
	}
	f := r.parseSpec(spec)
	text, isText := asText(v)
	switch {
	case isText:
		if f.verb != 0 && f.verb != 's' || f.sign != 0 || f.align == '=' || f.group != 0 || f.alternate {
			r.fail("invalid format specifier '%s' for a string", spec)
		}
		if f.precision >= 0 && runeLen(text) > f.precision {
			text = runeSlice(text, 0, f.precision)
		}
		if f.align == 0 {
			f.align = '<'
			if f.zero {
				f.fill = '0'
			}
		}
		return pad(f, "", text)
	case isFloat(v), isNumber(v) && strings.IndexByte("eEfFgG%", f.verb) >= 0 && f.verb != 0:
		if f.verb != 0 && strings.IndexByte("eEfFgG%", f.verb) < 0 {
			r.fail("unknown format code '%c' for object of type 'float'", f.verb)
		}
		return r.formatFloat(f, r.toFloat(v))
	case isNumber(v):
		if f.precision >= 0 {
			r.fail("precision not allowed in integer format specifier")
		}
		if f.verb == 'c' {
			n, _ := asInt(v)
			return pad(f, "", string(rune(n)))
		}
		if f.verb != 0 && strings.IndexByte("bdoxX", f.verb) < 0 {
			r.fail("unknown format code '%c' for object of type 'int'", f.verb)
		}
		return r.formatInt(f, toBig(v), 0)
	}
	r.fail("unsupported format string passed to %s", typeName(v))
	return ""
}

func (r *renderer) parseSpec(s string) formatSpec {
	spec := formatSpec{fill: ' ', precision: -1}
	whole := s
	isAlign := func(i int) bool { return i < len(s) && strings.IndexByte("<>^=", s[i]) >= 0 }
	if fill, size := utf8.DecodeRuneInString(s); isAlign(size) {
		spec.fill, spec.align, s = fill, s[size], s[size+1:]
	} else if isAlign(0) {
		spec.align, s = s[0], s[1:]
	}
	next := func(set string) byte {
		if s != "" && strings.IndexByte(set, s[0]) >= 0 {
			c := s[0]
			s = s[1:]
			return c
		}
		return 0
	}
	number := func() int {
		n := 0
		for s != "" && s[0] >= '0' && s[0] <= '9' {
			n = min(n*10+int(s[0]-'0'), maxOutput+1)
			s = s[1:]
		}
		return n
	}
	if spec.sign = next("+- "); spec.sign == '-' {
		spec.sign = 0
	}
	spec.alternate = next("#") != 0
	spec.zero = next("0") != 0
	spec.width = number()
	spec.group = next(",_")
	if next(".") != 0 {
		if s == "" || s[0] < '0' || s[0] > '9' {
			r.fail("format specifier misses precision")
		}
		spec.precision = number()
	}
	if s != "" {
		spec.verb, s = s[0], s[1:]
	}
	if s != "" {
		r.fail("invalid format specifier '%s'", whole)
	}
	r.checkSpec(spec)
	return spec
}
