package checkpoint_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/quantize"
)

// rules parses exceptions from the type.
func rules(t *testing.T, list ...string) []checkpoint.TensorType {
	t.Helper()
	var out []checkpoint.TensorType
	for _, s := range list {
		r, err := checkpoint.ParseTensorType(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// A plan is what is written, to the byte: file by file and tensor by tensor.
func TestPlanIsWritten(t *testing.T) {
	a := folder(t, "llama")
	for name, c := range map[string]struct {
		out string
		o   checkpoint.Options
	}{
		"gguf":             {"m.gguf", checkpoint.Options{Type: "f16"}},
		"gguf parts":       {"m.gguf", checkpoint.Options{Type: "q8_0", ShardSize: 50_000}},
		"gguf rules":       {"m.gguf", checkpoint.Options{TensorTypes: rules(t, "attn_v=q4_0", "down_proj=q8_0")}},
		"folder":           {"m", checkpoint.Options{Type: "bf16"}},
		"folder parts":     {"m", checkpoint.Options{ShardSize: 50_000}},
		"nf4":              {"m", checkpoint.Options{Type: "nf4"}},
		"nf4 double":       {"m", checkpoint.Options{Type: "nf4", FourBit: quantize.Options4{Double: true}}},
		"nf4 double parts": {"m", checkpoint.Options{Type: "nf4", FourBit: quantize.Options4{Double: true}, ShardSize: 30_000}},
		"fp4 rules":        {"m", checkpoint.Options{Type: "fp4", TensorTypes: rules(t, "layers.0=f16")}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, c.out)
			if strings.HasSuffix(c.out, ".gguf") {
				c.o.Form = checkpoint.GGUF
			} else {
				dir = out
			}
			plan, err := checkpoint.Plan(context.Background(), a, out, c.o)
			must(t, err)
			if _, err := os.Stat(out); err == nil {
				t.Error("planning made the output")
			}
			written, err := checkpoint.Write(context.Background(), a, out, c.o)
			must(t, err)
			if diff := cmp.Diff(plan.Tensors, written); diff != "" {
				t.Errorf("tensors (-planned +written):\n%s", diff)
			}
			if c.o.ShardSize > 0 && len(plan.Files) < 2 {
				t.Errorf("%d files", len(plan.Files))
			}
			for _, f := range plan.Files {
				if info, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || info.Size() != f.Bytes {
					t.Errorf("%s was planned with %d bytes: %v, %v", f.Name, f.Bytes, info, err)
				}
			}
			all, err := filepath.Glob(filepath.Join(dir, "*m*-*-of-*"))
			must(t, err)
			if len(plan.Files) > 1 && len(all) != len(plan.Files) {
				t.Errorf("%d files, planned %d", len(all), len(plan.Files))
			}
			var again *checkpoint.Checkpoint
			if c.o.Form == checkpoint.GGUF {
				again = open(t, filepath.Join(dir, plan.Files[len(plan.Files)-1].Name))
			} else {
				again = open(t, out)
			}
			for i, x := range again.Tensors() {
				if w := written[i]; x.Name != w.Name || x.Codec != w.Codec {
					t.Errorf("tensor %d is %s %s, planned %s %s", i, x.Name, x.Codec, w.Name, w.Codec)
				}
			}
		})
	}
}

// Parts hold the same numbers as one file, whichever way round.
func TestParts(t *testing.T) {
	a := folder(t, "llama")
	dir := t.TempDir()
	o := checkpoint.Options{Form: checkpoint.GGUF, ShardSize: 60_000}
	_, err := checkpoint.Write(context.Background(), a, filepath.Join(dir, "m.gguf"), o)
	must(t, err)
	parts, err := filepath.Glob(filepath.Join(dir, "m-*.gguf"))
	must(t, err)
	b := open(t, parts[0])
	if !cmp.Equal(b.Parts, parts) {
		t.Errorf("parts %q, want %q", b.Parts, parts)
	}
	c := write(t, b, filepath.Join(dir, "c"), checkpoint.Options{ShardSize: 60_000})
	d := write(t, c, filepath.Join(dir, "d.gguf"), checkpoint.Options{})
	for _, x := range a.Tensors() {
		want := values(t, a, x)
		for _, other := range []*checkpoint.Checkpoint{b, c, d} {
			if !slices.Equal(want, values(t, other, x)) {
				t.Errorf("%s differs in %s", x.Name, other.Path)
			}
		}
	}
	if d.Parts != nil {
		t.Errorf("one file with parts %q", d.Parts)
	}
	if _, err := checkpoint.Write(context.Background(), a, filepath.Join(dir, "m.gguf"), o); err == nil || !strings.Contains(err.Error(), "m-00001-of-") {
		t.Errorf("parts that are there: %v", err)
	}
}

func TestTensorTypes(t *testing.T) {
	a := folder(t, "llama")
	types := func(out string, o checkpoint.Options) (map[string]string, error) {
		if strings.HasSuffix(out, ".gguf") {
			o.Form = checkpoint.GGUF
		}
		plan, err := checkpoint.Plan(context.Background(), a, out, o)
		got := map[string]string{}
		if err == nil {
			for _, w := range plan.Tensors {
				got[w.Name] = w.Codec
			}
		}
		return got, err
	}
	got, err := types("m.gguf", checkpoint.Options{Type: "q4_0", TensorTypes: rules(t, `blk\.0\.ffn_down=q8_0`, "down_proj=f16", "v_proj=bf16")})
	must(t, err)
	for name, want := range map[string]string{"model.layers.0.mlp.down_proj.weight": "Q8_0", "model.layers.1.mlp.down_proj.weight": "F16",
		"model.layers.1.self_attn.v_proj.weight": "BF16", "model.layers.1.self_attn.q_proj.weight": "Q4_0", "model.norm.weight": "F32"} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	got, err = types("m", checkpoint.Options{TensorTypes: rules(t, "mlp=nf4")})
	must(t, err)
	if got["model.layers.0.mlp.down_proj.weight"] != "NF4" || got["model.layers.0.self_attn.q_proj.weight"] != "F32" {
		t.Errorf("types %v", got)
	}
	for rule, words := range map[string]string{"mpl=f16": `"mpl" is in no tensor's name`, "norm=f16": "no tensor with", "q_proj=q9": `type "q9"`, "q_proj=nf4": "GGUF has no type NF4"} {
		if _, err := types("m.gguf", checkpoint.Options{TensorTypes: rules(t, rule)}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", rule, err)
		}
	}
	if _, err := types("m", checkpoint.Options{TensorTypes: rules(t, "embed=nf4")}); err == nil || !strings.Contains(err.Error(), "can have type NF4 here") {
		t.Errorf("an embedding in 4 bits: %v", err)
	}
	for _, s := range []string{"", "=f16", "x=", "x", "(=f16"} {
		if _, err := checkpoint.ParseTensorType(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}
