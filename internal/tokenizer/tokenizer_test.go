package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// goldenTokenizer reads the tokenizer of one golden file.
func goldenTokenizer(t testing.TB, name string) *Tokenizer {
	t.Helper()
	g := readGolden(t, filepath.Join("../../testdata/golden/tokenizer", name+".json.gz"))
	return g.parse(t)
}

// TestVocabRoundTrip goes tokenizer.json → GGUF vocabulary → tokenizer.json and
// wants the same ids at every step.
func TestVocabRoundTrip(t *testing.T) {
	for name, pre := range map[string]string{"gpt2": "gpt-2", "smollm": "smollm", "llama3": "llama-bpe"} {
		t.Run(name, func(t *testing.T) {
			tok := goldenTokenizer(t, name)
			vocab, err := tok.Vocab()
			if err != nil {
				t.Fatal(err)
			}
			if vocab.Pre != pre || vocab.Model != "gpt2" || vocab.AddBOS != (name == "llama3") || vocab.AddEOS {
				t.Errorf("Vocab = model %q, pre %q, add_bos %v, add_eos %v", vocab.Model, vocab.Pre, vocab.AddBOS, vocab.AddEOS)
			}
			ggml, err := FromVocab(vocab)
			if err != nil {
				t.Fatal(err)
			}
			again := reparse(t, ggml)
			g := readGolden(t, filepath.Join("../../testdata/golden/tokenizer", name+".json.gz"))
			for _, c := range g.Cases {
				for _, tok := range []*Tokenizer{ggml, again} {
					checkIDs(t, tok, c.Text, Options{ParseSpecial: true}, c.IDs)
					checkIDs(t, tok, c.Text, Options{ParseSpecial: true, AddSpecial: true}, or(c.WithSpecial, c.IDs))
					checkIDs(t, tok, c.Text, Options{}, or(c.Plain, c.IDs))
				}
			}
			back, err := again.WithSpecial(ggml.Special())
			if err != nil {
				t.Fatal(err)
			}
			vocab2, err := back.Vocab()
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(vocab, vocab2) {
				t.Error("the vocabulary changed on its way through tokenizer.json")
			}
		})
	}
}

func TestVocabTypes(t *testing.T) {
	tok, err := ParseJSON([]byte(tinyJSON(
		`"a":0,"b":1,"ab":2,"<|x|>":5`, `["a","b"]`,
		`{"id":5,"content":"<|x|>","special":false},{"id":6,"content":"▁u","special":false},{"id":7,"content":"s","special":true}`)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := tok.Vocab()
	if err != nil {
		t.Fatal(err)
	}
	v.Pad(9)
	tokens := []string{"a", "b", "ab", "[PAD3]", "[PAD4]", "<|x|>", " u", "s", "[PAD8]"}
	types := []int32{TypeNormal, TypeNormal, TypeNormal, TypeUnused, TypeUnused, TypeControl, TypeUserDefined, TypeControl, TypeUnused}
	if !slices.Equal(v.Tokens, tokens) || !slices.Equal(v.Types, types) || !slices.Equal(v.Merges, []string{"a b"}) {
		t.Errorf("Vocab = %q %v %q", v.Tokens, v.Types, v.Merges)
	}
	odd := goldenTokenizer(t, "split-1")
	_, err = odd.Vocab()
	checkError(t, "no name", err, ErrUnsupported, "splits by \"Split\" without ignore_merges; say which name")
	if v, err := odd.VocabAs("dbrx"); err != nil || v.Pre != "dbrx" {
		t.Errorf("VocabAs = %q, %v", v.Pre, err)
	}
	_, err = odd.VocabAs("nonsense")
	checkError(t, "unknown name", err, ErrUnsupported, `"nonsense"`)
}

// TestNames finds GGUF's name of every kind of tokenizer by its structure.
func TestNames(t *testing.T) {
	for golden, want := range map[string]string{
		"gpt2": "gpt2 gpt-2", "smollm": "gpt2 smollm", "llama3": "gpt2 llama-bpe", "qwen2": "gpt2 qwen2", "o200k": "gpt2 gpt-4o", "phi4-mini": "gpt2 gpt-4o",
		"tekken": "gpt2 tekken", "cl100k": "gpt2 smaug-bpe", "qwen35": "gpt2 qwen35", "neox": "gpt2 gpt-2", "falcon": "gpt2 falcon", "bloom": "gpt2 bloom",
		"deepseek": "gpt2 deepseek-v3", "deepseek-coder": "gpt2 deepseek-coder",
		"llama2": "llama default", "phi3": "llama default", "gemma": "llama default", "llama2-modern": "llama default", "model-llama2": "llama default",
		"t5": "t5 default", "t5-old": "t5 default",
	} {
		tok := goldenTokenizer(t, golden)
		roles := tok.Special()
		if len(tok.suffix) > 0 {
			roles.EOS = tok.suffix[0]
		}
		tok, err := tok.WithSpecial(roles)
		if err != nil {
			t.Fatal(err)
		}
		v, err := tok.Vocab()
		if err != nil || v.Model+" "+v.Pre != want {
			t.Errorf("%s is %s %s, %v, want %s", golden, v.Model, v.Pre, err, want)
			continue
		}
		if again, err := FromVocab(v); err != nil {
			t.Errorf("%s: %v", golden, err)
		} else if a, b := tok.Encode("Hello 123", Options{}), again.Encode("Hello 123", Options{}); !slices.Equal(a, b) {
			t.Errorf("%s: ids %v, by way of GGUF %v", golden, a, b)
		}
	}
	for golden, part := range map[string]string{"bare": "byte tokens", "model-bpe": "byte tokens", "llama2-always": `byte tokens`, "albert": `step "Replace"`, "prefix": "BOS and EOS"} {
		_, err := goldenTokenizer(t, golden).Vocab()
		checkError(t, golden, err, ErrUnsupported, part)
	}
	for _, p := range preTokenizers {
		if got, err := nameOf(p.component(), p.ignoreMerges); err != nil || findPreTokenizer(got).patterns[0] != p.patterns[0] {
			t.Errorf("the pre-tokenizer %s is found to be %q, %v", p.names[0], got, err)
		}
	}
}

// TestUnderlineRoundTrip goes from SentencePiece-like tokenizers to a GGUF vocabulary and
// back and wants the same ids at every step.
func TestUnderlineRoundTrip(t *testing.T) {
	for _, name := range []string{"llama2", "gemma", "model-llama2", "model-gemma"} {
		tok := goldenTokenizer(t, name)
		v, err := tok.Vocab()
		if err != nil {
			t.Fatal(err)
		}
		if hasPrefix := !strings.HasSuffix(name, "gemma"); v.AddSpacePrefix != hasPrefix || len(v.Scores) != len(v.Tokens) || v.Types[v.UNK] != TypeUnknown {
			t.Errorf("%s: space prefix %v, %d scores, unknown of type %d", name, v.AddSpacePrefix, len(v.Scores), v.Types[v.UNK])
		}
		ggml, err := FromVocab(v)
		if err != nil {
			t.Fatal(err)
		}
		again := reparse(t, ggml)
		for _, c := range readGolden(t, filepath.Join("../../testdata/golden/tokenizer", name+".json.gz")).Cases {
			for _, other := range []*Tokenizer{ggml, again} {
				checkIDs(t, other, c.Text, Options{}, or(c.Plain, c.IDs))
				if c.IDs != nil {
					checkIDs(t, other, c.Text, Options{ParseSpecial: true}, c.IDs)
				}
			}
		}
	}
}

func TestFromVocabErrors(t *testing.T) {
	good := Vocab{Model: "gpt2", Pre: "gpt-2", Tokens: []string{"a", "b", "ab"}, Merges: []string{"a b"}, BOS: -1, EOS: -1, UNK: -1, PAD: -1}
	if _, err := FromVocab(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(v *Vocab)
		want   error
		part   string
	}{
		"model":     {func(v *Vocab) { v.Model = "rwkv" }, ErrUnsupported, `"rwkv"`},
		"pre":       {func(v *Vocab) { v.Pre = "kimi-k2" }, ErrUnsupported, `"kimi-k2"`},
		"no scores": {func(v *Vocab) { v.Model = "llama" }, ErrFormat, "0 scores"},
		"NaN":       {func(v *Vocab) { v.Model, v.Scores = "llama", []float32{0, float32(math.NaN()), 0} }, ErrFormat, "score of token 1"},
		"charsmap": {func(v *Vocab) {
			v.Model, v.Scores, v.Charsmap = "t5", make([]float32, 3), []byte{9, 0, 0, 0, 1}
		}, ErrFormat, "precompiled_charsmap"},
		"types":      {func(v *Vocab) { v.Types = []int32{1} }, ErrFormat, "1 token types for 3"},
		"bos":        {func(v *Vocab) { v.BOS = 3 }, ErrFormat, "bos_token_id is 3"},
		"eos":        {func(v *Vocab) { v.EOS = -7 }, ErrFormat, "eos_token_id is -7"},
		"duplicate":  {func(v *Vocab) { v.Tokens = []string{"a", "b", "a"} }, ErrFormat, "ids 0 and 2"},
		"merge":      {func(v *Vocab) { v.Merges = []string{"ab"} }, ErrFormat, "merge 0"},
		"empty":      {func(v *Vocab) { v.Merges = []string{""} }, ErrFormat, "merge 0"},
		"piece":      {func(v *Vocab) { v.Merges = []string{"a c"} }, ErrFormat, `"c"`},
		"whole":      {func(v *Vocab) { v.Merges = []string{"b a"} }, ErrFormat, `"ba"`},
		"two spaces": {func(v *Vocab) { v.Merges = []string{"a b c"} }, ErrFormat, `"b c"`},
	} {
		v := good
		c.change(&v)
		checkError(t, name, second(FromVocab(v)), c.want, c.part)
	}
	good.Tokens = []string{"a", "", "b"}
	good.Merges = nil
	tok, err := FromVocab(good)
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := tok.Token(1); s != "[EMPTY_1]" || good.Tokens[1] != "" {
		t.Errorf("empty token became %q, the caller's %q", s, good.Tokens[1])
	}
}

func TestSentencePieceErrors(t *testing.T) {
	for _, kind := range []byte{1, 2} {
		good := smallModel(kind)
		if _, err := ParseSentencePiece(good, nil); err != nil {
			t.Fatal(err)
		}
		for n := range good { // a cut between fields goes unnoticed
			if _, err := ParseSentencePiece(good[:n], nil); err != nil && !errors.Is(err, ErrFormat) {
				t.Errorf("cut at byte %d: %v", n, err)
			}
		}
	}
	for name, c := range map[string]struct {
		model, config []byte
		want          error
		part          string
	}{
		"empty":        {nil, nil, ErrFormat, "without pieces"},
		"not protobuf": {[]byte("<html>\xff"), nil, ErrFormat, "SentencePiece model"},
		"cut":          {smallModel(2)[:9], nil, ErrFormat, "cut off"},
		"words":        {smallModel(3), nil, ErrUnsupported, "type 3"},
		"suffix":       {smallModel(2, 0x12, 3, 0xc0, 1, 1), nil, ErrUnsupported, "treat_whitespace_as_suffix"},
		"unescaped":    {smallModel(2, 0x1a, 2, 0x28, 0), nil, ErrUnsupported, "escape_whitespaces"},
		"unk":          {smallModel(2, 0x12, 3, 0xc0, 2, 9), nil, ErrFormat, "unk_id is 9 of 8"},
		"same piece":   {smallModel(2, modelPiece("a", 1)...), nil, ErrFormat, `"a" has ids 3 and 8`},
		"empty piece":  {smallModel(2, modelPiece("", 1)...), nil, ErrFormat, "piece 8"},
		"not UTF-8":    {smallModel(2, modelPiece("\xff", 1)...), nil, ErrFormat, "piece 8"},
		"type":         {smallModel(2, modelPiece("x", 7)...), nil, ErrFormat, "of type 7"},
		"score":        {smallModel(2, 0x0a, 8, 0x0a, 1, 'x', 0x15, 0, 0, 0xc0, 0xff), nil, ErrFormat, "score of piece 8"},
		"charsmap":     {smallModel(1, 0x1a, 3, 0x12, 1, 7), nil, ErrFormat, "character map"},
		"config":       {smallModel(2), []byte("{"), ErrFormat, "tokenizer_config.json"},
		"added":        {smallModel(2), []byte(`{"added_tokens_decoder":{"x":{"content":"y"}}}`), ErrFormat, "added_tokens_decoder"},
		"added far":    {smallModel(2), []byte(`{"added_tokens_decoder":{"2000000000":{"content":"y"}}}`), ErrFormat, "id 2000000000"},
	} {
		checkError(t, name, second(ParseSentencePiece(c.model, c.config)), c.want, c.part)
	}
}

func second(_ *Tokenizer, err error) error { return err }

func checkError(t *testing.T, name string, err, want error, part string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), part) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: error %q, want %v naming %q", name, err, want, part)
	}
}

// tinyJSON is a tokenizer.json with the given insides of vocab, merges and added_tokens.
func tinyJSON(vocab, merges, added string) string {
	return `{"version":"1.0","added_tokens":[` + added + `],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel"},` +
		`"post_processor":null,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{` + vocab + `},"merges":[` + merges + `]}}`
}

func TestParseJSONErrors(t *testing.T) {
	good := tinyJSON(`"a":0,"b":1,"ab":2`, `"a b"`, "")
	if _, err := ParseJSON([]byte(good)); err != nil {
		t.Fatal(err)
	}
	set := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	pre := func(pattern string) string {
		p, _ := json.Marshal(pattern)
		return set(`{"type":"ByteLevel"}`, `{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":`+string(p)+
			`},"behavior":"Isolated"},{"type":"ByteLevel","use_regex":false}]}`)
	}
	for name, c := range map[string]struct {
		data string
		want error
		part string
	}{
		"empty":                 {"", ErrFormat, ""},
		"cut":                   {good[:len(good)-9], ErrFormat, ""},
		"no model":              {"{}", ErrFormat, "no model"},
		"array":                 {"[]", ErrFormat, ""},
		"invalid UTF-8":         {set(`"ab":2`, "\"\xff\":2"), ErrFormat, "UTF-8"},
		"wordpiece":             {set(`"BPE"`, `"WordPiece"`), ErrUnsupported, `"WordPiece"`},
		"unigram vocabulary":    {set(`"BPE"`, `"Unigram"`), ErrFormat, "vocab"},
		"unigram piece":         {`{"model":{"type":"Unigram","vocab":[["a"]]}}`, ErrFormat, "vocab"},
		"unigram three parts":   {`{"model":{"type":"Unigram","vocab":[["a",1,2]]}}`, ErrFormat, "two parts"},
		"unigram empty":         {`{"model":{"type":"Unigram","vocab":[]}}`, ErrFormat, "vocabulary"},
		"unigram unk":           {`{"model":{"type":"Unigram","unk_id":1,"vocab":[["a",0]]}}`, ErrFormat, "unk_id is 1"},
		"unigram bytes":         {`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"Unigram","vocab":[["a",0]]}}`, ErrUnsupported, "ByteLevel"},
		"dropout":               {set(`"type":"BPE"`, `"type":"BPE","dropout":0.1`), ErrUnsupported, "dropout"},
		"suffix":                {set(`"type":"BPE"`, `"type":"BPE","end_of_word_suffix":"</w>"`), ErrUnsupported, "end_of_word_suffix"},
		"prefix":                {set(`"type":"BPE"`, `"type":"BPE","continuing_subword_prefix":"##"`), ErrUnsupported, "continuing_subword_prefix"},
		"unk":                   {set(`"type":"BPE"`, `"type":"BPE","unk_token":"<unk>"`), ErrFormat, `"<unk>"`},
		"negative id":           {set(`"ab":2`, `"ab":-2`), ErrFormat, "id -2"},
		"huge id":               {set(`"ab":2`, `"ab":4000000000`), ErrFormat, "id 4000000000"},
		"monstrous id":          {set(`"ab":2`, `"ab":1e40`), ErrFormat, ""},
		"same id":               {set(`"ab":2`, `"ab":1`), ErrFormat, `id 1 is of both "ab" and "b"`},
		"same piece":            {set(`"ab":2`, `"ab":2,"ab":3`), ErrFormat, "duplicate"},
		"merge of one":          {set(`"a b"`, `"ab"`), ErrFormat, "two pieces"},
		"merge of three":        {set(`"a b"`, `["a","b","c"]`), ErrFormat, "merge of 3"},
		"unknown piece":         {set(`"a b"`, `"a c"`), ErrFormat, `needs "c"`},
		"unknown product":       {set(`"a b"`, `"b a"`), ErrFormat, `needs "ba"`},
		"added id taken":        {set(`"added_tokens":[`, `"added_tokens":[{"id":1,"content":"x"}`), ErrFormat, `both "b" and "x"`},
		"added with other id":   {set(`"added_tokens":[`, `"added_tokens":[{"id":1,"content":"a"}`), ErrFormat, "ids 0 and 1"},
		"added huge id":         {set(`"added_tokens":[`, `"added_tokens":[{"id":2000000000,"content":"x"}`), ErrFormat, "id 2000000000"},
		"normalizer":            {set(`"normalizer":null`, `"normalizer":{"type":"BertNormalizer"}`), ErrUnsupported, `"BertNormalizer"`},
		"charsmap":              {set(`"normalizer":null`, `"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="}`), ErrFormat, "trie"},
		"charsmap not base64":   {set(`"normalizer":null`, `"normalizer":{"type":"Precompiled","precompiled_charsmap":"#"}`), ErrFormat, "base64"},
		"replace":               {set(`"normalizer":null`, `"normalizer":{"type":"Replace","pattern":{"Regex":"(?=a)"}}`), ErrUnsupported, "look-around"},
		"pre-tokenizer":         {set(`{"type":"ByteLevel"}`, `{"type":"BertPreTokenizer"}`), ErrUnsupported, `"BertPreTokenizer"`},
		"metaspace":             {set(`{"type":"ByteLevel"}`, `{"type":"Metaspace","replacement":"__"}`), ErrFormat, `"__"`},
		"prepend scheme":        {set(`{"type":"ByteLevel"}`, `{"type":"Metaspace","replacement":"_","prepend_scheme":"last"}`), ErrFormat, `"last"`},
		"decoder":               {set(`"decoder":{"type":"ByteLevel"}`, `"decoder":{"type":"WordPiece"}`), ErrUnsupported, `"WordPiece"`},
		"decoder after fuse":    {set(`"decoder":{"type":"ByteLevel"}`, `"decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteLevel"}]}`), ErrUnsupported, `"ByteLevel"`},
		"decoder strip":         {set(`"decoder":{"type":"ByteLevel"}`, `"decoder":{"type":"Strip","content":"ab"}`), ErrFormat, "Strip"},
		"post-processor":        {set(`"post_processor":null`, `"post_processor":{"type":"Chat"}`), ErrUnsupported, `"Chat"`},
		"bert processor":        {set(`"post_processor":null`, `"post_processor":{"type":"BertProcessing","sep":["</s>",9],"cls":["a",0]}`), ErrFormat, `"</s>"`},
		"template token":        {set(`"post_processor":null`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{}}`), ErrFormat, `"<s>"`},
		"template id":           {set(`"post_processor":null`, `"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[9]}}}`), ErrFormat, "id 9"},
		"template sans text":    {set(`"post_processor":null`, `"post_processor":{"type":"TemplateProcessing","single":[]}`), ErrUnsupported, "0 times"},
		"look-ahead":            {pre(`a(?=b)`), ErrUnsupported, "look-around"},
		"look-behind":           {pre(`(?<!a)b`), ErrUnsupported, "look-around"},
		"possessive":            {pre(`a++b`), ErrUnsupported, "possessive"},
		"back-reference":        {pre(`(a)\1`), ErrUnsupported, `\\1`},
		"anchor":                {pre(`^a`), ErrUnsupported, "^"},
		"open class":            {pre(`[a`), ErrFormat, "class"},
		"open group":            {pre(`(a`), ErrFormat, "parenthesis"},
		"unmatched group":       {pre(`a)`), ErrFormat, "unmatched"},
		"property":              {pre(`\p{Nonsense}`), ErrUnsupported, "Nonsense"},
		"repetition":            {pre(`a{100000}`), ErrUnsupported, "a{100000}"},
		"nested repetition":     {pre(`((a{1000}){1000}){1000}`), ErrUnsupported, "repe"},
		"long pattern":          {pre(strings.Repeat("a", 5000)), ErrUnsupported, "5000 bytes"},
		"deep pattern":          {pre(strings.Repeat("(", 2000)), ErrUnsupported, "nesting"},
		"deep class":            {pre(strings.Repeat("[", 2000)), ErrUnsupported, "nesting"},
		"dangling backslash":    {pre(`a\`), ErrFormat, "backslash"},
		"inverted range":        {pre(`[z-a]`), ErrFormat, "range"},
		"not a character":       {pre(`\x{110000}`), ErrFormat, "no character"},
		"deep pre-tokenizer":    {set(`{"type":"ByteLevel"}`, strings.Repeat(`{"type":"Sequence","pretokenizers":[`, 50)+strings.Repeat("]}", 50)), ErrFormat, "nested"},
		"after byte level":      {set(`{"type":"ByteLevel"}`, `{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"ByteLevel"}]}`), ErrUnsupported, `"ByteLevel"`},
		"behavior":              {strings.Replace(pre("a"), "Isolated", "Chopped", 1), ErrFormat, "Chopped"},
		"split without pattern": {strings.Replace(pre("a"), "Regex", "Other", 1), ErrFormat, "pattern"},
	} {
		checkError(t, name, second(ParseJSON([]byte(c.data))), c.want, c.part)
	}
}

// TestCatastrophicPattern encodes with expressions that take a backtracking
// engine time exponential in the text.
func TestCatastrophicPattern(t *testing.T) {
	for _, pattern := range []string{`(a+)+b`, `(a|aa)+$b`, `(a*)*c|\s+(?!\S)`, `(?:a?){40}a{40}b`} {
		p, err := newPatternSplitter(pattern, false, isolated, false)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		p.split(nil, strings.Repeat("a", 2000))
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%s took %v", pattern, d)
		}
	}
}

func TestConfig(t *testing.T) {
	tok := goldenTokenizer(t, "smollm")
	if got := tok.Special(); got != noSpecials {
		t.Errorf("special ids without a config: %v", got)
	}
	id := func(s string) int32 {
		id, ok := tok.ID(s)
		if !ok {
			t.Fatalf("no %q", s)
		}
		return id
	}
	if got, want := tok.EOG(), []int32{id("<|end|>"), id("<|endoftext|>"), id("<|im_end|>")}; !slices.Equal(got, want) {
		t.Errorf("EOG = %v, want %v", got, want)
	}
	with, err := tok.WithConfig([]byte(`{"bos_token":"<|im_start|>","eos_token":{"content":"<|begin|>"},"pad_token":null,"other":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	if with.BOS() != id("<|im_start|>") || with.EOS() != id("<|begin|>") || with.PAD() != -1 || with.UNK() != -1 {
		t.Errorf("special ids %v", with.Special())
	}
	if !slices.Contains(with.EOG(), id("<|begin|>")) || slices.Contains(tok.EOG(), id("<|begin|>")) {
		t.Errorf("EOG %v, before %v", with.EOG(), tok.EOG())
	}
	if !tok.IsSpecial(id("<|begin|>")) || tok.IsSpecial(id("a")) {
		t.Error("IsSpecial")
	}
	checkError(t, "unknown token", second(tok.WithConfig([]byte(`{"eos_token":"</s>"}`))), ErrFormat, `"</s>"`)
	checkError(t, "wrong type", second(tok.WithConfig([]byte(`{"eos_token":7}`))), ErrFormat, "eos_token")
	checkError(t, "cut", second(tok.WithConfig([]byte(`{"eos_token":`))), ErrFormat, "")
	checkError(t, "id", second(tok.WithSpecial(SpecialIDs{BOS: 1 << 20, EOS: -1, UNK: -1, PAD: -1})), ErrFormat, "1048576")

	llama := goldenTokenizer(t, "llama3")
	if begin, _ := llama.ID("<|begin|>"); llama.BOS() != begin {
		t.Errorf("BOS from the template: %d, want %d", llama.BOS(), begin)
	}
	for _, id := range []int32{-1, int32(tok.Size()), 1 << 30} {
		if s, ok := tok.Token(id); ok || tok.Decode([]int32{id}, false) != "" {
			t.Errorf("token %d is %q", id, s)
		}
	}
}

func TestJSONIsTheOriginal(t *testing.T) {
	data := []byte(tinyJSON(`"a":0 , "b":1`, "", ""))
	tok, err := ParseJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tok.JSON()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("JSON = %s, %v", got, err)
	}
}

// TestStream never lets a piece cut a character, whatever the tokens.
func TestStream(t *testing.T) {
	tok := goldenTokenizer(t, "llama3")
	text := "é 👩‍👩‍👧 中文 \U000105c0 x"
	ids := tok.Encode(text, Options{})
	s := tok.NewStream(true)
	var got string
	for _, id := range ids {
		piece := s.Push(id)
		if !utf8.ValidString(piece) || strings.ContainsRune(piece, utf8.RuneError) {
			t.Errorf("piece %q", piece)
		}
		got += piece
	}
	if got != text || s.Flush() != "" {
		t.Errorf("streamed %q, want %q", got, text)
	}
	first, _ := tok.ID(spell("\xf0"))
	if got := s.Push(first) + "|" + s.Flush() + "|" + s.Flush(); got != "|\ufffd|" {
		t.Errorf("an unfinished character gives %q", got)
	}
}

func TestConcurrent(t *testing.T) {
	tok := goldenTokenizer(t, "qwen2")
	texts := readGolden(t, "../../testdata/golden/tokenizer/qwen2.json.gz").Cases
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range texts {
				c := texts[(i*7+g*13)%len(texts)]
				if got := tok.Encode(c.Text, Options{ParseSpecial: true}); !slices.Equal(got, c.IDs) {
					t.Errorf("Encode(%q) = %v, want %v", c.Text, got, c.IDs)
				}
			}
		})
	}
	wg.Wait()
}

// TestLongRuns encodes long texts without a place to cut, which take forever unless every
// model, pattern and normalizer is near linear.
func TestLongRuns(t *testing.T) {
	for _, name := range []string{"gpt2", "o200k", "deepseek", "llama2", "llama2-always", "gemma", "t5", "albert", "unigram-bytes", "model-llama2"} {
		tok := goldenTokenizer(t, name)
		if name == "gemma" {
			v, err := tok.Vocab()
			if err != nil {
				t.Fatal(err)
			}
			if tok, err = FromVocab(v); err != nil {
				t.Fatal(err)
			}
		}
		for _, unit := range []string{"a", "abcdefgh", " ", "é", "\u0301", "\u2581", "7", "👍", "e\u0301"} {
			text := strings.Repeat(unit, 1<<16/len(unit))
			start := time.Now()
			tok.Decode(tok.Encode(text, Options{}), false)
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("%s took %v for %q", name, d, unit)
			}
		}
	}
}

func TestAppendEncode(t *testing.T) {
	tok := goldenTokenizer(t, "smollm")
	text := "Hello 12 worlds"
	want := append([]int32{-5}, tok.Encode(text, Options{})...)
	buf := append(make([]int32, 0, 64), -5)
	got := tok.AppendEncode(buf, text, Options{})
	if !slices.Equal(got, want) || &got[0] != &buf[0] {
		t.Errorf("AppendEncode = %v, want %v in place", got, want)
	}
}

func Example() {
	data, err := os.ReadFile("testdata/tiny.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	tok, err := ParseJSON(data)
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("low lower<|end|>", Options{ParseSpecial: true})
	fmt.Println(ids)
	second, _ := tok.Token(ids[1])
	fmt.Printf("%q\n", second)
	fmt.Println(tok.Decode(ids, true))
	// Output:
	// [7 9 8 10]
	// "Ġlow"
	// low lower
}

func BenchmarkEncode(b *testing.B) {
	tok := goldenTokenizer(b, "smollm")
	text := strings.Repeat("The quick brown fox, aged 12, doesn't jump over the lazy dog's tail.\n", 200)
	b.SetBytes(int64(len(text)))
	var ids []int32
	for b.Loop() {
		ids = tok.AppendEncode(ids[:0], text, Options{ParseSpecial: true})
	}
}
