package kernel

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"
)

// TestDecodeBlocks: every implementation decodes random bytes, of which scales are all that
// half precision has, to the same bits.
func TestDecodeBlocks(t *testing.T) {
	r := seeded(41)
	for which, f := range formats {
		for _, blocks := range []int{0, 1, 2, 7, 2000} {
			src := make([]byte, blocks*f.bytes)
			for i := range src {
				src[i] = byte(r.Uint32())
			}
			want := make([]float32, f.elems*blocks)
			f.generic(want, src)
			forEachImpl(t, func(t *testing.T) {
				got, check := guarded(t, len(want), 1)
				Format(which).Decode(got, src)
				for i, w := range want {
					if g := got[i]; !sameNumber(g, w) {
						t.Fatalf("%s: value %d is %v, want %v", f.name, i, g, w)
					}
				}
				check()
			})
		}
	}
}

// sameNumber reports whether a and b are the same number, or both NaN.
func sameNumber(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// TestDot: rows multiplied as they are stored give the bits of rows that are decoded first.
func TestDot(t *testing.T) {
	r := seeded(43)
	for which, b := range formats {
		f := Format(which)
		elems, size := f.Block()
		for _, width := range []int{b.elems, 2 * b.elems, 7 * b.elems, 45} {
			if width%elems != 0 {
				continue
			}
			for _, rows := range []int{0, 1, 3, 65} {
				src, x := make([]byte, rows*width/elems*size), make([]float32, width)
				for i := range src {
					src[i] = byte(r.Uint32())
				}
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				forEachImpl(t, func(t *testing.T) {
					decoded, want := make([]float32, rows*width), make([]float32, rows)
					f.Decode(decoded, src)
					if rows > 0 {
						dot(want, x, decoded, width)
					}
					got, check := guarded(t, rows, 1)
					f.Dot(got, x, src)
					for i, w := range want {
						if !sameNumber(got[i], w) {
							t.Fatalf("%s: row %d of %d of %d values is %v, want %v", f, i, rows, width, got[i], w)
						}
					}
					check()
				})
			}
		}
	}
}

// TestDotOfOneRow: a product of one row takes the way that does not decode, whole or part of the
// weight, scaled and added, with the same bits.
func TestDotOfOneRow(t *testing.T) {
	const n, k = 131, 512
	r := seeded(44)
	raw := make([]byte, n*k/256*144)
	for i := range raw {
		raw[i] = byte(r.Uint32()) & 0x3b // no half of it is infinite or NaN
	}
	const row = k / 256 * 144
	decoding := Matrix{N: n, K: k, Decode: func(dst []float32, lo, hi int) { Q4_K.Decode(dst, raw[lo*row:hi*row]) }}
	var taken atomic.Int32
	stored := decoding
	stored.Dot = func(out, x []float32, lo, hi int) {
		taken.Add(int32(hi - lo))
		Q4_K.Dot(out, x, raw[lo*row:hi*row])
	}
	half := make([]byte, 2*n*k)
	wide := make([]float32, n*k)
	for i := range wide {
		wide[i] = float32(r.NormFloat64())
	}
	F32ToBF16(half, wide)
	BF16ToF32(wide, half)
	dense, inHalf := Matrix{N: n, K: k, F32: wide}, Matrix{N: n, K: k, BF16: half}
	x := make([]float32, 2*k)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	forEachImpl(t, func(t *testing.T) {
		for _, pair := range [][2]Matrix{{decoding, stored}, {decoding.Rows(5, 77), stored.Rows(5, 77)}, {dense, inHalf}, {dense.Rows(5, 77), inHalf.Rows(5, 77)}} {
			for _, m := range []int{1, 2} {
				for _, acc := range []bool{false, true} {
					var results [2][]float32
					for i := range pair {
						c := make([]float32, m*pair[i].N)
						for j := range c {
							c[j] = float32(j)
						}
						ScaledMulT(c, pair[i].N, x, k, m, &pair[i], 0.75, acc)
						results[i] = c
					}
					if !slices.Equal(results[0], results[1]) {
						t.Fatalf("%d rows of A, %d of W, added %v: the products differ", m, pair[0].N, acc)
					}
				}
			}
		}
	})
	if want := int32(len(Impls()) * 2 * (n + 72)); taken.Load() != want {
		t.Errorf("%d rows were multiplied as they are stored, want %d", taken.Load(), want)
	}
}

func TestDotPanics(t *testing.T) {
	for name, f := range map[string]func(){
		"short src":       func() { Q8_0.Dot(make([]float32, 2), make([]float32, 32), make([]byte, 34)) },
		"part of a block": func() { Q8_0.Dot(make([]float32, 2), make([]float32, 16), make([]byte, 34)) },
		"no scales": func() {
			Dot4(make([]float32, 2), make([]float32, 64), make([]byte, 64), make([]float32, 1), 64, testBook)
		},
		"row of 96": func() {
			Dot4(make([]float32, 2), make([]float32, 96), make([]byte, 96), make([]float32, 9), 64, testBook)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// BenchmarkDot: rows of 768 values in the second-level cache.
func BenchmarkDot(b *testing.B) {
	const rows, width = 512, 768
	x, out := make([]float32, width), make([]float32, rows)
	for which, f := range formats {
		src := make([]byte, rows*width/f.elems*f.bytes)
		b.Run(f.name, func(b *testing.B) {
			for b.Loop() {
				Format(which).Dot(out, x, src)
			}
			b.ReportMetric(float64(rows*width)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
		})
	}
}

func BenchmarkDot4(b *testing.B) {
	const rows, width, block = 64, 4096, 64
	x, out := make([]float32, width), make([]float32, rows)
	src, absmax := make([]byte, rows*width/2), make([]float32, rows*width/block)
	for b.Loop() {
		Dot4(out, x, src, absmax, block, testBook)
	}
	b.ReportMetric(float64(rows*width)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
}

func BenchmarkDecodeBlocks(b *testing.B) {
	const n = 1 << 24
	for which, f := range formats {
		src, dst := make([]byte, n/f.elems*f.bytes), make([]float32, n)
		benchmarkBytes(b, f.name, len(src)+4*n, false, func() { Format(which).Decode(dst, src) })
	}
}
