// Package checkpoint is a model on disk, whatever its format: one view of a GGUF file and of a
// Hugging Face folder, and the one writer that drains such a view into either.
//
// # Basics
//
// To everybody else a tensor on disk is rows of float32 under a Hugging Face name ([Source]).
// Decoding, the row order GGUF wants for some families, adding an adapter's delta and quantizing
// again are all local to rows, so every file command is a chain of wrappers around a source, drained
// by [Write] in chunks of a few MiB. Sizes follow from shapes, so the writer plans every offset
// first, writes the header, and lets workers write where each tensor goes. A model of any size
// passes through in bounded memory.
package checkpoint

import (
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// Tensor is one parameter as a source holds it.
type Tensor struct {
	Name  string // Hugging Face name
	Shape []int  // (out, in), or (n) for a vector
	Codec string // how the bytes are stored: "F32", "BF16", "Q4_1", "NF4", …
}

// Source is a model whose tensors can be read by rows. The rows of a vector (n) are its n values.
// A Source is safe for concurrent use.
type Source interface {
	// Config describes the model. It must not be changed.
	Config() *model.Config
	// Tensors lists the parameters in the order of model.Inventory.
	Tensors() []Tensor
	// Rows decodes rows [lo, hi) of a tensor into dst, which holds (hi−lo)·columns values.
	Rows(name string, lo, hi int, dst []float32) error
}

// Raw is a Source that can hand out stored bytes, so that an unchanged tensor is copied and not
// decoded and encoded again.
type Raw interface {
	// RawRows reads the bytes of rows [lo, hi) in the tensor's own codec into dst, and reports false
	// where the tensor's bytes are not its rows one after the other (blocks of NF4 run over rows).
	RawRows(name string, lo, hi int, dst []byte) (bool, error)
}

// HasRaw reports whether a source can hand out a tensor's stored bytes.
func HasRaw(s Source, name string) bool {
	r, ok := s.(Raw)
	if !ok {
		return false
	}
	ok, err := r.RawRows(name, 0, 0, nil)
	return ok && err == nil
}

// Stored is a Source that knows what its files hold.
type Stored interface {
	// StoredNames lists the tensors of the files that make up one, its numbers or codes first, then what
	// stands beside them: scales, zeros, tables.
	StoredNames(name string) []string
}

// Packed4 is a Source that holds 4-bit tensors in bitsandbytes' layout.
type Packed4 interface {
	// Packed4 returns the tensor as stored, or nil where it is not a 4-bit tensor.
	Packed4(name string) (*quantize.Tensor4, error)
}

// Scales4 is a Source that can read a 4-bit tensor piece by piece.
type Scales4 interface {
	// Scales4 returns the tensor without its codes, or nil where it is not a 4-bit tensor.
	Scales4(name string) (*quantize.Tensor4, error)
	// Codes4 reads its packed codes from byte off on.
	Codes4(name string, dst []byte, off int64) error
}

// scales4 returns a tensor that a source holds in 4 bits, without its codes; nil where it does not.
func scales4(s Source, name string) (*quantize.Tensor4, error) {
	if p, ok := s.(Scales4); ok {
		return p.Scales4(name)
	}
	return nil, nil
}

// packed4 returns a tensor as a source holds it in 4 bits, nil where it does not.
func packed4(s Source, name string) (*quantize.Tensor4, error) {
	if p, ok := s.(Packed4); ok {
		return p.Packed4(name)
	}
	return nil, nil
}
