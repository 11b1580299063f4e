package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/autograd"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// ErrModel is wrapped by errors about a checkpoint that is not a whole, sound model.
var ErrModel = errors.New("unusable model")

// ErrAdapter is wrapped by errors about an adapter that the model does not hold or that does not fit.
var ErrAdapter = errors.New("unusable adapter")

// ErrBatch is wrapped by errors about tokens or targets that the model cannot take.
var ErrBatch = errors.New("unusable batch")

// Options says how weights are held.
type Options struct {
	// Quant quantizes the products inside blocks, which is what bitsandbytes does by default: not the
	// head, the embedding, norms and biases. Nil holds them as float32. Weights that the checkpoint
	// stores in 4 bits stay as they are in either case.
	Quant *quantize.Options4
	// AsStored holds matrices in the checkpoint's own number format where that takes less memory: blocks
	// of GGUF types are decoded a few rows at a time inside each product, with the same results and in
	// somewhat more time. Full training needs dense weights.
	AsStored bool
	// BF16 computes products with frozen weights and with adapters, forward and backward, on operands
	// rounded to bfloat16 with float32 sums. Matrices that are not quantized are held in bfloat16, the
	// embedding too, and in training the values between operations, the residual stream aside.
	// Adapters and their gradients are float32, and so is all arithmetic but the products'.
	BF16 bool
	// Layout is the order in which the values of dense matrices lie in memory: that of the products
	// that they will be used in most. Results are the same. Full training needs rows.
	Layout kernel.Layout
}

// layoutOf is the order of a parameter. Vectors, and a table that is no head, are in no product.
func layoutOf(c *model.Config, p model.Param, l kernel.Layout) kernel.Layout {
	if len(p.Shape) != 2 || p.Kind == model.KindEmbedding && !c.Tied {
		return kernel.ByRows
	}
	return l
}

// Model is a decoder in memory.
type Model struct {
	config  *model.Config
	bf16    bool // Options.BF16
	graph   *autograd.Graph
	weights map[string]*autograd.Weight // by stored name
	output  *autograd.Weight            // of the head: in the table's memory where they are tied
	params  []model.Param
	linears []model.Linear // by place in the graph
	modules []model.Linear // by place: the products, the table and the head
	places  map[string]int // module → place
	base    adapters.Base

	lock     sync.RWMutex
	adapters map[string]*placed
}

// Load reads every parameter of a model. It fails with ErrModel where one is missing, has another
// shape than the configuration says, or holds NaN or an infinity, naming the tensor.
func Load(src checkpoint.Source, o Options) (*Model, error) {
	c := src.Config()
	params, err := model.Inventory(c)
	if err != nil {
		return nil, fmt.Errorf("engine: loading model: %w", err)
	}
	stored, codecs := map[string][]int{}, map[string]string{}
	for _, t := range src.Tensors() {
		stored[t.Name], codecs[t.Name] = t.Shape, t.Codec
	}
	for _, p := range params {
		shape, ok := stored[p.Name]
		if !ok {
			return nil, fmt.Errorf("engine: loading model: %w: tensor %q is missing", ErrModel, p.Name)
		}
		if !slices.Equal(shape, p.Shape) {
			return nil, fmt.Errorf("engine: loading model: %w: tensor %q has shape %v, but the configuration makes it %v", ErrModel, p.Name, shape, p.Shape)
		}
	}
	l := loader{src: src, options: o, codecs: codecs, params: params, weights: make([]*autograd.Weight, len(params)), errs: make([]error, len(params))}
	kernel.Parallel(len(params), 1, &l)
	m := &Model{config: c, bf16: o.BF16, params: params, weights: map[string]*autograd.Weight{}, adapters: map[string]*placed{}}
	for i, p := range params {
		if l.errs[i] != nil {
			return nil, fmt.Errorf("engine: loading tensor %q: %w", p.Name, l.errs[i])
		}
		m.weights[p.Name] = l.weights[i]
	}
	if err := m.record(); err != nil {
		return nil, err
	}
	return m, nil
}

// loader reads parameters, a range of them a call.
type loader struct {
	src     checkpoint.Source
	options Options
	codecs  map[string]string // tensor → number format
	params  []model.Param
	weights []*autograd.Weight
	errs    []error
	buffers sync.Pool // *[]float32 of pieces, of which a worker needs one at a time
}

func (l *loader) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		p := l.params[i]
		w := &autograd.Weight{Name: p.Name}
		w.Matrix.N, w.Matrix.K = 1, p.Shape[0]
		if len(p.Shape) == 2 {
			w.Matrix.N, w.Matrix.K = p.Shape[0], p.Shape[1]
		}
		l.weights[i], l.errs[i] = w, l.read(p, w)
	}
}

func (l *loader) read(p model.Param, w *autograd.Weight) error {
	if s, ok := l.src.(checkpoint.Packed4); ok {
		t, err := s.Packed4(p.Name)
		if err != nil {
			return err
		}
		if t != nil {
			l.hold(t, w)
			return nil
		}
	}
	if l.options.Quant != nil && p.Kind == model.KindLinear {
		return l.quantize(p, w)
	}
	if n := StoredBytes(l.codecs[p.Name], p.Shape, l.options.BF16); n > 0 && l.options.AsStored && checkpoint.HasRaw(l.src, p.Name) {
		return l.keep(p, w, n)
	}
	half, layout := l.options.BF16 && len(p.Shape) == 2, layoutOf(l.src.Config(), p, l.options.Layout)
	w.Matrix = kernel.NewMatrix(w.Matrix.N, w.Matrix.K, half, layout)
	rows, cols := p.Shape[0], p.Elements()/p.Shape[0]
	step := max(1, loadChunk/cols) // the source keeps a buffer as large as what is asked for
	inPlace := w.Matrix.F32 != nil
	var buf []float32
	if !inPlace {
		step = min(rows, (step+kernel.PanelRows-1)/kernel.PanelRows*kernel.PanelRows)
		b := l.buffer(step * cols)
		defer l.buffers.Put(b)
		buf = *b
	}
	for lo := 0; lo < rows; lo += step {
		hi := min(lo+step, rows)
		if inPlace {
			buf = w.Matrix.F32[lo*cols:]
		}
		piece := buf[:(hi-lo)*cols]
		if err := l.rows(p, lo, hi, piece); err != nil {
			return err
		}
		if !inPlace {
			w.Matrix.SetRows(lo, piece)
		}
	}
	return nil
}

// buffer returns a buffer of n values; its contents are undefined.
func (l *loader) buffer(n int) *[]float32 {
	b, _ := l.buffers.Get().(*[]float32)
	if b == nil {
		b = new([]float32)
	}
	*b = resize(*b, n)
	return b
}

// rows reads rows [lo, hi) of a parameter and fails on NaN and infinities.
func (l *loader) rows(p model.Param, lo, hi int, dst []float32) error {
	if err := l.src.Rows(p.Name, lo, hi, dst); err != nil {
		return err
	}
	return finite(p, lo, dst)
}

// finite fails on NaN and infinities in x, rows from lo on.
func finite(p model.Param, lo int, x []float32) error {
	if quantize.Finite(x) {
		return nil
	}
	cols := p.Shape[len(p.Shape)-1]
	for i, v := range x {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return fmt.Errorf("%w: row %d, column %d is %v", ErrModel, lo+i/cols, i%cols, v)
		}
	}
	return nil
}

// StoredBytes is the memory of a matrix held in a number format of a checkpoint, and 0 where it is not
// held so: it is no matrix, or takes no less than float32, or bfloat16 where products are computed in
// that.
func StoredBytes(codec string, shape []int, bf16 bool) int64 {
	c, err := quantize.Lookup(codec)
	if err != nil || len(shape) != 2 {
		return 0 // NF4, or what cannot be read, of which reading tells
	}
	dense := 4 * int64(shape[0]) * int64(shape[1])
	if bf16 {
		dense /= 2
	}
	row, err := quantize.Size(c, shape[1])
	if n := int64(row) * int64(shape[0]); err == nil && n < dense {
		return n
	}
	return 0
}

// keep reads a matrix of so many bytes as it is stored, and decodes it once to see that it is sound.
func (l *loader) keep(p model.Param, w *autograd.Weight, bytes int64) error {
	c, err := quantize.Lookup(l.codecs[p.Name])
	if err != nil {
		return err
	}
	raw, row := make([]byte, bytes), int(bytes)/p.Shape[0]
	decode := func(dst []float32, lo, hi int) { c.Decode(dst, raw[lo*row:hi*row]) }
	step := max(1, loadChunk/p.Shape[1])
	buf := l.buffer(min(step, p.Shape[0]) * p.Shape[1])
	defer l.buffers.Put(buf)
	for lo := 0; lo < p.Shape[0]; lo += step {
		hi := min(lo+step, p.Shape[0])
		if _, err := l.src.(checkpoint.Raw).RawRows(p.Name, lo, hi, raw[lo*row:hi*row]); err != nil {
			return err
		}
		if ok, _ := quantize.FiniteBytes(c, raw[lo*row:hi*row]); ok {
			continue
		}
		piece := (*buf)[:(hi-lo)*p.Shape[1]]
		decode(piece, lo, hi)
		if err := finite(p, lo, piece); err != nil {
			return err
		}
	}
	w.Matrix.Half = l.options.BF16
	if c.Name() == "BF16" {
		w.Matrix.BF16 = raw
		return nil
	}
	w.Matrix.Decode = decode
	if dot := quantize.Dot(c); dot != nil {
		w.Matrix.Dot = func(out, x []float32, lo, hi int) { dot(out, x, raw[lo*row:hi*row]) }
	}
	return nil
}

// loadChunk is about how many values are read at a time.
const loadChunk = 1 << 18

// quantize reads and quantizes a matrix piece by piece, so that it never exists as a whole in float32.
func (l *loader) quantize(p model.Param, w *autograd.Weight) error {
	e, err := quantize.NewEncoder4(p.Shape, *l.options.Quant)
	if err != nil {
		return err
	}
	rows, cols := p.Shape[0], p.Shape[1]
	step := max(1, loadChunk/cols)
	step = (step + e.BlockSize() - 1) / e.BlockSize() * e.BlockSize() // whole blocks for any width
	packed := make([]byte, e.PackedSize())
	buf := l.buffer(min(step, rows) * cols)
	defer l.buffers.Put(buf)
	for lo := 0; lo < rows; lo += step {
		hi := min(lo+step, rows)
		piece := (*buf)[:(hi-lo)*cols]
		if err := l.src.Rows(p.Name, lo, hi, piece); err != nil {
			return err
		}
		off := lo * cols
		if err := e.EncodeAt(packed[off/2:off/2+(len(piece)+1)/2], piece, off); err != nil {
			if errors.Is(err, quantize.ErrFormat) {
				return fmt.Errorf("%w: %w", ErrModel, err)
			}
			return err
		}
	}
	t, err := e.Finish()
	if err != nil {
		return err
	}
	t.Packed = packed
	l.hold(t, w)
	return nil
}

// hold makes a matrix of one in 4 bits.
func (l *loader) hold(t *quantize.Tensor4, w *autograd.Weight) {
	w.Matrix.Decode, w.Matrix.Half = t.DecodeRows, l.options.BF16
	if t.WholeRows() {
		w.Matrix.Dot = t.DotRows
	}
}

// Config describes the model. It must not be changed.
func (m *Model) Config() *model.Config { return m.config }

// Targets lists the products inside blocks: what PEFT calls all-linear.
func (m *Model) Targets() []model.Linear { return slices.Clone(m.linears) }

// Ends returns the embedding table and the head, which adapters can stand on, too.
func (m *Model) Ends() (table, head model.Linear) {
	return m.modules[m.graph.TablePlace()], m.modules[m.graph.HeadPlace()]
}
