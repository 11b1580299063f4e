// Package kernel holds the arithmetic that training and generation spend their
// time in, on the CPU: matrix products, attention, normalisation, activations,
// the loss, the decoding of packed weights, and what quantizers search. Everything is slices and shapes,
// computed in float32; nothing here knows what a model is. Activations are float32 or,
// to halve their memory, bfloat16: a [Vec] is either.
//
// # Basics
//
// Three products serve a linear layer with weight W (N, K):
//
//	MulT(y, n, x, k, m, w, false)                // y (m, N)  = x (m, K)·Wᵀ
//	Mul(dx, k, dy, n, m, w, true)                // dx (m, K) += dy (m, N)·W
//	MulTN(dw, k, dy, n, x, k, m, n, k, 1, true)  // dW (N, K) += dyᵀ·x
//
// The weight is a [Matrix]: dense, or decoded a few rows at a time by a function
// of its owner, so that a packed weight is never unpacked as a whole. Any shape
// will do. One to four rows take a path that reads the weight once and does
// nothing else, a single one where it can as the weight is stored ([Format.Dot]);
// up to some two hundred rows only the activations are rearranged, and beyond
// that the weight is packed chunk by chunk for the length of the call,
// unless it lies packed already: [NewMatrix] makes a weight that will stay as it is
// in the [Layout] of the product that it serves most.
// Ranks of LoRA pairs, where one side of a product is small, are no special case
// for the caller; [ScaledMulT] and [ScaledMul] fold the scale of a pair in.
//
// [Linear] and [LinearBackward] are MulT and Mul of a layer: operands and result of
// either type, and with the products of low-rank pairs ([Term]) in the same sum.
//
// A weight with Half set has its products computed in bfloat16: both operands rounded,
// sums in float32. It may be held in bfloat16 too, which halves its memory. Where the
// processor has AMX, or AVX512-BF16 on other makes than Intel, that is two to several
// times as fast; elsewhere it takes the float32 kernels, on rounded values. Attention of
// bfloat16 is computed so too, of heads whose width is a multiple of 32. [Half] says which,
// [SetHalf] chooses.
//
// Work is shared by a pool of goroutines through [Parallel]; [SetThreads] says
// by how many. Other packages that need threads use the same pool.
//
// # Implementations
//
// Each kernel exists in plain Go, which is the reference, and on amd64 in
// assembly for AVX2 and for AVX-512. The best that the processor offers is
// chosen at start; the environment variable GRAFT_KERNEL or [SetImpl] choose
// another, and the build tag purego leaves the assembly out. The same tests run
// over all of them, and with the tag amxemulator over AMX where the processor has none. Assembly of the products is written by _asm/gemm (go
// generate), and a test fails if the tree holds anything else. NOTES.md records
// what was measured and what was rejected.
//
// # Caveats
//
// Results do not depend on the number of threads: work is split over outputs,
// and the terms of a sum are added in an order that the length of the sum
// decides. The products of avx2 and avx512 agree bit for bit; generic rounds
// each product before it adds, and differs from them in the last places.
//
// Functions panic when slices are too short for the shapes given, since only a
// programmer's mistake can bring that about, and outputs must not overlap
// inputs unless a function says so. Scratch memory grows to what the largest
// call needed and is kept: a steady state allocates nothing.
package kernel
