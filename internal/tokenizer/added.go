package tokenizer

// This file finds added tokens (special and user-defined) in a text, which
// happens before everything else.

import (
	"cmp"
	"strings"
	"unicode/utf8"
)

// addedToken is a token that is matched in the text as a whole.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only between non-word characters
	Lstrip     bool   `json:"lstrip"`      // takes the whitespace to its left
	Rstrip     bool   `json:"rstrip"`      // and to its right
	Normalized bool   `json:"normalized"`  // matched in the normalized text
	Special    bool   `json:"special"`
}

// matcher finds added tokens: a trie over their bytes.
type matcher struct {
	starts [256]bool
	edges  map[uint64]int32 // node<<8 | byte → node; the root is 0
	tokens []*addedToken    // per node, the token that ends there
}

// newMatcher builds a matcher; text gives the spelling to look for. The first of
// two tokens with one spelling wins. It returns nil for no tokens.
func newMatcher(tokens []*addedToken, text func(*addedToken) string) *matcher {
	m := &matcher{edges: make(map[uint64]int32), tokens: make([]*addedToken, 1)}
	for _, tok := range tokens {
		s := text(tok)
		if s == "" {
			continue
		}
		m.starts[s[0]] = true
		node := int32(0)
		for i := range len(s) {
			edge := uint64(node)<<8 | uint64(s[i])
			next, ok := m.edges[edge]
			if !ok {
				next = int32(len(m.tokens))
				m.edges[edge] = next
				m.tokens = append(m.tokens, nil)
			}
			node = next
		}
		m.tokens[node] = cmp.Or(m.tokens[node], tok)
	}
	if len(m.edges) == 0 {
		return nil
	}
	return m
}

// longest returns the longest token at the start of s and its length.
func (m *matcher) longest(s string) (tok *addedToken, n int) {
	node := int32(0)
	for i := range len(s) {
		next, ok := m.edges[uint64(node)<<8|uint64(s[i])]
		if !ok {
			break
		}
		node = next
		if m.tokens[node] != nil {
			tok, n = m.tokens[node], i+1
		}
	}
	return tok, n
}

// each walks text, leftmost-longest: gap gets every stretch between tokens and where it
// begins, found every token's id. With special false, special tokens are plain text.
func (m *matcher) each(text string, special bool, gap func(string, int), found func(int32)) {
	if m == nil {
		gap(text, 0)
		return
	}
	c := charClasses()
	done := 0 // everything before is handed out
	for i := 0; i < len(text); {
		if !m.starts[text[i]] {
			i++
			continue
		}
		tok, n := m.longest(text[i:])
		if tok == nil {
			i++
			continue
		}
		begin, end := i, i+n
		i = end // a match that is turned down below still uses up its text
		if tok.Special && !special {
			continue
		}
		if tok.SingleWord && (c.wordBefore(text[:begin]) || c.wordAfter(text[end:])) {
			continue
		}
		if tok.Lstrip {
			begin = max(done, len(strings.TrimRightFunc(text[:begin], isSpace)))
		}
		if tok.Rstrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], isSpace))
		}
		if done < begin {
			gap(text[done:begin], done)
		}
		found(tok.ID)
		done = end
	}
	if done < len(text) {
		gap(text[done:], done)
	}
}

func (c classes) wordBefore(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && c.isWord(r)
}

func (c classes) wordAfter(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && c.isWord(r)
}
