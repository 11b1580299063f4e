package kernel

import (
	"math"
	"runtime"
	"slices"
	"testing"
)

// TestTileStrips compares the assembly with its reference, on operands that end at a page
// that must not be touched, while signals arrive: exactly where every sum is an integer, and
// within the rounding of float32 elsewhere.
func TestTileStrips(t *testing.T) {
	if !slices.Contains(halfLevels, tiles) {
		t.Skip("no AMX")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	underSignals(t)
	const words = tileSide / 2
	r := seeded(16)
	for i := range 240 {
		strips, steps, skip, ldc := 1+i%4, 1+i/4%5, []int{0, 3 * 512, 17}[i%3], tileSide+[]int{0, 5, 32}[i/3%3]
		if i%20 == 0 {
			steps = tiledTerms / tileSide
		}
		acc, whole := i/2%2 == 1, i%2 == 0
		value := func() float32 {
			if whole {
				return float32(r.IntN(17) - 8)
			}
			return float32(r.NormFloat64())
		}
		pack := func(x []float32) {
			for j := range x {
				bits := math.Float32bits(value())>>16 | math.Float32bits(value())&^0xffff
				x[j] = math.Float32frombits(bits)
			}
		}
		front := i%5 == 0
		a := fenced(t, strips*(steps*tileSide*words+skip)-skip, front)
		panel, got := fenced(t, steps*words*tileSide, front), fenced(t, (strips*tileSide-1)*ldc+tileSide, front)
		pack(a)
		pack(panel)
		for j := range got {
			got[j] = value()
		}
		want, sizes := slices.Clone(got), make([]float32, len(got))
		for j := range sizes {
			sizes[j] = float32(math.Abs(float64(got[j])))
		}
		genericTileStrips(strips, steps, a, panel, want, ldc, skip, acc)
		genericTileStrips(strips, steps, absolute(a), absolute(panel), sizes, ldc, skip, true)
		tileStrips(&tileConfig, strips, steps, &a[0], &panel[0], &got[0], ldc, skip, &panel[0], acc)
		for j := range got {
			bound := 0.0
			if !whole && j%ldc < tileSide {
				bound = float64(sizes[j]) * 0x1p-24 * float64(2*steps*tileSide+1)
			}
			if d := math.Abs(float64(got[j]) - float64(want[j])); !(d <= bound) {
				t.Fatalf("%d strips of %d steps, %d values apart, acc %v, whole %v: C[%d, %d] is %v, the reference has %v",
					strips, steps, skip, acc, whole, j/ldc, j%ldc, got[j], want[j])
			}
		}
	}
}

// absolute is pairs of values in bfloat16 without their signs.
func absolute(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = math.Float32frombits(math.Float32bits(v) &^ 0x80008000)
	}
	return y
}
