package quantize

import (
	"fmt"
	"math"
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// An Encoder4 quantizes a tensor piece by piece, so that a checkpoint of any
// size is written in little memory: it keeps one float32 a block. The codes of
// a piece are final at once; the scales are ready when all pieces are in,
// since double quantization needs their mean. The bytes do not depend on how
// the tensor is cut, nor on the order of the pieces.
type Encoder4 struct {
	o      Options4
	shape  []int
	elems  int
	absmax []float32 // -1 where a block is not in yet
}

// NewEncoder4 prepares to quantize a tensor of the given shape. It fails with
// ErrUnsupported on options the format does not have and with ErrFormat on a
// shape without elements.
func NewEncoder4(shape []int, o Options4) (*Encoder4, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("quantize: preparing 4-bit quantization: %w", err)
	}
	n, err := checkShape(shape)
	if err != nil {
		return nil, fmt.Errorf("quantize: preparing %s quantization: %w", o.Type, err)
	}
	e := &Encoder4{o: o, shape: slices.Clone(shape), elems: n, absmax: make([]float32, (n+o.BlockSize-1)/o.BlockSize)}
	for i := range e.absmax {
		e.absmax[i] = -1
	}
	return e, nil
}

// PackedSize is the number of bytes of codes: two weights a byte.
func (e *Encoder4) PackedSize() int { return (e.elems + 1) / 2 }

// BlockSize is the number of weights a scale, to which pieces must be aligned.
func (e *Encoder4) BlockSize() int { return e.o.BlockSize }

// EncodeAt quantizes src, the elements of the flattened tensor from off on,
// and writes their codes to dst, which is bytes off/2 and following of the
// packed tensor. Off must be a multiple of the block size and so must len(src),
// unless it reaches the tensor's end; len(dst) is (len(src)+1)/2. Calls for
// different pieces may run concurrently. It fails with ErrFormat where src
// holds NaN or an infinity, naming the place.
func (e *Encoder4) EncodeAt(dst []byte, src []float32, off int) error {
	size := e.o.BlockSize
	if off < 0 || off%size != 0 || len(src) > e.elems-off || len(src)%size != 0 && off+len(src) != e.elems || len(dst) != (len(src)+1)/2 {
		return fmt.Errorf("quantize: quantizing elements [%d, %d) of %d to %d bytes of %s: %w: pieces must be whole blocks of %d", off, off+len(src), e.elems, len(dst), e.o.Type, ErrFormat, size)
	}
	absmax := e.absmax[off/size:][:(len(src)+size-1)/size]
	kernel.Encode4(dst, absmax, src, size, codebooks[e.o.Type])
	for b, m := range absmax {
		if finite(m) {
			continue
		}
		for i := b * size; i < len(src); i++ {
			if !finite(src[i]) {
				at := off + i
				cols := e.shape[len(e.shape)-1]
				return fmt.Errorf("quantize: quantizing to %s: %w: row %d, column %d is %g: 4-bit formats hold finite numbers only", e.o.Type, ErrFormat, at/cols, at%cols, src[i])
			}
		}
	}
	return nil
}

func finite(v float32) bool { return math.Float32bits(v)&0x7f800000 != 0x7f800000 }

// Finish returns the tensor once every piece is in, with a nil Packed: the
// codes are where EncodeAt wrote them, and a caller that wants to decode sets
// the field. It fails with ErrFormat if a piece is missing or was refused.
func (e *Encoder4) Finish() (*Tensor4, error) {
	for b, m := range e.absmax {
		if m < 0 || !finite(m) {
			return nil, fmt.Errorf("quantize: finishing %s: %w: block %d of %d has not been quantized", e.o.Type, ErrFormat, b, len(e.absmax))
		}
	}
	t := &Tensor4{Type: e.o.Type, BlockSize: e.o.BlockSize, DType: e.o.DType, Shape: e.shape}
	if !e.o.Double {
		t.Absmax = e.absmax
		return t, nil
	}
	t.NestedBlockSize = e.o.NestedBlockSize
	t.NestedMap = &dynamicMap
	t.Offset = torchMean(e.absmax, e.o.MeanThreads)
	t.Codes = make([]byte, len(e.absmax))
	t.NestedAbsmax = make([]float32, (len(e.absmax)+t.NestedBlockSize-1)/t.NestedBlockSize)
	y := make([]float32, t.NestedBlockSize)
	for b := range t.NestedAbsmax {
		lo := b * t.NestedBlockSize
		hi := min(lo+t.NestedBlockSize, len(e.absmax))
		for i, m := range e.absmax[lo:hi] {
			y[i] = m - t.Offset
		}
		t.NestedAbsmax[b] = encode8(t.Codes[lo:hi], y[:hi-lo], e.o.NestedRounding)
	}
	if !finite(t.Offset) || slices.ContainsFunc(t.NestedAbsmax, func(m float32) bool { return !finite(m) }) {
		return nil, fmt.Errorf("quantize: finishing %s: %w: the sum of the block scales passes the largest float32", e.o.Type, ErrFormat)
	}
	return t, nil
}

// encode8 quantizes one block of y to codes of the dynamic map and returns its
// scale. The codes of an all-zero block are 0, as bitsandbytes' CPU code has
// them; with a scale of 0 any code means 0.
func encode8(codes []byte, y []float32, r Rounding) float32 {
	var top float32
	for _, v := range y {
		top = max(top, v, -v)
	}
	if top == 0 {
		clear(codes)
		return 0
	}
	inv := 1 / top
	for i, v := range y {
		s := max(-1, min(1, float32(v*inv)))
		if r == RoundingCPU {
			codes[i] = dynamicLevels[level(s)]
		} else {
			codes[i] = dynamicCode(s)
		}
	}
	return top
}

// level is the one of 65536 levels of [-1, 1] that bitsandbytes' CPU code
// rounds s to. That library computes the last product and sum as one fused
// operation; the float64 product here is exact, which comes to the same.
func level(s float32) uint16 {
	half := (s + 1) * 0.5
	return uint16(float32(float64(half)*65535 + 0.5))
}

// dynamicCode is the code of the map value nearest to s, the lower on a tie.
func dynamicCode(s float32) byte {
	lo, hi := 0, 255 // the answer lies in [lo, hi]
	for lo < hi {
		mid := (lo + hi) / 2
		if s > dynamicBounds[mid] {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return byte(lo)
}

// torchMean is the mean that PyTorch computes on a CPU with this many threads,
// to the last bit. One thread sums everything below torchGrain elements; above
// it every thread sums a run, and the partial sums, zeros for threads without
// one, are summed like any others.
func torchMean(x []float32, threads int) float32 {
	const torchGrain = 32768
	if len(x) < torchGrain || threads == 1 {
		return torchSum(x) / float32(len(x))
	}
	workers := min(threads, (len(x)+torchGrain-1)/torchGrain)
	run := (len(x) + workers - 1) / workers
	sums := make([]float32, threads)
	for w := range workers {
		sums[w] = torchSum(x[min(w*run, len(x)):min((w+1)*run, len(x))])
	}
	return torchSum(sums) / float32(len(x))
}

// torchSum adds x in PyTorch's order: as vectors of 8 lanes while there are 8
// elements, four vectors at a time in a cascade of partial sums (cascadeSum);
// then the elements left over and the lanes, one by one.
func torchSum(x []float32) float32 {
	if len(x) < 8 {
		return torchRows(x, 1)[0]
	}
	whole := len(x) / 8 * 8
	lanes := torchRows(x[:whole], 8)
	var sum float32
	for _, v := range x[whole:] {
		sum += v
	}
	for _, v := range lanes {
		sum += v
	}
	return sum
}

// torchRows adds the rows of x, each of width (at most 8) elements: rows 0, 4,
// 8, …, rows 1, 5, 9, … and so on by themselves, the last few to the first of
// these sums, then the four sums.
func torchRows(x []float32, width int) [8]float32 {
	rows := len(x) / width
	sums := cascadeSum(x, rows/4, width)
	for r := rows / 4 * 4; r < rows; r++ {
		for l := range width {
			sums[0][l] += x[r*width+l]
		}
	}
	for k := 1; k < 4; k++ {
		for l := range width {
			sums[0][l] += sums[k][l]
		}
	}
	return sums[0]
}

// cascadeSum adds n groups of four rows. Runs of 16 groups (more in a very
// long tensor) are added up, the sums of 16 runs likewise, and so on through
// four levels, so that only numbers of like magnitude meet.
func cascadeSum(x []float32, n, width int) [4][8]float32 {
	power := max(4, ceilLog2(n)/4)
	step := 1 << power
	var acc [4][4][8]float32 // level, row of the group, lane
	add := func(g int) {
		for k := range 4 {
			for l := range width {
				acc[0][k][l] += x[(4*g+k)*width+l]
			}
		}
	}
	g := 0
	for g+step <= n {
		for range step {
			add(g)
			g++
		}
		for level := 1; level < 4; level++ {
			for k := range 4 {
				for l := range width {
					acc[level][k][l] += acc[level-1][k][l]
				}
			}
			acc[level-1] = [4][8]float32{}
			if g&((step-1)<<(level*power)) != 0 {
				break
			}
		}
	}
	for ; g < n; g++ {
		add(g)
	}
	for level := 1; level < 4; level++ {
		for k := range 4 {
			for l := range width {
				acc[0][k][l] += acc[level][k][l]
			}
		}
	}
	return acc[0]
}

// ceilLog2 is the least p with 2^p >= n, 0 for n <= 1.
func ceilLog2(n int) int {
	p := 0
	for 1<<p < n {
		p++
	}
	return p
}
