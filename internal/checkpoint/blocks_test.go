package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// randomBlocks writes the llama test model with matrices of blocks of a type. Where ggml's encoder of
// the type repeats its blocks most are of its making; the others have random bytes.
func randomBlocks(t *testing.T, path string, typ gguf.Type) {
	t.Helper()
	config, err := testmodel.Config("llama")
	must(t, err)
	if block, _ := typ.Block(); block == 256 {
		config, err = model.ParseConfig([]byte(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":256,"intermediate_size":512,
"num_hidden_layers":1,"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":128,"rms_norm_eps":1e-05,
"hidden_act":"silu","rope_theta":10000.0,"bos_token_id":1,"eos_token_id":2,"tie_word_embeddings":true}`))
		must(t, err)
	}
	m, err := testmodel.New(config)
	must(t, err)
	dir := t.TempDir()
	must(t, m.WriteFolder(dir))
	for name, data := range testmodel.TokenizerFiles() {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	plain := filepath.Join(dir, "plain.gguf")
	write(t, open(t, dir), plain, checkpoint.Options{})
	f, err := gguf.Open(plain)
	must(t, err)
	defer f.Close()
	codec, err := quantize.Lookup(typ.String())
	must(t, err)
	elems, size := codec.Block()
	rng := rand.New(rand.NewPCG(1, uint64(typ)))
	var tensors []gguf.TensorData
	for _, x := range f.Tensors() {
		data := make([]byte, x.Size)
		must(t, f.ReadAt(x, data, 0))
		spec := gguf.Spec{Name: x.Name, Dims: x.Dims, Type: x.Type}
		if len(x.Dims) == 2 && x.Dims[0]%int64(elems) == 0 {
			spec.Type = typ
			data = make([]byte, x.Elements()/int64(elems)*int64(size))
			values := make([]float32, elems)
			for block := range x.Elements() / int64(elems) {
				b := data[block*int64(size):][:size]
				if e, ok := codec.(quantize.Encoder); ok && elems == 32 && block%29 != 3 {
					for i := range values {
						values[i] = rng.Float32() - 0.5
					}
					e.Encode(b, values)
					continue
				}
				for {
					for i := range b {
						b[i] = byte(rng.Uint32())
					}
					if block%2 == 1 {
						clear(b)                       // values of zero, and whatever codes
						b[size-1] = byte(block) & 0x3f // finite, also as half of a scale
					}
					codec.Decode(values, b)
					if allFinite(values) {
						break
					}
				}
			}
		}
		tensors = append(tensors, gguf.TensorData{Spec: spec, Data: data})
	}
	must(t, gguf.Write(path, f.KVs(), tensors))
}

func allFinite(values []float32) bool {
	for _, v := range values {
		if v-v != 0 {
			return false
		}
	}
	return true
}

// tensorsOf returns the bytes and types of a GGUF file's tensors.
func tensorsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := gguf.OpenSet(path)
	must(t, err)
	defer f.Close()
	out := map[string]string{}
	for _, x := range f.Tensors() {
		data := make([]byte, x.Size)
		must(t, f.ReadAt(x, data, 0))
		out[x.Name] = x.Type.String() + string(data)
	}
	return out
}

// Quantized tensors that went through a folder are, block by block, what they were.
func TestBlocksComeBack(t *testing.T) {
	for _, typ := range []gguf.Type{gguf.Q8_0, gguf.Q4_0, gguf.Q4_1, gguf.Q5_0, gguf.Q5_1, gguf.IQ4_NL, gguf.MXFP4, gguf.Q2_K, gguf.Q3_K, gguf.Q4_K, gguf.Q5_K, gguf.Q6_K, gguf.IQ4_XS} {
		t.Run(typ.String(), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a.gguf")
			randomBlocks(t, path, typ)
			a := open(t, path)
			b := write(t, a, filepath.Join(dir, "b"), checkpoint.Options{})
			for _, x := range a.Tensors() {
				if !slices.Equal(values(t, a, x), values(t, b, x)) {
					t.Errorf("%s: other values in the folder", x.Name)
				}
			}
			write(t, b, filepath.Join(dir, "c.gguf"), checkpoint.Options{})
			if !maps.Equal(tensorsOf(t, path), tensorsOf(t, filepath.Join(dir, "c.gguf"))) {
				t.Error("other blocks after a folder")
			}
			// Types asked for, and blocks left out.
			d := write(t, b, filepath.Join(dir, "d.gguf"), checkpoint.Options{Type: "f32"})
			for _, x := range d.Tensors() {
				if x.Codec != "F32" {
					t.Errorf("%s is %s", x.Name, x.Codec)
				}
			}
			e := write(t, b, filepath.Join(dir, "e.gguf"), checkpoint.Options{ForgetBlocks: true})
			f := write(t, a, filepath.Join(dir, "f"), checkpoint.Options{ForgetBlocks: true})
			if _, err := os.Stat(filepath.Join(f.Path, checkpoint.BlocksFile)); err == nil || e.Tensors()[0].Codec != "F32" {
				t.Error("blocks were kept, or used, against the wish")
			}
		})
	}
}

// A folder whose values have changed since is written as it is now.
func TestBlocksOfChangedValues(t *testing.T) {
	dir := t.TempDir()
	randomBlocks(t, filepath.Join(dir, "a.gguf"), gguf.Q4_1)
	write(t, open(t, filepath.Join(dir, "a.gguf")), filepath.Join(dir, "b"), checkpoint.Options{})
	const name = "model.layers.1.mlp.up_proj.weight"
	path := filepath.Join(dir, "b", "model.safetensors")
	data, err := os.ReadFile(path)
	must(t, err)
	f, err := safetensors.Open(path)
	must(t, err)
	x, _ := f.Tensor(name)
	f.Close()
	at := 8 + int(binary.LittleEndian.Uint64(data)) + int(x.End) - 1
	data[at] ^= 1 // the last value's sign and exponent
	must(t, os.WriteFile(path, data, 0o666))
	b := open(t, filepath.Join(dir, "b"))
	c := write(t, b, filepath.Join(dir, "c.gguf"), checkpoint.Options{})
	for _, x := range c.Tensors() {
		want := "Q4_1"
		if x.Name == name || len(x.Shape) == 1 {
			want = "F32"
		}
		if x.Codec != want {
			t.Errorf("%s is %s, want %s", x.Name, x.Codec, want)
		}
		if !slices.Equal(values(t, b, x), values(t, c, x)) {
			t.Errorf("%s: other values", x.Name)
		}
	}
	// Merging leaves the blocks of what it does not change.
	m, err := checkpoint.Merge(b, shift{"model.layers.0.mlp.down_proj.weight", 0.5})
	must(t, err)
	for _, x := range write(t, m, filepath.Join(dir, "m.gguf"), checkpoint.Options{}).Tensors() {
		if kept := x.Codec == "Q4_1"; len(x.Shape) == 2 && kept == (x.Name == name || x.Name == "model.layers.0.mlp.down_proj.weight") {
			t.Errorf("%s is %s", x.Name, x.Codec)
		}
	}
}

// A damaged file of blocks is refused, or changes nothing but which blocks stand for the values.
func TestBlocksDamaged(t *testing.T) {
	dir := t.TempDir()
	randomBlocks(t, filepath.Join(dir, "a.gguf"), gguf.Q8_0)
	write(t, open(t, filepath.Join(dir, "a.gguf")), filepath.Join(dir, "b"), checkpoint.Options{})
	path := filepath.Join(dir, "b", checkpoint.BlocksFile)
	whole, err := os.ReadFile(path)
	must(t, err)
	f, err := safetensors.Open(path)
	must(t, err)
	defer f.Close()
	const name = "model.layers.0.mlp.up_proj.weight"
	if x, ok := f.Tensor(name + "/Q8_0/at"); !ok || x.Shape[0] == 0 {
		t.Fatalf("no places of blocks: %v", x)
	}
	for what, damage := range map[string]struct {
		data  []byte
		words string
	}{
		"cut":        {whole[:len(whole)-1], "cut short"},
		"format":     {bytes.Replace(whole, []byte("blocks 1"), []byte("blocks 2"), 1), "remove the file"},
		"entry":      {bytes.Replace(whole, []byte(`.up_proj.weight/Q8_0"`), []byte(`.up_proj.weight/Q5_0"`), 1), "entry"},
		"empty":      {nil, "too short"},
		"all places": {append(bytes.Clone(whole[:len(whole)-1000]), bytes.Repeat([]byte{0xff}, 1000)...), ""},
	} {
		must(t, os.WriteFile(path, damage.data, 0o666))
		c, err := checkpoint.Open(filepath.Join(dir, "b"))
		if damage.words != "" {
			if err == nil || !strings.Contains(err.Error(), damage.words) || !strings.Contains(err.Error(), checkpoint.BlocksFile) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		must(t, err)
		d := write(t, c, filepath.Join(dir, "d.gguf"), checkpoint.Options{})
		for _, x := range d.Tensors() {
			if !slices.Equal(values(t, c, x), values(t, d, x)) {
				t.Errorf("%s: %s has other values", what, x.Name)
			}
		}
		c.Close()
	}
}
