package checkpoint_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// TestHash: a model has one hash in every form that holds its numbers, and another where they change.
func TestHash(t *testing.T) {
	hash := func(src checkpoint.Source) string {
		t.Helper()
		h, err := checkpoint.Hash(src)
		must(t, err)
		if len(h) != 64 {
			t.Fatalf("hash %q", h)
		}
		return h
	}
	for _, name := range testmodel.Names() {
		m, err := testmodel.Named(name)
		must(t, err)
		a := folder(t, name)
		want := hash(a)
		path := filepath.Join(t.TempDir(), "m.gguf")
		must(t, m.WriteGGUF(path))
		g, err := checkpoint.Open(path)
		must(t, err)
		if hash(g) != want {
			t.Errorf("%s: another hash in GGUF", name)
		}
		must(t, g.Close())
	}

	a := folder(t, "llama")
	want := hash(a)
	o := quantize.Options4{Type: "nf4"}
	r, err := checkpoint.Rounded(a, o)
	must(t, err)
	if hash(r) != want {
		t.Error("rounded for qlora, another hash")
	}
	four := write(t, a, filepath.Join(t.TempDir(), "nf4"), checkpoint.Options{Type: "nf4", FourBit: o})
	if hash(four) == want {
		t.Error("quantized, the same hash")
	}
	m, err := testmodel.Named("llama")
	must(t, err)
	weight := m.Tensor("model.layers.1.mlp.down_proj.weight")
	weight[len(weight)-1] *= 2
	if hash(m) == want {
		t.Error("trained, the same hash")
	}

	known := &adapters.Adapter{Config: adapters.Config{BaseHash: want, BaseModel: "somewhere"}}
	for _, c := range []struct {
		m    *checkpoint.Checkpoint
		a    *adapters.Adapter
		want string
	}{{a, known, ""}, {four, &adapters.Adapter{}, ""}, {four, known, `adapter "here" was trained on other weights, those of "somewhere"`}} {
		got, err := c.m.SameBase("here", c.a)
		must(t, err)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
