package tokenizer

// This file turns ids back into text, at once or as they come.

// Decode returns the text of ids. Ill-formed UTF-8 becomes U+FFFD, one for each
// maximal ill-formed part; ids outside the vocabulary stand for nothing.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	var raw []byte
	for _, id := range ids {
		raw = append(raw, t.bytes(id, skipSpecial)...)
	}
	return validText(string(raw))
}

// bytes returns the bytes of one token.
func (t *Tokenizer) bytes(id int32, skipSpecial bool) []byte {
	if id < 0 || int(id) >= len(t.plain) || skipSpecial && t.special[id] {
		return nil
	}
	return t.plain[id]
}

// Stream decodes ids one by one, holding back the bytes of a character until it
// is whole. The pieces together are what Decode returns for all the ids.
// A Stream is for one goroutine.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	pending     []byte
}

// NewStream returns a decoder for ids that come one at a time.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{t: t, skipSpecial: skipSpecial}
}

// Push adds a token and returns the text that is now certain, often "".
func (s *Stream) Push(id int32) string {
	s.pending = append(s.pending, s.t.bytes(id, s.skipSpecial)...)
	return s.take(false)
}

// Flush returns what is left, an unfinished character as U+FFFD. The stream is
// then empty and can be used again.
func (s *Stream) Flush() string { return s.take(true) }

func (s *Stream) take(final bool) string {
	text, n := appendLossy(nil, s.pending, final)
	s.pending = append(s.pending[:0], s.pending[n:]...)
	return string(text)
}
