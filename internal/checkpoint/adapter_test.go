package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testfile"
)

// TestLlamaCppAdapter compares adapters in GGUF with what llama.cpp's converter makes of the same folders:
// the same keys and bytes where it is right, and PEFT's scale where it is not.
func TestLlamaCppAdapter(t *testing.T) {
	const golden = "../../testdata/golden/adapters"
	type tensor struct {
		Dims   []int64 `json:"dims"`
		Type   string  `json:"type"`
		SHA256 string  `json:"sha256"`
	}
	var want map[string]struct {
		Keys    map[string][2]any `json:"keys"`
		Tensors map[string]tensor `json:"tensors"`
		Scales  map[string]struct{ Effective, PEFT float64 }
	}
	testfile.ReadJSON(t, filepath.Join(golden, "llamacpp.json"), &want)
	if len(want) < 6 {
		t.Fatalf("%d folders", len(want))
	}
	config, err := model.ParseConfig([]byte(`{"model_type":"llama","hidden_size":16,"intermediate_size":24,"num_hidden_layers":2,"num_attention_heads":2,
		"num_key_value_heads":1,"head_dim":8,"vocab_size":20,"tie_word_embeddings":false}`))
	if err != nil {
		t.Fatal(err)
	}
	base, err := Base(config)
	if err != nil {
		t.Fatal(err)
	}
	names, err := GGUFNames(config)
	if err != nil {
		t.Fatal(err)
	}
	for folder, w := range want {
		t.Run(folder, func(t *testing.T) {
			a, err := adapters.Open(filepath.Join(golden, folder))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "a.gguf")
			if err := adapters.WriteGGUF(path, a, base, names, "F32"); err != nil {
				t.Fatal(err)
			}
			f, err := gguf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			wrong := 0
			for name, s := range w.Scales {
				alpha, _, err := gguf.Value[float32](f, "adapter.lora.alpha")
				b, ok := f.Tensor(name + ".lora_b")
				if err != nil || !ok {
					t.Fatalf("%s: %v, %v", name, ok, err)
				}
				if math.Abs(s.Effective-s.PEFT) > 1e-6 {
					wrong++
					continue
				}
				if got := float64(alpha) / float64(b.Dims[0]); math.Abs(got-s.PEFT) > 1e-6 {
					t.Errorf("%s is scaled by %v, want %v", name, got, s.PEFT)
				}
			}
			if bad := folder == "peft/patterns"; bad != (wrong > 0) {
				t.Fatalf("the converter has %d modules of another scale than PEFT's", wrong)
			}
			for key, v := range w.Keys {
				kv, ok := f.Get(key)
				got, _ := json.Marshal(kv.Value)
				value, _ := json.Marshal(v[1])
				switch {
				case !ok || !strings.EqualFold(kv.Type.String(), fmt.Sprint(v[0])):
					t.Errorf("key %s of type %s, want %v", key, kv.Type, v[0])
				case key == "adapter.lora.alpha" && wrong > 0:
				case !strings.EqualFold(string(got), string(value)): // it writes the name with a capital
					t.Errorf("key %s is %s, want %s", key, got, value)
				}
			}
			if len(f.KVs()) != len(w.Keys) || len(f.Tensors()) != len(w.Tensors) {
				t.Errorf("%d keys and %d tensors, want %d and %d", len(f.KVs()), len(f.Tensors()), len(w.Keys), len(w.Tensors))
			}
			for name, x := range w.Tensors {
				got, ok := f.Tensor(name)
				if !ok || !slices.Equal(got.Dims, x.Dims) || got.Type.String() != x.Type {
					t.Fatalf("%s is %s %v, want %s %v", name, got.Type, got.Dims, x.Type, x.Dims)
				}
				data := make([]byte, got.Size)
				if err := f.ReadAt(got, data, 0); err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256(data)
				if same := hex.EncodeToString(sum[:]) == x.SHA256; !same && (wrong == 0 || strings.HasSuffix(name, "lora_a")) {
					t.Errorf("%s has other bytes", name)
				}
			}
			back, err := adapters.ReadGGUF(path, names)
			if err != nil {
				t.Fatal(err)
			}
			for i := range a.Pairs {
				p, q := &back.Pairs[i], &a.Pairs[i]
				if p.Module != q.Module || !slices.Equal(p.A, q.A) {
					t.Fatalf("pair of %s came back as that of %s, or with another A", q.Module, p.Module)
				}
				for k := range q.B {
					if x, y := p.Scale*float64(p.B[k]), q.Scale*float64(q.B[k]); math.Abs(x-y) > 2e-7*math.Abs(y) {
						t.Fatalf("%s: s·B is %v at %d, want %v", q.Module, x, k, y)
					}
				}
			}
		})
	}
}
