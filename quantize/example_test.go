package quantize_test

import (
	"fmt"

	"github.com/graftml/graft/quantize"
)

// A weight in NF4 with double quantization: quantized, expanded row by row,
// and the tensors that a checkpoint stores for it.
func Example() {
	w := make([]float32, 4*64) // (4, 64)
	for i := range w {
		w[i] = float32(i%64)/64 - 0.5
	}
	t, err := quantize.Quantize4(w, []int{4, 64}, quantize.Options4{Double: true, DType: "bfloat16"})
	if err != nil {
		fmt.Println(err)
		return
	}
	row := make([]float32, t.Cols())
	t.DecodeRows(row, 1, 2)
	fmt.Printf("%.3f is stored as %.3f\n", w[64+20], row[20])
	for _, s := range t.Saved("up_proj.weight") {
		fmt.Println(s.Name, s.DType, s.Shape)
	}
	// Output:
	// -0.188 is stored as -0.197
	// up_proj.weight U8 [128 1]
	// up_proj.weight.absmax U8 [4]
	// up_proj.weight.quant_map F32 [16]
	// up_proj.weight.nested_absmax F32 [1]
	// up_proj.weight.nested_quant_map F32 [256]
	// up_proj.weight.quant_state.bitsandbytes__nf4 U8 [151]
}

// An Encoder4 takes a tensor in pieces of whole blocks.
func ExampleEncoder4() {
	e, err := quantize.NewEncoder4([]int{2, 96}, quantize.Options4{})
	if err != nil {
		fmt.Println(err)
		return
	}
	packed := make([]byte, e.PackedSize())
	for off := 0; off < 2*96; off += 64 {
		piece := make([]float32, 64)
		piece[0] = float32(off + 1)
		if err := e.EncodeAt(packed[off/2:off/2+32], piece, off); err != nil {
			fmt.Println(err)
			return
		}
	}
	t, err := e.Finish()
	fmt.Println(t.Absmax, err)
	// Output: [1 65 129] <nil>
}

func ExampleLookup() {
	c, err := quantize.LookupEncoder("Q8_0")
	if err != nil {
		fmt.Println(err)
		return
	}
	src := make([]float32, 32)
	src[5] = 12.7
	size, _ := quantize.Size(c, len(src))
	stored := make([]byte, size)
	c.Encode(stored, src)
	c.Decode(src, stored)
	fmt.Printf("%d bytes, %.2f\n", size, src[5])
	// Output: 34 bytes, 12.70
}
