package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/graftml/graft/internal/checkpoint"
)

// tensorError is how far a tensor of B is from A's. A text shows what a model does with its weights,
// but not a row it never reads, nor a damage that drowns in the rounding to 4 bits.
type tensorError struct {
	Name  string  `json:"name"`
	Row   int     `json:"row"`            // of the largest error
	Error float64 `json:"relative_error"` // of the row: ‖b−a‖ / ‖a‖, but for rows much smaller than the others
	Limit float64 `json:"limit"`          // what rounding to B's type explains
}

// passed is false for NaN.
func (e tensorError) passed() bool { return e.Error <= e.Limit }

func (e tensorError) String() string {
	if e.Name == "" {
		return "none"
	}
	return fmt.Sprintf("%.3g in row %d of %s (limit %.3g)", e.Error, e.Row, e.Name, e.Limit)
}

// compareWeights compares the tensors of two models, adapters merged, and returns the one that is
// furthest past its limit, or else nearest to it.
func compareWeights(ctx context.Context, a string, aAdapters []string, b string, bAdapters []string) (*tensorError, error) {
	ma, err := openMerged(a, aAdapters)
	if err != nil {
		return nil, err
	}
	defer ma.Close()
	mb, err := openMerged(b, bAdapters)
	if err != nil {
		return nil, err
	}
	defer mb.Close()
	inA := map[string]checkpoint.Tensor{}
	for _, t := range ma.Tensors() {
		inA[t.Name] = t
	}
	tensors := mb.Tensors()
	found := make([]*tensorError, len(tensors))
	if err := eachOnAll(ctx, len(tensors), func() func(i int) error {
		c := comparer{a: ma, b: mb}
		return func(i int) (err error) {
			t := tensors[i]
			from, ok := inA[t.Name]
			if !ok { // lm_head.weight, where only one ties it to the embedding table
				return nil
			}
			if !slices.Equal(from.Shape, t.Shape) {
				return fmt.Errorf("tensor %q has shape %s in %q and %s in %q", t.Name, shape(from.Shape), a, shape(t.Shape), b)
			}
			was, err := storageOf(ma, from)
			if err != nil {
				return err
			}
			is, err := storageOf(mb, t)
			if err != nil {
				return err
			}
			e, err := c.tensor(ctx, t, is)
			if err != nil {
				return err
			}
			e.Limit = is.weightLimit()
			if was == is && len(aAdapters) == 0 {
				e.Limit = storage{codec: "F32"}.weightLimit()
			}
			found[i] = &e
			return nil
		}
	}); err != nil {
		return nil, err
	}
	worst := &tensorError{Limit: storage{codec: "F32"}.weightLimit()}
	for _, e := range found {
		if e != nil && !(e.Error/e.Limit <= worst.Error/worst.Limit) {
			worst = e
		}
	}
	return worst, nil
}

// eachOnAll does n things on all processors. Each worker works with what start gives it. The first
// error ends it.
func eachOnAll(ctx context.Context, n int, start func() func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			do := start()
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// openMerged opens a checkpoint with adapters added to its weights.
func openMerged(path string, adapterArgs []string) (*checkpoint.Checkpoint, error) {
	m, err := openCheckpoint(path)
	if err != nil {
		return nil, err
	}
	if len(adapterArgs) == 0 {
		return m, nil
	}
	var deltas []checkpoint.Delta
	for _, arg := range adapterArgs {
		if arg == bare {
			continue
		}
		a, err := openAdapter(arg, m.Config())
		if err != nil {
			m.Close()
			return nil, err
		}
		deltas = append(deltas, a)
	}
	merged, err := checkpoint.Merge(m, deltas...)
	if err != nil {
		m.Close()
		return nil, err
	}
	return merged, nil
}

// comparer compares tensors of two models, one at a time.
type comparer struct {
	a, b checkpoint.Source
	x, y []float32
}

// tensor finds the row of a tensor, stored as b has it, that is furthest off. A vector is one row.
func (c *comparer) tensor(ctx context.Context, t checkpoint.Tensor, stored storage) (tensorError, error) {
	const step = 1 << 18 // values at a time
	rows, cols := t.Shape[0], 1
	if len(t.Shape) > 1 {
		cols = t.Shape[1]
	}
	unit := cols // values of a row
	if len(t.Shape) == 1 {
		unit = rows
	}
	err2, val2 := make([]float64, rows*cols/unit), make([]float64, rows*cols/unit)
	same := true
	for lo := 0; lo < rows; {
		if ctx.Err() != nil {
			return tensorError{}, ctx.Err()
		}
		hi := min(rows, lo+max(1, step/cols))
		n := (hi - lo) * cols
		c.x, c.y = slices.Grow(c.x[:0], n)[:n], slices.Grow(c.y[:0], n)[:n]
		if err := c.a.Rows(t.Name, lo, hi, c.x); err != nil {
			return tensorError{}, err
		}
		if err := c.b.Rows(t.Name, lo, hi, c.y); err != nil {
			return tensorError{}, err
		}
		if !same || !slices.Equal(c.x, c.y) {
			if same { // what came before had no error, but its size counts
				same, lo = false, 0
				continue
			}
			for i, v := range c.x {
				row := (lo*cols + i) / unit
				d := float64(c.y[i]) - float64(v)
				err2[row] += d * d
				val2[row] += float64(v) * float64(v)
			}
		}
		lo = hi
	}
	if same {
		return tensorError{Name: t.Name}, nil
	}
	var mean float64
	for _, v := range val2 {
		mean += v / float64(len(val2))
	}
	// A row of very small weights pays for the others: in a block it shares with its neighbour, in
	// scales of float16, in scales quantized together.
	least := 0.04 * mean
	if stored.block > 0 && unit%stored.block != 0 {
		least = mean
	}
	worst := tensorError{Name: t.Name}
	for row, e := range err2 {
		if e == 0 {
			continue
		}
		if r := math.Sqrt(e / max(val2[row], least)); !(r <= worst.Error) {
			worst.Row, worst.Error = row, r
		}
	}
	return worst, nil
}

// storage is how the numbers of a tensor are kept.
type storage struct {
	codec  string
	block  int  // weights a scale, of the 4-bit codecs
	double bool // their scales are quantized too
}

func storageOf(m *checkpoint.Checkpoint, t checkpoint.Tensor) (storage, error) {
	s := storage{codec: t.Codec}
	q, err := m.Scales4(t.Name)
	if q != nil {
		s.block, s.double = q.BlockSize, q.Double()
	}
	return s, err
}

// weightLimit is the relative error of a row that rounding can explain: about twice what it does to
// the weights of published models, and below 1, which a row of zeros has.
func (s storage) weightLimit() float64 {
	switch s.codec {
	case "F32", "F64":
		return 1e-5
	case "F16":
		return 1e-3
	case "BF16":
		return 5e-3
	case "Q8_0":
		return 0.02
	}
	if s.block > 64 {
		return 0.95 // one large weight coarsens a whole block
	}
	return 0.5
}

// klLimit is the mean divergence, in nats a token, that rounding can explain.
func (s storage) klLimit() float64 {
	switch s.codec {
	case "F32", "F64", "":
		return sameLimit
	case "F16":
		return 1e-3
	case "BF16":
		return 0.01
	case "Q8_0":
		return 0.02
	}
	return 1
}
