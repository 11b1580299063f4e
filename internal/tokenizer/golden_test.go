package tokenizer

import (
	"bufio"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// golden is one file of testdata/golden/tokenizer; see make_golden.py there.
type golden struct {
	Tokenizer json.RawMessage `json:"tokenizer"`
	Model     []byte          `json:"model"`  // or a SentencePiece model
	Config    json.RawMessage `json:"config"` // and its tokenizer_config.json
	Cases     []struct {
		Text        string   `json:"text"`
		IDs         []int32  `json:"ids"`          // absent where the peer does not parse special tokens
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

// parse makes the tokenizer.
func (g *golden) parse(t testing.TB) *Tokenizer {
	t.Helper()
	var tok *Tokenizer
	var err error
	if g.Model != nil {
		tok, err = ParseSentencePiece(g.Model, g.Config)
	} else {
		tok, err = ParseJSON(g.Tokenizer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGolden(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json.gz"), func(t *testing.T) {
			g := readGolden(t, file)
			tok := g.parse(t)
			for _, c := range g.Cases {
				if c.IDs == nil {
					checkIDs(t, tok, c.Text, Options{}, *c.Plain)
					continue
				}
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

// TestSteps compares the normalizers, and Punctuation, with the reference's.
func TestSteps(t *testing.T) {
	f, err := os.Open("../../testdata/golden/tokenizer/steps/steps.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Charsmap []byte
		Rows     []struct {
			Text   string
			Out    map[string]string // by normalizer; absent where equal to the text
			Pieces []int             // where they begin, in characters
		}
	}
	if err := json.NewDecoder(z).Decode(&golden); err != nil || len(golden.Rows) == 0 {
		t.Fatal(err)
	}
	for _, kind := range []string{"NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "Precompiled"} {
		normalize, err := newNormalizer(&component{Type: kind, Charsmap: golden.Charsmap})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range golden.Rows {
			want, ok := r.Out[kind]
			if !ok {
				want = r.Text
			}
			if got := normalize(r.Text); got != want {
				t.Errorf("%s(%+q) = %+q, want %+q", kind, r.Text, got, want)
			}
		}
	}
	punctuation, err := newClassSplitter(isPunctuation, isolated)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range golden.Rows {
		var got []int
		for _, s := range punctuation.split(nil, r.Text) {
			got = append(got, utf8.RuneCountInString(r.Text[:s.begin]))
		}
		if !slices.Equal(got, r.Pieces) {
			t.Errorf("Punctuation splits %+q at %v, want %v", r.Text, got, r.Pieces)
		}
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

// TestPeers compares with the tools that define the tokenizers, on every line of real texts.
func TestPeers(t *testing.T) {
	dir := os.Getenv("GRAFT_TOKENIZER_PEERS")
	if dir == "" {
		t.Skip("set GRAFT_TOKENIZER_PEERS to a folder that `python testdata/golden/tokenizer/peers.py make` filled")
	}
	families, err := filepath.Glob(filepath.Join(dir, "*", "lines.jsonl"))
	if err != nil || len(families) == 0 {
		t.Fatalf("no families: %v", err)
	}
	for _, lines := range families {
		name := filepath.Base(filepath.Dir(lines))
		t.Run(name, func(t *testing.T) {
			tok := peerTokenizer(t, filepath.Dir(lines))
			texts, differences := comparePeer(t, tok, lines)
			t.Logf("%d texts, %d differences", texts, differences)
			if out := os.Getenv("GRAFT_TOKENIZER_OUT"); out != "" {
				writePeer(t, tok, filepath.Join(out, name))
			}
		})
	}
}

// comparePeer counts the texts of which ids, or the text that they decode to, differ.
func comparePeer(t *testing.T, tok *Tokenizer, file string) (texts, differences int) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<28)
	for scan.Scan() {
		var row struct {
			Text    string   `json:"text"`
			IDs     []int32  `json:"ids"`     // special tokens parsed; absent where the peer cannot
			Plain   *[]int32 `json:"plain"`   // absent where equal
			Decoded *string  `json:"decoded"` // absent where equal to the text, or not asked
		}
		if err := json.Unmarshal(scan.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		texts++
		ids, plain := tok.Encode(row.Text, Options{ParseSpecial: true}), tok.Encode(row.Text, Options{})
		same := slices.Equal(plain, or(row.Plain, row.IDs)) && (row.IDs == nil || slices.Equal(ids, row.IDs))
		if same && row.Decoded != nil {
			same = tok.Decode(row.IDs, false) == *row.Decoded
		}
		if same {
			continue
		}
		if differences++; differences <= 3 {
			checkIDs(t, tok, row.Text, Options{}, or(row.Plain, row.IDs))
			if row.IDs != nil {
				checkIDs(t, tok, row.Text, Options{ParseSpecial: true}, row.IDs)
			}
			if row.Decoded != nil {
				checkDecode(t, tok, row.IDs, false, *row.Decoded)
			}
		}
		t.Fail()
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return texts, differences
}

// peerTokenizer reads a family's tokenizer, in whichever form it is there.
func peerTokenizer(t testing.TB, dir string) *Tokenizer {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return data
	}
	var tok *Tokenizer
	var err error
	if data := read("tokenizer.json"); data != nil {
		tok, err = ParseJSON(data)
	} else if data := read("tokenizer.model"); data != nil {
		tok, err = ParseSentencePiece(data, read("tokenizer_config.json"))
	} else {
		v, jsonErr := peerVocab(read("vocab.json"))
		if jsonErr != nil {
			t.Fatal(jsonErr)
		}
		tok, err = FromVocab(v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// peerVocab reads the tokenizer.ggml keys as JSON.
func peerVocab(data []byte) (Vocab, error) {
	var keys struct {
		Model, Pre, Name string
		Tokens           []string
		TokenType        []int32 `json:"token_type"`
		Merges           []string
		Scores           []float32
		BOS              *int    `json:"bos_token_id"`
		EOS              *int    `json:"eos_token_id"`
		UNK              *int    `json:"unknown_token_id"`
		PAD              *int    `json:"padding_token_id"`
		AddSpacePrefix   *bool   `json:"add_space_prefix"`
		Remove           bool    `json:"remove_extra_whitespaces"`
		Charsmap         []uint8 `json:"precompiled_charsmap"`
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		return Vocab{}, err
	}
	v := DefaultVocab(keys.Model, keys.Pre)
	v.AddBOS, v.AddEOS = false, false
	v.Tokens, v.Types, v.Merges, v.Scores, v.Name = keys.Tokens, keys.TokenType, keys.Merges, keys.Scores, keys.Name
	v.BOS, v.EOS, v.UNK, v.PAD = or(keys.BOS, v.BOS), or(keys.EOS, v.EOS), or(keys.UNK, v.UNK), or(keys.PAD, v.PAD)
	v.AddSpacePrefix = or(keys.AddSpacePrefix, v.AddSpacePrefix)
	v.RemoveExtraWhitespaces, v.Charsmap = keys.Remove, keys.Charsmap
	return v, nil
}

// writePeer writes the tokenizer in both forms, for peers.py to check.
func writePeer(t *testing.T, tok *Tokenizer, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := tok.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	roles := tok.Special() // as a tokenizer_config.json would name them
	if len(tok.prefix) == 1 && roles.BOS < 0 {
		roles.BOS = tok.prefix[0]
	}
	if len(tok.suffix) == 1 && roles.EOS < 0 {
		roles.EOS = tok.suffix[0]
	}
	if tok, err = tok.WithSpecial(roles); err != nil {
		t.Fatal(err)
	}
	v, err := tok.Vocab()
	if err != nil {
		t.Log(err)
		return
	}
	if data, err = json.Marshal(v); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vocab.json"), data, 0o644); err != nil {
		t.Fatal(err)
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

// BenchmarkPeers encodes the lines of a text with real tokenizers.
func BenchmarkPeers(b *testing.B) {
	dir, file := os.Getenv("GRAFT_TOKENIZER_PEERS"), os.Getenv("GRAFT_TOKENIZER_TEXT")
	if dir == "" || file == "" {
		b.Skip("set GRAFT_TOKENIZER_PEERS as for TestPeers and GRAFT_TOKENIZER_TEXT to a text")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	families, err := filepath.Glob(filepath.Join(dir, "*", "lines.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	for _, family := range families {
		b.Run(filepath.Base(filepath.Dir(family)), func(b *testing.B) {
			tok := peerTokenizer(b, filepath.Dir(family))
			b.SetBytes(int64(len(text)))
			var ids []int32
			for b.Loop() {
				for _, line := range lines {
					ids = tok.AppendEncode(ids[:0], line, Options{ParseSpecial: true})
				}
			}
		})
	}
}
