package dataset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func chat(turns ...string) (out []Message) {
	for i := 0; i < len(turns); i += 2 {
		out = append(out, Message{Role: turns[i], Content: turns[i+1]})
	}
	return out
}

var forms = []struct {
	name, row string
	form      Form
	want      Row
}{
	{"text", `{"text": "hello", "url": 3}`, FormText, Row{Prompt: Side{Text: "hello"}}},
	{"messages", `{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}`,
		FormChat, Row{Prompt: Side{Messages: chat("system", "s", "user", "q", "assistant", "a")}}},
	{"parts", `{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}`,
		FormChat, Row{Prompt: Side{Messages: chat("user", "ab")}}},
	{"sharegpt", `{"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}`,
		FormShareGPT, Row{Prompt: Side{Messages: chat("system", "s", "user", "q", "assistant", "a")}}},
	{"alpaca", `{"instruction": "do", "input": "this", "output": "done"}`, FormAlpaca, Row{Prompt: Side{Messages: chat("user", "do\n\nthis", "assistant", "done")}}},
	{"alpaca without input", `{"instruction": "do", "input": "", "output": "done"}`, FormAlpaca, Row{Prompt: Side{Messages: chat("user", "do", "assistant", "done")}}},
	{"alpaca with more", `{"instruction": "do", "input": null, "output": "done", "system": "s", "history": [["q", "a"]]}`, FormAlpaca,
		Row{Prompt: Side{Messages: chat("system", "s", "user", "q", "assistant", "a", "user", "do", "assistant", "done")}}},
	{"completion", `{"prompt": "p", "completion": "c"}`, FormCompletion, Row{Prompt: Side{Text: "p"}, Answer: Side{Text: "c"}}},
	{"completion of messages", `{"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}`, FormCompletion,
		Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "a")}}},
	{"completion mixed", `{"prompt": [{"role": "user", "content": "q"}], "completion": "a"}`, FormCompletion,
		Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "a")}}},
	{"preference of strings", `{"prompt": "p", "chosen": "c", "rejected": "r"}`, FormPreference,
		Row{Prompt: Side{Text: "p"}, Answer: Side{Text: "c"}, Rejected: Side{Text: "r"}}},
	{"preference, implicit prompt", `{"chosen": "The sky is blue.", "rejected": "The sky is green."}`, FormPreference,
		Row{Prompt: Side{Text: "The sky is"}, Answer: Side{Text: " blue."}, Rejected: Side{Text: " green."}}},
	{"preference of messages", `{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}`,
		FormPreference, Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "c")}, Rejected: Side{Messages: chat("assistant", "r")}}},
	{"preference, prompt said twice", `{"prompt": "q", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "c"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}`,
		FormPreference, Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "c")}, Rejected: Side{Messages: chat("assistant", "r")}}},
	{"preference, string prompt", `{"prompt": "q", "chosen": [{"role": "assistant", "content": "c"}], "rejected": [{"role": "assistant", "content": "r"}]}`,
		FormPreference, Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "c")}, Rejected: Side{Messages: chat("assistant", "r")}}},
	{"preference of ShareGPT", `{"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "r"}}`,
		FormPreference, Row{Prompt: Side{Messages: chat("user", "q")}, Answer: Side{Messages: chat("assistant", "c")}, Rejected: Side{Messages: chat("assistant", "r")}}},
	{"preference of Alpaca", `{"instruction": "do", "input": "it", "chosen": "c", "rejected": "r"}`,
		FormPreference, Row{Prompt: Side{Messages: chat("user", "do\n\nit")}, Answer: Side{Messages: chat("assistant", "c")}, Rejected: Side{Messages: chat("assistant", "r")}}},
}

func TestForms(t *testing.T) {
	for _, c := range forms {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"a.jsonl": c.row + "\n\n" + c.row, "a.json": "[" + c.row + ",\n" + c.row + "]", "b.json": "\n" + c.row, "bom.jsonl": "\ufeff" + c.row + "\r\n"}
			if c.name != "text" {
				delete(files, "b.json")
			}
			for name, text := range files {
				if name == "b.json" {
					text = c.row + "\n" + c.row
				}
				f, err := Read(write(t, name, text))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if f.Form != c.form {
					t.Errorf("%s: form %s, want %s", name, f.Form, c.form)
				}
				last := f.Rows[len(f.Rows)-1]
				wantPlace := map[string]int{"a.jsonl": 3, "a.json": 2, "b.json": 2, "bom.jsonl": 1}[name]
				if last.Place != wantPlace {
					t.Errorf("%s: place %d, want %d", name, last.Place, wantPlace)
				}
				last.Place = 0
				if !reflect.DeepEqual(last, c.want) {
					t.Errorf("%s: row %+v, want %+v", name, last, c.want)
				}
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             string // in the message
		sentinel         error
	}{
		{"no rows", "a.jsonl", "\n \n", "no rows", ErrEmpty},
		{"empty array", "a.json", " [ ] ", "no rows", ErrEmpty},
		{"empty file", "a.json", "", "no rows", ErrEmpty},
		{"empty text", "a.txt", "\n", "no rows", ErrEmpty},
		{"unknown fields", "a.jsonl", `{"text": "a"}` + "\n" + `{"question": "a", "answer": "b"}`, `line 2: malformed data: it has the fields "answer", "question", but the rows before have the form text`, ErrFormat},
		{"first unknown", "a.jsonl", `{"question": "a"}`, `line 1: malformed data: it has the fields "question"; wanted messages`, ErrFormat},
		{"mixed", "a.json", `[{"text": "a"}, {"messages": [{"role": "user", "content": "x"}]}]`, "element 2: malformed data: its form is messages", ErrFormat},
		{"missing field", "a.jsonl", `{"instruction": "a"}`, "instruction and output", ErrFormat},
		{"wrong type", "a.jsonl", `{"text": 3}`, `line 1: malformed data: field "text" is a number, not a string`, ErrFormat},
		{"no messages", "a.jsonl", `{"messages": []}`, "has no messages", ErrFormat},
		{"messages no list", "a.jsonl", `{"messages": "a"}`, "a string, not a list", ErrFormat},
		{"message no object", "a.jsonl", `{"messages": ["a"]}`, "message 1", ErrFormat},
		{"message without content", "a.jsonl", `{"messages": [{"role": "user"}]}`, `field "content" is missing`, ErrFormat},
		{"unknown role", "a.jsonl", `{"messages": [{"role": "narrator", "content": ""}]}`, `"narrator" is no known role`, ErrFormat},
		{"tool calls", "a.jsonl", `{"conversations": [{"from": "gpt", "value": "", "tool_calls": [1]}]}`, "tool calls", ErrFormat},
		{"tools no list", "a.jsonl", `{"messages": [{"role": "user", "content": "a"}], "tools": {}}`, "no list of schemas", ErrFormat},
		{"tools in bad JSON", "a.jsonl", `{"messages": [{"role": "user", "content": "a"}], "tools": "[{]"}`, "no list of schemas", ErrFormat},
		{"a tool no schema", "a.jsonl", `{"messages": [{"role": "user", "content": "a"}], "tools": ["f"]}`, "element 1 is a string", ErrFormat},
		{"variables no object", "a.jsonl", `{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": [1]}`, "not an object of variables", ErrFormat},
		{"variables of the row", "a.jsonl", `{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"tools": []}}`, "which the row itself says", ErrFormat},
		{"nobody calls", "a.jsonl", `{"messages": [{"role": "assistant", "content": null}]}`, "null, not a string", ErrFormat},
		{"image", "a.jsonl", `{"messages": [{"role": "user", "content": [{"type": "image"}]}]}`, `type "image"`, ErrFormat},
		{"not an object", "a.jsonl", `[1]`, "a row must be an object", ErrFormat},
		{"bad JSON", "a.jsonl", `{"text": "a"}` + "\n" + `{"text": }`, "line 2: malformed data: not JSON", ErrFormat},
		{"cut short", "a.jsonl", `{"text": "a`, "ends inside", ErrFormat},
		{"cut array", "a.json", `[{"text": "a"}, {"te`, "element 2: malformed data: the file ends inside", ErrFormat},
		{"open array", "a.json", `[{"text": "a"}`, "ends inside", ErrFormat},
		{"after the array", "a.json", `[{"text": "a"}] x`, "follows the array", ErrFormat},
		{"duplicate field", "a.jsonl", `{"text": "a", "text": "b"}`, "duplicate", ErrFormat},
		{"not UTF-8", "a.txt", "a\n\xff\n", "line 2: malformed data: byte 0 is not UTF-8", ErrFormat},
		{"not UTF-8 in JSON", "a.jsonl", "{\"text\": \"\xff\"}", "line 1", ErrFormat},
		{"no shared prompt", "a.jsonl", `{"chosen": "a", "rejected": "b"}`, "do not begin alike", ErrFormat},
		{"no shared turn", "a.jsonl", `{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "a"}]}`, "share no first turn", ErrFormat},
		{"other kind", "a.csv", "a,b", ".csv files are not read", ErrFormat},
		{"not gzip", "a.jsonl.gz", "text", "a.jsonl.gz", ErrFormat},
		{"not zstd", "a.jsonl.zst", "text", "a.jsonl.zst", ErrFormat},
		{"bad history", "a.jsonl", `{"instruction": "a", "output": "b", "history": [["a"], 3]}`, "history", ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(write(t, c.file, c.text))
			if !errors.Is(err, c.sentinel) || !strings.Contains(fmt.Sprint(err), c.want) || strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
		})
	}
	if _, err := Read(t.TempDir()); err == nil {
		t.Error("a folder is no error")
	}
}

func TestCompressed(t *testing.T) {
	text := strings.Repeat(`{"text": "hello"}`+"\n", 100)
	var gz, zst bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write([]byte(text))
	g.Close()
	z, _ := zstd.NewWriter(&zst)
	z.Write([]byte(text))
	z.Close()
	for name, data := range map[string][]byte{"a.jsonl.gz": gz.Bytes(), "a.jsonl.zst": zst.Bytes()} {
		f, err := Read(write(t, name, string(data)))
		if err != nil || len(f.Rows) != 100 {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Read(write(t, name, string(data[:len(data)-6]))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s cut short: error %v", name, err)
		}
	}
}

// A small file that unpacks to a long row is refused before it fills the memory.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	g.Write([]byte(`{"text": "`))
	for range MaxRow>>20 + 2 {
		g.Write(bytes.ReplaceAll(zeros, []byte{0}, []byte{'a'}))
	}
	g.Close()
	for _, name := range []string{"a.jsonl.gz", "a.json.gz", "a.txt.gz"} {
		if _, err := Read(write(t, name, b.String())); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "longer than 64 MiB") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	in := &input{r: bytes.NewReader(make([]byte, 10)), left: 4}
	if _, err := in.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 8)); !errors.Is(err, ErrFormat) {
		t.Errorf("a file above the limit: error %v", err)
	}
}

func TestReadText(t *testing.T) {
	if s, err := ReadText(write(t, "a.txt", "\ufeffone\n\ntwo\n")); err != nil || s != "one\n\ntwo\n" {
		t.Errorf("%q, %v", s, err)
	}
	for name, text := range map[string]string{"a.jsonl": `{"text": "a"}`, "b.txt": "a\xffb"} {
		if _, err := ReadText(write(t, name, text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := ReadText(write(t, "a.txt", "")); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty: %v", err)
	}
	if f, err := Read(write(t, "notes.md", "one\n\n two \n")); err != nil || len(f.Rows) != 2 || f.Rows[1].Prompt.Text != "two" || f.Rows[1].Place != 3 {
		t.Errorf("%+v, %v", f, err)
	}
}

// FuzzRows reads rows and encodes what was read; every example must be sound.
func FuzzRows(f *testing.F) {
	for _, c := range forms {
		f.Add([]byte(c.row+"\n"+c.row), false)
		f.Add([]byte("["+c.row+"]"), true)
	}
	f.Add([]byte("{\"text\": \"\xff\"}"), false)
	f.Fuzz(func(t *testing.T, data []byte, array bool) {
		name := "a.jsonl"
		if array {
			name = "a.json"
		}
		file := &File{Path: name, unit: "line"}
		if err := file.read(bytes.NewReader(data), name); err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is not ErrFormat", err)
			}
			return
		}
		e := &Encoder{Tokenizer: letters{}, Template: tags{}, MaxLength: 64}
		examples, report, err := e.Examples(file)
		if err != nil {
			return
		}
		if report.Kept != len(examples) || report.Kept+report.Dropped+report.Lossless != report.Rows {
			t.Fatalf("%+v for %d examples", report, len(examples))
		}
		for _, x := range examples {
			if len(x.Tokens) != len(x.Loss) || x.Targets() == 0 || x.Loss[0] || len(x.Tokens) > 64 {
				t.Fatalf("example %+v", x)
			}
		}
	})
}
