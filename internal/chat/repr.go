package chat

// Printing values as Python's str and repr do.

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is str(v): what printing v writes.
func (r *renderer) str(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case markup:
		return string(v)
	case *undefined:
		return ""
	}
	return r.repr(v)
}

// repr is repr(v). Values whose representation holds a memory address are
// an error: no template prints one on purpose.
func (r *renderer) repr(v any) string {
	var b strings.Builder
	r.appendRepr(&b, v)
	return b.String()
}

func (r *renderer) appendRepr(b *strings.Builder, v any) {
	start := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		if v {
			b.WriteString("True")
		} else {
			b.WriteString("False")
		}
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		b.WriteString(r.bigDigits(v))
	case float64:
		b.WriteString(floatRepr(v))
	case string:
		b.WriteString(reprString(v))
	case markup:
		b.WriteString("Markup(" + reprString(string(v)) + ")")
	case *undefined:
		b.WriteString("Undefined")
	case *seq:
		open, end := "[", "]"
		if v.tuple {
			if open, end = "(", ")"; len(v.items) == 1 {
				end = ",)"
			}
		}
		r.appendList(b, open, v.items, end)
	case *Dict:
		r.appendDict(b, v)
	case *dictView:
		b.WriteString(v.kind + "(")
		r.appendList(b, "[", v.list(), "])")
	case *span:
		if v.step == 1 {
			fmt.Fprintf(b, "range(%d, %d)", v.start, v.stop)
		} else {
			fmt.Fprintf(b, "range(%d, %d, %d)", v.start, v.stop, v.step)
		}
	case *namespace:
		b.WriteString("<Namespace ")
		r.appendDict(b, &v.attrs)
		b.WriteString(">")
	case *selfReference:
		b.WriteString("<TemplateReference None>")
	case *macro:
		b.WriteString("<Macro " + reprString(v.name) + ">")
	case *loopContext:
		fmt.Fprintf(b, "<LoopContext %d/%d>", v.index0+1, v.length())
	default:
		r.fail("a %s cannot be printed: call it, or make a list of it with |list", typeName(v))
	}
	if b.Len() > maxOutput {
		r.failLimit("a string of more than %d bytes", maxOutput)
	}
	r.charge(b.Len() - start)
}

func (r *renderer) appendList(b *strings.Builder, open string, items []any, end string) {
	b.WriteString(open)
	r.nested(func() {
		for i, item := range items {
			if i > 0 {
				b.WriteString(", ")
			}
			r.appendRepr(b, item)
		}
	})
	b.WriteString(end)
}

func (r *renderer) appendDict(b *strings.Builder, d *Dict) {
	b.WriteString("{")
	r.nested(func() {
		for i, key := range d.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			r.appendRepr(b, key)
			b.WriteString(": ")
			r.appendRepr(b, d.values[i])
		}
	})
	b.WriteString("}")
}

func (r *renderer) bigDigits(n *big.Int) string {
	s := n.String()
	if len(strings.TrimPrefix(s, "-")) > maxIntDigits {
		r.fail("exceeds the limit (%d digits) for integer string conversion", maxIntDigits)
	}
	return s
}

// floatRepr is Python's repr of a float: the shortest digits that give it
// back, with an exponent below 1e-4 and from 1e16.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// reprString quotes s as Python does: single quotes unless only those occur.
func reprString(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, "\"") {
		quote = '"'
	}
	var b strings.Builder
	b.WriteByte(quote)
	for _, c := range s {
		switch {
		case c == rune(quote) || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString("\\n")
		case c == '\r':
			b.WriteString("\\r")
		case c == '\t':
			b.WriteString("\\t")
		case isPrintable(c):
			b.WriteRune(c)
		default:
			b.WriteString(asciiEscape(c))
		}
	}
	b.WriteByte(quote)
	return b.String()
}

// asciiEscape spells a character as \x, \u or \U.
func asciiEscape(c rune) string {
	switch {
	case c < 0x100:
		return fmt.Sprintf("\\x%02x", c)
	case c < 0x10000:
		return fmt.Sprintf("\\u%04x", c)
	}
	return fmt.Sprintf("\\U%08x", c)
}

// isPrintable is what str.isprintable asks of a character.
func isPrintable(c rune) bool {
	if c < 0x7f {
		return c >= 0x20
	}
	return c != utf8.RuneError && unicode.IsPrint(c) || c == utf8.RuneError
}

func runeLen(s string) int { return utf8.RuneCountInString(s) }

// runeSlice is the characters from..to of s.
func runeSlice(s string, from, to int) string {
	if len(s) == runeLen(s) {
		return s[from:to]
	}
	start, end, n := len(s), len(s), 0
	for i := range s {
		if n == from {
			start = i
		}
		if n == to {
			end = i
			break
		}
		n++
	}
	if from >= to {
		return ""
	}
	return s[start:end]
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", ">", "&gt;", "<", "&lt;", "'", "&#39;", "\"", "&#34;")

func escapeHTML(s string) string { return htmlEscaper.Replace(s) }
