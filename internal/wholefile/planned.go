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
	size     int64
	digest   *digest // nil where nobody wants it
}

// CreatePlanned begins the file of size bytes at path as [Create] does, and writes
// its header. The sections, whose names differ, lie inside the file; bytes outside
// them are zero. Errors about what was not planned wrap invalid.
func CreatePlanned(path string, header []byte, size int64, sections []Section, invalid error) (*Planned, error) {
	file, err := Create(path)
	if err != nil {
		return nil, err
	}
	w := &Planned{file: file, sections: sections, byName: make(map[string]int, len(sections)), written: make([]atomic.Int64, len(sections)), invalid: invalid, size: size}
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
	writeBack(w.file.temp, s.Offset+off, int64(len(p)))
	w.written[i].Add(int64(len(p)))
	if w.digest != nil {
		w.digest.add(s.Offset+off, s.Offset+off+int64(len(p)))
	}
	return nil
}

// Hash computes the file's SHA-256 while it is written, which is quickest where its bytes are written about
// in their order. It is called before the first WriteAt.
func (w *Planned) Hash() { w.digest = newDigest(w.file.temp, w.size, w.sections) }

// SHA256 returns the hash of a committed file, in hexadecimal, "" where nobody asked for it.
func (w *Planned) SHA256() string {
	if w.digest == nil {
		return ""
	}
	return w.digest.sum
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
	if w.digest != nil {
		if err := w.digest.wait(); err != nil {
			w.Close()
			return err
		}
	}
	return finish(w.file)
}

// Close discards the file unless it was committed.
func (w *Planned) Close() error {
	if w.digest != nil {
		_ = w.digest.wait() // it must not read a closed file
	}
	return w.file.Close()
}
