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
	layouts := r.Perm(240)
	for i := range 240 {
		layout := layouts[i]
		k := tileCall{strips: 1 + i%4, panels: 1 + layout%3, steps: 1 + i/4%5, lda: words, ahead: tileSide * words, skip: []int{0, 3 * 512, 17}[i%3]}
		if i%20 == 0 {
			k.steps = tiledTerms / tileSide
		}
		if layout/3%2 == 1 { // rows of words, not lines
			k.lda, k.ahead = k.steps*words+[]int{0, 16, 3}[i%3], words
			k.skip = tileSide*k.lda - k.steps*words
		}
		k.ldc, k.ldp = k.panels*tileSide+[]int{0, 5, 32}[i/3%3], k.steps*words*tileSide+[]int{0, 16}[layout/6%2]
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
		k.acc = acc
		front := i%5 == 0
		a := fenced(t, (k.strips-1)*(k.steps*k.ahead+k.skip)+(tileSide-1)*k.lda+(k.steps-1)*k.ahead+words, front)
		panel, got := fenced(t, (k.panels-1)*k.ldp+k.steps*words*tileSide, front), fenced(t, (k.strips*tileSide-1)*k.ldc+k.panels*tileSide, front)
		pack(a)
		pack(panel)
		for j := range got {
			got[j] = value()
		}
		want, sizes := slices.Clone(got), make([]float32, len(got))
		for j := range sizes {
			sizes[j] = float32(math.Abs(float64(got[j])))
		}
		genericTileStrips(&k, a, panel, want)
		added := k
		added.acc = true
		genericTileStrips(&added, absolute(a), absolute(panel), sizes)
		tileStrips(&tileConfig, &k, &a[0], &panel[0], &got[0], &panel[0])
		for j := range got {
			bound := 0.0
			if !whole && j%k.ldc < k.panels*tileSide {
				bound = float64(sizes[j]) * 0x1p-24 * float64(2*k.steps*tileSide+1)
			}
			if d := math.Abs(float64(got[j]) - float64(want[j])); !(d <= bound) {
				t.Fatalf("%+v, whole %v: C[%d, %d] is %v, the reference has %v", k, whole, j/k.ldc, j%k.ldc, got[j], want[j])
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
