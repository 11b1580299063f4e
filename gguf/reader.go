package gguf

// Reading: the header, its validation, and ranges of tensors.

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/graftml/graft/internal/wholefile"
)

// File is an opened GGUF file. Its methods may be called from several goroutines
// at once, except Close.
type File struct {
	r         io.ReaderAt
	closer    io.Closer // nil when the caller keeps the reader
	path      string    // for errors: "" when unknown
	version   uint32
	alignment int64
	data      int64 // offset of the first tensor in the file
	kvs       []KV
	keys      map[string]int
	tensors   []Tensor
	byName    map[string]int
}

// Open opens the GGUF file at path, reads its header and checks it. The tensors'
// bytes are not touched. The error wraps [ErrFormat] or [ErrUnsupported] when the
// file cannot be read as one.
func Open(path string) (*File, error) {
	osFile, size, err := wholefile.Open(path, ErrFormat)
	if err != nil {
		return nil, fmt.Errorf("gguf: opening a file: %w", err)
	}
	f, err := parse(osFile, size)
	if err != nil {
		osFile.Close()
		return nil, fmt.Errorf("gguf: opening %q: %w", path, err)
	}
	f.closer, f.path = osFile, path
	return f, nil
}

// NewFile reads and checks the header of a GGUF file of size bytes that lies in r.
// The File reads from r until it is no longer used; closing it does not close r.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	f, err := parse(r, size)
	if err != nil {
		return nil, fmt.Errorf("gguf: reading a header: %w", err)
	}
	return f, nil
}

// parse reads the header of the size bytes in r.
func parse(r io.ReaderAt, size int64) (*File, error) {
	d := newDecoder(r, size)
	f := &File{r: r, alignment: defaultAlignment}
	if err := f.parseVersion(d); err != nil {
		return nil, err
	}
	tensorCount := d.count("tensors", minInfoSize)
	kvCount := d.count("metadata entries", minEntrySize)
	if d.err != nil {
		return nil, d.err
	}
	if err := f.parseMetadata(d, kvCount); err != nil {
		return nil, err
	}
	if err := f.parseAlignment(); err != nil {
		return nil, err
	}
	end, err := f.parseTensors(d, tensorCount)
	if err != nil {
		return nil, err
	}
	f.data = d.offset()
	if len(f.tensors) > 0 {
		f.data, _ = padded(f.data, f.alignment) // both are far below overflow
		// The padding after the last tensor may be missing.
		last := f.tensors[len(f.tensors)-1]
		if last.Offset+last.Size > size-f.data {
			return nil, fmt.Errorf("%w: the tensors end at byte %d (padded to %d), but the file has %d bytes; it is cut short", ErrFormat, f.data+last.Offset+last.Size, f.data+end, size)
		}
	}
	return f, nil
}

// parseVersion reads the magic and the version.
func (f *File) parseVersion(d *decoder) error {
	var start [4]byte
	d.read(start[:])
	if d.err == nil && string(start[:]) != magic {
		return fmt.Errorf("%w: it begins with %q, not %q; is this a GGUF file?", ErrFormat, start[:], magic)
	}
	f.version = d.uint32()
	switch v := f.version; {
	case d.err != nil:
		return d.err
	case v == 0:
		return fmt.Errorf("%w: version 0", ErrFormat)
	case v&0xffff == 0:
		return fmt.Errorf("%w: the file is big-endian; convert it to little-endian first", ErrUnsupported)
	case v == 1:
		return fmt.Errorf("%w: version 1 is obsolete; convert the model again", ErrUnsupported)
	case v > versionWritten:
		return fmt.Errorf("%w: version %d is newer than %d", ErrUnsupported, v, versionWritten)
	}
	return nil
}

// parseMetadata reads n entries.
func (f *File) parseMetadata(d *decoder, n int64) error {
	f.keys = map[string]int{}
	for i := range n {
		key := d.string()
		if d.err != nil {
			return fmt.Errorf("metadata entry %d of %d: key: %w", i+1, n, d.err)
		}
		if key == "" {
			return fmt.Errorf("%w: metadata entry %d of %d has an empty key", ErrFormat, i+1, n)
		}
		if _, ok := f.keys[key]; ok {
			return fmt.Errorf("%w: metadata %.100q is there twice", ErrFormat, key)
		}
		t := ValueType(d.uint32())
		value := d.value(t)
		if d.err != nil {
			return fmt.Errorf("metadata %.100q: %w", key, d.err)
		}
		f.keys[key] = len(f.kvs)
		f.kvs = append(f.kvs, KV{key, t, value})
	}
	return nil
}

// parseAlignment takes the alignment from the metadata.
func (f *File) parseAlignment() error {
	kv, ok := f.Get(alignmentKey)
	if !ok {
		return nil
	}
	align, err := checkAlignment(kv)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	f.alignment = align
	return nil
}

// checkAlignment returns the alignment that an entry of alignmentKey asks for.
func checkAlignment(kv KV) (int64, error) {
	align, ok := kv.Value.(uint32)
	if !ok {
		return 0, fmt.Errorf("metadata %q is %T, want uint32", kv.Key, kv.Value)
	}
	if align == 0 || align&(align-1) != 0 {
		return 0, fmt.Errorf("metadata %q is %d, want a power of two", kv.Key, align)
	}
	return int64(align), nil
}

// parseTensors reads n tensor infos and returns the size of the padded data.
func (f *File) parseTensors(d *decoder, n int64) (end int64, err error) {
	f.byName = map[string]int{}
	for i := range n {
		t := Tensor{Name: d.string()}
		if d.err != nil {
			return 0, fmt.Errorf("tensor %d of %d: name: %w", i+1, n, d.err)
		}
		if err := checkName(t.Name, f.byName); err != nil {
			return 0, fmt.Errorf("%w: tensor %.100q: %w", ErrFormat, t.Name, err)
		}
		dims := d.uint32()
		if dims > maxDims {
			return 0, fmt.Errorf("%w: tensor %q: %d dimensions, more than %d", ErrFormat, t.Name, dims, maxDims)
		}
		t.Dims = make([]int64, dims)
		for j := range t.Dims {
			t.Dims[j] = int64(d.uint64()) // one beyond int64 turns negative, and place refuses it
		}
		t.Type = Type(d.uint32())
		offset := d.uint64()
		if d.err != nil {
			return 0, fmt.Errorf("tensor %q: %w", t.Name, d.err)
		}
		end, err = place(&t, end, f.alignment)
		if errors.Is(err, errType) {
			return 0, fmt.Errorf("%w: tensor %q: %w", ErrUnsupported, t.Name, err)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: tensor %q: %w", ErrFormat, t.Name, err)
		}
		if offset != uint64(t.Offset) {
			return 0, fmt.Errorf("%w: tensor %q is at offset %d, but the one before it ends at %d: tensors must follow each other", ErrFormat, t.Name, offset, t.Offset)
		}
		f.byName[t.Name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
	}
	return end, nil
}

// checkName refuses a tensor name that is too long for llama.cpp or already used.
func checkName(name string, used map[string]int) error {
	if len(name) > maxName {
		return fmt.Errorf("the name has %d bytes, more than %d", len(name), maxName)
	}
	if _, ok := used[name]; ok {
		return fmt.Errorf("the name is there twice")
	}
	return nil
}

// Version returns the version of the format that the file is in, 2 or 3.
func (f *File) Version() int { return int(f.version) }

// Alignment returns the alignment of the file's tensors in bytes.
func (f *File) Alignment() int64 { return f.alignment }

// DataOffset returns where the data begin in the file, in bytes; offsets of
// tensors count from there.
func (f *File) DataOffset() int64 { return f.data }

// KVs returns the metadata in the file's order. The caller must not change it.
func (f *File) KVs() []KV { return f.kvs }

// Get returns the metadata entry of the given key and whether there is one.
func (f *File) Get(key string) (KV, bool) {
	i, ok := f.keys[key]
	if !ok {
		return KV{}, false
	}
	return f.kvs[i], true
}

// Tensors returns the file's tensors in the order of their infos, which is that
// of their data. The caller must not change them.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor returns the tensor of the given name and whether there is one.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// ReadAt fills p with the bytes of t that begin off bytes into it. Unlike an
// io.ReaderAt it reads all of p or fails; a range that is not inside t is an error.
func (f *File) ReadAt(t Tensor, p []byte, off int64) error {
	own, ok := f.Tensor(t.Name)
	if !ok || own.Offset != t.Offset || own.Size != t.Size {
		return fmt.Errorf("gguf: reading %q: %w: no such tensor in %s", t.Name, ErrLayout, f)
	}
	if off < 0 || off > t.Size || int64(len(p)) > t.Size-off {
		return fmt.Errorf("gguf: reading %q: %w: bytes %d to %d of a tensor of %d", t.Name, ErrLayout, off, off+int64(len(p)), t.Size)
	}
	if err := wholefile.ReadAt(f.r, p, f.data+t.Offset+off, ErrFormat); err != nil {
		return fmt.Errorf("gguf: reading %q from %s: %w", t.Name, f, err)
	}
	return nil
}

// String names the file in messages.
func (f *File) String() string {
	if f.path == "" {
		return "the file"
	}
	return strconv.Quote(f.path)
}

// Close closes the file that [Open] opened; after [NewFile] it does nothing.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
