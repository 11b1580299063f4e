package wholefile

import (
	"fmt"
	"sync/atomic"
)

// Section is a stretch of a planned file that its caller fills: a tensor.
type Section struct {
	Name         string
	Offset, Size int64 // in bytes, from the file's first
}

// Planned is a file of known size being written: a header, and sections that are
// filled in any order. WriteAt may be called from several goroutines at once.
type Planned struct {
	file     *File
	sections []Section
	byName   map[string]int
	written  []atomic.Int64 // bytes, parallel to sections
	invalid  error
}

// CreatePlanned begins the file of size bytes at path as [Create] does, and writes
// its header. The sections, whose names differ, lie inside the file; bytes outside
// them are zero. Errors about what was not planned wrap invalid.
func CreatePlanned(path string, header []byte, size int64, sections []Section, invalid error) (*Planned, error) {
	file, err := Create(path)
	if err != nil {
		return nil, err
	}
	w := &Planned{file: file, sections: sections, byName: make(map[string]int, len(sections)), written: make([]atomic.Int64, len(sections)), invalid: invalid}
	for i, s := range sections {
		w.byName[s.Name] = i
	}
	if _, err = file.WriteAt(header, 0); err == nil {
		err = file.temp.Truncate(size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return w, nil
}

// WriteAt writes p to the named section's bytes that begin off bytes into it.
func (w *Planned) WriteAt(name string, p []byte, off int64) error {
	i, ok := w.byName[name]
	if !ok {
		return fmt.Errorf("%w: the plan has no such tensor", w.invalid)
	}
	s := w.sections[i]
	if off < 0 || off > s.Size || int64(len(p)) > s.Size-off {
		return fmt.Errorf("%w: bytes %d to %d of a tensor of %d", w.invalid, off, off+int64(len(p)), s.Size)
	}
	if _, err := w.file.WriteAt(p, s.Offset+off); err != nil {
		return err
	}
	w.written[i].Add(int64(len(p)))
	return nil
}

// Commit is [File.Commit], but fails, and discards the file, when a section was not
// written as often as it is long.
func (w *Planned) Commit() error { return w.commit((*File).Commit) }

// CommitUnsynced is Commit without making the file durable; see [File.CommitUnsynced].
func (w *Planned) CommitUnsynced() error { return w.commit((*File).CommitUnsynced) }

func (w *Planned) commit(finish func(*File) error) error {
	for i, s := range w.sections {
		if n := w.written[i].Load(); n != s.Size {
			w.Close()
			return fmt.Errorf("%w: %d bytes were written to tensor %q of %d", w.invalid, n, s.Name, s.Size)
		}
	}
	return finish(w.file)
}

// Close discards the file unless it was committed.
func (w *Planned) Close() error { return w.file.Close() }
