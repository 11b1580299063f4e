package checkpoint

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/tokenizer"
)

func sortedKeys[V any](m map[int]V) []int { return slices.Sorted(maps.Keys(m)) }

// fileTypes are general.file_type's numbers for files mostly of one codec.
var fileTypes = map[string]uint32{"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q6_K": 18, "BF16": 32}

// gguf writes a GGUF file, or several where the model is to be in parts.
func (w *writing) gguf(out string) (err error) {
	parts, err := w.ggufParts(out)
	if err != nil {
		return err
	}
	owner, place := map[string]tensorWriter{}, map[string]int{}
	var files []*gguf.Writer
	for _, p := range parts {
		path := filepath.Join(filepath.Dir(out), p.Name)
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%w: %s", ErrExists, p.Name)
		}
		file, err := gguf.Create(path, p.Layout)
		if err != nil {
			return err
		}
		defer file.Close()
		w.begin(file)
		files = append(files, file)
		for _, t := range p.Layout.Tensors {
			owner[t.Name], place[t.Name] = file, len(place)
		}
	}
	for name, values := range w.c.Config().RopeDivisors() {
		data := make([]byte, 0, 4*len(values))
		for _, d := range values {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(d))
		}
		if err := owner[name].WriteAt(name, data, 0); err != nil {
			return err
		}
	}
	var tasks []*task
	for _, t := range w.tensors {
		name, _ := w.c.Config().GGUFName(t.Name)
		tasks = append(tasks, w.plain(t, name, owner[name], place[name]))
	}
	if err := w.run(tasks); err != nil {
		return err
	}
	for i, file := range files {
		if err := w.commit(file, parts[i].Name); err != nil {
			for _, p := range parts[:i] { // a model without all its parts is none
				os.Remove(filepath.Join(filepath.Dir(out), p.Name))
			}
			return err
		}
	}
	return nil
}

// ggufParts plans the file at out, or the parts beside it.
func (w *writing) ggufParts(out string) ([]gguf.Part, error) {
	if err := w.c.Config().CheckGGUF(); err != nil {
		return nil, err
	}
	keys, err := w.ggufKeys()
	if err != nil {
		return nil, err
	}
	var specs []gguf.Spec
	divisors := w.c.Config().RopeDivisors()
	for _, name := range slices.Sorted(maps.Keys(divisors)) { // extra tensors come first, as in llama.cpp's files
		specs = append(specs, gguf.Spec{Name: name, Dims: []int64{int64(len(divisors[name]))}, Type: gguf.F32})
	}
	for _, t := range w.tensors {
		name, ok := w.c.Config().GGUFName(t.Name)
		if !ok {
			return nil, fmt.Errorf("tensor %q has no name in GGUF", t.Name)
		}
		typ, err := gguf.ParseType(t.Codec)
		if err != nil {
			return nil, err
		}
		dims := make([]int64, len(t.Shape))
		for j, d := range t.Shape {
			dims[len(dims)-1-j] = int64(d)
		}
		specs = append(specs, gguf.Spec{Name: name, Dims: dims, Type: typ})
	}
	limit := w.o.ShardSize
	if limit <= 0 {
		limit = math.MaxInt64
	}
	parts, err := gguf.PlanParts(keys, specs, limit, strings.TrimSuffix(filepath.Base(out), ".gguf"))
	if len(parts) == 1 {
		parts[0].Name = filepath.Base(out) // with whatever ending it has
	}
	return parts, err
}

// ggufKeys builds the metadata: what the model is, its shape, its tokenizer.
func (w *writing) ggufKeys() ([]gguf.KV, error) {
	m := w.c.Meta
	var keys []gguf.KV
	shape := w.c.Config().GGUFKeys()
	keys = append(keys, gguf.Entry("general.architecture", shape[0].Value.(string)), gguf.Entry("general.type", "model"))
	if m.Name != "" {
		keys = append(keys, gguf.Entry("general.name", m.Name))
	}
	if m.License != "" {
		keys = append(keys, gguf.Entry("general.license", m.License))
	}
	if len(m.Languages) > 0 {
		keys = append(keys, gguf.Entry("general.languages", m.Languages))
	}
	keys = append(keys, m.Provenance...)
	if !slices.ContainsFunc(m.Provenance, func(kv gguf.KV) bool { return kv.Key == "general.size_label" }) {
		keys = append(keys, gguf.Entry("general.size_label", sizeLabel(w.total)))
	}
	for _, k := range shape[1:] {
		switch v := k.Value.(type) {
		case uint32:
			keys = append(keys, gguf.Entry(k.Name, v))
		case float32:
			keys = append(keys, gguf.Entry(k.Name, v))
		case string:
			keys = append(keys, gguf.Entry(k.Name, v))
		case []bool:
			keys = append(keys, gguf.Entry(k.Name, v))
		default:
			panic(fmt.Sprintf("checkpoint: internal error: key %s of type %T", k.Name, v))
		}
	}
	if ft, ok := w.fileType(); ok {
		keys = append(keys, gguf.Entry("general.file_type", ft))
	}
	keys = append(keys, gguf.Entry("general.quantization_version", uint32(2)))
	keys = append(keys, w.importanceKeys()...)
	tok, err := w.c.Tokenizer()
	if err != nil {
		return nil, err
	}
	vocab, err := tok.VocabAs(w.o.Pre)
	if err != nil {
		return nil, err
	}
	if err := w.applySpecials(&vocab); err != nil {
		return nil, err
	}
	keys = append(keys, vocabKeys(vocab, w.c.Config().Vocab)...)
	if m.ChatTemplate != "" {
		keys = append(keys, gguf.Entry("tokenizer.chat_template", m.ChatTemplate))
	}
	return keys, nil
}

// mainCodec returns the codec that holds most of the bytes.
func (w *writing) mainCodec() string {
	bytes := map[string]int64{}
	for _, t := range w.tensors {
		bytes[t.Codec] += t.rowBytes * int64(t.Shape[0])
	}
	best := ""
	for _, codec := range slices.Sorted(maps.Keys(bytes)) {
		if best == "" || bytes[codec] > bytes[best] {
			best = codec
		}
	}
	return best
}

// applySpecials lets the configuration's token ids stand where the tokenizer itself names none.
func (w *writing) applySpecials(v *tokenizer.Vocab) error {
	c := w.c.Config()
	if v.BOS < 0 {
		v.BOS = c.BOS
	}
	if v.EOS < 0 && len(c.EOS) > 0 {
		v.EOS = c.EOS[0]
	}
	if v.PAD < 0 {
		v.PAD = c.PAD
	}
	if c.Arch == "gemma3_text" && len(v.Tokens) > c.Vocab {
		// The tokenizer has a token for pictures, one past the rows of a model that sees none.
		v.Tokens, v.Types, v.Scores = v.Tokens[:c.Vocab], v.Types[:min(len(v.Types), c.Vocab)], v.Scores[:min(len(v.Scores), c.Vocab)]
	}
	if len(v.Tokens) > c.Vocab {
		return fmt.Errorf("the tokenizer has %d tokens, the embedding table %d rows", len(v.Tokens), c.Vocab)
	}
	return nil
}

// vocabKeys writes a vocabulary's keys, padded to the rows of the embedding table as llama.cpp
// requires.
func vocabKeys(v tokenizer.Vocab, rows int) []gguf.KV {
	v.Tokens, v.Types, v.Scores = slices.Clone(v.Tokens), slices.Clone(v.Types), slices.Clone(v.Scores)
	if v.Types == nil {
		v.Types = slices.Repeat([]int32{tokenizer.TypeNormal}, len(v.Tokens))
	}
	v.Pad(rows)
	keys := []gguf.KV{
		gguf.Entry("tokenizer.ggml.model", v.Model),
		gguf.Entry("tokenizer.ggml.pre", v.Pre),
		gguf.Entry("tokenizer.ggml.tokens", v.Tokens),
		gguf.Entry("tokenizer.ggml.token_type", v.Types),
	}
	if len(v.Merges) > 0 {
		keys = append(keys, gguf.Entry("tokenizer.ggml.merges", v.Merges))
	}
	if len(v.Scores) > 0 {
		keys = append(keys, gguf.Entry("tokenizer.ggml.scores", v.Scores))
	}
	if len(v.Charsmap) > 0 {
		keys = append(keys, gguf.Entry("tokenizer.ggml.precompiled_charsmap", v.Charsmap))
	}
	if v.RemoveExtraWhitespaces {
		keys = append(keys, gguf.Entry("tokenizer.ggml.remove_extra_whitespaces", true))
	}
	for _, id := range []struct {
		kind string
		id   int
	}{{"bos", v.BOS}, {"eos", v.EOS}, {"unknown", v.UNK}, {"padding", v.PAD}} {
		if id.id >= 0 {
			keys = append(keys, gguf.Entry("tokenizer.ggml."+id.kind+"_token_id", uint32(id.id)))
		}
	}
	return append(keys, gguf.Entry("tokenizer.ggml.add_bos_token", v.AddBOS), gguf.Entry("tokenizer.ggml.add_eos_token", v.AddEOS),
		gguf.Entry("tokenizer.ggml.add_space_prefix", v.AddSpacePrefix))
}
