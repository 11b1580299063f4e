// Package imatrix reads and writes llama.cpp's importance matrices: for every weight of a model,
// how large the values of each of its input columns are on some text. Quantizers that know it lose
// least where that matters (quantize.Encoder's EncodeWeighted).
//
// Two forms exist. The present one is a GGUF file whose tensors "NAME.in_sum2" hold the sum of the
// squares of each column, and "NAME.counts" the number of rows added up; general.type is "imatrix".
// The older one (.dat) is a list of names with sums and calls. [Read] takes either, [Matrix.Write]
// writes the present one.
package imatrix

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/wholefile"
)

// ErrFormat is wrapped by errors about a file that is no importance matrix, or a damaged one.
var ErrFormat = errors.New("malformed importance matrix")

// Matrix is an importance matrix.
type Matrix struct {
	Entries  map[string]Entry // by the weight's name in GGUF, "blk.0.attn_q.weight"
	Datasets []string         // the texts it was made from
	// Chunks is how many pieces of text it was made from, and ChunkSize their tokens; 0 where the
	// file does not say.
	Chunks, ChunkSize int
}

// Entry is the importance of one weight's columns.
type Entry struct {
	// Sums are the sums of the squares of each input column, over Count rows. A weight of several
	// experts has one after the other; this package keeps them for their length alone.
	Sums  []float32
	Count float64
	// Mean is Sums by Count, as llama-quantize divides them.
	Mean []float32
}

// limit is the size of the largest file that is read: a matrix has a few values for each thousand weights.
const limit = 1 << 30

// Recognize reports whether data, the beginning of a file, looks like an importance matrix rather
// than a text: GGUF's magic, or a count and the length of a name as the older form begins with.
func Recognize(data []byte) bool {
	if len(data) >= 4 && string(data[:4]) == "GGUF" {
		return true
	}
	if len(data) < 9 {
		return false
	}
	entries, length := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
	return entries >= 1 && entries <= maxEntries && length >= 1 && length <= maxName
}

const (
	maxEntries = 1 << 20
	maxName    = 1 << 12
)

// IsFile is Recognize for a file.
func IsFile(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("imatrix: %w", err)
	}
	defer f.Close()
	head := make([]byte, 9)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return false, fmt.Errorf("imatrix: reading %q: %w", path, err)
	}
	return Recognize(head[:n]), nil
}

// Read reads an importance matrix of either form. It fails with ErrFormat on a file that is none,
// is damaged, or holds a number that no sum of squares can be.
func Read(path string) (*Matrix, error) {
	data, err := wholefile.ReadFile(path, limit, ErrFormat)
	if err != nil {
		return nil, fmt.Errorf("imatrix: %w", err)
	}
	m, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("imatrix: reading %q: %w", path, err)
	}
	return m, nil
}

// Parse is Read of a file in memory.
func Parse(data []byte) (*Matrix, error) {
	if len(data) >= 4 && string(data[:4]) == "GGUF" {
		return parseGGUF(data)
	}
	return parseLegacy(data)
}

const (
	sums, counts = ".in_sum2", ".counts"

	keyDatasets  = "imatrix.datasets"
	keyChunks    = "imatrix.chunk_count"
	keyChunkSize = "imatrix.chunk_size"
)

func parseGGUF(data []byte) (*Matrix, error) {
	f, err := gguf.NewFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	m := &Matrix{Entries: map[string]Entry{}}
	datasets, ok1, err1 := gguf.Value[[]string](f, keyDatasets)
	chunks, ok2, err2 := gguf.Value[uint32](f, keyChunks)
	size, ok3, err3 := gguf.Value[uint32](f, keyChunkSize)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if !ok1 || !ok2 || !ok3 {
		return nil, fmt.Errorf("%w: a GGUF file without %s, %s and %s is something else", ErrFormat, keyDatasets, keyChunks, keyChunkSize)
	}
	m.Datasets, m.Chunks, m.ChunkSize = datasets, int(chunks), int(size)
	for _, t := range f.Tensors() {
		name, ok := strings.CutSuffix(t.Name, sums)
		if !ok {
			if name, ok := strings.CutSuffix(t.Name, counts); ok {
				if _, there := f.Tensor(name + sums); !there {
					return nil, fmt.Errorf("%w: tensor %q has no %q beside it", ErrFormat, t.Name, name+sums)
				}
			}
			continue
		}
		c, ok := f.Tensor(name + counts)
		if !ok {
			return nil, fmt.Errorf("%w: tensor %q has no %q beside it", ErrFormat, t.Name, name+counts)
		}
		values, err := floats(f, t)
		if err != nil {
			return nil, err
		}
		rows, err := floats(f, c)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 || len(values) == 0 || len(values)%len(rows) != 0 {
			return nil, fmt.Errorf("%w: tensor %q has %d values for %d counts", ErrFormat, t.Name, len(values), len(rows))
		}
		e := Entry{Sums: values, Count: math.Round(float64(rows[0])), Mean: make([]float32, len(values))}
		cols := len(values) / len(rows)
		for i, v := range values {
			// A part of a model that no text reached counts the same everywhere.
			e.Mean[i] = 1
			if n := float32(math.Round(float64(rows[i/cols]))); n > 0 {
				e.Mean[i] = v / n
			}
		}
		m.Entries[name] = e
	}
	return m, m.check()
}

// floats reads a tensor of float32.
func floats(f *gguf.File, t gguf.Tensor) ([]float32, error) {
	if t.Type != gguf.F32 {
		return nil, fmt.Errorf("%w: tensor %q is %v, not F32", ErrFormat, t.Name, t.Type)
	}
	data := make([]byte, t.Size)
	if err := f.ReadAt(t, data, 0); err != nil {
		return nil, fmt.Errorf("%w: tensor %q: %w", ErrFormat, t.Name, err)
	}
	return decode(data), nil
}

func decode(data []byte) []float32 {
	x := make([]float32, len(data)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return x
}

// check refuses what no text gives: nothing at all, and values that are negative or not finite.
func (m *Matrix) check() error {
	if len(m.Entries) == 0 {
		return fmt.Errorf("%w: it has no entry", ErrFormat)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Entries)) {
		for i, v := range m.Entries[name].Mean {
			if !(v >= 0) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%w: entry %q: the mean square of column %d is %v", ErrFormat, name, i, v)
			}
		}
	}
	return nil
}

// reader takes numbers from the front of data; after the end it remembers that and gives zeros.
type reader struct {
	data  []byte
	short bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.short = true
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) int() int {
	if b := r.bytes(4); b != nil {
		return int(int32(binary.LittleEndian.Uint32(b)))
	}
	return 0
}

// parseLegacy reads the older form: a count of entries; for each the name, the calls it was made from, and the
// mean squares times these; then, in newer ones of them, the chunks and the text's name.
func parseLegacy(data []byte) (*Matrix, error) {
	r := &reader{data: data}
	m := &Matrix{Entries: map[string]Entry{}}
	entries := r.int()
	if r.short || entries < 1 || entries > maxEntries {
		return nil, fmt.Errorf("%w: neither GGUF nor a count of entries at its beginning", ErrFormat)
	}
	for i := range entries {
		length := r.int()
		if length < 1 || length > maxName {
			return nil, fmt.Errorf("%w: the name of entry %d has a length of %d", ErrFormat, i, length)
		}
		name := string(r.bytes(length))
		calls, n := r.int(), r.int()
		if n < 1 || n > len(r.data)/4 {
			return nil, fmt.Errorf("%w: entry %d, %q, claims %d values, but %d bytes are left", ErrFormat, i, name, n, len(r.data))
		}
		if _, twice := m.Entries[name]; twice {
			return nil, fmt.Errorf("%w: there are two entries %q", ErrFormat, name)
		}
		e := Entry{Sums: decode(r.bytes(4 * n)), Count: float64(calls)}
		e.Mean = slices.Clone(e.Sums)
		if calls > 0 {
			for i := range e.Mean {
				e.Mean[i] /= float32(calls)
			}
		}
		m.Entries[name] = e
	}
	if len(r.data) > 0 {
		m.Chunks = max(0, r.int())
		if name := r.bytes(r.int()); len(name) > 0 {
			m.Datasets = []string{string(name)}
		}
	}
	if r.short {
		return nil, fmt.Errorf("%w: it ends within an entry", ErrFormat)
	}
	return m, m.check()
}

// Write writes the matrix to a GGUF file, as llama.cpp's tool does: entries by name, each as one
// matrix of a single expert. The file appears whole or not at all.
func (m *Matrix) Write(path string) error {
	kvs := []gguf.KV{
		gguf.Entry("general.type", "imatrix"), gguf.Entry(keyDatasets, m.Datasets),
		gguf.Entry(keyChunks, uint32(m.Chunks)), gguf.Entry(keyChunkSize, uint32(m.ChunkSize)),
	}
	var tensors []gguf.TensorData
	add := func(name string, x []float32) {
		data := make([]byte, 0, 4*len(x))
		for _, v := range x {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: name, Dims: []int64{int64(len(x))}, Type: gguf.F32}, Data: data})
	}
	for _, name := range slices.Sorted(maps.Keys(m.Entries)) {
		add(name+sums, m.Entries[name].Sums)
		add(name+counts, []float32{float32(m.Entries[name].Count)})
	}
	if err := gguf.Write(path, kvs, tensors); err != nil {
		return fmt.Errorf("imatrix: writing: %w", err)
	}
	return nil
}
