// Package inspect says what a file or folder is, measures its tensors and finds what a reader could
// trip over.
//
// # Basics
//
// [Path] recognises a model (a GGUF file, in one part or in several, or a folder of safetensors), a
// single safetensors file, an adapter (a folder of PEFT, an .onnx_adapter file, a GGUF file of LoRA
// matrices), an ONNX bundle, and training data. It reads headers and small files only:
//
//	r, err := inspect.Path(ctx, "model.gguf", inspect.Options{})
//	fmt.Println(r.Arch, r.Parameters, r.BitsPerWeight)
//
// [Options.Stats] reads every value and gives each tensor's range, mean and deviation;
// [Options.Against] compares each tensor with that of another checkpoint; [Options.Check] reads every
// value, the tokenizer, the chat template and the configuration files and lists what is wrong as
// [Finding]s.
//
// # Caveats
//
// What package checkpoint refuses is described from its headers alone, tensors under the names they
// have in the file, so that a model of an architecture nobody here knows, or one that lacks a tensor,
// can be looked at. The reason for the refusal is then the first finding.
package inspect
