//go:build cgo

package ort

// The part that touches ONNX Runtime, through github.com/yalue/onnxruntime_go.
//
// All tensors lie in Go's memory and are given to the runtime by pointer: adapters once, the cache
// once a size. The cache is input and output of a step at the same time, which GroupQueryAttention
// takes as leave to append in place, so that a step copies none of it.

import (
	"fmt"
	"strings"
	"sync"

	runtime "github.com/yalue/onnxruntime_go"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/onnx"
)

// library is the one that the program has loaded.
var library struct {
	sync.Mutex
	path string
}

// load loads the library at path, once.
func load(path string) error {
	library.Lock()
	defer library.Unlock()
	if library.path == path {
		return nil
	}
	if library.path != "" {
		return fmt.Errorf("%w: %q is loaded already, and a program can have only one; start another for %q", ErrLibrary, library.path, path)
	}
	runtime.SetSharedLibraryPath(path)
	if err := runtime.InitializeEnvironment(runtime.WithLogLevelError()); err != nil {
		if strings.Contains(err.Error(), "API base") {
			return fmt.Errorf("%w: %q is older than ONNX Runtime 1.24; %s", ErrLibrary, path, howTo)
		}
		return fmt.Errorf("%w: loading %q: %s; %s", ErrLibrary, path, oneLine(err), howTo)
	}
	library.path = path
	return nil
}

// oneLine is an error of the runtime on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Version loads the library, see [FindLibrary], and returns its version and path.
func Version(library string) (version, path string, err error) {
	if path, err = FindLibrary(library); err != nil {
		return "", "", err
	}
	if err := load(path); err != nil {
		return "", "", fmt.Errorf("ort: loading ONNX Runtime: %w", err)
	}
	return runtime.GetVersion(), path, nil
}

// graph is a loaded model.
type graph struct {
	session *runtime.DynamicAdvancedSession
	shape   *shape
	ones    []int64 // a mask as long as the context, shared by all steps
}

func openGraph(library, path string, threads int, sh *shape, slots []onnx.Slot) (*graph, error) {
	if err := load(library); err != nil {
		return nil, err
	}
	options, err := runtime.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	if err := options.SetIntraOpNumThreads(threads); err != nil {
		return nil, err
	}
	if err := options.SetLogSeverityLevel(runtime.LoggingLevelError); err != nil {
		return nil, err
	}
	in, out := []string{"input_ids", "attention_mask"}, []string{"logits"}
	for i := range sh.layers {
		for _, part := range []string{"key", "value"} {
			in = append(in, fmt.Sprintf("past_key_values.%d.%s", i, part))
			out = append(out, fmt.Sprintf("present.%d.%s", i, part))
		}
	}
	for _, s := range slots {
		in = append(in, s.A, s.B)
		if s.Gain != "" {
			in = append(in, s.Gain)
		}
	}
	session, err := runtime.NewDynamicAdvancedSession(path, in, out, options)
	if err != nil {
		return nil, fmt.Errorf("loading %q: %s", path, oneLine(err))
	}
	g := &graph{session: session, shape: sh, ones: make([]int64, sh.context)}
	for i := range g.ones {
		g.ones[i] = 1
	}
	return g, nil
}

func (g *graph) close() error { return g.session.Destroy() }

// inputs are the tensors of an adapter for all slots, in their order.
type inputs struct{ values []runtime.Value }

// newInputs gives the adapter's tensors to the runtime; slots that it does not fill get the empty
// matrices that the graph has as defaults.
func newInputs(slots []onnx.Slot, tensors []adapters.Tensor) (*inputs, error) {
	byName := make(map[string]*adapters.Tensor, len(tensors))
	for i := range tensors {
		byName[tensors[i].Name] = &tensors[i]
	}
	in := &inputs{}
	add := func(name string, rows, cols int) error {
		var data []float32
		if t := byName[name]; t != nil {
			rows, cols, data = t.Shape[0], t.Shape[1], t.Data
		}
		v, err := runtime.NewTensor(runtime.NewShape(int64(rows), int64(cols)), data)
		if err == nil {
			in.values = append(in.values, v)
		}
		return err
	}
	for _, s := range slots {
		err := add(s.A, s.In, 0)
		if err == nil {
			err = add(s.B, 0, s.Out)
		}
		if err == nil && s.Gain != "" {
			gain := []float32{1} // as the graph has it
			if t := byName[s.Gain]; t != nil {
				gain = t.Data
			}
			var v *runtime.Tensor[float32]
			if v, err = runtime.NewTensor(runtime.NewShape(int64(len(gain))), gain); err == nil {
				in.values = append(in.values, v)
			}
		}
		if err != nil {
			in.free()
			return nil, fmt.Errorf("slot of %q: %s", s.Module, oneLine(err))
		}
	}
	return in, nil
}

func (in *inputs) free() {
	for _, v := range in.values {
		v.Destroy()
	}
	in.values = nil
}

// cache holds keys and values, (1, KVHeads, size, HeadDim) for each layer and part, of which the
// first places are in use.
type cache struct {
	size   int
	values []runtime.Value // keys and values by turns
	data   [][]float32
}

func (c *cache) free() {
	for _, v := range c.values {
		v.Destroy()
	}
	*c = cache{}
}

// minCache is the number of places a cache begins with; it doubles from there.
const minCache = 256

// reserve makes the cache hold at least n places, keeping the first used.
func (c *cache) reserve(sh *shape, used, n int) error {
	if n <= c.size {
		return nil
	}
	size := max(minCache, c.size)
	for size < n {
		size *= 2
	}
	size = min(size, sh.context)
	next := cache{size: size}
	for i := range 2 * sh.layers {
		data := make([]float32, sh.kvHeads*size*sh.headDim)
		if used > 0 {
			for h := range sh.kvHeads {
				copy(data[h*size*sh.headDim:][:used*sh.headDim], c.data[i][h*c.size*sh.headDim:])
			}
		}
		v, err := runtime.NewTensor(runtime.NewShape(1, int64(sh.kvHeads), int64(size), int64(sh.headDim)), data)
		if err != nil {
			next.free()
			return err
		}
		next.values, next.data = append(next.values, v), append(next.data, data)
	}
	c.free()
	*c = next
	return nil
}

// run appends tokens to a sequence of which past are in the cache, and returns the logits
// (len(tokens), vocabulary). The graph takes the sequence to have at least reach tokens.
func (g *graph) run(c *cache, in *inputs, past int, tokens []int32, reach int) ([]float32, error) {
	total := past + len(tokens)
	ones := g.ones[:total]
	if reach > total { // as if the rest were padding
		ones = make([]int64, reach)
		copy(ones, g.ones[:total])
	}
	if err := c.reserve(g.shape, past, len(ones)); err != nil {
		return nil, err
	}
	ids := make([]int64, len(tokens))
	for i, t := range tokens {
		ids[i] = int64(t)
	}
	idTensor, err := runtime.NewTensor(runtime.NewShape(1, int64(len(ids))), ids)
	if err != nil {
		return nil, err
	}
	defer idTensor.Destroy()
	mask, err := runtime.NewTensor(runtime.NewShape(1, int64(len(ones))), ones)
	if err != nil {
		return nil, err
	}
	defer mask.Destroy()
	logits := make([]float32, len(tokens)*g.shape.vocab)
	logitTensor, err := runtime.NewTensor(runtime.NewShape(1, int64(len(tokens)), int64(g.shape.vocab)), logits)
	if err != nil {
		return nil, err
	}
	defer logitTensor.Destroy()

	inputs := make([]runtime.Value, 0, 2+len(c.values)+len(in.values))
	inputs = append(append(append(inputs, idTensor, mask), c.values...), in.values...)
	outputs := make([]runtime.Value, 0, 1+len(c.values))
	outputs = append(append(outputs, logitTensor), c.values...)
	if err := g.session.Run(inputs, outputs); err != nil {
		return nil, fmt.Errorf("running the graph: %s", oneLine(err))
	}
	return logits, nil
}
