package tokenizer

// This file splits by any regular expression that a tokenizer.json brings. The
// reference runs Oniguruma, which backtracks; here the expression is rewritten for
// Go's regexp, whose time is linear whatever the expression, so that no file can
// make encoding hang. What Go's regexp cannot express is refused by name, except
// the one look-ahead that tokenizers use, \s+(?!\S), which is done by hand.

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// behavior is what a Split does with the matches of its pattern.
type behavior string

const (
	removed            behavior = "Removed"
	isolated           behavior = "Isolated"
	mergedWithPrevious behavior = "MergedWithPrevious"
	mergedWithNext     behavior = "MergedWithNext"
	contiguous         behavior = "Contiguous"
)

// patternSplitter splits at the matches of a pattern.
type patternSplitter struct {
	find     *regexp.Regexp // group 1, if any, stands for \s+(?!\S)
	without  *regexp.Regexp // the other alternatives, anchored; nil without group 1
	behavior behavior
	invert   bool
}

const maxPattern = 4096 // bytes; the longest in use have a few hundred

// newPatternSplitter compiles a pattern: a regular expression in Oniguruma's Ruby
// syntax, or a literal string.
func newPatternSplitter(pattern string, literal bool, b behavior, invert bool) (*patternSplitter, error) {
	p := &patternSplitter{behavior: b, invert: invert}
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%w: a pattern of %d bytes (at most %d)", ErrUnsupported, len(pattern), maxPattern)
	}
	alternatives := []string{regexp.QuoteMeta(pattern)}
	if !literal {
		var err error
		if alternatives, err = translate(plainSpelling(pattern)); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	var all, others []string
	for _, a := range alternatives {
		if a != trailingSpaces {
			all, others = append(all, a), append(others, a)
			continue
		}
		if p.without == nil { // a second one can never match where the first did not
			set, _ := shorthandSet('s')
			all = append(all, "("+set.String()+"+)")
			p.without = regexp.MustCompile("")
		}
	}
	compile := func(list []string, prefix string) (*regexp.Regexp, error) {
		re, err := regexp.Compile(prefix + "(?:" + strings.Join(list, "|") + ")")
		if err != nil {
			msg := err.Error()
			return nil, fmt.Errorf("pattern %q: %w: %.60s", pattern, ErrUnsupported, msg)
		}
		return re, nil
	}
	var err error
	if p.find, err = compile(all, ""); err != nil {
		return nil, err
	}
	if p.without != nil {
		if len(others) == 0 {
			others = []string{charSet(nil).String()}
		}
		if p.without, err = compile(others, `\A`); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// match returns the first match in text[from:].
func (p *patternSplitter) match(text string, from int) (m span, ok bool) {
	for from <= len(text) {
		at := p.find.FindStringSubmatchIndex(text[from:])
		if at == nil {
			return span{}, false
		}
		m := span{from + at[0], from + at[1]}
		if p.without == nil || at[2] < 0 || m.end == len(text) {
			return m, true
		}
		_, last := utf8.DecodeLastRuneInString(text[m.begin:m.end])
		if m.end-last > m.begin {
			return span{m.begin, m.end - last}, true
		}
		if at := p.without.FindStringIndex(text[m.begin:]); at != nil {
			return span{m.begin, m.begin + at[1]}, true
		}
		from = m.end
	}
	return span{}, false
}

func (p *patternSplitter) split(dst []span, text string) []span {
	s := joiner{dst: dst, base: len(dst), behavior: p.behavior}
	done := 0 // everything before is handed on
	p.each(text, func(m span) {
		s.add(done, m.begin, p.invert)
		s.add(m.begin, m.end, !p.invert)
		done = m.end
	})
	s.add(done, len(text), p.invert)
	return s.dst
}

// each calls found with every match in order.
func (p *patternSplitter) each(text string, found func(span)) {
	for from := 0; ; {
		m, ok := p.match(text, from)
		if !ok {
			return
		}
		found(m)
		from = m.end
		if m.begin == m.end {
			_, n := utf8.DecodeRuneInString(text[from:])
			from += max(n, 1)
		}
	}
}

// replace returns text with every match replaced by content.
func (p *patternSplitter) replace(text, content string) string {
	var b strings.Builder
	done := 0
	p.each(text, func(m span) {
		b.WriteString(text[done:m.begin])
		b.WriteString(content)
		done = m.end
	})
	if done == 0 && b.Len() == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// trailingSpaces stands in a list of alternatives for \s+(?!\S).
const trailingSpaces = `\s+(?!\S)`

// translator rewrites an expression of Oniguruma for Go's regexp.
type translator struct {
	src          string
	pos          int
	out          strings.Builder
	alternatives []string
	depth        int
	fold         []bool // per open group: (?i) holds
	repeatable   bool   // the last item can take a quantifier
}

// translate returns the top-level alternatives of the expression.
func translate(pattern string) ([]string, error) {
	t := &translator{src: pattern, fold: []bool{false}}
	if strings.HasPrefix(pattern, "(?i)") {
		t.pos, t.fold[0] = 4, true
	}
	t.begin()
	for t.pos < len(t.src) {
		if err := t.item(); err != nil {
			return nil, err
		}
	}
	if t.depth > 0 {
		return nil, fmt.Errorf("%w: a parenthesis is not closed", ErrFormat)
	}
	return append(t.alternatives, t.out.String()), nil
}

// begin starts a top-level alternative.
func (t *translator) begin() {
	t.out.Reset()
	t.repeatable = false
	rest := t.src[t.pos:]
	if strings.HasPrefix(rest, trailingSpaces) {
		after := rest[len(trailingSpaces):]
		if after == "" || after[0] == '|' {
			t.out.WriteString(trailingSpaces)
			t.pos += len(trailingSpaces)
			return
		}
	}
	if t.fold[0] {
		t.out.WriteString("(?i)")
	}
}

func (t *translator) unsupported(what string) error {
	return fmt.Errorf("%w: %s at byte %d of the regular expression", ErrUnsupported, what, t.pos)
}

// item translates one element: a character, class, group, quantifier or bar.
func (t *translator) item() error {
	r, n := utf8.DecodeRuneInString(t.src[t.pos:])
	switch r {
	case '(':
		return t.group()
	case ')':
		if t.depth == 0 {
			return fmt.Errorf("%w: unmatched ) in a regular expression", ErrFormat)
		}
		t.depth--
		t.fold = t.fold[:len(t.fold)-1]
		t.out.WriteByte(')')
		t.pos++
		t.repeatable = true
	case '|':
		t.pos++
		if t.depth == 0 {
			t.alternatives = append(t.alternatives, t.out.String())
			t.begin()
			return nil
		}
		t.out.WriteByte('|')
		t.repeatable = false
	case '[':
		set, err := t.class(0)
		if err != nil {
			return err
		}
		t.out.WriteString(set.String())
		t.repeatable = true
	case '\\':
		return t.escape()
	case '.':
		t.out.WriteByte('.')
		t.pos++
		t.repeatable = true
	case '$':
		t.out.WriteString("(?m:$)")
		t.pos++
		t.repeatable = false
	case '^':
		return t.unsupported("the anchor ^")
	case '*', '+', '?':
		return t.quantifier(t.src[t.pos : t.pos+1])
	case '{':
		if q := interval.FindString(t.src[t.pos:]); q != "" {
			return t.quantifier(q)
		}
		fallthrough
	default:
		t.out.WriteString(regexp.QuoteMeta(t.src[t.pos : t.pos+n]))
		t.pos += n
		t.repeatable = true
	}
	return nil
}

var interval = regexp.MustCompile(`^\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)\}`)

func (t *translator) quantifier(q string) error {
	if !t.repeatable {
		return t.unsupported("the quantifier " + q + " after nothing to repeat")
	}
	t.pos += len(q)
	t.out.WriteString(strings.Replace(q, "{,", "{0,", 1))
	if t.pos < len(t.src) {
		switch t.src[t.pos] {
		case '?':
			if q[0] == '{' && !strings.Contains(q, ",") { // Ruby: an optional {n}
				return t.unsupported("the quantifier " + q + "?")
			}
			t.out.WriteByte('?')
			t.pos++
		case '+':
			return t.unsupported("a possessive or nested quantifier")
		}
	}
	t.repeatable = false
	return nil
}

func (t *translator) group() error {
	fold := t.fold[len(t.fold)-1]
	rest := t.src[t.pos:]
	open, skip := "(?:", 1
	switch {
	case strings.HasPrefix(rest, "(?:"):
		skip = 3
	case strings.HasPrefix(rest, "(?i:"):
		open, skip, fold = "(?i:", 4, true
	case strings.HasPrefix(rest, "(?-i:"):
		open, skip, fold = "(?-i:", 5, false
	case strings.HasPrefix(rest, "(?m:"): // Ruby's m lets . match a newline
		open, skip = "(?s:", 4
	case strings.HasPrefix(rest, "(?=") || strings.HasPrefix(rest, "(?!") || strings.HasPrefix(rest, "(?<"):
		return t.unsupported("look-around or a named group")
	case strings.HasPrefix(rest, "(?"):
		return t.unsupported("the group " + strconv.Quote(rest[:min(len(rest), 4)]))
	}
	t.depth++
	if t.depth > 100 {
		return t.unsupported("nesting beyond 100 groups")
	}
	t.fold = append(t.fold, fold)
	t.pos += skip
	t.out.WriteString(open)
	t.repeatable = false
	return nil
}

// escape translates a backslash and what it escapes, outside a class.
func (t *translator) escape() error {
	if strings.HasPrefix(t.src[t.pos:], `\z`) {
		t.out.WriteString(`\z`)
		t.pos += 2
		t.repeatable = false
		return nil
	}
	set, err := t.escaped()
	if err != nil {
		return err
	}
	t.out.WriteString(set.String())
	t.repeatable = true
	return nil
}

// escaped reads an escape sequence that stands for characters.
func (t *translator) escaped() (charSet, error) {
	if t.pos+1 >= len(t.src) {
		return nil, fmt.Errorf("%w: a regular expression ends in a backslash", ErrFormat)
	}
	r, n := utf8.DecodeRuneInString(t.src[t.pos+1:])
	if set, ok := shorthandSet(r); ok {
		t.pos += 1 + n
		return t.foldable(set, r >= 'A' && r <= 'Z')
	}
	if i := strings.IndexRune(`ntrfvae0`, r); i >= 0 && r < utf8.RuneSelf {
		t.pos += 2
		c := rune("\n\t\r\f\v\a\x1b\x00"[i])
		return charSet{{c, c}}, nil
	}
	if m := codeEscape.FindStringSubmatch(t.src[t.pos:]); m != nil {
		v, err := strconv.ParseUint(m[1]+m[2]+m[3], 16, 32)
		if err != nil || v > maxRune {
			return nil, fmt.Errorf("%w: %q is no character", ErrFormat, m[0])
		}
		t.pos += len(m[0])
		return charSet{{rune(v), rune(v)}}, nil
	}
	if m := propertyEscape.FindStringSubmatch(t.src[t.pos:]); m != nil {
		set, ok := propertySet(m[3])
		if !ok {
			return nil, t.unsupported("the property " + strconv.Quote(m[0]))
		}
		negate := (m[1] == "P") != (m[2] == "^")
		if negate {
			set = set.negate()
		}
		t.pos += len(m[0])
		return t.foldable(set, negate)
	}
	if r < utf8.RuneSelf && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z') {
		return nil, t.unsupported("the escape " + strconv.Quote(t.src[t.pos:t.pos+2]))
	}
	t.pos += 1 + n
	return charSet{{r, r}}, nil
}

var (
	codeEscape     = regexp.MustCompile(`^\\(?:x([0-9a-fA-F]{2})|x\{([0-9a-fA-F]{1,8})\}|u([0-9a-fA-F]{4}))`)
	propertyEscape = regexp.MustCompile(`^\\([pP])\{(\^?)(\w+)\}`)
)

// foldable refuses a negated set under (?i), where folding comes before negation.
func (t *translator) foldable(set charSet, negated bool) (charSet, error) {
	if negated && t.fold[len(t.fold)-1] {
		return nil, t.unsupported("a negated class under (?i)")
	}
	return set, nil
}

// class reads a bracketed class: ranges, escapes, nested classes, && and ^.
func (t *translator) class(depth int) (charSet, error) {
	if depth > 20 {
		return nil, t.unsupported("nesting beyond 20 classes")
	}
	t.pos++ // [
	negate := strings.HasPrefix(t.src[t.pos:], "^")
	if negate {
		t.pos++
	}
	var set, left charSet // left of the last &&
	meet := false
	for first := true; ; first = false {
		rest := t.src[t.pos:]
		switch {
		case rest == "":
			return nil, fmt.Errorf("%w: a class of a regular expression is not closed", ErrFormat)
		case rest[0] == ']' && first:
			return nil, t.unsupported("an empty class")
		case rest[0] == ']':
			t.pos++
			if meet {
				set = left.intersect(set)
			}
			if negate {
				set = set.negate()
			}
			return t.foldable(set, negate)
		case strings.HasPrefix(rest, "[:"):
			return nil, t.unsupported("a POSIX bracket")
		case rest[0] == '[':
			inner, err := t.class(depth + 1)
			if err != nil {
				return nil, err
			}
			set = set.union(inner)
		case strings.HasPrefix(rest, "&&"):
			t.pos += 2
			if meet {
				set = left.intersect(set)
			}
			left, set, meet = set, nil, true
		default:
			inner, err := t.classRange()
			if err != nil {
				return nil, err
			}
			set = set.union(inner)
		}
	}
}

// classRange reads one character or range of a class.
func (t *translator) classRange() (charSet, error) {
	low, err := t.classChar()
	if err != nil {
		return nil, err
	}
	rest := t.src[t.pos:]
	single := len(low) == 1 && low[0][0] == low[0][1]
	if !single || len(rest) < 2 || rest[0] != '-' || rest[1] == ']' {
		return low, nil
	}
	if rest[1] == '[' || strings.HasPrefix(rest[1:], "&&") {
		return nil, t.unsupported("a range that ends in a class")
	}
	t.pos++
	high, err := t.classChar()
	if err != nil {
		return nil, err
	}
	if len(high) != 1 || high[0][0] != high[0][1] || high[0][0] < low[0][0] {
		return nil, fmt.Errorf("%w: a class of a regular expression has an inverted range", ErrFormat)
	}
	return charSet{{low[0][0], high[0][0]}}, nil
}

func (t *translator) classChar() (charSet, error) {
	if t.src[t.pos] == '\\' {
		return t.escaped()
	}
	r, n := utf8.DecodeRuneInString(t.src[t.pos:])
	t.pos += n
	return charSet{{r, r}}, nil
}
