// Package adapters reads, checks, writes and applies low-rank adapters (LoRA, Hu et al. 2021): for
// some products of a model a pair of thin matrices A and B, so that the product's weight W becomes
// W + s·B·A.
//
// # Basics
//
// [Open] reads an adapter in a folder of PEFT's or MLX-LM's; one in GGUF names its base's tensors, so
// [ReadGGUF] wants to know what those are. [WritePEFT], [WriteMLX] and [WriteGGUF] write them, fold in what
// their form lacks where that is exact, and refuse the rest with the way around. What comes back is an [Adapter] whose pairs have their scale resolved: alpha/r, or
// alpha/√r with use_rslora, after the patterns that give single modules their own rank or alpha.
//
//	a, err := adapters.Open("run/adapter")
//	…
//	c, err := adapters.NewChange(base, read, a) // does it fit this base?
//	c.Apply(name, lo, hi, rows)                 // rows of W become rows of W + s·B·A
//	err = adapters.WritePEFT("copy", a)
//
// ONNX Runtime takes adapters as a file of named tensors: [Adapter.ONNXTensors] turns the pairs into
// them, [WriteONNX] and [ReadONNX] are the file.
//
// [Combine] adds adapters up, [Resize] lowers the rank of one, and [Extract] makes one of the difference
// of two models. None of them loads a base whole, and each says what its result leaves out.
//
// # Caveats
//
// Beside pairs an [Adapter] holds all that PEFT's LoRA does: DoRA's magnitudes, pairs on embedding tables,
// biases, whole parameters and rows of tables that replace the base's. What changes a table says nothing
// yet of a head that shares it: [Adapter.Resolve] does. Other kinds of adapters, and options that change
// the computation, are refused with an error that names them and the way around.
//
// Unknown keys of adapter_config.json are ignored: every release of PEFT adds some.
package adapters
