package inspect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
)

// This file reads values, in pieces and on all processors. What a tensor's figures are does not
// depend on the number of processors: pieces are cut by shape alone, and their sums are joined in order.

// Stats are figures of a tensor's values; range, mean and deviation are of the finite ones.
type Stats struct {
	Values int64   `json:"values"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Mean   float64 `json:"mean"`
	Std    float64 `json:"std"` // of the population
	NaN    int64   `json:"nan"`
	Inf    int64   `json:"inf"`
	Zeros  int64   `json:"zeros"`

	m2    float64 // Σ(x−mean)²
	first int     // place of the first value that is not finite, −1 for none
	value float32 // what stands there
}

func (s *Stats) finite() int64 { return s.Values - s.NaN - s.Inf }

// statsOf measures one piece, whose first value is number at of the tensor.
func statsOf(x []float32, at int) Stats {
	s := Stats{Values: int64(len(x)), Min: math.Inf(1), Max: math.Inf(-1), first: -1}
	var sum float64
	lo, hi := float32(math.Inf(1)), float32(math.Inf(-1))
	for i, v := range x {
		if v-v != 0 {
			if v != v {
				s.NaN++
			} else {
				s.Inf++
			}
			if s.first < 0 {
				s.first, s.value = at+i, v
			}
			continue
		}
		if v == 0 {
			s.Zeros++
		}
		sum += float64(v)
		lo, hi = min(lo, v), max(hi, v)
	}
	s.Min, s.Max = float64(lo), float64(hi)
	if n := s.finite(); n > 0 {
		s.Mean = sum / float64(n)
	}
	for _, v := range x {
		if d := float64(v) - s.Mean; d-d == 0 {
			s.m2 += d * d
		}
	}
	return s
}

// join adds the figures of the values after s's (Chan et al. 1979).
func (s *Stats) join(o Stats) {
	a, b := float64(s.finite()), float64(o.finite())
	if n := a + b; n > 0 {
		d := o.Mean - s.Mean
		s.Mean += d * b / n
		s.m2 += o.m2 + d*d*a*b/n
	}
	if s.first < 0 {
		s.first, s.value = o.first, o.value
	}
	s.Values, s.NaN, s.Inf, s.Zeros = s.Values+o.Values, s.NaN+o.NaN, s.Inf+o.Inf, s.Zeros+o.Zeros
	s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
}

// finish turns sums into figures that JSON can hold.
func (s *Stats) finish() {
	if n := s.finite(); n > 0 {
		s.Std = math.Sqrt(s.m2 / float64(n))
	} else {
		s.Min, s.Max = 0, 0
	}
}

// Difference says how far a tensor is from the reference's of the same name. Places where either
// value is not finite are left out and counted.
type Difference struct {
	RMSE      float64  `json:"rmse"`
	Relative  float64  `json:"relative_error"` // ‖b−a‖ / ‖a‖
	Max       float64  `json:"max_error"`
	MaxRow    int      `json:"max_row"`
	MaxColumn int      `json:"max_column"`
	SNR       *float64 `json:"snr_db,omitempty"` // 10·log₁₀(Σa² / Σ(b−a)²); absent where it is infinite
	Cosine    float64  `json:"cosine"`
	Identical bool     `json:"identical"` // every value is the same
	NotFinite int64    `json:"not_finite,omitempty"`
	// FirstNotFinite is the place of the first of them, counted in values.
	FirstNotFinite int        `json:"-"`
	Reference      string     `json:"reference_type,omitempty"` // number type of the other
	Worst          []RowError `json:"worst_rows,omitempty"`     // of a matrix, the furthest first

	n              int64
	aa, ab, bb, dd float64
	maxAt          int
}

// RowError is the error of one row, ‖b−a‖ / ‖a‖. A row much smaller than the others is measured
// against them, since it shares scales with them.
type RowError struct {
	Row   int     `json:"row"`
	Error float64 `json:"relative_error"`
}

// worstRows is how many rows a Difference names.
const worstRows = 3

// rowSums are Σ(b−a)² and Σa² by row; nil where a row is read in several pieces.
type rowSums struct{ dd, aa []float64 }

// differenceOf measures one piece, whose first value is number at of the tensor. What is computed
// with, and was rounded, is larger than the values by offset.
func differenceOf(a, b []float32, at, cols int, rows *rowSums, offset float64) Difference {
	d := Difference{n: int64(len(a)), maxAt: -1}
	same := offset == 0 && alike(a, b)
	for lo := 0; lo < len(a); {
		row := (at + lo) / cols
		hi := min(len(a), (row+1)*cols-at)
		var aa, ab, bb, dd float64
		if same {
			if sum := kernel.SumSquares(a[lo:hi]); sum-sum == 0 {
				aa, ab, bb, lo = sum, sum, sum, hi
			}
		}
		for i := lo; i < hi; i++ {
			x, y := float64(a[i])+offset, float64(b[i])+offset
			e := y - x
			if e-e != 0 {
				if d.NotFinite++; d.NotFinite == 1 {
					d.FirstNotFinite = at + i
				}
				continue
			}
			aa, ab, bb, dd = aa+x*x, ab+x*y, bb+y*y, dd+e*e
			if e = math.Abs(e); e > d.Max {
				d.Max, d.maxAt = e, at+i
			}
		}
		if rows != nil {
			rows.aa[row], rows.dd[row] = rows.aa[row]+aa, rows.dd[row]+dd
		}
		d.aa, d.ab, d.bb, d.dd = d.aa+aa, d.ab+ab, d.bb+bb, d.dd+dd
		lo = hi
	}
	return d
}

// alike reports whether a and b are the same bits.
func alike(a, b []float32) bool {
	bits := func(x []float32) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x)) }
	return bytes.Equal(bits(a), bits(b))
}

func (d *Difference) join(o Difference) {
	if d.NotFinite == 0 {
		d.FirstNotFinite = o.FirstNotFinite
	}
	d.n, d.NotFinite = d.n+o.n, d.NotFinite+o.NotFinite
	d.aa, d.ab, d.bb, d.dd = d.aa+o.aa, d.ab+o.ab, d.bb+o.bb, d.dd+o.dd
	if o.Max > d.Max {
		d.Max, d.maxAt = o.Max, o.maxAt
	}
}

// finish turns sums into figures. Floor is the least square sum, as a share of the mean row's, that a
// row's error is divided by.
func (d *Difference) finish(cols int, rows *rowSums, floor float64) {
	if n := d.n - d.NotFinite; n > 0 {
		d.RMSE = math.Sqrt(d.dd / float64(n))
	}
	d.Identical = d.dd == 0 && d.NotFinite == 0
	switch {
	case d.dd == 0:
		d.Cosine = 1
	case d.aa > 0:
		d.Relative = math.Sqrt(d.dd / d.aa)
		snr := 10 * math.Log10(d.aa/d.dd)
		d.SNR = &snr
		if d.bb > 0 {
			d.Cosine = d.ab / math.Sqrt(d.aa*d.bb)
		}
	default:
		d.Relative = 1 // all of b is error
	}
	if d.maxAt >= 0 && cols > 0 {
		d.MaxRow, d.MaxColumn = d.maxAt/cols, d.maxAt%cols
	}
	if rows == nil {
		return
	}
	least := floor * d.aa / float64(max(1, len(rows.aa)))
	for row, dd := range rows.dd {
		if dd == 0 {
			continue
		}
		e := 1.0
		if by := max(rows.aa[row], least); by > 0 {
			e = math.Sqrt(dd / by)
		}
		at, _ := slices.BinarySearchFunc(d.Worst, e, func(r RowError, e float64) int {
			if r.Error >= e {
				return -1
			}
			return 1
		})
		if at < worstRows {
			d.Worst = slices.Insert(d.Worst, at, RowError{row, e})
			d.Worst = d.Worst[:min(worstRows, len(d.Worst))]
		}
	}
}

// measurement is one tensor to read.
type measurement struct {
	w     *weight
	ref   *weight // what it is compared with, nil for nothing
	floor float64 // see Difference.finish

	noStats bool    // the difference is all that is wanted
	offset  float64 // see differenceOf

	stats []Stats // by piece
	diffs []Difference
	rows  *rowSums
	left  atomic.Int64 // pieces
}

// pieceValues is about how many values are read at a time: 4 MiB of float32.
const pieceValues = 1 << 20

// piece returns how many values a piece has: whole rows, or of very long ones whole blocks.
func (m *measurement) piece() int {
	unit := m.w.unit
	if m.ref != nil {
		unit = max(unit, m.ref.unit)
	}
	if m.w.cols <= pieceValues {
		unit = max(unit, m.w.cols)
	}
	return max(1, pieceValues/unit) * unit
}

// begin makes room for the pieces' figures.
func (m *measurement) begin(pieces int) {
	m.stats = make([]Stats, pieces)
	if m.ref != nil {
		m.diffs = make([]Difference, pieces)
		if m.w.cols <= pieceValues {
			m.rows = &rowSums{make([]float64, m.w.rows), make([]float64, m.w.rows)}
		}
	}
}

// finish joins the pieces and lets go of them.
func (m *measurement) finish() {
	defer func() { m.stats, m.diffs, m.rows = nil, nil, nil }()
	if m.w.unreadable != nil {
		return
	}
	if !m.noStats {
		s := Stats{Min: math.Inf(1), Max: math.Inf(-1), first: -1}
		for _, p := range m.stats {
			s.join(p)
		}
		s.finish()
		m.w.Stats = &s
	}
	if m.ref != nil {
		d := Difference{maxAt: -1, Reference: m.ref.Type}
		for _, p := range m.diffs {
			d.join(p)
		}
		d.finish(m.w.cols, m.rows, m.floor)
		m.w.Error = &d
	}
}

// measure reads the tensors of all measurements. A tensor that cannot be read keeps its error in
// unreadable and does not stop the others. It fails when ctx is done.
func measure(ctx context.Context, list []*measurement, progress func(done, total int64)) error {
	type piece struct {
		m      *measurement
		i      int
		lo, hi int
	}
	var total int64
	for _, m := range list {
		total += int64(m.w.values())
	}
	pieces := make(chan piece)
	var done atomic.Int64
	var lock sync.Mutex // of unreadable
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			var x, y []float32
			var scratch []byte
			for p := range pieces {
				n := p.hi - p.lo
				x, y = slices.Grow(x[:0], n)[:n], slices.Grow(y[:0], n)[:n]
				err := p.m.w.read(&scratch, x, p.lo)
				if err == nil && p.m.ref != nil {
					err = p.m.ref.read(&scratch, y, p.lo)
				}
				if err != nil {
					lock.Lock()
					p.m.w.unreadable = err
					lock.Unlock()
				} else {
					if !p.m.noStats {
						p.m.stats[p.i] = statsOf(x, p.lo)
					}
					if p.m.ref != nil {
						p.m.diffs[p.i] = differenceOf(y, x, p.lo, p.m.w.cols, p.m.rows, p.m.offset)
					}
				}
				if p.m.left.Add(-1) == 0 {
					p.m.finish()
				}
				if progress != nil {
					progress(done.Add(int64(n)), total)
				}
			}
		})
	}
feed:
	for _, m := range list {
		if m.w.unreadable != nil || m.ref != nil && m.ref.unreadable != nil {
			continue
		}
		size, n := m.piece(), m.w.values()
		count := (n + size - 1) / size
		if count == 0 {
			continue
		}
		m.begin(count)
		m.left.Store(int64(count))
		for i := range count {
			select {
			case pieces <- piece{m, i, i * size, min(n, (i+1)*size)}:
			case <-ctx.Done():
				break feed
			}
		}
	}
	close(pieces)
	wait.Wait()
	return ctx.Err()
}

// vocabularyRows reports whether a tensor has a row for each token: its rows may be padded.
func vocabularyRows(name string) bool {
	return name == "model.embed_tokens.weight" || name == "lm_head.weight"
}

// floorShare is what a row of very small weights is measured against, as a share of the mean row.
const floorShare = 0.04

// Compare compares every tensor of b with a's of the same name and returns b's tensors that both
// have, with [Tensor.Error] set. Floor, unless nil, returns for a tensor the share of the mean row
// below which a row's error is measured against the others; see [RowError]. Shapes that differ are
// an error.
func Compare(ctx context.Context, a, b checkpoint.Source, floor func(t checkpoint.Tensor) float64, progress func(done, total int64)) ([]Tensor, error) {
	from, ws := sourceWeights(a), sourceWeights(b)
	var list []*measurement
	for i, t := range b.Tensors() {
		ref := from.byName[t.Name]
		if ref == nil { // lm_head.weight, where only one ties it to the embedding table
			continue
		}
		if w := ws.list[i]; !slices.Equal(ref.Shape, t.Shape) && vocabularyRows(t.Name) && len(t.Shape) == 2 && ref.cols == w.cols {
			w.rows = min(w.rows, ref.rows) // one is padded
		} else if !slices.Equal(ref.Shape, t.Shape) {
			return nil, fmt.Errorf("inspect: comparing tensor %q: its shape is %v, the reference's %v", t.Name, t.Shape, ref.Shape)
		}
		m := &measurement{w: ws.list[i], ref: ref, floor: floorShare, noStats: true, offset: float64(a.Config().Offset(t.Name))}
		if floor != nil {
			m.floor = floor(t)
		}
		list = append(list, m)
	}
	if err := measure(ctx, list, progress); err != nil {
		return nil, err
	}
	var out []Tensor
	var errs []error
	for _, m := range list {
		errs = append(errs, m.w.unreadable, m.ref.unreadable)
		out = append(out, m.w.Tensor)
	}
	return out, errors.Join(errs...)
}
