package adapters

// The difference of two models as an adapter.

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/graftml/graft/internal/kernel"
)

// ExtractOptions says how a difference becomes an adapter.
type ExtractOptions struct {
	// Rank of every pair, of smaller weights their shorter side. With Energy it is the highest rank allowed.
	Rank int
	// Energy, if not 0, is the share of a difference's squared Frobenius norm to keep, in (0, 1]: each
	// pair gets the smallest rank that does.
	Energy float64
	// Whole takes what differs and is no product of linear layers (norms, biases, the embedding table)
	// into the adapter as it is in the tuned model. Otherwise it is only reported.
	Whole bool
	// Values asks for singular values in the report.
	Values bool
	// Progress, if not nil, is called as parameters are done, by one goroutine at a time.
	Progress func(done, total int64)
}

// ExtractReport says what [Extract] found.
type ExtractReport struct {
	Modules []ModuleReport `json:"modules"` // one a pair
	// Equal is the number of parameters that do not differ.
	Equal int `json:"equal"`
	// Whole are the parameters that the adapter replaces, Left those that differ and are not in it.
	Whole []Difference `json:"whole,omitempty"`
	Left  []Difference `json:"left,omitempty"`
}

// Difference is a parameter that differs.
type Difference struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	// Relative is the norm of the difference as a share of that of the base's parameter.
	Relative float64 `json:"relative"`
}

// Extract makes an adapter of what differs between two models: base and tuned read rows of the parameters
// names, of which b says what they are. A linear product's difference becomes the best pair of a rank,
// found by a randomized singular value decomposition; memory holds that of a few products, whatever
// the models' size. It stops when ctx is done.
func Extract(ctx context.Context, b Base, names []string, base, tuned ReadRows, o ExtractOptions) (*Adapter, *ExtractReport, error) {
	a, r, err := extract(ctx, b, names, base, tuned, o)
	if err != nil {
		return nil, nil, fmt.Errorf("adapters: extracting: %w", err)
	}
	return a, r, nil
}

// extraction is one run of Extract.
type extraction struct {
	ctx         context.Context
	base, tuned ReadRows
	o           ExtractOptions
	found       []finding // by parameter
	mu          sync.Mutex
	done, total int64 // values, for Progress
}

// finding is what came of one parameter.
type finding struct {
	name    string
	shape   []int
	product bool
	// Of a parameter that differs, one of the two:
	pair  *Pair
	whole *Tensor

	report ModuleReport
	far    float64 // the relative norm of a difference that is no pair
}

func extract(ctx context.Context, b Base, names []string, base, tuned ReadRows, o ExtractOptions) (*Adapter, *ExtractReport, error) {
	if err := checkCut(o.Rank, o.Energy); err != nil {
		return nil, nil, err
	}
	e := &extraction{ctx: ctx, base: base, tuned: tuned, o: o}
	largest, most := 0, 0
	for _, name := range names {
		shape, ok := b.Shape(name)
		if !ok || len(shape) == 0 {
			return nil, nil, fmt.Errorf("%w: the base has no %q", ErrMismatch, name)
		}
		f := finding{name: name, shape: shape}
		if module, ok := strings.CutSuffix(name, ".weight"); ok && module != b.Table && len(shape) == 2 {
			out, in, ok := b.Linear(module)
			f.product = ok && out == shape[0] && in == shape[1]
		}
		if f.product {
			largest, most = max(largest, shape[0]*shape[1]), max(most, min(shape[0], shape[1]))
		}
		e.found = append(e.found, f)
		e.total += int64(f.values())
	}
	if o.Rank > most {
		return nil, nil, fmt.Errorf("rank %d is above %d, the shorter side of the largest product", o.Rank, most)
	}
	err := eachModule(len(e.found), 4*largest*kernel.Threads() > maxDense, func(i int) error {
		f := &e.found[i]
		if err := e.compare(f); err != nil {
			return err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.done += int64(f.values()); o.Progress != nil {
			o.Progress(e.done, e.total)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	a, r, err := e.adapter()
	// What two models with one table for both ends differ by there is for both.
	if err == nil && b.Tied && !slices.Contains(names, b.Head+".weight") {
		a.Config.TieWeights = a.WholeOf(b.Table+".weight") != nil
	}
	return a, r, err
}

func (f *finding) values() int {
	n := 1
	for _, d := range f.shape {
		n *= d
	}
	return n
}

// extractChunk is how many values of the base are read at a time.
const extractChunk = 1 << 18

// compare reads one parameter of both models.
func (e *extraction) compare(f *finding) error {
	rows := f.shape[0]
	cols := f.values() / max(rows, 1)
	step := max(1, extractChunk/max(cols, 1))
	d := make([]float32, rows*cols)
	old := make([]float32, min(step, rows)*cols)
	norm, far := 0.0, 0.0
	for lo := 0; lo < rows; lo += step {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		hi := min(lo+step, rows)
		was, is := old[:(hi-lo)*cols], d[lo*cols:hi*cols]
		if err := e.base(f.name, lo, hi, was); err != nil {
			return err
		}
		if err := e.tuned(f.name, lo, hi, is); err != nil {
			return err
		}
		for i, v := range was {
			diff := is[i] - v
			if diff-diff != 0 {
				return fmt.Errorf("%q holds %v in the base and %v in the tuned model, at row %d, column %d", f.name, v, is[i], lo+i/cols, i%cols)
			}
			far += float64(diff) * float64(diff)
			norm += float64(v) * float64(v)
			if f.product {
				is[i] = diff
			}
		}
	}
	if far == 0 {
		return nil
	}
	if !f.product {
		f.far = math.Sqrt(far / max(norm, math.SmallestNonzeroFloat64))
		if norm == 0 {
			f.far = 1
		}
		f.whole = &Tensor{Name: f.name, Shape: f.shape}
		if e.o.Whole {
			f.whole.Data = d
		}
		return nil
	}
	return e.approximate(f, d)
}

// approximate makes the pair of a product of the difference d, which it uses up.
func (e *extraction) approximate(f *finding, d []float32) error {
	out, in := f.shape[0], f.shape[1]
	side := min(out, in)
	most := side
	if e.o.Rank > 0 {
		most = min(e.o.Rank, side)
	}
	k := most
	if e.o.Energy > 0 {
		k = min(16, most)
	}
	var s *factored
	rank := k
	for {
		var err error
		if s, err = denseSpectrum(d, out, in, k, quick); err != nil {
			return fmt.Errorf("%q: %w", f.name, err)
		}
		if e.o.Energy == 0 {
			break
		}
		held := 0.0
		for _, v := range s.values[:k] {
			held += v * v
		}
		if rank = s.rank(e.o.Energy, k); held >= e.o.Energy*s.energy || k == most {
			break
		}
		k = min(4*k, most)
	}
	p := &Pair{Module: strings.TrimSuffix(f.name, ".weight"), R: rank, In: in, Out: out, Scale: 1}
	p.B, p.A = s.truncate(rank, out, in)
	f.pair = p
	f.report = ModuleReport{Module: p.Module, Rank: rank, Residual: subtract(d, p.B, p.A, out, in, rank, s.energy)}
	if e.o.Values {
		f.report.Values = slices.Clone(s.values[:k])
	}
	return nil
}

// adapter gathers what was found.
func (e *extraction) adapter() (*Adapter, *ExtractReport, error) {
	a, r := &Adapter{Config: Config{TaskType: "CAUSAL_LM"}}, &ExtractReport{Modules: []ModuleReport{}}
	slices.SortStableFunc(e.found, func(f, g finding) int { return compareModules(f.name, g.name) })
	for _, f := range e.found {
		switch {
		case f.pair != nil:
			a.Pairs = append(a.Pairs, *f.pair)
			r.Modules = append(r.Modules, f.report)
		case f.whole != nil && e.o.Whole:
			a.Whole = append(a.Whole, *f.whole)
			r.Whole = append(r.Whole, Difference{f.name, f.shape, f.far})
		case f.whole != nil:
			r.Left = append(r.Left, Difference{f.name, f.shape, f.far})
		default:
			r.Equal++
		}
	}
	slices.SortFunc(a.Whole, func(x, y Tensor) int { return strings.Compare(x.Name, y.Name) })
	setDefaults(a)
	switch {
	case r.Equal == len(e.found):
		return nil, nil, fmt.Errorf("the two models are the same: none of %d parameters differs", r.Equal)
	case a.empty():
		return nil, nil, fmt.Errorf("no linear product differs, only %d others, such as %q: take them whole", len(r.Left), r.Left[0].Name)
	}
	return a, r, nil
}
