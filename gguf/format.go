package gguf

// What the reader and the writer share: tensor types and their blocks, the
// description of a tensor, limits, and sizes.

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

var (
	// ErrFormat is wrapped by every error that is the fault of the bytes read: a
	// header that lies, a file cut short.
	ErrFormat = errors.New("malformed GGUF")
	// ErrUnsupported is wrapped where a file may be fine but this package does not
	// read it: version 1, a later version, big-endian, an unknown tensor type.
	ErrUnsupported = errors.New("unsupported GGUF")
	// ErrType is wrapped when a metadata entry has another type than was asked for.
	ErrType = errors.New("metadata type mismatch")
	// ErrLayout is wrapped by errors of planning and writing: entries and tensors
	// that no file can hold, or bytes written outside the plan.
	ErrLayout = errors.New("invalid layout")
)

const (
	magic            = "GGUF"
	versionWritten   = 3
	defaultAlignment = 32
	alignmentKey     = "general.alignment"

	maxDims      = 4       // dimensions of a tensor
	maxName      = 63      // bytes of a tensor's name
	maxString    = 1 << 30 // bytes of a string
	maxElements  = 1 << 30 // elements of an array
	maxHeader    = 1 << 30 // bytes of a whole header: ours, llama.cpp has no such limit
	minEntrySize = 8 + 1 + 4 + 1
	minInfoSize  = 8 + 4 + 4 + 8
)

// Type is a tensor type of ggml: how its elements are packed in blocks.
type Type uint32

// The tensor types of ggml, with its numbers. Those missing in the sequence are
// retired there.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
	Q2_0    Type = 42
)

// types gives each type's name and block.
var types = map[Type]struct {
	name         string
	elems, bytes int
}{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, BF16: {"BF16", 1, 2}, F64: {"F64", 1, 8},
	I8: {"I8", 1, 1}, I16: {"I16", 1, 2}, I32: {"I32", 1, 4}, I64: {"I64", 1, 8},
	Q4_0: {"Q4_0", 32, 18}, Q4_1: {"Q4_1", 32, 20}, Q5_0: {"Q5_0", 32, 22}, Q5_1: {"Q5_1", 32, 24},
	Q8_0: {"Q8_0", 32, 34}, Q8_1: {"Q8_1", 32, 36},
	Q2_K: {"Q2_K", 256, 84}, Q3_K: {"Q3_K", 256, 110}, Q4_K: {"Q4_K", 256, 144},
	Q5_K: {"Q5_K", 256, 176}, Q6_K: {"Q6_K", 256, 210}, Q8_K: {"Q8_K", 256, 292},
	IQ1_S: {"IQ1_S", 256, 50}, IQ1_M: {"IQ1_M", 256, 56},
	IQ2_XXS: {"IQ2_XXS", 256, 66}, IQ2_XS: {"IQ2_XS", 256, 74}, IQ2_S: {"IQ2_S", 256, 82},
	IQ3_XXS: {"IQ3_XXS", 256, 98}, IQ3_S: {"IQ3_S", 256, 110},
	IQ4_NL: {"IQ4_NL", 32, 18}, IQ4_XS: {"IQ4_XS", 256, 136},
	TQ1_0: {"TQ1_0", 256, 54}, TQ2_0: {"TQ2_0", 256, 66},
	MXFP4: {"MXFP4", 32, 17}, NVFP4: {"NVFP4", 64, 36}, Q1_0: {"Q1_0", 128, 18}, Q2_0: {"Q2_0", 64, 18},
}

// String returns ggml's name of the type, "Q4_K".
func (t Type) String() string {
	if info, ok := types[t]; ok {
		return info.name
	}
	return fmt.Sprintf("Type(%d)", uint32(t))
}

// Block returns how many elements a block of the type holds and how many bytes it
// takes: (1, 4) for F32, (32, 20) for Q4_1. Both are 0 for an unknown type.
func (t Type) Block() (elems, bytes int) {
	info := types[t]
	return info.elems, info.bytes
}

// ParseType returns the type of the given name, in upper or lower case. The error
// wraps [ErrUnsupported].
func ParseType(name string) (Type, error) {
	for t, info := range types {
		if strings.EqualFold(info.name, name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("gguf: %w: no tensor type %q", ErrUnsupported, name)
}

// Tensor describes one tensor of a file.
type Tensor struct {
	Name   string
	Dims   []int64 // ggml's order: Dims[0] is contiguous; at most 4, empty for a scalar
	Type   Type
	Offset int64 // from the beginning of the data, not of the file
	Size   int64 // bytes, without padding
}

// Elements returns how many numbers the tensor holds.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Dims {
		n *= d
	}
	return n
}

// errType is an unknown tensor type: to a reader a file that it does not support,
// to a writer a mistake in the plan.
var errType = errors.New("unknown tensor type")

// byteSize returns the number of bytes that a tensor takes, without padding. It
// fails on an unknown type (errType), too many dimensions or negative ones, a
// product that overflows, and rows that are not whole blocks.
func byteSize(t Type, dims []int64) (int64, error) {
	info, ok := types[t]
	if !ok {
		return 0, fmt.Errorf("%w %d", errType, uint32(t))
	}
	if len(dims) > maxDims {
		return 0, fmt.Errorf("%d dimensions, more than %d", len(dims), maxDims)
	}
	row := int64(1)
	if len(dims) > 0 {
		row = dims[0]
	}
	if row%int64(info.elems) != 0 {
		return 0, fmt.Errorf("rows of %d elements are not whole blocks of %d (%s)", row, info.elems, t)
	}
	n := uint64(1)
	for _, d := range dims {
		if d < 0 {
			return 0, fmt.Errorf("negative dimension in %v", dims)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("dimensions %v overflow", dims)
		}
		n = lo
	}
	hi, lo := bits.Mul64(n/uint64(info.elems), uint64(info.bytes))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, fmt.Errorf("dimensions %v of %s overflow", dims, t)
	}
	return int64(lo), nil
}

// padded rounds n up to a multiple of align, a power of two. It reports overflow.
func padded(n, align int64) (int64, bool) {
	if n > math.MaxInt64-(align-1) {
		return 0, false
	}
	return (n + align - 1) &^ (align - 1), true
}

// place gives t its size and the offset next, and returns the offset of the tensor
// after it. Both the reader and the writer lay tensors out by it.
func place(t *Tensor, next, align int64) (int64, error) {
	size, err := byteSize(t.Type, t.Dims)
	if err != nil {
		return 0, err
	}
	t.Offset, t.Size = next, size
	space, ok := padded(size, align)
	if !ok || next > math.MaxInt64-maxHeader*2-space {
		return 0, fmt.Errorf("the tensors together are larger than any file can be")
	}
	return next + space, nil
}
