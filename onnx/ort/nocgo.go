//go:build !cgo

package ort

// What stands for the C library in a program that was built without cgo.

import (
	"fmt"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/onnx"
)

var errNoCgo = fmt.Errorf("%w: this program was built without cgo; build it with CGO_ENABLED=1 and a C compiler", ErrLibrary)

// Version loads the library, see [FindLibrary], and returns its version and path.
func Version(library string) (version, path string, err error) {
	return "", "", fmt.Errorf("ort: loading ONNX Runtime: %w", errNoCgo)
}

type graph struct{}

func openGraph(string, string, int, *shape, []onnx.Slot) (*graph, error) { return nil, errNoCgo }
func (*graph) close() error                                              { return nil }
func (*graph) run(*cache, *inputs, int, []int32, int) ([]float32, error) { return nil, errNoCgo }

type inputs struct{}

func newInputs([]onnx.Slot, []adapters.Tensor) (*inputs, error) { return nil, errNoCgo }
func (*inputs) free()                                           {}

type cache struct{}

func (*cache) free() {}
