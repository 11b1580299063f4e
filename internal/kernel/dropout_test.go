package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// TestDropout: every implementation, range and type drops the same values, as many as the
// probability says, and scales the others.
func TestDropout(t *testing.T) {
	const n, p, key = 100_003, 0.3, 0x123456789abcdef0
	r := seeded(31)
	x := rounded(normal(r, n))
	want := make([]float32, n)
	vecDropGeneric(want, x, &dropScalars{scale: 1 / float32(0.7), threshold: uint32(float64(float32(p)) * (1 << 32)),
		counter: key >> 32, key: key & math.MaxUint32, first: dropFirst, second: dropSecond, step: dropStep})
	dropped := 0
	for i, v := range want {
		if v == 0 {
			dropped++
		} else if e := math.Abs(float64(v)*0.7/float64(x[i]) - 1); e > 1e-6 {
			t.Fatalf("value %d is scaled by %g", i, v/x[i])
		}
	}
	if sd := math.Sqrt(p * (1 - p) * n); math.Abs(float64(dropped)-p*n) > 5*sd {
		t.Errorf("%d of %d are dropped", dropped, n)
	}
	forEachImpl(t, func(t *testing.T) {
		withThreads(t, func(t *testing.T) {
			got := make([]float32, n)
			Dropout(F32Vec(got), F32Vec(x), p, key)
			sameBits(t, "float32", got, want)
			half := halfVec(x)
			Dropout(half, half, p, key) // in place
			sameBits(t, "bfloat16", half.values32(), rounded(want))
		})
		for _, n := range []int{0, 1, 7, 15, 16, 17, 33} {
			got, check := guarded(t, n, 1)
			Dropout(F32Vec(got), F32Vec(x[:n]), p, key)
			sameBits(t, fmt.Sprint(n, " values"), got, want[:n])
			check()
		}
	})
}

// TestDropoutKeys: masks of keys that are near each other have nothing in common, nor do
// neighbours of one mask.
func TestDropoutKeys(t *testing.T) {
	const n, p = 1 << 16, 0.5
	ones := slices.Repeat([]float32{1}, n)
	mask := func(key uint64) []float32 {
		m := make([]float32, n)
		Dropout(F32Vec(m), F32Vec(ones), p, key)
		return m
	}
	base := mask(77)
	for _, key := range []uint64{78, 76, 77 + 1<<32, 77 + dropStep<<32, 0} {
		both := 0
		for i, v := range mask(key) {
			if v != 0 && base[i] != 0 {
				both++
			}
		}
		if math.Abs(float64(both)-n/4) > 5*math.Sqrt(3./16*n) {
			t.Errorf("keys 77 and %d keep %d of %d in common", key, both, n)
		}
	}
	for _, lag := range []int{1, 2, 16, 576} {
		both := 0
		for i := lag; i < n; i++ {
			if base[i] != 0 && base[i-lag] != 0 {
				both++
			}
		}
		if math.Abs(float64(both)-n/4) > 6*math.Sqrt(3./16*n) {
			t.Errorf("values %d apart are both kept %d times of %d", lag, both, n)
		}
	}
}
