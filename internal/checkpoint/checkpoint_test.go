package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// folder writes a test model with a tokenizer and opens it.
func folder(t *testing.T, name string) *checkpoint.Checkpoint {
	t.Helper()
	m, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	for file, data := range testmodel.TokenizerFiles() {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, dir)
}

func open(t *testing.T, path string) *checkpoint.Checkpoint {
	t.Helper()
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func write(t *testing.T, c *checkpoint.Checkpoint, out string, o checkpoint.Options) *checkpoint.Checkpoint {
	t.Helper()
	if strings.HasSuffix(out, ".gguf") {
		o.Form = checkpoint.GGUF
	}
	o.Unsynced = true // a test's files need not outlive the machine
	if _, err := checkpoint.Write(context.Background(), c, out, o); err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(out, ".*"))
	must(t, err)
	if len(hidden) > 0 {
		t.Errorf("left in the output: %q", hidden)
	}
	return open(t, out)
}

// values reads a whole tensor.
func values(t *testing.T, s checkpoint.Source, x checkpoint.Tensor) []float32 {
	t.Helper()
	n := 1
	for _, d := range x.Shape {
		n *= d
	}
	out := make([]float32, n)
	if err := s.Rows(x.Name, 0, x.Shape[0], out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The same model through folder → GGUF → folder → GGUF: values, configuration and tokens stay.
func TestRoundTrip(t *testing.T) {
	for _, name := range testmodel.Names() {
		t.Run(name, func(t *testing.T) {
			a := folder(t, name)
			dir := t.TempDir()
			b := write(t, a, filepath.Join(dir, "b.gguf"), checkpoint.Options{})
			c := write(t, b, filepath.Join(dir, "c"), checkpoint.Options{ShardSize: 100_000})
			d := write(t, c, filepath.Join(dir, "d.gguf"), checkpoint.Options{})
			for _, x := range a.Tensors() {
				want := values(t, a, x)
				for i, other := range []*checkpoint.Checkpoint{b, c, d} {
					if got := values(t, other, x); !slices.Equal(want, got) {
						t.Errorf("%s differs in copy %d", x.Name, i)
					}
				}
			}
			ignore := cmpopts.IgnoreUnexported(model.Config{})
			if diff := cmp.Diff(a.Config(), c.Config(), ignore, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("configuration:\n%s", diff)
			}
			first, err := os.ReadFile(b.Path)
			if err != nil {
				t.Fatal(err)
			}
			second, err := os.ReadFile(d.Path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, second) {
				t.Error("the second GGUF file differs from the first")
			}
		})
	}
}

// A gain that is stored less one comes back with all its bits where it was bfloat16.
func TestOffsetOfHalves(t *testing.T) {
	for _, name := range []string{"gemma2", "gemma3"} {
		dir := t.TempDir()
		a := write(t, folder(t, name), filepath.Join(dir, "a"), checkpoint.Options{Type: "bf16"})
		b := write(t, a, filepath.Join(dir, "b.gguf"), checkpoint.Options{})
		c := write(t, b, filepath.Join(dir, "c"), checkpoint.Options{Type: "bf16"})
		for _, x := range a.Tensors() {
			if want, got := values(t, a, x), values(t, c, x); !slices.Equal(want, got) {
				t.Errorf("%s: %s differs", name, x.Name)
			}
		}
	}
}

// Gemma 3 models that see no pictures have no row for their tokenizer's last token, which a GGUF file
// then lacks. In other families a token without a row is an error.
func TestTokensPastRows(t *testing.T) {
	for name, fails := range map[string]bool{"gemma3": false, "qwen2": true} {
		dir := folder(t, name).Path
		file := filepath.Join(dir, "tokenizer.json")
		data, err := os.ReadFile(file)
		must(t, err)
		var spec map[string]any
		must(t, json.Unmarshal(data, &spec))
		spec["added_tokens"] = append(spec["added_tokens"].([]any), map[string]any{"id": 300, "content": "<image_soft_token>", "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
		data, err = json.Marshal(spec)
		must(t, err)
		must(t, os.WriteFile(file, data, 0o666))
		_, err = checkpoint.Write(context.Background(), open(t, dir), filepath.Join(dir, "m.gguf"), checkpoint.Options{Form: checkpoint.GGUF})
		if (err != nil) != fails {
			t.Errorf("%s: %v, want an error: %v", name, err, fails)
		}
		if fails {
			continue
		}
		tok, err := open(t, filepath.Join(dir, "m.gguf")).Tokenizer()
		must(t, err)
		if text, ok := tok.Token(300); ok {
			t.Errorf("%s: token 300 is %q", name, text)
		}
	}
}

// The text model of a checkpoint of several parts, under the names that transformers 4 and 5 give it,
// is the one of a checkpoint of its own. Other parts are left alone.
func TestTextAmongParts(t *testing.T) {
	m, err := testmodel.Named("gemma3")
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.Config().JSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := folder(t, "gemma3")
	for _, prefix := range []string{"language_model.model.", "model.language_model."} {
		dir := t.TempDir()
		config := fmt.Appendf(nil, `{"model_type":"gemma3","text_config":%s,"vision_config":{"hidden_size":8},"eos_token_id":[2,5],"dtype":"float32"}`, text)
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666))
		var tensors []safetensors.TensorData
		add := func(name string, shape []int, v []float32) {
			data := make([]byte, 0, 4*len(v))
			for _, x := range v {
				data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
			}
			tensors = append(tensors, safetensors.TensorData{Spec: safetensors.Spec{Name: name, DType: safetensors.F32, Shape: shape}, Data: data})
		}
		for _, x := range m.Tensors() {
			add(prefix+strings.TrimPrefix(x.Name, "model."), x.Shape, m.Tensor(x.Name))
		}
		for _, other := range []string{"vision_tower.embeddings.weight", "model.multi_modal_projector.weight"} {
			add(other, []int{2, 2}, []float32{1, 2, 3, 4})
		}
		must(t, safetensors.Write(filepath.Join(dir, "model.safetensors"), tensors, nil))
		got := open(t, dir)
		if ids := got.Config().EOS; !slices.Equal(ids, []int{2, 5}) {
			t.Errorf("%s: sequences end at %v, want those of the whole", prefix, ids)
		}
		for _, x := range want.Tensors() {
			if !slices.Equal(values(t, want, x), values(t, got, x)) {
				t.Errorf("%s: %s differs", prefix, x.Name)
			}
		}
		out, err := got.Config().JSON(nil)
		must(t, err)
		if !bytes.Contains(out, []byte(`"gemma3_text"`)) || bytes.Contains(out, []byte("vision")) {
			t.Errorf("%s: the configuration is not that of the text model:\n%s", prefix, out)
		}
	}
}

// Rows in pieces are the rows of the whole, also where a GGUF file has them in another order.
func TestRowsInPieces(t *testing.T) {
	a := folder(t, "llama")
	b := write(t, a, filepath.Join(t.TempDir(), "b.gguf"), checkpoint.Options{Type: "q8_0"})
	for _, x := range b.Tensors() {
		whole := values(t, b, x)
		cols := len(whole) / x.Shape[0]
		for _, r := range [][2]int{{0, 1}, {1, 2}, {3, min(21, x.Shape[0])}, {x.Shape[0] - 1, x.Shape[0]}, {2, 2}} {
			got := make([]float32, (r[1]-r[0])*cols)
			if err := b.Rows(x.Name, r[0], r[1], got); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(whole[r[0]*cols:r[1]*cols], got) {
				t.Errorf("%s rows %v differ from the whole", x.Name, r)
			}
		}
	}
}

// The row order of GGUF, checked against the formula of llama.cpp's converter spelled out: rows as
// (heads, 2, d/2) become (heads, d/2, 2).
func TestGGUFRowOrder(t *testing.T) {
	a := folder(t, "llama")
	path := filepath.Join(t.TempDir(), "b.gguf")
	write(t, a, path, checkpoint.Options{})
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const name = "model.layers.1.self_attn.k_proj.weight"
	c := a.Config()
	hf := values(t, a, checkpoint.Tensor{Name: name, Shape: []int{c.KVHeads * c.HeadDim, c.Hidden}})
	x, _ := f.Tensor("blk.1.attn_k.weight")
	raw := make([]byte, x.Size)
	if err := f.ReadAt(x, raw, 0); err != nil {
		t.Fatal(err)
	}
	codec, _ := quantize.Lookup("F32")
	got := make([]float32, len(hf))
	codec.Decode(got, raw)
	d := c.HeadDim
	for h := range c.KVHeads {
		for half := range 2 {
			for p := range d / 2 {
				from, to := (h*d+half*(d/2)+p)*c.Hidden, (h*d+2*p+half)*c.Hidden
				if !slices.Equal(hf[from:from+c.Hidden], got[to:to+c.Hidden]) {
					t.Fatalf("row of head %d, half %d, pair %d is not where llama.cpp has it", h, half, p)
				}
			}
		}
	}
}

func TestTypes(t *testing.T) {
	a := folder(t, "llama")
	for _, test := range []struct {
		typ, form, codec string
		most             float64 // relative error of a matrix
	}{
		{"f16", "gguf", "F16", 1e-3}, {"bf16", "gguf", "BF16", 5e-3}, {"q8_0", "gguf", "Q8_0", 1e-2}, {"q4_0", "gguf", "Q4_0", 0.15},
		{"f16", "", "F16", 1e-3}, {"bf16", "", "BF16", 5e-3}, {"nf4", "", "NF4", 0.15}, {"fp4", "", "FP4", 0.25},
	} {
		t.Run(test.typ+test.form, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			if test.form != "" {
				out += "." + test.form
			}
			o := checkpoint.Options{Type: test.typ, Errors: true, FourBit: quantize.Options4{Double: true}}
			if test.form == "gguf" {
				o.Form = checkpoint.GGUF
			}
			report, err := checkpoint.Write(context.Background(), a, out, o)
			if err != nil {
				t.Fatal(err)
			}
			b := open(t, out)
			for i, x := range b.Tensors() {
				want, got := values(t, a, x), values(t, b, x)
				var e, n float64
				for j := range want {
					e += math.Pow(float64(want[j])-float64(got[j]), 2)
					n += math.Pow(float64(want[j]), 2)
				}
				if x.Name == "model.layers.0.mlp.up_proj.weight" && x.Codec != test.codec {
					t.Errorf("%s is %s, want %s", x.Name, x.Codec, test.codec)
				}
				if rel := math.Sqrt(e / n); rel > test.most {
					t.Errorf("%s: relative error %g", x.Name, rel)
				}
				if r := report[i]; r.From != r.Codec && math.Abs(r.RMSE-math.Sqrt(e/float64(len(want)))) > 1e-9 {
					t.Errorf("%s: reported error %g, measured %g", x.Name, r.RMSE, math.Sqrt(e/float64(len(want))))
				}
			}
		})
	}
}

// A 4-bit folder that is written again keeps its bytes.
func TestFourBitKept(t *testing.T) {
	a := folder(t, "llama")
	dir := t.TempDir()
	b := write(t, a, filepath.Join(dir, "b"), checkpoint.Options{Type: "nf4", FourBit: quantize.Options4{Double: true}})
	write(t, b, filepath.Join(dir, "c"), checkpoint.Options{})
	one, err := os.ReadFile(filepath.Join(dir, "b", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(filepath.Join(dir, "c", "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("writing a 4-bit model again changed it")
	}
}

type shift struct {
	name string
	by   float32
}

func (s shift) Changes(name string) bool { return name == s.name }
func (s shift) Unties() bool             { return false }
func (s shift) Apply(name string, lo, hi int, dst []float32) {
	if name == s.name {
		for i := range dst {
			dst[i] += s.by * float32(lo+1)
		}
	}
}

func TestMerge(t *testing.T) {
	a := folder(t, "llama")
	const name = "model.layers.0.mlp.down_proj.weight"
	m, err := checkpoint.Merge(a, shift{name, 0.75})
	if err != nil {
		t.Fatal(err)
	}
	b := write(t, m, filepath.Join(t.TempDir(), "b.gguf"), checkpoint.Options{})
	for _, x := range a.Tensors() {
		want, got := values(t, a, x), values(t, b, x)
		for i := range want {
			d := float32(0)
			if x.Name == name {
				d = 0.75
			}
			if got[i]-want[i] != d && math.Abs(float64(got[i]-want[i]-d)) > 1e-6 {
				t.Fatalf("%s: value %d changed by %g, want %g", x.Name, i, got[i]-want[i], d)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	a := folder(t, "llama")
	out := filepath.Join(t.TempDir(), "taken")
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := checkpoint.Write(ctx, a, out, checkpoint.Options{}); !errors.Is(err, checkpoint.ErrExists) {
		t.Errorf("an existing output: %v", err)
	}
	for _, o := range []checkpoint.Options{{Type: "q9_9", Form: checkpoint.GGUF}, {Type: "nf4", Form: checkpoint.GGUF}, {Type: "q8_0"}} {
		path := filepath.Join(filepath.Dir(out), "no")
		if _, err := checkpoint.Write(ctx, a, path, o); err == nil {
			t.Errorf("type %s to %q was accepted", o.Type, o.Form)
		}
		leftovers(t, filepath.Dir(out), "taken")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := checkpoint.Write(cancelled, a, filepath.Join(filepath.Dir(out), "no"), checkpoint.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled write: %v", err)
	}
	leftovers(t, filepath.Dir(out), "taken")
	if _, err := checkpoint.Write(ctx, a, filepath.Join(out, "absent", "no"), checkpoint.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an output in a folder that is not there: %v", err)
	}
}

// leftovers reports files beside those that are meant to be there.
func leftovers(t *testing.T, dir string, known ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// Damaged folders: each error names what is wrong.
func TestDamaged(t *testing.T) {
	for want, damage := range map[string]func(t *testing.T, m *testmodel.Model, dir string){
		`"model.layers.1.mlp.up_proj.weight" [128 64] is missing`: func(t *testing.T, m *testmodel.Model, dir string) {
			m.Remove("model.layers.1.mlp.up_proj.weight")
			must(t, m.WriteFolder(dir))
		},
		"no config.json": func(t *testing.T, m *testmodel.Model, dir string) {
			must(t, os.Remove(filepath.Join(dir, "config.json")))
		},
		`architecture "mamba"`: func(t *testing.T, m *testmodel.Model, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type":"mamba"}`), 0o666))
		},
		"the configuration says": func(t *testing.T, m *testmodel.Model, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, "config.json"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "config.json"), bytes.Replace(data, []byte(`"hidden_size": 64`), []byte(`"hidden_size": 32`), 1), 0o666))
		},
		"is not part of a llama model": func(t *testing.T, m *testmodel.Model, dir string) {
			must(t, safetensors.Write(filepath.Join(dir, "model.safetensors"), append(all(t, dir), safetensors.TensorData{
				Spec: safetensors.Spec{Name: "stowaway", DType: safetensors.F32, Shape: []int{1}}, Data: make([]byte, 4)}), nil))
		},
	} {
		m, err := testmodel.Named("llama")
		must(t, err)
		dir := t.TempDir()
		must(t, m.WriteFolder(dir))
		damage(t, m, dir)
		c, err := checkpoint.Open(dir)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// all reads every tensor of a folder.
func all(t *testing.T, dir string) []safetensors.TensorData {
	t.Helper()
	set, err := safetensors.OpenFolder(dir)
	must(t, err)
	defer set.Close()
	var out []safetensors.TensorData
	for _, x := range set.Tensors() {
		data := make([]byte, x.Size())
		must(t, set.ReadAt(x.Name, data, 0))
		out = append(out, safetensors.TensorData{Spec: safetensors.Spec{Name: x.Name, DType: x.DType, Shape: x.Shape}, Data: data})
	}
	return out
}

// NaN in a weight stops a conversion, one that copies stored bytes too, with the place, and leaves nothing.
func TestNaN(t *testing.T) {
	m, err := testmodel.Named("llama")
	must(t, err)
	m.Tensor("model.layers.1.mlp.up_proj.weight")[64+3] = float32(math.NaN())
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	must(t, m.WriteFolder(dir))
	for file, data := range testmodel.TokenizerFiles() {
		must(t, os.WriteFile(filepath.Join(dir, file), data, 0o666))
	}
	for _, typ := range []string{"", "f16", "nf4"} {
		_, err = checkpoint.Write(context.Background(), open(t, dir), out, checkpoint.Options{Type: typ})
		if err == nil || !strings.Contains(err.Error(), "up_proj") || !strings.Contains(err.Error(), "row 1, column 3") {
			t.Errorf("%s: %v", typ, err)
		}
		leftovers(t, filepath.Dir(out))
	}
}

// Any number of workers writes the same bytes.
func TestWorkers(t *testing.T) {
	a := folder(t, "llama-mha-untied")
	dir := t.TempDir()
	var first []byte
	for _, n := range []int{1, 2, 5} {
		out := filepath.Join(dir, fmt.Sprint(n))
		write(t, a, out, checkpoint.Options{Type: "nf4", Workers: n, FourBit: quantize.Options4{Double: true}})
		data, err := os.ReadFile(filepath.Join(out, "model.safetensors"))
		must(t, err)
		if first == nil {
			first = data
		} else if !bytes.Equal(first, data) {
			t.Errorf("%d workers write other bytes than one", n)
		}
	}
}

// A merge into a 4-bit folder quantizes what it changes in the folder's own blocks, and keeps the
// bytes of everything else.
func TestMergeFourBit(t *testing.T) {
	a := folder(t, "llama")
	base := write(t, a, filepath.Join(t.TempDir(), "bf16"), checkpoint.Options{Type: "bf16"})
	four := write(t, base, filepath.Join(t.TempDir(), "nf4"), checkpoint.Options{Type: "nf4", FourBit: quantize.Options4{BlockSize: 128}})
	name := "model.layers.1.mlp.up_proj.weight"
	m, err := checkpoint.Merge(four, shift{name, 0.125})
	must(t, err)
	out := write(t, m, filepath.Join(t.TempDir(), "merged"), checkpoint.Options{FourBit: quantize.Options4{Double: true}})
	for _, x := range out.Tensors() {
		before, err := four.Source.(checkpoint.Packed4).Packed4(x.Name)
		must(t, err)
		after, err := out.Source.(checkpoint.Packed4).Packed4(x.Name)
		must(t, err)
		if x.Name != name {
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("%s changed: %s", x.Name, diff)
			}
			continue
		}
		if after == nil || after.BlockSize != 128 || after.Double() || after.DType != "bfloat16" {
			t.Fatalf("%s: got %+v, want blocks of 128 without double quantization, from bfloat16", x.Name, after)
		}
		var sum float64
		was, is := values(t, four, x), values(t, out, x)
		for i := range was {
			sum += float64(is[i]) - float64(was[i])
		}
		if mean := sum / float64(len(was)); math.Abs(mean-0.125) > 0.01 {
			t.Errorf("%s: values moved by %g on average, want 0.125", x.Name, mean)
		}
	}
}
