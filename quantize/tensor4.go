package quantize

import (
	"fmt"
	"math"
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// Options4 says how to quantize to 4 bits. The zero value is NF4 in blocks of
// 64 with plain float32 scales, decoded to float32.
type Options4 struct {
	// Type is "nf4" (the default) or "fp4".
	Type string
	// BlockSize is the number of weights that share a scale: a power of two from
	// 32 to 4096; 0 means 64.
	BlockSize int
	// Double quantizes the scales too, to 8 bits: 4.127 bits a weight in place of
	// 4.5 in blocks of 64.
	Double bool
	// NestedBlockSize is the number of scales that share a scale of their own.
	// Bitsandbytes always writes 256, which 0 means.
	NestedBlockSize int
	// NestedRounding chooses how the scales are rounded to 8 bits.
	NestedRounding Rounding
	// MeanThreads is the number of PyTorch threads whose order of summation the
	// mean of the scales follows; 0 means 1. It matters only with Double, from
	// 32768 scales on (2 Mi weights in blocks of 64): there PyTorch sums a part a
	// thread, so that what bitsandbytes writes depends on the number of threads
	// in the last bit of nested_offset and what follows from it.
	MeanThreads int
	// DType is the type of the original weight, "float32" (the default),
	// "bfloat16" or "float16". It changes no code: it is recorded as the type
	// that bitsandbytes decodes to.
	DType string
}

// Rounding is a way of rounding block scales to the 256 values of the dynamic
// 8-bit map.
type Rounding int

const (
	// RoundingCPU is what bitsandbytes does on a CPU: a scale is first rounded
	// to one of 65536 levels, whose nearest map values are tabulated.
	RoundingCPU Rounding = iota
	// RoundingNearest takes the nearest map value, the lower on a tie.
	RoundingNearest
)

// withDefaults fills in o and refuses what the format does not have.
func (o Options4) withDefaults() (Options4, error) {
	if o.Type == "" {
		o.Type = "nf4"
	}
	if o.BlockSize == 0 {
		o.BlockSize = 64
	}
	if o.NestedBlockSize == 0 {
		o.NestedBlockSize = 256
	}
	if o.DType == "" {
		o.DType = "float32"
	}
	if o.MeanThreads == 0 {
		o.MeanThreads = 1
	}
	switch {
	case codebooks[o.Type] == nil:
		return o, fmt.Errorf("%w: type %q: use nf4 or fp4", ErrUnsupported, o.Type)
	case !validBlockSize(o.BlockSize):
		return o, fmt.Errorf("%w: block size %d: use a power of two from 32 to 4096", ErrUnsupported, o.BlockSize)
	case !validBlockSize(o.NestedBlockSize):
		return o, fmt.Errorf("%w: nested block size %d: use a power of two from 32 to 4096", ErrUnsupported, o.NestedBlockSize)
	case !slices.Contains(dtypes4, o.DType):
		return o, fmt.Errorf("%w: original type %q: use float32, bfloat16 or float16", ErrUnsupported, o.DType)
	case o.MeanThreads < 0 || o.MeanThreads > 1<<16:
		return o, fmt.Errorf("%w: %d threads for the mean", ErrUnsupported, o.MeanThreads)
	case o.NestedRounding != RoundingCPU && o.NestedRounding != RoundingNearest:
		return o, fmt.Errorf("%w: rounding %d of nested scales", ErrUnsupported, o.NestedRounding)
	}
	return o, nil
}

var dtypes4 = []string{"float32", "bfloat16", "float16"}

func validBlockSize(n int) bool { return n >= 32 && n <= 4096 && n&(n-1) == 0 }

// A Tensor4 is a tensor in bitsandbytes' 4-bit form. Blocks run over the
// flattened tensor, so one may begin in the middle of a row. Its fields are
// read-only once it is made: methods may then run concurrently.
type Tensor4 struct {
	Type      string // "nf4" or "fp4"
	BlockSize int    // weights a scale
	DType     string // what bitsandbytes decodes to: "float32", "bfloat16" or "float16"
	Shape     []int  // (out, in) for the weight of a linear layer

	// Packed holds two codes a byte, the first in the high nibble:
	// (weights+1)/2 bytes.
	Packed []byte

	// Absmax holds the scale of each block. It is nil in a double-quantized
	// tensor, which has the fields below instead.
	Absmax []float32

	Codes           []byte        // 8-bit code of each block's scale
	NestedAbsmax    []float32     // scale of each NestedBlockSize codes
	NestedBlockSize int           // codes a nested scale
	NestedMap       *[256]float32 // value of each code
	Offset          float32       // mean of the scales: scale = map[code]*nested + offset
}

// Quantize4 quantizes src, a tensor of the given shape in row-major order. It
// fails with ErrUnsupported on options the format does not have, and with
// ErrFormat where src has the wrong length or holds NaN or an infinity.
func Quantize4(src []float32, shape []int, o Options4) (*Tensor4, error) {
	e, err := NewEncoder4(shape, o)
	if err != nil {
		return nil, err
	}
	if len(src) != e.elems {
		return nil, fmt.Errorf("quantize: quantizing %d values to %s: %w: the shape %v has %d", len(src), e.o.Type, ErrFormat, shape, e.elems)
	}
	packed := make([]byte, e.PackedSize())
	if err := e.EncodeAt(packed, src, 0); err != nil {
		return nil, err
	}
	t, err := e.Finish()
	if err != nil {
		return nil, err
	}
	t.Packed = packed
	return t, nil
}

// Double reports whether the scales are quantized too.
func (t *Tensor4) Double() bool { return t.NestedMap != nil }

// Elems is the number of weights.
func (t *Tensor4) Elems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Rows and Cols give the tensor as a matrix: Cols is the last dimension, Rows
// the product of the others.
func (t *Tensor4) Rows() int {
	if t.Cols() == 0 {
		return 0
	}
	return t.Elems() / t.Cols()
}

// Cols is the last dimension of the shape.
func (t *Tensor4) Cols() int { return t.Shape[len(t.Shape)-1] }

// Bytes is the memory that the codes and scales take.
func (t *Tensor4) Bytes() int {
	return len(t.Packed) + 4*len(t.Absmax) + len(t.Codes) + 4*len(t.NestedAbsmax)
}

// DecodeRows writes rows lo to hi (not included) of the matrix to dst, which
// is (hi-lo, Cols): each value is its code's table entry times its block's
// scale, one float32 product. It allocates nothing, may run concurrently, and
// panics if the range or len(dst) does not fit.
func (t *Tensor4) DecodeRows(dst []float32, lo, hi int) {
	cols := t.Cols()
	if lo < 0 || hi < lo || hi > t.Rows() || len(dst) != (hi-lo)*cols {
		panic(fmt.Sprintf("quantize: decoding rows [%d, %d) of %v to %d values", lo, hi, t.Shape, len(dst)))
	}
	t.decode(dst, lo*cols)
}

// WholeRows reports whether every row is whole blocks.
func (t *Tensor4) WholeRows() bool { return t.Cols()%t.BlockSize == 0 }

// DotRows multiplies rows lo to hi (not included) by x, of Cols values: out[r-lo] = x · row r, in the bits
// that the rows of DecodeRows give. It may run concurrently, and panics if the range or a length does not
// fit, or where a row is not whole blocks (see WholeRows).
func (t *Tensor4) DotRows(out, x []float32, lo, hi int) {
	cols := t.Cols()
	if lo < 0 || hi < lo || hi > t.Rows() || len(out) != hi-lo || len(x) != cols || !t.WholeRows() {
		panic(fmt.Sprintf("quantize: multiplying rows [%d, %d) of %v in blocks of %d by %d values to %d", lo, hi, t.Shape, t.BlockSize, len(x), len(out)))
	}
	book, blocks := codebooks[t.Type], cols/t.BlockSize
	if !t.Double() {
		kernel.Dot4(out, x, t.Packed[lo*cols/2:], t.Absmax[lo*blocks:], t.BlockSize, book)
		return
	}
	var run [512]float32 // scales of some rows
	scales := run[:]
	if blocks > len(scales) {
		scales = make([]float32, blocks)
	}
	for lo < hi {
		n := min(len(scales)/blocks, hi-lo)
		t.scales(scales[:n*blocks], lo*blocks)
		kernel.Dot4(out[:n], x, t.Packed[lo*cols/2:], scales[:n*blocks], t.BlockSize, book)
		out, lo = out[n:], lo+n
	}
}

// DecodeRowsRounded is DecodeRows followed by rounding to DType, which is what
// bitsandbytes computes with: its dequantized weight has that type. The two
// are equal when DType is "float32".
func (t *Tensor4) DecodeRowsRounded(dst []float32, lo, hi int) {
	t.DecodeRows(dst, lo, hi)
	switch t.DType {
	case "bfloat16":
		kernel.RoundBF16(dst)
	case "float16":
		kernel.RoundF16(dst)
	}
}

// decode writes len(dst) values from the flattened tensor's off on.
func (t *Tensor4) decode(dst []float32, off int) {
	if len(dst) == 0 {
		return
	}
	book := codebooks[t.Type]
	if !t.Double() {
		block := off / t.BlockSize
		kernel.Decode4(dst, t.Packed[block*t.BlockSize/2:], t.Absmax[block:], off%t.BlockSize, t.BlockSize, book)
		return
	}
	// The scales of a run of blocks are restored at a time, on the stack.
	var scales [64]float32
	for len(dst) > 0 {
		block, skip := off/t.BlockSize, off%t.BlockSize
		n := min(len(dst), len(scales)*t.BlockSize-skip)
		blocks := (skip + n + t.BlockSize - 1) / t.BlockSize
		t.scales(scales[:blocks], block)
		kernel.Decode4(dst[:n], t.Packed[block*t.BlockSize/2:], scales[:blocks], skip, t.BlockSize, book)
		dst, off = dst[n:], off+n
	}
}

// scales restores the scales of blocks block, block+1, … from their codes.
func (t *Tensor4) scales(dst []float32, block int) {
	for len(dst) > 0 {
		n := min(len(dst), t.NestedBlockSize-block%t.NestedBlockSize) // of one nested block
		nested := t.NestedAbsmax[block/t.NestedBlockSize]
		for i, c := range t.Codes[block:][:n] {
			dst[i] = float32(t.NestedMap[c]*nested) + t.Offset
		}
		dst, block = dst[n:], block+n
	}
}

// checkShape counts the elements of a shape.
func checkShape(shape []int) (int, error) {
	if len(shape) == 0 {
		return 0, fmt.Errorf("%w: the shape is empty", ErrFormat)
	}
	n := 1
	for _, d := range shape {
		if d <= 0 {
			return 0, fmt.Errorf("%w: dimension %d in shape %v", ErrFormat, d, shape)
		}
		if n > math.MaxInt/16/d {
			return 0, fmt.Errorf("%w: shape %v is too large", ErrFormat, shape)
		}
		n *= d
	}
	return n, nil
}
