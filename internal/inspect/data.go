package inspect

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/train/dataset"
)

// Data describes training data.
type Data struct {
	Rows       int            `json:"rows"`
	Columns    map[string]int `json:"columns,omitempty"` // fields, and the rows that have each
	Roles      map[string]int `json:"roles,omitempty"`   // turns by who speaks
	Turns      *Spread        `json:"turns,omitempty"`   // of a row
	Characters Spread         `json:"characters"`        // of a row, whatever they mean
	Tokens     *Spread        `json:"tokens,omitempty"`  // of a row as it is trained on, with Options.Model
	Context    int            `json:"context,omitempty"` // of that model
	TooLong    int            `json:"too_long,omitempty"`
	Duplicates int            `json:"duplicates,omitempty"` // rows that are there before
}

// Spread is the sizes of rows.
type Spread struct {
	Min    int   `json:"min"`
	Median int   `json:"median"`
	P95    int   `json:"p95"`
	Max    int   `json:"max"`
	Sum    int64 `json:"sum"`
}

// spread sorts n.
func spread(n []int) Spread {
	if len(n) == 0 {
		return Spread{}
	}
	slices.Sort(n)
	s := Spread{Min: n[0], Median: n[len(n)/2], P95: n[min(len(n)-1, len(n)*95/100)], Max: n[len(n)-1]}
	for _, v := range n {
		s.Sum += int64(v)
	}
	return s
}

// describeData reads training data.
func describeData(path string, o Options) (*Report, error) {
	f, err := dataset.Read(path)
	if err != nil {
		return nil, err
	}
	d := &Data{Rows: len(f.Rows), Columns: f.Fields, Roles: map[string]int{}}
	r := &Report{Kind: "dataset", Path: path, Form: string(f.Form), Data: d, Checked: o.Check}
	var chars, turns []int
	seen := map[[sha256.Size]byte]bool{}
	for i := range f.Rows {
		row := &f.Rows[i]
		n := 0
		key := sha256.New()
		for _, side := range []dataset.Side{row.Prompt, row.Answer, row.Rejected} {
			n += len([]rune(side.Text))
			fmt.Fprintf(key, "%q", side.Text)
			for _, m := range side.Messages {
				d.Roles[m.Role]++
				n += len([]rune(m.Content))
				fmt.Fprintf(key, "%q%q", m.Role, m.Content)
			}
			if o.Check && side.Chat() {
				r.checkTurns(f.Place(row), side.Messages)
			}
		}
		if row.Prompt.Chat() {
			turns = append(turns, len(row.Prompt.Messages)+len(row.Answer.Messages))
		}
		chars = append(chars, n)
		sum := [sha256.Size]byte(key.Sum(nil))
		if seen[sum] {
			d.Duplicates++
		}
		seen[sum] = true
	}
	d.Characters = spread(chars)
	if len(turns) > 0 {
		s := spread(turns)
		d.Turns = &s
	}
	if o.Check && d.Duplicates > 0 {
		r.find(Warning, "data-duplicates", "", "remove them, unless they are meant to count more", "%d of %d rows are there before", d.Duplicates, d.Rows)
	}
	if o.Model != "" {
		if err := r.countTokens(f, o); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// maxTurnFindings bounds what is said about single rows.
const maxTurnFindings = 20

// checkTurns finds turns without words.
func (r *Report) checkTurns(place string, messages []dataset.Message) {
	for i, m := range messages {
		if m.Content == "" && len(r.Findings) < maxTurnFindings {
			r.find(Warning, "data-empty-turn", place, "remove the row, or fill the turn in", "turn %d, of %s, is empty", i+1, m.Role)
		}
	}
}

// countTokens renders and encodes each row as a model reads it.
func (r *Report) countTokens(f *dataset.File, o Options) error {
	m, err := checkpoint.Open(o.Model)
	if err != nil {
		return err
	}
	defer m.Close()
	tok, err := m.Tokenizer()
	if err != nil {
		return err
	}
	var t *chat.Template
	if m.Meta.ChatTemplate != "" {
		if t, err = chat.Parse(m.Meta.ChatTemplate); err != nil {
			return fmt.Errorf("inspect: the chat template of %q: %w", o.Model, err)
		}
	}
	var lengths []int
	for i := range f.Rows {
		row := &f.Rows[i]
		n := 0
		for _, answer := range []dataset.Side{row.Answer, row.Rejected} {
			text, err := rowText(t, tok, row.Prompt, answer)
			if err != nil {
				return fmt.Errorf("inspect: %s: %w", f.Place(row), err)
			}
			n = max(n, len(tok.Encode(text, tokenizer.Options{AddSpecial: !row.Prompt.Chat(), ParseSpecial: true})))
			if f.Form != dataset.FormPreference {
				break
			}
		}
		if !row.Prompt.Chat() && tok.EOS() >= 0 {
			n++
		}
		lengths = append(lengths, n)
		if n > m.Config().Context {
			r.Data.TooLong++
			if o.Check && len(r.Findings) < maxTurnFindings {
				r.find(Warning, "data-too-long", f.Place(row), "split the row, or leave it out", "its %d tokens do not fit the model's context of %d", n, m.Config().Context)
			}
		}
	}
	s := spread(lengths)
	r.Data.Tokens, r.Data.Context = &s, m.Config().Context
	return nil
}

// rowText is a row as one text.
func rowText(t *chat.Template, tok *tokenizer.Tokenizer, prompt, answer dataset.Side) (string, error) {
	if !prompt.Chat() {
		return prompt.Text + answer.Text, nil
	}
	if t == nil {
		return "", fmt.Errorf("the rows are conversations, and the model has no chat template")
	}
	in := chatInput(tok)
	for _, m := range slices.Concat(prompt.Messages, answer.Messages) {
		in.Messages = append(in.Messages, chat.Message{Role: m.Role, Content: m.Content})
	}
	return t.Render(in)
}

// chatInput is an input that knows the tokenizer's special tokens.
func chatInput(tok *tokenizer.Tokenizer) chat.Input {
	var in chat.Input
	if tok != nil {
		in.BOSToken, _ = tok.Token(tok.BOS())
		in.EOSToken, _ = tok.Token(tok.EOS())
	}
	return in
}
