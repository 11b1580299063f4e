package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/graftml/graft/gguf"
)

// A model may have chat templates beside its default one: for tools, for retrieval. transformers keeps them
// in files of a folder of their own, older versions in a list in tokenizer_config.json, and GGUF under
// a key for each, whose names a list has.

const (
	templatesFolder = "additional_chat_templates"
	templateSuffix  = ".jinja"

	templateNames  = "tokenizer.chat_templates"
	templatePrefix = "tokenizer.chat_template."

	maxTemplates = 256
)

// readTemplates reads a folder's further templates among its files.
func readTemplates(dir string, files map[string][]byte) error {
	entries, err := os.ReadDir(filepath.Join(dir, templatesFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > maxTemplates {
		err = fmt.Errorf("%d files are more than the %d that are read", len(entries), maxTemplates)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: opening model %q: %s: %w", dir, templatesFolder, err)
	}
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != templateSuffix {
			continue
		}
		name := templatesFolder + "/" + e.Name()
		data, err := readSmall(dir, name)
		if err != nil {
			return err
		}
		if data != nil {
			files[name] = data
		}
	}
	return nil
}

// templateKeys are the GGUF keys of a folder's templates but the default one.
func templateKeys(files map[string][]byte) []gguf.KV {
	named := map[string]string{}
	var config struct {
		Templates any `json:"chat_template"`
	}
	_ = json.Unmarshal(files["tokenizer_config.json"], &config) // what is no list of templates names none
	list, _ := config.Templates.([]any)
	for _, entry := range list {
		m, _ := entry.(map[string]any)
		name, _ := m["name"].(string)
		if source, ok := m["template"].(string); ok {
			named[name] = source
		}
	}
	for file, data := range files {
		if name, ok := strings.CutPrefix(file, templatesFolder+"/"); ok {
			named[strings.TrimSuffix(name, templateSuffix)] = string(data)
		}
	}
	var keys []gguf.KV
	var names []string
	for _, name := range slices.Sorted(maps.Keys(named)) {
		plain := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return '_'
		}, name)
		if plain == "" || plain == "default" || slices.Contains(names, plain) {
			continue
		}
		names = append(names, plain)
		keys = append(keys, gguf.Entry(templatePrefix+plain, named[name]))
	}
	if len(names) > 0 {
		keys = append(keys, gguf.Entry(templateNames, names))
	}
	return keys
}

// templateFiles are a folder's files of templates under a GGUF file's keys.
func templateFiles(keys []gguf.KV) map[string][]byte {
	files := map[string][]byte{}
	for _, kv := range keys {
		name, ok := strings.CutPrefix(kv.Key, templatePrefix)
		source, isString := kv.Value.(string)
		if ok && isString && name != "" && !strings.ContainsAny(name, `/\`) && name != ".." {
			files[templatesFolder+"/"+name+templateSuffix] = []byte(source)
		}
	}
	return files
}
