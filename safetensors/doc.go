// Package safetensors reads and writes safetensors files: named tensors in one
// flat buffer behind a JSON header that says where each one lies.
//
// It knows bytes and nothing else: no number format is decoded, no name has a
// meaning. A file is
//
//	8 bytes   N, the length of the header, little-endian
//	N bytes   the header, one JSON object: name → dtype, shape, data_offsets
//	the rest  the buffer: the tensors, row-major, little-endian, without gaps
//
// # Reading
//
// [Open] reads the header and checks all of it, so that afterwards every tensor
// is known to lie inside the file; bytes of tensors are read only when asked for,
// with [File.ReadAt], which is safe to call from several goroutines.
//
//	f, err := safetensors.Open("model.safetensors")
//	…
//	defer f.Close()
//	t, ok := f.Tensor("model.norm.weight") // t.DType, t.Shape
//	row := make([]byte, t.Size())
//	err = f.ReadAt(t, row, 0)
//
// [OpenFolder] reads a model folder as Hugging Face lays it out, one file or
// several shards with an index, as one [Set] of tensors.
//
// # Writing
//
// The place of every tensor follows from its shape, so a file is planned first
// and filled in any order: [Plan] gives the header and the offsets, [Create]
// starts a file that appears under its name only when every byte of it was
// written, and [Write] does all of it for tensors that are in memory. [PlanShards]
// divides a model over several files and makes their index. The bytes are those
// that the reference implementation writes: tensors by falling alignment, then
// by name; a compact header padded to a multiple of eight.
//
// # Caveats
//
// The reader is as strict as the reference, and stricter where the written
// specification is: a duplicate key anywhere in the header, and a header whose
// first byte is not '{', are refused. Data that ends before or after the last
// tensor is an error too.
package safetensors
