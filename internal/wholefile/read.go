package wholefile

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// Open opens the regular file at path for reading and returns its size in bytes.
// The error names path, and wraps invalid when something else has that name.
func Open(path string, invalid error) (f *os.File, size int64, err error) {
	f, err = os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %q is not a regular file", invalid, path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// ReadAt fills p with r's bytes from off on, or fails: a file may have been cut
// since its size was taken, and then the error wraps invalid.
func ReadAt(r io.ReaderAt, p []byte, off int64, invalid error) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF || err == nil {
		return fmt.Errorf("%w: the file ended at byte %d", invalid, off+int64(n))
	}
	return err
}

// ReadFile returns the content of the file at path, which may have up to limit
// bytes. The error names the file, and wraps invalid where it has more.
func ReadFile(path string, limit int64, invalid error) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit, invalid)
}

// ReadAll is [ReadFile] of what an opened file still holds.
func ReadAll(f *os.File, limit int64, invalid error) ([]byte, error) {
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil { // a hint: a pipe has no size, and a file may grow
		b.Grow(int(min(info.Size(), limit, math.MaxInt32-bytes.MinRead)) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", invalid, filepath.Base(f.Name()), limit)
	}
	return b.Bytes(), nil
}
