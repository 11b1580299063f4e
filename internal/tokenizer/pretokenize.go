package tokenizer

// This file splits normalized text into pre-tokens, within which BPE may merge:
// hand-written scanners for the patterns that nearly all models use. Other
// patterns are in pattern.go.

import (
	"strings"
	"unicode/utf8"
)

// span is a stretch of a text, in bytes.
type span struct{ begin, end int }

// splitter is one pre-tokenizer: it appends the spans of text to keep, in order.
type splitter interface {
	split(dst []span, text string) []span
}

// The regular expressions of the scanners below, as tokenizer.json spells them.
const (
	gpt2Pattern  = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	llama3Head   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|`
	llama3Tail   = `| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	llama3Digits = `\p{N}{1,3}`
	qwen2Digits  = `\p{N}`
)

// scanner is a splitter that cuts a piece off the front of the text again and again.
type scanner struct {
	pattern string
	next    func(c classes, s string) int // bytes of the first piece of a non-empty s
}

func (s *scanner) split(dst []span, text string) []span {
	c := charClasses()
	for i := 0; i < len(text); {
		n := s.next(c, text[i:])
		dst = append(dst, span{i, i + n})
		i += n
	}
	return dst
}

var (
	gpt2Scanner   = &scanner{gpt2Pattern, nextGPT2}
	llama3Scanner = &scanner{llama3Pattern, func(c classes, s string) int { return nextLlama3(c, s, 3) }}
	qwen2Scanner  = &scanner{qwen2Pattern, func(c classes, s string) int { return nextLlama3(c, s, 1) }}
)

// knownScanner returns the scanner for a regular expression, or nil.
func knownScanner(pattern string) *scanner {
	for _, s := range []*scanner{gpt2Scanner, llama3Scanner, qwen2Scanner} {
		if s.pattern == plainSpelling(pattern) {
			return s
		}
	}
	return nil
}

// digitSplitter sets numeric characters apart: each one, or each run of them.
type digitSplitter struct{ individual bool }

func (d digitSplitter) split(dst []span, text string) []span {
	c := charClasses()
	begin, inNumber := 0, false
	for i, r := range text {
		number := c.props(r)&propNumeric != 0
		if i > begin && (number != inNumber || number && d.individual) {
			dst = append(dst, span{begin, i})
			begin = i
		}
		inNumber = number
	}
	if begin < len(text) {
		dst = append(dst, span{begin, len(text)})
	}
	return dst
}

// run returns the length of the longest prefix of s whose characters have kind k.
func run(c classes, s string, k charKind) int {
	for i, r := range s {
		if c.kind(r) != k {
			return i
		}
	}
	return len(s)
}

// spaces returns the length of what `\s+(?!\S)|\s+` matches at the start of s,
// which starts with whitespace: the whole run at the end of the text, else all
// but its last character, else that one character.
func spaces(c classes, s string) int {
	n := run(c, s, kindSpace)
	if n == len(s) {
		return n
	}
	if _, last := utf8.DecodeLastRuneInString(s[:n]); last < n {
		return n - last
	}
	return n
}

func nextGPT2(c classes, s string) int {
	if s[0] == '\'' {
		for _, suffix := range [...]string{"s", "t", "re", "ve", "m", "ll", "d"} {
			if strings.HasPrefix(s[1:], suffix) {
				return 1 + len(suffix)
			}
		}
	}
	skip := 0
	if s[0] == ' ' {
		skip = 1
	}
	if skip < len(s) {
		r, _ := utf8.DecodeRuneInString(s[skip:])
		if k := c.kind(r); k != kindSpace {
			return skip + run(c, s[skip:], k)
		}
	}
	return spaces(c, s)
}

// contraction matches `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at the start of s, or returns 0.
// Under case folding s also matches U+017F; the other letters have no such twin.
func contraction(s string) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	first := s[1] | 0x20
	switch first {
	case 's', 't', 'm', 'd':
		return 2
	}
	if strings.HasPrefix(s[1:], "\u017f") {
		return 3
	}
	if len(s) < 3 {
		return 0
	}
	second := s[2] | 0x20
	if (first == 'r' || first == 'v') && second == 'e' || first == 'l' && second == 'l' {
		return 3
	}
	return 0
}

// nextLlama3 is the pattern of Llama 3 and, with digits 1, of Qwen2.
func nextLlama3(c classes, s string, digits int) int {
	if n := contraction(s); n > 0 {
		return n
	}
	first, size := utf8.DecodeRuneInString(s)
	kind := c.kind(first)
	switch {
	case kind == kindLetter:
		return run(c, s, kindLetter)
	case kind == kindNumber:
		n := size
		for k := 1; k < digits && n < len(s); k++ {
			r, size := utf8.DecodeRuneInString(s[n:])
			if c.kind(r) != kindNumber {
				break
			}
			n += size
		}
		return n
	case first != '\r' && first != '\n':
		if n := run(c, s[size:], kindLetter); n > 0 {
			return size + n
		}
	}
	skip := 0
	if s[0] == ' ' {
		skip = 1
	}
	if n := run(c, s[skip:], kindOther); n > 0 {
		n += skip
		for n < len(s) && (s[n] == '\r' || s[n] == '\n') {
			n++
		}
		return n
	}
	n := run(c, s, kindSpace)
	if last := strings.LastIndexAny(s[:n], "\r\n"); last >= 0 {
		return last + 1
	}
	return spaces(c, s)
}
