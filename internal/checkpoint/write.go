package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/imatrix"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// Options say what Write makes of a model.
type Options struct {
	Form Form
	// Type is the number format of the weights: a codec's name ("f16"), for GGUF also one of
	// llama-quantize's mixes ("q4_k_m", "q8_0"), or "nf4" or "fp4" for bitsandbytes' 4-bit form; empty
	// keeps each tensor's own where the form can hold it. Vectors, and with 4 bits everything
	// bitsandbytes leaves alone, keep a float type.
	Type string
	// TensorTypes are exceptions from Type: the first whose pattern is found in a matrix's name decides.
	TensorTypes []TensorType
	// FourBit are the options of a 4-bit Type; its Type and DType fields are set by Write.
	FourBit quantize.Options4
	// Importance, where set, weighs the errors of quantized tensors; ImportanceFile is the name of its file
	// for the output's metadata. It is for GGUF alone.
	Importance     *imatrix.Matrix
	ImportanceFile string
	// ShardSize bounds the tensors of a safetensors file, or of a part of a GGUF model, in bytes; 0
	// means one file, whatever its size.
	ShardSize int64
	Workers   int // 0: one a processor
	// ForgetBlocks leaves out what a folder keeps of ggml's quantized blocks beside their values, and does
	// not use it: a tensor that was quantized is then quantized again.
	ForgetBlocks bool
	// Pre is the name of the pre-tokenizer for GGUF where the tokenizer's structure is not to say it.
	Pre string
	// Unsynced leaves it to the caller to make the output durable (wholefile.SyncFolder).
	Unsynced bool
	// Hashed, where set, is told the SHA-256 of each file of tensors by its name. They are computed while
	// the files are written.
	Hashed func(file, sha256 string)
	// Progress, where set, is told the values written so far and in all, from several goroutines.
	Progress func(done, total int64)
	// Errors asks for the root-mean-square error of each tensor that changes its type.
	Errors bool
}

// Written is what Write did to one tensor.
type Written struct {
	Name        string
	Shape       []int
	From, Codec string
	Bytes       int64
	Kept        bool    // the stored bytes went through unchanged
	RMSE        float64 // against the source's values, and its root mean square; with Options.Errors
	RMS         float64
}

// ErrExists is wrapped when the output's name is taken.
var ErrExists = errors.New("it already exists")

// Write writes a model to out, a GGUF file or a folder, which must not exist yet and whose parent
// must. The output appears whole or, on an error, not at all; a GGUF model in several parts has them
// beside out, see [gguf.PartName]. Write fails before the first byte where
// a type cannot be written, and refuses values that are not finite.
func Write(ctx context.Context, c *Checkpoint, out string, o Options) ([]Written, error) {
	if _, err := os.Lstat(out); err == nil {
		return nil, fmt.Errorf("checkpoint: writing %q: %w", out, ErrExists)
	}
	w, err := newWriting(ctx, c, o)
	if err == nil && o.Form == GGUF {
		err = w.gguf(out)
	} else if err == nil {
		err = w.folder(out)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: writing %q: %w", out, err)
	}
	return w.report(), nil
}

// newWriting decides what becomes of each tensor.
func newWriting(ctx context.Context, c *Checkpoint, o Options) (*writing, error) {
	w := &writing{c: c, o: o, ctx: ctx, restored: map[string]bool{}}
	if w.o.Workers == 0 {
		w.o.Workers = runtime.GOMAXPROCS(0)
	}
	return w, w.plan()
}

// writing is one run of Write.
type writing struct {
	c       *Checkpoint
	o       Options
	ctx     context.Context
	mix     *quantize.Mix     // the Type, where it is one
	mixed   map[string]string // the codec it gives a tensor, "" where it leaves it alone
	tensors []*target
	done    atomic.Int64
	total   int64

	spool    *stage          // of kept blocks
	restored map[string]bool // tensors written with the blocks they had
}

// target is a tensor on its way.
type target struct {
	Tensor
	from     string
	codec    quantize.Codec   // nil for 4 bits
	encoder  quantize.Encoder // nil for 4 bits, and where stored bytes are copied
	fourBit  *quantize.Options4
	copied   bool      // stored bytes go through unchanged
	weights  []float32 // importance of the columns, or nil
	rowBytes int64
	cols     int
	heads    int     // rows of a head, where the output's order differs
	offset   float32 // what the output's values are larger by

	blocks *keptBlocks // nil where a folder keeps none of this tensor

	packedBytes int64 // of a 4-bit tensor, with its scales

	mu         sync.Mutex
	err2, val2 map[int]float64 // sums of squares by first row, so that the total does not depend on workers
}

// plan decides what each tensor becomes.
func (w *writing) plan() error {
	params, err := model.Inventory(w.c.Config())
	if err != nil {
		return err
	}
	if err := w.chooseMix(); err != nil {
		return err
	}
	for _, rule := range w.o.TensorTypes {
		if err := checkType(rule.Type); err != nil {
			return err
		}
	}
	kinds := map[string]model.Kind{}
	for _, p := range params {
		kinds[p.Name] = p.Kind
	}
	if err := w.restore(kinds); err != nil {
		return err
	}
	for _, t := range w.c.Tensors() {
		tt := &target{Tensor: t, from: t.Codec, cols: 1, err2: map[int]float64{}, val2: map[int]float64{}}
		if len(t.Shape) > 1 {
			tt.cols = t.Shape[1]
		}
		if w.restored[t.Name] {
			t.Codec = w.c.blocks.weights[t.Name].codec.Name()
		}
		tt.Codec = w.choose(t, kinds[t.Name])
		if err := w.prepare(tt); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		w.total += int64(t.Shape[0]) * int64(tt.cols)
		w.tensors = append(w.tensors, tt)
	}
	return w.checkRules()
}

// checkType refuses a type that cannot be written.
func checkType(name string) error {
	t := strings.ToUpper(name)
	if t == "" || t == "NF4" || t == "FP4" {
		return nil
	}
	if _, err := quantize.LookupEncoder(t); err != nil {
		return noType(name)
	}
	return nil
}

// choose returns the codec a tensor gets, by the rules of the form.
func (w *writing) choose(t Tensor, kind model.Kind) string {
	want := w.wanted(t.Name)
	vector := len(t.Shape) == 1
	if w.o.Form == GGUF {
		if vector || w.mix != nil && w.mixed[t.Name] == "" {
			return "F32"
		}
		if w.mix != nil && w.rule(t.Name) < 0 {
			return w.mixed[t.Name]
		}
		if want == "" {
			if want = t.Codec; !inGGUF(want) {
				want = w.floatType(t.Name, t.Codec)
			}
		}
		if typ, err := gguf.ParseType(want); err == nil {
			if elems, _ := typ.Block(); elems > 0 && t.Shape[1]%elems != 0 {
				return "F16" // what llama.cpp's converter falls back to
			}
		}
		return want
	}
	switch want {
	case "NF4", "FP4":
		if kind != model.KindLinear {
			return w.floatType(t.Name, t.Codec)
		}
		return want
	case "":
		if t.Codec == "NF4" || t.Codec == "FP4" {
			return t.Codec
		}
		return w.floatType(t.Name, t.Codec)
	}
	return want
}

// inGGUF reports whether ggml has a number format.
func inGGUF(codec string) bool {
	_, err := gguf.ParseType(codec)
	return err == nil
}

// floatType returns a source tensor's own type where it is one of the three that models are
// published in, else the type its values were published in, else F32.
func (w *writing) floatType(name, codec string) string {
	switch codec {
	case "F32", "F16", "BF16":
		return codec
	case "NF4", "FP4":
		if q, err := stored4(w.c.Source, name); err == nil && q != nil {
			return dtypeCodec(q.DType)
		}
	}
	return "F32"
}

func dtypeCodec(dtype string) string {
	switch dtype {
	case "bfloat16":
		return "BF16"
	case "float16":
		return "F16"
	}
	return "F32"
}

func codecDType(codec string) string {
	switch codec {
	case "BF16":
		return "bfloat16"
	case "F16":
		return "float16"
	}
	return "float32"
}

// prepare fills in how a chosen codec is written.
func (w *writing) prepare(t *target) error {
	if w.o.Form == GGUF {
		if h := w.c.Config().RowHeads(t.Name); h > 0 {
			t.heads = t.Shape[0] / h
		}
		t.offset = w.c.Config().Offset(t.Name)
	}
	if t.Codec == "NF4" || t.Codec == "FP4" {
		if w.o.Form == GGUF {
			return fmt.Errorf("GGUF has no type %s; write a folder instead (-o a name without .gguf)", t.Codec)
		}
		return w.prepare4(t)
	}
	if w.o.Form != GGUF && t.Codec != "F32" && t.Codec != "F16" && t.Codec != "BF16" {
		return fmt.Errorf("a safetensors folder cannot hold type %s; choose f32, f16, bf16, nf4 or fp4, or write a .gguf", strings.ToLower(t.Codec))
	}
	codec, err := quantize.Lookup(t.Codec)
	if err != nil {
		return err
	}
	t.codec = codec
	elems, bytes := codec.Block()
	t.rowBytes = int64(t.cols/elems) * int64(bytes)
	if t.from == t.Codec && t.offset == 0 && HasRaw(w.c.Source, t.Name) || w.restored[t.Name] {
		t.copied = true
		return nil
	}
	t.blocks = w.keepBlocks(t)
	if t.encoder, err = quantize.LookupEncoder(t.Codec); err != nil {
		return fmt.Errorf("%w; choose a type with --type", err)
	}
	t.weights, err = w.importance(t)
	return err
}

// prepare4 is prepare for the 4-bit codecs. A tensor that keeps its type keeps its blocks, too.
func (w *writing) prepare4(t *target) error {
	o := w.o.FourBit
	o.Type, o.DType = strings.ToLower(t.Codec), codecDType(w.floatType(t.Name, t.from))
	t.fourBit = &o
	if t.from != t.Codec {
		return nil
	}
	q, err := stored4(w.c.Source, t.Name)
	if err != nil {
		return err
	}
	if w.wanted(t.Name) == "" {
		o.BlockSize, o.Double = q.BlockSize, q.Double()
		if o.Double {
			o.NestedBlockSize = q.NestedBlockSize
		}
	}
	unchanged, err := scales4(w.c.Source, t.Name)
	t.copied = unchanged != nil && q.BlockSize == cmp.Or(o.BlockSize, 64) && q.Double() == o.Double
	return err
}

// tensorWriter is a planned file being filled, of either format.
type tensorWriter interface {
	WriteAt(name string, p []byte, off int64) error
	Commit() error
	CommitUnsynced() error
	Close() error
	Hash()
	SHA256() string
}

// begin prepares a file that is to be filled.
func (w *writing) begin(file tensorWriter) {
	if w.o.Hashed != nil {
		file.Hash()
	}
}

// commit gives a finished file its name.
func (w *writing) commit(file tensorWriter, name string) (err error) {
	if w.o.Unsynced {
		err = file.CommitUnsynced()
	} else {
		err = file.Commit()
	}
	if err == nil && w.o.Hashed != nil {
		w.o.Hashed(name, file.SHA256())
	}
	return err
}

// task is a tensor to be written, cut into chunks of rows.
type task struct {
	t      *target
	unit   int  // chunks hold a multiple of this many rows
	quiet  bool // not part of what progress counts
	chunk  func(b *buffers, lo, hi int) error
	finish func() error // after the last chunk; may be nil
	left   atomic.Int64
	place  int // among all, in the order of the files
}

// chunkValues is how many values a worker handles at once: a few MiB.
const chunkValues = 1 << 20

// run works through tasks chunk by chunk, by several workers.
func (w *writing) run(tasks []*task) error {
	type job struct {
		*task
		lo, hi int
	}
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range w.o.Workers {
		workers.Go(func() {
			var b buffers
			for j := range jobs {
				if ctx.Err() != nil {
					continue
				}
				err := j.chunk(&b, j.lo, j.hi)
				if err == nil && j.left.Add(int64(j.lo-j.hi)) == 0 && j.finish != nil {
					err = j.finish()
				}
				if err != nil {
					cancel(fmt.Errorf("tensor %q: %w", j.t.Name, err))
					continue
				}
				if !j.quiet {
					w.progress(int64(j.hi-j.lo) * int64(j.t.cols))
				}
			}
		})
	}
	slices.SortStableFunc(tasks, func(a, b *task) int { return cmp.Compare(a.place, b.place) })
	for _, k := range tasks {
		step := max(1, chunkValues/k.t.cols/k.unit) * k.unit
		k.left.Store(int64(k.t.Shape[0]))
		for lo := 0; lo < k.t.Shape[0] && ctx.Err() == nil; lo += step {
			jobs <- job{k, lo, min(lo+step, k.t.Shape[0])}
		}
	}
	close(jobs)
	workers.Wait()
	return context.Cause(ctx)
}

// plain is the task of writing a tensor into a file, under its name there, where it is number place of
// all.
func (w *writing) plain(t *target, name string, file tensorWriter, place int) *task {
	return &task{t: t, place: place, unit: max(1, t.heads), chunk: func(b *buffers, lo, hi int) error {
		raw, err := w.encode(b, t, lo, hi)
		if err != nil {
			return err
		}
		return file.WriteAt(name, raw, int64(lo)*t.rowBytes)
	}}
}

// buffers are one worker's.
type buffers struct {
	values, back        []float32
	bytes, moved, again []byte
}

func grown[T any](b *[]T, n int) []T {
	if cap(*b) < n {
		*b = make([]T, n)
	}
	return (*b)[:n]
}

// values reads rows [lo, hi) of a tensor and refuses what no model has.
func (w *writing) values(b *buffers, t *target, lo, hi int) ([]float32, error) {
	if t.blocks != nil {
		return w.valuesOfBlocks(b, t, lo, hi)
	}
	values := grown(&b.values, (hi-lo)*t.cols)
	if err := w.c.Rows(t.Name, lo, hi, values); err != nil {
		return nil, err
	}
	return values, finite(values, lo, t.cols)
}

// encode returns rows [lo, hi) of a tensor as they stand in the output.
func (w *writing) encode(b *buffers, t *target, lo, hi int) ([]byte, error) {
	raw := grown(&b.bytes, int(t.rowBytes)*(hi-lo))
	if w.restored[t.Name] {
		values, err := w.values(b, t, lo, hi)
		if err != nil {
			return nil, err
		}
		if err := w.c.blocks.rawRows(t.Name, lo, hi, values, raw); err != nil {
			return nil, err
		}
	} else if t.copied {
		if _, err := w.c.Source.(Raw).RawRows(t.Name, lo, hi, raw); err != nil {
			return nil, err
		}
		if ok, _ := quantize.FiniteBytes(t.codec, raw); !ok {
			values := grown(&b.values, (hi-lo)*t.cols)
			t.codec.Decode(values, raw)
			if err := finite(values, lo, t.cols); err != nil {
				return nil, err
			}
		}
	} else {
		values, err := w.values(b, t, lo, hi)
		if err != nil {
			return nil, err
		}
		if t.offset != 0 {
			for i := range values {
				values[i] += t.offset
			}
		}
		t.encoder.EncodeWeighted(raw, values, t.weights)
		if w.o.Errors {
			back := grown(&b.back, len(values))
			t.encoder.Decode(back, raw)
			t.addError(lo, values, back)
		}
	}
	if t.heads == 0 {
		return raw, nil
	}
	moved := grown(&b.moved, len(raw))
	n := int(t.rowBytes)
	for r := range hi - lo {
		copy(moved[ggufRow(r, t.heads)*n:][:n], raw[r*n:])
	}
	return moved, nil
}

// finite refuses values no model has, which every later computation would spread.
func finite(values []float32, row, cols int) error {
	if quantize.Finite(values) {
		return nil
	}
	for i, v := range values {
		if v-v != 0 {
			return fmt.Errorf("value %v at row %d, column %d; the checkpoint is damaged", v, row+i/cols, i%cols)
		}
	}
	return nil
}
