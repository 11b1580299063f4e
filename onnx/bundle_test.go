package onnx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/testmodel"
)

// adapter makes an adapter of the named modules for a test model.
func adapter(t *testing.T, b *Bundle, name string, rank int, last string) *adapters.Adapter {
	t.Helper()
	a := &adapters.Adapter{Name: name, Config: adapters.Config{R: rank, Alpha: 2 * float64(rank)}}
	for _, s := range b.Slots() {
		if strings.HasSuffix(s.Module, last) {
			a.Pairs = append(a.Pairs, adapters.Pair{Module: s.Module, R: rank, In: s.In, Out: s.Out, Scale: 2,
				A: testmodel.Draw(name+s.A, rank*s.In), B: testmodel.Draw(name+s.B, rank*s.Out)})
		}
	}
	return a
}

func bundle(t *testing.T) *Bundle {
	t.Helper()
	o, _ := options(t, "llama")
	b, err := OpenBundle(mustExport(t, o))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func listed(b *Bundle) string {
	s := "default " + b.Default() + ":"
	for _, e := range b.Adapters() {
		s += " " + e.Name
	}
	return s
}

// TestBundle changes a bundle through one handle and looks at it through another.
func TestBundle(t *testing.T) {
	b := bundle(t)
	other, err := OpenBundle(b.Dir())
	if err != nil {
		t.Fatal(err)
	}
	pirate, poet := adapter(t, b, "pirate", 4, "_proj"), adapter(t, b, "poet", 2, "q_proj")
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return b.Add("poet", poet, nil) }, "default : poet"},
		{func() error { return b.Add("pirate", pirate, nil) }, "default : pirate poet"},
		{func() error { return b.SetDefault("pirate") }, "default pirate: pirate poet"},
		{func() error { return other.SetDefault("poet") }, "default poet: pirate poet"},
		{func() error { return b.Add("pirate", poet, nil) }, "default poet: pirate poet"},
		{func() error {
			if err := b.Remove("poet"); !errors.Is(err, ErrInUse) {
				t.Errorf("removing the default: error %v", err)
			}
			return nil
		}, "default poet: pirate poet"},
		{func() error { return errors.Join(b.SetDefault(""), b.Remove("poet")) }, "default : pirate"},
		{func() error { return other.Add("poet", poet, nil) }, "default : pirate poet"},
		{func() error { return b.SetDefault("poet") }, "default poet: pirate poet"},
		{func() error { return b.SetDefault("") }, "default : pirate poet"},
	}
	for i, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		for _, h := range []*Bundle{b, other} {
			if _, err := h.Reload(); err != nil {
				t.Fatal(err)
			}
			if got := listed(h); got != s.want {
				t.Errorf("step %d: %s, want %s", i, got, s.want)
			}
		}
	}
	if changed, err := b.Reload(); changed || err != nil {
		t.Errorf("nothing changed, but Reload says %v, error %v", changed, err)
	}
	for name, do := range map[string]func() error{
		"remove": func() error { return b.Remove("none") }, "swap": func() error { return b.SetDefault("none") },
		"read": func() error { _, err := b.Tensors("none"); return err }, "record": func() error { return b.Record("none", Figures{}) },
	} {
		if err := do(); !errors.Is(err, ErrNoAdapter) || !strings.Contains(err.Error(), "the bundle has pirate, poet") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// A crash between the file of an adapter that replaces another and the manifest leaves the old one.
func TestReplaceInterrupted(t *testing.T) {
	b := bundle(t)
	old, new := adapter(t, b, "old", 2, "q_proj"), adapter(t, b, "new", 3, "q_proj")
	if err := b.Add("x", old, nil); err != nil {
		t.Fatal(err)
	}
	want, sum, err := b.Load("x")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(b.Dir(), manifestFile))
	if err != nil {
		t.Fatal(err)
	}
	// As Add does it, but for the manifest.
	if err := b.keepOld(b.state().Adapters[0]); err != nil {
		t.Fatal(err)
	}
	other := bundle(t)
	if err := other.Add("x", new, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(other.Dir(), fileOf("x")))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.Dir(), fileOf("x")), data, 0o666); err != nil {
		t.Fatal(err)
	}
	got, gotSum, err := b.Load("x")
	if err != nil || gotSum != sum || !slices.EqualFunc(got, want, func(x, y adapters.Tensor) bool { return slices.Equal(x.Data, y.Data) }) {
		t.Errorf("after an interrupted replacement: error %v, hash %s, want %s", err, gotSum, sum)
	}
	if now, err := os.ReadFile(filepath.Join(b.Dir(), manifestFile)); err != nil || string(now) != string(manifest) {
		t.Errorf("the manifest changed, error %v", err)
	}
	if err := b.Add("x", new, nil); err != nil { // again, to the end
		t.Fatal(err)
	}
	if got, _, err := b.Load("x"); err != nil || got[0].Shape[1] != 3 {
		t.Errorf("replaced: error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Dir(), adapterDir, ".*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestBundleAdapter reads back what was added: the same change of every weight.
func TestBundleAdapter(t *testing.T) {
	b := bundle(t)
	a := adapter(t, b, "x", 3, "_proj")
	adapters.SortPairs(a.Pairs)
	if err := b.Add("x.1-a_B", a, nil); err != nil {
		t.Fatal(err)
	}
	e := b.Adapters()[0]
	if e.Modules != 14 || e.Parameters != a.Parameters() || e.File != "adapters/x.1-a_B.onnx_adapter" {
		t.Errorf("%+v", e)
	}
	got, err := b.Adapter("x.1-a_B")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Pairs) != len(a.Pairs) {
		t.Fatalf("%d pairs, want %d", len(got.Pairs), len(a.Pairs))
	}
	for i := range a.Pairs {
		p := a.Pairs[i]
		for j := range p.B { // scale 2: exact
			p.B[j] *= 2
		}
		p.Scale = 1
		if d := cmp.Diff(p, got.Pairs[i]); d != "" {
			t.Errorf("(-added +read):\n%s", d)
		}
	}
	f := Figures{Tokens: 7, MaxDiff: 1e-4, Top1: 1, NLL: 2.5, ReferenceNLL: 2.5}
	for _, name := range []string{"", "x.1-a_B"} {
		if b.Verified(name) != nil {
			t.Errorf("%q: figures before any were recorded", name)
		}
		if err := b.Record(name, f); err != nil || *b.Verified(name) != f {
			t.Errorf("%q: figures %+v, error %v", name, b.Verified(name), err)
		}
	}
	if err := b.Add("x.1-a_B", a, nil); err != nil || b.Verified("x.1-a_B") != nil {
		t.Errorf("a replaced adapter keeps the figures of the old one, error %v", err)
	}
}

func TestBundleRefuses(t *testing.T) {
	b := bundle(t)
	good := adapter(t, b, "x", 2, "q_proj")
	for _, name := range []string{"", ".hidden", "a/b", `a\b`, "a b", "ä", "..", strings.Repeat("x", 101)} {
		if err := b.Add(name, good, nil); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
	bad := adapter(t, b, "x", 2, "q_proj")
	bad.Pairs[1].Module = "model.layers.1.self_attn.qkv_proj"
	if err := b.Add("bad", bad, nil); !errors.Is(err, adapters.ErrMismatch) || !strings.Contains(err.Error(), "qkv_proj") {
		t.Errorf("another module: error %v", err)
	}
	bad = adapter(t, b, "x", 2, "q_proj")
	bad.Pairs[0].Out, bad.Pairs[0].B = 2, bad.Pairs[0].B[:4]
	if err := b.Add("bad", bad, nil); !errors.Is(err, adapters.ErrMismatch) || !strings.Contains(err.Error(), "(64, 64)") {
		t.Errorf("another shape: error %v", err)
	}
	if got := listed(b); got != "default :" {
		t.Errorf("after refusals: %s", got)
	}
	if entries, _ := os.ReadDir(filepath.Join(b.Dir(), adapterDir)); len(entries) != 0 {
		t.Errorf("files of refused adapters: %v", entries)
	}
	if err := b.Add("x", good, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.Dir(), fileOf("x"))
	data, _ := os.ReadFile(path)
	data[len(data)-3] ^= 1
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Tensors("x"); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "add it again") {
		t.Errorf("a damaged file: error %v", err)
	}
	if _, err := OpenBundle(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: error %v", err)
	}
	if err := os.Remove(filepath.Join(b.Dir(), manifestFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBundle(b.Dir()); !errors.Is(err, ErrFormat) {
		t.Errorf("no manifest: error %v", err)
	}
}

// TestBundleConcurrent adds and swaps from several goroutines with handles of their own, while
// others read: nothing is lost and nobody sees half a change.
func TestBundleConcurrent(t *testing.T) {
	b := bundle(t)
	a := adapter(t, b, "x", 2, "q_proj")
	if err := b.Add("always", a, nil); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			h, err := OpenBundle(b.Dir())
			for err == nil {
				select {
				case <-stop:
					return
				default:
				}
				if _, err = h.Reload(); err == nil {
					_, err = h.Tensors("always")
				}
			}
			t.Error(err)
		})
	}
	for w := range 3 {
		writers.Go(func() {
			h, err := OpenBundle(b.Dir())
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 4 {
				if err := errors.Join(h.Add(fmt.Sprintf("a%d-%d", w, i), a, nil), h.Add("always", a.Scaled(float64(i+1)), nil), h.SetDefault("always")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if _, err := b.Reload(); err != nil || len(b.Adapters()) != 13 {
		t.Errorf("%s, error %v", listed(b), err)
	}
}

func TestMalformedManifest(t *testing.T) {
	for _, m := range []string{
		``, `{}`, `{"version":2}`, `[]`, `{"version":1,"version":1}`,
		`{"version":1,"default":"x"}`,
		`{"version":1,"adapters":[{"name":"../x","file":"adapters/../x.onnx_adapter"}]}`,
		`{"version":1,"adapters":[{"name":"x","file":"/etc/passwd"}]}`,
		`{"version":1,"adapters":[{"name":"x","file":"adapters/x.onnx_adapter"},{"name":"x","file":"adapters/x.onnx_adapter"}]}`,
		`{"version":1,"slots":[{"module":"m","a":"a","b":"b","in":0,"out":1}]}`,
		`{"version":1,"slots":[{"module":"m","a":"a","b":"a","in":1,"out":1}]}`,
		`{"version":1,"slots":[{"module":"m","a":"a","b":"b","in":1,"out":1},{"module":"n","a":"a","b":"c","in":1,"out":1}]}`,
	} {
		if _, err := parseManifest([]byte(m)); !errors.Is(err, ErrFormat) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", m, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"base_sha256":"ab","default":"x","adapters":[{"name":"x","file":"adapters/x.onnx_adapter","sha256":"00","modules":1,"parameters":2,"verified":{"tokens":3,"nll":0.5}}],"slots":[{"module":"m","a":"a","b":"b","in":1,"out":1}]}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		again, err := indented(m)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		n, err := parseManifest(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		third, err := indented(n)
		if err != nil || string(third) != string(again) {
			t.Fatalf("%s became %s, error %v", again, third, err)
		}
	})
}
