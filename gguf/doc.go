// Package gguf reads and writes GGUF files, the format of llama.cpp: typed
// metadata and named tensors, most of them in blocks of quantized numbers.
//
// It knows bytes and nothing else: metadata keys have no meaning here but
// general.alignment, and blocks are not decoded. A file is
//
//	magic "GGUF", version, number of tensors, number of metadata entries
//	metadata: key, type, value; in order
//	tensor infos: name, dimensions, type, offset; in order
//	padding to the alignment (32 unless general.alignment says otherwise)
//	the tensors in the same order, each padded to the alignment
//
// all little-endian. Dimensions are in ggml's order, the reverse of PyTorch's: the
// first is the contiguous one, so a weight of shape (out, in) has Dims {in, out},
// and its bytes are the same.
//
// # Reading
//
// [Open] reads versions 2 and 3. It reads the header only, a few megabytes at most
// (the vocabulary), and checks all of it as llama.cpp does, so that afterwards
// every tensor is known to lie inside the file. [Value] gives metadata by key and
// exact type, [File.ReadAt] the bytes of tensors; both are safe to call from
// several goroutines.
//
//	f, err := gguf.Open("model.gguf")
//	…
//	defer f.Close()
//	layers, ok, err := gguf.Value[uint32](f, "llama.block_count")
//	t, ok := f.Tensor("output_norm.weight") // t.Type, t.Dims
//	data := make([]byte, t.Size)
//	err = f.ReadAt(t, data, 0)
//
// # Writing
//
// The place of every tensor follows from its dimensions and type, so a file is
// planned first and filled in any order: [Plan] gives the header and the offsets,
// [Create] starts a file that appears under its name only when every byte of it
// was written, and [Write] does all of it for tensors that are in memory. Files
// are of version 3, and byte for byte those that gguf-py writes from the same
// entries and tensors.
//
// # Caveats
//
// Big-endian files and version 1 are refused ([ErrUnsupported]). Parts of a split
// model open as files of their own; joining them is left to the caller. Strings
// are bytes: nothing checks that they are UTF-8, because vocabularies may hold
// pieces that are not.
package gguf
