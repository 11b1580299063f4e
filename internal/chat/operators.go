package chat

// Equality, order, arithmetic, attributes and subscripts, as Python defines
// them for the types a template meets.

import (
	"math"
	"math/big"
	"strings"
)

// equal is a == b.
func (r *renderer) equal(a, b any) bool {
	r.step(1)
	if x, y, ok := bothInts(a, b); ok {
		return x == y
	}
	if isNumber(a) && isNumber(b) {
		return r.compareNumbers(a, b) == 0
	}
	if x, ok := asText(a); ok {
		y, ok := asText(b)
		return ok && x == y
	}
	switch x := a.(type) {
	case nil:
		return b == nil
	case *undefined:
		_, ok := b.(*undefined)
		return ok
	case *seq:
		y, ok := b.(*seq)
		return ok && x.tuple == y.tuple && r.equalItems(x.items, y.items)
	case *Dict:
		y, ok := b.(*Dict)
		return ok && r.equalDicts(x, y)
	case *span:
		y, ok := b.(*span)
		return ok && x.len() == y.len() && (x.len() == 0 || x.start == y.start && (x.len() == 1 || x.step == y.step))
	case *dictView:
		y, ok := b.(*dictView)
		return ok && x.kind != "dict_values" && y.kind == x.kind && r.equalDicts(keysOnly(x), keysOnly(y))
	}
	switch b.(type) {
	case string, markup, *seq, *Dict, nil, bool, int64, float64, *big.Int:
		return false
	}
	return a == b
}

// keysOnly is a dictionary to compare a view's elements by.
func keysOnly(v *dictView) *Dict {
	if v.kind == "dict_items" {
		return v.dict
	}
	d := &Dict{keys: v.dict.keys, index: v.dict.index, values: make([]any, v.dict.Len())}
	return d
}

func (r *renderer) equalItems(a, b []any) bool {
	if len(a) != len(b) {
		return false
	}
	same := true
	r.nested(func() {
		for i := range a {
			if !r.equal(a[i], b[i]) {
				same = false
				return
			}
		}
	})
	return same
}

func (r *renderer) equalDicts(a, b *Dict) bool {
	if a.Len() != b.Len() {
		return false
	}
	same := true
	r.nested(func() {
		for hash, i := range a.index {
			v, ok := b.find(hash)
			if !ok || !r.equal(a.values[i], v) {
				same = false
				return
			}
		}
	})
	return same
}

func isNumber(v any) bool {
	switch v.(type) {
	case bool, int64, float64, *big.Int:
		return true
	}
	return false
}

// bothInts gives two operands that are small integers or booleans.
func bothInts(a, b any) (x, y int64, ok bool) {
	if _, isBig := a.(*big.Int); isBig {
		return 0, 0, false
	}
	if _, isBig := b.(*big.Int); isBig {
		return 0, 0, false
	}
	x, ok = asInt(a)
	if !ok {
		return 0, 0, false
	}
	y, ok = asInt(b)
	return x, y, ok
}

func toBig(v any) *big.Int {
	if n, ok := v.(*big.Int); ok {
		return n
	}
	n, _ := asInt(v)
	return big.NewInt(n)
}

// toFloat converts a number; an integer too large for a float is an error.
func (r *renderer) toFloat(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case *big.Int:
		f, _ := new(big.Float).SetInt(v).Float64()
		if math.IsInf(f, 0) {
			r.fail("int too large to convert to float")
		}
		return f
	}
	n, _ := asInt(v)
	return float64(n)
}

// compareNumbers gives -1, 0, 1, or 2 where a NaN has no order.
func (r *renderer) compareNumbers(a, b any) int {
	if x, y, ok := bothInts(a, b); ok {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	x, xFloat := a.(float64)
	y, yFloat := b.(float64)
	if !xFloat && !yFloat {
		return toBig(a).Cmp(toBig(b))
	}
	if math.IsNaN(x) || math.IsNaN(y) {
		return 2
	}
	exact := func(v any, f float64, isFloat bool) *big.Float {
		if isFloat {
			return big.NewFloat(f)
		}
		return new(big.Float).SetInt(toBig(v))
	}
	return exact(a, x, xFloat).Cmp(exact(b, y, yFloat))
}

// order compares a and b for the operator op, one of < <= > >=.
func (r *renderer) order(op string, a, b any) bool {
	r.step(1)
	cmp, known := 0, true
	if isNumber(a) && isNumber(b) {
		if cmp = r.compareNumbers(a, b); cmp == 2 {
			return false
		}
	} else if x, ok := asText(a); ok {
		var y string
		y, known = asText(b)
		cmp = strings.Compare(x, y)
	} else if x, ok := a.(*seq); ok {
		var y *seq
		if y, known = b.(*seq); known && x.tuple == y.tuple {
			return r.orderItems(op, x.items, y.items)
		}
		known = false
	} else {
		known = false
	}
	if !known {
		r.failUndefined(a, b)
		r.fail("'%s' not supported between instances of '%s' and '%s'", op, typeName(a), typeName(b))
	}
	return satisfies(op, cmp)
}

func satisfies(op string, cmp int) bool {
	switch op {
	case "<":
		return cmp < 0
	case "<=":
		return cmp <= 0
	case ">":
		return cmp > 0
	}
	return cmp >= 0
}

func (r *renderer) orderItems(op string, a, b []any) (yes bool) {
	r.nested(func() {
		for i := 0; i < len(a) && i < len(b); i++ {
			if !r.equal(a[i], b[i]) {
				yes = r.order(op, a[i], b[i])
				return
			}
		}
		yes = satisfies(op, len(a)-len(b))
	})
	return yes
}

// failUndefined fails where one of the operands is undefined, naming it.
func (r *renderer) failUndefined(operands ...any) {
	for _, v := range operands {
		if u, ok := v.(*undefined); ok {
			r.fail("%s", u.why)
		}
	}
}

// contains is item in container.
func (r *renderer) contains(item, container any) bool {
	if s, ok := asText(container); ok {
		sub, ok := asText(item)
		if !ok {
			r.fail("'in <string>' requires string as left operand, not %s", typeName(item))
		}
		r.charge(len(s))
		return strings.Contains(s, sub)
	}
	switch c := container.(type) {
	case *Dict:
		_, ok := c.find(r.mustHash(item))
		return ok
	case *dictView:
		if c.kind == "dict_keys" {
			_, ok := c.dict.find(r.mustHash(item))
			return ok
		}
	case *namespace, *function, *macro, nil, bool, int64, float64, *big.Int:
		r.fail("argument of type '%s' is not iterable", typeName(container))
	}
	for it := r.iterate(container); ; {
		v, ok := it.next()
		if !ok {
			return false
		}
		if r.equal(v, item) {
			return true
		}
	}
}

// binary computes a op b.
func (r *renderer) binary(op string, a, b any) any {
	if isNumber(a) && isNumber(b) {
		return r.arithmetic(op, a, b)
	}
	if s, isText := asText(a); !isText || op != "%" {
		r.failUndefined(b)
	} else {
		_, escape := a.(markup)
		text := r.percentFormat(s, b, escape)
		if escape {
			return markup(text)
		}
		return text
	}
	switch op {
	case "+":
		if v, ok := r.join(a, b); ok {
			return v
		}
	case "*":
		for _, v := range []any{a, b} {
			if _, huge := v.(*big.Int); huge {
				r.fail("cannot fit 'int' into an index-sized integer")
			}
		}
		if n, ok := asInt(b); ok {
			if v, ok := r.repeat(a, n); ok {
				return v
			}
		}
		if n, ok := asInt(a); ok {
			if v, ok := r.repeat(b, n); ok {
				return v
			}
		}
	}
	r.failUndefined(a)
	r.fail("unsupported operand types for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	return nil
}

// join is a + b of strings, lists or tuples.
func (r *renderer) join(a, b any) (any, bool) {
	x, xText := asText(a)
	y, yText := asText(b)
	if xText && yText {
		_, xSafe := a.(markup)
		_, ySafe := b.(markup)
		if !xSafe && !ySafe {
			return r.text(x + y), true
		}
		if !xSafe {
			x = escapeHTML(x)
		}
		if !ySafe {
			y = escapeHTML(y)
		}
		return markup(r.text(x + y)), true
	}
	s, sOK := a.(*seq)
	t, tOK := b.(*seq)
	if sOK && tOK && s.tuple == t.tuple {
		r.step(len(s.items) + len(t.items))
		items := make([]any, 0, len(s.items)+len(t.items))
		return &seq{append(append(items, s.items...), t.items...), s.tuple}, true
	}
	return nil, false
}

// repeat is v * n of a string, list or tuple.
func (r *renderer) repeat(v any, n int64) (any, bool) {
	n = max(n, 0)
	if s, ok := asText(v); ok {
		if s != "" && n > maxOutput/int64(len(s)) {
			r.failLimit("a string of more than %d bytes", maxOutput)
		}
		s = r.text(strings.Repeat(s, int(n)))
		if _, safe := v.(markup); safe {
			return markup(s), true
		}
		return s, true
	}
	s, ok := v.(*seq)
	if !ok {
		return nil, false
	}
	if len(s.items) == 0 {
		return &seq{nil, s.tuple}, true
	}
	if n > maxSteps {
		r.failLimit("more than %d steps of work", maxSteps)
	}
	r.step(int(n) * len(s.items))
	items := make([]any, 0, int(n)*len(s.items))
	for range n {
		items = append(items, s.items...)
	}
	return &seq{items, s.tuple}, true
}

func (r *renderer) arithmetic(op string, a, b any) any {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat || op == "/" {
		return r.floatArithmetic(op, a, b)
	}
	if x, y, ok := bothInts(a, b); ok && x == int64(int32(x)) && y == int64(int32(y)) {
		switch op { // the usual small numbers, which cannot overflow
		case "+":
			return x + y
		case "-":
			return x - y
		case "*":
			return x * y
		}
	}
	x, y, z := toBig(a), toBig(b), new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "//", "%":
		if y.Sign() == 0 {
			r.fail("integer division or modulo by zero")
		}
		q, m := new(big.Int).QuoRem(x, y, new(big.Int))
		if m.Sign() != 0 && m.Sign() != y.Sign() { // round down, not to zero
			q.Sub(q, big.NewInt(1))
			m.Add(m, y)
		}
		if z = q; op == "%" {
			z = m
		}
	case "**":
		if y.Sign() < 0 {
			return r.floatArithmetic(op, a, b)
		}
		if x.CmpAbs(big.NewInt(1)) > 0 && (!y.IsInt64() || y.Int64() > maxIntBits/int64(x.BitLen()-1)) {
			r.failLimit("an integer of more than %d bits", maxIntBits)
		}
		if x.CmpAbs(big.NewInt(1)) <= 0 && y.BitLen() > 1 { // only its parity matters
			y = big.NewInt(2 + int64(y.Bit(0)))
		}
		z.Exp(x, y, nil)
	}
	if z.BitLen() > maxIntBits {
		r.failLimit("an integer of more than %d bits", maxIntBits)
	}
	return normInt(z)
}

func (r *renderer) floatArithmetic(op string, a, b any) any {
	x, y := r.toFloat(a), r.toFloat(b)
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "**":
		if x == 0 && y < 0 {
			r.fail("0.0 cannot be raised to a negative power")
		}
		z := math.Pow(x, y)
		if math.IsNaN(z) && !math.IsNaN(x) && !math.IsNaN(y) {
			r.fail("a negative number to a fractional power is complex, which templates do not have")
		}
		if math.IsInf(z, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
			r.fail("numerical result out of range")
		}
		return z
	}
	if y == 0 {
		r.fail("division by zero")
	}
	if op == "/" {
		return x / y
	}
	m := math.Mod(x, y)
	if m != 0 && (m < 0) != (y < 0) {
		m += y
	} else if m == 0 {
		m = math.Copysign(0, y)
	}
	if op == "%" {
		return m
	}
	q := (x - m) / y
	if q == 0 {
		return math.Copysign(0, x/y)
	}
	floor := math.Floor(q)
	if q-floor > 0.5 {
		floor++
	}
	return floor
}

// unary computes op v for + and -.
func (r *renderer) unary(op string, v any) any {
	r.failUndefined(v)
	if !isNumber(v) {
		r.fail("bad operand type for unary %s: '%s'", op, typeName(v))
	}
	if f, ok := v.(float64); ok {
		if op == "-" {
			return -f
		}
		return f
	}
	if op == "-" {
		return normInt(new(big.Int).Neg(toBig(v)))
	}
	return normInt(toBig(v))
}

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
