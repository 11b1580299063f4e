package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
)

// folder writes a tiny model that has all a model should have.
func folder(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := named(t, name).WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	files := testmodel.TokenizerFiles()
	files["README.md"] = []byte("---\nlicense: mit\n---\n")
	files["generation_config.json"] = []byte(`{"bos_token_id": 1, "eos_token_id": 2}`)
	for name, data := range files {
		write(t, dir, name, data)
	}
	return dir
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func look(t *testing.T, path string, o Options) *Report {
	t.Helper()
	r, err := Path(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSound: of a sound model of every family, as a folder and as a GGUF file, nothing is said but notes,
// and its description is that of its configuration.
func TestSound(t *testing.T) {
	for _, name := range testmodel.Names() {
		dir := folder(t, name)
		c, err := checkpoint.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		paths := []string{dir}
		file := filepath.Join(t.TempDir(), "m.gguf")
		if _, err := checkpoint.Write(context.Background(), c, file, checkpoint.Options{Form: checkpoint.GGUF}); err == nil {
			paths = append(paths, file)
		}
		n, err := c.Config().Parameters()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		for _, path := range paths {
			r := look(t, path, Options{Check: true, Stats: true, Tensors: true})
			for _, f := range r.Findings {
				if f.Severity == Error {
					t.Errorf("%s, %s: %v", name, filepath.Base(path), f)
				}
			}
			if r.Kind != "model" || r.Parameters != n || r.Layers != c.Config().Layers || r.Vocab != c.Config().Vocab || !r.Template || r.Total == nil || !r.Checked {
				t.Errorf("%s, %s: %+v", name, filepath.Base(path), r)
			}
			for _, x := range r.Tensors {
				if x.Stats == nil || x.Bytes <= 0 || x.Offset <= 0 {
					t.Fatalf("%s, %s: tensor %+v", name, filepath.Base(path), x)
				}
			}
		}
	}
}

// jsonFile changes a file of JSON.
func jsonFile(name string, change func(m map[string]any)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		if data, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, data)
	}
}

func set(name, key string, value any) func(*testing.T, string) {
	return jsonFile(name, func(m map[string]any) { m[key] = value })
}

func remove(name, key string) func(*testing.T, string) {
	return jsonFile(name, func(m map[string]any) { delete(m, key) })
}

// tensorsOf changes the tensors of a folder.
func tensorsOf(change func(list map[string]*safetensors.TensorData)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, "model.safetensors")
		f, err := safetensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		list := map[string]*safetensors.TensorData{}
		for _, s := range f.Tensors() {
			d := &safetensors.TensorData{Spec: safetensors.Spec{Name: s.Name, DType: s.DType, Shape: s.Shape}, Data: make([]byte, s.Size())}
			if err := f.ReadAt(s, d.Data, 0); err != nil {
				t.Fatal(err)
			}
			list[s.Name] = d
		}
		f.Close()
		change(list)
		var all []safetensors.TensorData
		for _, name := range slices.Sorted(maps.Keys(list)) {
			all = append(all, *list[name])
		}
		if err := errors.Join(os.Remove(path), safetensors.Write(path, all, map[string]string{"format": "pt"})); err != nil {
			t.Fatal(err)
		}
	}
}

const someWeight = "model.layers.1.mlp.up_proj.weight"

// TestFindings: each kind of damage to a folder is found under its name.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name     string
		severity Severity
		code     string
		damage   func(*testing.T, string)
	}{
		{"a NaN", Error, "not-finite", tensorsOf(func(l map[string]*safetensors.TensorData) { copy(l[someWeight].Data[400:], []byte{0, 0, 0xc0, 0x7f}) })},
		{"an infinity", Error, "not-finite", tensorsOf(func(l map[string]*safetensors.TensorData) {
			copy(l["model.norm.weight"].Data[8:], []byte{0, 0, 0x80, 0xff})
		})},
		{"zeros", Warning, "all-zero", tensorsOf(func(l map[string]*safetensors.TensorData) { clear(l[someWeight].Data) })},
		{"a large value", Warning, "beyond-f16", tensorsOf(func(l map[string]*safetensors.TensorData) { copy(l[someWeight].Data, []byte{0, 0, 0x80, 0x4b}) })},
		{"a tensor less", Error, "tensor-missing", tensorsOf(func(l map[string]*safetensors.TensorData) { delete(l, someWeight) })},
		{"a tensor more", Error, "tensor-extra", tensorsOf(func(l map[string]*safetensors.TensorData) {
			x := *l[someWeight]
			x.Name = "model.layers.7.mlp.up_proj.weight"
			l[x.Name] = &x
		})},
		{"another shape", Error, "tensor-shape", set("config.json", "intermediate_size", 127)},
		{"a tied head of its own", Warning, "tied-head-differs", tensorsOf(func(l map[string]*safetensors.TensorData) {
			x := *l["model.embed_tokens.weight"]
			x.Name, x.Data = "lm_head.weight", bytes.Clone(x.Data)
			x.Data[5]++
			l[x.Name] = &x
		})},
		{"another model's vocabulary", Error, "tokenizer-size", func(t *testing.T, dir string) {
			tensorsOf(func(l map[string]*safetensors.TensorData) {
				x := l["model.embed_tokens.weight"]
				x.Shape, x.Data = []int{200, x.Shape[1]}, x.Data[:200*4*x.Shape[1]]
			})(t, dir)
			set("config.json", "vocab_size", 200)(t, dir)
		}},
		{"no rope_theta", Warning, "rope-missing", jsonFile("config.json", func(m map[string]any) {
			delete(m, "rope_theta")
			delete(m, "rope_parameters")
			delete(m, "rope_scaling")
		})},
		{"no epsilon", Warning, "norm-epsilon-missing", remove("config.json", "rms_norm_eps")},
		{"a classifier", Warning, "architecture-class", set("config.json", "architectures", []string{"LlamaForSequenceClassification"})},
		{"broken generation_config.json", Error, "config-invalid", func(t *testing.T, dir string) { write(t, dir, "generation_config.json", []byte("{")) }},
		{"an id out of range", Error, "special-id-range", set("generation_config.json", "eos_token_id", 5000)},
		{"two ends", Warning, "eos-differs", set("generation_config.json", "eos_token_id", 0)},
		{"two beginnings", Warning, "bos-differs", set("generation_config.json", "bos_token_id", 0)},
		{"an ordinary word for an end", Warning, "eos-not-special", func(t *testing.T, dir string) {
			set("generation_config.json", "eos_token_id", 70)(t, dir)
			set("config.json", "eos_token_id", 70)(t, dir)
			set("tokenizer_config.json", "eos_token", nil)(t, dir)
		}},
		{"no tokenizer", Warning, "tokenizer-missing", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "tokenizer.json")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a broken tokenizer", Error, "tokenizer-invalid", func(t *testing.T, dir string) { write(t, dir, "tokenizer.json", []byte(`{"model": {"type": "BPE"}}`)) }},
		{"a broken template", Error, "template-invalid", func(t *testing.T, dir string) { write(t, dir, "chat_template.jinja", []byte("{% for %}")) }},
		{"a template that drops words", Error, "template-drops", func(t *testing.T, dir string) {
			write(t, dir, "chat_template.jinja", []byte("{% for m in messages %}{{ m.role }}{% endfor %}"))
		}},
		{"a template of another model", Warning, "template-token", func(t *testing.T, dir string) {
			write(t, dir, "chat_template.jinja", []byte("{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}<|eot_id|>{% endfor %}"))
		}},
		{"no template", Note, "template-missing", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "chat_template.jinja")); err != nil {
				t.Fatal(err)
			}
		}},
		{"no licence", Note, "licence-missing", func(t *testing.T, dir string) { write(t, dir, "README.md", nil) }},
	} {
		dir := folder(t, "llama")
		if r := look(t, dir, Options{Check: true}); found(r, c.severity, c.code) != nil {
			t.Errorf("%s: %s is found of the sound model", c.name, c.code)
		}
		c.damage(t, dir)
		r := look(t, dir, Options{Check: true})
		f := found(r, c.severity, c.code)
		if f == nil {
			t.Errorf("%s: no %s %s among %v", c.name, c.severity, c.code, r.Findings)
			continue
		}
		if c.severity == Error && f.Fix == "" {
			t.Errorf("%s: nothing is said about what to do: %v", c.name, f)
		}
		if (len(r.Errors()) > 0) != slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error }) {
			t.Errorf("%s: errors %v of %v", c.name, r.Errors(), r.Findings)
		}
	}
}

func found(r *Report, s Severity, code string) *Finding {
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Severity == s && f.Code == code })
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}

// TestGGUFFindings: wrong keys of a GGUF file are found.
func TestGGUFFindings(t *testing.T) {
	m := named(t, "llama")
	c, err := checkpoint.Open(folder(t, "llama"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sound := filepath.Join(t.TempDir(), "sound.gguf")
	if _, err := checkpoint.Write(context.Background(), c, sound, checkpoint.Options{Form: checkpoint.GGUF}); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(sound)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	shape := map[string]bool{}
	for _, k := range m.Config().GGUFKeys() {
		shape[k.Name] = true
	}
	for _, d := range []struct {
		name string
		code string
		kv   gguf.KV
	}{
		{"scores for half of the tokens", "tokenizer-lists", gguf.Entry("tokenizer.ggml.token_type", make([]int32, 150))},
		{"an end out of range", "special-id-range", gguf.Entry("tokenizer.ggml.eos_token_id", uint32(70000))},
		{"a key of another type", "key-type", gguf.Entry("tokenizer.ggml.bos_token_id", "one")},
	} {
		var extra []gguf.KV
		for _, kv := range f.KVs() {
			switch {
			case shape[kv.Key] || strings.HasPrefix(kv.Key, "general.") && kv.Key != "general.license":
			case kv.Key == d.kv.Key:
			default:
				extra = append(extra, kv)
			}
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := m.WriteGGUF(path, append(extra, d.kv)...); err != nil {
			t.Fatal(err)
		}
		r := look(t, path, Options{Check: true})
		if found(r, Error, d.code) == nil {
			t.Errorf("%s: no %s among %v", d.name, d.code, r.Findings)
		}
	}
}

// TestMalformed: of every file of the malformed corpus that is wrong something is said, or it is refused
// with an error that names it; none is taken for sound.
func TestMalformed(t *testing.T) {
	n := 0
	for _, kind := range []string{"gguf", "safetensors"} {
		dir := filepath.Join("..", "..", "testdata", "malformed", kind)
		expected, err := os.ReadFile(filepath.Join(dir, "expected.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(expected)) {
			fields := strings.Split(line, "\t")
			if len(fields) < 2 || fields[1] == "ok" {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, fields[0]+".bin"))
			if err != nil {
				t.Fatal(err)
			}
			bad := filepath.Join(t.TempDir(), "bad."+kind)
			if err := os.WriteFile(bad, data, 0o666); err != nil {
				t.Fatal(err)
			}
			n++
			r, err := Path(context.Background(), bad, Options{Check: true, Stats: true})
			switch {
			case err != nil && !strings.Contains(err.Error(), "bad."+kind):
				t.Errorf("%s %s: the error does not name the file: %v", kind, fields[0], err)
			case err == nil && found(r, Error, "refused") == nil && len(r.Errors()) == 0:
				t.Errorf("%s %s is taken for sound: %v", kind, fields[0], r.Findings)
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d files", n)
	}
}

// TestHeaderOnly: what is described without being measured needs the header alone: the tensors of a
// sparse file of many gigabytes are not read.
func TestHeaderOnly(t *testing.T) {
	c, err := testmodel.Tall(4)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m.gguf", "folder"} {
		path := filepath.Join(t.TempDir(), name)
		if err := testmodel.WriteSparse(path, c, 1<<62); err != nil {
			t.Fatal(err)
		}
		before := readBytes(t)
		r := look(t, path, Options{Tensors: true})
		if after := readBytes(t); before >= 0 && after-before > 4<<20 {
			t.Errorf("%s: %d bytes read of a model of %d", name, after-before, r.Bytes)
		}
		if r.Parameters == 0 || r.Bytes < 1<<20 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// BenchmarkOpen opens a sparse model of many gigabytes.
func BenchmarkOpen(b *testing.B) {
	c, err := testmodel.Tall(40)
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "m.gguf")
	if err := testmodel.WriteSparse(path, c, 1<<62); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Path(context.Background(), path, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
