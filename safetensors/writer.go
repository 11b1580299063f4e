package safetensors

// Writing one file: under a temporary name until all of it is there.

import (
	"fmt"

	"github.com/graftml/graft/internal/wholefile"
)

// Writer fills a planned file. Until [Writer.Commit] the file has a temporary name
// in the same folder, so that a reader sees all of it or nothing.
type Writer struct {
	path string
	file *wholefile.Planned
}

// Create begins the file at path with the layout's header. The caller writes each
// byte of each tensor once, in any order and from any goroutine, and then calls
// Commit; a deferred Close discards a file that was not committed.
func Create(path string, l *Layout) (*Writer, error) {
	sections := make([]wholefile.Section, len(l.Tensors))
	for i, t := range l.Tensors {
		sections[i] = wholefile.Section{Name: t.Name, Offset: l.Offset(t.Name), Size: t.Size()}
	}
	file, err := wholefile.CreatePlanned(path, l.Header, l.Size, sections, ErrLayout)
	if err != nil {
		return nil, fmt.Errorf("safetensors: creating %q: %w", path, err)
	}
	return &Writer{path, file}, nil
}

// Hash computes the file's SHA-256 while it is written. It is called before the first WriteAt.
func (w *Writer) Hash() { w.file.Hash() }

// SHA256 returns the hash of a committed file, in hexadecimal, "" where nobody asked for it.
func (w *Writer) SHA256() string { return w.file.SHA256() }

// WriteAt writes p to the named tensor's bytes that begin off bytes into it.
func (w *Writer) WriteAt(name string, p []byte, off int64) error {
	if err := w.file.WriteAt(name, p, off); err != nil {
		return fmt.Errorf("safetensors: writing %q: %w", name, err)
	}
	return nil
}

// Commit makes the file durable and gives it its name, replacing a file that has
// it. It fails, and discards the file, when a tensor was not written as often as
// it is long.
func (w *Writer) Commit() error {
	if err := w.file.Commit(); err != nil {
		return fmt.Errorf("safetensors: finishing %q: %w", w.path, err)
	}
	return nil
}

// CommitUnsynced is Commit for a caller that makes the file durable itself: a
// program that is killed leaves it whole, a machine that loses its power may not.
func (w *Writer) CommitUnsynced() error {
	if err := w.file.CommitUnsynced(); err != nil {
		return fmt.Errorf("safetensors: finishing %q: %w", w.path, err)
	}
	return nil
}

// Close discards the file unless it was committed.
func (w *Writer) Close() error {
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("safetensors: discarding %q: %w", w.path, err)
	}
	return nil
}

// TensorData is a tensor in memory: row-major, little-endian bytes.
type TensorData struct {
	Spec
	Data []byte
}

// Write writes a file of tensors that are in memory, adapters and the like: all of
// it or, on an error, nothing. For metadata see [Plan].
func Write(path string, tensors []TensorData, metadata map[string]string) error {
	specs := make([]Spec, len(tensors))
	for i, t := range tensors {
		specs[i] = t.Spec
	}
	l, err := Plan(specs, metadata)
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
