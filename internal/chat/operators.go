package chat

// Equality, order and arithmetic, as Python defines them for the types a
// template meets.

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
