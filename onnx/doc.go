// Package onnx writes decoders for ONNX Runtime: a graph with a key-value cache whose adapters can
// be swapped while it runs.
//
// # Basics
//
// [Export] makes a bundle, a folder that onnxruntime-genai and package onnx/ort load as it is:
//
//	model.onnx          the graph, written by the same definition of the model that trains it
//	model.onnx.data     the weights, float32, products transposed to (in, out)
//	genai_config.json   what onnxruntime-genai needs to know
//	tokenizer.json …    the files that the caller gave ([Options.Files])
//	graft_bundle.json   the manifest: what the base is, which adapters there are, which is the default
//	adapters/           NAME.onnx_adapter, one file an adapter
//
// Each product named in [Options.Targets] has two extra inputs, a slot: A (in, r) and B (r, out),
// which default to r = 0, so that the graph runs as the bare base where nothing is given. An adapter
// fills them, either as ONNX Runtime's own LoRA adapters (its API, genai's Adapters) or as ordinary inputs.
//
// [OpenBundle] reads a bundle and changes its adapters:
//
//	b, err := onnx.OpenBundle("model-onnx")
//	…
//	err = b.Add("pirate", adapter)
//	err = b.SetDefault("pirate")
//
// Every change replaces the manifest by a rename under a lock, so that another process, a server
// that has the bundle open, sees either the old state or the new one.
//
// # Caveats
//
// The graph uses operators of ONNX Runtime beside the standard ones (GroupQueryAttention with rotary
// positions inside, SimplifiedLayerNormalization), as onnxruntime-genai's own exporter does: it runs
// on ONNX Runtime and not on others. Two adapters cannot be active at once.
package onnx
