package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// A folder cannot hold ggml's quantized blocks, so a quantized tensor is written there as the float32
// values it stands for. Quantizing those again need not give the same blocks: different blocks may
// stand for the same values (scales with a common factor, a sub-block of zeros), and the search of a
// K-quant's encoder finds another. Beside such tensors the folder therefore keeps what it takes to
// write the same blocks again: of types whose encoder gives back the blocks of its own values, all of
// those found in practice, the blocks where it does not; of other types every block.

// BlocksFile is the name of the file in a folder that keeps them. It is laid out as safetensors, under
// a name that loaders of models do not take for one of theirs.
const BlocksFile = "graft_source.blocks"

// blocksFormat is its "format" in __metadata__.
const blocksFormat = "graft source blocks 1"

// repeats lists the codecs whose encoder gives back, but for rare blocks, the blocks that its values
// came from. Their bytes are fixed by ggml's reference, so a later version computes the same.
var repeats = []string{"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"}

// blocksName and placesName are the names of the entries of a weight: (n, bytes of a block) U8, and
// where those n blocks stand, (n) I64 ascending. A weight without the second has every block.
func blocksName(weight, codec string) string { return weight + "/" + codec }
func placesName(weight, codec string) string { return weight + "/" + codec + "/at" }

// keptBlocks collects the blocks of one tensor that cannot be computed again.
type keptBlocks struct {
	codec   quantize.Codec
	encoder quantize.Encoder // nil: every block is kept
	mu      sync.Mutex
	runs    map[int]blockRun // by first row of a chunk
	n       int64
}

// blockRun is where a chunk's blocks lie in the spool: n places, then n blocks.
type blockRun struct {
	off int64
	n   int
}

// keepBlocks prepares a tensor whose blocks are to be kept; nil where it has none to keep.
func (w *writing) keepBlocks(t *target) *keptBlocks {
	if w.o.Form == GGUF || w.o.ForgetBlocks || t.Codec != "F32" || !HasRaw(w.c.Source, t.Name) {
		return nil
	}
	codec, err := quantize.Lookup(t.from)
	if err != nil {
		return nil
	}
	if elems, _ := codec.Block(); elems == 1 {
		return nil
	}
	k := &keptBlocks{codec: codec, runs: map[int]blockRun{}}
	if slices.Contains(repeats, t.from) {
		k.encoder, _ = codec.(quantize.Encoder)
	}
	return k
}

// valuesOfBlocks decodes rows [lo, hi) of a tensor whose blocks are kept, and spools those to keep.
func (w *writing) valuesOfBlocks(b *buffers, t *target, lo, hi int) ([]float32, error) {
	k := t.blocks
	elems, size := k.codec.Block()
	n := (hi - lo) * t.cols / elems
	raw := grown(&b.moved, n*size)
	if _, err := w.c.Source.(Raw).RawRows(t.Name, lo, hi, raw); err != nil {
		return nil, err
	}
	values := grown(&b.values, (hi-lo)*t.cols)
	k.codec.Decode(values, raw)
	if k.encoder == nil {
		return values, finite(values, lo, t.cols)
	}
	again := grown(&b.again, len(raw))
	k.encoder.Encode(again, values)
	if bytes.Equal(again, raw) {
		return values, finite(values, lo, t.cols)
	}
	var places, blocks []byte
	first := int64(lo) * int64(t.cols/elems)
	for i := range n {
		if block := raw[i*size:][:size]; !bytes.Equal(block, again[i*size:][:size]) {
			places = binary.LittleEndian.AppendUint64(places, uint64(first+int64(i)))
			blocks = append(blocks, block...)
		}
	}
	run := blockRun{w.spool.reserve(int64(len(places) + len(blocks))), len(places) / 8}
	if err := w.spool.writeAt(append(places, blocks...), run.off); err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.runs[lo], k.n = run, k.n+int64(run.n)
	k.mu.Unlock()
	return values, finite(values, lo, t.cols)
}

// writeBlocks writes the file of kept blocks into a folder, where any tensor has some.
func (w *writing) writeBlocks(dir string) (err error) {
	var specs []safetensors.Spec
	var kept []*target
	for _, t := range w.tensors {
		if t.blocks == nil {
			continue
		}
		k := t.blocks
		elems, size := k.codec.Block()
		all := int64(t.Shape[0]) * int64(t.cols/elems)
		if k.n > all/8 { // the places would weigh as much
			k.encoder = nil
		}
		if k.encoder == nil {
			k.n = all
		} else {
			specs = append(specs, safetensors.Spec{Name: placesName(t.Name, t.from), DType: safetensors.I64, Shape: []int{int(k.n)}})
		}
		specs = append(specs, safetensors.Spec{Name: blocksName(t.Name, t.from), DType: safetensors.U8, Shape: []int{int(k.n), size}})
		kept = append(kept, t)
	}
	if len(kept) == 0 {
		return nil
	}
	layout, err := safetensors.Plan(specs, map[string]string{"format": blocksFormat})
	if err != nil {
		return err
	}
	file, err := safetensors.Create(filepath.Join(dir, BlocksFile), layout)
	if err != nil {
		return err
	}
	defer file.Close()
	w.begin(file)
	for _, t := range kept {
		copyBlocks := w.copyAll
		if t.blocks.encoder != nil {
			copyBlocks = w.copySpooled
		}
		if err := copyBlocks(t, file); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return w.commit(file, BlocksFile)
}

// copyAll writes every block of a tensor.
func (w *writing) copyAll(t *target, file *safetensors.Writer) error {
	elems, size := t.blocks.codec.Block()
	rowBytes := t.cols / elems * size
	step := max(1, 1<<20/rowBytes)
	buf := make([]byte, min(step, t.Shape[0])*rowBytes)
	for lo := 0; lo < t.Shape[0]; lo += step {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		hi := min(lo+step, t.Shape[0])
		part := buf[:(hi-lo)*rowBytes]
		if _, err := w.c.Source.(Raw).RawRows(t.Name, lo, hi, part); err != nil {
			return err
		}
		if err := file.WriteAt(blocksName(t.Name, t.from), part, int64(lo)*int64(rowBytes)); err != nil {
			return err
		}
	}
	return nil
}

// copySpooled writes the blocks that were spooled, in order.
func (w *writing) copySpooled(t *target, file *safetensors.Writer) error {
	_, size := t.blocks.codec.Block()
	at := int64(0)
	for _, lo := range sortedKeys(t.blocks.runs) {
		run := t.blocks.runs[lo]
		buf := make([]byte, run.n*(8+size))
		if _, err := w.spool.file.ReadAt(buf, run.off); err != nil {
			return fmt.Errorf("reading scratch file: %w", err)
		}
		if err := file.WriteAt(placesName(t.Name, t.from), buf[:8*run.n], 8*at); err != nil {
			return err
		}
		if err := file.WriteAt(blocksName(t.Name, t.from), buf[8*run.n:], int64(size)*at); err != nil {
			return err
		}
		at += int64(run.n)
	}
	return nil
}
