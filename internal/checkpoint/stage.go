package checkpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/graftml/graft/quantize"
)

// stage holds finished 4-bit tensors in a scratch file. The length of a tensor's quant_state is
// known only when its last block is (it spells a mean out in decimals), and every place in a
// safetensors file depends on it; so 4-bit tensors are made first, at half a byte a weight, and
// copied in when the file is planned. Memory stays bounded however large the model is.
type stage struct {
	file  *os.File // nil where only sizes are asked for
	mu    sync.Mutex
	end   int64
	saved map[string][]stagedTensor // by weight
}

type stagedTensor struct {
	quantize.Saved // without Data
	off, size      int64
}

func newStage(dir string) (*stage, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".stage"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &stage{file: f, saved: map[string][]stagedTensor{}}, nil
}

// writeAt writes p at off bytes into the scratch file.
func (s *stage) writeAt(p []byte, off int64) error {
	if s.file == nil {
		return nil
	}
	_, err := s.file.WriteAt(p, off)
	return err
}

// Close removes the scratch file.
func (s *stage) Close() error {
	s.file.Close()
	return os.Remove(s.file.Name())
}

// reserve sets n bytes aside and returns where.
func (s *stage) reserve(n int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	off := s.end
	s.end += n
	return off
}

// add takes a tensor's saved form; the codes already lie at packed.
func (s *stage) add(weight string, saved []quantize.Saved, packed, packedSize int64) error {
	var list []stagedTensor
	for _, t := range saved {
		st := stagedTensor{Saved: t, off: packed, size: packedSize}
		if t.Name != weight {
			st.size = int64(len(t.Data))
			st.off = s.reserve(st.size)
			if err := s.writeAt(t.Data, st.off); err != nil {
				return err
			}
		}
		st.Data = nil
		list = append(list, st)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved[weight] = list
	return nil
}

func (s *stage) of(weight string) []stagedTensor { return s.saved[weight] }

// copyTo writes a tensor's parts into the files that own them.
func (s *stage) copyTo(weight string, owner map[string]tensorWriter) error {
	buf := make([]byte, 1<<20)
	for _, t := range s.saved[weight] {
		for at := int64(0); at < t.size; at += int64(len(buf)) {
			part := buf[:min(int64(len(buf)), t.size-at)]
			if _, err := s.file.ReadAt(part, t.off+at); err != nil {
				return fmt.Errorf("reading scratch file: %w", err)
			}
			if err := owner[t.Name].WriteAt(t.Name, part, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// quantizeAll makes every 4-bit tensor.
func (w *writing) quantizeAll(s *stage) error {
	var tasks []*task
	for _, t := range w.tensors {
		if t.fourBit == nil {
			continue
		}
		if s.file == nil && !t.copied && !t.fourBit.Double {
			if err := s.planned(t); err != nil {
				return fmt.Errorf("tensor %q: %w", t.Name, err)
			}
			continue
		}
		k, err := w.quantize(s, t)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		tasks = append(tasks, k)
	}
	return w.run(tasks)
}

// planned takes the sizes of a tensor that do not depend on its values.
func (s *stage) planned(t *target) error {
	saved, err := quantize.PlanSaved(t.Name, t.Shape, *t.fourBit)
	for _, x := range saved {
		s.saved[t.Name] = append(s.saved[t.Name], stagedTensor{Saved: x})
		n := int64(1)
		for _, d := range x.Shape {
			n *= int64(d)
		}
		switch {
		case x.Name == t.Name:
			t.packedBytes += n
		case x.DType == "F32" && strings.HasSuffix(x.Name, "absmax"):
			t.packedBytes += 4 * n
		}
	}
	return err
}

// quantize is the task of making one 4-bit tensor.
func (w *writing) quantize(s *stage, t *target) (*task, error) {
	if t.copied {
		return &task{t: t, unit: t.Shape[0], chunk: func(*buffers, int, int) error {
			return w.copy4(s, t)
		}}, nil
	}
	// The scales of a tensor are as long as it is, a sixteenth of a float16: they exist from its first
	// chunk to its last.
	start := sync.OnceValues(func() (*quantize.Encoder4, error) { return quantize.NewEncoder4(t.Shape, *t.fourBit) })
	enc, err := quantize.NewEncoder4([]int{1, 1}, *t.fourBit)
	if err != nil {
		return nil, err
	}
	size := (int64(t.Shape[0])*int64(t.cols) + 1) / 2
	off := s.reserve(size)
	k := &task{t: t}
	// Chunks hold whole blocks: blocks run over the flattened tensor.
	k.unit = enc.BlockSize() / gcd(enc.BlockSize(), t.cols)
	k.chunk = func(b *buffers, lo, hi int) error {
		enc, err := start()
		if err != nil {
			return err
		}
		values, err := w.values(b, t, lo, hi)
		if err != nil {
			return err
		}
		codes := grown(&b.bytes, (len(values)+1)/2)
		if err := enc.EncodeAt(codes, values, lo*t.cols); err != nil {
			return err
		}
		return s.writeAt(codes, off+int64(lo)*int64(t.cols)/2)
	}
	k.finish = func() error {
		enc, err := start()
		if err != nil {
			return err
		}
		start = nil // no chunk is left, and the list of tasks outlives this one
		q, err := enc.Finish()
		if err != nil {
			return err
		}
		t.packedBytes = int64(q.Bytes()) + size
		if w.o.Errors {
			if err := w.measure(s, t, q, off); err != nil {
				return err
			}
		}
		return s.add(t.Name, q.Saved(t.Name), off, size)
	}
	return k, nil
}

// copy4 stages a 4-bit tensor that keeps its blocks.
func (w *writing) copy4(s *stage, t *target) error {
	q, err := scales4(w.c.Source, t.Name)
	if err != nil {
		return err
	}
	size := (int64(q.Elems()) + 1) / 2
	t.packedBytes = int64(q.Bytes()) + size
	off := s.reserve(size)
	buf := make([]byte, min(size, 1<<20))
	for at := int64(0); at < size && s.file != nil; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), size-at)]
		if err := w.c.Source.(Scales4).Codes4(t.Name, part, at); err != nil {
			return err
		}
		if err := s.writeAt(part, off+at); err != nil {
			return err
		}
	}
	return s.add(t.Name, q.Saved(t.Name), off, size)
}

// measure compares a 4-bit tensor with its source, row by row.
func (w *writing) measure(s *stage, t *target, q *quantize.Tensor4, off int64) error {
	var b buffers
	step := max(1, chunkValues/t.cols)
	for lo := 0; lo < t.Shape[0]; lo += step {
		hi := min(lo+step, t.Shape[0])
		values, err := w.values(&b, t, lo, hi)
		if err != nil {
			return err
		}
		back := grown(&b.back, len(values))
		from, n := q.CodesOf(lo, hi)
		codes := grown(&b.bytes, n)
		if _, err := s.file.ReadAt(codes, off+from); err != nil {
			return fmt.Errorf("reading scratch file: %w", err)
		}
		q.DecodeRowsFrom(back, codes, lo, hi)
		t.addError(lo, values, back)
	}
	return nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
