package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/onnx"
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

// findInGGUF gives a GGUF file wrong keys, and too few tensors.
func findInGGUF(t *testing.T, p provoked) {
	t.Helper()
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
		name     string
		severity Severity
		code     string
		kv       gguf.KV
		without  bool // of the key, and not another value for it
	}{
		{"types for half of the tokens", Error, "tokenizer-lists", gguf.Entry("tokenizer.ggml.token_type", make([]int32, 150)), false},
		{"an end out of range", Error, "special-id-range", gguf.Entry("tokenizer.ggml.eos_token_id", uint32(70000)), false},
		{"a key of another type", Error, "key-type", gguf.Entry("tokenizer.ggml.bos_token_id", "one"), false},
		{"fewer tokens than rows", Error, "tokenizer-size", gguf.Entry("tokenizer.ggml.tokens", []string{"a", "b"}), false},
		{"no tokens", Warning, "key-missing", gguf.KV{Key: "tokenizer.ggml.tokens"}, true},
		{"no pre-tokenizer", Warning, "key-missing", gguf.KV{Key: "tokenizer.ggml.pre"}, true},
		{"no file type", Note, "key-missing", gguf.KV{Key: "general.file_type"}, true},
	} {
		var extra []gguf.KV
		for _, kv := range f.KVs() {
			if kv.Key != d.kv.Key && !shape[kv.Key] && (!strings.HasPrefix(kv.Key, "general.") || kv.Key == "general.license") {
				extra = append(extra, kv)
			}
		}
		if !d.without {
			extra = append(extra, d.kv)
		}
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := m.WriteGGUF(path, extra...); err != nil {
			t.Fatal(err)
		}
		p.expect(t, d.name, path, Options{}, d.severity, d.code)
	}

	// Of an architecture that is not known, what the keys and most blocks say.
	var tensors []gguf.TensorData
	for block := range 8 {
		for _, stem := range []string{"ffn_up.weight", "ffn_down.weight"} {
			if block != 5 || stem != "ffn_up.weight" {
				tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: fmt.Sprintf("blk.%d.%s", block, stem), Type: gguf.F32, Dims: []int64{2}}, Data: []byte{0, 0, 0, 1, 0, 0, 0, 2}})
			}
		}
	}
	path := filepath.Join(t.TempDir(), "unknown.gguf")
	if err := gguf.Write(path, []gguf.KV{gguf.Entry("general.architecture", "unheard-of"), gguf.Entry("unheard-of.block_count", uint32(9))}, tensors); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "a tensor less in one block", path, Options{}, Warning, "block-tensor-missing")
	p.expect(t, "a block less", path, Options{}, Error, "block-count")
	p.expect(t, "no context length", path, Options{}, Error, "key-missing")
	if err := gguf.Write(path, nil, tensors); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "no architecture", path, Options{}, Error, "key-missing")
	if f := found(look(t, path, Options{Check: true}), Error, "key-missing"); f.Place != "general.architecture" {
		t.Errorf("no architecture: %v", f)
	}
}

// findInAdapters damages adapters of every form.
func findInAdapters(t *testing.T, p provoked) {
	t.Helper()
	pairs := func(b float32) *adapters.Adapter {
		a := &adapters.Adapter{Config: adapters.Config{R: 2, Alpha: 4}, Pairs: []adapters.Pair{{Module: "model.layers.0.self_attn.q_proj", R: 2, In: 3, Out: 4, Scale: 2,
			A: testmodel.Draw("a", 6), B: testmodel.Draw("b", 8)}}}
		for i := range a.Pairs[0].B {
			a.Pairs[0].B[i] *= b
		}
		return a
	}
	peft := func(a *adapters.Adapter) string {
		dir := filepath.Join(t.TempDir(), "adapter")
		if err := adapters.WritePEFT(dir, a); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := peft(pairs(1))
	r := look(t, dir, Options{Check: true, Stats: true, Against: dir})
	if len(r.Errors()) > 0 || r.Rank != 2 || r.Alpha != 4 || r.Parameters != 14 || r.Modules["q_proj"] != 1 || r.Types["F32"] != 2 || r.Total == nil || r.Bytes != 56 || !r.TotalError.Identical {
		t.Errorf("a sound adapter: %+v", r)
	}
	for _, file := range []string{peftConfigFile, peftWeightsFile} {
		if one := look(t, filepath.Join(dir, file), Options{}); one.Rank != 2 || len(one.Tensors) != 2 {
			t.Errorf("named by its %s: %+v", file, one)
		}
	}
	p.expect(t, "an adapter of no base", dir, Options{}, Note, "adapter-base-missing")
	p.expect(t, "an untrained adapter", peft(pairs(0)), Options{}, Warning, "adapter-zero")
	jsonFile(peftConfigFile, func(m map[string]any) {
		m["use_dora"], m["base_model_name_or_path"], m["target_modules"] = true, "base", []string{"q_proj"}
	})(t, dir)
	p.expect(t, "an adapter of another kind", dir, Options{}, Warning, "unsupported")
	if r := look(t, dir, Options{}); r.Rank != 2 || r.Alpha != 4 || r.BaseModel != "base" || len(r.Targets) != 1 || r.Parameters != 14 {
		t.Errorf("an adapter of another kind: %+v", r)
	}
	dir = peft(pairs(1))
	set(peftConfigFile, "r", 3)(t, dir)
	p.expect(t, "an adapter of another rank", dir, Options{}, Error, "refused")
	dir = peft(pairs(float32(math.Inf(1))))
	p.expect(t, "an adapter with infinities", dir, Options{}, Error, "not-finite")
	p.expect(t, "an adapter with infinities", dir, Options{}, Error, "refused")

	half := gguf.TensorData{Spec: gguf.Spec{Name: "blk.0.attn_q.weight.lora_a", Type: gguf.F32, Dims: []int64{3, 2}}, Data: make([]byte, 24)}
	for _, c := range []struct {
		code string
		keys []gguf.KV
	}{
		{"adapter-half", []gguf.KV{gguf.Entry("adapter.type", "lora"), gguf.Entry("adapter.lora.alpha", float32(4))}},
		{"adapter-alpha", []gguf.KV{gguf.Entry("adapter.type", "lora")}},
		{"adapter-type", []gguf.KV{gguf.Entry("adapter.type", "control"), gguf.Entry("adapter.lora.alpha", float32(4))}},
	} {
		path := filepath.Join(t.TempDir(), "lora.gguf")
		if err := gguf.Write(path, append([]gguf.KV{gguf.Entry("general.architecture", "llama"), gguf.Entry("general.type", "adapter")}, c.keys...), []gguf.TensorData{half}); err != nil {
			t.Fatal(err)
		}
		p.expect(t, "LoRA matrices", path, Options{}, Error, c.code)
		if r := look(t, path, Options{}); r.Kind != "adapter" || r.Rank != 2 || r.Modules["attn_q"] != 1 {
			t.Errorf("LoRA matrices: %+v", r)
		}
	}

	onnxFile := filepath.Join(t.TempDir(), "a.onnx_adapter")
	if err := adapters.WriteONNX(onnxFile, []adapters.Tensor{{Name: "x", Shape: []int{2, 2}, Data: []float32{1, 2, float32(math.NaN()), 4}}}); err != nil {
		t.Fatal(err)
	}
	p.expect(t, "matrices for a graph", onnxFile, Options{Stats: true}, Error, "not-finite")
}

// findInBundles damages a bundle.
func findInBundles(t *testing.T, p provoked) {
	t.Helper()
	from := folder(t, "llama")
	c, err := checkpoint.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := onnx.Export(context.Background(), dir, onnx.Options{Config: config, Weights: c, Targets: []string{"q_proj"}, Files: testmodel.TokenizerFiles()}); err != nil {
		t.Fatal(err)
	}
	b, err := onnx.OpenBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := b.Slots()[0]
	a := &adapters.Adapter{Config: adapters.Config{R: 2, Alpha: 2}, Pairs: []adapters.Pair{{Module: s.Module, R: 2, In: s.In, Out: s.Out, Scale: 1, A: testmodel.Draw("a", 2*s.In), B: testmodel.Draw("b", 2*s.Out)}}}
	if err := b.Add("one", a); err != nil {
		t.Fatal(err)
	}
	r := look(t, dir, Options{Check: true, Stats: true, Tensors: true})
	if len(r.Errors()) > 0 || r.Arch != "llama" || r.Layers != 2 || !r.Template || len(r.Adapters) != 1 || r.Bytes == 0 || len(r.Tensors) < 2 || r.Tensors[0].File != "adapters/one.onnx_adapter" || r.Tensors[0].Stats == nil {
		t.Errorf("a sound bundle: %+v", r)
	}
	if _, err := Path(context.Background(), dir, Options{Against: dir}); err == nil {
		t.Error("a bundle was compared value by value")
	}
	write(t, dir, "adapters/one.onnx_adapter", []byte("x"))
	p.expect(t, "another file", dir, Options{}, Error, "bundle-adapter")
	write(t, dir, "genai_config.json", []byte("["))
	p.expect(t, "a broken configuration", dir, Options{}, Error, "config-invalid")
}

// findInData looks at rows that cannot all be meant.
func findInData(t *testing.T, p provoked) {
	t.Helper()
	dir := t.TempDir()
	row := `{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}` + "\n"
	long := fmt.Sprintf(`{"messages": [{"role": "user", "content": %q}, {"role": "assistant", "content": "ho"}]}`, strings.Repeat("x", 400)) + "\n"
	empty := `{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "ho"}]}` + "\n"
	write(t, dir, "rows.jsonl", []byte(row+long+empty+row))
	path, o := filepath.Join(dir, "rows.jsonl"), Options{Model: folder(t, "llama")}
	p.expect(t, "a row twice", path, o, Warning, "data-duplicates")
	p.expect(t, "a row of no words", path, o, Warning, "data-empty-turn")
	p.expect(t, "a row that is too long", path, o, Warning, "data-too-long")
	r := look(t, path, o)
	if d := r.Data; d.Rows != 4 || d.Duplicates != 1 || d.TooLong != 1 || d.Context != 128 || d.Roles["user"] != 4 || d.Turns.Sum != 8 || d.Characters.Max != 402 || d.Tokens.Max < 400 || len(r.Findings) != 0 {
		t.Errorf("%+v, %v", d, r.Findings)
	}
	for _, o := range []Options{{Against: path}, {Model: "absent"}} {
		if _, err := Path(context.Background(), path, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	if _, err := Path(context.Background(), o.Model, Options{Model: o.Model}); err == nil {
		t.Error("the tokens of a model were counted")
	}
}

// findInValues compares models that do not fit, and reads tensors that cannot be read.
func findInValues(t *testing.T, p provoked) {
	t.Helper()
	file := func(dtype safetensors.DType, shape []int, data []byte) string {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		list := []safetensors.TensorData{{Spec: safetensors.Spec{Name: "x", DType: dtype, Shape: shape}, Data: data},
			{Spec: safetensors.Spec{Name: "y", DType: safetensors.F32, Shape: []int{2}}, Data: make([]byte, 8)}}
		if err := safetensors.Write(path, list, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	two, four := file(safetensors.F32, []int{2}, make([]byte, 8)), file(safetensors.F32, []int{4}, make([]byte, 16))
	p.expect(t, "another shape", two, Options{Against: four}, Error, "shape-differs")
	numbers := file(safetensors.I64, []int{2}, make([]byte, 16))
	p.expect(t, "whole numbers", numbers, Options{}, Warning, "tensor-type")
	// A tensor that the other file has in a form that is not decoded is measured, and not compared.
	r := look(t, two, Options{Stats: true, Against: numbers})
	if !slices.Equal(r.NotCompared, []string{"x"}) || tensor(t, r, "x").Stats == nil || tensor(t, r, "y").Error == nil {
		t.Errorf("against whole numbers: %+v", r)
	}
	if _, err := Path(context.Background(), two, Options{Against: folder(t, "llama")}); err == nil || !strings.Contains(err.Error(), "no tensor in common") {
		t.Errorf("against another model: %v", err)
	}
	broken := &Report{Kind: "model"}
	w := &weight{Tensor: Tensor{Name: "x", Shape: []int{2}}, rows: 1, cols: 2, unit: 1, read: func(*[]byte, []float32, int) error { return errors.New("the disk is gone") }}
	if err := broken.measureValues(context.Background(), &weights{list: []*weight{w}}, Options{Check: true}); err != nil {
		t.Fatal(err)
	}
	if f := found(broken, Error, "tensor-unreadable"); f == nil || !strings.Contains(f.Message, "the disk is gone") {
		t.Errorf("a disk that is gone: %v", broken.Findings)
	} else {
		p["error tensor-unreadable"] = true
	}
}
