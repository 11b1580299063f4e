package tokenizer

// This file splits by single characters, and joins what lies between matches as a Split's
// behavior says.

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// joiner turns stretches that alternate between match and not into pieces.
type joiner struct {
	dst      []span
	base     int // pieces before are not ours
	behavior behavior
	matched  bool // whether the last stretch was a match
}

func (j *joiner) add(begin, end int, isMatch bool) {
	if begin == end {
		return
	}
	n := len(j.dst)
	switch {
	case j.behavior == removed && isMatch:
	case n > j.base && (j.behavior == contiguous && isMatch == j.matched ||
		j.behavior == mergedWithPrevious && isMatch && !j.matched ||
		j.behavior == mergedWithNext && !isMatch && j.matched):
		j.dst[n-1].end = end
	default:
		j.dst = append(j.dst, span{begin, end})
	}
	j.matched = isMatch
}

// classSplitter splits at every character of a class.
type classSplitter struct {
	is       func(classes, rune) bool
	behavior behavior
}

func newClassSplitter(is func(classes, rune) bool, b behavior) (splitter, error) {
	switch b {
	case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous:
		return classSplitter{is, b}, nil
	}
	return nil, fmt.Errorf("%w: behavior %.40q", ErrFormat, b)
}

func (p classSplitter) split(dst []span, text string) []span {
	c := charClasses()
	j := joiner{dst: dst, base: len(dst), behavior: p.behavior}
	done := 0
	for i, r := range text {
		if p.is(c, r) {
			j.add(done, i, false)
			done = i + runeSize(text[i:])
			j.add(i, done, true)
		}
	}
	j.add(done, len(text), false)
	return j.dst
}

// beforeSplitter splits before every occurrence of a character.
type beforeSplitter string

func (b beforeSplitter) split(dst []span, text string) []span {
	begin := 0
	for {
		next := -1
		if begin < len(text) {
			_, n := utf8.DecodeRuneInString(text[begin:])
			if next = strings.Index(text[begin+n:], string(b)); next >= 0 {
				next += begin + n
			}
		}
		if next < 0 {
			break
		}
		dst = append(dst, span{begin, next})
		begin = next
	}
	if begin < len(text) {
		dst = append(dst, span{begin, len(text)})
	}
	return dst
}
