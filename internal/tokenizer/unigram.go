package tokenizer

// This file is the unigram model: of all ways to cut a text into pieces it takes the most
// probable one, by Viterbi's algorithm.

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// unigram holds the pieces in a trie whose nodes are numbered level by level, so that the
// children of one lie together: those of node n are from first[n] to first[n+1].
type unigram struct {
	first  []int32
	labels []byte  // of a node, the byte that leads to it
	ids    []int32 // of a node, the piece that ends there, -1 if none
	root   [256]int32

	scores     []float64 // by id, log probabilities
	lookup     map[string]int32
	unk        int32 // -1 if there is none
	unkScore   float64
	fuseUnk    bool
	byteTokens [256]int32 // -1 where lacking or not to be used
}

// unknownPenalty is what an unknown character costs beyond the least probable piece.
const unknownPenalty = 10

// newUnigram builds the model. Types, if not nil, says which pieces are in use, as llama.cpp
// sees it: normal and user-defined ones, and normal ones set what an unknown character costs.
func newUnigram(doc *unigramDocument, types []int32) (*unigram, error) {
	if len(doc.Vocab) == 0 {
		return nil, fmt.Errorf("%w: model Unigram without a vocabulary", ErrFormat)
	}
	m := &unigram{unk: -1, fuseUnk: doc.FuseUnk == nil || *doc.FuseUnk, scores: make([]float64, len(doc.Vocab)),
		lookup: make(map[string]int32, len(doc.Vocab))}
	if doc.UnkID != nil {
		if m.unk = *doc.UnkID; m.unk < 0 || int(m.unk) >= len(doc.Vocab) {
			return nil, fmt.Errorf("%w: unk_id is %d of %d pieces", ErrFormat, m.unk, len(doc.Vocab))
		}
	}
	lowest := math.Inf(1)
	for id, p := range doc.Vocab {
		if math.IsNaN(p.score) || math.IsInf(p.score, 0) {
			return nil, fmt.Errorf("%w: the score of piece %.40q is not a number", ErrFormat, p.piece)
		}
		m.scores[id] = p.score
		if types == nil || types[id] == TypeNormal {
			lowest = min(lowest, p.score)
		}
		if types == nil || types[id] == TypeNormal || types[id] == TypeUserDefined || types[id] == TypeUnused {
			m.lookup[p.piece] = int32(id)
		}
	}
	m.unkScore = lowest - unknownPenalty
	for b := range m.byteTokens {
		m.byteTokens[b] = -1
		if id, ok := m.lookup[byteToken(byte(b))]; ok && doc.ByteFallback {
			m.byteTokens[b] = id
		}
	}
	pieces := make([]string, 0, len(m.lookup))
	for piece := range m.lookup {
		if piece != "" {
			pieces = append(pieces, piece)
		}
	}
	m.setTrie(pieces)
	return m, nil
}

// setTrie builds the trie, level by level over the sorted pieces.
func (m *unigram) setTrie(pieces []string) {
	slices.Sort(pieces)
	type group struct{ from, to int } // the pieces below a node
	level := []group{{0, len(pieces)}}
	m.labels, m.ids = []byte{0}, []int32{-1}
	for depth := 0; len(level) > 0; depth++ {
		var next []group
		for _, g := range level {
			m.first = append(m.first, int32(len(m.labels)))
			i := g.from
			for i < g.to && len(pieces[i]) == depth { // it ended at the node itself
				i++
			}
			for i < g.to {
				j, label, id := i, pieces[i][depth], int32(-1)
				if len(pieces[i]) == depth+1 {
					id = m.lookup[pieces[i]]
				}
				for j < g.to && pieces[j][depth] == label {
					j++
				}
				m.labels, m.ids = append(m.labels, label), append(m.ids, id)
				next = append(next, group{i, j})
				i = j
			}
		}
		level = next
	}
	m.first = append(m.first, int32(len(m.labels)))
	for i := range m.root {
		m.root[i] = -1
	}
	for n := m.first[0]; n < m.first[1]; n++ {
		m.root[m.labels[n]] = n
	}
}

// child returns the node below n along c, -1 if there is none.
func (m *unigram) child(n int32, c byte) int32 {
	lo, hi := m.first[n], m.first[n+1]
	for hi-lo > 8 {
		mid := (lo + hi) / 2
		if m.labels[mid] <= c {
			lo = mid
		} else {
			hi = mid
		}
	}
	for ; lo < hi; lo++ {
		if m.labels[lo] == c {
			return lo
		}
	}
	return -1
}

// ending is the best way to cut a text up to some byte: its last piece.
type ending struct {
	score float64
	begin int32 // -1: there is none
	id    int32
}

func (m *unigram) append(dst []int32, text string, w *work) []int32 {
	return w.cached(dst, text, m.appendWord)
}

func (m *unigram) appendWord(dst []int32, text string, w *work) []int32 {
	best := slices.Grow(w.endings[:0], len(text)+1)[:len(text)+1]
	for i := range best {
		best[i].begin = -1
	}
	best[0].score = 0
	for begin := 0; begin < len(text); {
		here := best[begin].score
		_, size := utf8.DecodeRuneInString(text[begin:])
		single := false
		reach := func(end int, id int32, score float64) {
			if to := &best[end]; to.begin < 0 || score > to.score {
				*to = ending{score, int32(begin), id}
			}
		}
		node := m.root[text[begin]]
		for end := begin + 1; node >= 0; end++ {
			if id := m.ids[node]; id >= 0 {
				reach(end, id, here+m.scores[id])
				single = single || end-begin == size
			}
			if end == len(text) {
				break
			}
			node = m.child(node, text[end])
		}
		if !single {
			reach(begin+size, m.unk, here+m.unkScore)
		}
		begin += size
	}
	cuts := w.cuts[:0] // from the end of the text
	for end := int32(len(text)); end > 0; end = best[end].begin {
		if n := len(cuts); n > 0 && m.fuseUnk && best[end].id == m.unk && cuts[n-1].id == m.unk {
			cuts[n-1].begin = best[end].begin
			continue
		}
		cuts = append(cuts, cut{best[end].begin, end, best[end].id})
	}
	for _, c := range slices.Backward(cuts) {
		if c.id != m.unk {
			dst = append(dst, c.id)
			continue
		}
		dst = m.appendUnknown(dst, text[c.begin:c.end])
	}
	w.endings, w.cuts = best, cuts
	if cap(best) > maxScratch {
		w.endings, w.cuts = nil, nil
	}
	return dst
}

// cut is a piece of a text.
type cut struct{ begin, end, id int32 }

// appendUnknown appends what stands for a stretch of unknown characters: a piece, where
// fusing has made one, else its bytes, else the unknown token.
func (m *unigram) appendUnknown(dst []int32, text string) []int32 {
	if id, ok := m.lookup[text]; ok {
		return append(dst, id)
	}
	start := len(dst)
	for i := range len(text) {
		id := m.byteTokens[text[i]]
		if id < 0 {
			dst = dst[:start]
			break
		}
		dst = append(dst, id)
	}
	if len(dst) == start && m.unk >= 0 {
		dst = append(dst, m.unk)
	}
	return dst
}
