package adapters

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
)

// TestFusedQKV writes pairs on q, k and v for a base where they are one tensor, and reads them again.
func TestFusedQKV(t *testing.T) {
	uneven := testAdapter(3, 4, 2, "q_proj", "v_proj")
	for i := range uneven.Pairs {
		if lastPart(uneven.Pairs[i].Module) == "v_proj" {
			uneven.Pairs[i].Scale = 0.5
		}
	}
	shared := testAdapter(5, 2, 1, "q_proj", "k_proj", "v_proj")
	for i := range shared.Pairs { // as PEFT has them that were cut out of one pair
		shared.Pairs[i].A = shared.Pairs[i/3*3].A
	}
	for name, c := range map[string]struct {
		a    *Adapter
		rank int
	}{
		"all":    {testAdapter(1, 2, 2, "proj"), 6},
		"some":   {uneven, 8},
		"one":    {testAdapter(2, 3, 1, "k_proj"), 3},
		"shared": {shared, 2},
	} {
		t.Run(name, func(t *testing.T) {
			names := testNames()
			names.FuseQKV = true
			path := filepath.Join(t.TempDir(), "a.gguf")
			if err := WriteGGUF(path, c.a, testBase(false), names, "F32"); err != nil {
				t.Fatal(err)
			}
			f, err := gguf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if b, ok := f.Tensor("blk.1.attn_qkv.weight.lora_b"); !ok || !slices.Equal(b.Dims, []int64{int64(c.rank), 16}) {
				t.Errorf("the joint B is %v, want rank %d and 16 rows", b.Dims, c.rank)
			}
			got, err := ReadGGUF(path, testNames())
			if err != nil {
				t.Fatal(err)
			}
			compareAdapters(t, got, c.a)
		})
	}
}

// ggufOf is a small adapter file, changed by edit.
func ggufOf(t testing.TB, edit func(kvs []gguf.KV, ts []gguf.TensorData) ([]gguf.KV, []gguf.TensorData)) string {
	t.Helper()
	a := testAdapter(1, 2, 2, "q_proj", "embed_tokens")
	pairs, err := ggufPairs(a.Pairs, testNames())
	if err != nil {
		t.Fatal(err)
	}
	var ts []gguf.TensorData
	for i := range pairs {
		two, err := pairs[i].tensors(4, "F32")
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, two...)
	}
	kvs := ggufKeys(a, "llama", 4)
	if edit != nil {
		kvs, ts = edit(kvs, ts)
	}
	path := filepath.Join(t.TempDir(), "a.gguf")
	if err := gguf.Write(path, kvs, ts); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadGGUFRefuses(t *testing.T) {
	type list = []gguf.TensorData
	key := func(name string, v any) func([]gguf.KV, list) ([]gguf.KV, list) {
		return func(kvs []gguf.KV, ts list) ([]gguf.KV, list) {
			kvs = slices.DeleteFunc(kvs, func(kv gguf.KV) bool { return kv.Key == name })
			switch v := v.(type) {
			case string:
				kvs = append(kvs, gguf.Entry(name, v))
			case float32:
				kvs = append(kvs, gguf.Entry(name, v))
			case []uint32:
				kvs = append(kvs, gguf.Entry(name, v))
			case uint32:
				kvs = append(kvs, gguf.Entry(name, v))
			}
			return kvs, ts
		}
	}
	tensors := func(edit func(ts list) list) func([]gguf.KV, list) ([]gguf.KV, list) {
		return func(kvs []gguf.KV, ts list) ([]gguf.KV, list) { return kvs, edit(ts) }
	}
	nan := float32(0)
	nan /= nan
	for name, c := range map[string]struct {
		edit func([]gguf.KV, list) ([]gguf.KV, list)
		want string
	}{
		"a model":            {key("general.type", "model"), `general.type is "model".*a model is no adapter`},
		"no type":            {key("general.type", nil), `general.type is ""`},
		"a control vector":   {key("adapter.type", "control"), `adapter.type is "control"; only lora`},
		"another family":     {key("general.architecture", "qwen2"), `"qwen2", and the base's is "llama"`},
		"alpha of text":      {key("adapter.lora.alpha", "16"), "adapter.lora.alpha"},
		"alpha not a number": {key("adapter.lora.alpha", nan), "adapter.lora.alpha is NaN"},
		"alora":              {key("adapter.alora.invocation_tokens", []uint32{1, 2}), "aLoRA"},
		"unknown key":        {key("adapter.lora.rank_pattern", uint32(3)), `"adapter.lora.rank_pattern", which is not known`},
		"half":               {tensors(func(ts list) list { return ts[1:] }), `without its token_embd.weight.lora_a`},
		"empty":              {tensors(func(list) list { return nil }), "holds no pair"},
		"stranger": {tensors(func(ts list) list { ts[0].Name = "blk.9.attn_q.weight.lora_a"; return ts }),
			`"blk.9.attn_q.weight", which the base does not have`},
		"a weight": {tensors(func(ts list) list { ts[0].Name = "blk.0.attn_q.weight"; return ts }), "neither a .lora_a nor a .lora_b"},
		"ranks":    {tensors(func(ts list) list { ts[2].Dims = []int64{12, 1}; return ts }), "have the ranks 1 and 2"},
		"vector":   {tensors(func(ts list) list { ts[2].Dims = []int64{12}; return ts }), "no matrix"},
		"rows":     {tensors(func(ts list) list { ts[3].Dims, ts[3].Data = []int64{2, 7}, ts[3].Data[:56]; return ts }), "no whole number of heads"},
		"NaN": {tensors(func(ts list) list {
			copy(ts[2].Data[8:], []byte{0, 0, 0xc0, 0x7f})
			return ts
		}), "holds NaN at value 2; the run that made it diverged"},
		"integers": {tensors(func(ts list) list { ts[2].Type = 26; return ts }), "I32"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadGGUF(ggufOf(t, c.edit), testNames())
			if err == nil || !matches(c.want, err.Error()) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
	t.Run("norms", func(t *testing.T) { // llama.cpp does not apply them
		_, err := ReadGGUF(ggufOf(t, tensors(func(ts list) list {
			return append(ts, gguf.TensorData{Spec: gguf.Spec{Name: "blk.0.attn_norm.weight", Dims: []int64{1}}, Data: make([]byte, 4)})
		})), testNames())
		if err != nil {
			t.Error(err)
		}
	})
	for _, alpha := range []any{float32(0), nil} { // both mean the product itself
		a, err := ReadGGUF(ggufOf(t, key("adapter.lora.alpha", alpha)), testNames())
		if err != nil {
			t.Fatal(err)
		}
		if a.Pairs[0].Scale != 1 {
			t.Errorf("alpha %v: scale %v, want 1", alpha, a.Pairs[0].Scale)
		}
	}
}

// TestGGUFTypes says how near the other number types come, and that rows that are too short for Q8_0 are F16.
func TestGGUFTypes(t *testing.T) {
	a := testAdapter(1, 2, 2, "q_proj")
	p := &a.Pairs[0]
	p.R, p.A, p.B = 32, make([]float32, 32*p.In), make([]float32, 32*p.Out)
	for i := range p.B {
		p.B[i] = float32(i%17) - 8
	}
	a.Pairs = a.Pairs[:1]
	for typ, near := range map[string]float32{"F32": 0, "F16": 0, "BF16": 0, "Q8_0": 0.04} {
		path := filepath.Join(t.TempDir(), "a.gguf")
		if err := WriteGGUF(path, a, testBase(false), testNames(), typ); err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		la, _ := f.Tensor("blk.0.attn_q.weight.lora_a")
		lb, _ := f.Tensor("blk.0.attn_q.weight.lora_b")
		f.Close()
		wantA := typ
		if typ == "Q8_0" {
			wantA = "F16"
		}
		if la.Type.String() != wantA || lb.Type.String() != typ {
			t.Errorf("%s: A is %s and B %s", typ, la.Type, lb.Type)
		}
		got, err := ReadGGUF(path, testNames())
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range p.B {
			if d := got.Pairs[0].B[i] - v; max(d, -d) > near {
				t.Fatalf("%s: value %d is %v, want %v", typ, i, got.Pairs[0].B[i], v)
			}
		}
	}
	wantType := WriteGGUF(filepath.Join(t.TempDir(), "a.gguf"), a, testBase(false), testNames(), "Q9_9")
	if wantType == nil || !strings.Contains(wantType.Error(), "Q9_9") {
		t.Errorf("an unknown type: error %v", wantType)
	}
}

// FuzzReadGGUF reads any bytes as an adapter; what is read can be written, and is read again as the same.
func FuzzReadGGUF(f *testing.F) {
	for _, edit := range []func([]gguf.KV, []gguf.TensorData) ([]gguf.KV, []gguf.TensorData){
		nil,
		func(kvs []gguf.KV, ts []gguf.TensorData) ([]gguf.KV, []gguf.TensorData) {
			ts[2].Name, ts[3].Name = "blk.0.attn_qkv.weight.lora_a", "blk.0.attn_qkv.weight.lora_b"
			ts[3].Dims, ts[3].Data = []int64{2, 16}, make([]byte, 128)
			ts[3].Data[3] = 0x3f
			return append(kvs, gguf.Entry("adapter.lora.task_name", "x")), ts
		},
	} {
		data, err := os.ReadFile(ggufOf(f, edit))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := gguf.NewFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		a, err := fromGGUF(file, testNames())
		if err != nil {
			return
		}
		if _, err := a.Resolve(testBase(false)); err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "a.gguf")
		if err := WriteGGUF(path, a, testBase(false), testNames(), "F32"); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		b, err := ReadGGUF(path, testNames())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if len(a.Pairs) != len(b.Pairs) {
			t.Fatalf("%d pairs became %d", len(a.Pairs), len(b.Pairs))
		}
	})
}
