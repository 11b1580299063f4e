package gguf

// Planning a file: the header and the places of the tensors.

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Spec says what a tensor of a file to be written is.
type Spec struct {
	Name string
	Dims []int64 // ggml's order: Dims[0] is contiguous
	Type Type
}

// Layout is a planned file: all of its bytes but those of the tensors.
type Layout struct {
	Header  []byte   // the file's first bytes, padded; the data begin at its end
	Tensors []Tensor // in the order of the specs, which is that of their data
	Size    int64    // of the whole file in bytes, the padding after the last tensor included

	byName map[string]int
}

// Plan lays out a file of version 3 with the given metadata and tensors, in their
// order. An entry "general.alignment" sets the alignment. Unlike gguf-py it keeps
// entries that are an empty string or an empty array; a caller that wants
// gguf-py's bytes leaves them out. The error wraps [ErrLayout].
func Plan(kvs []KV, tensors []Spec) (*Layout, error) {
	l := &Layout{Tensors: make([]Tensor, 0, len(tensors)), byName: make(map[string]int, len(tensors))}
	align, err := l.encodeMetadata(kvs, len(tensors))
	if err != nil {
		return nil, fmt.Errorf("gguf: planning metadata: %w: %w", ErrLayout, err)
	}
	end := int64(0)
	for i, s := range tensors {
		t := Tensor{Name: s.Name, Dims: slices.Clone(s.Dims), Type: s.Type}
		err := checkName(s.Name, l.byName)
		if err == nil {
			end, err = place(&t, end, align)
		}
		if err != nil {
			return nil, fmt.Errorf("gguf: planning tensor %.100q: %w: %w", s.Name, ErrLayout, err)
		}
		l.byName[s.Name] = i
		l.Tensors = append(l.Tensors, t)
		l.Header = appendInfo(l.Header, t)
	}
	size, _ := padded(int64(len(l.Header)), align) // both are far below overflow
	if size > maxHeader {
		return nil, fmt.Errorf("gguf: planning a header: %w: it takes %d bytes, more than %d", ErrLayout, size, maxHeader)
	}
	l.Header = append(l.Header, make([]byte, size-int64(len(l.Header)))...)
	l.Size = size + end
	return l, nil
}

// encodeMetadata begins l.Header and returns the alignment that kvs ask for.
func (l *Layout) encodeMetadata(kvs []KV, tensors int) (align int64, err error) {
	b := binary.LittleEndian.AppendUint32([]byte(magic), versionWritten)
	b = binary.LittleEndian.AppendUint64(b, uint64(tensors))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(kvs)))
	align = defaultAlignment
	used := map[string]bool{}
	for _, kv := range kvs {
		t, elem, ok := typeOf(kv.Value)
		switch {
		case kv.Key == "":
			return 0, fmt.Errorf("an entry has an empty key")
		case used[kv.Key]:
			return 0, fmt.Errorf("%.100q is there twice", kv.Key)
		case !ok || t != kv.Type:
			return 0, fmt.Errorf("%.100q is of type %s, but its value is a %T", kv.Key, kv.Type, kv.Value)
		case kv.Key == alignmentKey:
			if align, err = checkAlignment(kv); err != nil {
				return 0, err
			}
		}
		used[kv.Key] = true
		b = appendString(b, kv.Key)
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
		if t == Array {
			b = binary.LittleEndian.AppendUint32(b, uint32(elem))
		}
		b = appendValue(b, kv.Value)
	}
	l.Header = b
	return align, nil
}

// appendInfo appends a tensor's info.
func appendInfo(b []byte, t Tensor) []byte {
	b = appendString(b, t.Name)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Dims)))
	for _, d := range t.Dims {
		b = binary.LittleEndian.AppendUint64(b, uint64(d))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
	return binary.LittleEndian.AppendUint64(b, uint64(t.Offset))
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// appendValue appends a value without its type; of an array, the number of
// elements and the elements.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case uint8:
		return append(b, v)
	case int8:
		return append(b, uint8(v))
	case bool:
		if v {
			return append(b, 1)
		}
		return append(b, 0)
	case uint16:
		return binary.LittleEndian.AppendUint16(b, v)
	case int16:
		return binary.LittleEndian.AppendUint16(b, uint16(v))
	case uint32:
		return binary.LittleEndian.AppendUint32(b, v)
	case int32:
		return binary.LittleEndian.AppendUint32(b, uint32(v))
	case float32:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	case uint64:
		return binary.LittleEndian.AppendUint64(b, v)
	case int64:
		return binary.LittleEndian.AppendUint64(b, uint64(v))
	case float64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	case string:
		return appendString(b, v)
	case []uint8:
		return appendElements(b, v)
	case []int8:
		return appendElements(b, v)
	case []bool:
		return appendElements(b, v)
	case []uint16:
		return appendElements(b, v)
	case []int16:
		return appendElements(b, v)
	case []uint32:
		return appendElements(b, v)
	case []int32:
		return appendElements(b, v)
	case []float32:
		return appendElements(b, v)
	case []uint64:
		return appendElements(b, v)
	case []int64:
		return appendElements(b, v)
	case []float64:
		return appendElements(b, v)
	case []string:
		return appendElements(b, v)
	}
	panic(fmt.Sprintf("gguf: internal error: a value of %T", v)) // typeOf has refused it
}

// appendElements appends the number of elements and the elements.
func appendElements[T Scalar](b []byte, elements []T) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(elements)))
	for _, e := range elements {
		b = appendValue(b, e)
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
// the file's first, or -1 when the plan has no such tensor. Padding after it is
// zero bytes.
func (l *Layout) Offset(name string) int64 {
	t, ok := l.Tensor(name)
	if !ok {
		return -1
	}
	return int64(len(l.Header)) + t.Offset
}
