package chat

// Filters over sequences and mappings. Those that are generators in Python
// are here too: they compute each item when it is asked for, and only once.

import (
	"strconv"
	"strings"
)

// attrPath is the lookup of a filter's attribute argument: "a.b.0" goes
// through attributes and indexes; nil is the item itself.
type attrPath struct {
	parts []any
	fold  bool // strings compare without case
	def   any  // stands for what is undefined, unless nil
}

func (r *renderer) attrPath(v any) attrPath {
	switch v := v.(type) {
	case nil:
		return attrPath{}
	case string, markup:
		s, _ := asText(v)
		var parts []any
		for _, part := range strings.Split(s, ".") {
			if n, err := strconv.ParseUint(part, 10, 32); err == nil {
				parts = append(parts, int64(n))
			} else {
				parts = append(parts, part)
			}
		}
		return attrPath{parts: parts}
	}
	return attrPath{parts: []any{v}}
}

func (p attrPath) get(r *renderer, item any) any {
	for _, part := range p.parts {
		item = r.item(item, part)
		if _, missing := item.(*undefined); missing && p.def != nil {
			item = p.def
		}
	}
	if s, ok := item.(string); ok && p.fold {
		return lower(s)
	}
	if s, ok := item.(markup); ok && p.fold {
		return markup(lower(string(s)))
	}
	return item
}

func listFilter(r *renderer, v any, a args) any {
	r.bind("list", a)
	return newList(r.collect(v))
}

func itemsFilter(r *renderer, v any, a args) any {
	r.bind("items", a)
	if _, missing := v.(*undefined); missing {
		return sliceIterator("generator", nil)
	}
	return r.lazy(func() *generator {
		d, ok := v.(*Dict)
		if !ok {
			r.fail("can only get item pairs from a mapping, not '%s'", typeName(v))
		}
		return sliceIterator("generator", d.items())
	})
}

// lazy is a generator that starts only when its first item is asked for.
func (r *renderer) lazy(start func() *generator) *generator {
	var it *generator
	return &generator{"generator", func() (any, bool) {
		if it == nil {
			it = start()
		}
		r.step(1)
		return it.next()
	}}
}

func firstFilter(r *renderer, v any, a args) any {
	r.bind("first", a)
	if item, ok := r.iterate(v).next(); ok {
		return item
	}
	return &undefined{"no first item, sequence was empty"}
}

func lastFilter(r *renderer, v any, a args) any {
	r.bind("last", a)
	if item, ok := r.reversed(v).next(); ok {
		return item
	}
	return &undefined{"no last item, sequence was empty"}
}

// reversed is reversed(v), for what has an order from the end.
func (r *renderer) reversed(v any) *generator {
	switch v.(type) {
	case string, markup, *seq, *Dict, *dictView, *span, *undefined:
		items := r.collect(v)
		for i, j := 0, len(items)-1; i < j; i, j = i+1, j-1 {
			items[i], items[j] = items[j], items[i]
		}
		return sliceIterator("list_reverseiterator", items)
	}
	r.fail("'%s' object is not reversible", typeName(v))
	return nil
}

func reverseFilter(r *renderer, v any, a args) any {
	r.bind("reverse", a)
	if s, ok := asText(v); ok {
		_, same := r.softText(v)
		runes := []rune(s)
		for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
			runes[i], runes[j] = runes[j], runes[i]
		}
		return same(string(runes))
	}
	switch v.(type) {
	case *seq, *Dict, *dictView, *span, *undefined:
		return r.reversed(v)
	}
	items := r.collect(v)
	return newList(r.collect(r.reversed(newList(items))))
}

func joinFilter(r *renderer, v any, a args) any {
	p := r.bind("join", a, "d?", "attribute?")
	path := r.attrPath(or(p[1], nil))
	sep := r.str(or(p[0], ""))
	var b strings.Builder
	for i, item := range r.collect(v) {
		if i > 0 {
			r.appendBounded(&b, sep)
		}
		r.appendBounded(&b, r.str(path.get(r, item)))
	}
	return r.text(b.String())
}

func dictSortFilter(r *renderer, v any, a args) any {
	p := r.bind("dictsort", a, "case_sensitive?", "by?", "reverse?")
	at := 0
	switch by, _ := asText(or(p[1], "key")); by {
	case "key":
	case "value":
		at = 1
	default:
		r.fail("dictsort sorts by \"key\" or \"value\"")
	}
	d, ok := v.(*Dict)
	if !ok {
		r.failUndefined(v)
		r.fail("dictsort needs a mapping, not '%s'", typeName(v))
	}
	path := attrPath{fold: !truth(or(p[0], false))}
	items := d.items()
	keys := make([]any, len(items))
	for i, item := range items {
		keys[i] = path.get(r, item.(*seq).items[at])
	}
	return newList(r.stableSort(items, keys, truth(or(p[2], false))))
}

func sortFilter(r *renderer, v any, a args) any {
	p := r.bind("sort", a, "reverse?", "case_sensitive?", "attribute?")
	var paths []attrPath
	fold := !truth(or(p[1], false))
	if names, ok := asText(or(p[2], nil)); ok {
		for _, name := range strings.Split(names, ",") {
			paths = append(paths, r.attrPath(name))
		}
	} else {
		paths = append(paths, r.attrPath(or(p[2], nil)))
	}
	items := r.collect(v)
	keys := make([]any, len(items))
	for i, item := range items {
		key := &seq{}
		for _, path := range paths {
			path.fold = fold
			key.items = append(key.items, path.get(r, item))
		}
		keys[i] = key
	}
	return newList(r.stableSort(items, keys, truth(or(p[0], false))))
}

func uniqueFilter(r *renderer, v any, a args) any {
	p := r.bind("unique", a, "case_sensitive?", "attribute?")
	path := r.attrPath(or(p[1], nil))
	path.fold = !truth(or(p[0], false))
	seen := map[any]bool{}
	return r.lazy(func() *generator {
		return r.where(r.iterate(v), func(item any) bool {
			key := r.mustHash(path.get(r, item))
			again := seen[key]
			seen[key] = true
			return !again
		})
	})
}

func extremeFilter(name, op string) filter {
	return func(r *renderer, v any, a args) any {
		p := r.bind(name, a, "case_sensitive?", "attribute?")
		path := r.attrPath(or(p[1], nil))
		path.fold = !truth(or(p[0], false))
		items := r.collect(v)
		if len(items) == 0 {
			return &undefined{"no aggregated item, sequence was empty"}
		}
		best, bestKey := items[0], path.get(r, items[0])
		for _, item := range items[1:] {
			if key := path.get(r, item); r.order(op, key, bestKey) {
				best, bestKey = item, key
			}
		}
		return best
	}
}

func sumFilter(r *renderer, v any, a args) any {
	p := r.bind("sum", a, "attribute?", "start?")
	path := r.attrPath(or(p[0], nil))
	total := or(p[1], int64(0))
	if _, isText := asText(total); isText {
		r.fail("sum cannot add strings: use join")
	}
	for _, item := range r.collect(v) {
		total = r.binary("+", total, path.get(r, item))
	}
	return total
}

func groupByFilter(r *renderer, v any, a args) any {
	p := r.bind("groupby", a, "attribute", "default?", "case_sensitive?")
	path := r.attrPath(p[0])
	path.def = or(p[1], nil)
	shown := path
	path.fold = !truth(or(p[2], false))
	items := r.collect(v)
	keys := make([]any, len(items))
	for i, item := range items {
		keys[i] = path.get(r, item)
	}
	items = r.stableSort(items, keys, false)
	var groups []any
	for start := 0; start < len(items); {
		key, end := path.get(r, items[start]), start+1
		for end < len(items) && r.equal(key, path.get(r, items[end])) {
			end++
		}
		// Python's named fields grouper and list are reached by index here
		// as well as by unpacking, which is how templates use them.
		groups = append(groups, newTuple(shown.get(r, items[start]), newList(items[start:end])))
		start = end
	}
	return newList(groups)
}

func batchFilter(r *renderer, v any, a args) any {
	p := r.bind("batch", a, "linecount", "fill_with?")
	size, fill := r.intArg(p[0], 0), or(p[1], nil)
	return r.lazy(func() *generator {
		items := r.collect(v)
		var rows []any
		for len(items) > 0 {
			n := int(min(max(size, 1), int64(len(items))))
			row := append([]any(nil), items[:n]...)
			items = items[n:]
			if fill != nil && int64(n) < size {
				if size > maxSteps {
					r.failLimit("more than %d steps of work", maxSteps)
				}
				r.step(int(size) - n)
				for int64(len(row)) < size {
					row = append(row, fill)
				}
			}
			rows = append(rows, newList(row))
		}
		return sliceIterator("generator", rows)
	})
}

func sliceFilter(r *renderer, v any, a args) any {
	p := r.bind("slice", a, "slices", "fill_with?")
	count, fill := r.intArg(p[0], 0), or(p[1], nil)
	return r.lazy(func() *generator {
		items := r.collect(v)
		if count == 0 {
			r.fail("integer division or modulo by zero")
		}
		if count > maxRange {
			r.failLimit("more than %d slices", maxRange)
		}
		var rows []any
		n := int64(len(items))
		at := int64(0)
		for i := int64(0); i < count; i++ {
			size := n / count
			if i < n%count {
				size++
			}
			row := append([]any(nil), items[at:at+size]...)
			at += size
			if fill != nil && i >= n%count {
				row = append(row, fill)
			}
			rows = append(rows, newList(row))
		}
		r.step(len(rows))
		return sliceIterator("generator", rows)
	})
}

func mapFilter(r *renderer, v any, a args) any {
	return r.lazy(func() *generator {
		if !truth(v) {
			return sliceIterator("generator", nil)
		}
		apply := r.mapper(a)
		it := r.iterate(v)
		return &generator{"generator", func() (any, bool) {
			item, ok := it.next()
			if !ok {
				return nil, false
			}
			return apply(item), true
		}}
	})
}

// mapper is the function of a map filter: another filter, or an attribute.
func (r *renderer) mapper(a args) func(any) any {
	if len(a.positional) == 0 {
		named := map[string]any{}
		for _, k := range a.keyword {
			named[k.name] = k.value
		}
		if attribute, ok := named["attribute"]; ok {
			path := r.attrPath(attribute)
			path.def = named["default"]
			for name := range named {
				if name != "attribute" && name != "default" {
					r.fail("map got an unexpected keyword argument '%s'", name)
				}
			}
			return func(item any) any { return path.get(r, item) }
		}
		r.fail("map requires a filter argument")
	}
	name, ok := asText(a.positional[0])
	if !ok {
		r.fail("there is no filter %s", r.repr(a.positional[0]))
	}
	rest := args{a.positional[1:], a.keyword}
	return func(item any) any { return r.callFilter(name, item, rest) }
}

// selectFilter is select, reject and their attr forms: keep says whether
// items that pass the test stay.
func selectFilter(name string, byAttr, keep bool) filter {
	return func(r *renderer, v any, a args) any {
		return r.lazy(func() *generator {
			if !truth(v) {
				return sliceIterator("generator", nil)
			}
			passes := r.selector(name, a, byAttr)
			return r.where(r.iterate(v), func(item any) bool { return passes(item) == keep })
		})
	}
}

func (r *renderer) selector(filterName string, a args, byAttr bool) func(any) bool {
	path := attrPath{}
	rest := a.positional
	if byAttr {
		if len(rest) == 0 {
			r.fail("%s misses the attribute's name", filterName)
		}
		path, rest = r.attrPath(rest[0]), rest[1:]
	}
	if len(rest) == 0 {
		return func(item any) bool { return truth(path.get(r, item)) }
	}
	name, ok := asText(rest[0])
	if !ok {
		r.fail("there is no test %s", r.repr(rest[0]))
	}
	testArgs := args{rest[1:], a.keyword}
	return func(item any) bool { return truth(r.callTest(name, path.get(r, item), testArgs)) }
}
