package tokenizer

// This file turns ids back into text, at once or as they come.

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// decoder is what the decoder steps of a description amount to.
type decoder struct {
	plain     [][]byte // by id: the bytes a token stands for
	raw       bool     // byte-level: bytes of neighbouring tokens form characters
	byteLike  []int16  // ByteFallback: by id, the byte that a token is, -1 for others; else nil
	metaspace string   // this character is dropped from the first token; "" for none
	separator string   // between tokens
	trim      rune     // after Fuse: stripped from both ends of the text,
	start     int      // this many at most from its start
	stop      int      // and from its end
}

// setDecoder reads the decoder. rawAdded lets added tokens stand for their own text even
// where it reads as bytes.
func (t *Tokenizer) setDecoder(c *component, rawAdded bool) error {
	steps, err := c.flatten()
	if err != nil {
		return err
	}
	d := &t.decoder
	if c == nil {
		d.separator = " "
	}
	var each []normalizer // what happens to every token by itself
	fused := false
	for i := range steps {
		c := &steps[i]
		if d.raw || d.metaspace != "" {
			return fmt.Errorf("%q after another that ends the sequence: %w", c.Type, ErrUnsupported)
		}
		switch c.Type {
		case "ByteLevel":
			if d.byteLike != nil || fused {
				return fmt.Errorf("%q after ByteFallback or Fuse: %w", c.Type, ErrUnsupported)
			}
			d.raw = true
		case "Replace":
			if d.byteLike != nil || fused {
				return fmt.Errorf("%q after ByteFallback or Fuse: %w", c.Type, ErrUnsupported)
			}
			replace, err := newReplace(c)
			if err != nil {
				return err
			}
			each = append(each, replace)
		case "ByteFallback":
			d.byteLike = make([]int16, len(t.tokens))
		case "Fuse":
			fused = true
		case "Strip":
			r, n := utf8.DecodeRuneInString(c.Content)
			if n == 0 || n != len(c.Content) || c.Start < 0 || c.Stop < 0 {
				return fmt.Errorf("%w: Strip of %.40q, %d and %d", ErrFormat, c.Content, c.Start, c.Stop)
			}
			if !fused {
				if d.byteLike != nil {
					return fmt.Errorf("%q between ByteFallback and Fuse: %w", c.Type, ErrUnsupported)
				}
				each = append(each, func(s string) string { return trimEnds(s, r, c.Start, c.Stop) })
				continue
			}
			if d.trim != 0 {
				return fmt.Errorf("%q twice: %w", c.Type, ErrUnsupported)
			}
			d.trim, d.start, d.stop = r, c.Start, c.Stop
		case "Metaspace":
			mark := c.Replacement
			if utf8.RuneCountInString(mark) != 1 {
				return fmt.Errorf("%w: Metaspace with replacement %.40q", ErrFormat, mark)
			}
			if d.byteLike != nil || fused {
				return fmt.Errorf("%q after ByteFallback or Fuse: %w", c.Type, ErrUnsupported)
			}
			scheme, err := c.prependScheme()
			if err != nil {
				return err
			}
			if scheme == "never" {
				each = append(each, func(s string) string { return strings.ReplaceAll(s, mark, " ") })
			} else {
				d.metaspace = mark
			}
		default:
			return fmt.Errorf("%q: %w (Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace and Strip are)", c.Type, ErrUnsupported)
		}
	}
	added := make(map[int32]*addedToken, len(t.added))
	for _, a := range t.added {
		added[a.ID] = a
	}
	d.plain = make([][]byte, len(t.tokens))
	var all []byte
	for id, text := range t.tokens {
		start := len(all)
		a := added[int32(id)]
		if a != nil {
			text = t.spelling(a)
		}
		own := a != nil && rawAdded
		if !own {
			for _, f := range each {
				text = f(text)
			}
		}
		if d.byteLike != nil {
			d.byteLike[id] = -1
			if b, ok := tokenByte(text); ok && !own {
				d.byteLike[id] = int16(b)
			}
		}
		if d.raw && !own {
			all, _ = appendBytes(all, text)
		} else {
			all = append(all, text...)
		}
		d.plain[id] = all[start:len(all):len(all)]
	}
	return nil
}

// trimEnds strips r from both ends of s, start and stop times at most.
func trimEnds(s string, r rune, start, stop int) string {
	char := string(r)
	for ; start > 0 && strings.HasPrefix(s, char); start-- {
		s = s[len(char):]
	}
	for ; stop > 0 && strings.HasSuffix(s, char); stop-- {
		s = s[:len(s)-len(char)]
	}
	return s
}

// Decode returns the text of ids. Ill-formed UTF-8 becomes U+FFFD, one for each
// maximal ill-formed part (one for each byte of a run of byte tokens that is ill-formed);
// ids outside the vocabulary stand for nothing.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	s := t.NewStream(skipSpecial)
	var out []byte
	for _, id := range ids {
		s.add(id)
		out = s.take(out, false)
	}
	return string(s.take(out, true))
}

// Stream decodes ids one by one, holding back the bytes of a character until it
// is whole. The pieces together are what Decode returns for all the ids.
// A Stream is for one goroutine.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	begun       bool   // a token has come
	pending     []byte // bytes that may be part of a character
	text        []byte // what is certain but for stripping
	toStart     int    // characters still to strip from the start
}

// NewStream returns a decoder for ids that come one at a time.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial, toStart: t.start}
}

// Push adds a token and returns the text that is now certain, often "".
func (s *Stream) Push(id int32) string {
	s.add(id)
	return string(s.take(nil, false))
}

// Flush returns what is left, an unfinished character as U+FFFD. The stream is
// then empty and can be used again.
func (s *Stream) Flush() string { return string(s.take(nil, true)) }

// add takes in a token.
func (s *Stream) add(id int32) {
	d := &s.t.decoder
	if id < 0 || int(id) >= len(d.plain) || !s.t.known[id] || s.skipSpecial && s.t.special[id] {
		return
	}
	first := !s.begun
	s.begun = true
	if !first && d.separator != "" {
		s.text = append(s.text, d.separator...)
	}
	plain := d.plain[id]
	switch {
	case d.raw:
		s.pending = append(s.pending, plain...)
	case d.byteLike != nil && d.byteLike[id] >= 0:
		s.pending = append(s.pending, byte(d.byteLike[id]))
	case d.metaspace != "":
		with := " "
		if first {
			with = ""
		}
		s.text = append(s.text, strings.ReplaceAll(string(plain), d.metaspace, with)...)
	default:
		s.endBytes()
		s.text = append(s.text, plain...)
	}
}

// endBytes closes a run of byte tokens: text if it is well-formed, else an U+FFFD for each.
func (s *Stream) endBytes() {
	if len(s.pending) == 0 {
		return
	}
	if utf8.Valid(s.pending) {
		s.text = append(s.text, s.pending...)
	} else {
		s.text = append(s.text, strings.Repeat("\ufffd", len(s.pending))...)
	}
	s.pending = s.pending[:0]
}

// take appends what is certain to dst, all of it if final.
func (s *Stream) take(dst []byte, final bool) []byte {
	d := &s.t.decoder
	if d.raw {
		var n int
		s.text, n = appendLossy(s.text, s.pending, final)
		s.pending = append(s.pending[:0], s.pending[n:]...)
	} else if final {
		s.endBytes()
	}
	text := s.text
	if d.trim != 0 {
		char := string(d.trim)
		for s.toStart > 0 && len(text) > 0 {
			if !strings.HasPrefix(string(text[:min(len(text), len(char))]), char) {
				s.toStart = 0
				break
			}
			text = text[len(char):]
			s.toStart--
		}
	}
	keep := 0 // bytes at the end that may still be stripped
	if d.stop > 0 {
		char := string(d.trim)
		for n := 0; n < d.stop && strings.HasSuffix(string(text[:len(text)-keep]), char); n++ {
			keep += len(char)
		}
	}
	dst = append(dst, text[:len(text)-keep]...)
	s.text = append(s.text[:0], text[len(text)-keep:]...)
	if final {
		s.text, s.begun, s.toStart = s.text[:0], false, d.start
	}
	return dst
}
