package tokenizer

// This file is the BPE model: from a pre-token to ids. It knows nothing of
// special tokens or of how the text was split.

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// merge is what an adjacent pair of ids becomes; lower ranks merge first.
type merge struct {
	rank uint32
	id   int32
}

// bpe is a BPE model by ranked merges. Symbols start as single bytes if the vocabulary is
// byte-level, else as single characters.
type bpe struct {
	byteLevel bool
	bytes     [256]int32   // byte-level: id of each byte's character, -1 if the vocabulary lacks it
	fallback  [256][]int32 // byte-level: for a lacking one, its <0xHH> tokens if byte_fallback finds them all

	ascii      [128]int32     // else: id of each character, -1 if lacking
	runes      map[rune]int32 // of those beyond ASCII that the vocabulary has
	byteTokens [256]int32     // id of <0xHH>, -1 if lacking or not to be used
	words      *wordBreaks

	merges  map[uint64]merge
	whole   map[string]int32 // ignore_merges: pre-token (as bytes) → id; else nil
	unk     int32            // id that stands for lacking characters, -1 for none: they are dropped
	fuseUnk bool
	keepGap bool // and leave a gap across which nothing merges, as in llama.cpp
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// gap is the id of a symbol that stands for nothing.
const gap = -2

// symbol is a node of the doubly linked list of a pre-token's current pieces.
type symbol struct{ id, prev, next int32 }

// candidate is a possible merge at symbols[pos], ordered by rank, then position.
type candidate struct {
	key             uint64 // rank<<32 | pos
	left, right, id int32
}

const (
	maxCachedWord  = 64      // bytes; longer pre-tokens rarely come twice
	maxCachedWords = 1 << 15 // then the cache starts anew
	maxScratch     = 1 << 16 // symbols kept between calls
)

// work is the scratch space of one encoding, reused between calls.
type work struct {
	symbols []symbol
	heap    []candidate
	cache   map[string][2]int32 // pre-token → begin, end in ids
	ids     []int32
	spans   []span

	parts  []part // spm's
	unions []union

	endings []ending // unigram's
	cuts    []cut
}

func newWork() *work { return &work{cache: make(map[string][2]int32)} }

// append appends the ids of one pre-token.
func (m *bpe) append(dst []int32, word string, w *work) []int32 {
	if m.words == nil {
		return w.cached(dst, word, m.appendWord)
	}
	if id, ok := m.whole[word]; ok {
		return append(dst, id)
	}
	return m.words.each(dst, word, w, m.appendMerged)
}

func (m *bpe) appendWord(dst []int32, word string, w *work) []int32 {
	if id, ok := m.whole[word]; ok {
		return append(dst, id)
	}
	return m.appendMerged(dst, word, w)
}

// cached appends what encode does for the word, which must depend on nothing else.
func (w *work) cached(dst []int32, word string, encode func([]int32, string, *work) []int32) []int32 {
	if at, ok := w.cache[word]; ok {
		return append(dst, w.ids[at[0]:at[1]]...)
	}
	start := len(dst)
	dst = encode(dst, word, w)
	if len(word) <= maxCachedWord {
		if len(w.cache) >= maxCachedWords {
			clear(w.cache)
			w.ids = w.ids[:0]
		}
		begin := int32(len(w.ids))
		w.ids = append(w.ids, dst[start:]...)
		w.cache[strings.Clone(word)] = [2]int32{begin, int32(len(w.ids))}
	}
	return dst
}

// appendMerged runs the merges: always the pair of lowest rank, leftmost first.
func (m *bpe) appendMerged(dst []int32, word string, w *work) []int32 {
	symbols := m.split(w.symbols[:0], word)
	heap := w.heap[:0]
	for i := 0; i+1 < len(symbols); i++ {
		heap = m.push(heap, symbols, int32(i))
	}
	for len(heap) > 0 {
		var c candidate
		c, heap = pop(heap)
		pos := int32(uint32(c.key))
		s := &symbols[pos]
		if s.id != c.left || s.next < 0 || symbols[s.next].id != c.right {
			continue // one of its sides has merged meanwhile
		}
		gone := &symbols[s.next]
		s.id, s.next = c.id, gone.next
		gone.id = -1
		if s.next >= 0 {
			symbols[s.next].prev = pos
			heap = m.push(heap, symbols, pos)
		}
		if s.prev >= 0 {
			heap = m.push(heap, symbols, s.prev)
		}
	}
	if len(symbols) > 0 { // the first symbol is never merged away
		for i := int32(0); i >= 0; i = symbols[i].next {
			if id := symbols[i].id; id != gap {
				dst = append(dst, id)
			}
		}
	}
	w.symbols, w.heap = symbols, heap
	if cap(symbols) > maxScratch {
		w.symbols, w.heap = nil, nil
	}
	return dst
}

// split links the pre-token's initial symbols.
func (m *bpe) split(symbols []symbol, word string) []symbol {
	add := func(id int32) {
		n := int32(len(symbols))
		symbols = append(symbols, symbol{id: id, prev: n - 1, next: n + 1})
	}
	pending := false // an unknown that later unknowns may still join
	one := func(id int32, fallback []int32) {
		switch {
		case id >= 0:
			if pending {
				add(m.unk)
				pending = false
			}
			add(id)
		case fallback != nil:
			// The reference leaves a pending unknown behind the fallback's tokens.
			for _, id := range fallback {
				add(id)
			}
		case m.unk >= 0:
			if pending && !m.fuseUnk {
				add(m.unk)
			}
			pending = true
		case m.keepGap:
			add(gap)
		}
	}
	if m.byteLevel {
		for i := range len(word) {
			one(m.bytes[word[i]], m.fallback[word[i]])
		}
	} else {
		var buf [utf8.UTFMax]int32
		for i, r := range word {
			if id := m.symbolOf(r); id >= 0 {
				one(id, nil)
			} else {
				one(-1, m.bytesOf(buf[:0], word[i:i+runeSize(word[i:])]))
			}
		}
	}
	if pending {
		add(m.unk)
	}
	if n := len(symbols); n > 0 {
		symbols[n-1].next = -1
	}
	return symbols
}

// symbolOf returns the id of a character, -1 where the vocabulary lacks it.
func (m *bpe) symbolOf(r rune) int32 {
	if r < utf8.RuneSelf {
		return m.ascii[r]
	}
	if id, ok := m.runes[r]; ok {
		return id
	}
	return -1
}

// bytesOf appends the byte tokens of a character, or returns nil if one is lacking.
func (m *bpe) bytesOf(dst []int32, char string) []int32 {
	for i := range len(char) {
		id := m.byteTokens[char[i]]
		if id < 0 {
			return nil
		}
		dst = append(dst, id)
	}
	return dst
}

// push adds the merge of symbols[pos] with its successor, if there is one.
func (m *bpe) push(heap []candidate, symbols []symbol, pos int32) []candidate {
	left, right := symbols[pos].id, symbols[symbols[pos].next].id
	to, ok := m.merges[pairKey(left, right)]
	if !ok {
		return heap
	}
	heap = append(heap, candidate{uint64(to.rank)<<32 | uint64(uint32(pos)), left, right, to.id})
	i := len(heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if heap[parent].key <= heap[i].key {
			break
		}
		heap[parent], heap[i] = heap[i], heap[parent]
		i = parent
	}
	return heap
}

func pop(heap []candidate) (candidate, []candidate) {
	top, last := heap[0], len(heap)-1
	heap[0] = heap[last]
	heap = heap[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top, heap
		}
		if child+1 < last && heap[child+1].key < heap[child].key {
			child++
		}
		if heap[i].key <= heap[child].key {
			return top, heap
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// setSymbols looks up the ids of the initial symbols and, for byte_fallback, of the
// <0xHH> tokens that stand in for what the vocabulary lacks.
func (m *bpe) setSymbols(vocab map[string]int64, fallback bool) {
	find := func(piece string) int32 {
		if id, ok := vocab[piece]; ok {
			return int32(id)
		}
		return -1
	}
	for b := range m.byteTokens {
		m.byteTokens[b] = -1
		if fallback {
			m.byteTokens[b] = find(byteToken(byte(b)))
		}
	}
	if m.byteLevel {
		for b := range m.bytes {
			char := string(byteRune[b])
			if m.bytes[b] = find(char); m.bytes[b] < 0 {
				m.fallback[b] = m.bytesOf(nil, char)
			}
		}
		return
	}
	for r := range m.ascii {
		m.ascii[r] = find(string(rune(r)))
	}
	m.runes = make(map[rune]int32)
	for piece, id := range vocab {
		if r, n := utf8.DecodeRuneInString(piece); n > 1 && n == len(piece) {
			m.runes[r] = int32(id)
		}
	}
}

// byteToken spells the token of a byte that has no character in the vocabulary.
func byteToken(b byte) string {
	const hex = "0123456789ABCDEF"
	return "<0x" + string([]byte{hex[b>>4], hex[b&15]}) + ">"
}

// tokenByte is the inverse of byteToken, also of small digits.
func tokenByte(text string) (byte, bool) {
	if len(text) != 6 || text[:3] != "<0x" || text[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(text[3:5], 16, 8)
	return byte(b), err == nil
}
