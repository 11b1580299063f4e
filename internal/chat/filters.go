package chat

// The filters, jinja2's own but for those that no chat template has a use
// for: pprint, random, striptags, urlize, wordwrap.

import (
	"fmt"
	"math"
	"math/big"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type filter func(r *renderer, v any, a args) any

var filters map[string]filter

func init() {
	filters = map[string]filter{
		"abs": absFilter, "attr": attrFilter, "batch": batchFilter, "capitalize": textFilter(capitalize), "center": centerFilter,
		"count": lengthFilter, "d": defaultFilter, "default": defaultFilter, "dictsort": dictSortFilter, "e": escapeFilter,
		"escape": escapeFilter, "filesizeformat": fileSizeFilter, "first": firstFilter, "float": floatFilter,
		"forceescape": forceEscapeFilter, "format": formatFilter, "groupby": groupByFilter, "indent": indentFilter, "int": intFilter,
		"items": itemsFilter, "join": joinFilter, "last": lastFilter, "length": lengthFilter, "list": listFilter,
		"lower": textFilter(lower), "map": mapFilter, "max": extremeFilter("max", ">"), "min": extremeFilter("min", "<"),
		"reject": selectFilter("reject", false, false), "rejectattr": selectFilter("rejectattr", true, false),
		"replace": replaceFilter, "reverse": reverseFilter, "round": roundFilter, "safe": safeFilter,
		"select": selectFilter("select", false, true), "selectattr": selectFilter("selectattr", true, true),
		"slice": sliceFilter, "sort": sortFilter, "string": stringFilter, "sum": sumFilter, "title": titleFilter, "tojson": toJSON,
		"trim": trimFilter, "truncate": truncateFilter, "unique": uniqueFilter, "upper": textFilter(upper),
		"urlencode": urlEncodeFilter, "wordcount": wordCountFilter, "xmlattr": xmlAttrFilter,
	}
}

func (r *renderer) callFilter(name string, v any, a args) any {
	f, ok := filters[name]
	if !ok {
		r.fail("there is no filter '%s'", name)
	}
	return f(r, v, a)
}

// softText is the value as text, and a function that makes text of the same
// kind: filters keep markup what it is.
func (r *renderer) softText(v any) (string, func(string) any) {
	if m, ok := v.(markup); ok {
		return string(m), func(s string) any { return markup(r.text(s)) }
	}
	return r.str(v), func(s string) any { return r.text(s) }
}

func textFilter(f func(string) string) filter {
	return func(r *renderer, v any, a args) any {
		r.bind("the filter", a)
		s, same := r.softText(v)
		return same(f(s))
	}
}

func stringFilter(r *renderer, v any, a args) any {
	r.bind("string", a)
	s, same := r.softText(v)
	return same(s)
}

func titleFilter(r *renderer, v any, a args) any {
	r.bind("title", a)
	s, same := r.softText(v)
	var b strings.Builder
	start := true
	for _, c := range s {
		if start {
			b.WriteString(upper(string(c)))
		} else {
			b.WriteString(lower(string(c)))
		}
		start = c == '-' || isSpace(c) || strings.ContainsRune("({[<", c)
	}
	return same(b.String())
}

func trimFilter(r *renderer, v any, a args) any {
	p := r.bind("trim", a, "chars?")
	s, same := r.softText(v)
	return same(trimMethod(true, true)(r, s, args{positional: []any{or(p[0], nil)}}).(string))
}

func centerFilter(r *renderer, v any, a args) any {
	p := r.bind("center", a, "width?")
	s, same := r.softText(v)
	return same(stringMethods["center"](r, s, args{positional: []any{or(p[0], int64(80))}}).(string))
}

func safeFilter(r *renderer, v any, a args) any {
	r.bind("safe", a)
	return markup(r.str(v))
}

func escapeFilter(r *renderer, v any, a args) any {
	r.bind("escape", a)
	if m, ok := v.(markup); ok {
		return m
	}
	return markup(r.text(escapeHTML(r.str(v))))
}

func forceEscapeFilter(r *renderer, v any, a args) any {
	r.bind("forceescape", a)
	return markup(r.text(escapeHTML(r.str(v))))
}

func formatFilter(r *renderer, v any, a args) any {
	s, same := r.softText(v)
	_, escape := v.(markup)
	if len(a.keyword) == 0 {
		return same(r.percentFormat(s, newTuple(a.positional...), escape))
	}
	if len(a.positional) > 0 {
		r.fail("format takes positional or keyword arguments, not both")
	}
	d := &Dict{}
	for _, k := range a.keyword {
		d.Set(k.name, k.value)
	}
	return same(r.percentFormat(s, d, escape))
}

func replaceFilter(r *renderer, v any, a args) any {
	p := r.bind("replace", a, "old", "new", "count?")
	count := or(p[2], nil)
	if count == nil {
		count = int64(-1)
	}
	return r.replace(r.str(v), r.str(p[0]), r.str(p[1]), r.intArg(count, -1))
}

func indentFilter(r *renderer, v any, a args) any {
	p := r.bind("indent", a, "width?", "first?", "blank?")
	s, ok := asText(v)
	if !ok {
		r.failUndefined(v)
		r.fail("indent needs a string, not '%s'", typeName(v))
	}
	_, same := r.softText(v)
	margin, ok := asText(or(p[0], int64(4)))
	if !ok {
		n := r.intArg(p[0], 4)
		if n > maxOutput {
			r.failLimit("a string of more than %d bytes", maxOutput)
		}
		margin = strings.Repeat(" ", int(max(n, 0)))
	}
	blank := truth(or(p[2], false))
	lines := splitLines(s+"\n", false)
	if len(lines) > 1 && len(margin) > maxOutput/len(lines) {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	for i := range lines {
		if i > 0 && (blank || lines[i] != "") {
			lines[i] = margin + lines[i]
		}
	}
	out := strings.Join(lines, "\n")
	if truth(or(p[1], false)) {
		out = margin + out
	}
	return same(out)
}

func truncateFilter(r *renderer, v any, a args) any {
	p := r.bind("truncate", a, "length?", "killwords?", "end?", "leeway?")
	limit, end := r.intArg(p[0], 255), r.textArg(p[2], "...")
	leeway := int64(5)
	if given := or(p[3], nil); given != nil {
		leeway = r.intArg(given, 5)
	}
	keep := limit - int64(runeLen(end))
	if keep < 0 || leeway < 0 {
		r.fail("truncate needs a length of at least its end's, and no negative leeway")
	}
	if n, ok := length(v); ok && n <= limit+leeway {
		return v
	}
	s, ok := asText(v)
	if !ok {
		r.fail("truncate needs a string, not '%s'", typeName(v))
	}
	_, same := r.softText(v)
	s = runeSlice(s, 0, int(keep))
	if !truth(or(p[1], false)) {
		if i := strings.LastIndexByte(s, ' '); i >= 0 {
			s = s[:i]
		}
	}
	return same(s + end)
}

func wordCountFilter(r *renderer, v any, a args) any {
	r.bind("wordcount", a)
	s, _ := r.softText(v)
	return int64(len(strings.FieldsFunc(s, func(c rune) bool {
		return c != '_' && !unicode.IsLetter(c) && !unicode.IsNumber(c)
	})))
}

func urlEncodeFilter(r *renderer, v any, a args) any {
	r.bind("urlencode", a)
	quote := func(v any, slash bool) string {
		s := strings.ReplaceAll(url.QueryEscape(r.str(v)), "+", "%20")
		if slash {
			s = strings.ReplaceAll(s, "%2F", "/")
		} else {
			s = strings.ReplaceAll(s, "%20", "+")
		}
		return s
	}
	var pairs []any
	switch v := v.(type) {
	case *Dict:
		pairs = v.items()
	default:
		if _, isText := asText(v); isText || !isIterable(v) {
			return r.text(quote(v, true))
		}
		pairs = r.collect(v)
	}
	var parts []string
	for _, pair := range pairs {
		kv := r.collect(pair)
		if len(kv) != 2 {
			r.fail("urlencode needs pairs")
		}
		parts = append(parts, quote(kv[0], false)+"="+quote(kv[1], false))
	}
	return r.text(strings.Join(parts, "&"))
}

func xmlAttrFilter(r *renderer, v any, a args) any {
	p := r.bind("xmlattr", a, "autospace?")
	d, ok := v.(*Dict)
	if !ok {
		r.fail("xmlattr needs a mapping, not '%s'", typeName(v))
	}
	out := ""
	for i, k := range d.keys {
		if _, missing := d.values[i].(*undefined); missing || d.values[i] == nil {
			continue
		}
		name, ok := asText(k)
		if !ok || strings.ContainsAny(name, " \t\n\r\f\v/>=") {
			r.fail("invalid character in attribute name %s", r.repr(k))
		}
		text := r.str(d.values[i])
		if _, safe := d.values[i].(markup); !safe {
			text = escapeHTML(text)
		}
		if out != "" {
			out += " "
		}
		out += escapeHTML(name) + "=\"" + text + "\""
		r.charge(len(out))
	}
	if out != "" && truth(or(p[0], true)) {
		out = " " + out
	}
	return out
}

func lengthFilter(r *renderer, v any, a args) any {
	r.bind("length", a)
	n, ok := length(v)
	if !ok {
		r.fail("object of type '%s' has no len()", typeName(v))
	}
	return n
}

func defaultFilter(r *renderer, v any, a args) any {
	p := r.bind("default", a, "default_value?", "boolean?")
	if _, missing := v.(*undefined); missing || truth(or(p[1], false)) && !truth(v) {
		return or(p[0], "")
	}
	return v
}

func absFilter(r *renderer, v any, a args) any {
	r.bind("abs", a)
	r.failUndefined(v)
	switch n := v.(type) {
	case float64:
		return math.Abs(n)
	case bool, int64, *big.Int:
		return normInt(new(big.Int).Abs(toBig(n)))
	}
	r.fail("bad operand type for abs(): '%s'", typeName(v))
	return nil
}

func attrFilter(r *renderer, v any, a args) any {
	p := r.bind("attr", a, "name")
	name := r.textArg(p[0], "")
	r.failUndefined(v)
	if own, ok := r.ownAttribute(v, name); ok {
		return own
	}
	return noAttribute(v, name)
}

// pythonInt is int(text, base) with the underscores and signs it allows.
func pythonInt(s string, base int) (*big.Int, bool) {
	s = strings.TrimFunc(s, isSpace)
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || len(digits) > maxIntDigits {
		return nil, false
	}
	lowered := strings.ToLower(digits)
	for prefix, b := range map[string]int{"0x": 16, "0o": 8, "0b": 2} {
		if strings.HasPrefix(lowered, prefix) && (base == b || base == 0) {
			digits, base = strings.TrimPrefix(digits[2:], "_"), b
		}
	}
	if base == 0 {
		if base = 10; len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0_") != "" {
			return nil, false
		}
	}
	if digits == "" || strings.HasPrefix(digits, "_") || strings.HasSuffix(digits, "_") || strings.Contains(digits, "__") || strings.ContainsAny(digits, "+-") {
		return nil, false
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(asciiDigits(digits), "_", ""), base)
	if ok && strings.HasPrefix(s, "-") {
		n.Neg(n)
	}
	return n, ok
}

// asciiDigits replaces other scripts' decimal digits, which Python reads.
func asciiDigits(s string) string {
	return strings.Map(func(c rune) rune {
		if c < utf8.RuneSelf || !unicode.IsDigit(c) {
			return c
		}
		zero := c
		for unicode.IsDigit(zero-1) && c-zero < 9 {
			zero--
		}
		return '0' + (c - zero)
	}, s)
}

// pythonFloat is float(text).
func pythonFloat(s string) (float64, bool) {
	s = strings.ToLower(asciiDigits(strings.TrimFunc(s, isSpace)))
	if strings.ContainsAny(s, "xp") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return 0, false
	}
	for i := range len(s) { // an underscore stands between digits only
		if s[i] == '_' && (!isDigit(s[i-1]) || !isDigit(s[i+1])) {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func intFilter(r *renderer, v any, a args) any {
	p := r.bind("int", a, "default?", "base?")
	r.failUndefined(v)
	f, isFloat := v.(float64)
	if s, ok := asText(v); ok {
		base := r.intArg(p[1], 10)
		if base < 0 || base > 36 || base == 1 {
			return or(p[0], int64(0))
		}
		if n, ok := pythonInt(s, int(base)); ok {
			return normInt(n)
		}
		f, isFloat = pythonFloat(s)
	} else if isNumber(v) && !isFloat {
		return normInt(toBig(v))
	}
	if !isFloat || math.IsNaN(f) || math.IsInf(f, 0) {
		if v, wasFloat := v.(float64); wasFloat && math.IsInf(v, 0) {
			r.fail("cannot convert float infinity to integer")
		}
		return or(p[0], int64(0))
	}
	return r.floatToInt(f)
}

func floatFilter(r *renderer, v any, a args) any {
	p := r.bind("float", a, "default?")
	r.failUndefined(v)
	if s, ok := asText(v); ok {
		if f, ok := pythonFloat(s); ok {
			return f
		}
	} else if isNumber(v) {
		return r.toFloat(v)
	}
	return or(p[0], 0.0)
}

func roundFilter(r *renderer, v any, a args) any {
	p := r.bind("round", a, "precision?", "method?")
	r.failUndefined(v)
	if !isNumber(v) {
		r.fail("type %s cannot be rounded", typeName(v))
	}
	precision, method := r.intArg(p[0], 0), r.textArg(p[1], "common")
	precision = min(max(precision, -400), 400)
	switch method {
	case "common":
		if !isFloat(v) {
			return r.roundInt(toBig(v), precision)
		}
		f := v.(float64)
		if precision >= 0 {
			f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(precision), 64), 64)
			return f
		}
		scale := math.Pow(10, float64(-precision))
		return math.RoundToEven(f/scale) * scale
	case "ceil", "floor":
		scale := math.Pow(10, float64(precision))
		n := r.toFloat(v) * scale
		if method == "ceil" {
			n = math.Ceil(n)
		} else {
			n = math.Floor(n)
		}
		return (n + 0) / scale // Python's is an integer here, and has no -0
	}
	r.fail("method must be common, ceil or floor")
	return nil
}

// roundInt rounds to a power of ten, halves to even.
func (r *renderer) roundInt(n *big.Int, precision int64) any {
	if precision >= 0 {
		return normInt(n)
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(-precision), nil)
	q, m := new(big.Int).DivMod(n, unit, new(big.Int))
	switch half := new(big.Int).Lsh(m, 1).Cmp(unit); {
	case half > 0, half == 0 && q.Bit(0) == 1:
		q.Add(q, big.NewInt(1))
	}
	return normInt(q.Mul(q, unit))
}

func fileSizeFilter(r *renderer, v any, a args) any {
	p := r.bind("filesizeformat", a, "binary?")
	bytes, ok := floatFilter(r, v, args{positional: []any{nil}}).(float64)
	if !ok {
		r.fail("filesizeformat needs a number, not '%s'", typeName(v))
	}
	base, suffix := 1000.0, "B"
	units := []string{"k", "M", "G", "T", "P", "E", "Z", "Y"}
	if truth(or(p[0], false)) {
		base, suffix, units[0] = 1024, "iB", "K"
	}
	if bytes == 1 {
		return "1 Byte"
	}
	if bytes < base {
		return fmt.Sprintf("%d Bytes", int64(bytes))
	}
	size := bytes
	for i, u := range units {
		if size /= base; size < base || i == len(units)-1 {
			return strconv.FormatFloat(size, 'f', 1, 64) + " " + u + suffix
		}
	}
	return nil
}

// stableSort sorts by key as Python's sorted does: stably, with < only.
func (r *renderer) stableSort(items, keys []any, reverse bool) []any {
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
	}
	r.step(len(items))
	sort.SliceStable(order, func(i, j int) bool {
		if reverse {
			return r.order("<", keys[order[j]], keys[order[i]])
		}
		return r.order("<", keys[order[i]], keys[order[j]])
	})
	out := make([]any, len(items))
	for i, at := range order {
		out[i] = items[at]
	}
	return out
}
