package safetensors

// Reading one file: the header, its validation, and ranges of tensors.

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/wholefile"
)

// File is an opened safetensors file. Its methods may be called from several
// goroutines at once, except Close.
type File struct {
	r        io.ReaderAt
	closer   io.Closer // nil when the caller keeps the reader
	name     string    // for errors: the path, or "" when unknown
	data     int64     // offset of the buffer in the file
	tensors  []Tensor  // in data order
	byName   map[string]int
	metadata map[string]string
}

// Open opens the safetensors file at path, reads its header and checks it. The
// tensors' bytes are not touched. The error wraps [ErrFormat] when the file is not
// a valid one.
func Open(path string) (*File, error) {
	osFile, size, err := wholefile.Open(path, ErrFormat)
	if err != nil {
		return nil, fmt.Errorf("safetensors: opening a file: %w", err)
	}
	f, err := parse(osFile, size)
	if err != nil {
		osFile.Close()
		return nil, fmt.Errorf("safetensors: opening %q: %w", path, err)
	}
	f.closer, f.name = osFile, path
	return f, nil
}

// NewFile reads and checks the header of a safetensors file of size bytes that
// lies in r. The File reads from r until it is no longer used; closing it does not
// close r.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	f, err := parse(r, size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: reading a header: %w", err)
	}
	return f, nil
}

// parse reads the header of the size bytes in r.
func parse(r io.ReaderAt, size int64) (*File, error) {
	if size < prefixSize {
		return nil, fmt.Errorf("%w: %d bytes is too short for the length of a header", ErrFormat, size)
	}
	var prefix [prefixSize]byte
	if err := wholefile.ReadAt(r, prefix[:], 0, ErrFormat); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		return nil, fmt.Errorf("%w: header of %d bytes, more than the limit of %d; is this a safetensors file?", ErrFormat, n, maxHeader)
	}
	if int64(n) > size-prefixSize {
		return nil, fmt.Errorf("%w: header of %d bytes in a file of %d; the file is cut short or not a safetensors file", ErrFormat, n, size)
	}
	header := make([]byte, n)
	if err := wholefile.ReadAt(r, header, prefixSize, ErrFormat); err != nil {
		return nil, err
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, fmt.Errorf("%w: the header does not begin with '{'", ErrFormat)
	}
	if !utf8.Valid(header) {
		return nil, fmt.Errorf("%w: the header is not UTF-8", ErrFormat)
	}
	f := &File{r: r, data: prefixSize + int64(n)}
	if err := f.parseHeader(header); err != nil {
		return nil, err
	}
	return f, f.validate(size - f.data)
}

// parseHeader fills f.tensors, in the order of the header, and f.metadata.
func (f *File) parseHeader(header []byte) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(header))
	err := eachMember(d, func(name string) error {
		if name == metadataKey {
			return f.parseMetadata(d)
		}
		t := Tensor{Name: name}
		if err := parseTensor(d, &t); err != nil {
			return fmt.Errorf("tensor %.200q: %w", name, err)
		}
		f.tensors = append(f.tensors, t)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	// Only white space may follow the object, as a writer's padding.
	if _, err := d.ReadToken(); err != io.EOF {
		return fmt.Errorf("%w: header: something follows its object", ErrFormat)
	}
	return nil
}

// parseMetadata reads the value of __metadata__: an object of strings, or null.
func (f *File) parseMetadata(d *jsontext.Decoder) error {
	if d.PeekKind() == jsontext.KindNull {
		return d.SkipValue()
	}
	f.metadata = map[string]string{}
	err := eachMember(d, func(key string) error {
		value, err := readString(d)
		if err != nil {
			return fmt.Errorf("key %.200q: %w", key, err)
		}
		f.metadata[key] = value
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", metadataKey, err)
	}
	return nil
}

// parseTensor reads one tensor's entry. Fields that it does not know are skipped,
// as the reference does.
func parseTensor(d *jsontext.Decoder, t *Tensor) error {
	var haveDType, haveShape, haveOffsets bool
	err := eachMember(d, func(field string) (err error) {
		switch field {
		case "dtype":
			haveDType = true
			var s string
			s, err = readString(d)
			t.DType = DType(s)
		case "shape":
			haveShape = true
			t.Shape = []int{}
			err = eachInt(d, func(n int64) error {
				if int64(int(n)) != n {
					return fmt.Errorf("dimension %d is too large for this machine", n)
				}
				t.Shape = append(t.Shape, int(n))
				return nil
			})
		case "data_offsets":
			haveOffsets = true
			var pair []int64
			err = eachInt(d, func(n int64) error {
				if len(pair) < 3 {
					pair = append(pair, n)
				}
				return nil
			})
			if err == nil && len(pair) != 2 {
				err = fmt.Errorf("want two numbers")
			}
			if err == nil {
				t.Begin, t.End = pair[0], pair[1]
			}
		default:
			return d.SkipValue()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case !haveDType:
		return fmt.Errorf("no dtype")
	case !haveShape:
		return fmt.Errorf("no shape")
	case !haveOffsets:
		return fmt.Errorf("no data_offsets")
	}
	return nil
}

// eachMember reads an object and calls f after each name, with the decoder at the
// member's value, which f must read. The decoder itself refuses duplicate names.
func eachMember(d *jsontext.Decoder, f func(name string) error) error {
	if err := expect(d, jsontext.KindBeginObject, "an object"); err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := readString(d)
		if err != nil {
			return err
		}
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// eachInt reads an array of non-negative integers.
func eachInt(d *jsontext.Decoder, f func(n int64) error) error {
	if err := expect(d, jsontext.KindBeginArray, "an array"); err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndArray {
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		// By its digits, since as a number of JSON 1e3 and 2.0 would do as well.
		n, err := strconv.ParseUint(string(v), 10, 63)
		if err != nil {
			return fmt.Errorf("%.40s is not a non-negative 63-bit integer", v)
		}
		if err := f(int64(n)); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// readString reads a string.
func readString(d *jsontext.Decoder) (string, error) {
	tok, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	if tok.Kind() != jsontext.KindString {
		return "", fmt.Errorf("want a string")
	}
	return tok.String(), nil
}

// expect reads a token that must be of the given kind.
func expect(d *jsontext.Decoder, kind jsontext.Kind, what string) error {
	tok, err := d.ReadToken()
	if err != nil {
		return err
	}
	if tok.Kind() != kind {
		return fmt.Errorf("want %s", what)
	}
	return nil
}

// validate sorts the tensors by place and checks that they cover the buffer of
// size bytes exactly, each with the bytes that its shape takes.
func (f *File) validate(size int64) error {
	slices.SortStableFunc(f.tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	f.byName = make(map[string]int, len(f.tensors))
	end := int64(0)
	for i, t := range f.tensors {
		if t.Begin != end || t.End < t.Begin {
			return fmt.Errorf("%w: tensor %.200q has bytes %d to %d, but the one before it ends at %d: tensors must follow each other", ErrFormat, t.Name, t.Begin, t.End, end)
		}
		want, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return fmt.Errorf("%w: tensor %.200q: %w", ErrFormat, t.Name, err)
		}
		if want != t.Size() {
			return fmt.Errorf("%w: tensor %.200q has %d bytes, but shape %s of %s takes %d", ErrFormat, t.Name, t.Size(), shapeString(t.Shape), t.DType, want)
		}
		f.byName[t.Name] = i
		end = t.End
	}
	switch {
	case end > size:
		return fmt.Errorf("%w: the tensors take %d bytes, but only %d follow the header; the file is cut short", ErrFormat, end, size)
	case end < size:
		return fmt.Errorf("%w: %d bytes follow the last tensor", ErrFormat, size-end)
	}
	return nil
}

// Tensors returns the file's tensors in the order of their data. The caller must
// not change them.
func (f *File) Tensors() []Tensor { return f.tensors }

// Tensor returns the tensor of the given name and whether there is one.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// DataOffset returns where the tensors' bytes begin in the file; Begin and End of a
// tensor count from there.
func (f *File) DataOffset() int64 { return f.data }

// Metadata returns a copy of the file's __metadata__, nil when it has none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// ReadAt fills p with the bytes of t that begin off bytes into it. Unlike an
// io.ReaderAt it reads all of p or fails; a range that is not inside t is an error.
func (f *File) ReadAt(t Tensor, p []byte, off int64) error {
	own, ok := f.Tensor(t.Name)
	if !ok || own.Begin != t.Begin || own.End != t.End {
		return fmt.Errorf("safetensors: reading %q: %w: no such tensor in %s", t.Name, ErrLayout, f)
	}
	if off < 0 || off > t.Size() || int64(len(p)) > t.Size()-off {
		return fmt.Errorf("safetensors: reading %q: %w: bytes %d to %d of a tensor of %d", t.Name, ErrLayout, off, off+int64(len(p)), t.Size())
	}
	if err := wholefile.ReadAt(f.r, p, f.data+t.Begin+off, ErrFormat); err != nil {
		return fmt.Errorf("safetensors: reading %q from %s: %w", t.Name, f, err)
	}
	return nil
}

// String names the file in messages.
func (f *File) String() string {
	if f.name == "" {
		return "the file"
	}
	return strconv.Quote(f.name)
}

// Close closes the file that [Open] opened; after [NewFile] it does nothing.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}
