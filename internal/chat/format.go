package chat

// String formatting: "%s" % value, str.format, and strftime.

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
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

// strftime formats t as glibc does in the C locale, for a time without a
// zone, which is what datetime.now gives.
func strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		flag := byte(0)
		if strings.IndexByte("-_0^#", format[i]) >= 0 && i+1 < len(format) {
			flag = format[i]
			i++
		}
		text, ok := timeField(t, format[i])
		if !ok {
			b.WriteByte('%')
			if flag != 0 {
				b.WriteByte(flag)
			}
			b.WriteByte(format[i])
			continue
		}
		switch flag {
		case '-':
			if trimmed := strings.TrimLeft(text, "0 "); trimmed != "" {
				text = trimmed
			} else if text != "" {
				text = "0"
			}
		case '_':
			for n := 0; n < len(text)-1 && text[n] == '0'; n++ {
				text = text[:n] + " " + text[n+1:]
			}
		case '0':
			text = strings.ReplaceAll(text, " ", "0")
		case '^':
			text = strings.ToUpper(text)
		}
		b.WriteString(text)
	}
	return b.String()
}

func timeField(t time.Time, c byte) (string, bool) {
	if layout, ok := timeLayouts[c]; ok {
		return t.Format(layout), true
	}
	isoYear, isoWeek := t.ISOWeek()
	weekday := int(t.Weekday())
	switch c {
	case 'C':
		return fmt.Sprintf("%02d", t.Year()/100), true
	case 'e':
		return fmt.Sprintf("%2d", t.Day()), true
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000), true
	case 'G':
		return strconv.Itoa(isoYear), true
	case 'j':
		return fmt.Sprintf("%03d", t.YearDay()), true
	case 'k':
		return fmt.Sprintf("%2d", t.Hour()), true
	case 'l':
		return fmt.Sprintf("%2d", (t.Hour()+11)%12+1), true
	case 'n':
		return "\n", true
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 't':
		return "\t", true
	case 'u':
		return strconv.Itoa((weekday+6)%7 + 1), true
	case 'U':
		return fmt.Sprintf("%02d", (t.YearDay()-1+7-weekday)/7), true
	case 'V':
		return fmt.Sprintf("%02d", isoWeek), true
	case 'w':
		return strconv.Itoa(weekday), true
	case 'W':
		return fmt.Sprintf("%02d", (t.YearDay()-1+7-(weekday+6)%7)/7), true
	case 'z', 'Z':
		return "", true
	case '%':
		return "%", true
	}
	return "", false
}

var timeLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'd': "02", 'm': "01", 'y': "06", 'Y': "2006",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'c': "Mon Jan _2 15:04:05 2006", 'D': "01/02/06", 'x': "01/02/06",
	'F': "2006-01-02", 'T': "15:04:05", 'X': "15:04:05", 'R': "15:04", 'r': "03:04:05 PM",
}
