package chat

// Attributes, subscripts and slices.

import "math"

// attribute is object.name: the object's own attributes and methods come
// first, then its items.
func (r *renderer) attribute(object any, name string) any {
	r.failUndefined(object)
	if v, ok := r.ownAttribute(object, name); ok {
		return v
	}
	if d, ok := object.(*Dict); ok {
		if v, ok := d.find(name); ok {
			return v
		}
	}
	return noAttribute(object, name)
}

// item is object[index]: the object's items come first, then attributes.
func (r *renderer) item(object, index any) any {
	r.failUndefined(object)
	switch o := object.(type) {
	case *Dict:
		if hash, ok := r.hashKey(index); ok {
			if v, ok := o.find(hash); ok {
				return v
			}
		}
	case string, markup, *seq, *span:
		if i, ok := asInt(index); ok {
			if v, ok := elementAt(o, i); ok {
				return v
			}
		}
	}
	if name, ok := asText(index); ok {
		if v, ok := r.ownAttribute(object, name); ok {
			return v
		}
		return noAttribute(object, name)
	}
	return &undefined{describeObject(object) + " has no element " + r.repr(index)}
}

func noAttribute(object any, name string) *undefined {
	return &undefined{"'" + describeObject(object) + "' has no attribute " + reprString(name)}
}

func describeObject(v any) string {
	if v == nil {
		return "None"
	}
	return typeName(v) + " object"
}

// elementAt is the i-th element, counted from the end where i < 0.
func elementAt(v any, i int64) (any, bool) {
	n, _ := length(v)
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		return nil, false
	}
	switch v := v.(type) {
	case *seq:
		return v.items[i], true
	case *span:
		return v.start + i*v.step, true
	case markup:
		return markup(runeSlice(string(v), int(i), int(i)+1)), true
	}
	return runeSlice(v.(string), int(i), int(i)+1), true
}

// slice is object[start:stop:step], where nil stands for a bound left out.
func (r *renderer) slice(object, start, stop, step any) any {
	r.failUndefined(object)
	n, ok := length(object)
	switch object.(type) {
	case string, markup, *seq, *span:
	default:
		ok = false
	}
	if !ok {
		r.fail("'%s' object cannot be sliced", typeName(object))
	}
	from, to, by := r.sliceBounds(n, start, stop, step)
	picked := &span{from, to, by}
	count := picked.len()
	r.step(int(count))
	switch o := object.(type) {
	case *span:
		return &span{o.start + from*o.step, o.start + to*o.step, o.step * by}
	case *seq:
		if by == 1 {
			return &seq{o.items[from : from+count : from+count], o.tuple}
		}
		items := make([]any, count)
		for i := range items {
			items[i] = o.items[from+int64(i)*by]
		}
		return &seq{items, o.tuple}
	}
	s, _ := asText(object)
	text := ""
	if by == 1 {
		text = runeSlice(s, int(from), int(from+count))
	} else {
		runes := []rune(s)
		out := make([]rune, count)
		for i := range out {
			out[i] = runes[from+int64(i)*by]
		}
		text = string(out)
	}
	if _, safe := object.(markup); safe {
		return markup(text)
	}
	return text
}

// sliceBounds resolves the bounds of a slice over n elements.
func (r *renderer) sliceBounds(n int64, start, stop, step any) (from, to, by int64) {
	bound := func(v any, unset int64) int64 {
		if v == nil {
			return unset
		}
		i, ok := asInt(v)
		if !ok {
			r.fail("slice indices must be integers or None, not '%s'", typeName(v))
		}
		return i
	}
	by = bound(step, 1)
	if by == 0 {
		r.fail("slice step cannot be zero")
	}
	by = max(min(by, math.MaxInt32), -math.MaxInt32) // no sequence is longer
	low, high := int64(0), n
	if by < 0 {
		low, high = -1, n-1
	}
	clamp := func(v any, unset int64) int64 {
		if v == nil {
			return unset
		}
		i := bound(v, 0)
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	if by > 0 {
		return clamp(start, low), clamp(stop, high), by
	}
	return clamp(start, high), clamp(stop, low), by
}
