package tokenizer

// This file cuts a long pre-token where no merge can reach across, so that words of
// vocabularies that have no pre-tokenizer (Llama 2, Gemma) are encoded one by one and
// remembered. The cut changes no ids: a merge makes a piece of the vocabulary, and none of
// those has the two characters next to each other.

import (
	"strings"
	"unicode/utf8"
)

// wordBreaks tells before which underlines a text may be cut.
type wordBreaks struct {
	ascii [128]bool // characters that stand before an underline within some piece
	runes map[rune]bool
}

// newWordBreaks looks at all pieces that merging can make.
func newWordBreaks(pieces func(yield func(string) bool)) *wordBreaks {
	b := &wordBreaks{runes: make(map[rune]bool)}
	for piece := range pieces {
		for rest := piece; ; {
			at := strings.Index(rest, underline)
			if at < 0 {
				break
			}
			if begin := len(piece) - len(rest) + at; begin > 0 {
				r, _ := utf8.DecodeLastRuneInString(piece[:begin])
				if r < utf8.RuneSelf {
					b.ascii[r] = true
				} else {
					b.runes[r] = true
				}
			}
			rest = rest[at+len(underline):]
		}
	}
	return b
}

// each encodes the words of text one by one.
func (b *wordBreaks) each(dst []int32, text string, w *work, encode func([]int32, string, *work) []int32) []int32 {
	begin := 0
	for from := 1; from < len(text); {
		at := strings.Index(text[from:], underline)
		if at < 0 {
			break
		}
		at += from
		from = at + len(underline)
		r, _ := utf8.DecodeLastRuneInString(text[:at])
		if r < utf8.RuneSelf && b.ascii[r] || r >= utf8.RuneSelf && b.runes[r] {
			continue
		}
		dst = w.cached(dst, text[begin:at], encode)
		begin = at
	}
	return w.cached(dst, text[begin:], encode)
}
