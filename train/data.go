package train

import (
	"fmt"
	"os"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/train/dataset"
)

// This file gets from the recipe's files to data for an objective.

// texts adapts the model's tokenizer to package dataset.
type texts struct {
	tok      *tokenizer.Tokenizer
	bos, eos int32 // −1 where there is none
}

// newTexts takes the special tokens from the tokenizer, and where it names none from the model.
func newTexts(tok *tokenizer.Tokenizer, c *model.Config) *texts {
	t := &texts{tok, tok.BOS(), tok.EOS()}
	if t.bos < 0 {
		t.bos = int32(c.BOS)
	}
	if t.eos < 0 && len(c.EOS) > 0 {
		t.eos = int32(c.EOS[0])
	}
	return t
}

func (t *texts) Encode(text string, special bool) ([]int32, error) {
	return t.tok.Encode(text, tokenizer.Options{AddSpecial: special, ParseSpecial: true}), nil
}

func (t *texts) Pieces(ids []int32) []string {
	out, s := make([]string, len(ids)), t.tok.NewStream(false)
	for i, id := range ids {
		out[i] = s.Push(id)
	}
	return out
}

func (t *texts) EOS() (int32, bool) { return t.eos, t.eos >= 0 }

// spelling is the text of a special token, "" for none.
func (t *texts) spelling(id int32) string {
	if id < 0 {
		return ""
	}
	return t.tok.Decode([]int32{id}, false)
}

// template adapts a chat template to package dataset.
type template struct {
	*chat.Template
	bos, eos string
}

func (t *template) Render(c dataset.Conversation, prompt, spans bool) (string, [][2]int, error) {
	in, err := t.input(c)
	if err != nil {
		return "", nil, err
	}
	in.AddGenerationPrompt = prompt
	if !spans {
		text, err := t.Template.Render(in)
		return text, nil, err
	}
	text, list, err := t.Template.RenderSpans(in)
	out := make([][2]int, len(list))
	for i, s := range list {
		out[i] = [2]int{s.Start, s.End}
	}
	return text, out, err
}

// input is a conversation as the chat template takes it.
func (t *template) input(c dataset.Conversation) (chat.Input, error) {
	in := chat.Input{BOSToken: t.bos, EOSToken: t.eos}
	for i, m := range c.Messages {
		message := chat.Message{Role: m.Role, Content: m.Content}
		if m.JSON != "" {
			v, err := chat.ParseJSON([]byte(m.JSON))
			row, ok := v.(*chat.Dict)
			if err != nil || !ok {
				return in, fmt.Errorf("message %d: %w", i+1, err)
			}
			row.Set("role", m.Role) // as the package names it
			if message, err = chat.NewMessage(row); err != nil {
				return in, fmt.Errorf("message %d: %w", i+1, err)
			}
		}
		in.Messages = append(in.Messages, message)
	}
	if c.Tools != "" {
		v, err := chat.ParseJSON([]byte(c.Tools))
		if err != nil {
			return in, fmt.Errorf("field \"tools\": %w", err)
		}
		in.Tools, _ = v.([]any)
	}
	if c.Vars != "" {
		v, err := chat.ParseJSON([]byte(c.Vars))
		if err != nil {
			return in, fmt.Errorf("field \"chat_template_kwargs\": %w", err)
		}
		in.Vars = map[string]any{}
		vars, _ := v.(*chat.Dict)
		for name, value := range vars.All() {
			in.Vars[name] = value
		}
	}
	return in, nil
}

// maxTemplate is far above any chat template.
const maxTemplate = 1 << 20

// newTemplate finds the template that the recipe names: a built-in one, a file, or the model's own.
// It is nil where there is none.
func newTemplate(name, own string) (*chat.Template, error) {
	if name == "" {
		if own == "" {
			return nil, nil
		}
		return parseTemplate("the model's chat template", own)
	}
	if t, ok := chat.Builtin(name); ok {
		return t, nil
	}
	info, err := os.Stat(name)
	if err != nil || info.IsDir() {
		return nil, fmt.Errorf("train: checking recipe: %w: chat_template %q is neither a built-in template (chatml, for one) nor a file", ErrRecipe, name)
	}
	if info.Size() > maxTemplate {
		return nil, fmt.Errorf("train: checking recipe: %w: chat_template %q is larger than %d bytes", ErrRecipe, name, maxTemplate)
	}
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("train: reading chat template: %w", err)
	}
	return parseTemplate(fmt.Sprintf("chat_template %q", name), string(source))
}

func parseTemplate(what, source string) (*chat.Template, error) {
	t, err := chat.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("train: reading %s: %w", what, err)
	}
	return t, nil
}

// newEncoder prepares to encode rows for a model.
func newEncoder(r *Recipe, c *checkpoint.Checkpoint) (*dataset.Encoder, error) {
	tok, err := c.Tokenizer()
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	t := newTexts(tok, c.Config())
	e := &dataset.Encoder{Tokenizer: t, TrainOn: dataset.TrainOn(r.TrainOn), MaxLength: r.MaxLength,
		Context: c.Config().Context, Overlong: dataset.Overlong(r.Overlong)}
	source, err := newTemplate(r.ChatTemplate, c.Meta.ChatTemplate)
	if err != nil {
		return nil, err
	}
	if source != nil {
		e.Template = &template{source, t.spelling(t.bos), t.spelling(t.eos)}
	}
	return e, nil
}

// load reads and encodes files, and tells what became of their rows.
func load(r *Recipe, e *dataset.Encoder, paths []string, note func(string)) (objective, error) {
	if r.Packing == "stream" {
		return loadStream(r, e, paths, note)
	}
	var report dataset.Report
	s, d := &sft{}, &dpo{beta: r.Beta, smoothing: r.LabelSmoothing}
	for _, path := range paths {
		f, err := dataset.Read(path)
		if err != nil {
			return nil, err
		}
		var one dataset.Report
		if r.Objective == "dpo" {
			var pairs []dataset.Pair
			pairs, one, err = e.Pairs(f)
			d.pairs = append(d.pairs, pairs...)
		} else {
			var examples []dataset.Example
			examples, one, err = e.Examples(f)
			s.examples = append(s.examples, examples...)
		}
		if err != nil {
			return nil, err
		}
		report.Add(one)
	}
	note(describe(paths, &report, r.MaxLength))
	if r.Objective == "dpo" {
		return d, nil
	}
	return s, nil
}

// describe is a line about what was read.
func describe(paths []string, n *dataset.Report, limit int) string {
	what := fmt.Sprintf("%q", paths[0])
	if len(paths) > 1 {
		what = fmt.Sprintf("%d files", len(paths))
	}
	text := fmt.Sprintf("%s: %d rows, %d tokens, %d with a loss", what, n.Kept, n.Tokens, n.Targets)
	if n.Truncated > 0 {
		text += fmt.Sprintf("; %d rows cut at max_length %d", n.Truncated, limit)
	}
	if n.Dropped > 0 {
		text += fmt.Sprintf("; %d rows left out as too long", n.Dropped)
	}
	if n.Lossless > 0 {
		text += fmt.Sprintf("; %d rows left out in which nothing carries a loss", n.Lossless)
	}
	return text
}

// loadStream cuts the tokens of each file into rows of max_length in order. What is left at a file's
// end is not used.
func loadStream(r *Recipe, e *dataset.Encoder, paths []string, note func(string)) (objective, error) {
	s, total := &sft{}, 0
	loss := make([]bool, r.MaxLength)
	for i := 1; i < len(loss); i++ {
		loss[i] = true
	}
	for _, path := range paths {
		text, err := dataset.ReadText(path)
		if err != nil {
			return nil, err
		}
		ids, err := e.Tokenizer.Encode(text, false)
		if err != nil {
			return nil, fmt.Errorf("train: tokenizing %q: %w", path, err)
		}
		if len(ids) < r.MaxLength {
			return nil, fmt.Errorf("train: cutting %q: %w: %d tokens make no row of max_length %d", path, ErrRecipe, len(ids), r.MaxLength)
		}
		for ; len(ids) >= r.MaxLength; ids = ids[r.MaxLength:] {
			s.examples = append(s.examples, dataset.Example{Tokens: ids[:r.MaxLength:r.MaxLength], Loss: loss})
		}
		total += len(ids)
	}
	note(fmt.Sprintf("%q: %d rows of %d tokens, %d tokens left over", paths[0], len(s.examples), r.MaxLength, total))
	return s, nil
}

// split sets the held-out part of the data aside: rows that the seed draws, or a stream's last.
func split(r *Recipe, data objective) (train, held objective, err error) {
	n := len(data.lengths())
	var rest, out []int
	if rest, out, err = dataset.Split(n, r.Holdout, uint64(r.Seed)); err != nil {
		return nil, nil, fmt.Errorf("train: %w; lower holdout or give eval_data", err)
	}
	if r.Packing == "stream" {
		k := len(rest)
		for i := range rest {
			rest[i] = i
		}
		for i := range out {
			out[i] = k + i
		}
	}
	return data.subset(rest), data.subset(out), nil
}
