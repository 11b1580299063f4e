package gguf

// What is refused: the corpus in testdata/malformed/gguf, headers that claim more than
// they hold, values of another type, and ranges outside a tensor.

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/testfile"
)

const malformed = "../testdata/malformed/gguf"

func TestMalformed(t *testing.T) {
	classes := map[string]error{"format": ErrFormat, "unsupported": ErrUnsupported}
	// ggml reads one file and leaves it to its callers what it is a part of.
	stricter := []string{"split_count_zero", "split_no_past_count", "split_no_u32", "split_count_string", "split_tensors_negative", "split_name"}
	testfile.Malformed(t, malformed, 67, classes, stricter, openAndClose)
}

func openAndClose(path string) error {
	f, err := OpenSet(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// TestTruncated cuts a good file at every byte.
func TestTruncated(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join(golden, "tensors.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(strings.NewReader(string(whole)), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	last := f.Tensors()[len(f.Tensors())-1]
	end := f.DataOffset() + last.Offset + last.Size
	for n := range int64(len(whole)) {
		_, err := NewFile(strings.NewReader(string(whole[:n])), n)
		if fine := n >= end; (err == nil) != fine || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
		// A file that shrinks while it is open.
		shrunk, err := NewFile(strings.NewReader(string(whole[:n])), int64(len(whole)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("cut at byte %d before opening: %v", n, err)
			}
			continue
		}
		if err := shrunk.ReadAt(last, make([]byte, last.Size), 0); (err == nil) != (n >= end) || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("cut at byte %d after opening: %v", n, err)
		}
	}
}

// sparse is a reader of a large file that is zeros but for its beginning. It counts
// what is read.
type sparse struct {
	start []byte
	read  int64
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.read += int64(len(p))
	clear(p)
	if off < int64(len(s.start)) {
		copy(p, s.start[off:])
	}
	return len(p), nil
}

// TestOpenReadsHeaderOnly opens a file of 70 GB of which only the header exists.
func TestOpenReadsHeaderOnly(t *testing.T) {
	vocabulary := make([]string, 100_000)
	for i := range vocabulary {
		vocabulary[i] = strings.Repeat("x", i%20)
	}
	l, err := Plan([]KV{Entry("tokens", vocabulary)}, []Spec{{"a", []int64{4096, 8_000_000}, BF16}, {"b", []int64{1}, F32}})
	if err != nil {
		t.Fatal(err)
	}
	r := &sparse{start: l.Header}
	f, err := NewFile(r, l.Size)
	if err != nil {
		t.Fatal(err)
	}
	if header := int64(len(l.Header)); r.read < header-32 || r.read > header+readAhead {
		t.Errorf("%d bytes were read of a header of %d", r.read, header)
	}
	if got, _, err := Value[[]string](f, "tokens"); err != nil || len(got) != len(vocabulary) || got[99_999] != vocabulary[99_999] {
		t.Errorf("%d tokens, %v", len(got), err)
	}
	r.read = 0
	if err := f.ReadAt(f.Tensors()[0], make([]byte, 5), 60e9); err != nil || r.read != 5 {
		t.Errorf("5 bytes of a tensor: %d were read, %v", r.read, err)
	}
}

// TestClaimsAllocateNothing opens short headers in a file of a terabyte, so that
// any count is smaller than the file, and measures the memory that they take.
func TestClaimsAllocateNothing(t *testing.T) {
	start := func(tensors, kvs uint64) []byte {
		b := binary.LittleEndian.AppendUint32([]byte(magic), versionWritten)
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, tensors), kvs)
	}
	strings := appendString(start(0, 1), "k")
	strings = binary.LittleEndian.AppendUint32(strings, uint32(Array))
	strings = binary.LittleEndian.AppendUint32(strings, uint32(String))
	strings = binary.LittleEndian.AppendUint64(strings, maxElements/16)
	strings = binary.LittleEndian.AppendUint64(strings, math.MaxUint32*1000) // the first one's length
	for name, header := range map[string][]byte{
		"tensors": start(maxHeader/minInfoSize, 0), "entries": start(0, maxHeader/minEntrySize), "strings": strings,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := NewFile(&sparse{start: header}, 1<<40)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", name, took)
		}
	}
}

func TestValue(t *testing.T) {
	f, err := Open(filepath.Join(golden, "values.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if v, ok, err := Value[uint32](f, "scalar.uint32.1"); v != math.MaxUint32 || !ok || err != nil {
		t.Errorf("uint32: %v, %v, %v", v, ok, err)
	}
	if v, ok, err := Value[[]string](f, "array.string"); len(v) != 6 || !ok || err != nil {
		t.Errorf("strings: %v, %v, %v", v, ok, err)
	}
	if _, ok, err := Value[uint32](f, "absent"); ok || err != nil {
		t.Errorf("absent: %v, %v", ok, err)
	}
	if _, ok, err := Value[uint32](f, "scalar.int32.1"); ok || !errors.Is(err, ErrType) || !strings.Contains(err.Error(), `"scalar.int32.1"`) || !strings.Contains(err.Error(), "it is int32, want uint32") {
		t.Errorf("int32 as uint32: %v, %v", ok, err)
	}
	if _, ok, err := Value[[]int32](f, "array.uint32"); ok || !errors.Is(err, ErrType) {
		t.Errorf("[]uint32 as []int32: %v, %v", ok, err)
	}
	kv, _ := f.Get("array.bool")
	if kv.Type != Array || kv.Elem() != Bool {
		t.Errorf("%q is %s of %s", kv.Key, kv.Type, kv.Elem())
	}
}

func TestReadAtBounds(t *testing.T) {
	f, err := Open(filepath.Join(golden, "tensors.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	q, _ := f.Tensor("blk.0.attn_q.weight") // 120 bytes
	moved := q
	moved.Size++
	for _, c := range []struct {
		tensor Tensor
		n      int
		off    int64
		ok     bool
	}{
		{q, 120, 0, true}, {q, 0, 120, true}, {q, 20, 100, true}, {q, 21, 100, false}, {q, 0, 121, false}, {q, 1, -1, false},
		{q, 1, 1 << 62, false}, {moved, 1, 0, false}, {Tensor{Name: "other"}, 0, 0, false},
	} {
		err := f.ReadAt(c.tensor, make([]byte, c.n), c.off)
		if (err == nil) != c.ok || err != nil && !(errors.Is(err, ErrLayout) && strings.Contains(err.Error(), c.tensor.Name)) {
			t.Errorf("%d bytes at %d of %v: %v", c.n, c.off, c.tensor, err)
		}
	}
}
