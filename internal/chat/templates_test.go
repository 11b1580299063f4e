package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/graftml/graft/internal/testfile"
)

// conversation is a case's input as testdata/golden/chat's scripts write it.
type conversation struct {
	Messages  []Message       `json:"messages"`
	Tools     json.RawMessage `json:"tools"`
	Documents json.RawMessage `json:"documents"`
	Prompt    bool            `json:"add_generation_prompt"`
	Continue  any             `json:"continue_final_message"` // true, or a field
	Vars      json.RawMessage `json:"vars"`
}

func (c conversation) input(t *testing.T) Input {
	t.Helper()
	in := Input{Messages: c.Messages, AddGenerationPrompt: c.Prompt, BOSToken: "<s>", EOSToken: "</s>",
		Now: time.Date(2026, 3, 7, 9, 5, 2, 0, time.UTC)}
	switch c := c.Continue.(type) {
	case bool:
		in.Continue = "content"
	case string:
		in.Continue = c
	}
	decode := func(raw json.RawMessage) any {
		if len(raw) == 0 {
			return nil
		}
		v, err := ParseJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	in.Tools, _ = decode(c.Tools).([]any)
	in.Documents, _ = decode(c.Documents).([]any)
	if vars, ok := decode(c.Vars).(*Dict); ok {
		in.Vars = map[string]any{}
		for k, v := range vars.All() {
			in.Vars[k] = v
		}
	}
	return in
}

// expectations is what a peer made of templates and conversations.
type expectations struct {
	Conversations map[string]conversation `json:"conversations"`
	Cases         []struct {
		Template     string   `json:"template"` // a file, or
		Source       string   `json:"source"`
		Conversation string   `json:"conversation"`
		Text         string   `json:"text"`
		Spans        [][2]int `json:"spans"`
		Error        string   `json:"error"`
		Raised       bool     `json:"raised"`
	} `json:"cases"`
}

// compareWithPeer renders every case of dir/expected.json and demands the
// peer's bytes, spans and errors. It returns how many cases agreed.
func compareWithPeer(t *testing.T, dir string) (agreed, total int) {
	t.Helper()
	var want expectations
	testfile.ReadJSON(t, filepath.Join(dir, "expected.json"), &want)
	parsed := map[string]*Template{}
	for _, c := range want.Cases {
		total++
		tmpl, parseErr := parsed[c.Template], error(nil)
		if tmpl == nil {
			source := c.Source
			if c.Template != "" {
				file, err := os.ReadFile(filepath.Join(dir, c.Template))
				if err != nil {
					t.Fatal(err)
				}
				source = string(file)
			}
			if tmpl, parseErr = Parse(source); parseErr == nil && c.Template != "" {
				parsed[c.Template] = tmpl
			}
		}
		text, spans, err := "", []Span(nil), parseErr
		if err == nil {
			in := want.Conversations[c.Conversation].input(t)
			if tmpl.HasGeneration() && in.Continue == "" {
				text, spans, err = tmpl.RenderSpans(in)
			} else {
				text, err = tmpl.Render(in)
			}
		}
		where := c.Template + c.Source + " with " + c.Conversation
		switch {
		case c.Error != "" && err == nil:
			t.Errorf("%s: rendered %q, the peer fails: %s", where, text, c.Error)
		case c.Error == "" && err != nil:
			t.Errorf("%s: %v, the peer renders %q", where, err, c.Text)
		case c.Error != "" && c.Raised != errors.Is(err, ErrRaised):
			t.Errorf("%s: %v, the peer: %s", where, err, c.Error)
		case text != c.Text:
			n := commonPrefix(text, c.Text)
			t.Errorf("%s: differs at byte %d:\n got %q\nwant %q", where, n, text[max(0, n-40):min(len(text), n+80)], c.Text[max(0, n-40):min(len(c.Text), n+80)])
		case c.Spans != nil && !sameSpans(spans, c.Spans):
			t.Errorf("%s: spans %v, want %v", where, spans, c.Spans)
		default:
			agreed++
		}
	}
	return agreed, total
}

func sameSpans(got []Span, want [][2]int) bool {
	if len(got) != len(want) {
		return false
	}
	for i, s := range got {
		if s.Start != want[i][0] || s.End != want[i][1] {
			return false
		}
	}
	return true
}

// TestTemplates compares with transformers over real templates, which are
// not ours to keep here.
func TestTemplates(t *testing.T) {
	dir := os.Getenv("GRAFT_TEMPLATES")
	if dir == "" {
		t.Skip("set GRAFT_TEMPLATES to a folder made by testdata/golden/chat/make.py from chat templates you have")
	}
	agreed, total := compareWithPeer(t, dir)
	t.Logf("%d of %d cases agree", agreed, total)
	if total == 0 {
		t.Error("the folder has no cases")
	}
}

// TestGolden compares with transformers over templates of our own.
func TestGolden(t *testing.T) {
	agreed, total := compareWithPeer(t, "../../testdata/golden/chat")
	if total < 300 || agreed != total {
		t.Errorf("%d of %d cases agree", agreed, total)
	}
}
