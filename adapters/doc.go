// Package adapters reads, checks, writes and applies low-rank adapters (LoRA, Hu et al. 2021): for
// some products of a model a pair of thin matrices A and B, so that the product's weight W becomes
// W + s·B·A.
//
// # Basics
//
// [Open] reads an adapter in whatever form it is, [ReadPEFT] a folder as Hugging Face's PEFT
// lays it out. What comes back is an [Adapter] whose pairs have their scale resolved: alpha/r, or
// alpha/√r with use_rslora, after the patterns that give single modules their own rank or alpha.
//
//	a, err := adapters.Open("run/adapter")
//	…
//	err = a.Check(shapeOf)             // does it fit this base?
//	a.AddRows(name, lo, hi, rows)      // rows of W become rows of W + s·B·A
//	err = adapters.WritePEFT("copy", a)
//
// ONNX Runtime takes adapters as a file of named tensors: [Adapter.ONNXTensors] turns the pairs into
// them, [WriteONNX] and [ReadONNX] are the file.
//
// # Caveats
//
// An adapter that does more than add s·B·A to linear products (DoRA, trained biases, whole modules
// or token rows saved along with it) is refused with an error that names what it does and the
// way around, since applying the rest of it would give another model than the one trained.
// Unknown keys of adapter_config.json are ignored: every release of PEFT adds some.
package adapters
