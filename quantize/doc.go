// Package quantize converts between float32 and the number formats that
// checkpoints store weights in.
//
// # Formats of single tensors
//
// [Lookup] gives a [Codec] by ggml's name for a format: F32, F16, BF16, the
// 32-value blocks (Q8_0, Q4_0, …) and the 256-value super-blocks (Q4_K, Q6_K,
// …). A codec reads whole blocks; those that can also write are an [Encoder],
// which can be told how much each column of a tensor matters. Decoding agrees
// with gguf-py bit for bit, and encoding byte for byte with libggml 0.25.3.
//
//	c, err := quantize.Lookup("Q4_K")
//	elems, bytes := c.Block()                   // 256 values in 144 bytes
//	c.Decode(dst, src)                          // len(dst) = len(src)/bytes*elems
//
// # Formats of whole models
//
// A [Mix] is a file type of llama-quantize, such as Q4_K_M: the rule by which
// it gives each tensor of a model its format. [Mix.Types] applies it to a
// model's list of tensors.
//
//	mix, err := quantize.LookupMix("Q4_K_M")
//	formats := mix.Types(quantize.MixModel{Arch: "llama", Layers: 30, Heads: 9, KVHeads: 3}, tensors)
//
// # NF4 and FP4
//
// A [Tensor4] is a weight in the 4-bit form of bitsandbytes, the one that
// QLoRA trains on: 4 bits a weight, a scale for every 64, and optionally the
// scales in 8 bits (double quantization). [Quantize4] makes one of a slice; an
// [Encoder4] makes one of pieces, in any order and from several goroutines,
// with the same bytes. [Tensor4.DecodeRows] expands rows where they are
// needed. [Tensor4.Saved] and [Load4] are the form on disk, for whose layout
// in a file [PlanSaved] gives the sizes beforehand, and [Config4] is the
// quantization_config that belongs into config.json.
//
//	t, err := quantize.Quantize4(w, []int{out, in}, quantize.Options4{Double: true})
//	t.DecodeRows(row, i, i+1)
//
// # Exactness
//
// The libggml that blocks are compared with was built for x86-64 without fused
// multiply-add; one that was built with it, as for an Apple processor, parts
// from it in a code here and there, and so does the sum of a compiler that was
// allowed to reorder. Infinities and NaN have no meaning in blocks.
//
// Codes, scales, tables and JSON text equal those that bitsandbytes 0.50.2
// writes on an x86-64 CPU, byte for byte. Its CUDA code differs from its CPU
// code in two ways that this package does not follow: codes of all-zero blocks
// (which decode to zeros all the same) and the rounding of double-quantized
// scales; [RoundingNearest] is close to the latter. [Options4.MeanThreads]
// tells of a place where the number of threads shows.
//
// Bitsandbytes 0.50.2 itself decodes wrongly on a CPU with AVX-512 when the
// last dimension is a multiple of 16 but not of the block size; the stored
// data are right, and this package decodes them right.
package quantize
