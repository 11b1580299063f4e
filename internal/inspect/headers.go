package inspect

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// stored is a tensor as a file's header lists it.
type stored struct {
	name   string
	shape  []int
	typ    string
	bytes  int64
	file   string // in the folder
	offset int64  // in the file
	read   func(p []byte, off int64) error
}

// headers are the tensors of a path as its files list them, whatever they mean.
type headers struct {
	form    string
	files   []string
	tensors []*stored
	byName  map[string]*stored
	gguf    *gguf.Set // nil where it is not a GGUF model
	meta    map[string]string
	closers []io.Closer
}

func (h *headers) Close() {
	for _, c := range h.closers {
		c.Close()
	}
}

func (h *headers) add(s *stored) error {
	if h.byName[s.name] != nil {
		return fmt.Errorf("tensor %q is in both %s and %s", s.name, h.byName[s.name].file, s.file)
	}
	h.tensors, h.byName[s.name] = append(h.tensors, s), s
	return nil
}

// openHeaders opens a folder of safetensors, a safetensors file or a GGUF file with its other parts.
func openHeaders(path string) (_ *headers, err error) {
	h := &headers{byName: map[string]*stored{}}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	kind, err := recognise(path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "folder":
		return h, h.openFolder(path)
	case "gguf":
		return h, h.openGGUF(path)
	case "safetensors":
		return h, h.openFile(path)
	}
	return nil, fmt.Errorf("inspect: opening %q: neither a GGUF file, nor a safetensors file, nor a folder of them", path)
}

// recognise tells what a path is by its first bytes: "folder", "gguf", "safetensors", or "" for anything else.
func recognise(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("inspect: opening: %w", err)
	}
	if info.IsDir() {
		return "folder", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("inspect: opening: %w", err)
	}
	defer f.Close()
	var head [9]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("inspect: opening %q: %w", path, err)
	}
	switch ext := filepath.Ext(path); {
	case n >= 4 && string(head[:4]) == "GGUF" || ext == ".gguf":
		return "gguf", nil
	case n == 9 && head[8] == '{' && head[7] == 0 && head[6] == 0 || ext == ".safetensors":
		return "safetensors", nil
	case n == 0:
		return "", fmt.Errorf("inspect: opening %q: the file is empty", path)
	}
	return "", nil
}

func (h *headers) openFolder(dir string) error {
	if peftFolder(dir) != "" {
		if adapters.IsMLX(dir) {
			return h.openFile(filepath.Join(dir, mlxWeightsFile))
		}
		return h.openFile(filepath.Join(dir, peftWeightsFile))
	}
	set, err := safetensors.OpenFolder(dir)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	h.form, h.files, h.meta, h.closers = "safetensors", set.Files(), set.Metadata(), []io.Closer{set}
	for _, t := range set.Tensors() {
		file, offset, _ := set.Place(t.Name)
		if err := h.add(&stored{name: t.Name, shape: t.Shape, typ: string(t.DType), bytes: t.Size(), file: file, offset: offset,
			read: func(p []byte, off int64) error { return set.ReadAt(t.Name, p, off) }}); err != nil {
			return err
		}
	}
	return nil
}

func (h *headers) openFile(path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	h.form, h.files, h.meta, h.closers = "safetensors", []string{filepath.Base(path)}, f.Metadata(), []io.Closer{f}
	for _, t := range f.Tensors() {
		if err := h.add(&stored{name: t.Name, shape: t.Shape, typ: string(t.DType), bytes: t.Size(), file: h.files[0], offset: f.DataOffset() + t.Begin,
			read: func(p []byte, off int64) error { return f.ReadAt(t, p, off) }}); err != nil {
			return err
		}
	}
	return nil
}

func (h *headers) openGGUF(path string) error {
	set, err := gguf.OpenSet(path)
	if err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	h.form, h.gguf, h.closers = "gguf", set, []io.Closer{set}
	for _, path := range set.Paths() {
		h.files = append(h.files, filepath.Base(path))
	}
	for _, t := range set.Tensors() {
		shape := make([]int, len(t.Dims))
		for i, d := range t.Dims {
			shape[len(shape)-1-i] = int(d)
		}
		file, offset := set.Place(t)
		if err := h.add(&stored{name: t.Name, shape: shape, typ: t.Type.String(), bytes: t.Size, file: filepath.Base(file), offset: offset,
			read: func(p []byte, off int64) error { return set.ReadAt(t, p, off) }}); err != nil {
			return fmt.Errorf("inspect: opening %q: %w", path, err)
		}
	}
	return nil
}

// values reads the values [lo, lo+len(dst)) of a tensor; lo is at the beginning of a block.
func (s *stored) values(codec quantize.Codec, scratch *[]byte, dst []float32, lo int64) error {
	elems, size := codec.Block()
	n := len(dst) / elems * size
	if cap(*scratch) < n {
		*scratch = make([]byte, n)
	}
	buf := (*scratch)[:n]
	if err := s.read(buf, lo/int64(elems)*int64(size)); err != nil {
		return err
	}
	codec.Decode(dst, buf)
	return nil
}

// rowsOf is a shape as rows of the last dimension; (0, 0) where it holds nothing.
func rowsOf(shape []int) (rows, cols int) {
	if len(shape) == 0 {
		return 1, 1
	}
	rows, cols = 1, shape[len(shape)-1]
	for _, d := range shape[:len(shape)-1] {
		rows *= d // no overflow: the tensor's bytes are in a file
	}
	if cols == 0 || rows == 0 || rows > math.MaxInt/cols {
		return 0, 0
	}
	return rows, cols
}
