package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/quantize"
)

func openGGUF(path string) (_ *Checkpoint, err error) {
	f, err := gguf.OpenSet(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			err = fmt.Errorf("checkpoint: opening model %q: %w", path, err)
		}
	}()
	keys := ggufKeys{f}
	if kind, _, err := keys.String("general.type"); err == nil && kind == "adapter" {
		return nil, errors.New("the file is an adapter, not a model; name it with --adapter")
	}
	embedding, ok := f.Tensor("token_embd.weight")
	if !ok || len(embedding.Dims) != 2 {
		if _, err := model.FromGGUF(keys, 1); errors.Is(err, model.ErrUnsupported) {
			return nil, err // the names of its tensors are others
		}
		return nil, errors.New(`tensor "token_embd.weight" (vocabulary, width) is missing`)
	}
	config, err := model.FromGGUF(keys, int(min(embedding.Dims[1], math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	vocab, err := readVocab(f)
	if err != nil {
		return nil, err
	}
	if vocab != nil {
		config.BOS, config.PAD = vocab.BOS, vocab.PAD
		if vocab.EOS >= 0 {
			config.EOS = []int{vocab.EOS}
		}
	}
	src, err := newGGUFSource(config, f)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Source: src, Form: GGUF, Path: path, closer: f}
	if parts := f.Paths(); len(parts) > 1 {
		c.Parts = parts
	}
	if err := readMeta(f, &c.Meta); err != nil {
		return nil, err
	}
	c.tok = onceTokenizer(path, func() (*tokenizer.Tokenizer, error) { return vocabTokenizer(vocab) })
	return c, nil
}

func vocabTokenizer(vocab *tokenizer.Vocab) (*tokenizer.Tokenizer, error) {
	if vocab == nil {
		return nil, fmt.Errorf("%w: the file has no tokenizer.ggml.tokens", ErrNoTokenizer)
	}
	return tokenizer.FromVocab(*vocab)
}

// OpenTokenizer reads the tokenizer of a model. A GGUF file may be of any architecture, or hold a
// vocabulary and no tensors.
func OpenTokenizer(path string) (*tokenizer.Tokenizer, error) {
	var magic [4]byte
	if err := readHead(path, magic[:]); err == nil && string(magic[:]) == "GGUF" {
		return onceTokenizer(path, func() (*tokenizer.Tokenizer, error) {
			f, err := gguf.OpenSet(path)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			vocab, err := readVocab(f)
			if err != nil {
				return nil, err
			}
			return vocabTokenizer(vocab)
		})()
	}
	c, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Tokenizer()
}

// ggufKeys adapts a file to model.GGUFSource.
type ggufKeys struct{ f *gguf.Set }

func (k ggufKeys) Uint32(key string) (uint32, bool, error)   { return gguf.Value[uint32](k.f, key) }
func (k ggufKeys) Float32(key string) (float32, bool, error) { return gguf.Value[float32](k.f, key) }
func (k ggufKeys) Bool(key string) (bool, bool, error)       { return gguf.Value[bool](k.f, key) }
func (k ggufKeys) String(key string) (string, bool, error)   { return gguf.Value[string](k.f, key) }
func (k ggufKeys) HasTensor(name string) bool                { _, ok := k.f.Tensor(name); return ok }

// Bools reads a list of flags, which may stand as numbers.
func (k ggufKeys) Bools(key string) ([]bool, error) {
	kv, ok := k.f.Get(key)
	if !ok {
		return nil, nil
	}
	var out []bool
	switch v := kv.Value.(type) {
	case []bool:
		out = v
	case []uint32:
		for _, n := range v {
			out = append(out, n != 0)
		}
	case []int32:
		for _, n := range v {
			out = append(out, n != 0)
		}
	}
	return out, nil
}

// Vector reads divisors of rotary frequencies.
func (k ggufKeys) Vector(name string) ([]float32, error) {
	t, ok := k.f.Tensor(name)
	if !ok {
		return nil, nil
	}
	if t.Type != gguf.F32 || t.Size > 1<<16 {
		return nil, fmt.Errorf("tensor %q is %s of %d bytes, not a short vector of F32", name, t.Type, t.Size)
	}
	data := make([]byte, t.Size)
	if err := k.f.ReadAt(t, data, 0); err != nil {
		return nil, err
	}
	out := make([]float32, len(data)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out, nil
}

func readMeta(f *gguf.Set, m *Meta) error {
	for _, field := range []struct {
		key string
		to  *string
	}{{"general.name", &m.Name}, {"general.license", &m.License}, {"tokenizer.chat_template", &m.ChatTemplate}} {
		v, _, err := gguf.Value[string](f, field.key)
		if err != nil {
			return err
		}
		*field.to = v
	}
	kind, _, _ := gguf.Value[string](f, "tokenizer.ggml.model") // of another type: readVocab has said so
	pre, _, _ := gguf.Value[string](f, "tokenizer.ggml.pre")
	m.Tokenizer = strings.TrimSpace(kind + " " + pre)
	var err error
	if m.Languages, _, err = gguf.Value[[]string](f, "general.languages"); err != nil {
		return err
	}
	for _, kv := range f.KVs() {
		if provenance(kv.Key) {
			m.Provenance = append(m.Provenance, kv)
		}
	}
	return nil
}

// provenance reports whether a key says where a model comes from or names further chat templates:
// nothing here depends on it, and a GGUF file written from this one keeps it.
func provenance(key string) bool {
	switch key {
	case "general.architecture", "general.type", "general.name", "general.license", "general.languages", "general.file_type",
		"general.quantization_version", "general.alignment":
		return false // written from what the output is
	}
	return strings.HasPrefix(key, "general.") || strings.HasPrefix(key, templatePrefix) || key == templateNames || tokenRole.MatchString(key)
}

// tokenRole is the keys of tokens whose roles the tokenizer here has no use for: the end of a turn, the
// parts of a text with a hole to fill, …
var tokenRole = regexp.MustCompile(`^tokenizer\.ggml\.((eot|eom|seperator|mask|cls|prefix|suffix|middle|fim_[a-z]+)_token_id|add_sep_token)$`)

// readVocab reads the tokenizer's keys, nil where the file has no vocabulary. Keys that it lacks
// stand for what llama.cpp takes them for.
func readVocab(f *gguf.Set) (*tokenizer.Vocab, error) {
	r := vocabReader{f: f}
	v := tokenizer.DefaultVocab(read(&r, "tokenizer.ggml.model", ""), read(&r, "tokenizer.ggml.pre", ""))
	v.Tokens = read[[]string](&r, "tokenizer.ggml.tokens", nil)
	v.Types, v.Merges = read[[]int32](&r, "tokenizer.ggml.token_type", nil), read[[]string](&r, "tokenizer.ggml.merges", nil)
	v.Scores = read[[]float32](&r, "tokenizer.ggml.scores", nil)
	v.BOS, v.EOS, v.UNK, v.PAD = r.id("bos", v.BOS, &v), r.id("eos", v.EOS, &v), r.id("unknown", v.UNK, &v), r.id("padding", v.PAD, &v)
	v.AddBOS, v.AddEOS = read(&r, "tokenizer.ggml.add_bos_token", v.AddBOS), read(&r, "tokenizer.ggml.add_eos_token", v.AddEOS)
	v.AddSpacePrefix = read(&r, "tokenizer.ggml.add_space_prefix", v.AddSpacePrefix)
	v.RemoveExtraWhitespaces = read(&r, "tokenizer.ggml.remove_extra_whitespaces", v.RemoveExtraWhitespaces)
	v.Charsmap = read[[]uint8](&r, "tokenizer.ggml.precompiled_charsmap", nil)
	v.Name = read(&r, "general.name", "")
	if r.err != nil {
		return nil, r.err
	}
	if v.Tokens == nil {
		return nil, nil
	}
	return &v, nil
}

// vocabReader keeps the first error, so that a vocabulary reads as a list of keys.
type vocabReader struct {
	f   *gguf.Set
	err error
}

func read[T gguf.Metadatum](r *vocabReader, key string, absent T) T {
	v, ok, err := gguf.Value[T](r.f, key)
	if err != nil && r.err == nil {
		r.err = err
	}
	if !ok {
		return absent
	}
	return v
}

// id returns a special token's id, the default where it is absent, −1 where that is beyond the
// vocabulary.
func (r *vocabReader) id(kind string, absent int, v *tokenizer.Vocab) int {
	key := "tokenizer.ggml." + kind + "_token_id"
	id, ok, err := gguf.Value[uint32](r.f, key)
	if err != nil && r.err == nil {
		r.err = err
	}
	switch {
	case ok:
		return int(id)
	case absent < len(v.Tokens):
		return absent
	}
	return -1
}

// ggufSource reads the tensors of a GGUF file under their Hugging Face names, rows in Hugging
// Face's order.
type ggufSource struct {
	config  *model.Config
	f       *gguf.Set
	tensors []Tensor
	stored  map[string]ggufTensor
	scratch sync.Pool
}

type ggufTensor struct {
	gguf.Tensor
	codec    quantize.Codec // nil where this version cannot decode the type
	rowBytes int64
	headRows int     // rows a head where the order differs, else 0
	offset   float32 // what the stored values are larger by, see model.Config.Offset
}

func newGGUFSource(c *model.Config, f *gguf.Set) (*ggufSource, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, err
	}
	s := &ggufSource{config: c, f: f, stored: map[string]ggufTensor{}}
	known := map[string]bool{}
	for name := range c.RopeDivisors() {
		known[name] = true
	}
	for _, p := range params {
		name, ok := c.GGUFName(p.Name)
		if !ok {
			return nil, fmt.Errorf("tensor %q has no name in GGUF", p.Name)
		}
		t, ok := f.Tensor(name)
		if !ok {
			return nil, fmt.Errorf("tensor %q %v is missing", name, p.Shape)
		}
		if !slices.Equal(reversed(t.Dims), p.Shape) {
			return nil, fmt.Errorf("tensor %q has shape %v, the metadata says %v", name, reversed(t.Dims), p.Shape)
		}
		codec, err := quantize.Lookup(t.Type.String())
		if err != nil && !errors.Is(err, quantize.ErrUnsupported) {
			return nil, err
		}
		st := ggufTensor{Tensor: t, codec: codec, rowBytes: t.Size / int64(p.Shape[0]), offset: c.Offset(p.Name)}
		if c.RowHeads(p.Name) > 0 {
			st.headRows = p.Shape[0] / c.RowHeads(p.Name)
		}
		known[name] = true
		s.stored[p.Name] = st
		s.tensors = append(s.tensors, Tensor{p.Name, p.Shape, t.Type.String()})
	}
	for _, t := range f.Tensors() {
		if !known[t.Name] {
			return nil, fmt.Errorf("tensor %q %v is not part of a %s model", t.Name, reversed(t.Dims), c.Arch)
		}
	}
	return s, nil
}

func reversed(dims []int64) []int {
	out := make([]int, len(dims))
	for i, d := range dims {
		out[len(dims)-1-i] = int(d)
	}
	return out
}

func (s *ggufSource) Config() *model.Config { return s.config }
func (s *ggufSource) Tensors() []Tensor     { return s.tensors }

func (s *ggufSource) StoredNames(name string) []string {
	if t, ok := s.stored[name]; ok {
		return []string{t.Name}
	}
	return nil
}

func (s *ggufSource) Rows(name string, lo, hi int, dst []float32) error {
	t, ok := s.stored[name]
	if !ok {
		return fmt.Errorf("checkpoint: reading tensor %q: %w: the model has none of that name", name, fs.ErrNotExist)
	}
	if t.codec == nil {
		_, err := quantize.Lookup(t.Type.String())
		return fmt.Errorf("checkpoint: reading tensor %q: %w", name, err)
	}
	buf := getScratch(&s.scratch, int(t.rowBytes)*(hi-lo))
	defer s.scratch.Put(buf)
	if err := s.raw(t, lo, hi, *buf); err != nil {
		return err
	}
	t.codec.Decode(dst, *buf)
	if t.offset != 0 {
		for i := range dst {
			dst[i] -= t.offset
		}
	}
	return nil
}

func (s *ggufSource) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	t, ok := s.stored[name]
	if !ok || t.offset != 0 { // the bytes are those of other values
		return false, nil
	}
	return true, s.raw(t, lo, hi, dst)
}

// raw reads rows [lo, hi), in Hugging Face's order, as stored.
func (s *ggufSource) raw(t ggufTensor, lo, hi int, dst []byte) error {
	if t.headRows == 0 {
		return s.f.ReadAt(t.Tensor, dst, int64(lo)*t.rowBytes)
	}
	// Whole heads are read and the wanted rows picked out of them.
	first, last := lo/t.headRows*t.headRows, min((hi+t.headRows-1)/t.headRows*t.headRows, int(t.Size/t.rowBytes))
	buf := getScratch(&s.scratch, int(t.rowBytes)*(last-first))
	defer s.scratch.Put(buf)
	if err := s.f.ReadAt(t.Tensor, *buf, int64(first)*t.rowBytes); err != nil {
		return err
	}
	for r := lo; r < hi; r++ {
		from := int64(ggufRow(r, t.headRows)-first) * t.rowBytes
		copy(dst[int64(r-lo)*t.rowBytes:][:t.rowBytes], (*buf)[from:])
	}
	return nil
}

// ggufRow returns where row r of a tensor in Hugging Face's order stands in a GGUF file: d rows a
// head, halves become neighbours.
func ggufRow(r, d int) int {
	head, i := r/d*d, r%d
	return head + 2*(i%(d/2)) + i/(d/2)
}
