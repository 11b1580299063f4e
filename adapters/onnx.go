package adapters

// The .onnx_adapter file of ONNX Runtime: named tensors in a FlatBuffer. Written and read here
// without the FlatBuffers library: the schema is two tables.
//
//	table Parameter { name: string; dims: [int64]; data_type: int32; raw_data: [ubyte]; }
//	table Adapter   { format_version: int32; adapter_version: int32; model_version: int32; parameters: [Parameter]; }

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/wholefile"
)

const (
	onnxIdentifier    = "TORT" // of the file, at byte 4
	onnxFormatVersion = 1      // the only one ONNX Runtime loads
	onnxFloat         = 1      // data_type of float32, in ONNX's numbering
	maxONNX           = math.MaxInt32
	maxDims           = 8
)

// Tensor is a named float32 tensor of an ONNX adapter file.
type Tensor struct {
	Name  string    // of the graph input that it fills
	Shape []int     // row-major
	Data  []float32 // as many values as the shape says
}

// ONNXSlot is the names of the inputs that a graph has for the pair of a module.
type ONNXSlot struct {
	A    string // (In, R)
	B    string // (R, Out), with the scale
	Gain string // (Out) of DoRA, "" where the graph has none
}

// ONNXTensors returns the adapter as the tensors that a graph with MatMul(MatMul(x, A), B) takes, or for an
// embedding table MatMul(Gather(A, x), B): for each pair, A transposed to (In, R), and B transposed to
// (R, Out) and multiplied by the scale; for a pair of DoRA the gains too, see [Adapter.Gains].
// Slot gives the names of the graph's inputs of a module, and false where it has none for it. The
// error wraps [ErrMismatch] then, and where the adapter is more than such pairs.
func (a *Adapter) ONNXTensors(slot func(module string) (ONNXSlot, bool), gains map[string][]float32) ([]Tensor, error) {
	tensors, err := a.onnxTensors(slot, gains)
	if err != nil {
		return nil, fmt.Errorf("adapters: converting %q: %w", a.Name, err)
	}
	return tensors, nil
}

func (a *Adapter) onnxTensors(slot func(module string) (ONNXSlot, bool), gains map[string][]float32) ([]Tensor, error) {
	if len(a.Whole) > 0 {
		return nil, fmt.Errorf("%w: it replaces %q (modules_to_save or trained biases), for which a graph has no inputs; merge it into its base (graft merge), and export that", ErrMismatch, a.Whole[0].Name)
	}
	if len(a.Rows) > 0 {
		return nil, fmt.Errorf("%w: it replaces rows of %q (trainable_token_indices), which become a pair where the base is known (--base); or merge it into its base (graft merge), and export that", ErrMismatch, a.Rows[0].Module)
	}
	tensors := make([]Tensor, 0, 2*len(a.Pairs))
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if err := p.validate(); err != nil {
			return nil, err
		}
		s, ok := slot(p.Module)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: the graph has no inputs for %q; export the model again with this adapter (graft convert --to onnx --adapter), or merge it into its base (graft merge) and export that", ErrMismatch, p.Module)
		case p.Bias != nil:
			return nil, fmt.Errorf("%w: %q has a bias on B (lora_bias), for which a graph has no input; merge it into its base (graft merge) where that has biases, and export that", ErrMismatch, p.Module)
		case p.Magnitude != nil && s.Gain == "":
			return nil, fmt.Errorf("%w: the graph has no input for the gains of DoRA on %q; export the model again with this adapter (graft convert --to onnx --adapter), or merge it into its base (graft merge) and export that", ErrMismatch, p.Module)
		case p.Magnitude != nil && gains[p.Module] == nil:
			return nil, fmt.Errorf("%w: the gains of DoRA on %q follow from the base's weights: name the base (--base), or merge it into its base (graft merge) and export that", ErrMismatch, p.Module)
		}
		ta := Tensor{s.A, []int{p.In, p.R}, transpose(p.A, p.R, p.In)}
		tb := Tensor{s.B, []int{p.R, p.Out}, transpose(p.B, p.Out, p.R)}
		scale := float32(p.Scale)
		for j := range tb.Data {
			tb.Data[j] *= scale
		}
		tensors = append(tensors, ta, tb)
		if p.Magnitude != nil {
			tensors = append(tensors, Tensor{s.Gain, []int{p.Out}, gains[p.Module]})
		}
		for _, t := range tensors[len(tensors)-2:] {
			if k := slices.IndexFunc(t.Data, func(v float32) bool { return v-v != 0 }); k >= 0 {
				return nil, fmt.Errorf("%w: %q would have %v at value %d: the adapter's scale is %v, or the base has a row of next to nothing there", ErrFormat, t.Name, t.Data[k], k, p.Scale)
			}
		}
	}
	return tensors, nil
}

// transpose returns the (cols, rows) transpose of x (rows, cols).
func transpose(x []float32, rows, cols int) []float32 {
	out := make([]float32, len(x))
	kernel.Transpose(out, x, rows, cols)
	return out
}

// WriteONNX writes tensors as the .onnx_adapter file at path, whole or not at all. The same tensors
// make the same bytes.
func WriteONNX(path string, tensors []Tensor) error {
	data, err := EncodeONNX(tensors)
	if err == nil {
		err = wholefile.WriteFile(path, data)
	}
	if err != nil {
		return fmt.Errorf("adapters: writing %q: %w", path, err)
	}
	return nil
}

// ReadONNX reads the .onnx_adapter file at path. The error wraps [ErrFormat] where the file is
// damaged and [ErrUnsupported] where its tensors are not float32.
func ReadONNX(path string) ([]Tensor, error) {
	data, err := wholefile.ReadFile(path, maxONNX, ErrFormat)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", path, err)
	}
	tensors, err := DecodeONNX(data)
	if err != nil {
		return nil, fmt.Errorf("adapters: reading %q: %w", filepath.Base(path), err)
	}
	return tensors, nil
}

// Both kinds of tables have the same vtable: its own length, the table's length, and where the four
// fields lie in the table.
var onnxVtable = [6]uint16{12, 20, 4, 8, 12, 16}

// EncodeONNX returns the bytes of an .onnx_adapter file of the tensors.
func EncodeONNX(tensors []Tensor) ([]byte, error) {
	size := 64
	for _, t := range tensors {
		if err := t.validate(); err != nil {
			return nil, err
		}
		size += 64 + len(t.Name) + 8*len(t.Shape) + 4*len(t.Data)
		if size > maxONNX {
			return nil, fmt.Errorf("%w: the tensors take more than the 2 GiB that the file can hold", ErrUnsupported)
		}
	}
	le := binary.LittleEndian
	b := make([]byte, 0, size)
	b = le.AppendUint32(b, 20) // the root table's place
	b = append(b, onnxIdentifier...)
	vtable := len(b)
	for _, v := range onnxVtable {
		b = le.AppendUint16(b, v)
	}
	root := len(b)
	b = le.AppendUint32(b, uint32(root-vtable))
	b = le.AppendUint32(b, onnxFormatVersion)
	b = le.AppendUint32(b, 1) // adapter_version and model_version: free for the user, and read by nobody
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, 4) // the vector follows
	b = le.AppendUint32(b, uint32(len(tensors)))
	offsets := len(b)
	b = append(b, make([]byte, 4*len(tensors))...)
	// point stores at place the distance from there to the end of what is written.
	point := func(place int) { le.PutUint32(b[place:], uint32(len(b)-place)) }
	for i, t := range tensors {
		point(offsets + 4*i)
		table := len(b)
		b = le.AppendUint32(b, uint32(table-vtable))
		b = append(b, make([]byte, 16)...)
		le.PutUint32(b[table+12:], onnxFloat)

		point(table + 4)
		b = le.AppendUint32(b, uint32(len(t.Name)))
		b = append(append(b, t.Name...), 0)
		b = alignVector(b)
		point(table + 8)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for _, d := range t.Shape {
			b = le.AppendUint64(b, uint64(d))
		}
		b = alignVector(b)
		point(table + 16)
		b = le.AppendUint32(b, uint32(4*len(t.Data)))
		for _, v := range t.Data {
			b = le.AppendUint32(b, math.Float32bits(v))
		}
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b, nil
}

// alignVector pads so that what follows the next four bytes, a vector's length, begins at a multiple
// of eight.
func alignVector(b []byte) []byte {
	for len(b)%8 != 4 {
		b = append(b, 0)
	}
	return b
}

func (t *Tensor) validate() error {
	n := 1
	for _, d := range t.Shape {
		if d < 0 || d > maxONNX || d > 0 && n > maxONNX/d {
			return fmt.Errorf("%w: tensor %q has shape %v", ErrFormat, t.Name, t.Shape)
		}
		n *= d
	}
	switch {
	case t.Name == "" || !utf8.ValidString(t.Name):
		return fmt.Errorf("%w: tensor name %q", ErrFormat, t.Name)
	case len(t.Shape) > maxDims:
		return fmt.Errorf("%w: tensor %q has %d dimensions", ErrFormat, t.Name, len(t.Shape))
	case n != len(t.Data):
		return fmt.Errorf("%w: tensor %q of shape %v has %d values", ErrFormat, t.Name, t.Shape, len(t.Data))
	}
	return nil
}

// DecodeONNX reads the bytes of an .onnx_adapter file, whoever wrote it: every offset is checked
// against the file before it is followed. The tensors do not share memory with data.
func DecodeONNX(data []byte) ([]Tensor, error) {
	if len(data) <= 8 || string(data[4:8]) != onnxIdentifier {
		return nil, fmt.Errorf("%w: it does not begin as an ONNX Runtime adapter does", ErrFormat)
	}
	f := &flat{data: data}
	root := f.table(f.follow(0))
	if version := f.int32Field(root, 0); f.err == nil && version != onnxFormatVersion {
		return nil, fmt.Errorf("%w: format version %d; only %d is known", ErrUnsupported, version, onnxFormatVersion)
	}
	vector, n := f.vector(f.field(root, 3), 4)
	if f.err != nil {
		return nil, f.err
	}
	tensors := make([]Tensor, 0, n)
	seen := make(map[string]bool, n)
	total := 0
	for i := range n {
		t, err := f.parameter(f.follow(vector + 4*i))
		if err != nil {
			return nil, fmt.Errorf("parameter %d: %w", i, err)
		}
		// Offsets may share bytes, so that a short file could claim a great many tensors.
		if total += 4*len(t.Data) + 8*len(t.Shape) + len(t.Name); total > len(data) {
			return nil, fmt.Errorf("%w: parameter %d: parameters share bytes", ErrFormat, i)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("%w: parameter %q is there twice", ErrFormat, t.Name)
		}
		seen[t.Name] = true
		tensors = append(tensors, t)
	}
	return tensors, nil
}

// parameter reads one tensor from the table at place at.
func (f *flat) parameter(at int) (Tensor, error) {
	table := f.table(at)
	name, n := f.vector(f.field(table, 0), 1)
	dims, rank := f.vector(f.field(table, 1), 8)
	kind := f.int32Field(table, 2)
	raw, size := f.vector(f.field(table, 3), 1)
	if f.err != nil {
		return Tensor{}, f.err
	}
	t := Tensor{Name: string(f.data[name : name+n])}
	if kind != onnxFloat {
		return t, fmt.Errorf("%w: tensor %q has data type %d; only float32 (%d) is known", ErrUnsupported, t.Name, kind, onnxFloat)
	}
	if rank > maxDims || size%4 != 0 {
		return t, fmt.Errorf("%w: tensor %q has %d dimensions and %d bytes", ErrFormat, t.Name, rank, size)
	}
	t.Shape = make([]int, rank)
	for i := range t.Shape {
		d := binary.LittleEndian.Uint64(f.data[dims+8*i:])
		if d > maxONNX {
			return t, fmt.Errorf("%w: tensor %q has a dimension of %d", ErrFormat, t.Name, d)
		}
		t.Shape[i] = int(d)
	}
	t.Data = make([]float32, size/4)
	for i := range t.Data {
		t.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(f.data[raw+4*i:]))
	}
	return t, t.validate()
}

// flat walks a FlatBuffer. The first thing that lies outside the data sets err, after which every
// method returns zero.
type flat struct {
	data []byte
	err  error
}

// span reports whether n bytes at place at lie inside the data, and sets err where not.
func (f *flat) span(at, n int) bool {
	if f.err == nil && (at < 0 || n < 0 || at > len(f.data) || n > len(f.data)-at) {
		f.err = fmt.Errorf("%w: it points outside its %d bytes; the file is cut short or damaged", ErrFormat, len(f.data))
	}
	return f.err == nil
}

// follow reads the unsigned offset at a place and returns the place it points to.
func (f *flat) follow(at int) int {
	if !f.span(at, 4) {
		return 0
	}
	return at + int(binary.LittleEndian.Uint32(f.data[at:]))
}

// table checks the table at a place and its vtable, and returns the place of the table.
func (f *flat) table(at int) int {
	if !f.span(at, 4) {
		return 0
	}
	vtable := at - int(int32(binary.LittleEndian.Uint32(f.data[at:])))
	if !f.span(vtable, 4) {
		return 0
	}
	own, size := int(binary.LittleEndian.Uint16(f.data[vtable:])), int(binary.LittleEndian.Uint16(f.data[vtable+2:]))
	if own < 4 || own%2 != 0 || size < 4 {
		f.err = fmt.Errorf("%w: a table of %d bytes with a vtable of %d", ErrFormat, size, own)
		return 0
	}
	f.span(vtable, own)
	f.span(at, size)
	return at
}

// slot returns the place of a table's field, or 0 where the field has its default value.
func (f *flat) slot(table, i int) int {
	if f.err != nil {
		return 0
	}
	vtable := table - int(int32(binary.LittleEndian.Uint32(f.data[table:])))
	if 4+2*i+2 > int(binary.LittleEndian.Uint16(f.data[vtable:])) {
		return 0
	}
	off := int(binary.LittleEndian.Uint16(f.data[vtable+4+2*i:]))
	if off == 0 {
		return 0
	}
	if off < 4 || off+4 > int(binary.LittleEndian.Uint16(f.data[vtable+2:])) {
		f.err = fmt.Errorf("%w: a field lies outside its table", ErrFormat)
		return 0
	}
	return table + off
}

// int32Field returns an integer field, 0 where it is absent.
func (f *flat) int32Field(table, i int) int32 {
	at := f.slot(table, i)
	if at == 0 {
		return 0
	}
	return int32(binary.LittleEndian.Uint32(f.data[at:]))
}

// field returns the place that an offset field points to, 0 where it is absent.
func (f *flat) field(table, i int) int {
	at := f.slot(table, i)
	if at == 0 {
		return 0
	}
	return f.follow(at)
}

// vector returns the place of the first element and the number of elements of a vector at a
// place; an absent one has none.
func (f *flat) vector(at, elementSize int) (first, n int) {
	if f.err != nil || at == 0 || !f.span(at, 4) {
		return 0, 0
	}
	n = int(binary.LittleEndian.Uint32(f.data[at:]))
	if n > len(f.data)/elementSize || !f.span(at+4, n*elementSize) {
		f.span(at, -1)
		return 0, 0
	}
	return at + 4, n
}
