package kernel_test

import (
	"fmt"

	"github.com/graftml/graft/internal/kernel"
)

// A weight of two rows that is stored as bytes and decoded when it is used.
func ExampleMulT() {
	packed := []byte{1, 2, 3, 4, 5, 6}
	w := &kernel.Matrix{N: 2, K: 3, Decode: func(dst []float32, lo, hi int) {
		for i, b := range packed[lo*3 : hi*3] {
			dst[i] = float32(b)
		}
	}}
	x := []float32{1, 0, -1} // (1, 3)
	y := make([]float32, 2)  // (1, 2)
	kernel.MulT(y, 2, x, 3, 1, w, false)
	fmt.Println(y)
	// Output: [-2 -2]
}
