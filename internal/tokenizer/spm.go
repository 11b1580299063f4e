package tokenizer

// This file is BPE as SentencePiece and llama.cpp run it: not a list of merges but a score
// for every piece decides; what is left over is spelled in bytes.

// spm merges, again and again, the two neighbours that make the piece of the highest score,
// leftmost first.
type spm struct {
	ids        map[string]int32
	scores     []float32
	byteTokens [256]int32
	unk        int32
	longest    int // bytes of the longest piece
	words      *wordBreaks
}

// part is a node of the linked list of a word's current pieces, text[begin:end].
type part struct{ begin, end, prev, next int32 }

// union is a possible merge of two parts, ordered by score, then position.
type union struct {
	score     float32
	left      int32
	size      int32 // of both together when it was found
	rightPart int32
}

// newSPM builds the model over the pieces that have a score. Types, if not nil, says which
// of them text can become, as SentencePiece sees it; llama.cpp merges to any of them.
func newSPM(tokens []string, scores []float32, types []int32, unk int32) *spm {
	m := &spm{ids: make(map[string]int32, len(scores)), scores: scores, unk: unk}
	for b := range m.byteTokens {
		m.byteTokens[b] = -1
	}
	for id, text := range tokens[:len(scores)] {
		if b, ok := tokenByte(text); ok && (types == nil || types[id] == TypeByte) {
			m.byteTokens[b] = int32(id)
		}
		if types == nil || types[id] == TypeNormal || types[id] == TypeUserDefined || types[id] == TypeUnused {
			m.ids[text] = int32(id)
			m.longest = max(m.longest, len(text))
		}
	}
	m.words = newWordBreaks(func(yield func(string) bool) {
		for text := range m.ids {
			if !yield(text) {
				return
			}
		}
	})
	return m
}

func (m *spm) append(dst []int32, text string, w *work) []int32 {
	return m.words.each(dst, text, w, m.appendWord)
}

func (m *spm) appendWord(dst []int32, word string, w *work) []int32 {
	if id, ok := m.ids[word]; ok && m.single(word) {
		return append(dst, id)
	}
	parts := w.parts[:0]
	for i := range word {
		n := int32(len(parts))
		parts = append(parts, part{int32(i), int32(i + runeSize(word[i:])), n - 1, n + 1})
	}
	parts[len(parts)-1].next = -1
	h := unions(w.unions[:0])
	for i := range parts {
		h = m.find(h, parts, int32(i), word)
	}
	for len(h) > 0 {
		var u union
		u, h = h.pop()
		left := &parts[u.left]
		if left.end == left.begin || left.next != u.rightPart || parts[left.next].end-left.begin != u.size {
			continue // one of its sides has merged meanwhile
		}
		right := &parts[left.next]
		left.end, left.next = right.end, right.next
		right.begin = right.end
		if left.next >= 0 {
			parts[left.next].prev = u.left
			h = m.find(h, parts, u.left, word)
		}
		if left.prev >= 0 {
			h = m.find(h, parts, left.prev, word)
		}
	}
	unknown := false // the last part was
	for i := int32(0); i >= 0; i = parts[i].next {
		text := word[parts[i].begin:parts[i].end]
		if id, ok := m.ids[text]; ok {
			dst = append(dst, id)
			unknown = false
			continue
		}
		spelled, ok := m.appendBytes(dst, text)
		if !ok && !unknown && m.unk >= 0 { // one unknown token for all the neighbours that are
			spelled = append(spelled, m.unk)
		}
		dst, unknown = spelled, !ok
	}
	w.parts, w.unions = parts, h
	if cap(parts) > maxScratch {
		w.parts, w.unions = nil, nil
	}
	return dst
}

// appendBytes appends the byte tokens of text, or nothing if one is lacking.
func (m *spm) appendBytes(dst []int32, text string) (out []int32, ok bool) {
	start := len(dst)
	for i := range len(text) {
		id := m.byteTokens[text[i]]
		if id < 0 {
			return dst[:start], false
		}
		dst = append(dst, id)
	}
	return dst, true
}

// single reports whether a word is one character.
func (m *spm) single(word string) bool { return runeSize(word) == len(word) }

// find adds the union of a part with its successor, if together they are a piece.
func (m *spm) find(h unions, parts []part, at int32, word string) unions {
	p := &parts[at]
	if p.next < 0 {
		return h
	}
	end := parts[p.next].end
	if int(end-p.begin) > m.longest {
		return h
	}
	id, ok := m.ids[word[p.begin:end]]
	if !ok {
		return h
	}
	return h.push(union{m.scores[id], at, end - p.begin, p.next})
}

// unions is a heap with the best union on top.
type unions []union

func (h unions) before(i, j int) bool {
	return h[i].score > h[j].score || h[i].score == h[j].score && h[i].left < h[j].left
}

func (h unions) push(u union) unions {
	h = append(h, u)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h.before(i, parent) {
			break
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
	return h
}

func (h unions) pop() (union, unions) {
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return top, h
		}
		if child+1 < last && h.before(child+1, child) {
			child++
		}
		if !h.before(child, i) {
			return top, h
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
