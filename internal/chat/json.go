package chat

// JSON in both directions: rows of a data set become values, and the tojson
// filter writes values as Python's json.dumps does.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ParseJSON decodes one JSON value, keeping the order of object keys: an
// object becomes *Dict, an array []any, a number int64, *big.Int or float64.
// Of a key that stands twice the last value counts.
func ParseJSON(data []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseJSONValue(dec, 0)
	if err != nil {
		return nil, fmt.Errorf("chat: parsing JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("chat: parsing JSON: text after the value at byte %d", dec.InputOffset())
	}
	return v, nil
}

func parseJSONValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels at byte %d", maxDepth, dec.InputOffset())
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case json.Number:
		return parseNumber(tok.String())
	case json.Delim:
		if tok == '[' {
			items := []any{}
			for dec.More() {
				item, err := parseJSONValue(dec, depth+1)
				if err != nil {
					return nil, err
				}
				items = append(items, item)
			}
			_, err := dec.Token()
			return items, err
		}
		d := &Dict{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			item, err := parseJSONValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			name, _ := key.(string) // the decoder lets no other key through
			d.Set(name, item)
		}
		_, err := dec.Token()
		return d, err
	}
	return tok, nil // string, bool or nil
}

func parseNumber(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if errors.Is(err, strconv.ErrRange) {
			err = nil // infinity or zero, as in Python
		}
		return f, err
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	if len(s) > maxIntDigits {
		return nil, fmt.Errorf("integer of %d digits, the limit is %d", len(s), maxIntDigits)
	}
	n, _ := new(big.Int).SetString(s, 10)
	return n, nil
}

// jsonWriter writes values as json.dumps with its options.
type jsonWriter struct {
	r         *renderer
	b         strings.Builder
	ascii     bool
	sortKeys  bool
	pretty    bool
	indent    string
	itemSep   string
	keySep    string
	indention int
}

func (w *jsonWriter) value(v any) {
	w.r.step(1)
	if w.b.Len() > maxOutput {
		w.r.failLimit("a string of more than %d bytes", maxOutput)
	}
	switch v := v.(type) {
	case nil:
		w.b.WriteString("null")
	case bool:
		w.b.WriteString(strconv.FormatBool(v))
	case int64:
		w.b.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		w.b.WriteString(w.r.bigDigits(v))
	case float64:
		w.b.WriteString(jsonFloat(v))
	case string:
		w.text(v)
	case markup:
		w.text(string(v))
	case *seq:
		w.container("[", "]", len(v.items), func(i int) { w.value(v.items[i]) })
	case *Dict:
		w.object(v)
	default:
		w.r.fail("a value of type %s is not JSON serializable", typeName(v))
	}
}

func (w *jsonWriter) container(open, end string, n int, item func(i int)) {
	w.b.WriteString(open)
	if n > 0 {
		w.indention++
		w.r.nested(func() {
			for i := range n {
				if i > 0 {
					w.b.WriteString(w.itemSep)
				}
				w.newline()
				item(i)
			}
		})
		w.indention--
		w.newline()
	}
	w.b.WriteString(end)
}

func (w *jsonWriter) newline() {
	if !w.pretty {
		return
	}
	n := len(w.indent) * w.indention
	if n > maxOutput-min(w.b.Len(), maxOutput) {
		w.r.failLimit("a string of more than %d bytes", maxOutput)
	}
	w.r.charge(n)
	w.b.WriteString("\n")
	w.b.WriteString(strings.Repeat(w.indent, w.indention))
}

func (w *jsonWriter) object(d *Dict) {
	order := make([]int, d.Len())
	for i := range order {
		order[i] = i
	}
	if w.sortKeys {
		sort.SliceStable(order, func(i, j int) bool { return w.r.order("<", d.keys[order[i]], d.keys[order[j]]) })
	}
	w.container("{", "}", len(order), func(i int) {
		w.text(w.key(d.keys[order[i]]))
		w.b.WriteString(w.keySep)
		w.value(d.values[order[i]])
	})
}

// key is how a dictionary's key is spelled as a JSON name.
func (w *jsonWriter) key(k any) string {
	switch k := k.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(k)
	case float64:
		return jsonFloat(k)
	case int64, *big.Int:
		return w.r.repr(k)
	}
	s, ok := asText(k)
	if !ok {
		w.r.fail("keys must be str, int, float, bool or None, not %s", typeName(k))
	}
	return s
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func (w *jsonWriter) text(s string) {
	w.r.charge(len(s))
	w.b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			w.b.WriteByte('\\')
			w.b.WriteRune(c)
		case c == '\n':
			w.b.WriteString("\\n")
		case c == '\r':
			w.b.WriteString("\\r")
		case c == '\t':
			w.b.WriteString("\\t")
		case c == '\b':
			w.b.WriteString("\\b")
		case c == '\f':
			w.b.WriteString("\\f")
		case c < 0x20 || w.ascii && (c == 0x7f || c >= utf8.RuneSelf && c < 0x10000):
			fmt.Fprintf(&w.b, "\\u%04x", c)
		case w.ascii && c >= 0x10000:
			fmt.Fprintf(&w.b, "\\u%04x\\u%04x", 0xd800+(c-0x10000)>>10, 0xdc00+(c-0x10000)&0x3ff)
		default:
			w.b.WriteRune(c)
		}
	}
	w.b.WriteByte('"')
}

// toJSON is the tojson filter as transformers defines it.
func toJSON(r *renderer, v any, a args) any {
	p := r.bind("tojson", a, "ensure_ascii?", "indent?", "separators?", "sort_keys?")
	w := &jsonWriter{r: r, ascii: truth(or(p[0], false)), sortKeys: truth(or(p[3], false)), itemSep: ", ", keySep: ": "}
	switch indent := or(p[1], nil).(type) {
	case nil:
	case string:
		w.pretty, w.indent = true, indent
	default:
		n := r.intArg(indent, 0)
		if n > 1024 {
			r.failLimit("an indent of more than 1024")
		}
		w.pretty, w.indent = true, strings.Repeat(" ", int(max(n, 0)))
	}
	if w.pretty {
		w.itemSep = ","
	}
	if sep := or(p[2], nil); sep != nil {
		pair := r.collect(sep)
		if len(pair) != 2 {
			r.fail("separators must be two strings")
		}
		w.itemSep, w.keySep = r.textArg(pair[0], ""), r.textArg(pair[1], "")
	}
	w.value(v)
	return r.text(w.b.String())
}
