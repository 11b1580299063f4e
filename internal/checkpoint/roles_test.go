package checkpoint_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
)

// TestTokenRoles: roles of tokens that nothing here uses go from one GGUF file to the next.
func TestTokenRoles(t *testing.T) {
	m, err := testmodel.Named("llama")
	must(t, err)
	dir := t.TempDir()
	must(t, m.WriteFolder(dir))
	for name, data := range testmodel.TokenizerFiles() {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	c, err := checkpoint.Open(dir)
	must(t, err)
	defer c.Close()
	roles := []gguf.KV{gguf.Entry("tokenizer.ggml.eot_token_id", uint32(2)), gguf.Entry("tokenizer.ggml.fim_pre_token_id", uint32(1)), gguf.Entry("tokenizer.ggml.add_sep_token", false)}
	c.Meta.Provenance = append(c.Meta.Provenance, roles...)
	first, second := filepath.Join(dir, "a.gguf"), filepath.Join(dir, "b.gguf")
	_, err = checkpoint.Write(context.Background(), c, first, checkpoint.Options{Form: checkpoint.GGUF})
	must(t, err)
	d, err := checkpoint.Open(first)
	must(t, err)
	defer d.Close()
	_, err = checkpoint.Write(context.Background(), d, second, checkpoint.Options{Form: checkpoint.GGUF})
	must(t, err)
	f, err := gguf.Open(second)
	must(t, err)
	defer f.Close()
	for _, want := range roles {
		if got, ok := f.Get(want.Key); !ok || got.Value != want.Value {
			t.Errorf("%s is %v, want %v", want.Key, got.Value, want.Value)
		}
	}
}
