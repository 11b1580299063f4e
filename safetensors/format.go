package safetensors

// What the reader and the writer share: number formats, the description of a
// tensor, and the limits of the format.

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

var (
	// ErrFormat is wrapped by every error that is the fault of the bytes read: a
	// header that lies, a file cut short, an index that does not fit its shards.
	ErrFormat = errors.New("malformed safetensors")
	// ErrLayout is wrapped by errors of planning and writing: tensors that no
	// file can hold, or bytes written outside the plan.
	ErrLayout = errors.New("invalid layout")
)

// The header's length is a multiple of headerAlign in files that we write, and at
// most maxHeader in any file, both as in the reference implementation.
const (
	prefixSize  = 8
	headerAlign = 8
	maxHeader   = 100_000_000
)

// metadataKey is the one key of the header that names no tensor.
const metadataKey = "__metadata__"

// DType is the number format of a tensor, by its name in the header.
type DType string

// The number formats of safetensors 0.8.
const (
	Bool       DType = "BOOL"
	F4         DType = "F4"
	F6E2M3     DType = "F6_E2M3"
	F6E3M2     DType = "F6_E3M2"
	U8         DType = "U8"
	I8         DType = "I8"
	F8E5M2     DType = "F8_E5M2"
	F8E4M3     DType = "F8_E4M3"
	F8E8M0     DType = "F8_E8M0"
	F8E4M3FNUZ DType = "F8_E4M3FNUZ"
	F8E5M2FNUZ DType = "F8_E5M2FNUZ"
	I16        DType = "I16"
	U16        DType = "U16"
	F16        DType = "F16"
	BF16       DType = "BF16"
	I32        DType = "I32"
	U32        DType = "U32"
	F32        DType = "F32"
	C64        DType = "C64"
	F64        DType = "F64"
	I64        DType = "I64"
	U64        DType = "U64"
)

// dtypes gives for each number format its width in bits and its rank. The rank is
// the order of the reference's enumeration; files hold higher ranks first, so that
// every tensor is aligned to its own width.
var dtypes = map[DType]struct{ bits, rank int }{
	Bool: {8, 0}, F4: {4, 1}, F6E2M3: {6, 2}, F6E3M2: {6, 3}, U8: {8, 4}, I8: {8, 5},
	F8E5M2: {8, 6}, F8E4M3: {8, 7}, F8E8M0: {8, 8}, F8E4M3FNUZ: {8, 9}, F8E5M2FNUZ: {8, 10},
	I16: {16, 11}, U16: {16, 12}, F16: {16, 13}, BF16: {16, 14},
	I32: {32, 15}, U32: {32, 16}, F32: {32, 17},
	C64: {64, 18}, F64: {64, 19}, I64: {64, 20}, U64: {64, 21},
}

// Bits returns the width of one element in bits, or 0 for a format that is not
// one of safetensors'.
func (d DType) Bits() int { return dtypes[d].bits }

// Tensor describes one tensor of a file. Begin and End are byte offsets in the
// buffer that follows the header, not in the file.
type Tensor struct {
	Name       string
	DType      DType
	Shape      []int // row-major: the last dimension is contiguous; empty for a scalar
	Begin, End int64
}

// Size returns the length of the tensor's data in bytes.
func (t Tensor) Size() int64 { return t.End - t.Begin }

// Elements returns how many numbers the tensor holds: 1 for a scalar, 0 where a
// dimension is 0.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// byteSize returns the number of bytes that a tensor takes. It fails on an unknown
// number format, a negative dimension, a product that overflows, and sub-byte
// elements that do not fill their last byte.
func byteSize(d DType, shape []int) (int64, error) {
	width := d.Bits()
	if width == 0 {
		return 0, fmt.Errorf("unknown dtype %q", string(d))
	}
	n := uint64(width)
	for _, dim := range shape {
		if dim < 0 {
			return 0, fmt.Errorf("negative dimension in shape %s", shapeString(shape))
		}
		hi, lo := bits.Mul64(n, uint64(dim))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("shape %s overflows", shapeString(shape))
		}
		n = lo
	}
	if n%8 != 0 {
		return 0, fmt.Errorf("shape %s of %s does not fill whole bytes", shapeString(shape), d)
	}
	return int64(n / 8), nil
}

// shapeString formats a shape for a message, of which a hostile file may have
// millions of dimensions.
func shapeString(shape []int) string {
	if len(shape) > 16 {
		return fmt.Sprintf("of %d dimensions", len(shape))
	}
	return fmt.Sprint(shape)
}
