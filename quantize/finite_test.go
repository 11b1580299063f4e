package quantize_test

import (
	"math"
	"testing"

	"github.com/graftml/graft/quantize"
)

// Every place and every kind of value that is not finite is found, and the largest finite ones are not.
func TestFinite(t *testing.T) {
	for _, name := range []string{"F32", "F16", "BF16"} {
		c, err := quantize.LookupEncoder(name)
		if err != nil {
			t.Fatal(err)
		}
		top := map[string]float32{"F32": math.MaxFloat32, "F16": 65504, "BF16": math.Float32frombits(0x7f7f0000)}[name]
		for _, n := range []int{0, 1, 3, 8, 31, 64, 65} {
			values := make([]float32, n)
			for i := range values {
				values[i] = top
				if i%3 == 1 {
					values[i] = -top
				}
			}
			raw := make([]byte, n*map[string]int{"F32": 4, "F16": 2, "BF16": 2}[name])
			check := func(want bool) {
				t.Helper()
				c.Encode(raw, values)
				if ok, known := quantize.FiniteBytes(c, raw); ok != want || !known {
					t.Errorf("%s, %d values: %v, %v, want %v", name, n, ok, known, want)
				}
				if ok := quantize.Finite(values); ok != want {
					t.Errorf("%d values: %v, want %v", n, ok, want)
				}
			}
			check(true)
			for i := range values {
				for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
					was := values[i]
					values[i] = float32(bad)
					check(false)
					values[i] = was
				}
			}
		}
	}
	c, err := quantize.Lookup("Q8_0")
	if err != nil {
		t.Fatal(err)
	}
	if _, known := quantize.FiniteBytes(c, make([]byte, 34)); known {
		t.Error("blocks are known without decoding")
	}
}
