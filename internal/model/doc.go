// Package model says what a decoder is: its configuration, its parameters and its computation.
//
// # Basics
//
// A [Config] is the shape of one model, read from a Hugging Face config.json ([ParseConfig]) or from
// GGUF metadata ([FromGGUF]) and written back to either. An architecture is one file that registers
// an [Arch]: names, transforms, and above all a definition, a function that spells out the
// computation over a small set of coarse operations ([Ops]). [Forward] runs that definition under an
// interpreter. Three exist: [Inventory] here (values are widths: it lists every parameter), the
// engine (values are activations: it trains and generates) and the ONNX exporter (values are edge
// names: it emits nodes). A new architecture is therefore loadable, trainable and exportable at once,
// and training and export cannot drift apart.
//
// Parameters carry their Hugging Face names everywhere. The GGUF names, the row order that GGUF wants
// and what it adds to gains are data of the architecture ([Config.GGUFName], [Config.RowHeads],
// [Config.Offset]); so are the defaults of a config.json's absent keys, those of transformers.
//
// A key that changes the computation is honoured or refused by name. Where llama.cpp would compute
// something else from a GGUF file than transformers from a folder, the file is not written
// ([Config.CheckGGUF]), but for a window that llama.cpp leaves out: up to its length both agree.
//
// # Caveats
//
// The package is a leaf: it reads no files and computes no numbers but the rotary frequencies.
package model
