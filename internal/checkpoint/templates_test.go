package checkpoint_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
)

// TestNamedTemplates: chat templates beside the default one, in a list or in files, go to a GGUF file under
// the keys that gguf-py gives them, and from there to a folder as transformers has them.
func TestNamedTemplates(t *testing.T) {
	m, err := testmodel.Named("llama")
	must(t, err)
	dir := t.TempDir()
	must(t, m.WriteFolder(dir))
	files := testmodel.TokenizerFiles()
	var config map[string]any
	must(t, json.Unmarshal(files["tokenizer_config.json"], &config))
	config["chat_template"] = []map[string]string{{"name": "default", "template": "D"}, {"name": "tool use", "template": "T"}}
	files["tokenizer_config.json"], err = json.Marshal(config)
	must(t, err)
	delete(files, "chat_template.jinja")
	must(t, os.Mkdir(filepath.Join(dir, "additional_chat_templates"), 0o777))
	files["additional_chat_templates/rag.jinja"] = []byte("R")
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	out := t.TempDir()
	file, folder, again := filepath.Join(out, "m.gguf"), filepath.Join(out, "m"), filepath.Join(out, "again.gguf")
	for _, step := range [][2]string{{dir, file}, {file, folder}, {folder, again}} {
		c := open(t, step[0])
		if c.Meta.ChatTemplate != "D" {
			t.Errorf("%s: the default template is %q", step[0], c.Meta.ChatTemplate)
		}
		o := checkpoint.Options{Form: checkpoint.GGUF}
		if filepath.Ext(step[1]) == "" {
			o.Form = checkpoint.Safetensors
		}
		_, err := checkpoint.Write(context.Background(), c, step[1], o)
		must(t, err)
	}
	for _, path := range []string{file, again} {
		f, err := gguf.Open(path)
		must(t, err)
		names, _, err := gguf.Value[[]string](f, "tokenizer.chat_templates")
		if err != nil || !slices.Equal(names, []string{"rag", "tool_use"}) {
			t.Errorf("%s names %v: %v", path, names, err)
		}
		for key, want := range map[string]string{"tokenizer.chat_template": "D", "tokenizer.chat_template.rag": "R", "tokenizer.chat_template.tool_use": "T"} {
			if got, _, err := gguf.Value[string](f, key); err != nil || got != want {
				t.Errorf("%s: %s is %q: %v", path, key, got, err)
			}
		}
		must(t, f.Close())
	}
	data, err := os.ReadFile(filepath.Join(folder, "additional_chat_templates", "tool_use.jinja"))
	if err != nil || string(data) != "T" {
		t.Errorf("the template of tools is %q: %v", data, err)
	}
}
