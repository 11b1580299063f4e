package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

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

// turns is a template of the end that test models have.
const turns = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"

func template(source string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, dir, "chat_template.jinja", []byte(source)) }
}

// pad gives the embedding table rows that stand for no token.
func pad(rows int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		tensorsOf(func(l map[string]*safetensors.TensorData) {
			x := l["model.embed_tokens.weight"]
			x.Data = append(x.Data, x.Data[:(rows-x.Shape[0])*4*x.Shape[1]]...)
			x.Shape = []int{rows, x.Shape[1]}
		})(t, dir)
		set("config.json", "vocab_size", rows)(t, dir)
	}
}

// shards writes the model in several files.
func shards(t *testing.T, dir string) {
	t.Helper()
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := checkpoint.Write(context.Background(), c, out, checkpoint.Options{Form: checkpoint.Safetensors, ShardSize: 100_000}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(out, dir)); err != nil {
		t.Fatal(err)
	}
}

// tensorsOf changes the tensors of a folder.
func tensorsOf(change func(list map[string]*safetensors.TensorData)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		rewrite(t, dir, change, map[string]string{"format": "pt"})
	}
}

// rewrite writes the tensors of a folder again.
func rewrite(t *testing.T, dir string, change func(list map[string]*safetensors.TensorData), meta map[string]string) {
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
	if err := errors.Join(os.Remove(path), safetensors.Write(path, all, meta)); err != nil {
		t.Fatal(err)
	}
}

const someWeight = "model.layers.1.mlp.up_proj.weight"

// provoked are the findings that a test has caused, by severity and code.
type provoked map[string]bool

// expect looks at a path of which something is to be found.
func (p provoked) expect(t *testing.T, what, path string, o Options, s Severity, code string) {
	t.Helper()
	o.Check = true
	r := look(t, path, o)
	f := found(r, s, code)
	if f == nil {
		t.Errorf("%s: no %s %s among %v", what, s, code, r.Findings)
		return
	}
	p[string(s)+" "+code] = true
	if s == Error && f.Fix == "" {
		t.Errorf("%s: nothing is said about what to do: %v", what, f)
	}
	if (len(r.Errors()) > 0) != slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error }) {
		t.Errorf("%s: errors %v of %v", what, r.Errors(), r.Findings)
	}
}

// TestFindings: each thing that can be found is found where it is, under its name, and the list of them
// is whole: every one in the source is provoked here.
func TestFindings(t *testing.T) {
	p := provoked{}
	findInFolders(t, p)
	findInGGUF(t, p)
	findInAdapters(t, p)
	findInFits(t, p)
	findInBundles(t, p)
	findInData(t, p)
	findInValues(t, p)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	finding := regexp.MustCompile(`find\((Error|Warning|Note), "([a-z0-9-]+)"`)
	known := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range finding.FindAllStringSubmatch(string(data), -1) {
			known[strings.ToLower(m[1])+" "+m[2]] = true
		}
	}
	for _, f := range slices.Sorted(maps.Keys(known)) {
		if !p[f] {
			t.Errorf("nothing provokes %s", f)
		}
	}
	if len(known) < 60 {
		t.Errorf("only %d kinds of findings in the source", len(known))
	}
}

// findInFolders damages a folder.
func findInFolders(t *testing.T, p provoked) {
	t.Helper()
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
		{"one value", Warning, "all-equal", tensorsOf(func(l map[string]*safetensors.TensorData) {
			for i := range l[someWeight].Data {
				l[someWeight].Data[i] = 0x3e
			}
		})},
		{"a head that is the table", Note, "head-duplicate", func(t *testing.T, dir string) {
			tensorsOf(func(l map[string]*safetensors.TensorData) {
				x := *l["model.embed_tokens.weight"]
				x.Name = "lm_head.weight"
				l[x.Name] = &x
			})(t, dir)
			set("config.json", "tie_word_embeddings", false)(t, dir)
		}},
		{"rows of no token", Note, "vocabulary-padded", pad(310)},
		{"an id of a row of no token", Error, "special-id-unknown", func(t *testing.T, dir string) {
			pad(310)(t, dir)
			set("generation_config.json", "eos_token_id", 305)(t, dir)
		}},
		{"another number type", Note, "dtype-differs", set("config.json", "dtype", "bfloat16")},
		{"a broken config.json", Error, "config-invalid", func(t *testing.T, dir string) { write(t, dir, "config.json", []byte("[")) }},
		{"a configuration of nothing", Error, "refused", set("config.json", "hidden_size", -1)},
		{"an architecture nobody knows", Warning, "unsupported", set("config.json", "model_type", "unheard-of")},
		{"no mark in the metadata", Warning, "format-mark-missing", func(t *testing.T, dir string) {
			rewrite(t, dir, func(map[string]*safetensors.TensorData) {}, nil)
		}},
		{"another size in the index", Warning, "index-size", func(t *testing.T, dir string) {
			shards(t, dir)
			jsonFile("model.safetensors.index.json", func(m map[string]any) { m["metadata"] = map[string]any{"total_size": 5} })(t, dir)
		}},
		{"a tokenizer of another kind", Warning, "tokenizer-unsupported", jsonFile("tokenizer.json", func(m map[string]any) { m["model"].(map[string]any)["type"] = "WordLevel" })},
		{"nothing that ends a text", Warning, "eos-missing", func(t *testing.T, dir string) {
			set("config.json", "eos_token_id", nil)(t, dir)
			remove("generation_config.json", "eos_token_id")(t, dir)
			set("tokenizer_config.json", "eos_token", nil)(t, dir)
			jsonFile("tokenizer.json", func(m map[string]any) {
				added := m["added_tokens"].([]any)
				for i, name := range []string{"<|one|>", "<|two|>", "<|three|>"} {
					vocab, x := m["model"].(map[string]any)["vocab"].(map[string]any), added[i].(map[string]any)
					vocab[name] = vocab[x["content"].(string)]
					delete(vocab, x["content"].(string))
					x["content"] = name
				}
			})(t, dir)
			remove("tokenizer_config.json", "bos_token")(t, dir)
			remove("tokenizer_config.json", "unk_token")(t, dir)
		}},
		{"more ends in one file", Note, "eos-differs", set("generation_config.json", "eos_token_id", []int{2, 0})},
		{"a template that calls what is not there", Error, "template-fails", template("{{ nothing.at.all() }}")},
		{"a template that fails on a system message", Warning, "template-fails", template("{% if messages[0].role == 'system' %}{{ nothing() }}{% endif %}" + turns)},
		{"a template that refuses", Warning, "template-refuses", template("{{ raise_exception('no') }}")},
		{"a template that refuses a system message", Note, "template-no-system", template("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + turns)},
		{"a template that drops a system message", Note, "template-no-system", template("{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}")},
		{"a template without a prompt", Note, "template-no-prompt", template(turns)},
		{"an answer that nothing ends", Note, "turn-end", template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")},
		{"an answer that ends otherwise", Warning, "turn-end", template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_start|>{% endfor %}")},
		{"two beginnings of a text", Note, "double-bos", func(t *testing.T, dir string) {
			template("{{ bos_token }}"+turns)(t, dir)
			set("tokenizer.json", "post_processor", map[string]any{"type": "TemplateProcessing",
				"single":         []any{map[string]any{"SpecialToken": map[string]any{"id": "<|im_start|>", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}},
				"pair":           []any{map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}}},
				"special_tokens": map[string]any{"<|im_start|>": map[string]any{"id": "<|im_start|>", "ids": []int{1}, "tokens": []string{"<|im_start|>"}}}})(t, dir)
		}},
		{"a broken tokenizer_config.json of a model that is refused", Error, "config-invalid", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "chat_template.jinja")); err != nil {
				t.Fatal(err)
			}
			write(t, dir, "tokenizer_config.json", []byte(`{"chat_template": [`))
		}},
		{"no licence", Note, "licence-missing", func(t *testing.T, dir string) { write(t, dir, "README.md", nil) }},
	} {
		dir := folder(t, "llama")
		if r := look(t, dir, Options{Check: true}); found(r, c.severity, c.code) != nil {
			t.Errorf("%s: %s is found of the sound model", c.name, c.code)
		}
		c.damage(t, dir)
		p.expect(t, c.name, dir, Options{}, c.severity, c.code)
	}
}

func found(r *Report, s Severity, code string) *Finding {
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Severity == s && f.Code == code })
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}
