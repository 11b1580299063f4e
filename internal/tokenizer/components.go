package tokenizer

// This file reads the steps around the model: normalizer, pre-tokenizer and
// post-processor of tokenizer.json. The decoder is in decode.go.

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// stage is one step of splitting a text into pre-tokens: a rewriting of the piece, then a
// split of it. Either may be nil. first tells whether the piece starts the text.
type stage struct {
	rewrite func(s string, first bool) string
	split   splitter
}

// setNormalizer chains the normalizers.
func (t *Tokenizer) setNormalizer(c *component) error {
	steps, err := c.flatten()
	if err != nil {
		return err
	}
	var chain []normalizer
	for i := range steps {
		n, err := newNormalizer(&steps[i])
		if err != nil {
			return err
		}
		chain = append(chain, n)
	}
	switch len(chain) {
	case 0:
	case 1:
		t.normalize = chain[0]
	default:
		t.normalize = func(s string) string {
			for _, n := range chain {
				s = n(s)
			}
			return s
		}
	}
	return nil
}

// setPreTokenizer reads the stages. Whatever comes behind ByteLevel sees the byte alphabet,
// so there the text is spelled in it; else the model is given bytes as they are.
func (t *Tokenizer) setPreTokenizer(c *component) error {
	steps, err := c.flatten()
	if err != nil {
		return err
	}
	for i := range steps {
		c := &steps[i]
		if c.Type != "ByteLevel" {
			st, err := newStage(c)
			if err != nil {
				return err
			}
			t.stages = append(t.stages, st)
			continue
		}
		if t.byteLevel {
			return fmt.Errorf("%q after ByteLevel: %w", c.Type, ErrUnsupported)
		}
		t.byteLevel = true
		var st stage
		if c.AddPrefixSpace == nil || *c.AddPrefixSpace {
			st.rewrite = func(s string, _ bool) string {
				if s[0] == ' ' {
					return s
				}
				return " " + s
			}
		}
		if c.UseRegex == nil || *c.UseRegex {
			st.split = gpt2Scanner
		}
		if st.rewrite != nil || st.split != nil {
			t.stages = append(t.stages, st)
		}
		if i+1 < len(steps) {
			t.spelled = true
			t.stages = append(t.stages, stage{rewrite: func(s string, _ bool) string { return spell(s) }})
		}
	}
	return nil
}

func newStage(c *component) (stage, error) {
	var st stage
	var err error
	switch c.Type {
	case "Digits":
		st.split = digitSplitter{c.IndividualDigits}
	case "Split":
		st.split, err = newSplit(c)
	case "Punctuation":
		if c.Behavior == "" {
			c.Behavior = isolated
		}
		st.split, err = newClassSplitter(isPunctuation, c.Behavior)
	case "Whitespace":
		st.split, err = newPatternSplitter(`\w+|[^\w\s]+`, false, removed, true)
	case "WhitespaceSplit":
		st.split, err = newClassSplitter(func(_ classes, r rune) bool { return isSpace(r) }, removed)
	case "CharDelimiterSplit":
		if utf8.RuneCountInString(c.Delimiter) != 1 {
			return st, fmt.Errorf("%w: CharDelimiterSplit with delimiter %.40q", ErrFormat, c.Delimiter)
		}
		st.split, err = newPatternSplitter(c.Delimiter, true, removed, false)
	case "Metaspace":
		return newMetaspace(c)
	default:
		err = fmt.Errorf("%q: %w (Sequence, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit, CharDelimiterSplit and ByteLevel are)",
			c.Type, ErrUnsupported)
	}
	return st, err
}

func newSplit(c *component) (splitter, error) {
	switch c.Behavior {
	case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous:
	default:
		return nil, fmt.Errorf("%w: Split with behavior %.40q", ErrFormat, c.Behavior)
	}
	switch re, text := c.Pattern.Regex, c.Pattern.String; {
	case re != nil && text == nil:
		// All text matches the known patterns, so removing what does not match is
		// isolating what does.
		if s := knownScanner(*re); s != nil && (c.Behavior == isolated || c.Behavior == removed && c.Invert) {
			return s, nil
		}
		return newPatternSplitter(*re, false, c.Behavior, c.Invert)
	case text != nil && re == nil && *text != "":
		return newPatternSplitter(*text, true, c.Behavior, c.Invert)
	}
	return nil, fmt.Errorf("%w: Split needs a pattern, Regex or String", ErrFormat)
}

// underline is the character that stands for a space in SentencePiece vocabularies.
const underline = "\u2581"

// newMetaspace replaces spaces by an underline, puts one in front, and splits before each.
func newMetaspace(c *component) (stage, error) {
	mark := c.Replacement
	if utf8.RuneCountInString(mark) != 1 {
		return stage{}, fmt.Errorf("%w: Metaspace with replacement %.40q", ErrFormat, mark)
	}
	scheme, err := c.prependScheme()
	if err != nil {
		return stage{}, err
	}
	st := stage{rewrite: func(s string, first bool) string {
		s = strings.ReplaceAll(s, " ", mark)
		if (scheme == "always" || scheme == "first" && first) && !strings.HasPrefix(s, mark) {
			s = mark + s
		}
		return s
	}}
	if c.Split == nil || *c.Split {
		st.split = beforeSplitter(mark)
	}
	return st, nil
}

// prependScheme returns "always", "first" or "never". Old files have a flag in its place.
func (c *component) prependScheme() (string, error) {
	switch scheme := strings.ToLower(c.PrependScheme); scheme {
	case "always", "first", "never":
		return scheme, nil
	case "":
		if c.AddPrefixSpace != nil && !*c.AddPrefixSpace {
			return "never", nil
		}
		return "always", nil
	}
	return "", fmt.Errorf("%w: Metaspace with prepend_scheme %.40q", ErrFormat, c.PrependScheme)
}

// setTemplates reads the post-processor: ids put before and after the text.
func (t *Tokenizer) setTemplates(c *component) error {
	steps, err := c.flatten()
	if err != nil {
		return err
	}
	for i := range steps {
		if err := t.addTemplate(&steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tokenizer) addTemplate(c *component) error {
	switch c.Type {
	case "ByteLevel": // it only trims offsets
		return nil
	case "BertProcessing", "RobertaProcessing":
		for _, tok := range []templateToken{c.Cls, c.Sep} {
			if _, ok := t.Token(tok.id); !ok {
				return fmt.Errorf("%w: template token %.40q has the unknown id %d", ErrFormat, tok.text, tok.id)
			}
		}
		t.prefix = slices.Concat([]int32{c.Cls.id}, t.prefix)
		t.suffix = slices.Concat(t.suffix, []int32{c.Sep.id})
		return nil
	case "TemplateProcessing":
	default:
		return fmt.Errorf("%q: %w (TemplateProcessing, BertProcessing, RobertaProcessing and ByteLevel are)", c.Type, ErrUnsupported)
	}
	var before, after []int32
	texts := 0
	for _, piece := range c.Single {
		switch {
		case piece.Sequence != nil && piece.Sequence.ID == "A":
			texts++
		case piece.SpecialToken != nil:
			name := piece.SpecialToken.ID
			ids, ok := c.SpecialTokens[name]
			if !ok {
				return fmt.Errorf("%w: the template uses %.40q, which special_tokens lacks", ErrFormat, name)
			}
			for _, id := range ids.IDs {
				if _, ok := t.Token(id); !ok {
					return fmt.Errorf("%w: template token %.40q has the unknown id %d", ErrFormat, name, id)
				}
			}
			if texts == 0 {
				before = append(before, ids.IDs...)
			} else {
				after = append(after, ids.IDs...)
			}
		default:
			return fmt.Errorf("%w: a template piece that is neither sequence A nor a special token", ErrFormat)
		}
	}
	if texts != 1 {
		return fmt.Errorf("template with the text %d times: %w (once is)", texts, ErrUnsupported)
	}
	t.prefix = slices.Concat(before, t.prefix)
	t.suffix = slices.Concat(t.suffix, after)
	return nil
}
