package inspect

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/tokenizer"
)

// This file checks what turns text into tokens: the tokenizer, the ids with a role, which stand in
// up to three files, and the chat template.

func (s *subject) checkText() {
	r := s.r
	var tok *tokenizer.Tokenizer
	source := ""
	switch {
	case s.m != nil:
		tok = r.checkTokenizer(s.m.Tokenizer())
		source = s.m.Meta.ChatTemplate
	case s.files != nil:
		tok = r.checkTokenizer(checkpoint.FolderTokenizer(s.files))
		source = r.folderTemplate(s.files)
	}
	if tok != nil {
		r.Tokens = tok.Size()
		if vocab := s.vocab(); vocab > 0 && tok.Size() > vocab {
			r.find(Error, "tokenizer-size", "", "take tokenizer and weights from the same model", "the tokenizer has %d tokens, the embedding table %d rows", tok.Size(), vocab)
		} else if tok.Size() < vocab {
			r.find(Note, "vocabulary-padded", "", "", "the embedding table has %d rows, %d more than the tokenizer has tokens", vocab, vocab-tok.Size())
		}
	}
	stop := s.checkIDs(tok)
	switch {
	case source != "":
		r.Template = true
		r.checkTemplate(source, tok, stop)
	case s.m != nil || s.files != nil:
		r.find(Note, "template-missing", "", "", "the model has no chat template, so it continues text and does not chat")
	}
}

// checkTokenizer passes a tokenizer on, nil where it could not be read.
func (r *Report) checkTokenizer(tok *tokenizer.Tokenizer, err error) *tokenizer.Tokenizer {
	switch {
	case errors.Is(err, checkpoint.ErrNoTokenizer):
		r.find(Warning, "tokenizer-missing", "", "put the tokenizer.json of the model beside it", "%v", checkpoint.ErrNoTokenizer)
	case unsupported(err):
		r.find(Warning, "tokenizer-unsupported", "", "use a newer version, or another tool", "%v", err)
	case err != nil:
		r.find(Error, "tokenizer-invalid", "", "take the tokenizer's files from where the model was published", "%v", err)
	default:
		return tok
	}
	return nil
}

// folderTemplate is the chat template of a folder, "" where it has none or cannot be read.
func (r *Report) folderTemplate(files map[string][]byte) string {
	source, err := checkpoint.FolderTemplate(files)
	if err != nil {
		r.find(Error, "config-invalid", "tokenizer_config.json", "correct it", "%v", err)
	}
	return source
}

// vocab is the number of rows of the embedding table, 0 where it is not known.
func (s *subject) vocab() int {
	if s.c != nil {
		return s.c.Vocab
	}
	return 0
}

// checkIDs compares the ids with a role, and returns those that end generation.
func (s *subject) checkIDs(tok *tokenizer.Tokenizer) []int32 {
	if s.c == nil {
		return nil
	}
	r, c := s.r, s.c
	where := "config.json"
	if s.h.gguf != nil {
		where = "tokenizer.ggml"
	}
	generation := s.files["generation_config.json"]
	var gen struct {
		BOS *int           `json:"bos_token_id"`
		EOS jsontext.Value `json:"eos_token_id"`
	}
	if generation != nil {
		if err := json.Unmarshal(generation, &gen); err != nil {
			r.find(Error, "config-invalid", "generation_config.json", "correct it", "%v", err)
		}
	}
	genEOS := idList(gen.EOS)
	check := func(place, role string, ids ...int) {
		for _, id := range ids {
			if id < 0 || id >= c.Vocab {
				r.find(Error, "special-id-range", place, "correct it", "%s is %d, but the vocabulary has %d tokens", role, id, c.Vocab)
			} else if tok != nil {
				if _, ok := tok.Token(int32(id)); !ok {
					r.find(Error, "special-id-unknown", place, "correct it", "%s is %d, which is no token of the tokenizer", role, id)
				}
			}
		}
	}
	check(where, "eos_token_id", c.EOS...)
	if c.BOS != -1 {
		check(where, "bos_token_id", c.BOS)
	}
	if c.PAD != -1 {
		check(where, "pad_token_id", c.PAD)
	}
	check("generation_config.json", "eos_token_id", genEOS...)
	if gen.BOS != nil {
		check("generation_config.json", "bos_token_id", *gen.BOS)
		if c.BOS >= 0 && *gen.BOS != c.BOS {
			r.find(Warning, "bos-differs", "generation_config.json", "make them the same", "bos_token_id is %s, in %s it is %s", name(tok, *gen.BOS), where, name(tok, c.BOS))
		}
	}
	if tok != nil && tok.BOS() >= 0 && c.BOS >= 0 && int(tok.BOS()) != c.BOS {
		r.find(Warning, "bos-differs", "tokenizer_config.json", "make them the same", "bos_token is %s, in %s it is %s", name(tok, int(tok.BOS())), where, name(tok, c.BOS))
	}
	if tok != nil && tok.EOS() >= 0 && len(c.EOS) > 0 && !slices.Contains(c.EOS, int(tok.EOS())) {
		r.find(Warning, "eos-differs", "tokenizer_config.json", "make them the same", "eos_token is %s, in %s it is %s", name(tok, int(tok.EOS())), where, names(tok, c.EOS))
	}
	if len(genEOS) > 0 && len(c.EOS) > 0 {
		lacking := slices.DeleteFunc(slices.Clone(c.EOS), func(id int) bool { return slices.Contains(genEOS, id) })
		switch {
		case len(lacking) > 0:
			r.find(Warning, "eos-differs", "generation_config.json", "list every token that ends an answer", "eos_token_id is %s, in %s it is %s", names(tok, genEOS), where, names(tok, c.EOS))
		case len(genEOS) > len(c.EOS):
			r.find(Note, "eos-differs", "generation_config.json", "", "eos_token_id is %s, in %s only %s", names(tok, genEOS), where, names(tok, c.EOS))
		}
	}
	var stop []int32
	for _, id := range slices.Concat(c.EOS, genEOS) {
		stop = append(stop, int32(id))
	}
	if tok != nil {
		stop = append(stop, tok.EOG()...)
		for _, id := range c.EOS {
			if _, ok := tok.Token(int32(id)); ok && !tok.IsSpecial(int32(id)) {
				r.find(Warning, "eos-not-special", where, "mark it as special in the tokenizer", "eos_token_id %s is an ordinary token, which a text can contain", name(tok, id))
			}
		}
		if len(stop) == 0 {
			r.find(Warning, "eos-missing", where, "name the token that ends a text", "nothing says which token ends a text, so generation stops at its limit only")
		}
	}
	return stop
}

// idList reads a number, a list of numbers, or null.
func idList(v jsontext.Value) []int {
	var one int
	if json.Unmarshal(v, &one) == nil && v.Kind() == '0' {
		return []int{one}
	}
	var list []int
	_ = json.Unmarshal(v, &list)
	return list
}

// name writes an id with its token.
func name(tok *tokenizer.Tokenizer, id int) string {
	if tok != nil {
		if text, ok := tok.Token(int32(id)); ok {
			return fmt.Sprintf("%d (%.40s)", id, text)
		}
	}
	return fmt.Sprint(id)
}

func names(tok *tokenizer.Tokenizer, ids []int) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = name(tok, id)
	}
	return strings.Join(list, ", ")
}

// Words that no template has of its own, to be found again in what it renders.
const (
	userWords      = "qwkz-user"
	assistantWords = "qwkz-assistant"
	systemWords    = "qwkz-system"
)

// marker is the spelling of a token that delimits turns, in one of the styles of published templates.
var marker = regexp.MustCompile(`<\|[^|<>\s]{1,40}\|>|<｜[^<>\s]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn|sep)>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS)\]`)

// checkTemplate renders conversations. Stop are the ids that end generation; nil where they are not known.
func (r *Report) checkTemplate(source string, tok *tokenizer.Tokenizer, stop []int32) {
	const place = "chat template"
	t, err := chat.Parse(source)
	if err != nil {
		r.find(Error, "template-invalid", place, "take the template from where the model was published", "%v", err)
		return
	}
	user, assistant := chat.Message{Role: "user", Content: userWords}, chat.Message{Role: "assistant", Content: assistantWords}
	render := func(prompt bool, messages ...chat.Message) (string, error) {
		in := chatInput(tok)
		in.Messages, in.AddGenerationPrompt = messages, prompt
		return t.Render(in)
	}
	text, err := render(false, user, assistant)
	switch {
	case errors.Is(err, chat.ErrRaised):
		r.find(Warning, "template-refuses", place, "", "it refuses a plain question and answer: %v", err)
		return
	case err != nil:
		r.find(Error, "template-fails", place, "take the template from where the model was published", "it fails on a plain question and answer: %v", err)
		return
	}
	for _, words := range []string{userWords, assistantWords} {
		if !strings.Contains(text, words) {
			r.find(Error, "template-drops", place, "take the template from where the model was published", "it leaves out what the %s says", strings.TrimPrefix(words, "qwkz-"))
			return
		}
	}
	asked, err := render(false, user)
	prompted, err2 := render(true, user)
	if err == nil && err2 == nil && asked == prompted {
		r.find(Note, "template-no-prompt", place, "", "add_generation_prompt changes nothing")
	}
	switch system, err := render(false, chat.Message{Role: "system", Content: systemWords}, user, assistant); {
	case errors.Is(err, chat.ErrRaised):
		r.find(Note, "template-no-system", place, "", "it refuses a system message")
	case err != nil:
		r.find(Warning, "template-fails", place, "", "it fails on a system message: %v", err)
	case !strings.Contains(system, systemWords):
		r.find(Note, "template-no-system", place, "", "it leaves a system message out")
	}
	if tok == nil {
		return
	}
	seen := map[string]bool{}
	for _, m := range marker.FindAllString(text+prompted, -1) {
		if seen[m] {
			continue
		}
		seen[m] = true
		if _, ok := tok.ID(m); !ok {
			r.find(Warning, "template-token", place, "take tokenizer and template from the same model", "it writes %s, which is no token: the model would see it spelt out", m)
		}
	}
	r.checkTurnEnd(place, text, tok, stop)
	if bos, ok := tok.Token(tok.BOS()); ok && strings.HasPrefix(text, bos) && slices.Contains(tok.Encode("", tokenizer.Options{AddSpecial: true}), tok.BOS()) {
		r.find(Note, "double-bos", place, "encode rendered conversations without special tokens", "it writes %s, and the tokenizer adds another where special tokens are asked for", bos)
	}
}

// checkTurnEnd finds out whether the token that ends the assistant's turn ends generation.
func (r *Report) checkTurnEnd(place, text string, tok *tokenizer.Tokenizer, stop []int32) {
	if stop == nil {
		return
	}
	after := text[strings.LastIndex(text, assistantWords)+len(assistantWords):]
	for _, id := range tok.Encode(after, tokenizer.Options{ParseSpecial: true}) {
		if !tok.IsSpecial(id) {
			continue
		}
		if !slices.Contains(stop, id) {
			r.find(Warning, "turn-end", place, "add it to eos_token_id of generation_config.json", "an answer ends with %s, which is not among the tokens that end generation (%s)", name(tok, int(id)), names(tok, unique(stop)))
		}
		return
	}
	r.find(Note, "turn-end", place, "", "no special token follows an answer")
}

func unique(ids []int32) []int {
	var out []int
	for _, id := range ids {
		if !slices.Contains(out, int(id)) {
			out = append(out, int(id))
		}
	}
	return out
}
