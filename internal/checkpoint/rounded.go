package checkpoint

import (
	"slices"
	"sync"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// Rounded returns the model with the products inside its blocks rounded to 4 bits and decoded again, as
// the tensors of its own types: the weights that an adapter trained with qlora was trained on. Products
// that are stored in 4 bits stay as they are. It fails where the options are not possible.
func Rounded(c *Checkpoint, o quantize.Options4) (*Checkpoint, error) {
	params, err := model.Inventory(c.Config())
	if err != nil {
		return nil, err
	}
	r := &rounded{Source: c.Source, options: o, shapes: map[string][]int{}}
	for _, p := range params {
		if p.Kind != model.KindLinear {
			continue
		}
		if q, err := scales4(c.Source, p.Name); err != nil || q != nil {
			continue
		}
		if _, err := quantize.NewEncoder4(p.Shape, o); err != nil {
			return nil, err
		}
		r.shapes[p.Name] = p.Shape
	}
	return c.With(r), nil
}

// rounded is a source some tensors of which are rounded to 4 bits.
type rounded struct {
	Source
	options quantize.Options4
	shapes  map[string][]int // of the tensors that are

	lock   sync.Mutex
	recent []*roundedTensor
}

// roundedTensor is one in 4 bits, made at the first call.
type roundedTensor struct {
	name   string
	tensor func() (*quantize.Tensor4, error)
}

// roundedChunk is about how many values are read at a time.
const roundedChunk = 1 << 18

// roundedKept is how many tensors are kept: as many as are read at a time.
const roundedKept = 4

// tensor returns a tensor in 4 bits, one of the last few or made now. Its scales depend on all of it.
func (r *rounded) tensor(name string) (*quantize.Tensor4, error) {
	r.lock.Lock()
	i := slices.IndexFunc(r.recent, func(t *roundedTensor) bool { return t.name == name })
	if i < 0 {
		r.recent = append(r.recent, &roundedTensor{name, sync.OnceValues(func() (*quantize.Tensor4, error) { return r.encode(name) })})
		r.recent = r.recent[max(0, len(r.recent)-roundedKept):]
		i = len(r.recent) - 1
	}
	t := r.recent[i]
	r.lock.Unlock()
	return t.tensor()
}

func (r *rounded) encode(name string) (*quantize.Tensor4, error) {
	shape := r.shapes[name]
	e, err := quantize.NewEncoder4(shape, r.options)
	if err != nil {
		return nil, err
	}
	rows, cols := shape[0], shape[1]
	step := max(1, roundedChunk/cols)
	step = min((step+e.BlockSize()-1)/e.BlockSize()*e.BlockSize(), rows) // whole blocks for any width
	packed, buf := make([]byte, e.PackedSize()), make([]float32, step*cols)
	for lo := 0; lo < rows; lo += step {
		hi := min(lo+step, rows)
		piece := buf[:(hi-lo)*cols]
		if err := r.Source.Rows(name, lo, hi, piece); err != nil {
			return nil, err
		}
		off := lo * cols
		if err := e.EncodeAt(packed[off/2:off/2+(len(piece)+1)/2], piece, off); err != nil {
			return nil, err
		}
	}
	t, err := e.Finish()
	if err == nil {
		t.Packed = packed
	}
	return t, err
}

func (r *rounded) Rows(name string, lo, hi int, dst []float32) error {
	if r.shapes[name] == nil {
		return r.Source.Rows(name, lo, hi, dst)
	}
	t, err := r.tensor(name)
	if err == nil {
		t.DecodeRows(dst, lo, hi)
	}
	return err
}

func (r *rounded) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	if raw, ok := r.Source.(Raw); ok && r.shapes[name] == nil {
		return raw.RawRows(name, lo, hi, dst)
	}
	return false, nil
}

// Packed4 returns a tensor that was in 4 bits before.
func (r *rounded) Packed4(name string) (*quantize.Tensor4, error) { return packed4(r.Source, name) }

// Scales4 returns a tensor that was in 4 bits before, without its codes, which Codes4 reads.
func (r *rounded) Scales4(name string) (*quantize.Tensor4, error) { return scales4(r.Source, name) }

// Codes4 reads the codes of a tensor that was in 4 bits before.
func (r *rounded) Codes4(name string, dst []byte, off int64) error {
	return r.Source.(Scales4).Codes4(name, dst, off)
}
