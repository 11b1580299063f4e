package inspect

import (
	"context"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// changed is a model some of whose values are others.
type changed struct {
	checkpoint.Source
	values map[string]map[int]float32 // by tensor and place
}

func (c changed) Rows(name string, lo, hi int, dst []float32) error {
	if err := c.Source.Rows(name, lo, hi, dst); err != nil {
		return err
	}
	width := len(dst) / max(1, hi-lo)
	for at, v := range c.values[name] {
		if at >= lo*width && at < hi*width {
			dst[at-lo*width] = v
		}
	}
	return nil
}

func named(t *testing.T, name string) *testmodel.Model {
	t.Helper()
	m, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestStats: figures joined from pieces are those of a plain pass over all values.
func TestStats(t *testing.T) {
	x := testmodel.Draw("stats", 10_007)
	for i := range x {
		x[i] = x[i]*3 + 5
	}
	x[17], x[4000], x[4001] = 0, float32(math.NaN()), float32(math.Inf(-1))
	var sum, n float64
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range x {
		if f := float64(v); f-f == 0 {
			sum, n, lo, hi = sum+f, n+1, min(lo, f), max(hi, f)
		}
	}
	var m2 float64
	for _, v := range x {
		if d := float64(v) - sum/n; d-d == 0 {
			m2 += d * d
		}
	}
	for _, piece := range []int{len(x), 1000, 1, 4001} {
		s := Stats{Min: math.Inf(1), Max: math.Inf(-1), first: -1}
		for at := 0; at < len(x); at += piece {
			s.join(statsOf(x[at:min(len(x), at+piece)], at))
		}
		s.finish()
		if s.Values != int64(len(x)) || s.NaN != 1 || s.Inf != 1 || s.Zeros != 1 || s.first != 4000 || s.Min != lo || s.Max != hi ||
			math.Abs(s.Mean-sum/n) > 1e-12 || math.Abs(s.Std-math.Sqrt(m2/n)) > 1e-12 {
			t.Errorf("in pieces of %d: %+v, want mean %v, deviation %v", piece, s, sum/n, math.Sqrt(m2/n))
		}
	}
}

// TestDifference: errors are those of the definition, whether a piece is the same bits or not.
func TestDifference(t *testing.T) {
	const rows, cols = 40, 25
	a := testmodel.Draw("a", rows*cols)
	b := slices.Clone(a)
	for i := 10 * cols; i < 20*cols; i++ {
		b[i] += testmodel.Draw("noise", rows*cols)[i] / 100
	}
	b[700] = float32(math.NaN())
	var dd, aa float64
	for i := range a {
		if d := float64(b[i]) - float64(a[i]); d == d {
			dd, aa = dd+d*d, aa+float64(a[i])*float64(a[i])
		}
	}
	for _, piece := range []int{rows, 10, 1, 7} {
		sums := &rowSums{make([]float64, rows), make([]float64, rows)}
		d := Difference{maxAt: -1}
		for lo := 0; lo < rows; lo += piece {
			hi := min(rows, lo+piece)
			d.join(differenceOf(a[lo*cols:hi*cols], b[lo*cols:hi*cols], lo*cols, cols, sums, 0))
		}
		d.finish(cols, sums, floorShare)
		if d.NotFinite != 1 || d.FirstNotFinite != 700 || d.Identical || math.Abs(d.Relative-math.Sqrt(dd/aa)) > 1e-12 ||
			math.Abs(d.RMSE-math.Sqrt(dd/(rows*cols-1))) > 1e-12 || math.Abs(*d.SNR-10*math.Log10(aa/dd)) > 1e-9 {
			t.Errorf("in pieces of %d rows: %+v", piece, d)
		}
		if len(d.Worst) != worstRows || d.Worst[0].Row < 10 || d.Worst[0].Row >= 20 || d.Worst[0].Error < d.Worst[1].Error || d.MaxRow < 10 || d.MaxRow >= 20 {
			t.Errorf("in pieces of %d rows: the worst rows are %v, the largest error in row %d", piece, d.Worst, d.MaxRow)
		}
	}
}

// TestAlike: pieces that are the same bits have the figures that are summed value by value, with values
// that are not finite too.
func TestAlike(t *testing.T) {
	const rows, cols = 7, 2500
	a := testmodel.Draw("a", rows*cols)
	for _, bad := range []float32{0, float32(math.NaN()), float32(math.Inf(1))} {
		a[3*cols+5] = bad
		measured := func(b []float32) (Difference, rowSums) {
			sums := rowSums{make([]float64, rows), make([]float64, rows)}
			d := differenceOf(a, b, 0, cols, &sums, 0)
			return d, sums
		}
		fast, fastRows := measured(a)
		other := slices.Clone(a) // the last value differs, which takes the other way
		other[len(a)-1]++
		slow, slowRows := measured(other)
		near := func(x, y float64) bool { return math.Abs(x-y) <= 1e-13*(1+math.Abs(y)) }
		for row := range rows - 1 {
			var want float64
			for _, x := range a[row*cols : (row+1)*cols] {
				if f := float64(x); f-f == 0 {
					want += f * f
				}
			}
			if !near(fastRows.aa[row], want) || !near(slowRows.aa[row], want) || fastRows.dd[row] != 0 || slowRows.dd[row] != 0 {
				t.Errorf("%v, row %d: %v, value by value %v, want %v", bad, row, fastRows.aa[row], slowRows.aa[row], want)
			}
		}
		if !near(fast.aa, slow.aa) || fast.aa != fast.bb || fast.ab != fast.aa || fast.NotFinite != slow.NotFinite || fast.FirstNotFinite != slow.FirstNotFinite || fast.n != slow.n {
			t.Errorf("%v: %+v, value by value %+v", bad, fast, slow)
		}
		if want := bad - bad; (want != 0) != (fast.NotFinite == 1) || fast.dd != 0 {
			t.Errorf("%v: %+v", bad, fast)
		}
	}
}

// TestOffset: the error of a gain that is stored less one is that of what is computed with.
func TestOffset(t *testing.T) {
	const name = "model.layers.2.input_layernorm.weight"
	for _, c := range []struct {
		model  string
		offset float64
	}{{"gemma3", 1}, {"gemma2", 1}, {"llama", 0}} {
		m := named(t, c.model)
		name := name
		if c.model == "llama" {
			name = "model.layers.1.input_layernorm.weight"
		}
		gains := m.Tensor(name)
		other := map[int]float32{}
		var dd, aa float64
		for i, g := range gains {
			other[i] = g + float32(i%3)/1024
			x := float64(g) + c.offset
			d := float64(other[i]) + c.offset - x
			dd, aa = dd+d*d, aa+x*x
		}
		got, err := Compare(context.Background(), m, changed{m, map[string]map[int]float32{name: other}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range got {
			if (x.Name == name) == x.Error.Identical {
				t.Errorf("%s %s: identical %v", c.model, x.Name, x.Error.Identical)
			}
			if want := math.Sqrt(dd / aa); x.Name == name && (math.Abs(x.Error.Relative-want) > 1e-12 || math.Abs(x.Error.Worst[0].Error-want) > 1e-12) {
				t.Errorf("%s %s: %+v, want %v", c.model, x.Name, x.Error, want)
			}
		}
	}
}

// TestCompare: a change of one value is found, wherever it is, and what is computed with, a gain that is
// stored less one, is what errors are measured against. Results do not depend on the processors.
func TestCompare(t *testing.T) {
	for _, name := range []string{"llama", "gemma3", "phi3"} {
		m := named(t, name)
		for _, p := range m.Tensors() {
			v := map[int]float32{len(testmodel.Weights(p.Name, model.KindLinear, elements(p.Shape))) - 1: 9}
			var want float64
			for i, procs := range []int{1, 3} {
				was := runtime.GOMAXPROCS(procs)
				got, err := Compare(context.Background(), m, changed{m, map[string]map[int]float32{p.Name: v}}, nil, nil)
				runtime.GOMAXPROCS(was)
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range got {
					if x.Stats != nil {
						t.Fatalf("%s %s: figures that nobody asked for", name, x.Name)
					}
					if (x.Name == p.Name) == x.Error.Identical {
						t.Errorf("%s: %s changed, and %s is said to be identical: %v", name, p.Name, x.Name, x.Error.Identical)
					}
					if x.Name != p.Name {
						continue
					}
					if worst := x.Error.Worst[0].Error; i == 0 {
						want = worst
					} else if worst != want {
						t.Errorf("%s %s: error %v on one processor, %v on three", name, p.Name, want, worst)
					}
				}
			}
			if !(want > 0.1) {
				t.Errorf("%s %s: a 9 among small values is an error of %v", name, p.Name, want)
			}
		}
	}
	if _, err := Compare(context.Background(), named(t, "llama"), named(t, "qwen2"), nil, nil); err == nil {
		t.Error("models of different shapes were compared")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compare(ctx, named(t, "llama"), named(t, "llama"), nil, nil); err == nil {
		t.Error("a comparison that was cancelled went on")
	}
}

func elements(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
