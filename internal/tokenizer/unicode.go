package tokenizer

// This file answers what class a character has. The tables are those of Hugging
// Face tokenizers (see gen_unicode_tables.py), not those of Go's unicode package,
// which follow another Unicode version and would split newer scripts elsewhere.

import (
	"strconv"
	"strings"
	"sync"
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
