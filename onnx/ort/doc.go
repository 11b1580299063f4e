// Package ort runs the bundles of package onnx on ONNX Runtime.
//
// # Basics
//
// [Open] loads a bundle's graph into a [Session]; a [State] of it is a sequence with a key-value
// cache and a choice of adapter. Adapters are fed to the graph as inputs, so that changing them
// costs nothing: states with different adapters share one session.
//
//	s, err := ort.Open("model-onnx", ort.Options{})
//	…
//	defer s.Close()
//	st, err := s.NewDefaultState()    // with the bundle's default as it is now
//	state, err := s.NewState(name)    // "" is the bare base
//	defer state.Close()
//	end, err := state.Generate(ctx, prompt, ort.GenerateOptions{MaxTokens: 64}, emit)
//
// [Session.NewState] looks at the manifest, so that a state sees what `graft adapter swap`, add and
// remove did in another process; states that exist keep the adapter they began with.
//
// # Caveats
//
// ONNX Runtime is a shared library (libonnxruntime, 1.24 or later) that is loaded when first needed:
// [FindLibrary] says where it is looked for. A program loads one for its whole life. Without cgo
// every call fails with an error that says so; the rest of the program works.
//
// The runtime's threads wait for each other after every operation, and they wait awake: on a machine
// that is busy with other work one thread ([Options.Threads]) can be faster than one a core.
package ort
