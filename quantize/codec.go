package quantize

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"unsafe"

	"github.com/graftml/graft/internal/kernel"
)

var (
	// ErrFormat is wrapped by errors about stored data that break their format.
	ErrFormat = errors.New("malformed quantized data")
	// ErrUnsupported is wrapped by errors about a number format, a block size or
	// a direction that this package does not have.
	ErrUnsupported = errors.New("unsupported number format")
)

// A Codec is one of the number formats that checkpoints store tensors in, by
// the name ggml gives it. A tensor's values are cut into blocks in row-major
// order; a block is the least that can be read alone. Codecs hold no state and
// are safe for concurrent use.
type Codec interface {
	// Name is the format's name in ggml's spelling, such as "Q4_K".
	Name() string
	// Block is the number of values in a block and of bytes that store them:
	// (1, 2) for F16, (32, 34) for Q8_0.
	Block() (elems, bytes int)
	// Decode writes the values of the whole blocks in src to dst. It panics
	// unless len(dst) is a multiple of elems and len(src) its size.
	Decode(dst []float32, src []byte)
}

// An Encoder is a Codec that can also write its format. Its bytes are those of
// ggml's quantizer.
type Encoder interface {
	Codec
	// Encode writes src, whole blocks, to dst. It panics unless len(src) is a
	// multiple of elems and len(dst) its size.
	Encode(dst []byte, src []float32)
	// EncodeWeighted is Encode for whole rows of a tensor, whose errors are to
	// be least where it matters: importance holds a weight for each column,
	// none of them negative, such as an importance matrix has; nil makes it
	// Encode. It panics also unless a row is whole blocks and src whole rows.
	// Formats whose codes leave nothing to choose (Q8_0, MXFP4 and those
	// without blocks) do as Encode does.
	EncodeWeighted(dst []byte, src, importance []float32)
}

// Lookup returns the codec of a format by its name, as ggml writes it: F64 F32
// F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS
// MXFP4, and, to be read alone, IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S
// TQ1_0 TQ2_0 NVFP4 Q1_0 Q2_0; or as safetensors does: I8 F8_E4M3 F8_E5M2.
// Another name gives ErrUnsupported.
func Lookup(name string) (Codec, error) {
	if c, ok := codecs[name]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("quantize: looking up number format %q: %w (there are %v)", name, ErrUnsupported, Names())
}

// LookupEncoder is Lookup for writing. It gives ErrUnsupported for a format
// that can only be read.
func LookupEncoder(name string) (Encoder, error) {
	c, err := Lookup(name)
	if err != nil {
		return nil, err
	}
	if e, ok := c.(Encoder); ok {
		return e, nil
	}
	return nil, fmt.Errorf("quantize: writing %s: %w: it can only be read", name, ErrUnsupported)
}

// CanEncode reports whether c can write its format, that is whether it is an
// Encoder.
func CanEncode(c Codec) bool {
	_, ok := c.(Encoder)
	return ok
}

// Names lists the formats that Lookup knows, sorted.
func Names() []string {
	names := make([]string, 0, len(codecs))
	for name := range codecs {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Size is the number of bytes that n values take in c. It gives ErrFormat if n
// is negative, not a whole number of blocks or too large to count.
func Size(c Codec, n int) (int, error) {
	elems, bytes := c.Block()
	if n < 0 || n%elems != 0 {
		return 0, fmt.Errorf("quantize: sizing %d values of %s: %w: not a multiple of the block's %d", n, c.Name(), ErrFormat, elems)
	}
	if n/elems > math.MaxInt/bytes {
		return 0, fmt.Errorf("quantize: sizing %d values of %s: %w: too many", n, c.Name(), ErrFormat)
	}
	return n / elems * bytes, nil
}

// codecs holds every format under its name.
var codecs = func() map[string]Codec {
	m := map[string]Codec{}
	for _, c := range []Codec{
		plain(codec{"F64", 1, 8, decodeF64, nil}, encodeF64),
		plain(codec{"F32", 1, 4, decodeF32, nil}, encodeF32),
		plain(of(kernel.F16), kernel.F32ToF16),
		plain(of(kernel.BF16), kernel.F32ToBF16),
		plain(of(kernel.Q8_0), kernel.EncodeQ8_0),
		blocks(of(kernel.Q4_0), kernel.EncodeQ4_0, weightedQ4_0),
		blocks(of(kernel.Q4_1), kernel.EncodeQ4_1, weightedQ4_1),
		blocks(of(kernel.Q5_0), kernel.EncodeQ5_0, weightedQ5_0),
		blocks(of(kernel.Q5_1), kernel.EncodeQ5_1, weightedQ5_1),
		encoder{of(kernel.IQ4_NL), encodeIQ4NL},
		plain(of(kernel.MXFP4), encodeMXFP4),
		encoder{of(kernel.Q2_K), q2k.encode},
		encoder{of(kernel.Q3_K), encodeQ3K},
		encoder{of(kernel.Q4_K), q4k.encode},
		encoder{of(kernel.Q5_K), q5k.encode},
		encoder{of(kernel.Q6_K), encodeQ6K},
		encoder{of(kernel.IQ4_XS), encodeIQ4XS},
		codec{"IQ1_S", 256, 50, decodeIQ1S, nil},
		codec{"IQ1_M", 256, 56, decodeIQ1M, nil},
		codec{"IQ2_XXS", 256, 66, decodeIQ2XXS, nil},
		codec{"IQ2_XS", 256, 74, decodeIQ2XS, nil},
		codec{"IQ2_S", 256, 82, decodeIQ2S, nil},
		codec{"IQ3_XXS", 256, 98, decodeIQ3XXS, nil},
		codec{"IQ3_S", 256, 110, decodeIQ3S, nil},
		codec{"TQ1_0", 256, 54, decodeTQ1, nil},
		codec{"TQ2_0", 256, 66, decodeTQ2, nil},
		codec{"NVFP4", 64, 36, decodeNVFP4, nil},
		codec{"Q1_0", 128, 18, decodeQ1_0, nil},
		codec{"Q2_0", 64, 18, decodeQ2_0, nil},
		of(kernel.I8),
		of(kernel.F8_E4M3),
		of(kernel.F8_E5M2),
	} {
		m[c.Name()] = c
	}
	return m
}()

// of is the codec of a format that package kernel decodes.
func of(f kernel.Format) codec {
	elems, bytes := f.Block()
	return codec{f.String(), elems, bytes, f.Decode, f.Dot}
}

// plain is a format whose codes leave nothing to choose.
func plain(c codec, encode func([]byte, []float32)) encoder {
	return encoder{c, func(dst []byte, src, _ []float32) { encode(dst, src) }}
}

// blocks is a format of 32 values that has one way without importance and another with it.
func blocks(c codec, encode func([]byte, []float32), weighted func(dst []byte, src, importance []float32)) encoder {
	return encoder{c, func(dst []byte, src, importance []float32) {
		if importance == nil {
			encode(dst, src)
		} else {
			weighted(dst, src, importance)
		}
	}}
}

// Dot returns how rows of c are multiplied by x without being decoded first: out[r] = x · row r, where src
// holds len(out) rows of len(x) values. The bits are those that the decoded rows give. It returns nil
// where there is no such way.
func Dot(c Codec) func(out, x []float32, src []byte) {
	switch c := c.(type) {
	case codec:
		return c.dot
	case encoder:
		return c.dot
	}
	return nil
}

// codec implements Codec; decode and dot, which may be nil, take slices whose lengths fit.
type codec struct {
	name         string
	elems, bytes int
	decode       func(dst []float32, src []byte)
	dot          func(out, x []float32, src []byte)
}

func (c codec) Name() string      { return c.name }
func (c codec) Block() (int, int) { return c.elems, c.bytes }

func (c codec) Decode(dst []float32, src []byte) {
	c.check("decoding", len(dst), len(src))
	c.decode(dst, src)
}

func (c codec) check(doing string, values, bytes int) {
	if values%c.elems != 0 || bytes != values/c.elems*c.bytes {
		panic(fmt.Sprintf("quantize: %s %s: %d values do not go with %d bytes: a block is %d values in %d bytes", doing, c.name, values, bytes, c.elems, c.bytes))
	}
}

// encoder implements Encoder; importance is nil or of a length that fits.
type encoder struct {
	codec
	encode func(dst []byte, src, importance []float32)
}

func (e encoder) Encode(dst []byte, src []float32) { e.EncodeWeighted(dst, src, nil) }

func (e encoder) EncodeWeighted(dst []byte, src, importance []float32) {
	e.check("encoding", len(src), len(dst))
	if n := len(importance); importance != nil && (n == 0 || n%e.elems != 0 || len(src)%n != 0) {
		panic(fmt.Sprintf("quantize: encoding %s: %d values are not whole rows of %d columns in blocks of %d", e.name, len(src), n, e.elems))
	}
	if len(src) > 0 {
		e.encode(dst, src, importance)
	}
}

func decodeF64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
	}
}

func encodeF64(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
	}
}

// littleEndian: float32s lie in memory as they do in files.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func decodeF32(dst []float32, src []byte) {
	if littleEndian {
		copy(memory(dst), src)
		return
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encodeF32(dst []byte, src []float32) {
	if littleEndian {
		copy(dst, memory(src))
		return
	}
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

// memory is the bytes that x lies in.
func memory(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}
