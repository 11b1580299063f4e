package checkpoint_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// peak returns by how much f takes the process's memory past what it had, in bytes.
func peak(t *testing.T, f func()) int64 {
	t.Helper()
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		t.Skip(err) // the mark cannot be set back here
	}
	mark := func() (n int64) {
		data, err := os.ReadFile("/proc/self/status")
		must(t, err)
		for line := range strings.Lines(string(data)) {
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &n); err == nil {
				return n << 10
			}
		}
		t.Fatal("no VmHWM")
		return 0
	}
	before := mark()
	f()
	return mark() - before
}

// A model passes through in a memory that does not depend on its size, whatever is made of it and
// whichever form it has.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector takes memory of its own")
	}
	c, err := testmodel.Low(16)
	must(t, err)
	dir := t.TempDir()
	var size int64
	for _, path := range []string{filepath.Join(dir, "hf"), filepath.Join(dir, "m.gguf")} {
		must(t, testmodel.WriteSparse(path, c, 50_000_000))
		m := open(t, path)
		if size == 0 {
			n, err := c.Parameters()
			must(t, err)
			size = 2 * n
		}
		merged, err := checkpoint.Merge(m, shift{"model.layers.3.mlp.down_proj.weight", 0.5})
		must(t, err)
		for name, w := range map[string]struct {
			m *checkpoint.Checkpoint
			o checkpoint.Options
		}{
			"to gguf":   {m, checkpoint.Options{Form: checkpoint.GGUF, Type: "q8_0"}},
			"to shards": {m, checkpoint.Options{Type: "f16", ShardSize: 100_000_000}},
			"to nf4":    {m, checkpoint.Options{Type: "nf4", FourBit: quantize.Options4{Double: true}}},
			"merged":    {merged, checkpoint.Options{Form: checkpoint.GGUF}},
		} {
			w.o.Workers, w.o.Unsynced = 2, true
			out := filepath.Join(dir, "out")
			grown := peak(t, func() {
				_, err := checkpoint.Write(context.Background(), w.m, out, w.o)
				must(t, err)
			})
			must(t, os.RemoveAll(out))
			if grown > size/4 {
				t.Errorf("%s, %s: %d MB of memory for a model of %d MB", filepath.Base(path), name, grown>>20, size>>20)
			}
			t.Logf("%s, %s: %d MB", filepath.Base(path), name, grown>>20)
		}
	}
}
