package gguf

// Writing one file: under a temporary name until all of it is there.

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
)

// Writer fills a planned file. Until [Writer.Commit] the file has a temporary name
// in the same folder, so that a reader sees all of it or nothing.
type Writer struct {
	layout  *Layout
	path    string
	temp    *os.File
	written []atomic.Int64 // bytes a tensor, parallel to layout.Tensors
	done    bool
}

// Create begins the file at path with the layout's header. The caller writes each
// byte of each tensor once, in any order and from any goroutine, and then calls
// Commit; a deferred Close discards a file that was not committed.
func Create(path string, l *Layout) (*Writer, error) {
	temp, err := createTemp(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: creating %q: %w", path, err)
	}
	w := &Writer{layout: l, path: path, temp: temp, written: make([]atomic.Int64, len(l.Tensors))}
	if err = l.WriteHeader(temp); err == nil {
		err = temp.Truncate(l.Size)
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("gguf: creating %q: %w", path, err)
	}
	return w, nil
}

// createTemp creates a new file next to path, with the permissions that path
// itself would be created with.
func createTemp(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for {
		name := filepath.Join(dir, fmt.Sprintf(".%s.%08x.tmp", base, rand.Uint32()))
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// WriteAt writes p to the named tensor's bytes that begin off bytes into it.
func (w *Writer) WriteAt(name string, p []byte, off int64) error {
	i, ok := w.layout.byName[name]
	if !ok {
		return fmt.Errorf("gguf: writing %q: %w: the plan has no such tensor", name, ErrLayout)
	}
	size := w.layout.Tensors[i].Size
	if off < 0 || off > size || int64(len(p)) > size-off {
		return fmt.Errorf("gguf: writing %q: %w: bytes %d to %d of a tensor of %d", name, ErrLayout, off, off+int64(len(p)), size)
	}
	if _, err := w.temp.WriteAt(p, w.layout.Offset(name)+off); err != nil {
		return fmt.Errorf("gguf: writing %q: %w", name, err)
	}
	w.written[i].Add(int64(len(p)))
	return nil
}

// Commit makes the file durable and gives it its name, replacing a file that has
// it. It fails, and discards the file, when a tensor was not written as often as
// it is long.
func (w *Writer) Commit() error {
	defer w.Close()
	for i, t := range w.layout.Tensors {
		if n := w.written[i].Load(); n != t.Size {
			return fmt.Errorf("gguf: finishing %q: %w: %d bytes were written to tensor %q of %d", w.path, ErrLayout, n, t.Name, t.Size)
		}
	}
	err := w.temp.Sync()
	if closeErr := w.temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(w.temp.Name(), w.path)
	}
	if err != nil {
		return fmt.Errorf("gguf: finishing %q: %w", w.path, err)
	}
	w.done = true
	syncFolder(filepath.Dir(w.path))
	return nil
}

// syncFolder makes a rename durable where the system lets a folder be synced; the
// file is complete either way, so that a failure only weakens durability.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

// Close discards the file unless it was committed.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	w.temp.Close() // already closed where Commit failed
	if err := os.Remove(w.temp.Name()); err != nil {
		return fmt.Errorf("gguf: discarding %q: %w", w.path, err)
	}
	return nil
}

// TensorData is a tensor in memory: its blocks, the contiguous dimension first.
type TensorData struct {
	Spec
	Data []byte
}

// Write writes a file of metadata and tensors that are in memory: all of it or, on
// an error, nothing.
func Write(path string, kvs []KV, tensors []TensorData) error {
	specs := make([]Spec, len(tensors))
	for i, t := range tensors {
		specs[i] = t.Spec
	}
	l, err := Plan(kvs, specs)
	if err != nil {
		return err
	}
	w, err := Create(path, l)
	if err != nil {
		return err
	}
	defer w.Close()
	for _, t := range tensors {
		if err := w.WriteAt(t.Name, t.Data, 0); err != nil {
			return err
		}
	}
	return w.Commit()
}
