package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/tokenizer"
	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/quantize"
)

// ErrNoTokenizer is wrapped by errors about a model that comes without a tokenizer.
var ErrNoTokenizer = errors.New("the model has no tokenizer")

// Form is the format of a model on disk.
type Form string

// The forms a model is read from and written to.
const (
	GGUF        Form = "gguf"        // one file
	Safetensors Form = "safetensors" // a folder as Hugging Face lays it out
)

// Checkpoint is an opened model: its tensors and all that comes with them.
type Checkpoint struct {
	Source
	Form Form
	Path string // as given to Open
	// Parts are the paths of a GGUF model's files, where it is in several.
	Parts []string
	Meta  Meta

	blocks *sourceBlocks // of a folder: what its tensors were in GGUF; nil where it does not say
	closer io.Closer
	tok    func() (*tokenizer.Tokenizer, error)
}

// Meta is what a model carries beside its tensors and tokenizer.
type Meta struct {
	Name         string
	License      string    // SPDX identifier in lower case, as on a model card
	Languages    []string  // ISO 639-1
	ChatTemplate string    // Jinja source, "" where there is none
	Tokenizer    string    // its kind as the files call it ("gpt2 smollm", "LlamaTokenizer"), "" where they do not
	Generation   []byte    // generation_config.json, nil where there is none
	Provenance   []gguf.KV // further general.* keys of a GGUF file, named chat templates, and roles of tokens
	// Files are a folder's other small files by name (tokenizer.json, tokenizer_config.json, …), as
	// they are. A model read from GGUF has none.
	Files map[string][]byte
}

// Open opens the model at path: a GGUF file, or a folder with config.json and safetensors. Only
// headers and small files are read.
func Open(path string) (*Checkpoint, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model: %w", err)
	}
	if info.IsDir() {
		return openFolder(path)
	}
	named := filepath.Ext(path) == ".gguf" // what is wrong with its first bytes, the format says
	if info.Size() == 0 && !named {
		return nil, fmt.Errorf("checkpoint: opening model %q: the file is empty", path)
	}
	var magic [4]byte
	if err := readHead(path, magic[:]); err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", path, err)
	}
	if string(magic[:]) == "GGUF" || named {
		return openGGUF(path)
	}
	if filepath.Ext(path) == ".safetensors" {
		return nil, fmt.Errorf("checkpoint: opening model %q: one safetensors file is not a model; give the folder that also holds its config.json", path)
	}
	return nil, fmt.Errorf("checkpoint: opening model %q: neither a GGUF file nor a folder of safetensors (it begins with % x)", path, magic)
}

func readHead(path string, p []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.ReadFull(f, p); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}

// Tokenizer returns the model's tokenizer, read at the first call. The error wraps ErrNoTokenizer
// where the model has none.
func (c *Checkpoint) Tokenizer() (*tokenizer.Tokenizer, error) { return c.tok() }

// Close closes the model's files.
func (c *Checkpoint) Close() error {
	var errs []error
	if c.blocks != nil {
		errs = append(errs, c.blocks.file.Close())
	}
	if c.closer != nil {
		errs = append(errs, c.closer.Close())
	}
	return errors.Join(errs...)
}

// RawRows and Packed4 are those of the source, where it has them: a Checkpoint is all that its source is.
func (c *Checkpoint) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	if r, ok := c.Source.(Raw); ok {
		return r.RawRows(name, lo, hi, dst)
	}
	return false, nil
}

// Packed4 returns a tensor as it is stored in 4 bits; see RawRows.
func (c *Checkpoint) Packed4(name string) (*quantize.Tensor4, error) { return packed4(c.Source, name) }

// Scales4 returns a 4-bit tensor without its codes, and Codes4 reads them; see RawRows.
func (c *Checkpoint) Scales4(name string) (*quantize.Tensor4, error) { return scales4(c.Source, name) }

// Codes4 reads the packed codes of a 4-bit tensor.
func (c *Checkpoint) Codes4(name string, dst []byte, off int64) error {
	return c.Source.(Scales4).Codes4(name, dst, off)
}

// With returns the checkpoint with its tensors replaced by src, a wrapper around them.
func (c *Checkpoint) With(src Source) *Checkpoint {
	out := *c
	out.Source = src
	return &out
}

// onceTokenizer defers reading a tokenizer until somebody asks.
func onceTokenizer(path string, read func() (*tokenizer.Tokenizer, error)) func() (*tokenizer.Tokenizer, error) {
	return sync.OnceValues(func() (*tokenizer.Tokenizer, error) {
		t, err := read()
		if err != nil {
			return nil, fmt.Errorf("checkpoint: reading the tokenizer of %q: %w", path, err)
		}
		return t, nil
	})
}

// maxSmallFile bounds what is read whole into memory: the largest tokenizer.json published is
// about 33 MB.
const maxSmallFile = 256 << 20

var errTooLarge = errors.New("too large to read whole")

// readSmall reads a file of a model folder, nil where it is absent or empty.
func readSmall(dir, name string) ([]byte, error) {
	data, err := wholefile.ReadFile(filepath.Join(dir, name), maxSmallFile, errTooLarge)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(data) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: opening model %q: %w", dir, err)
	}
	return data, nil
}
