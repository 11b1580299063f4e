package tokenizer

// This file holds sets of characters: what a class of a regular expression means.

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// charSet is a sorted list of disjoint inclusive ranges.
type charSet [][2]rune

const maxRune = unicode.MaxRune

// where returns the set of all characters for which is holds.
func where(is func(r rune) bool) charSet {
	var s charSet
	for r := rune(0); r <= maxRune; r++ {
		if !is(r) {
			continue
		}
		if n := len(s); n > 0 && s[n-1][1] == r-1 {
			s[n-1][1] = r
		} else {
			s = append(s, [2]rune{r, r})
		}
	}
	return s
}

func (s charSet) union(o charSet) charSet {
	all := slices.Concat(s, o)
	slices.SortFunc(all, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	var out charSet
	for _, r := range all {
		if n := len(out); n > 0 && r[0] <= out[n-1][1]+1 {
			out[n-1][1] = max(out[n-1][1], r[1])
		} else {
			out = append(out, r)
		}
	}
	return out
}

func (s charSet) negate() charSet {
	var out charSet
	next := rune(0)
	for _, r := range s {
		if r[0] > next {
			out = append(out, [2]rune{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= maxRune {
		out = append(out, [2]rune{next, maxRune})
	}
	return out
}

func (s charSet) intersect(o charSet) charSet {
	return s.negate().union(o.negate()).negate()
}

// String spells the set as a class of Go's regexp.
func (s charSet) String() string {
	if len(s) == 0 {
		return `[^\x{0}-\x{10ffff}]`
	}
	var b strings.Builder
	b.WriteByte('[')
	for _, r := range s {
		fmt.Fprintf(&b, `\x{%x}`, r[0])
		if r[1] > r[0] {
			fmt.Fprintf(&b, `-\x{%x}`, r[1])
		}
	}
	b.WriteByte(']')
	return b.String()
}

// categories names the general categories in the order of their numbers.
var categories = strings.Fields("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn")

// propertySets remembers what propertySet computed, by name.
var propertySets sync.Map

// propertySet returns the set of \p{name}: a general category, or a script, for
// which Go's tables serve.
func propertySet(name string) (charSet, bool) {
	if set, ok := propertySets.Load(name); ok {
		return set.(charSet), true
	}
	var want [32]bool
	found := false
	for i, c := range categories {
		if name == c || name == c[:1] {
			want[i], found = true, true
		}
	}
	c := charClasses()
	var set charSet
	if found {
		set = where(func(r rune) bool { return want[c.props(r)&propCategory] })
	} else if script := unicode.Scripts[name]; script != nil {
		set = where(func(r rune) bool { return unicode.Is(script, r) })
	} else {
		return nil, false
	}
	propertySets.Store(name, set)
	return set, true
}

var (
	spaceSet = sync.OnceValue(func() charSet { return where(isSpace) })
	wordSet  = sync.OnceValue(func() charSet {
		c := charClasses()
		return where(func(r rune) bool { return c.props(r)&propWord != 0 })
	})
)

// shorthandSet returns the set of \s, \d, \w and \h and of their negations.
func shorthandSet(letter rune) (charSet, bool) {
	var s charSet
	switch letter | 0x20 {
	case 's':
		s = spaceSet()
	case 'd':
		s, _ = propertySet("Nd")
	case 'w':
		s = wordSet()
	case 'h':
		s = charSet{{'0', '9'}, {'A', 'F'}, {'a', 'f'}}
	default:
		return nil, false
	}
	if unicode.IsUpper(letter) {
		s = s.negate()
	}
	return s, true
}
