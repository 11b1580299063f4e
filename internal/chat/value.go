package chat

// Values as Python has them. A template value is one of
//
//	nil bool int64 *big.Int float64 string markup
//	*seq *Dict *dictView *span *generator *namespace
//	*function *macro *loopContext *selfReference *undefined
//
// where *big.Int only holds what int64 cannot.

import (
	"fmt"
	"iter"
	"math"
	"math/big"
	"sort"
)

// markup is text the safe or escape filter marked: adding to it escapes HTML.
type markup string

// seq is a list, or a tuple.
type seq struct {
	items []any
	tuple bool
}

func newList(items []any) *seq   { return &seq{items: items} }
func newTuple(items ...any) *seq { return &seq{items: items, tuple: true} }

// Dict is a dictionary that keeps the order in which keys were first set, as
// Python's does. The zero value is empty and ready to use; a nil *Dict is
// empty too. Templates cannot change one.
type Dict struct {
	keys, values []any
	index        map[any]int // by hashable key
}

// Set gives key a value: nil, a bool, number or string, a []any,
// map[string]any (its keys are then sorted) or *Dict of such. Rendering
// fails on any other.
func (d *Dict) Set(key string, value any) { d.put(key, key, value) }

// Lookup returns the value of key.
func (d *Dict) Lookup(key string) (value any, ok bool) { return d.find(key) }

// Len is the number of keys.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.keys)
}

// All yields the string keys and their values in order.
func (d *Dict) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for i := range d.Len() {
			if k, ok := d.keys[i].(string); ok && !yield(k, d.values[i]) {
				return
			}
		}
	}
}

func (d *Dict) put(hash, key, value any) {
	if i, ok := d.index[hash]; ok {
		d.values[i] = value
		return
	}
	if d.index == nil {
		d.index = map[any]int{}
	}
	d.index[hash] = len(d.keys)
	d.keys = append(d.keys, key)
	d.values = append(d.values, value)
}

func (d *Dict) find(hash any) (any, bool) {
	if d == nil {
		return nil, false
	}
	i, ok := d.index[hash]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// items are the dictionary's (key, value) tuples.
func (d *Dict) items() []any {
	out := make([]any, d.Len())
	for i := range out {
		out[i] = newTuple(d.keys[i], d.values[i])
	}
	return out
}

// dictView is what keys(), values() and items() of a dictionary give.
type dictView struct {
	kind string // dict_keys, dict_values, dict_items
	dict *Dict
}

func (v *dictView) list() []any {
	switch v.kind {
	case "dict_keys":
		return v.dict.keys
	case "dict_values":
		return v.dict.values
	}
	return v.dict.items()
}

// span is a range object.
type span struct{ start, stop, step int64 }

func (r *span) len() int64 {
	switch {
	case r.step > 0 && r.start < r.stop:
		return (r.stop-r.start-1)/r.step + 1
	case r.step < 0 && r.start > r.stop:
		return (r.start-r.stop-1)/-r.step + 1
	}
	return 0
}

// generator yields its values once, computing each when it is asked for.
type generator struct {
	kind string
	next func() (any, bool)
}

// namespace is the one value a template can change.
type namespace struct{ attrs Dict }

// selfReference is the variable "self", which holds the {% block %}s of a
// template. There are none here: all its attributes are undefined.
type selfReference struct{}

// undefined is the value of what does not exist. It prints as nothing, is
// false and empty, and fails when anything else is asked of it.
type undefined struct{ why string }

// function is a callable of the engine: a global, or a method bound to its
// object.
type function struct {
	name string
	call func(r *renderer, a args) any
}

// hashKey is what v is filed under in a dictionary: equal values have equal
// keys. Lists and dictionaries have none.
func (r *renderer) hashKey(v any) (key any, ok bool) {
	switch v := v.(type) {
	case nil:
		return noneKey{}, true
	case bool:
		if v {
			return int64(1), true
		}
		return int64(0), true
	case float64:
		if n := int64(v); float64(n) == v && math.Abs(v) < 1<<62 {
			return n, true
		}
		return v, true
	case *big.Int:
		return bigKey(v.String()), true
	case markup:
		return string(v), true
	case *undefined:
		return undefinedKey{}, true
	case *seq:
		if !v.tuple {
			return nil, false
		}
		text := ""
		r.nested(func() {
			for _, item := range v.items {
				k, ok := r.hashKey(item)
				if !ok {
					r.fail("unhashable type: '%s'", typeName(item))
				}
				text += fmt.Sprintf("%T:%q,", k, fmt.Sprint(k))
				r.charge(len(text))
			}
		})
		return tupleKey(text), true
	case *Dict, *dictView:
		return nil, false
	}
	return v, true // int64, string, and pointers by identity
}

type (
	noneKey      struct{}
	undefinedKey struct{}
	bigKey       string
	tupleKey     string
)

// mustHash is hashKey where a value without one is an error.
func (r *renderer) mustHash(v any) any {
	k, ok := r.hashKey(v)
	if !ok {
		r.fail("unhashable type: '%s'", typeName(v))
	}
	return k
}

// typeName is what Python calls the type of v.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case markup:
		return "Markup"
	case *seq:
		if v.tuple {
			return "tuple"
		}
		return "list"
	case *Dict:
		return "dict"
	case *dictView:
		return v.kind
	case *span:
		return "range"
	case *generator:
		return v.kind
	case *namespace:
		return "Namespace"
	case *undefined:
		return "Undefined"
	case *selfReference:
		return "TemplateReference"
	case *macro:
		return "Macro"
	case *loopContext:
		return "LoopContext"
	}
	return "function"
}

func normInt(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// asText gives the text of a string or markup.
func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case markup:
		return string(v), true
	}
	return "", false
}

// asInt gives an index-like integer; booleans count.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return v, true
	case *big.Int: // beyond any index: clamp as slices do
		if v.Sign() < 0 {
			return math.MinInt64, true
		}
		return math.MaxInt64, true
	}
	return 0, false
}

func truth(v any) bool {
	switch v := v.(type) {
	case nil, *undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case markup:
		return v != ""
	}
	if n, ok := length(v); ok {
		return n > 0
	}
	return true
}

// length is len(v), for what has one.
func length(v any) (int64, bool) {
	switch v := v.(type) {
	case string:
		return int64(runeLen(v)), true
	case markup:
		return int64(runeLen(string(v))), true
	case *seq:
		return int64(len(v.items)), true
	case *Dict:
		return int64(v.Len()), true
	case *dictView:
		return int64(v.dict.Len()), true
	case *span:
		return v.len(), true
	case *loopContext:
		return v.length(), true
	case *undefined:
		return 0, true
	}
	return 0, false
}

// iterate starts an iteration over v.
func (r *renderer) iterate(v any) *generator {
	switch v := v.(type) {
	case string:
		return runeIterator(v)
	case markup:
		return runeIterator(string(v))
	case *seq:
		return sliceIterator("list_iterator", v.items)
	case *Dict:
		return sliceIterator("dict_keyiterator", v.keys)
	case *dictView:
		return sliceIterator(v.kind, v.list())
	case *span:
		i, n := int64(-1), v.len()
		return &generator{"range_iterator", func() (any, bool) {
			if i+1 >= n {
				return nil, false
			}
			i++
			return v.start + i*v.step, true
		}}
	case *generator:
		return v
	case *undefined:
		return sliceIterator("generator", nil)
	}
	r.fail("'%s' object is not iterable", typeName(v))
	return nil
}

func sliceIterator(kind string, items []any) *generator {
	i := 0
	return &generator{kind, func() (any, bool) {
		if i >= len(items) {
			return nil, false
		}
		i++
		return items[i-1], true
	}}
}

func runeIterator(s string) *generator {
	return &generator{"str_iterator", func() (any, bool) {
		if s == "" {
			return nil, false
		}
		for i := range s {
			if i > 0 {
				c := s[:i]
				s = s[i:]
				return c, true
			}
		}
		c := s
		s = ""
		return c, true
	}}
}

// collect is list(v): its items, in a slice the caller may change.
func (r *renderer) collect(v any) []any {
	if s, ok := v.(*seq); ok {
		r.step(len(s.items))
		return append([]any(nil), s.items...)
	}
	var out []any
	for it := r.iterate(v); ; {
		item, ok := it.next()
		if !ok {
			return out
		}
		r.step(1)
		out = append(out, item)
	}
}

// fromGo makes a template value of what a caller handed in.
func fromGo(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("chat: a value is nested deeper than %d levels", maxDepth)
	}
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v, nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case float32:
		return float64(v), nil
	case *big.Int:
		return normInt(v), nil
	case []string:
		items := make([]any, len(v))
		for i, s := range v {
			items[i] = s
		}
		return newList(items), nil
	case []any:
		items := make([]any, len(v))
		for i := range v {
			item, err := fromGo(v[i], depth+1)
			if err != nil {
				return nil, err
			}
			items[i] = item
		}
		return newList(items), nil
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		d := &Dict{}
		for _, k := range keys {
			d.Set(k, v[k])
		}
		return fromGo(d, depth)
	case *Dict:
		d := &Dict{}
		for k, item := range v.All() {
			value, err := fromGo(item, depth+1)
			if err != nil {
				return nil, err
			}
			d.Set(k, value)
		}
		return d, nil
	}
	return nil, fmt.Errorf("chat: a template cannot take a %T: convert it to string, number, bool, []any or *chat.Dict", v)
}
