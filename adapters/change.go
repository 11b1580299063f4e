package adapters

// What adapters do to the weights of a base, row by row.

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/graftml/graft/internal/kernel"
)

// Change is what one or several adapters do to the parameters of a base, together: where several stand
// on one product each adds to the base's own weight what it would alone, so their order does not matter.
// PEFT computes the same with several active adapters, but for DoRA that is not the first: in evaluation
// and in merging its gain there multiplies what those before it have added too. It is safe for concurrent
// use.
type Change struct {
	base   Base
	params map[string]*paramChange // by full name
}

// paramChange is what happens to one parameter, in this order.
type paramChange struct {
	whole *Tensor      // it is replaced
	rows  []*TokenRows // rows of it are
	pairs []*pairChange
}

// pairChange is one pair, as it changes rows of a weight as that is stored.
type pairChange struct {
	*Pair
	left  []float32     // (rows of the weight, R): B, or A transposed for a table; nil on a bias
	right kernel.Matrix // (R, columns of the weight): A, or B transposed
	// gain (Out) of a DoRA pair on a table, whose features are normalized over all rows.
	gain []float32
}

// ReadRows reads rows [lo, hi) of a parameter of the base into dst, ((hi−lo), columns).
type ReadRows func(name string, lo, hi int, dst []float32) error

// NewChange joins adapters. The base's rows are read only where DoRA stands on its table. The error
// wraps [ErrMismatch] where an adapter does not fit the base, where two replace the same parameter and
// where one adds a bias to a product that has none.
func NewChange(b Base, read ReadRows, list ...*Adapter) (*Change, error) {
	c := &Change{base: b, params: map[string]*paramChange{}}
	for _, a := range list {
		r, err := a.Resolve(b)
		if err != nil {
			return nil, err
		}
		if err := c.add(r); err != nil {
			return nil, fmt.Errorf("adapters: adding %q: %w", a.Name, err)
		}
	}
	return c, c.normalize(read)
}

func (c *Change) param(name string) *paramChange {
	if c.params[name] == nil {
		c.params[name] = &paramChange{}
	}
	return c.params[name]
}

func (c *Change) add(a *Adapter) error {
	for i := range a.Whole {
		t := &a.Whole[i]
		p := c.param(t.Name)
		if p.whole != nil && !slices.Equal(p.whole.Data, t.Data) {
			return fmt.Errorf("%w: it and another adapter both replace %q; merge them one by one, the one to prevail last", ErrMismatch, t.Name)
		}
		p.whole = t
	}
	for i := range a.Rows {
		p := c.param(a.Rows[i].Module + ".weight")
		for _, other := range p.rows {
			for k, index := range a.Rows[i].Indices {
				w := a.Rows[i].Width
				if j := slices.Index(other.Indices, index); j >= 0 && !slices.Equal(other.Data[j*w:(j+1)*w], a.Rows[i].Data[k*w:(k+1)*w]) {
					return fmt.Errorf("%w: it and another adapter both replace row %d of %q; merge them one by one, the one to prevail last", ErrMismatch, index, a.Rows[i].Module)
				}
			}
		}
		p.rows = append(p.rows, &a.Rows[i])
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		n := &pairChange{Pair: p, left: p.B, right: kernel.Matrix{N: p.R, K: p.In, F32: p.A}}
		if p.Table {
			n.left, n.right = transpose(p.A, p.R, p.In), kernel.Matrix{N: p.R, K: p.Out, F32: transpose(p.B, p.Out, p.R)}
		}
		w := c.param(p.Weight())
		w.pairs = append(w.pairs, n)
		if p.Bias == nil {
			continue
		}
		if _, ok := c.base.Shape(p.Module + ".bias"); !ok {
			return fmt.Errorf("%w: it adds a bias to %q (lora_bias), and the architecture has no bias there; use it unmerged, or train without lora_bias", ErrMismatch, p.Module)
		}
		if p.Magnitude != nil {
			return fmt.Errorf("%w: %q has DoRA and a bias", ErrUnsupported, p.Module)
		}
		bias := c.param(p.Module + ".bias")
		bias.pairs = append(bias.pairs, &pairChange{Pair: p})
	}
	return nil
}

// tableChunk is how many values of a table are normalized at a time.
const tableChunk = 1 << 18

// normalize computes the gains of DoRA on tables.
func (c *Change) normalize(read ReadRows) error {
	for _, w := range c.params {
		for _, p := range w.pairs {
			if !p.Table || p.Magnitude == nil {
				continue
			}
			squares, step := make([]float64, p.Out), max(1, tableChunk/p.Out)
			buf := make([]float32, min(step, p.In)*p.Out)
			for lo := 0; lo < p.In; lo += step {
				hi := min(lo+step, p.In)
				rows := buf[:(hi-lo)*p.Out]
				if err := read(p.Weight(), lo, hi, rows); err != nil {
					return err
				}
				w.replace(lo, hi, rows)
				p.addTo(rows, lo, hi)
				for i, v := range rows {
					squares[i%p.Out] += float64(v) * float64(v)
				}
			}
			p.gain = make([]float32, p.Out)
			for i, sq := range squares {
				p.gain[i] = gain(p.Magnitude[i], sq)
			}
		}
	}
	return nil
}

// gain is what a row of the given sum of squares is multiplied by. A row of zeros stays one.
func gain(magnitude float32, squares float64) float32 {
	if squares == 0 {
		return 0
	}
	return float32(float64(magnitude) / math.Sqrt(squares))
}

// rowGain is the gain of a row.
func rowGain(magnitude float32, row []float32) float32 {
	squares := 0.0
	for _, v := range row {
		squares += float64(v) * float64(v)
	}
	return gain(magnitude, squares)
}

// Changes reports whether the parameter of a full name becomes another.
func (c *Change) Changes(name string) bool { return c.params[name] != nil }

// Names lists the parameters that become others, sorted.
func (c *Change) Names() []string {
	out := make([]string, 0, len(c.params))
	for name := range c.params {
		out = append(out, name)
	}
	slices.SortFunc(out, compareModules)
	return out
}

// Unties reports whether the head of a base that shares its table becomes another than the table.
func (c *Change) Unties() bool {
	if !c.base.Tied {
		return false
	}
	table, head := c.params[c.base.Table+".weight"], c.params[c.base.Head+".weight"]
	switch {
	case table == nil && head == nil:
		return false
	case table == nil || head == nil || len(table.pairs)+len(head.pairs) > 0:
		return true
	case (table.whole == nil) != (head.whole == nil) || table.whole != nil && !slices.Equal(table.whole.Data, head.whole.Data):
		return true
	}
	return !slices.EqualFunc(table.rows, head.rows, func(a, b *TokenRows) bool {
		return slices.Equal(a.Indices, b.Indices) && slices.Equal(a.Data, b.Data)
	})
}

// Apply makes rows [lo, hi) of a parameter, which dst holds as the base has them, what the adapters make
// of them. A vector's rows are its values. It panics where dst has another length than the rows. How a
// weight is cut into calls changes no bit.
func (c *Change) Apply(name string, lo, hi int, dst []float32) {
	w := c.params[name]
	if w == nil {
		return
	}
	w.replace(lo, hi, dst)
	if strings.HasSuffix(name, ".bias") {
		for _, p := range w.pairs {
			for i := range dst {
				dst[i] += float32(p.Scale) * p.Bias[lo+i]
			}
		}
		return
	}
	if len(w.pairs) == 1 { // in place
		w.pairs[0].apply(dst, lo, hi)
		return
	}
	var own, one []float32
	for _, p := range w.pairs {
		if p.Magnitude == nil {
			continue
		}
		if own == nil {
			own, one = slices.Clone(dst), make([]float32, len(dst))
		}
		copy(one, own)
		p.apply(one, lo, hi)
		for i := range dst {
			dst[i] += one[i] - own[i]
		}
	}
	for _, p := range w.pairs {
		if p.Magnitude == nil {
			p.addTo(dst, lo, hi)
		}
	}
}

// replace sets what does not depend on the base.
func (w *paramChange) replace(lo, hi int, dst []float32) {
	if w.whole != nil {
		cols := len(w.whole.Data) / max(1, w.whole.Shape[0])
		copy(dst, w.whole.Data[lo*cols:hi*cols])
	}
	for _, r := range w.rows {
		for k, index := range r.Indices {
			if index >= lo && index < hi {
				copy(dst[(index-lo)*r.Width:], r.Data[k*r.Width:(k+1)*r.Width])
			}
		}
	}
}

// addTo adds Scale·B·A, of a table its transpose, to rows of the weight.
func (p *pairChange) addTo(dst []float32, lo, hi int) {
	if rows := len(p.left) / p.R; lo < 0 || hi < lo || hi > rows || len(dst) != (hi-lo)*p.right.K {
		panic(fmt.Sprintf("adapters: rows %d to %d of %q (%d, %d) in %d values", lo, hi, p.Weight(), rows, p.right.K, len(dst)))
	}
	kernel.ScaledMul(dst, p.right.K, p.left[lo*p.R:hi*p.R], p.R, hi-lo, &p.right, float32(p.Scale), true)
}

// apply does all that the pair does to rows of the weight.
func (p *pairChange) apply(dst []float32, lo, hi int) {
	p.addTo(dst, lo, hi)
	if p.Magnitude == nil {
		return
	}
	cols := p.right.K
	for i := range hi - lo {
		row := dst[i*cols : (i+1)*cols]
		if p.Table {
			for k := range row {
				row[k] *= p.gain[k]
			}
			continue
		}
		g := rowGain(p.Magnitude[lo+i], row)
		for k := range row {
			row[k] *= g
		}
	}
}
