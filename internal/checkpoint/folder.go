package checkpoint

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

const (
	configFile = "config.json"
	cardFile   = "README.md"
	modelFile  = "model.safetensors"
)

// folderFiles are the small files of a Hugging Face folder that travel with a model.
var folderFiles = []string{"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"generation_config.json", "chat_template.jinja", cardFile, "LICENSE"}

// FolderNames lists the files, and the folder of further chat templates, that a folder written by Write with
// one file of tensors may have.
func FolderNames() []string {
	return slices.Concat(folderFiles, []string{modelFile, configFile, BlocksFile, templatesFolder})
}

func openFolder(dir string) (_ *Checkpoint, err error) {
	raw, err := readSmall(dir, configFile)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: the folder has no config.json", dir)
	}
	config, err := model.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: config.json: %w", dir, err)
	}
	set, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", dir, err)
	}
	defer func() {
		if err != nil {
			set.Close()
		}
	}()
	src, err := newFolderSource(config, set)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", dir, err)
	}
	blocks, err := openBlocks(dir, src.tensors)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", dir, err)
	}
	defer func() {
		if err != nil && blocks != nil {
			blocks.file.Close()
		}
	}()
	meta := Meta{Files: map[string][]byte{}}
	for _, name := range folderFiles {
		data, err := readSmall(dir, name)
		if err != nil {
			return nil, err
		}
		if data != nil {
			meta.Files[name] = data
		}
	}
	meta.Generation = meta.Files["generation_config.json"]
	if err := readTemplates(dir, meta.Files); err != nil {
		return nil, err
	}
	if meta.ChatTemplate, err = FolderTemplate(meta.Files); err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", dir, err)
	}
	var class struct {
		Name string `json:"tokenizer_class"`
	}
	_ = json.Unmarshal(meta.Files["tokenizer_config.json"], &class) // not a string: no name
	meta.Tokenizer = class.Name
	readCard(meta.Files[cardFile], &meta)
	meta.Provenance = append(meta.Provenance, templateKeys(meta.Files)...)
	if meta.Name == "" {
		meta.Name = folderName(dir, config.Key("_name_or_path"))
	}
	readSampling(meta.Generation, &meta)
	c := &Checkpoint{Source: src, Form: Safetensors, Path: dir, Meta: meta, blocks: blocks, closer: set}
	c.tok = onceTokenizer(dir, func() (*tokenizer.Tokenizer, error) { return FolderTokenizer(meta.Files) })
	return c, nil
}

// FolderTokenizer reads the tokenizer of a folder, of which these are the small files by name. It fails with
// ErrNoTokenizer where there is none.
func FolderTokenizer(files map[string][]byte) (*tokenizer.Tokenizer, error) {
	config := files["tokenizer_config.json"]
	var t *tokenizer.Tokenizer
	var err error
	if data := files["tokenizer.json"]; data != nil {
		t, err = tokenizer.ParseJSON(data)
	} else if data := files["tokenizer.model"]; data != nil {
		t, err = tokenizer.ParseSentencePiece(data, config)
	} else {
		return nil, fmt.Errorf("%w: the folder has no tokenizer.json and no tokenizer.model", ErrNoTokenizer)
	}
	if err != nil || config == nil {
		return t, err
	}
	return t.WithConfig(config)
}

// FolderTemplate finds the chat template where transformers looks: chat_template.jinja, else
// tokenizer_config.json, where a list of named templates may stand.
func FolderTemplate(files map[string][]byte) (string, error) {
	if t := files["chat_template.jinja"]; t != nil {
		return string(t), nil
	}
	config := files["tokenizer_config.json"]
	if config == nil {
		return "", nil
	}
	var one struct {
		Template any `json:"chat_template"`
	}
	if err := json.Unmarshal(config, &one); err != nil {
		return "", fmt.Errorf("tokenizer_config.json: %w", err)
	}
	switch t := one.Template.(type) {
	case string:
		return t, nil
	case []any:
		for _, entry := range t {
			if m, ok := entry.(map[string]any); ok && m["name"] == "default" {
				s, _ := m["template"].(string)
				return s, nil
			}
		}
	}
	return "", nil
}

// folderSource reads the tensors of a Hugging Face folder.
type folderSource struct {
	config  *model.Config
	set     *safetensors.Set
	tensors []Tensor
	codecs  map[string]quantize.Codec // of the tensors stored as numbers
	params  map[string]model.Param    // of the tensors stored in 4 bits
	scales  map[string]*scales        // of the tensors stored in 8 bits
	packed  map[string]*packed        // the tensors stored in words
	stored  map[string]string         // names in the files of those not in words
	parts   map[string][]string       // names in the files of what makes up each, its numbers first
	recent  recent
	scratch sync.Pool
}

// recent keeps the scales of the 4-bit tensors read last, so that reading one in pieces loads them once,
// and so that those of a model read from end to end do not stay in memory.
type recent struct {
	sync.Mutex
	names   [4]string
	tensors [4]*quantize.Tensor4
	next    int
}

func (r *recent) get(name string, load func() (*quantize.Tensor4, error)) (*quantize.Tensor4, error) {
	r.Lock()
	defer r.Unlock()
	for i, n := range r.names {
		if n == name && r.tensors[i] != nil {
			return r.tensors[i], nil
		}
	}
	t, err := load()
	if err != nil {
		return nil, err
	}
	r.names[r.next], r.tensors[r.next] = name, t
	r.next = (r.next + 1) % len(r.names)
	return t, nil
}

func newFolderSource(c *model.Config, set *safetensors.Set) (*folderSource, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return nil, err
	}
	s := &folderSource{config: c, set: set, codecs: map[string]quantize.Codec{}, params: map[string]model.Param{}, scales: map[string]*scales{}, packed: map[string]*packed{}, stored: map[string]string{}, parts: map[string][]string{}}
	quantization := parseQuantization(c)
	known := map[string]bool{}
	for _, p := range params {
		claim := func(names ...string) {
			for _, name := range names {
				if !known[name] {
					s.parts[p.Name] = append(s.parts[p.Name], name)
				}
				known[name] = true
			}
		}
		t, ok := s.find(p.Name)
		if !ok {
			words, beside, err := s.packedOf(p, quantization)
			if err != nil {
				return nil, err
			}
			if words != nil {
				s.packed[p.Name] = words
				s.tensors = append(s.tensors, Tensor{p.Name, p.Shape, words.codec()})
				claim(words.codes.Name)
				claim(beside...)
				continue
			}
			if err := s.packedBy(p.Name, quantization); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("tensor %q %v is missing", p.Name, p.Shape)
		}
		claim(t.Name)
		codec := string(t.DType)
		if kind, ok := fourBit(set, t.Name); ok {
			codec = strings.ToUpper(kind)
			s.params[p.Name] = p
			for _, suffix := range []string{"absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__" + kind} {
				if _, ok := set.Tensor(t.Name + "." + suffix); ok {
					claim(t.Name + "." + suffix)
				}
			}
		} else {
			if !slices.Equal(t.Shape, p.Shape) {
				return nil, fmt.Errorf("tensor %q has shape %v, the configuration says %v", p.Name, t.Shape, p.Shape)
			}
			if s.codecs[p.Name], err = quantize.Lookup(codec); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", p.Name, err)
			}
			if t.DType.Bits() == 8 {
				scales, beside, err := s.scalesOf(t, p, quantization.tileSides())
				if err != nil {
					return nil, err
				}
				if scales == nil && t.DType == safetensors.I8 {
					return nil, fmt.Errorf("tensor %q: whole numbers without a scale beside them (%s) are no weights: %w", p.Name, scaleSCB, quantize.ErrUnsupported)
				}
				if scales != nil {
					s.scales[p.Name] = scales
				}
				if t.DType == safetensors.I8 {
					codec = "INT8" // not the whole numbers that GGUF calls I8
				}
				claim(beside...)
			}
		}
		s.tensors = append(s.tensors, Tensor{p.Name, p.Shape, codec})
	}
	for _, t := range set.Tensors() {
		if !known[t.Name] && !ignorable(c, t.Name) {
			return nil, fmt.Errorf("tensor %q %v is not part of a %s model", t.Name, t.Shape, c.Arch)
		}
	}
	return s, nil
}

// ignorable reports whether a tensor may stand in a checkpoint without a meaning: buffers that old
// writers saved, and the head of a model whose head is its embedding table.
func ignorable(c *model.Config, name string) bool {
	return strings.HasSuffix(name, ".rotary_emb.inv_freq") || strings.HasSuffix(name, ".attention.masked_bias") ||
		c.Tied && slices.Contains(c.FolderNames("lm_head.weight"), name) || c.Foreign(name)
}

// find returns a parameter's tensor under whichever of its names the files have.
func (s *folderSource) find(name string) (safetensors.Tensor, bool) {
	for _, n := range s.config.FolderNames(name) {
		if t, ok := s.set.Tensor(n); ok {
			s.stored[name] = n
			return t, true
		}
	}
	return safetensors.Tensor{}, false
}

// fourBit reports whether a weight is stored in bitsandbytes' 4-bit form, and which.
func fourBit(set *safetensors.Set, name string) (kind string, ok bool) {
	for _, kind := range []string{"nf4", "fp4"} {
		if _, ok := set.Tensor(name + ".quant_state.bitsandbytes__" + kind); ok {
			return kind, true
		}
	}
	return "", false
}

// saved reads one of the tensors that bitsandbytes saves.
func (s *folderSource) saved(name string) (string, []int, []byte, bool, error) {
	t, ok := s.set.Tensor(name)
	if !ok {
		return "", nil, nil, false, nil
	}
	data := make([]byte, t.Size())
	return string(t.DType), t.Shape, data, true, s.set.ReadAt(name, data, 0)
}

// checked refuses a 4-bit tensor of another shape than the configuration says.
func checked(q *quantize.Tensor4, err error, p model.Param) (*quantize.Tensor4, error) {
	if err == nil && !slices.Equal(q.Shape, p.Shape) {
		return nil, fmt.Errorf("tensor %q has shape %v, the configuration says %v", p.Name, q.Shape, p.Shape)
	}
	return q, err
}

func (s *folderSource) Config() *model.Config            { return s.config }
func (s *folderSource) Tensors() []Tensor                { return s.tensors }
func (s *folderSource) StoredNames(name string) []string { return s.parts[name] }

func (s *folderSource) Packed4(name string) (*quantize.Tensor4, error) {
	p, ok := s.params[name]
	if !ok {
		return nil, nil
	}
	q, err := quantize.Load4(s.stored[name], s.saved)
	return checked(q, err, p)
}

func (s *folderSource) Scales4(name string) (*quantize.Tensor4, error) {
	p, ok := s.params[name]
	if !ok {
		return nil, nil
	}
	return s.recent.get(name, func() (*quantize.Tensor4, error) {
		t, _ := s.set.Tensor(s.stored[name])
		q, err := quantize.Load4Scales(t.Name, t.Size(), s.saved)
		return checked(q, err, p)
	})
}

func (s *folderSource) Codes4(name string, dst []byte, off int64) error {
	return s.set.ReadAt(s.stored[name], dst, off)
}

func (s *folderSource) Rows(name string, lo, hi int, dst []float32) error {
	q, err := s.Scales4(name)
	if err != nil {
		return err
	}
	if q != nil {
		off, n := q.CodesOf(lo, hi)
		buf := getScratch(&s.scratch, n)
		defer s.scratch.Put(buf)
		if err := s.Codes4(name, *buf, off); err != nil {
			return err
		}
		q.DecodeRowsFrom(dst, *buf, lo, hi)
		return nil
	}
	if p := s.packed[name]; p != nil {
		return s.packedRows(p, lo, hi, dst)
	}
	codec := s.codecs[name]
	if codec == nil {
		return fmt.Errorf("checkpoint: reading tensor %q: the model has none of that name", name)
	}
	_, size := codec.Block()
	buf := getScratch(&s.scratch, len(dst)*size)
	defer s.scratch.Put(buf)
	if err := s.set.ReadAt(s.stored[name], *buf, int64(lo)*int64(len(*buf)/max(1, hi-lo))); err != nil {
		return err
	}
	codec.Decode(dst, *buf)
	if scales := s.scales[name]; scales != nil && hi > lo {
		scales.apply(dst, lo, len(dst)/(hi-lo))
	}
	return nil
}

func (s *folderSource) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	if s.codecs[name] == nil || s.scales[name] != nil {
		return false, nil
	}
	return true, s.set.ReadAt(s.stored[name], dst, int64(lo)*int64(len(dst)/max(1, hi-lo)))
}

// getScratch takes a buffer of n bytes out of a pool.
func getScratch(pool *sync.Pool, n int) *[]byte {
	b, _ := pool.Get().(*[]byte)
	if b == nil {
		b = new([]byte)
	}
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}
