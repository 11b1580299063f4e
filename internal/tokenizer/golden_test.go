package tokenizer

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden is one file of testdata/golden/tokenizer; see make_golden.py there.
type golden struct {
	Tokenizer json.RawMessage `json:"tokenizer"`
	Cases     []struct {
		Text        string   `json:"text"`
		IDs         []int32  `json:"ids"`
		WithSpecial *[]int32 `json:"with_special"` // absent where equal to IDs
		Plain       *[]int32 `json:"plain"`        // special tokens as text; absent where equal
		Decoded     *string  `json:"decoded"`      // absent where equal to Text
		Skipped     *string  `json:"skipped"`      // without special tokens; absent where equal
	} `json:"cases"`
	Bytes []struct {
		Raw string  `json:"raw"`
		IDs []int32 `json:"ids"`
	} `json:"bytes"`
	RandomDecode []struct {
		IDs  []int32 `json:"ids"`
		Text string  `json:"text"`
	} `json:"random_decode"`
}

func goldenFiles(t testing.TB) []string {
	files, err := filepath.Glob("../../testdata/golden/tokenizer/*.json.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

func readGolden(t testing.TB, file string) (g golden) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGolden(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) {
			g := readGolden(t, file)
			tok, err := ParseJSON(g.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range g.Cases {
				checkIDs(t, tok, c.Text, Options{ParseSpecial: true}, c.IDs)
				checkIDs(t, tok, c.Text, Options{ParseSpecial: true, AddSpecial: true}, or(c.WithSpecial, c.IDs))
				checkIDs(t, tok, c.Text, Options{}, or(c.Plain, c.IDs))
				decoded := or(c.Decoded, c.Text)
				checkDecode(t, tok, c.IDs, false, decoded)
				checkDecode(t, tok, c.IDs, true, or(c.Skipped, decoded))
			}
			for _, c := range g.Bytes {
				raw, err := base64.StdEncoding.DecodeString(c.Raw)
				if err != nil {
					t.Fatal(err)
				}
				checkIDs(t, tok, string(raw), Options{ParseSpecial: true}, c.IDs)
			}
			for _, c := range g.RandomDecode {
				checkDecode(t, tok, c.IDs, false, c.Text)
			}
		})
	}
}

func or[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

func checkIDs(t *testing.T, tok *Tokenizer, text string, opt Options, want []int32) {
	t.Helper()
	if got := tok.Encode(text, opt); !slices.Equal(got, want) {
		t.Errorf("Encode(%.200q, %+v) = %v %q, want %v %q", text, opt, got, pieces(tok, got), want, pieces(tok, want))
	}
}

func pieces(tok *Tokenizer, ids []int32) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i], _ = tok.Token(id)
	}
	return out
}

// checkDecode compares Decode, and a Stream, with the expected text.
func checkDecode(t *testing.T, tok *Tokenizer, ids []int32, skip bool, want string) {
	t.Helper()
	if got := tok.Decode(ids, skip); got != want {
		t.Errorf("Decode(%v, %v) = %q, want %q", ids, skip, got, want)
	}
	var b strings.Builder
	s := tok.NewStream(skip)
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	b.WriteString(s.Flush())
	if b.String() != want {
		t.Errorf("stream of %v = %q, want %q", ids, b.String(), want)
	}
}

// TestPeers compares with tokenizers and llama.cpp on every line of real texts.
func TestPeers(t *testing.T) {
	dir := os.Getenv("GRAFT_TOKENIZER_PEERS")
	if dir == "" {
		t.Skip("set GRAFT_TOKENIZER_PEERS to a folder that `python testdata/golden/tokenizer/make_golden.py lines` wrote")
	}
	fromJSON, fromGGUF := peerTokenizers(t, dir)
	rebuilt := reparse(t, fromGGUF)
	f, err := os.Open(filepath.Join(dir, "lines.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, tokens := 0, 0
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<28)
	for scan.Scan() {
		var row struct {
			Text     string  `json:"text"`
			IDs      []int32 `json:"ids"`
			Plain    []int32 `json:"plain"`
			IDsCpp   []int32 `json:"ids_cpp"`   // absent where equal
			PlainCpp []int32 `json:"plain_cpp"` // absent where equal
		}
		if err := json.Unmarshal(scan.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		if row.IDsCpp != nil || row.PlainCpp != nil {
			t.Errorf("tokenizers and llama.cpp differ on %.200q", row.Text)
		}
		for _, tok := range []*Tokenizer{fromJSON, fromGGUF, rebuilt} {
			checkIDs(t, tok, row.Text, Options{ParseSpecial: true}, row.IDs)
			checkIDs(t, tok, row.Text, Options{}, row.Plain)
			checkDecode(t, tok, row.IDs, false, row.Text)
		}
		lines++
		tokens += len(row.IDs)
	}
	if err := scan.Err(); err != nil || lines == 0 {
		t.Fatalf("%d lines: %v", lines, err)
	}
	t.Logf("%d texts, %d tokens", lines, tokens)
	if out := os.Getenv("GRAFT_TOKENIZER_OUT"); out != "" {
		data, err := fromGGUF.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// reparse passes a tokenizer through its tokenizer.json.
func reparse(t *testing.T, tok *Tokenizer) *Tokenizer {
	t.Helper()
	data, err := tok.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func peerTokenizers(t testing.TB, dir string) (fromJSON, fromGGUF *Tokenizer) {
	data, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if fromJSON, err = ParseJSON(data); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(filepath.Join(dir, "vocab.json")); err != nil {
		t.Fatal(err)
	}
	var keys struct {
		Model, Pre string
		Tokens     []string
		TokenType  []int32 `json:"token_type"`
		Merges     []string
		BOS        int `json:"bos_token_id"`
		EOS        int `json:"eos_token_id"`
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		t.Fatal(err)
	}
	fromGGUF, err = FromVocab(Vocab{
		Model: keys.Model, Pre: keys.Pre, Tokens: keys.Tokens, Types: keys.TokenType, Merges: keys.Merges,
		BOS: keys.BOS, EOS: keys.EOS, UNK: -1, PAD: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return fromJSON, fromGGUF
}
