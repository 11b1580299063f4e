package tokenizer

// This file normalizes text as the reference does. Its composition and decomposition are of
// an older Unicode version than x/text's: newer characters are left where they are.

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites a text before it is split.
type normalizer func(string) string

func newNormalizer(c *component) (normalizer, error) {
	switch c.Type {
	case "NFC":
		return form(norm.NFC), nil
	case "NFD":
		return form(norm.NFD), nil
	case "NFKC":
		return form(norm.NFKC), nil
	case "NFKD":
		return form(norm.NFKD), nil
	case "Nmt":
		return nmt, nil
	case "Lowercase":
		return lowercase, nil
	case "StripAccents":
		return stripAccents, nil
	case "Strip":
		return func(s string) string {
			if c.StripLeft {
				s = strings.TrimLeftFunc(s, isSpace)
			}
			if c.StripRight {
				s = strings.TrimRightFunc(s, isSpace)
			}
			return s
		}, nil
	case "Prepend":
		return func(s string) string {
			if s == "" {
				return s
			}
			return c.Prepend + s
		}, nil
	case "Replace":
		return newReplace(c)
	case "Precompiled":
		m, err := newCharsmap(c.Charsmap)
		if err != nil {
			return nil, err
		}
		return m.normalizeClusters, nil
	}
	return nil, fmt.Errorf("%q: %w (Sequence, NFC, NFD, NFKC, NFKD, Nmt, Lowercase, StripAccents, Strip, Prepend, Replace and Precompiled are)",
		c.Type, ErrUnsupported)
}

// newReplace replaces the matches of a pattern, as a normalizer or a decoder.
func newReplace(c *component) (normalizer, error) {
	switch re, text := c.Pattern.Regex, c.Pattern.String; {
	case text != nil && re == nil && *text != "":
		return func(s string) string { return strings.ReplaceAll(s, *text, c.Content) }, nil
	case re != nil && text == nil:
		p, err := newPatternSplitter(*re, false, removed, false)
		if err != nil {
			return nil, err
		}
		return func(s string) string { return p.replace(s, c.Content) }, nil
	}
	return nil, fmt.Errorf("%w: Replace needs a pattern, Regex or String", ErrFormat)
}

// form is a Unicode normalization form.
func form(f norm.Form) normalizer {
	return func(s string) string {
		c := charClasses()
		start, separated := 0, false
		marks, most := 0, 0 // in a row
		var out []byte
		for i, r := range s {
			if r < utf8.RuneSelf {
				marks = 0
				continue
			}
			p := c.props(r)
			if k := p & propCategory; k < gcMn || k > gcMe {
				marks = 0
			} else if marks++; marks > most {
				most = marks
			}
			if p&propSeparate != 0 {
				separated = true
				out = append(out, formOf(f, s[start:i], most)...)
				start = i + runeSize(s[i:])
				out = append(out, s[i:start]...)
			}
		}
		if !separated {
			return formOf(f, s, most)
		}
		return string(append(out, formOf(f, s[start:], most)...))
	}
}

// formOf normalizes a text with so many marks in a row at most.
func formOf(f norm.Form, s string, marks int) string {
	if marks < 20 {
		return f.String(s)
	}
	return longForm(f, s)
}

// longForm normalizes by the definition, since x/text interrupts long rows of marks by a
// joiner (U+034F), to have them in bounded memory.
func longForm(f norm.Form, s string) string {
	decompose := norm.NFD
	if f == norm.NFKC || f == norm.NFKD {
		decompose = norm.NFKD
	}
	type char struct {
		r     rune
		class uint8
	}
	var chars []char
	row := 0 // start of the marks that are to be ordered
	order := func() {
		slices.SortStableFunc(chars[row:], func(a, b char) int { return int(a.class) - int(b.class) })
	}
	for _, r := range s {
		for _, d := range decompose.String(string(r)) {
			class := norm.NFD.PropertiesString(string(d)).CCC()
			if class == 0 {
				order()
				row = len(chars) + 1
			}
			chars = append(chars, char{d, class})
		}
	}
	order()
	if f == norm.NFC || f == norm.NFKC {
		out := chars[:0]
		starter := -1
		for _, c := range chars {
			if starter >= 0 && (len(out)-1 == starter || out[len(out)-1].class < c.class) {
				if pair, ok := compose(out[starter].r, c.r); ok {
					out[starter].r = pair
					continue
				}
			}
			if c.class == 0 {
				starter = len(out)
			}
			out = append(out, c)
		}
		chars = out
	}
	var b strings.Builder
	for _, c := range chars {
		b.WriteRune(c.r)
	}
	return b.String()
}

// compose returns the character that two become.
func compose(a, b rune) (rune, bool) {
	pair := norm.NFC.String(string([]rune{a, b}))
	r, n := utf8.DecodeRuneInString(pair)
	return r, n == len(pair)
}

// lowercase maps character by character, without regard to the neighbours.
func lowercase(s string) string {
	lower := lowerMap()
	changes := false
	for _, r := range s {
		if r >= 'A' && (r <= 'Z' || r >= utf8.RuneSelf && (r == 0x130 || lower.to(r) != r)) {
			changes = true
			break
		}
	}
	if !changes {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		if r == 0x130 { // the one character that becomes two
			b.WriteString("i\u0307")
			continue
		}
		b.WriteRune(lower.to(r))
	}
	return b.String()
}

// stripAccents drops combining marks.
func stripAccents(s string) string {
	c := charClasses()
	return strings.Map(func(r rune) rune {
		if c.isMark(r) {
			return -1
		}
		return r
	}, s)
}

// nmt drops control characters and makes spaces of others.
func nmt(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 1 && r <= 8, r == 0xb, r >= 0xe && r <= 0x1f, r == 0x7f, r == 0x8f, r == 0x9f:
			return -1
		case r == '\t', r == '\n', r == '\f', r == '\r', r == 0x1680, r >= 0x200b && r <= 0x200f,
			r == 0x2028, r == 0x2029, r == 0x2581, r == 0xfeff, r == utf8.RuneError:
			return ' '
		}
		return r
	}, s)
}
