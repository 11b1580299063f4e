package quantize

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// This file holds the form in which bitsandbytes saves a 4-bit tensor: the
// packed codes under the weight's own name, and next to it the scales, the
// tables and a JSON text (as bytes) with what is not a tensor.

// A Saved is one stored tensor of a 4-bit weight. DType is safetensors'
// spelling; Data is little-endian.
type Saved struct {
	Name  string
	DType string // "U8" or "F32"
	Shape []int
	Data  []byte
}

// Names of the tensors that belong to a weight, after its own name and a dot.
const (
	savedAbsmax       = "absmax"
	savedMap          = "quant_map"
	savedNestedAbsmax = "nested_absmax"
	savedNestedMap    = "nested_quant_map"
	savedState        = "quant_state.bitsandbytes__" // and the type
)

// SavedSuffixes lists what may follow a weight's name and a dot in the names
// of its saved tensors.
func SavedSuffixes() []string {
	return []string{savedAbsmax, savedMap, savedNestedAbsmax, savedNestedMap, savedState + "nf4", savedState + "fp4"}
}

// Saved returns the tensors that bitsandbytes saves for t under the weight's
// name: the codes first, with t.Packed as their data, then the tables in
// bitsandbytes' order. The codes share memory with t.
func (t *Tensor4) Saved(name string) []Saved {
	plan := planSaved(name, t.Shape, Options4{Type: t.Type, BlockSize: t.BlockSize, Double: t.Double(), NestedBlockSize: t.NestedBlockSize})
	for i := range plan {
		s := &plan[i]
		switch strings.TrimPrefix(s.Name, name+".") {
		case name:
			s.Data = t.Packed
		case savedAbsmax:
			s.Data = t.Codes
			if !t.Double() {
				s.Data = floatBytes(t.Absmax)
			}
		case savedMap:
			s.Data = floatBytes(codebooks[t.Type].Values[:])
		case savedNestedAbsmax:
			s.Data = floatBytes(t.NestedAbsmax)
		case savedNestedMap:
			s.Data = floatBytes(t.NestedMap[:])
		default:
			s.Data = []byte(t.QuantState())
			s.Shape = []int{len(s.Data)}
		}
	}
	return plan
}

// PlanSaved returns what Saved will, without data, before anything is
// quantized: a writer can lay out its file by it. The one length that depends
// on the weights is that of the JSON text, through the digits of
// nested_offset; its planned shape is the longest it can be. The options are
// those of Quantize4.
func PlanSaved(name string, shape []int, o Options4) ([]Saved, error) {
	o, err := o.withDefaults()
	if err == nil {
		_, err = checkShape(shape)
	}
	if err != nil {
		return nil, fmt.Errorf("quantize: planning %q: %w", name, err)
	}
	plan := planSaved(name, shape, o)
	t := Tensor4{Type: o.Type, BlockSize: o.BlockSize, DType: o.DType, Shape: shape}
	text := len(t.QuantState())
	if o.Double {
		t.NestedBlockSize, t.NestedMap = o.NestedBlockSize, &dynamicMap
		// Offsets are positive. Shortest decimal forms of float64 have at most 17
		// digits, a point and an exponent of two digits with its sign, this being
		// a float32.
		text = len(t.QuantState()) - len("0.0") + len("1.2345678901234567e-38")
	}
	plan[len(plan)-1].Shape = []int{text}
	return plan, nil
}

func planSaved(name string, shape []int, o Options4) []Saved {
	n := 1
	for _, d := range shape {
		n *= d
	}
	blocks := (n + o.BlockSize - 1) / o.BlockSize
	plan := []Saved{
		{Name: name, DType: "U8", Shape: []int{(n + 1) / 2, 1}},
		{Name: name + "." + savedAbsmax, DType: "F32", Shape: []int{blocks}},
		{Name: name + "." + savedMap, DType: "F32", Shape: []int{16}},
	}
	if o.Double {
		plan[1].DType = "U8"
		plan = append(plan,
			Saved{Name: name + "." + savedNestedAbsmax, DType: "F32", Shape: []int{(blocks + o.NestedBlockSize - 1) / o.NestedBlockSize}},
			Saved{Name: name + "." + savedNestedMap, DType: "F32", Shape: []int{256}})
	}
	return append(plan, Saved{Name: name + "." + savedState + o.Type, DType: "U8"})
}

// QuantState is the JSON text that bitsandbytes stores with t, byte for byte.
func (t *Tensor4) QuantState() string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"quant_type": "%s", "blocksize": %d, "dtype": "%s", "shape": [`, t.Type, t.BlockSize, t.DType)
	for i, d := range t.Shape {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(d))
	}
	b.WriteString("]")
	if t.Double() {
		fmt.Fprintf(&b, `, "nested_blocksize": %d, "nested_dtype": "float32", "nested_offset": %s`, t.NestedBlockSize, pythonFloat(float64(t.Offset)))
	}
	b.WriteString("}")
	return b.String()
}

// pythonFloat is Python's repr of a finite float: the shortest digits that
// read back equal, positional from 1e-4 up to 1e16, and always with a point or
// an exponent.
func pythonFloat(v float64) string {
	if a := math.Abs(v); v != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// quantState is the JSON text read back; pointers tell what is absent.
type quantState struct {
	QuantType       *string  `json:"quant_type"`
	BlockSize       *int     `json:"blocksize"`
	DType           *string  `json:"dtype"`
	Shape           []int    `json:"shape"`
	NestedBlockSize *int     `json:"nested_blocksize"`
	NestedDType     *string  `json:"nested_dtype"`
	NestedOffset    *float64 `json:"nested_offset"`
}

// Load4 reads the 4-bit tensor that bitsandbytes saved as name. Get returns a
// stored tensor by its full name; ok is false where there is none, and err is
// passed on. Every length, table and key is checked: an error wraps ErrFormat
// if something is missing or contradicts the rest, ErrUnsupported if it is
// well formed but of a kind this package does not have. The codes may be
// stored under any dtype (bnb_4bit_quant_storage): their bytes are the same.
// Codes and 8-bit scales share memory with what get returned; float tables
// are copied.
func Load4(name string, get func(name string) (dtype string, shape []int, data []byte, ok bool, err error)) (*Tensor4, error) {
	l := loader4{name: name, get: get}
	t, err := l.load()
	if err != nil {
		return nil, fmt.Errorf("quantize: loading 4-bit tensor %q: %w", name, err)
	}
	return t, nil
}

type loader4 struct {
	name  string
	get   func(name string) (string, []int, []byte, bool, error)
	codes *int64 // their number of bytes, where they are not to be read
}

func (l loader4) load() (*Tensor4, error) {
	t, state, err := l.state()
	if err != nil {
		return nil, err
	}
	n, err := checkShape(t.Shape)
	if err != nil {
		return nil, err
	}
	blocks := (n + t.BlockSize - 1) / t.BlockSize
	codes, ok := l.codes, true
	if codes == nil {
		if _, _, t.Packed, ok, err = l.get(l.name); err != nil {
			return nil, err
		}
		have := int64(len(t.Packed))
		codes = &have
	}
	if !ok || *codes != (int64(n)+1)/2 {
		return nil, fmt.Errorf("%w: %d bytes of codes, want %d for shape %v", ErrFormat, *codes, (n+1)/2, t.Shape)
	}
	values, err := l.floats(savedMap, 16)
	if err != nil {
		return nil, err
	}
	for i, want := range codebooks[t.Type].Values {
		// Bitsandbytes decodes with its own table whatever the file says, so a file
		// must say the same, but for rounding in old versions.
		if math.Abs(float64(values[i]-want)) > 1e-6 {
			return nil, fmt.Errorf("%w: %s[%d] is %g, but in %s it is %g", ErrFormat, savedMap, i, values[i], t.Type, want)
		}
	}
	if state.NestedOffset == nil {
		if t.Absmax, err = l.floats(savedAbsmax, blocks); err != nil {
			return nil, err
		}
		return t, nil
	}
	return t, l.nested(t, state, blocks)
}

// state reads the JSON text and checks it as far as it goes alone.
func (l loader4) state() (*Tensor4, *quantState, error) {
	t := &Tensor4{}
	var text []byte
	for _, typ := range []string{"nf4", "fp4"} {
		_, _, data, ok, err := l.get(l.name + "." + savedState + typ)
		if err != nil {
			return nil, nil, err
		}
		if ok && t.Type != "" {
			return nil, nil, fmt.Errorf("%w: both an nf4 and an fp4 quant_state", ErrFormat)
		}
		if ok {
			t.Type, text = typ, data
		}
	}
	if t.Type == "" {
		return nil, nil, fmt.Errorf("%w: no %s… tensor beside it", ErrFormat, savedState)
	}
	const longest = 1 << 16
	if len(text) > longest {
		return nil, nil, fmt.Errorf("%w: quant_state of %d bytes, at most %d are read", ErrFormat, len(text), longest)
	}
	s := &quantState{}
	if err := json.Unmarshal(text, s, json.RejectUnknownMembers(true)); err != nil {
		return nil, nil, fmt.Errorf("%w: quant_state: %v", ErrFormat, err)
	}
	if s.QuantType == nil || s.BlockSize == nil || s.DType == nil || s.Shape == nil {
		return nil, nil, fmt.Errorf("%w: quant_state needs quant_type, blocksize, dtype and shape", ErrFormat)
	}
	t.BlockSize, t.DType, t.Shape = *s.BlockSize, *s.DType, s.Shape
	switch {
	case *s.QuantType != t.Type:
		return nil, nil, fmt.Errorf("%w: quant_type %q under the name of %s", ErrFormat, *s.QuantType, t.Type)
	case !validBlockSize(t.BlockSize):
		return nil, nil, fmt.Errorf("%w: blocksize %d: want a power of two from 32 to 4096", ErrUnsupported, t.BlockSize)
	case !slices.Contains(dtypes4, t.DType):
		return nil, nil, fmt.Errorf("%w: dtype %q: want one of %v", ErrUnsupported, t.DType, dtypes4)
	case (s.NestedBlockSize == nil) != (s.NestedOffset == nil) || (s.NestedDType == nil) != (s.NestedOffset == nil):
		return nil, nil, fmt.Errorf("%w: quant_state needs nested_blocksize, nested_dtype and nested_offset together", ErrFormat)
	}
	return t, s, nil
}

// nested reads the scales of a double-quantized tensor.
func (l loader4) nested(t *Tensor4, s *quantState, blocks int) error {
	t.NestedBlockSize, t.Offset = *s.NestedBlockSize, float32(*s.NestedOffset)
	switch {
	case !validBlockSize(t.NestedBlockSize):
		return fmt.Errorf("%w: nested_blocksize %d: want a power of two from 32 to 4096", ErrUnsupported, t.NestedBlockSize)
	case *s.NestedDType != "float32":
		return fmt.Errorf("%w: nested_dtype %q: want float32", ErrUnsupported, *s.NestedDType)
	case !finite(t.Offset):
		return fmt.Errorf("%w: nested_offset %g passes the largest float32", ErrFormat, *s.NestedOffset)
	}
	var err error
	if t.Codes, err = l.bytes(savedAbsmax, "U8", blocks, 1); err != nil {
		return err
	}
	if t.NestedAbsmax, err = l.floats(savedNestedAbsmax, (blocks+t.NestedBlockSize-1)/t.NestedBlockSize); err != nil {
		return err
	}
	values, err := l.floats(savedNestedMap, 256)
	if err != nil {
		return err
	}
	t.NestedMap = (*[256]float32)(values)
	if *t.NestedMap == dynamicMap {
		t.NestedMap = &dynamicMap // one table for all tensors
	}
	// A product or sum past the largest float32 would decode to an infinity.
	var top float64
	for _, v := range t.NestedMap {
		top = max(top, math.Abs(float64(v)))
	}
	for i, m := range t.NestedAbsmax {
		if !finite(float32(top*math.Abs(float64(m)) + math.Abs(float64(t.Offset)))) {
			return fmt.Errorf("%w: %s[%d] = %g makes scales past the largest float32", ErrFormat, savedNestedAbsmax, i, m)
		}
	}
	return nil
}

// bytes reads one of the tensors beside the weight, of n elements.
func (l loader4) bytes(suffix, dtype string, n, size int) ([]byte, error) {
	got, shape, data, ok, err := l.get(l.name + "." + suffix)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("%w: no %s beside it", ErrFormat, suffix)
	case got != dtype || len(shape) != 1 || shape[0] != n || len(data) != n*size:
		return nil, fmt.Errorf("%w: %s is %s %v in %d bytes, want %s [%d]", ErrFormat, suffix, got, shape, len(data), dtype, n)
	}
	return data, nil
}

// floats is bytes for F32, which must be finite.
func (l loader4) floats(suffix string, n int) ([]float32, error) {
	data, err := l.bytes(suffix, "F32", n, 4)
	if err != nil {
		return nil, err
	}
	x := make([]float32, n)
	decodeF32(x, data)
	for i, v := range x {
		if !finite(v) {
			return nil, fmt.Errorf("%w: %s[%d] is %g", ErrFormat, suffix, i, v)
		}
	}
	return x, nil
}

// floatBytes are the bytes of x as files hold them.
func floatBytes(x []float32) []byte {
	b := make([]byte, 4*len(x))
	encodeF32(b, x)
	return b
}
