package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/zstd"
)

// This file turns files into the values of rows. What the values mean is in rows.go.

var (
	// ErrFormat is wrapped by errors about a file or a row that is malformed or has no known form.
	ErrFormat = errors.New("malformed data")
	// ErrEmpty is wrapped by errors about data of which nothing is left to train on.
	ErrEmpty = errors.New("no rows")
)

const (
	// MaxRow is the largest row, in bytes of JSON or text.
	MaxRow = 64 << 20
	// MaxFile is the largest file, in bytes after decompression.
	MaxFile = 8 << 30
	// maxWindow bounds the memory that a Zstandard frame may ask for.
	maxWindow = 128 << 20
)

// File is the rows of one file.
type File struct {
	Path string
	Form Form
	Rows []Row
	// Fields counts the rows that have each field, known or not; nil for plain text.
	Fields map[string]int
	unit   string // "line" or "element"
}

// Place names a row in messages: `"chats.jsonl" line 7`.
func (f *File) Place(r *Row) string { return fmt.Sprintf("%q %s %d", f.Path, f.unit, r.Place) }

// Read reads all rows of a file. The error wraps ErrFormat and names the line, or the element of an
// array, that is at fault; a file without rows fails with ErrEmpty.
func Read(path string) (*File, error) {
	r, name, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: opening data: %w", err)
	}
	defer r.Close()
	f := &File{Path: path, unit: "line"}
	if err := f.read(r, name); err != nil {
		return nil, fmt.Errorf("dataset: reading %q: %w", path, err)
	}
	if len(f.Rows) == 0 {
		return nil, fmt.Errorf("dataset: reading %q: %w", path, ErrEmpty)
	}
	return f, nil
}

// ReadText reads the whole text of a plain text file, for training on a stream. A form of rows is
// refused with ErrFormat.
func ReadText(path string) (string, error) {
	r, name, err := open(path)
	if err != nil {
		return "", fmt.Errorf("dataset: opening data: %w", err)
	}
	defer r.Close()
	switch kind, err := kindOf(name); {
	case err != nil:
		return "", fmt.Errorf("dataset: reading %q: %w", path, err)
	case kind != plainText:
		return "", fmt.Errorf("dataset: reading %q: %w: a stream needs a plain text file; train on rows with packing \"examples\"", path, ErrFormat)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("dataset: reading %q: %w", path, err)
	}
	text = bytes.TrimPrefix(text, bom)
	if at := invalidUTF8(text); at >= 0 {
		return "", fmt.Errorf("dataset: reading %q: %w: byte %d is not UTF-8", path, ErrFormat, at)
	}
	if len(text) == 0 {
		return "", fmt.Errorf("dataset: reading %q: %w", path, ErrEmpty)
	}
	return string(text), nil
}

var bom = []byte("\xef\xbb\xbf")

// invalidUTF8 returns the place of the first byte that is not UTF-8, or −1.
func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	for at := 0; ; {
		r, n := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && n <= 1 {
			return at
		}
		at += n
	}
}

// open opens a file, decompressed, and returns its name without the ending of the compression.
func open(path string) (io.ReadCloser, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, "", fmt.Errorf("%q is a folder; name its files", path)
	}
	name := strings.ToLower(filepath.Base(path))
	in := &input{closers: []io.Closer{f}, left: MaxFile}
	switch ext := filepath.Ext(name); ext {
	case ".gz":
		z, err := gzip.NewReader(bufio.NewReader(f))
		if err != nil {
			f.Close()
			return nil, "", fmt.Errorf("%q: %w: %w", path, ErrFormat, err)
		}
		in.r, in.compressed = z, true
		name = strings.TrimSuffix(name, ext)
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			f.Close()
			return nil, "", fmt.Errorf("%q: %w: %w", path, ErrFormat, err)
		}
		in.r, in.compressed = z, true
		in.closers = append(in.closers, z.IOReadCloser())
		name = strings.TrimSuffix(name, ext)
	default:
		in.r = f
	}
	return in, name, nil
}

// input bounds how much a file may hold after decompression.
type input struct {
	r          io.Reader
	closers    []io.Closer
	left       int64
	compressed bool
}

func (in *input) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d GiB; split the file", ErrFormat, MaxFile>>30)
	}
	n, err := in.r.Read(p[:min(int64(len(p)), in.left)])
	in.left -= int64(n)
	if err != nil && err != io.EOF && in.compressed {
		err = fmt.Errorf("%w: decompressing: %w", ErrFormat, err)
	}
	return n, err
}

func (in *input) Close() error {
	for i := len(in.closers) - 1; i >= 0; i-- {
		in.closers[i].Close()
	}
	return nil
}

type kind int

const (
	plainText kind = iota
	jsonFile
	jsonLines
)

// kindOf tells a file's kind from its name.
func kindOf(name string) (kind, error) {
	switch ext := filepath.Ext(name); ext {
	case ".json":
		return jsonFile, nil
	case ".jsonl", ".ndjson":
		return jsonLines, nil
	case ".parquet", ".arrow", ".feather", ".csv", ".tsv", ".xlsx", ".zip", ".bz2", ".xz", ".tar":
		return 0, fmt.Errorf("%w: %s files are not read; convert it to JSON Lines (.jsonl, also .gz and .zst)", ErrFormat, ext)
	}
	return plainText, nil
}

func (f *File) read(r io.Reader, name string) error {
	k, err := kindOf(name)
	if err != nil {
		return err
	}
	b := bufio.NewReaderSize(r, 64<<10)
	if head, _ := b.Peek(len(bom)); bytes.Equal(head, bom) {
		b.Discard(len(bom))
	}
	if k == jsonFile {
		array, err := beginsArray(b)
		if err != nil {
			return err
		}
		if array {
			return f.readArray(b)
		}
		k = jsonLines
	}
	return f.readLines(b, k == jsonLines)
}

// beginsArray reports whether the first byte that is no space is '['. It discards the spaces.
func beginsArray(b *bufio.Reader) (bool, error) {
	for lines := 0; ; {
		c, err := b.ReadByte()
		switch {
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		case c == '\n':
			lines++
			fallthrough
		case c == ' ' || c == '\t' || c == '\r':
			continue
		}
		b.UnreadByte()
		if c != '[' && lines > 0 {
			return false, fmt.Errorf("%w: line %d begins with %q, not with an array of rows or the first row", ErrFormat, lines+1, c)
		}
		return c == '[', nil
	}
}

// readLines reads a row a line; blank lines are passed over.
func (f *File) readLines(b *bufio.Reader, isJSON bool) error {
	var line []byte
	for n := 1; ; n++ {
		line = line[:0]
		var err error
		for {
			var part []byte
			part, err = b.ReadSlice('\n')
			if len(line)+len(part) > MaxRow {
				return fmt.Errorf("line %d: %w: longer than %d MiB", n, ErrFormat, MaxRow>>20)
			}
			line = append(line, part...)
			if err != bufio.ErrBufferFull {
				break
			}
		}
		if err != nil && err != io.EOF {
			return err
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			if rowErr := f.addLine(n, text, isJSON); rowErr != nil {
				return fmt.Errorf("line %d: %w", n, rowErr)
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (f *File) addLine(n int, text []byte, isJSON bool) error {
	if isJSON {
		return f.add(n, text)
	}
	if at := invalidUTF8(text); at >= 0 {
		return fmt.Errorf("%w: byte %d is not UTF-8", ErrFormat, at)
	}
	f.Form = FormText
	f.Rows = append(f.Rows, Row{Place: n, Prompt: Side{Text: string(text)}})
	return nil
}

// readArray reads the elements of one JSON array, one at a time.
func (f *File) readArray(r io.Reader) error {
	f.unit = "element"
	m := &meter{r: r}
	d := jsontext.NewDecoder(m)
	if _, err := d.ReadToken(); err != nil {
		return jsonError(err)
	}
	for n := 1; d.PeekKind() != ']'; n++ {
		m.left = MaxRow
		v, err := d.ReadValue()
		if err != nil {
			return fmt.Errorf("element %d: %w", n, jsonError(err))
		}
		if err := f.add(n, v); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return fmt.Errorf("element %d: %w", len(f.Rows)+1, jsonError(err))
	}
	m.left = MaxRow
	if _, err := d.ReadToken(); err != io.EOF {
		return fmt.Errorf("%w: something follows the array", ErrFormat)
	}
	return nil
}

// meter bounds what a decoder reads for one value.
type meter struct {
	r    io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left < 0 {
		return 0, fmt.Errorf("%w: longer than %d MiB", ErrFormat, MaxRow>>20)
	}
	n, err := m.r.Read(p)
	m.left -= n
	return n, err
}

// jsonError makes an error of the JSON decoder one of this package.
func jsonError(err error) error {
	if errors.Is(err, ErrFormat) {
		return err
	}
	var s *jsontext.SyntacticError
	if errors.As(err, &s) {
		err = s.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the file ends inside it", ErrFormat)
	}
	return fmt.Errorf("%w: not JSON: %w", ErrFormat, err)
}
