package quantize

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

func normal(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64()) * 0.02
	}
	return x
}

// TestEncoder4Pieces cuts tensors at random block edges, encodes the pieces in
// random order and concurrently, and wants the bytes of Quantize4.
func TestEncoder4Pieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][]int{{1}, {64}, {33, 95}, {7, 64 * 41}, {100, 100}, {257}} {
		for _, o := range []Options4{{Double: true}, {Type: "fp4", BlockSize: 128}, {BlockSize: 32, Double: true, NestedRounding: RoundingNearest}} {
			n := 1
			for _, d := range shape {
				n *= d
			}
			x := normal(uint64(n), n)
			want, err := Quantize4(x, shape, o)
			if err != nil {
				t.Fatal(err)
			}
			e, err := NewEncoder4(shape, o)
			if err != nil {
				t.Fatal(err)
			}
			var edges []int
			for at := 0; at < n; at += (1 + rng.IntN(3)) * e.BlockSize() {
				edges = append(edges, at)
			}
			edges = append(edges, n)
			packed := make([]byte, e.PackedSize())
			var wg sync.WaitGroup
			for _, i := range rng.Perm(len(edges) - 1) {
				lo, hi := edges[i], edges[i+1]
				wg.Go(func() {
					if err := e.EncodeAt(packed[lo/2:(hi+1)/2], x[lo:hi], lo); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			got, err := e.Finish()
			if err != nil {
				t.Fatal(err)
			}
			got.Packed = packed
			a, b := got.Saved("w"), want.Saved("w")
			for i := range b {
				if a[i].Name != b[i].Name || !bytes.Equal(a[i].Data, b[i].Data) {
					t.Errorf("%v %+v: %s depends on the pieces", shape, o, b[i].Name)
				}
			}
		}
	}
}

func TestEncoder4Errors(t *testing.T) {
	for _, c := range []struct {
		shape []int
		o     Options4
		want  error
	}{
		{[]int{4}, Options4{Type: "int4"}, ErrUnsupported},
		{[]int{4}, Options4{BlockSize: 48}, ErrUnsupported},
		{[]int{4}, Options4{BlockSize: 8192}, ErrUnsupported},
		{[]int{4}, Options4{BlockSize: -64}, ErrUnsupported},
		{[]int{4}, Options4{NestedBlockSize: 7}, ErrUnsupported},
		{[]int{4}, Options4{DType: "float64"}, ErrUnsupported},
		{[]int{4}, Options4{MeanThreads: -1}, ErrUnsupported},
		{[]int{4}, Options4{NestedRounding: 9}, ErrUnsupported},
		{nil, Options4{}, ErrFormat},
		{[]int{4, 0}, Options4{}, ErrFormat},
		{[]int{-1, -1}, Options4{}, ErrFormat},
		{[]int{math.MaxInt, 2}, Options4{}, ErrFormat},
	} {
		if _, err := NewEncoder4(c.shape, c.o); !errors.Is(err, c.want) {
			t.Errorf("NewEncoder4(%v, %+v): %v, want %v", c.shape, c.o, err, c.want)
		}
		if _, err := PlanSaved("w", c.shape, c.o); !errors.Is(err, c.want) {
			t.Errorf("PlanSaved(%v, %+v): %v, want %v", c.shape, c.o, err, c.want)
		}
	}
	if _, err := Quantize4(make([]float32, 5), []int{2, 3}, Options4{}); !errors.Is(err, ErrFormat) {
		t.Errorf("5 values for 6: %v", err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, at := range []int{0, 70, 199} { // the last is in the short block
			x := normal(3, 200)
			x[at] = float32(v)
			_, err := Quantize4(x, []int{2, 100}, Options4{})
			place := fmt.Sprintf("row %d, column %d ", at/100, at%100)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), place) {
				t.Errorf("%g at %d: %v", v, at, err)
			}
		}
	}
	// Scales whose sum overflows have no mean.
	huge := make([]float32, 64*8)
	for i := range huge {
		huge[i] = math.MaxFloat32
	}
	if _, err := Quantize4(huge, []int{8, 64}, Options4{Double: true}); !errors.Is(err, ErrFormat) {
		t.Errorf("overflowing mean: %v", err)
	}

	e, err := NewEncoder4([]int{3, 50}, Options4{})
	if err != nil {
		t.Fatal(err)
	}
	x := normal(4, 200)
	for _, c := range []struct{ dst, n, off int }{{32, 64, 1}, {32, 64, -64}, {20, 40, 64}, {31, 64, 0}, {33, 64, 0}, {32, 64, 128}, {32, 64, 192}} {
		if err := e.EncodeAt(make([]byte, c.dst), x[:c.n], c.off); !errors.Is(err, ErrFormat) {
			t.Errorf("%d values at %d to %d bytes: %v", c.n, c.off, c.dst, err)
		}
	}
	if err := e.EncodeAt(make([]byte, 64), x[:128], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Finish(); !errors.Is(err, ErrFormat) {
		t.Errorf("finishing without the last block: %v", err)
	}
	if err := e.EncodeAt(make([]byte, 11), x[128:150], 128); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Finish(); err != nil {
		t.Error(err)
	}
}

// TestDecodeRows decodes every range of rows and compares with the definition.
func TestDecodeRows(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, shape := range [][]int{{9, 64}, {9, 1}, {9, 7}, {9, 96}, {5, 100}, {130}, {2, 3, 65}, {3, 5000}} {
			for _, o := range []Options4{{Double: true}, {BlockSize: 32, Double: true, NestedBlockSize: 32}, {Type: "fp4", BlockSize: 128}} {
				n := 1
				for _, d := range shape {
					n *= d
				}
				q, err := Quantize4(normal(uint64(n), n), shape, o)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]float32, n)
				for i := range want {
					code := q.Packed[i/2] >> (4 * (1 - i%2)) & 15
					b := i / q.BlockSize
					var scale float32
					if q.Double() {
						scale = float32(q.NestedMap[q.Codes[b]]*q.NestedAbsmax[b/q.NestedBlockSize]) + q.Offset
					} else {
						scale = q.Absmax[b]
					}
					want[i] = codebooks[q.Type].Values[code] * scale
				}
				cols := shape[len(shape)-1]
				for lo := 0; lo <= q.Rows(); lo++ {
					for hi := lo; hi <= q.Rows(); hi++ {
						got := make([]float32, (hi-lo)*cols+2)
						got[0], got[len(got)-1] = 77, 77
						q.DecodeRows(got[1:len(got)-1], lo, hi)
						if got[0] != 77 || got[len(got)-1] != 77 || !slices.Equal(got[1:len(got)-1], want[lo*cols:hi*cols]) {
							t.Fatalf("%v %+v: rows [%d, %d) are wrong", shape, o, lo, hi)
						}
					}
				}
			}
		}
	})
}

// TestDotRows: rows multiplied as they are stored give the bits of rows that are decoded first, with scales of
// either kind, nested blocks that end within a row, and more scales in a row than go on the stack.
func TestDotRows(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, shape := range [][]int{{9, 64}, {70, 576}, {2, 3, 128}, {3, 32 * 600}} {
			for _, o := range []Options4{{Double: true}, {BlockSize: 32, Double: true, NestedBlockSize: 32}, {Type: "fp4"}} {
				n := 1
				for _, d := range shape {
					n *= d
				}
				q, err := Quantize4(normal(uint64(n), n), shape, o)
				if err != nil {
					t.Fatal(err)
				}
				if !q.WholeRows() {
					t.Fatalf("%v %+v: rows are not whole blocks", shape, o)
				}
				rows, cols := q.Rows(), q.Cols()
				x := normal(uint64(cols), cols)
				want, got := make([]float32, rows), make([]float32, rows)
				kernel.MulT(want, rows, x, cols, 1, &kernel.Matrix{N: rows, K: cols, Decode: q.DecodeRows}, false)
				for _, cut := range []int{0, 1, rows} {
					q.DotRows(got[:cut], x, 0, cut)
					q.DotRows(got[cut:], x, cut, rows)
					if !slices.Equal(got, want) {
						t.Fatalf("%v %+v, cut at %d: products differ", shape, o, cut)
					}
				}
			}
		}
	})
}

func TestDecodeRowsRounded(t *testing.T) {
	x := normal(8, 1000)
	for dtype, round := range map[string]func(float32) float32{
		"float32":  func(v float32) float32 { return v },
		"bfloat16": func(v float32) float32 { return kernel.BF16Value(kernel.BF16Bits(v)) },
		"float16":  func(v float32) float32 { return kernel.F16Value(kernel.F16Bits(v)) },
	} {
		q, err := Quantize4(x, []int{10, 100}, Options4{Double: true, DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		exact, rounded := make([]float32, 300), make([]float32, 300)
		q.DecodeRows(exact, 2, 5)
		q.DecodeRowsRounded(rounded, 2, 5)
		for i, v := range exact {
			if rounded[i] != round(v) {
				t.Fatalf("%s: %g is rounded to %g", dtype, v, rounded[i])
			}
		}
	}
}

func TestDecodeRowsPanics(t *testing.T) {
	q, err := Quantize4(normal(9, 12), []int{3, 4}, Options4{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]int{{4, -1, 0}, {4, 3, 4}, {0, 2, 1}, {5, 0, 1}, {3, 0, 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("rows [%d, %d) to %d values: no panic", c[1], c[2], c[0])
				}
			}()
			q.DecodeRows(make([]float32, c[0]), c[1], c[2])
		}()
	}
	if q.WholeRows() {
		t.Error("rows of 4 are whole blocks of 64")
	}
	defer func() {
		if recover() == nil {
			t.Error("rows that are not whole blocks were multiplied")
		}
	}()
	q.DotRows(make([]float32, 3), make([]float32, 4), 0, 3)
}

// TestNoAllocation: decoding runs in every step of a training.
func TestNoAllocation(t *testing.T) {
	q, err := Quantize4(normal(5, 64*100), []int{64, 100}, Options4{Double: true, DType: "bfloat16"})
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, 10*100)
	if n := testing.AllocsPerRun(20, func() { q.DecodeRows(dst, 3, 13); q.DecodeRowsRounded(dst, 3, 13) }); n != 0 {
		t.Errorf("DecodeRows allocates %g times", n)
	}
	whole, err := Quantize4(normal(5, 64*128), []int{64, 128}, Options4{Double: true})
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, 128)
	if n := testing.AllocsPerRun(20, func() { whole.DotRows(dst[:10], x, 3, 13) }); n != 0 {
		t.Errorf("DotRows allocates %g times", n)
	}
	for _, name := range Names() {
		c, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		elems, size := c.Block()
		dst, src := make([]float32, 2*elems), make([]byte, 2*size)
		if n := testing.AllocsPerRun(20, func() { c.Decode(dst, src) }); n != 0 {
			t.Errorf("%s allocates %g times", name, n)
		}
	}
}

// TestMemory: a weight in memory takes half a byte and its share of scales.
func TestMemory(t *testing.T) {
	for double, most := range map[bool]float64{true: 4.13, false: 4.51} {
		q, err := Quantize4(normal(6, 1<<20), []int{1 << 10, 1 << 10}, Options4{Double: double})
		if err != nil {
			t.Fatal(err)
		}
		if bits := 8 * float64(q.Bytes()) / float64(q.Elems()); bits > most {
			t.Errorf("double %v: %.3f bits a weight", double, bits)
		}
	}
}

// TestRoundingNearest: the code of each value is one whose map value is
// nearest, and rounding on the CPU's levels is never far from it.
func TestRoundingNearest(t *testing.T) {
	y := normal(7, 256)
	y[10], y[20] = 0, 0.5*(dynamicMap[200]+dynamicMap[201])
	top := slices.MaxFunc(y, func(a, b float32) int {
		return int(math.Copysign(1, math.Abs(float64(a))-math.Abs(float64(b))))
	})
	codes := make([]byte, len(y))
	scale := encode8(codes, y, RoundingNearest)
	if scale != float32(math.Abs(float64(top))) {
		t.Fatalf("scale %g, want %g", scale, top)
	}
	for i, v := range y {
		s := float64(v * (1 / scale))
		best := math.Inf(1)
		for _, m := range dynamicMap {
			best = min(best, math.Abs(float64(m)-s))
		}
		// Bounds are midpoints rounded to float32, hence the last bit of leeway.
		if d := math.Abs(float64(dynamicMap[codes[i]]) - s); d > best+1e-7 {
			t.Errorf("%g has code %d, at %g; the nearest is at %g", s, codes[i], d, best)
		}
	}
	if c := dynamicCode(dynamicBounds[200]); c != 200 {
		t.Errorf("a tie of codes 200 and 201 goes to %d", c)
	}
	clear(y)
	if encode8(codes, y, RoundingNearest) != 0 || codes[3] != 0 {
		t.Error("zeros are not coded as 0 with scale 0")
	}
}

func TestPythonFloat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0.0", 1: "1.0", 0.25: "0.25", 2.60693359375: "2.60693359375", 1e-4: "0.0001", 9.999e-5: "9.999e-05",
		1e15: "1000000000000000.0", 1e16: "1e+16", 1.5e300: "1.5e+300", -0.5: "-0.5", -1e-7: "-1e-07", 5e-324: "5e-324",
		float64(float32(0.1)): "0.10000000149011612", 123456789012345680: "1.2345678901234568e+17",
	} {
		if got := pythonFloat(v); got != want {
			t.Errorf("pythonFloat(%g) = %s, want %s", v, got, want)
		}
	}
}
