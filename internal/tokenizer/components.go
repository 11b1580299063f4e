package tokenizer

// This file reads the steps around the model: normalizer, pre-tokenizer, decoder
// and post-processor of tokenizer.json.

import (
	"fmt"
	"slices"
)

const maxNesting = 20 // of Sequences

// pipeline collects what the steps before the model amount to.
type pipeline struct {
	nfc       bool
	splitters []splitter
	prefixAt  int // see Tokenizer
	byteLevel bool
}

func (p *pipeline) read(doc *document) error {
	if doc.Normalizer != nil {
		if err := p.normalizer(doc.Normalizer, 0); err != nil {
			return fmt.Errorf("normalizer: %w", err)
		}
	}
	if doc.PreTokenizer != nil {
		if err := p.preTokenizer(doc.PreTokenizer, 0); err != nil {
			return fmt.Errorf("pre_tokenizer: %w", err)
		}
	}
	if !p.byteLevel {
		return fmt.Errorf("model BPE without the pre-tokenizer ByteLevel: %w", ErrUnsupported)
	}
	if doc.Decoder == nil {
		return fmt.Errorf("a missing decoder: %w (ByteLevel is)", ErrUnsupported)
	}
	for d := doc.Decoder; d.Type != "ByteLevel"; d = &d.Decoders[0] {
		if d.Type != "Sequence" || len(d.Decoders) != 1 {
			return fmt.Errorf("decoder %q: %w (ByteLevel is)", d.Type, ErrUnsupported)
		}
	}
	return nil
}

func (p *pipeline) normalizer(c *component, depth int) error {
	switch {
	case depth > maxNesting:
		return fmt.Errorf("%w: sequences nested beyond %d", ErrFormat, maxNesting)
	case c.Type == "NFC":
		p.nfc = true
		return nil
	case c.Type != "Sequence":
		return fmt.Errorf("%q: %w (NFC is)", c.Type, ErrUnsupported)
	}
	for i := range c.Normalizers {
		if err := p.normalizer(&c.Normalizers[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipeline) preTokenizer(c *component, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("%w: sequences nested beyond %d", ErrFormat, maxNesting)
	}
	if p.byteLevel && c.Type != "Sequence" {
		return fmt.Errorf("%q after ByteLevel: %w", c.Type, ErrUnsupported)
	}
	switch c.Type {
	case "Sequence":
		for i := range c.Pretokenizers {
			if err := p.preTokenizer(&c.Pretokenizers[i], depth+1); err != nil {
				return err
			}
		}
	case "Digits":
		p.splitters = append(p.splitters, digitSplitter{c.IndividualDigits})
	case "ByteLevel":
		p.byteLevel = true
		if c.AddPrefixSpace {
			p.prefixAt = len(p.splitters)
		}
		if c.UseRegex == nil || *c.UseRegex {
			p.splitters = append(p.splitters, gpt2Scanner)
		}
	case "Split":
		s, err := newSplit(c)
		if err != nil {
			return err
		}
		p.splitters = append(p.splitters, s)
	default:
		return fmt.Errorf("%q: %w (Sequence, Split, Digits and ByteLevel are)", c.Type, ErrUnsupported)
	}
	return nil
}

func newSplit(c *component) (splitter, error) {
	switch c.Behavior {
	case removed, isolated, mergedWithPrevious, mergedWithNext, contiguous:
	default:
		return nil, fmt.Errorf("%w: Split with behavior %.40q", ErrFormat, c.Behavior)
	}
	switch re, text := c.Pattern.Regex, c.Pattern.String; {
	case re != nil && text == nil:
		// All text matches the known patterns, so inverting changes nothing.
		if s := knownScanner(*re); s != nil && c.Behavior == isolated {
			return s, nil
		}
		return newPatternSplitter(*re, false, c.Behavior, c.Invert)
	case text != nil && re == nil && *text != "":
		return newPatternSplitter(*text, true, c.Behavior, c.Invert)
	}
	return nil, fmt.Errorf("%w: Split needs a pattern, Regex or String", ErrFormat)
}

// nameByStructure returns GGUF's name for the pre-tokenizer, "" if it has none.
func (t *Tokenizer) nameByStructure() string {
	s := t.splitters
	isLlama3 := len(s) == 1 && s[0] == splitter(llama3Scanner)
	switch {
	case isLlama3 && t.model.whole != nil:
		return "llama-bpe"
	case isLlama3:
		return "smaug-bpe"
	case t.model.whole != nil: // the names below do not imply ignore_merges
		return ""
	case len(s) == 2 && s[0] == splitter(digitSplitter{true}) && s[1] == splitter(gpt2Scanner):
		return "smollm"
	case len(s) != 1:
		return ""
	case s[0] == splitter(gpt2Scanner):
		return "gpt-2"
	case s[0] == splitter(qwen2Scanner):
		return "qwen2"
	}
	return ""
}

// setTemplates reads the post-processor: ids put before and after the text.
func (t *Tokenizer) setTemplates(c *component) error {
	if c == nil {
		return nil
	}
	if err := t.addTemplate(c, 0); err != nil {
		return fmt.Errorf("post_processor: %w", err)
	}
	return nil
}

func (t *Tokenizer) addTemplate(c *component, depth int) error {
	switch {
	case depth > maxNesting:
		return fmt.Errorf("%w: sequences nested beyond %d", ErrFormat, maxNesting)
	case c.Type == "ByteLevel": // it only trims offsets
		return nil
	case c.Type == "Sequence":
		for i := range c.Processors {
			if err := t.addTemplate(&c.Processors[i], depth+1); err != nil {
				return err
			}
		}
		return nil
	case c.Type != "TemplateProcessing":
		return fmt.Errorf("%q: %w (TemplateProcessing and ByteLevel are)", c.Type, ErrUnsupported)
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
