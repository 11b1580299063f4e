package inspect

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
)

// baseOf writes and opens a tiny model with a tokenizer.
func baseOf(t *testing.T, name string) *checkpoint.Checkpoint {
	t.Helper()
	m, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	for file, data := range testmodel.TokenizerFiles() {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// findInFits looks at adapters beside a base.
func findInFits(t *testing.T, p provoked) {
	t.Helper()
	tied := baseOf(t, "llama")
	pair := func(module string, table bool, out, in int) adapters.Pair {
		return adapters.Pair{Module: module, Table: table, R: 2, In: in, Out: out, Scale: 2, A: testmodel.Draw("a", 2*in), B: testmodel.Draw("b", 2*out)}
	}
	plain := pair("model.layers.0.self_attn.q_proj", false, 64, 64)
	write := func(a adapters.Adapter) string {
		dir := filepath.Join(t.TempDir(), "adapter")
		a.Config.R, a.Config.Alpha, a.Config.BaseModel = 2, 4, "base"
		if err := adapters.WritePEFT(dir, &a); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	fit := func(dir string, base *checkpoint.Checkpoint) *Report {
		r, err := Fit(context.Background(), dir, base, func() (*adapters.Adapter, error) { return checkpoint.OpenAdapter(dir, base.Config()) }, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	expect := func(what, dir string, s Severity, codes ...string) {
		t.Helper()
		r := fit(dir, tied)
		for _, code := range codes {
			if found(r, s, code) == nil {
				t.Errorf("%s: no %s %s among %v", what, s, code, r.Findings)
			}
			p[string(s)+" "+code] = true
		}
	}
	if r := fit(write(adapters.Adapter{Pairs: []adapters.Pair{plain}}), tied); len(r.Findings) != 0 {
		t.Errorf("a sound adapter: %v", r.Findings)
	}
	two := []adapters.Pair{pair("model.layers.0.self_attn.q_pro", false, 64, 64), pair("model.layers.1.self_attn.q_pro", false, 64, 64)}
	if r := fit(write(adapters.Adapter{Pairs: two}), tied); len(r.Errors()) != 2 || found(r, Error, "adapter-module") == nil {
		t.Errorf("two modules that the base does not have: %v", r.Findings)
	}
	expect("another width", write(adapters.Adapter{Pairs: []adapters.Pair{pair("model.layers.0.self_attn.q_proj", false, 64, 32)}}), Error, "adapter-shape")
	expect("the table alone", write(adapters.Adapter{Pairs: []adapters.Pair{pair("model.embed_tokens", true, 64, 300)}}), Warning, "adapter-unties")
	expect("a target without matrices", write(adapters.Adapter{Config: adapters.Config{TargetModules: []string{"q_proj", "v_proj"}}, Pairs: []adapters.Pair{plain}}), Warning, "adapter-target-missing")
	expect("other weights", write(adapters.Adapter{Config: adapters.Config{BaseHash: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}, Pairs: []adapters.Pair{plain}}), Warning, "adapter-other-base")
	biased := plain
	biased.Bias = make([]float32, 64)
	expect("a bias where the base has none", write(adapters.Adapter{Pairs: []adapters.Pair{biased}}), Warning, "adapter-merge")

	dir := write(adapters.Adapter{Pairs: []adapters.Pair{plain}})
	tokenizer := func(data []byte) {
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	own := testmodel.TokenizerFiles()["tokenizer.json"]
	tokenizer(own)
	if r := fit(dir, tied); len(r.Findings) != 0 {
		t.Errorf("with the base's tokenizer: %v", r.Findings)
	}
	tokenizer([]byte("{}"))
	expect("no tokenizer", dir, Warning, "adapter-tokenizer")
	tokenizer(bytes.ReplaceAll(own, []byte("im_end"), []byte("im_fin")))
	expect("another token", dir, Warning, "adapter-tokens")
}
