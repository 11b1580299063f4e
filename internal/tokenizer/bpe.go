package tokenizer

// This file is the BPE model: from a pre-token to ids. It knows nothing of
// special tokens or of how the text was split.

import (
	"slices"
	"strings"
)

// merge is what an adjacent pair of ids becomes; lower ranks merge first.
type merge struct {
	rank uint32
	id   int32
}

// bpe is a byte-level BPE model: symbols start as single bytes.
type bpe struct {
	bytes    [256]int32   // id of each byte's character, -1 if the vocabulary lacks it
	fallback [256][]int32 // for a lacking one, its <0xHH> tokens if byte_fallback finds them all
	merges   map[uint64]merge
	whole    map[string]int32 // ignore_merges: pre-token (as bytes) → id; else nil
	unk      int32            // id that stands for lacking characters, -1 to drop them
	fuseUnk  bool
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

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
}

func newWork() *work { return &work{cache: make(map[string][2]int32)} }

// append appends the ids of one pre-token.
func (m *bpe) append(dst []int32, word string, w *work) []int32 {
	if at, ok := w.cache[word]; ok {
		return append(dst, w.ids[at[0]:at[1]]...)
	}
	start := len(dst)
	if id, ok := m.whole[word]; ok {
		dst = append(dst, id)
	} else {
		dst = m.appendMerged(dst, word, w)
	}
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
			dst = append(dst, symbols[i].id)
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
	for i := range len(word) {
		b := word[i]
		switch {
		case m.bytes[b] >= 0:
			if pending {
				add(m.unk)
				pending = false
			}
			add(m.bytes[b])
		case m.fallback[b] != nil:
			// The reference leaves a pending unknown behind the fallback's tokens.
			for _, id := range m.fallback[b] {
				add(id)
			}
		case m.unk >= 0:
			if pending && !m.fuseUnk {
				add(m.unk)
			}
			pending = true
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

// setByteFallback fills m.fallback from <0xHH> tokens for the bytes whose
// character the vocabulary lacks.
func (m *bpe) setByteFallback(id func(string) (int32, bool)) {
	const hex = "0123456789ABCDEF"
	for b := range m.bytes {
		if m.bytes[b] >= 0 {
			continue
		}
		var ids []int32
		for _, c := range []byte(string(byteRune[b])) {
			if piece, ok := id("<0x" + string([]byte{hex[c>>4], hex[c&15]}) + ">"); ok {
				ids = append(ids, piece)
			}
		}
		if len(ids) == len(string(byteRune[b])) {
			m.fallback[b] = slices.Clip(ids)
		}
	}
}
