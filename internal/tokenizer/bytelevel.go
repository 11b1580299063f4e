package tokenizer

// This file holds GPT-2's byte alphabet, in which a vocabulary spells arbitrary
// bytes with printable characters, and the lossy reading of bytes as UTF-8.

import (
	"strings"
	"unicode/utf8"
)

// byteRune maps a byte to the character that stands for it.
var byteRune = func() (m [256]rune) {
	next := rune(0x100)
	for b := range m {
		if b >= 33 && b <= 126 || b >= 161 && b <= 172 || b >= 174 {
			m[b] = rune(b)
			continue
		}
		m[b] = next
		next++
	}
	return m
}()

// runeByte is the inverse of byteRune; -1 marks characters outside the alphabet.
var runeByte = func() (m [0x144]int16) {
	for i := range m {
		m[i] = -1
	}
	for b, r := range byteRune {
		m[r] = int16(b)
	}
	return m
}()

// appendBytes appends the bytes that a byte-level piece spells. A piece with a
// character outside the alphabet stands for itself; ok is then false.
func appendBytes(dst []byte, piece string) (out []byte, ok bool) {
	start := len(dst)
	for _, r := range piece {
		if int(r) >= len(runeByte) || runeByte[r] < 0 {
			return append(dst[:start], piece...), false
		}
		dst = append(dst, byte(runeByte[r]))
	}
	return dst, true
}

// spell writes text in the byte alphabet.
func spell(text string) string {
	var b strings.Builder
	for i := range len(text) {
		b.WriteRune(byteRune[text[i]])
	}
	return b.String()
}

// incomplete returns how many bytes at the start of b form the beginning of a
// UTF-8 sequence (its maximal subpart, at least 1), and whether more bytes could
// still complete it. b must not start with a whole sequence.
func incomplete(b []byte) (n int, more bool) {
	lo, hi, need := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		need = 1
	case c == 0xe0:
		need, lo = 2, 0xa0
	case c == 0xed:
		need, hi = 2, 0x9f
	case c >= 0xe1 && c <= 0xef:
		need = 2
	case c == 0xf0:
		need, lo = 3, 0x90
	case c >= 0xf1 && c <= 0xf3:
		need = 3
	case c == 0xf4:
		need, hi = 3, 0x8f
	default:
		return 1, false
	}
	for n = 1; n <= need; n++ {
		if n == len(b) {
			return n, true
		}
		if b[n] < lo || b[n] > hi {
			return n, false
		}
		lo, hi = 0x80, 0xbf
	}
	return n, false
}

// appendLossy appends b as UTF-8, every maximal ill-formed part replaced by
// U+FFFD as Rust and Python do. With final false it stops before a sequence that
// more bytes could complete; it returns how many bytes of b it consumed.
func appendLossy(dst, b []byte, final bool) ([]byte, int) {
	i := 0
	for i < len(b) {
		if b[i] < utf8.RuneSelf {
			dst = append(dst, b[i])
			i++
			continue
		}
		if r, n := utf8.DecodeRune(b[i:]); r != utf8.RuneError || n > 1 {
			dst = append(dst, b[i:i+n]...)
			i += n
			continue
		}
		n, more := incomplete(b[i:])
		if more && !final {
			break
		}
		dst = utf8.AppendRune(dst, utf8.RuneError)
		i += n
	}
	return dst, i
}

// validText returns text with its ill-formed parts replaced by U+FFFD.
func validText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	out, _ := appendLossy(make([]byte, 0, len(text)+16), []byte(text), true)
	return string(out)
}

// runeSize is the number of bytes of the first character of s, 1 where s begins with bytes that
// are none: a token of a vocabulary may hold a part of a character, and a text that it is cut out
// of then has the other part. (utf8.RuneLen of what range yields there is 3.)
func runeSize(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}
