package adapters

// What an adapter does beyond pairs, said in pairs and factors for a given base: for runtimes that add
// products and know nothing else.

import (
	"fmt"
	"slices"
)

// FoldRows returns the adapter with its replaced rows as pairs, for runtimes that have pairs only: n rows
// of a table of another value are a change of rank n, of unit vectors and the differences. The values are
// the base's plus the difference, so they may differ from those that were trained in the last bit. A pair
// on the same table grows by that rank. The result is that of [Adapter.Resolve].
func (a *Adapter) FoldRows(b Base, read ReadRows) (*Adapter, error) {
	a, err := a.Resolve(b)
	if err != nil || len(a.Rows) == 0 {
		return a, err
	}
	out := *a
	out.Rows, out.Pairs = nil, slices.Clone(a.Pairs)
	for i := range a.Rows {
		p, err := a.Rows[i].pair(b, read)
		if err != nil {
			return nil, err
		}
		k := slices.IndexFunc(out.Pairs, func(q Pair) bool { return q.Module == p.Module })
		if k < 0 {
			out.Pairs = append(out.Pairs, p)
			continue
		}
		if out.Pairs[k].Magnitude != nil {
			return nil, fmt.Errorf("adapters: %q: %w: %q has DoRA and replaced rows; merge it into its base (graft merge)", a.Name, ErrUnsupported, p.Module)
		}
		out.Pairs[k] = joined(&out.Pairs[k], &p)
	}
	SortPairs(out.Pairs)
	return &out, nil
}

// pair is the change that replaces rows of a weight, (rows, width) as it is stored.
func (r *TokenRows) pair(b Base, read ReadRows) (Pair, error) {
	n, name := len(r.Indices), r.Module+".weight"
	shape, _ := b.Shape(name)
	read = b.Untied(read)
	delta, unit := make([]float32, n*r.Width), make([]float32, n*shape[0])
	for i, row := range r.Indices {
		d := delta[i*r.Width : (i+1)*r.Width]
		if err := read(name, row, row+1, d); err != nil {
			return Pair{}, err
		}
		for k := range d {
			d[k] = r.Data[i*r.Width+k] - d[k]
		}
		unit[i*shape[0]+row] = 1
	}
	if r.Module == b.Table {
		return Pair{Module: r.Module, Table: true, R: n, In: shape[0], Out: r.Width, Scale: 1, A: unit, B: transpose(delta, n, r.Width)}, nil
	}
	return Pair{Module: r.Module, R: n, In: r.Width, Out: shape[0], Scale: 1, A: delta, B: transpose(unit, n, shape[0])}, nil
}

// joined is a pair that does what both do, of the scale of the first: their ranks add up.
func joined(p, q *Pair) Pair {
	out := *p
	out.R = p.R + q.R
	out.A = slices.Concat(p.A, q.A)
	out.B = make([]float32, 0, p.Out*out.R)
	factor := float32(1)
	if p.Scale != 0 {
		factor = float32(q.Scale / p.Scale)
	} else {
		out.Scale = q.Scale
	}
	for row := range p.Out {
		out.B = append(out.B, p.B[row*p.R:(row+1)*p.R]...)
		for _, v := range q.B[row*q.R : (row+1)*q.R] {
			out.B = append(out.B, v*factor)
		}
	}
	if p.Scale == 0 { // what was off stays off
		clear(out.A[:p.R*p.In])
	}
	return out
}

// Gains returns, by module, what DoRA multiplies the features of a product by, (Out) each: its magnitude
// over the length of the rows of W + s·B·A. They hold for one base, whose rows are read.
func (a *Adapter) Gains(b Base, read ReadRows) (map[string][]float32, error) {
	out := map[string][]float32{}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if p.Magnitude == nil {
			continue
		}
		one := Adapter{Name: a.Name, Pairs: []Pair{*p}}
		c, err := NewChange(b, read, &one)
		if err != nil {
			return nil, err
		}
		w := c.params[p.Weight()].pairs[0]
		if p.Table {
			out[p.Module] = w.gain
			continue
		}
		gains, step := make([]float32, p.Out), max(1, tableChunk/p.In)
		rows := make([]float32, min(step, p.Out)*p.In)
		for lo := 0; lo < p.Out; lo += step {
			hi := min(lo+step, p.Out)
			if err := b.Untied(read)(p.Weight(), lo, hi, rows[:(hi-lo)*p.In]); err != nil {
				return nil, err
			}
			w.addTo(rows[:(hi-lo)*p.In], lo, hi)
			for k := lo; k < hi; k++ {
				gains[k] = rowGain(p.Magnitude[k], rows[(k-lo)*p.In:(k-lo+1)*p.In])
			}
		}
		out[p.Module] = gains
	}
	return out, nil
}
