package dataset

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// letters is a tokenizer of bytes, in which <eos> and <bos> are tokens 256 and 257, and two of the
// same letter are one token (1000 + the letter) so that tokens can lie across a border.
type letters struct{ lossy bool }

func (l letters) Encode(text string, special bool) (ids []int32, err error) {
	if special {
		ids = append(ids, 257)
	}
	if l.lossy {
		text = strings.ReplaceAll(text, "~", "")
	}
	for text != "" {
		switch {
		case strings.HasPrefix(text, "<eos>"):
			ids, text = append(ids, 256), text[5:]
		case len(text) > 1 && text[0] == text[1]:
			ids, text = append(ids, 1000+int32(text[0])), text[2:]
		default:
			ids, text = append(ids, int32(text[0])), text[1:]
		}
	}
	return ids, nil
}

func (letters) Pieces(ids []int32) []string {
	out, held := make([]string, len(ids)), ""
	for i, id := range ids {
		switch {
		case id == 256:
			held += "<eos>"
		case id >= 1000:
			held += string([]byte{byte(id - 1000), byte(id - 1000)})
		case id != 257:
			held += string([]byte{byte(id)})
		}
		if utf8.ValidString(held) {
			out[i], held = held, ""
		}
	}
	return out
}

func (letters) EOS() (int32, bool) { return 256, true }

// tags is a template: role initial, colon, content, and <eos> after what the assistant says.
type tags struct{}

func (tags) Render(c Conversation, prompt, spans bool) (text string, list [][2]int, err error) {
	for _, m := range c.Messages {
		if m.Content == "refuse" {
			return "", nil, errors.New("the template refuses")
		}
		text += m.Role[:1] + ":"
		start := len(text)
		text += m.Content
		if m.Role == "assistant" {
			text += "<eos>"
			list = append(list, [2]int{start, len(text)})
		}
	}
	if prompt {
		text += "a:"
	}
	if !spans {
		list = nil
	}
	return text, list, nil
}

// show writes an example as text, targets in upper case.
func show(x *Example) string {
	var b strings.Builder
	for i, id := range x.Tokens {
		s := letters{}.Pieces([]int32{id})[0]
		if id == 257 {
			s = "^"
		}
		if x.Loss[i] {
			s = strings.ToUpper(s)
		}
		b.WriteString(s)
	}
	return b.String()
}

func TestExamples(t *testing.T) {
	conversation := `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}, {"role": "user", "content": "so"}, {"role": "assistant", "content": "be"}]}`
	for _, c := range []struct {
		name, row string
		e         Encoder
		want      string
	}{
		{"conversation", conversation, Encoder{}, "u:hia:YO<EOS>u:soa:BE<EOS>"},
		{"conversation, all", conversation, Encoder{TrainOn: All}, "u:HIA:YO<EOS>U:SOA:BE<EOS>"},
		{"cut", conversation, Encoder{MaxLength: 8}, "u:hia:YO"},
		{"text", `{"text": "abc"}`, Encoder{}, "^ABC<EOS>"},
		{"text with an end", `{"text": "abc<eos>"}`, Encoder{}, "^ABC<EOS>"},
		{"completion", `{"prompt": "ab", "completion": "cd"}`, Encoder{}, "^abCD<EOS>"},
		{"completion, all", `{"prompt": "ab", "completion": "cd"}`, Encoder{TrainOn: All}, "^ABCD<EOS>"},
		{"empty completion", `{"prompt": "ab", "completion": ""}`, Encoder{}, "^ab<EOS>"},
		{"tokens merge across the border", `{"prompt": "ab", "completion": "bd"}`, Encoder{}, "^aBBD<EOS>"},
		{"completion of messages", `{"prompt": [{"role": "user", "content": "q"}], "completion": "a"}`, Encoder{}, "u:qa:A<EOS>"},
		{"a token half inside a turn", `{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ":y"}]}`, Encoder{}, "u:xa::Y<EOS>"},
		{"bytes are not the text", `{"messages": [{"role": "user", "content": "a~b"}, {"role": "assistant", "content": "c"}]}`, Encoder{Tokenizer: letters{lossy: true}}, "u:aba:C<EOS>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Read(write(t, "a.jsonl", c.row))
			if err != nil {
				t.Fatal(err)
			}
			if c.e.Tokenizer == nil {
				c.e.Tokenizer = letters{}
			}
			c.e.Template = tags{}
			list, report, err := c.e.Examples(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(&list[0]); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if report.Targets != list[0].Targets() || report.Tokens != len(list[0].Tokens) {
				t.Errorf("report %+v", report)
			}
		})
	}
}

// Tokens that are parts of a character belong to the turn that has the character.
func TestPartsOfCharacters(t *testing.T) {
	e := Encoder{Tokenizer: letters{}, Template: tags{}}
	x, err := e.conversation(Conversation{Messages: chat("user", "é", "assistant", "日本")})
	if err != nil {
		t.Fatal(err)
	}
	if n := x.Targets(); n != 7 || slices.Index(x.Loss, true) != len(x.Tokens)-7 {
		t.Errorf("%v: %d targets, want the last 7", x.Loss, n)
	}
}

func TestPairs(t *testing.T) {
	for _, c := range []struct{ name, row, chosen, rejected string }{
		{"strings", `{"prompt": "p", "chosen": "c", "rejected": "rs"}`, "^pC<EOS>", "^pRS<EOS>"},
		{"merging in one answer", `{"prompt": "ab", "chosen": "bc", "rejected": "r"}`, "^aBBC<EOS>", "^aBR<EOS>"},
		{"messages", `{"prompt": "q", "chosen": [{"role": "assistant", "content": "y"}], "rejected": [{"role": "assistant", "content": "n"}]}`, "u:qa:Y<EOS>", "u:qa:N<EOS>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Read(write(t, "a.jsonl", c.row))
			if err != nil {
				t.Fatal(err)
			}
			e := Encoder{Tokenizer: letters{}, Template: tags{}}
			list, _, err := e.Pairs(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := show(&list[0].Chosen); got != c.chosen {
				t.Errorf("chosen %q, want %q", got, c.chosen)
			}
			if got := show(&list[0].Rejected); got != c.rejected {
				t.Errorf("rejected %q, want %q", got, c.rejected)
			}
		})
	}
}

func TestTooLong(t *testing.T) {
	rows := `{"prompt": "abcdefgh", "completion": "x"}` + "\n" + `{"prompt": "a", "completion": "xyzuvw"}` + "\n" + `{"prompt": "a", "completion": "x"}`
	f, err := Read(write(t, "a.jsonl", rows))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		e    Encoder
		want Report
		err  string
	}{
		{Encoder{MaxLength: 5}, Report{Rows: 3, Kept: 2, Truncated: 1, Lossless: 1, Tokens: 9, Targets: 5}, ""},
		{Encoder{MaxLength: 5, Overlong: Drop}, Report{Rows: 3, Kept: 1, Dropped: 2, Tokens: 4, Targets: 2}, ""},
		{Encoder{MaxLength: 5, Overlong: Refuse}, Report{}, `line 1: malformed data: it has 11 tokens, more than max_length 5`},
		{Encoder{MaxLength: 5, Context: 10}, Report{}, `line 1: malformed data: it has 11 tokens, more than the model's context of 10`},
		{Encoder{MaxLength: 5, Context: 10, Overlong: Truncate}, Report{Rows: 3, Kept: 2, Truncated: 1, Lossless: 1, Tokens: 9, Targets: 5}, ""},
		{Encoder{MaxLength: 3, Overlong: Drop}, Report{}, "no rows left of 3: 3 are too long"},
	} {
		c.e.Tokenizer = letters{}
		_, report, err := c.e.Examples(f)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: error %v, want %q", c.e, err, c.err)
			}
			continue
		}
		if err != nil || report != c.want {
			t.Errorf("%+v: %+v, %v; want %+v", c.e, report, err, c.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	read := func(row string) *File {
		f, err := Read(write(t, "a.jsonl", row))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	e := Encoder{Tokenizer: letters{}}
	if _, _, err := e.Examples(read(`{"messages": [{"role": "user", "content": "x"}]}`)); err == nil || !strings.Contains(err.Error(), "line 1: malformed data: a conversation needs a chat template") {
		t.Errorf("without a template: %v", err)
	}
	e.Template = tags{}
	if _, _, err := e.Examples(read(`{"messages": [{"role": "user", "content": "x"}]}`)); !errors.Is(err, ErrEmpty) {
		t.Errorf("without an assistant: %v", err)
	}
	if _, _, err := e.Examples(read(`{"messages": [{"role": "user", "content": "refuse"}]}`)); err == nil || !strings.Contains(err.Error(), "line 1: the template refuses") {
		t.Errorf("template's error: %v", err)
	}
	if _, _, err := e.Examples(read(`{"prompt": "x", "chosen": "a", "rejected": "b"}`)); !errors.Is(err, ErrFormat) {
		t.Errorf("preferences as examples: %v", err)
	}
	if _, _, err := e.Pairs(read(`{"text": "x"}`)); !errors.Is(err, ErrFormat) {
		t.Errorf("text as pairs: %v", err)
	}
	if _, report, err := e.Pairs(read(`{"prompt": "x", "chosen": "a", "rejected": "a"}` + "\n" + `{"prompt": "x", "chosen": "a", "rejected": "b"}`)); err != nil || report.Lossless != 1 || report.Kept != 1 {
		t.Errorf("equal answers: %+v, %v", report, err)
	}
}

func lengths(n int) []int {
	rng := rand.New(rand.NewPCG(1, 2))
	out := make([]int, n)
	for i := range out {
		out[i] = 1 + rng.IntN(100)
	}
	return out
}

func TestBatches(t *testing.T) {
	list := lengths(1003)
	for _, o := range []BatchOptions{
		{Size: 4}, {Size: 1, Shuffle: true, Seed: 3}, {Size: 4, Shuffle: true, Seed: 3},
		{Size: 2, Pack: true, MaxLength: 128}, {Size: 2, Pack: true, MaxLength: 128, Shuffle: true, Seed: 3},
	} {
		b, err := NewBatches(list, o)
		if err != nil {
			t.Fatal(err)
		}
		first, second := b.Epoch(0), b.Epoch(1)
		if !reflect.DeepEqual(first, b.Epoch(0)) {
			t.Errorf("%+v: an epoch differs from itself", o)
		}
		if reflect.DeepEqual(first, second) == o.Shuffle {
			t.Errorf("%+v: epochs are equal: %v", o, !o.Shuffle)
		}
		tokens := 0
		for _, batch := range first {
			n := 0
			for _, i := range batch {
				n += list[i]
			}
			tokens += n
			if o.Pack && n > o.Size*o.MaxLength || !o.Pack && len(batch) > o.Size {
				t.Fatalf("%+v: a batch of %d examples and %d tokens", o, len(batch), n)
			}
		}
		all := slices.Concat(first...)
		slices.Sort(all)
		if len(slices.Compact(all)) != len(list) {
			t.Errorf("%+v: %d of %d examples", o, len(all), len(list))
		}
		if room := len(first) * o.Size * o.MaxLength; o.Pack && float64(tokens) < 0.97*float64(room) {
			t.Errorf("%+v: %d tokens in room for %d", o, tokens, room)
		}
	}
}

func TestBatchesInOrder(t *testing.T) {
	b, err := NewBatches(make([]int, 7), BatchOptions{Size: 3})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(b.Epoch(5)); got != "[[0 1 2] [3 4 5] [6]]" {
		t.Error(got)
	}
}

// Examples of like length share a batch.
func TestBucketing(t *testing.T) {
	list := lengths(512)
	spread := func(batches [][]int) (sum int) {
		for _, b := range batches {
			lo, hi := 1<<30, 0
			for _, i := range b {
				lo, hi = min(lo, list[i]), max(hi, list[i])
			}
			sum += hi - lo
		}
		return sum
	}
	b, _ := NewBatches(list, BatchOptions{Size: 4, Shuffle: true})
	plain, _ := NewBatches(list, BatchOptions{Size: 4})
	if got, without := spread(b.Epoch(0)), spread(plain.Epoch(0)); got*10 > without {
		t.Errorf("lengths in batches spread by %d, without buckets by %d", got, without)
	}
}

func TestSplit(t *testing.T) {
	train, held, err := Split(100, 0.1, 7)
	if err != nil || len(train) != 90 || len(held) != 10 || !slices.IsSorted(train) || !slices.IsSorted(held) {
		t.Fatal(train, held, err)
	}
	for _, i := range held {
		if slices.Contains(train, i) {
			t.Errorf("%d is in both", i)
		}
	}
	_, again, _ := Split(100, 0.1, 7)
	_, other, _ := Split(100, 0.1, 8)
	if !slices.Equal(held, again) || slices.Equal(held, other) {
		t.Error("the seed does not decide")
	}
	if _, held, err := Split(3, 0.01, 1); err != nil || len(held) != 1 {
		t.Error("at least one is held out")
	}
	if _, _, err := Split(1, 0.5, 1); !errors.Is(err, ErrEmpty) {
		t.Errorf("one row: %v", err)
	}
	if _, err := NewBatches(nil, BatchOptions{Size: 1}); !errors.Is(err, ErrEmpty) {
		t.Errorf("no examples: %v", err)
	}
	if _, err := NewBatches([]int{1}, BatchOptions{}); !errors.Is(err, ErrFormat) {
		t.Errorf("no size: %v", err)
	}
	if _, err := NewBatches([]int{9}, BatchOptions{Size: 1, Pack: true, MaxLength: 8}); !errors.Is(err, ErrFormat) {
		t.Errorf("too long to pack: %v", err)
	}
}
