package safetensors

// Planning a file: the order of the tensors, their places, and the header.

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Spec says what a tensor of a file to be written is.
type Spec struct {
	Name  string
	DType DType
	Shape []int
}

// Layout is a planned file: all of its bytes but those of the tensors.
type Layout struct {
	Header  []byte   // the file's first bytes, the header's length included
	Tensors []Tensor // in the order of their data; the buffer begins at len(Header)
	Size    int64    // of the whole file, in bytes

	byName map[string]int
}

// Plan lays out a file of the given tensors in the reference writer's order: by
// falling rank of the number format, so that each tensor is aligned to its own
// width, then by name. A nil metadata leaves __metadata__ out; programs of the
// Python world want {"format": "pt"} there. The specs may come in any order. The
// error wraps [ErrLayout].
func Plan(specs []Spec, metadata map[string]string) (*Layout, error) {
	l := &Layout{Tensors: make([]Tensor, 0, len(specs)), byName: make(map[string]int, len(specs))}
	sorted := slices.Clone(specs)
	slices.SortFunc(sorted, func(a, b Spec) int {
		return cmp.Or(-cmp.Compare(dtypes[a.DType].rank, dtypes[b.DType].rank), cmp.Compare(a.Name, b.Name))
	})
	end := int64(0)
	for i, s := range sorted {
		size, err := byteSize(s.DType, s.Shape)
		if err == nil && size > math.MaxInt64-maxHeader-prefixSize-end {
			err = fmt.Errorf("the file would be larger than any can be")
		}
		if err == nil {
			err = l.checkName(s.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("safetensors: planning tensor %.200q: %w: %w", s.Name, ErrLayout, err)
		}
		l.byName[s.Name] = i
		shape := append([]int{}, s.Shape...)
		l.Tensors = append(l.Tensors, Tensor{s.Name, s.DType, shape, end, end + size})
		end += size
	}
	if err := l.encode(metadata); err != nil {
		return nil, fmt.Errorf("safetensors: planning a header: %w: %w", ErrLayout, err)
	}
	l.Size = int64(len(l.Header)) + end
	return l, nil
}

// checkName refuses names that a header cannot hold, or holds already.
func (l *Layout) checkName(name string) error {
	if _, ok := l.byName[name]; ok {
		return fmt.Errorf("the name is there twice")
	}
	if name == metadataKey {
		return fmt.Errorf("the name is reserved")
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("the name is not UTF-8")
	}
	return nil
}

// encode sets l.Header from l.Tensors: compact JSON, padded with spaces.
func (l *Layout) encode(metadata map[string]string) error {
	b := append(make([]byte, prefixSize), '{')
	if metadata != nil {
		b = append(b, `"`+metadataKey+`":{`...)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return fmt.Errorf("metadata %.200q is not UTF-8", key)
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, key)
			b = append(b, ':')
			b = appendString(b, metadata[key])
		}
		b = append(b, "},"...)
	}
	for _, t := range l.Tensors {
		b = appendString(b, t.Name)
		b = append(b, `:{"dtype":"`+string(t.DType)+`","shape":[`...)
		for i, dim := range t.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(dim), 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, t.Begin, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, t.End, 10)
		b = append(b, "]},"...)
	}
	if last := len(b) - 1; b[last] == ',' {
		b = b[:last]
	}
	b = append(b, '}')
	for len(b)%headerAlign != 0 {
		b = append(b, ' ')
	}
	if len(b)-prefixSize > maxHeader {
		return fmt.Errorf("it would take %d bytes, more than the limit of %d", len(b)-prefixSize, maxHeader)
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-prefixSize))
	l.Header = b
	return nil
}

// appendString appends s as a JSON string; s is known to be UTF-8.
func appendString(b []byte, s string) []byte {
	b, err := jsontext.AppendQuote(b, s)
	if err != nil {
		panic("safetensors: internal error: " + err.Error())
	}
	return b
}

// Tensor returns the tensor of the given name and whether the plan has it.
func (l *Layout) Tensor(name string) (Tensor, bool) {
	i, ok := l.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return l.Tensors[i], true
}

// Offset returns where the named tensor's data begin in the file, in bytes from
// the file's first, or -1 when the plan has no such tensor.
func (l *Layout) Offset(name string) int64 {
	t, ok := l.Tensor(name)
	if !ok {
		return -1
	}
	return int64(len(l.Header)) + t.Begin
}
