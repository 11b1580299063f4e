package tokenizer

// This file normalizes text as the reference does. Its composition and decomposition are of
// an older Unicode version than x/text's: newer characters are left where they are.

import (
	"fmt"
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
		var out []byte
		for i, r := range s {
			if r >= utf8.RuneSelf && c.props(r)&propSeparate != 0 {
				separated = true
				out = append(out, f.String(s[start:i])...)
				start = i + utf8.RuneLen(r)
				out = append(out, s[i:start]...)
			}
		}
		if !separated {
			return f.String(s)
		}
		return string(append(out, f.String(s[start:])...))
	}
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
