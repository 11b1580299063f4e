package quantize_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/graftml/graft/quantize"
)

// Rows decoded from the bytes that hold them are those of the whole tensor.
func TestWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, o := range []quantize.Options4{{}, {Double: true, NestedBlockSize: 32}, {Type: "fp4", BlockSize: 32, Double: true, NestedBlockSize: 64, DType: "bfloat16"}, {BlockSize: 4096}} {
		for _, shape := range [][]int{{300, 64}, {70, 97}, {5, 3}} {
			values := make([]float32, shape[0]*shape[1])
			for i := range values {
				values[i] = rng.Float32() - 0.5
			}
			whole, err := quantize.Quantize4(values, shape, o)
			if err != nil {
				t.Fatal(err)
			}
			saved := whole.Saved("w")
			scales, err := quantize.Load4Scales("w", int64(len(whole.Packed)), func(name string) (string, []int, []byte, bool, error) {
				i := slices.IndexFunc(saved, func(s quantize.Saved) bool { return s.Name == name })
				if name == "w" {
					t.Error("the codes were read")
				}
				if i < 0 {
					return "", nil, nil, false, nil
				}
				return saved[i].DType, saved[i].Shape, saved[i].Data, true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range [][2]int{{0, shape[0]}, {1, 3}, {shape[0] - 2, shape[0]}, {2, 2}, {shape[0] / 2, shape[0]/2 + 1}} {
				want, got := make([]float32, (r[1]-r[0])*shape[1]), make([]float32, (r[1]-r[0])*shape[1])
				whole.DecodeRowsRounded(want, r[0], r[1])
				off, n := scales.CodesOf(r[0], r[1])
				scales.DecodeRowsFrom(got, whole.Packed[off:off+int64(n)], r[0], r[1])
				if !slices.Equal(want, got) {
					t.Errorf("%+v, shape %v: rows %v differ", o, shape, r)
				}
			}
			if _, err := quantize.Load4Scales("w", int64(len(whole.Packed))-1, func(name string) (string, []int, []byte, bool, error) {
				i := slices.IndexFunc(saved, func(s quantize.Saved) bool { return s.Name == name })
				if i < 0 {
					return "", nil, nil, false, nil
				}
				return saved[i].DType, saved[i].Shape, saved[i].Data, true, nil
			}); err == nil {
				t.Error("too few codes were accepted")
			}
		}
	}
}
