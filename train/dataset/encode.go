package dataset

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// This file makes tokens of rows and finds those that carry a loss.

// Tokenizer is what the package needs of a tokenizer.
type Tokenizer interface {
	// Encode returns the ids of a text, in which spellings of special tokens are those tokens. With
	// special, what the tokenizer adds by itself is added (a beginning-of-sequence token for some).
	Encode(text string, special bool) ([]int32, error)
	// Pieces divides the text that ids stand for: what each adds to it. A token that ends inside a
	// character adds none of it; the one that completes the character does.
	Pieces(ids []int32) []string
	// EOS is the end-of-sequence id, or false where there is none.
	EOS() (int32, bool)
}

// Template renders conversations.
type Template interface {
	// Render returns the text of a conversation and, with spans, where in it the assistant speaks
	// (half-open ranges of bytes, in order, the marks that end a turn included). With prompt, the text
	// ends where the assistant is to begin.
	Render(c Conversation, prompt, spans bool) (text string, assistant [][2]int, err error)
}

// TrainOn says which tokens carry a loss.
type TrainOn string

// What is trained on.
const (
	Assistant TrainOn = "assistant" // what the assistant says; completions; all of a text
	All       TrainOn = "all"
)

// Overlong says what becomes of a row longer than MaxLength.
type Overlong string

// What becomes of a row that is too long.
const (
	Auto     Overlong = "auto"     // truncated, but an error where it passes the model's context too
	Truncate Overlong = "truncate" // its end is cut off
	Drop     Overlong = "drop"     // it is left out
	Refuse   Overlong = "error"
)

// Encoder turns rows into tokens.
type Encoder struct {
	Tokenizer Tokenizer
	Template  Template // nil where there is none: conversations are then an error
	TrainOn   TrainOn  // "" is Assistant
	MaxLength int      // in tokens; 0 is no limit
	Context   int      // of the model, in tokens; 0 is unknown
	Overlong  Overlong // "" is Auto
}

// Example is one sequence.
type Example struct {
	Tokens []int32
	Loss   []bool // the token is to be predicted with a loss; never the first
}

// Targets is the number of tokens that carry a loss.
func (e *Example) Targets() (n int) {
	for _, l := range e.Loss {
		if l {
			n++
		}
	}
	return n
}

// Pair is two answers to a prompt, each behind it.
type Pair struct {
	Chosen, Rejected Example
}

// Report counts what became of rows.
type Report struct {
	Rows      int // read
	Kept      int
	Truncated int
	Dropped   int // too long, with Drop or because the prompt alone is
	Lossless  int // left out because no token of them carries a loss (or both answers are the same)
	Tokens    int
	Targets   int
}

// Add adds the counts of another file.
func (r *Report) Add(o Report) {
	r.Rows += o.Rows
	r.Kept += o.Kept
	r.Truncated += o.Truncated
	r.Dropped += o.Dropped
	r.Lossless += o.Lossless
	r.Tokens += o.Tokens
	r.Targets += o.Targets
}

// Lengths lists the number of tokens of each example.
func Lengths(list []Example) []int {
	out := make([]int, len(list))
	for i := range list {
		out[i] = len(list[i].Tokens)
	}
	return out
}

// PairLengths lists the number of tokens of each pair, both sequences together.
func PairLengths(list []Pair) []int {
	out := make([]int, len(list))
	for i := range list {
		out[i] = len(list[i].Chosen.Tokens) + len(list[i].Rejected.Tokens)
	}
	return out
}

var (
	errLossless = errors.New("no token carries a loss")
	errDropped  = errors.New("too long")
)

// Examples encodes all rows of a file for language modelling. Preference rows fail with ErrFormat,
// and so does a row that is too long where that is an error; the message names the place.
func (e *Encoder) Examples(f *File) ([]Example, Report, error) {
	if f.Form == FormPreference {
		return nil, Report{}, fmt.Errorf("dataset: encoding %q: %w: its rows are preferences (chosen/rejected), which objective dpo takes", f.Path, ErrFormat)
	}
	var out []Example
	report, err := e.each(f, func(r *Row) (int, int, bool, error) {
		x, err := e.example(r, f.Form)
		if err != nil {
			return 0, 0, false, err
		}
		cut, err := e.fit(&x)
		if err != nil {
			return 0, 0, false, err
		}
		n := x.Targets()
		if n == 0 {
			return 0, 0, false, errLossless
		}
		out = append(out, x)
		return len(x.Tokens), n, cut, nil
	})
	return out, report, err
}

// Pairs encodes all rows of a file of preferences. Rows of other forms fail with ErrFormat.
func (e *Encoder) Pairs(f *File) ([]Pair, Report, error) {
	if f.Form != FormPreference {
		return nil, Report{}, fmt.Errorf("dataset: encoding %q: %w: its rows have the form %s; preferences have the fields chosen and rejected", f.Path, ErrFormat, f.Form)
	}
	var out []Pair
	report, err := e.each(f, func(r *Row) (int, int, bool, error) {
		p, err := e.pair(r)
		if err != nil {
			return 0, 0, false, err
		}
		if slices.Equal(p.Chosen.Tokens, p.Rejected.Tokens) {
			return 0, 0, false, errLossless
		}
		cut, err := e.fit(&p.Chosen)
		if err != nil {
			return 0, 0, false, err
		}
		cut2, err := e.fit(&p.Rejected)
		if err != nil {
			return 0, 0, false, err
		}
		if p.Chosen.Targets() == 0 || p.Rejected.Targets() == 0 {
			if cut || cut2 {
				return 0, 0, false, errDropped // the prompt alone is too long
			}
			return 0, 0, false, errLossless
		}
		out = append(out, p)
		return len(p.Chosen.Tokens) + len(p.Rejected.Tokens), p.Chosen.Targets() + p.Rejected.Targets(), cut || cut2, nil
	})
	return out, report, err
}

// each runs encode on every row and counts.
func (e *Encoder) each(f *File, encode func(*Row) (tokens, targets int, cut bool, err error)) (Report, error) {
	report := Report{Rows: len(f.Rows)}
	for i := range f.Rows {
		r := &f.Rows[i]
		tokens, targets, cut, err := encode(r)
		switch {
		case errors.Is(err, errLossless):
			report.Lossless++
			continue
		case errors.Is(err, errDropped):
			report.Dropped++
			continue
		case err != nil:
			return report, fmt.Errorf("dataset: encoding %s: %w", f.Place(r), err)
		}
		report.Kept++
		report.Tokens += tokens
		report.Targets += targets
		if cut {
			report.Truncated++
		}
	}
	if report.Kept == 0 {
		return report, fmt.Errorf("dataset: encoding %q: %w left of %d: %d are too long, in %d nothing carries a loss", f.Path, ErrEmpty, report.Rows, report.Dropped, report.Lossless)
	}
	return report, nil
}

// fit applies the limit on the length and reports whether it cut something off.
func (e *Encoder) fit(x *Example) (cut bool, err error) {
	n := len(x.Tokens)
	if e.MaxLength == 0 || n <= e.MaxLength {
		return false, nil
	}
	switch e.Overlong {
	case Drop:
		return false, errDropped
	case Refuse:
		return false, fmt.Errorf("%w: it has %d tokens, more than max_length %d; raise max_length, or set overlong to truncate or drop", ErrFormat, n, e.MaxLength)
	case Truncate:
	default:
		if e.Context > 0 && n > e.Context {
			return false, fmt.Errorf("%w: it has %d tokens, more than the model's context of %d; shorten it, or set overlong to truncate or drop", ErrFormat, n, e.Context)
		}
	}
	x.Tokens, x.Loss = x.Tokens[:e.MaxLength], x.Loss[:e.MaxLength]
	return true, nil
}

// example encodes a row for language modelling.
func (e *Encoder) example(r *Row, form Form) (x Example, err error) {
	switch form {
	case FormText:
		x.Tokens, err = e.string(r.Prompt.Text)
		x.Loss = marks(len(x.Tokens), 0)
	case FormCompletion:
		var c completion
		c, err = e.complete(r, &r.Answer)
		x = c.from(c.prompt)
	default:
		x, err = e.conversation(r.conversation(r.Prompt.Messages))
	}
	if err != nil {
		return Example{}, err
	}
	if e.TrainOn == All {
		x.Loss = marks(len(x.Tokens), 0)
	}
	if len(x.Loss) > 0 {
		x.Loss[0] = false
	}
	return x, nil
}

// marks returns n marks, true from first on.
func marks(n, first int) []bool {
	m := make([]bool, n)
	for i := first; i < n; i++ {
		m[i] = true
	}
	return m
}

// conversation renders turns and marks what the assistant says.
func (e *Encoder) conversation(c Conversation) (Example, error) {
	if e.Template == nil {
		return Example{}, errNoTemplate
	}
	text, spans, err := e.Template.Render(c, false, e.TrainOn != All)
	if err != nil {
		return Example{}, err
	}
	ids, err := e.Tokenizer.Encode(text, false)
	if err != nil {
		return Example{}, err
	}
	x := Example{Tokens: ids, Loss: make([]bool, len(ids))}
	if len(spans) == 0 {
		return x, nil
	}
	return x, e.mark(&x, text, spans)
}

var errNoTemplate = fmt.Errorf("%w: a conversation needs a chat template, and the model has none; set chat_template (chatml, or a file)", ErrFormat)

// mark finds the tokens of spans of the text. A token that only partly lies in one belongs to it, as
// transformers' assistant masks have it.
func (e *Encoder) mark(x *Example, text string, spans [][2]int) error {
	places, ok := e.places(x.Tokens, text)
	if !ok {
		places, ok = e.placesByPrefix(x.Tokens, text, spans)
	}
	if !ok {
		return fmt.Errorf("%w: the tokens of the rendered conversation cannot be told apart at the assistant's turns; use train_on all", ErrFormat)
	}
	at := 0
	for i, p := range places {
		for at < len(spans) && spans[at][1] <= p[0] {
			at++
		}
		x.Loss[i] = at < len(spans) && spans[at][0] < p[1]
	}
	return nil
}

// places returns which bytes of the text each token stands for, up to whole characters. It fails
// where the tokens' text is not the one encoded, which is so for tokenizers that change it first.
func (e *Encoder) places(ids []int32, text string) ([][2]int, bool) {
	places, at := make([][2]int, len(ids)), 0
	for i, piece := range e.Tokenizer.Pieces(ids) {
		if !strings.HasPrefix(text[at:], piece) {
			return nil, false
		}
		places[i] = [2]int{at, at + max(1, len(piece))} // a part of a character lies where that does
		at += len(piece)
	}
	return places, at == len(text)
}

// placesByPrefix tells only between which borders of spans each token lies, by encoding what is before
// each border: that tells it if those ids are the first of the whole text's.
func (e *Encoder) placesByPrefix(ids []int32, text string, spans [][2]int) ([][2]int, bool) {
	places, done, before := make([][2]int, len(ids)), 0, 0
	fill := func(border int) bool {
		head, err := e.Tokenizer.Encode(text[:border], false)
		if err != nil || len(head) < done || len(head) > len(ids) || !slices.Equal(head, ids[:len(head)]) {
			return false
		}
		for ; done < len(head); done++ {
			places[done] = [2]int{before, border}
		}
		before = border
		return true
	}
	for _, s := range spans {
		if !fill(s[0]) || !fill(s[1]) {
			return nil, false
		}
	}
	return places, fill(len(text)) && done == len(ids)
}

// string encodes a text that is no conversation.
func (e *Encoder) string(text string) ([]int32, error) {
	ids, err := e.Tokenizer.Encode(text, true)
	if err != nil {
		return nil, err
	}
	if eos, ok := e.Tokenizer.EOS(); ok && (len(ids) == 0 || ids[len(ids)-1] != eos) {
		ids = append(ids, eos)
	}
	return ids, nil
}

// completion is a prompt and an answer, encoded together.
type completion struct {
	ids    []int32
	prompt int // number of first ids that are those of the prompt encoded alone
}

func (c *completion) from(first int) Example {
	return Example{Tokens: c.ids, Loss: marks(len(c.ids), first)}
}

// conversation is messages with what the row says for all of them.
func (r *Row) conversation(messages []Message) Conversation {
	return Conversation{Messages: messages, Tools: r.Tools, Vars: r.Vars}
}

// complete encodes an answer behind its row's prompt. Where the answer begins is told by the ids that the
// prompt has alone and with the answer, as in TRL.
func (e *Encoder) complete(r *Row, answer *Side) (c completion, err error) {
	var head []int32
	prompt := &r.Prompt
	if prompt.Chat() {
		if e.Template == nil {
			return c, errNoTemplate
		}
		if head, err = e.render(r.conversation(prompt.Messages), true); err != nil {
			return c, err
		}
		c.ids, err = e.render(r.conversation(append(slices.Clip(prompt.Messages), answer.Messages...)), false)
	} else {
		if head, err = e.Tokenizer.Encode(prompt.Text, true); err != nil {
			return c, err
		}
		c.ids, err = e.string(prompt.Text + answer.Text)
	}
	if err != nil {
		return c, err
	}
	for c.prompt < min(len(head), len(c.ids)) && head[c.prompt] == c.ids[c.prompt] {
		c.prompt++
	}
	return c, nil
}

func (e *Encoder) render(c Conversation, prompt bool) ([]int32, error) {
	text, _, err := e.Template.Render(c, prompt, false)
	if err != nil {
		return nil, err
	}
	return e.Tokenizer.Encode(text, false)
}

// pair encodes a preference row as TRL's DPOTrainer does: both answers begin at the first place where
// one of them parts from the prompt encoded alone.
func (e *Encoder) pair(r *Row) (Pair, error) {
	a, err := e.complete(r, &r.Answer)
	if err != nil {
		return Pair{}, err
	}
	b, err := e.complete(r, &r.Rejected)
	if err != nil {
		return Pair{}, err
	}
	first := max(1, min(a.prompt, b.prompt))
	return Pair{Chosen: a.from(first), Rejected: b.from(first)}, nil
}
