package tokenizer

// This file applies SentencePiece's precompiled character maps: a trie of what to replace,
// as a double array (Darts-clone), then the replacements, each ended by a zero byte.

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// charsmap is a parsed map. Units pack a node: bits 0–7 the label, bit 8 whether a value
// hangs below, bit 9 and bits 10–30 the offset of the children; bit 31 marks a value.
type charsmap struct {
	units []uint32
	texts string
	plain [128]bool // which ASCII characters stay as they are
}

// newCharsmap parses a map: the bytes of the array (u32), the array, the replacements.
func newCharsmap(data []byte) (*charsmap, error) {
	if len(data) == 0 {
		return &charsmap{}, nil
	}
	if len(data) < 4 {
		return nil, fmt.Errorf("%w: a character map of %d bytes", ErrFormat, len(data))
	}
	n := binary.LittleEndian.Uint32(data)
	rest := data[4:]
	if int64(n) > int64(len(rest)) || n%4 != 0 || n == 0 {
		return nil, fmt.Errorf("%w: a character map says its trie has %d bytes of %d", ErrFormat, n, len(rest))
	}
	m := &charsmap{units: make([]uint32, n/4), texts: string(rest[n:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(rest[4*i:])
	}
	for c := range m.plain {
		_, n := m.match(string(rune(c)), false)
		m.plain[c] = n == 0
	}
	return m, nil
}

func unitOffset(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }

// match returns what the start of s becomes, and the length of what is replaced, 0 if
// nothing. It takes the longest match, or with shortest the first.
func (m *charsmap) match(s string, shortest bool) (text string, n int) {
	if len(m.units) == 0 {
		return "", 0
	}
	pos := unitOffset(m.units[0])
	for i := range len(s) {
		c := uint32(s[i])
		pos ^= c
		if c == 0 || pos >= uint32(len(m.units)) {
			break
		}
		unit := m.units[pos]
		if unit&(1<<31|0xff) != c {
			break
		}
		pos ^= unitOffset(unit)
		if unit>>8&1 == 0 {
			continue
		}
		if pos >= uint32(len(m.units)) {
			break
		}
		if at := m.units[pos] & (1<<31 - 1); int(at) < len(m.texts) {
			text, _, _ = strings.Cut(m.texts[at:], "\x00")
			n = i + 1
			if shortest {
				break
			}
		}
	}
	return text, n
}

// longest rewrites s as SentencePiece does: the longest match at each place. keep, unless
// nil, returns how many bytes at the start of s stay as they are.
func (m *charsmap) longest(s string, keep func(string) int) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		if keep != nil {
			if n := keep(s[i:]); n > 0 {
				b.WriteString(s[i : i+n])
				i += n
				continue
			}
		}
		if text, n := m.match(s[i:], false); n > 0 {
			b.WriteString(text)
			i += n
			continue
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		b.WriteString(s[i : i+n])
		i += n
	}
	return b.String()
}

const maxCluster = 6 // bytes from which the reference maps the characters one by one

// normalizeClusters rewrites s as Hugging Face tokenizers does: a short grapheme cluster
// as a whole becomes what its first match becomes, whatever else it holds; of other
// clusters each character is mapped.
func (m *charsmap) normalizeClusters(s string) string {
	if len(m.units) == 0 {
		return s
	}
	i := 0
	for i < len(s) && s[i] < utf8.RuneSelf && m.plain[s[i]] {
		i++
	}
	if i == len(s) {
		return s
	}
	c := charClasses()
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		n := c.cluster(s[i:])
		part := s[i : i+n]
		i += n
		if n < maxCluster {
			if text, k := m.match(part, true); k > 0 {
				b.WriteString(text)
				continue
			}
		}
		for len(part) > 0 {
			_, k := utf8.DecodeRuneInString(part)
			if text, hit := m.match(part[:k], true); hit > 0 {
				b.WriteString(text)
			} else {
				b.WriteString(part[:k])
			}
			part = part[k:]
		}
	}
	return b.String()
}
