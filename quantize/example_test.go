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

func ExampleMix_Types() {
	mix, err := quantize.LookupMix("Q4_K_M")
	if err != nil {
		panic(err)
	}
	tensors := []quantize.MixTensor{
		{Name: "token_embd.weight", Shape: []int{32000, 2048}}, // also the head, for there is no output.weight
		{Name: "blk.0.attn_norm.weight", Shape: []int{2048}},
		{Name: "blk.0.attn_q.weight", Shape: []int{2048, 2048}},
		{Name: "blk.0.attn_v.weight", Shape: []int{256, 2048}},
	}
	types := mix.Types(quantize.MixModel{Arch: "llama", Layers: 1, Heads: 16, KVHeads: 2}, tensors)
	fmt.Printf("%d %q\n", mix.FileType(), types)
	// Output: 15 ["Q6_K" "" "Q4_K" "Q6_K"]
}

func ExampleEncoder() {
	e, err := quantize.LookupEncoder("Q4_K")
	if err != nil {
		panic(err)
	}
	row := make([]float32, 256)
	importance := make([]float32, 256) // of each column, as an importance matrix has it
	for i := range row {
		row[i] = float32(i%17) / 16
		importance[i] = 1
	}
	elems, size := e.Block()
	data := make([]byte, len(row)/elems*size)
	e.EncodeWeighted(data, row, importance)
	back := make([]float32, len(row))
	e.Decode(back, data)
	fmt.Printf("%d bytes; %.2f became %.2f\n", len(data), row[5], back[5])
	// Output: 144 bytes; 0.31 became 0.31
}
