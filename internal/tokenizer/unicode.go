package tokenizer

// This file answers what class a character has. The tables are those of Hugging
// Face tokenizers (see gen_unicode_tables.py), not those of Go's unicode package,
// which follow another Unicode version and would split newer scripts elsewhere.

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// gc is a Unicode general category.
type gc = uint8

const (
	gcLu gc = iota
	gcLl
	gcLt
	gcLm
	gcLo
	gcMn
	gcMc
	gcMe
	gcNd
	gcNl
	gcNo
	gcPc
	gcPd
	gcPs
	gcPe
	gcPi
	gcPf
	gcPo
	gcSm
	gcSc
	gcSk
	gcSo
	gcZs
	gcZl
	gcZp
	gcCc
	gcCf
	gcCo
	gcCn
)

// Bits of a character's properties.
const (
	propCategory = 0x1f // the general category
	propWord     = 0x20 // Oniguruma's \w
	propSeparate = 0x40 // too new for the reference's NFC, which leaves it alone
	propNumeric  = 0x80 // Rust's char::is_numeric
)

// unicodePages maps r>>8 to a page of 256 properties; equal pages are shared.
var unicodePages = sync.OnceValue(func() *[0x1100]*[256]uint8 {
	var pages [0x1100]*[256]uint8
	seen := make(map[[256]uint8]*[256]uint8)
	var page [256]uint8
	r := 0
	for run := range strings.SplitSeq(unicodeRuns, " ") {
		prop, err1 := strconv.ParseUint(run[:2], 16, 8)
		n, err2 := strconv.ParseUint(run[2:], 16, 32)
		if err1 != nil || err2 != nil {
			panic("tokenizer: unicode_tables.go is damaged")
		}
		for range n {
			page[r&255] = uint8(prop)
			if inRuns(newerForms, rune(r)) {
				page[r&255] |= propSeparate
			}
			if r&255 == 255 {
				shared := seen[page]
				if shared == nil {
					fresh := page
					shared = &fresh
					seen[page] = shared
				}
				pages[r>>8] = shared
			}
			r++
		}
	}
	return &pages
})

// classes looks up character classes; get it once per text with charClasses.
type classes struct{ pages *[0x1100]*[256]uint8 }

func charClasses() classes { return classes{unicodePages()} }

func (c classes) props(r rune) uint8 { return c.pages[r>>8][r&255] }

// charKind is the coarse class by which the known pre-tokenizers split.
type charKind uint8

const (
	kindOther  charKind = iota // [^\s\p{L}\p{N}]
	kindLetter                 // \p{L}
	kindNumber                 // \p{N}
	kindSpace                  // \s
)

func (c classes) kind(r rune) charKind {
	switch p := c.props(r) & propCategory; {
	case p <= gcLo:
		return kindLetter
	case p >= gcNd && p <= gcNo:
		return kindNumber
	case isSpace(r):
		return kindSpace
	}
	return kindOther
}

// isSpace reports White_Space, which has not changed since Unicode 6.3.
func isSpace(r rune) bool {
	switch {
	case r <= 0x20:
		return r == ' ' || r >= '\t' && r <= '\r'
	case r < 0x1680:
		return r == 0x85 || r == 0xa0
	}
	return r == 0x1680 || r >= 0x2000 && r <= 0x200a || r == 0x2028 || r == 0x2029 ||
		r == 0x202f || r == 0x205f || r == 0x3000
}

// isWord is \w as the added-token matcher of the reference sees it: Rust's regex
// crate, which differs from Oniguruma in the joiners and Latin-1's numbers.
func (c classes) isWord(r rune) bool {
	switch r {
	case 0x200c, 0x200d:
		return true
	case 0xb2, 0xb3, 0xb9, 0xbc, 0xbd, 0xbe:
		return false
	}
	return c.props(r)&propWord != 0
}

// isPunctuation is the class of the pre-tokenizer Punctuation: ASCII's, signs included, and
// the categories P of an old Unicode version.
func isPunctuation(c classes, r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && r < 0x7f && !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
	}
	k := c.props(r) & propCategory
	return (k >= gcPc && k <= gcPo) != inRuns(changedPunctuation, r)
}

// isMark reports a combining mark of the Unicode version of the reference's normalizer.
func (c classes) isMark(r rune) bool {
	k := c.props(r) & propCategory
	return r >= utf8.RuneSelf && (k >= gcMn && k <= gcMe) != inRuns(changedMarks, r)
}

// inRuns reports whether r is in one of the sorted ranges.
func inRuns(runs [][2]rune, r rune) bool {
	i, found := slices.BinarySearchFunc(runs, r, func(run [2]rune, r rune) int { return cmp.Compare(run[0], r) })
	return found || i > 0 && r <= runs[i-1][1]
}

// lowerTable maps the characters that have a small form of one character.
type lowerTable map[rune]rune

func (t lowerTable) to(r rune) rune {
	if small, ok := t[r]; ok {
		return small
	}
	return r
}

// lowerMap spreads out lowerRuns.
var lowerMap = sync.OnceValue(func() lowerTable {
	m := make(lowerTable)
	for _, run := range lowerRuns {
		for r := run.first; r <= run.last; r += run.step {
			m[r] = r + run.shift
		}
	}
	return m
})

// lowerRun says that every step-th character from first to last has its small form shift
// further on.
type lowerRun struct{ first, last, step, shift rune }

// cluster returns the length of the grapheme cluster at the start of s, as far as clusters
// of few bytes go: a character with the marks that extend it, pictographs that are joined, or
// \r\n. Of Hangul syllables and pairs of flags the parts come one by one.
func (c classes) cluster(s string) int {
	r, n := utf8.DecodeRuneInString(s)
	if r == '\r' && len(s) > 1 && s[1] == '\n' {
		return 2
	}
	for isPrepend(r) && n < len(s) {
		next, size := utf8.DecodeRuneInString(s[n:])
		if c.isControl(next) {
			return n
		}
		r = next
		n += size
	}
	if c.isControl(r) {
		return n
	}
	isPict := r >= 0xa9 && inRuns(pictographs, r)
	for n < len(s) {
		next, size := utf8.DecodeRuneInString(s[n:])
		joined := isPict && r == 0x200d && inRuns(pictographs, next)
		if next < 0x300 && !joined || !joined && !inRuns(extending, next) {
			break
		}
		r = next
		n += size
	}
	return n
}

// isControl reports a character that is always a cluster by itself.
func (c classes) isControl(r rune) bool {
	k := c.props(r) & propCategory
	if r < 0x300 {
		return k == gcCc || r == 0xad
	}
	return (k == gcZl || k == gcZp || k == gcCf || k == gcCn && r >= 0xe0000 && r <= 0xe0fff || r == 0xfff0) && !inRuns(extending, r) && !isPrepend(r)
}

// prepending are the characters with Grapheme_Cluster_Break=Prepend.
var prepending = [][2]rune{
	{0x600, 0x605}, {0x6dd, 0x6dd}, {0x70f, 0x70f}, {0x890, 0x891}, {0x8e2, 0x8e2}, {0xd4e, 0xd4e}, {0x110bd, 0x110bd}, {0x110cd, 0x110cd},
	{0x111c2, 0x111c3}, {0x113d1, 0x113d1}, {0x1193f, 0x1193f}, {0x11941, 0x11941}, {0x11a3a, 0x11a3a}, {0x11a84, 0x11a89}, {0x11d46, 0x11d46}, {0x11f02, 0x11f02},
}

func isPrepend(r rune) bool { return r >= 0x600 && inRuns(prepending, r) }
