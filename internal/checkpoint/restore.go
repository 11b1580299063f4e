package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// sourceBlocks is an opened file of kept blocks.
type sourceBlocks struct {
	file    *safetensors.File
	weights map[string]keptWeight
}

type keptWeight struct {
	codec          quantize.Codec
	encoder        quantize.Encoder // nil: every block is there
	rowBlocks      int
	blocks, places safetensors.Tensor
}

// openBlocks opens a folder's file of kept blocks, nil where it has none, and checks it against the
// tensors of the folder. What it says about their values is checked where it is used.
func openBlocks(dir string, tensors []Tensor) (*sourceBlocks, error) {
	file, err := safetensors.Open(filepath.Join(dir, BlocksFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &sourceBlocks{file: file, weights: map[string]keptWeight{}}
	if err := s.read(tensors); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", BlocksFile, err)
	}
	return s, nil
}

func (s *sourceBlocks) read(tensors []Tensor) error {
	if f := s.file.Metadata()["format"]; f != blocksFormat {
		return fmt.Errorf("it is of format %q, and this version reads %q; remove the file to do without it", f, blocksFormat)
	}
	for _, t := range tensors {
		if len(t.Shape) != 2 {
			continue
		}
		for _, codec := range quantize.Names() {
			blocks, ok := s.file.Tensor(blocksName(t.Name, codec))
			if !ok {
				continue
			}
			k := keptWeight{blocks: blocks}
			k.codec, _ = quantize.Lookup(codec)
			elems, size := k.codec.Block()
			k.rowBlocks = t.Shape[1] / elems
			n := t.Shape[0] * k.rowBlocks
			if places, ok := s.file.Tensor(placesName(t.Name, codec)); ok {
				k.places = places
				k.encoder, _ = k.codec.(quantize.Encoder)
				if k.encoder == nil || len(blocks.Shape) != 2 || places.DType != safetensors.I64 || !slices.Equal(places.Shape, blocks.Shape[:1]) {
					return fmt.Errorf("entry %q has no fitting places", blocks.Name)
				}
				n = places.Shape[0]
			}
			if t.Shape[1]%elems != 0 || blocks.DType != safetensors.U8 || !slices.Equal(blocks.Shape, []int{n, size}) {
				return fmt.Errorf("entry %q has shape %v of %s, which does not go with a tensor %v", blocks.Name, blocks.Shape, blocks.DType, t.Shape)
			}
			s.weights[t.Name] = k
		}
	}
	return nil
}

// rawRows makes the blocks of rows [lo, hi) of a weight from its values.
func (s *sourceBlocks) rawRows(name string, lo, hi int, values []float32, dst []byte) error {
	k := s.weights[name]
	_, size := k.codec.Block()
	first, last := int64(lo)*int64(k.rowBlocks), int64(hi)*int64(k.rowBlocks)
	if k.encoder == nil {
		return s.file.ReadAt(k.blocks, dst, first*int64(size))
	}
	k.encoder.Encode(dst, values)
	n := int64(k.places.Shape[0])
	if n == 0 {
		return nil
	}
	from, err := s.search(k, n, first)
	if err != nil {
		return err
	}
	var place [8]byte
	for i, before := from, first-1; i < n; i++ {
		if err := s.file.ReadAt(k.places, place[:], 8*i); err != nil {
			return err
		}
		at := int64(binary.LittleEndian.Uint64(place[:]))
		if at >= last {
			break
		}
		if at <= before {
			return fmt.Errorf("%s: the places of %q are not in order", BlocksFile, name)
		}
		before = at
		if err := s.file.ReadAt(k.blocks, dst[(at-first)*int64(size):][:size], i*int64(size)); err != nil {
			return err
		}
	}
	return nil
}

// search returns the first of n kept blocks that stands at block first or behind it.
func (s *sourceBlocks) search(k keptWeight, n, first int64) (int64, error) {
	lo, hi := int64(0), n
	var place [8]byte
	for lo < hi {
		mid := (lo + hi) / 2
		if err := s.file.ReadAt(k.places, place[:], 8*mid); err != nil {
			return 0, err
		}
		if int64(binary.LittleEndian.Uint64(place[:])) < first {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// restore finds the tensors whose blocks can be written as they were: they are to have the type they
// had, and the folder's values are, bit by bit, what the blocks stand for.
func (w *writing) restore(kinds map[string]model.Kind) error {
	s := w.c.blocks
	if s == nil || w.o.Form != GGUF || w.o.ForgetBlocks {
		return nil
	}
	var tasks []*task
	var changed sync.Map
	for _, t := range w.c.Tensors() {
		k, ok := s.weights[t.Name]
		if !ok || t.Codec != "F32" || !HasRaw(w.c.Source, t.Name) {
			continue
		}
		was := t
		was.Codec = k.codec.Name()
		if w.choose(was, kinds[t.Name]) != was.Codec {
			continue
		}
		tt := &target{Tensor: was, cols: t.Shape[1]}
		w.restored[t.Name] = true
		_, size := k.codec.Block()
		tasks = append(tasks, &task{t: tt, unit: 1, quiet: true, chunk: func(b *buffers, lo, hi int) error {
			if _, ok := changed.Load(t.Name); ok {
				return nil
			}
			values := grown(&b.values, (hi-lo)*tt.cols)
			if err := w.c.Rows(t.Name, lo, hi, values); err != nil {
				return err
			}
			raw := grown(&b.bytes, (hi-lo)*k.rowBlocks*size)
			if err := s.rawRows(t.Name, lo, hi, values, raw); err != nil {
				return err
			}
			back := grown(&b.back, len(values))
			k.codec.Decode(back, raw)
			if !sameBits(values, back) {
				changed.Store(t.Name, true)
			}
			return nil
		}})
	}
	if err := w.run(tasks); err != nil {
		return err
	}
	changed.Range(func(name, _ any) bool {
		delete(w.restored, name.(string))
		return true
	})
	return nil
}

// sameBits reports whether two slices of a length hold the same floats, NaNs and signs of zero included.
func sameBits(a, b []float32) bool {
	for i, v := range a {
		if math.Float32bits(v) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}
