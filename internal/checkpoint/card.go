package checkpoint

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/goccy/go-yaml"

	"github.com/graftml/graft/gguf"
)

// A model card, README.md, begins with a front matter in YAML between two lines "---"; GGUF files have
// the same facts as general.* keys. This file carries them across as llama.cpp's converter does, and back.

// maxCard bounds the front matter that is read: cards of published models have a few kB.
const maxCard = 256 << 10

// cardStrings are the keys of a GGUF file, behind "general.", that are one text, and their names in a
// card; the first name is written.
var cardStrings = []struct {
	key   string
	names []string
}{
	{"author", []string{"model_author", "author", "model_creator"}},
	{"version", []string{"model_version", "version"}},
	{"organization", []string{"model_organization", "organization"}},
	{"description", []string{"model_description", "description"}},
	{"finetune", []string{"model_finetune", "finetune"}},
	{"basename", []string{"model_basename", "basename", "model_type"}},
	{"size_label", []string{"model_size_label", "size_label"}},
	{"license.name", []string{"license_name"}},
	{"license.link", []string{"license_link"}},
	{"source.url", []string{"model_url", "url"}},
	{"source.doi", []string{"model_doi", "doi"}},
	{"source.uuid", []string{"model_uuid", "uuid"}},
	{"source.repo_url", []string{"model_repo_url", "repo_url"}},
}

// cardParents are the lists of models and data sets that a model was made from.
var cardParents = []struct {
	key   string
	names []string
}{
	{"base_model", []string{"base_model", "base_models", "base_model_sources"}},
	{"dataset", []string{"datasets", "dataset", "dataset_sources"}},
}

// parentFields are the keys of one of them, in the order of llama.cpp's converter.
var parentFields = []string{"name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"}

// readCard takes what a model card says into m. A card that is no YAML says nothing: it is prose, and
// no reason to refuse a model.
func readCard(card []byte, m *Meta) {
	front, ok := bytes.CutPrefix(bytes.ReplaceAll(card, []byte("\r\n"), []byte("\n")), []byte("---\n"))
	end := bytes.Index(append([]byte("\n"), front...), []byte("\n---"))
	if !ok || end < 0 || end > maxCard {
		return
	}
	// "no" is Norwegian, and tabs are a common slip.
	text := strings.ReplaceAll(strings.ReplaceAll(string(front[:end]), "\t", "  "), "- no\n", "- \"no\"\n")
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(text), &fields); err != nil {
		return
	}
	if name := cardText(fields, "name", "model_name"); name != "" {
		m.Name = name
	}
	m.License = strings.Join(cardList(fields, "license"), ",")
	m.Languages = append(cardList(fields, "languages"), cardList(fields, "language")...)
	for _, s := range cardStrings {
		if v := cardText(fields, s.names...); v != "" {
			m.Provenance = append(m.Provenance, gguf.Entry("general."+s.key, v))
		}
	}
	for _, p := range cardParents {
		m.Provenance = append(m.Provenance, parentKeys(p.key, fields, p.names)...)
	}
	if tags := append(cardList(fields, "tags"), cardList(fields, "pipeline_tag")...); len(tags) > 0 {
		m.Provenance = append(m.Provenance, gguf.Entry("general.tags", tags))
	}
}

// cardText returns the first of some fields that is a text or a number.
func cardText(fields map[string]any, names ...string) string {
	for _, name := range names {
		if list := cardList(fields, name); len(list) == 1 {
			return list[0]
		}
	}
	return ""
}

// cardList returns a field that is a text, or a list of them.
func cardList(fields map[string]any, name string) []string {
	var out []string
	switch v := fields[name].(type) {
	case nil, map[string]any:
	case []any:
		for _, item := range v {
			if s, ok := item.(string); ok && s != "" {
				out = append(out, s)
			}
		}
	default:
		if s := fmt.Sprint(v); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// parentKeys makes the keys of the models or data sets that a card names, by an id "owner/name", an
// address, or an object of parentFields.
func parentKeys(key string, fields map[string]any, names []string) []gguf.KV {
	var list []any
	for _, name := range names {
		switch v := fields[name].(type) {
		case nil:
			continue
		case []any:
			list = v
		default:
			list = []any{v}
		}
		break
	}
	if len(list) == 0 {
		return nil
	}
	keys := []gguf.KV{gguf.Entry("general."+key+".count", uint32(len(list)))}
	for i, item := range list {
		parent := map[string]any{}
		switch v := item.(type) {
		case string:
			parent = parentOf(v)
		case map[string]any:
			parent = v
		}
		for _, field := range parentFields {
			if s, ok := parent[field].(string); ok && s != "" {
				keys = append(keys, gguf.Entry(fmt.Sprintf("general.%s.%d.%s", key, i, field), s))
			}
		}
	}
	return keys
}

const hub = "https://huggingface.co/"

// parentOf describes a parent by its id or address.
func parentOf(id string) map[string]any {
	parent := map[string]any{}
	if strings.Contains(id, "://") {
		parent["repo_url"] = id
		var ok bool
		if id, ok = strings.CutPrefix(id, hub); !ok || strings.Count(id, "/") != 1 {
			return parent
		}
	}
	owner, name, ok := strings.Cut(id, "/")
	if !ok {
		owner, name = "", id
	}
	parent["name"] = title(name)
	if owner != "" {
		parent["organization"], parent["repo_url"] = title(owner), hub+owner+"/"+name
	}
	return parent
}

// folderName is what a model without a name in its card is called: by _name_or_path where that is an id
// and no path, else by its folder.
func folderName(dir string, id []byte) string {
	var name string
	if err := json.Unmarshal(id, &name); err != nil || name == "" || strings.Count(name, "/") > 1 || strings.HasPrefix(name, ".") {
		if name = filepath.Base(dir); !filepath.IsAbs(dir) {
			abs, err := filepath.Abs(dir)
			if err != nil {
				return ""
			}
			name = filepath.Base(abs)
		}
	}
	return title(name[strings.LastIndexByte(name, '/')+1:])
}

// sizeLabel writes a number of parameters as llama.cpp's converter does: 135M.
func sizeLabel(n int64) string {
	unit, suffix := 1e3, "K"
	switch {
	case n > 1e12:
		unit, suffix = 1e12, "T"
	case n > 1e9:
		unit, suffix = 1e9, "B"
	case n > 1e6:
		unit, suffix = 1e6, "M"
	}
	v := float64(n) / unit
	digits := 0
	if whole := math.RoundToEven(v); whole < 1 {
		digits = 2
	} else if whole < 10 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + suffix
}

var versionWord = regexp.MustCompile(`^(v\d+(\.\d+)*|\d.*)$`)

// title makes a name out of an id as llama.cpp's converter does: words for hyphens, those in lower case
// capitalized but for versions and sizes.
func title(id string) string {
	words := strings.Fields(strings.ReplaceAll(id, "-", " "))
	for i, w := range words {
		if strings.ToLower(w) == w && strings.ToUpper(w) != w && !versionWord.MatchString(w) {
			words[i] = capitalized(w)
		}
	}
	return strings.Join(words, " ")
}

// capitalized writes each run of letters with a capital, as Python's str.title does.
func capitalized(w string) string {
	var b strings.Builder
	inside := false
	for _, r := range w {
		s := string(r)
		letter := strings.ToUpper(s) != strings.ToLower(s)
		if letter && !inside {
			s = strings.ToUpper(s)
		}
		b.WriteString(s)
		inside = letter
	}
	return b.String()
}

// writeCard makes a model card of what m says, nil where that is nothing.
func writeCard(m *Meta) ([]byte, error) {
	keys := map[string]any{}
	for _, kv := range m.Provenance {
		keys[strings.TrimPrefix(kv.Key, "general.")] = kv.Value
	}
	var front yaml.MapSlice
	add := func(name string, value any) { front = append(front, yaml.MapItem{Key: name, Value: value}) }
	if m.License != "" {
		add("license", m.License)
	}
	if len(m.Languages) > 0 {
		add("language", m.Languages)
	}
	for _, p := range cardParents {
		if list := parentList(keys, p.key); len(list) > 0 {
			add(p.names[0], list)
		}
	}
	if tags, ok := keys["tags"].([]string); ok && len(tags) > 0 {
		add("tags", tags)
	}
	if m.Name != "" {
		add("model_name", m.Name)
	}
	for _, s := range cardStrings {
		if v, ok := keys[s.key].(string); ok && v != "" {
			add(s.names[0], v)
		}
	}
	if len(front) == 0 {
		return nil, nil
	}
	text, err := yaml.MarshalWithOptions(front, yaml.IndentSequence(false))
	if err != nil {
		return nil, fmt.Errorf("writing the model card: %w", err)
	}
	card := append(append([]byte("---\n"), text...), "---\n"...)
	if m.Name != "" {
		card = fmt.Appendf(card, "\n# %s\n", m.Name)
	}
	return card, nil
}

// parentList returns the models or data sets that keys describe: by id where that says all.
func parentList(keys map[string]any, key string) []any {
	n, _ := keys[key+".count"].(uint32)
	var list []any
	for i := range min(n, 1000) {
		parent := map[string]any{}
		var item yaml.MapSlice
		for _, field := range parentFields {
			if s, ok := keys[fmt.Sprintf("%s.%d.%s", key, i, field)].(string); ok && s != "" {
				parent[field] = s
				item = append(item, yaml.MapItem{Key: field, Value: s})
			}
		}
		url, _ := parent["repo_url"].(string)
		id := strings.TrimPrefix(url, hub)
		if id == "" {
			id, _ = parent["name"].(string)
		}
		if same(parentOf(id), parent) {
			list = append(list, id)
		} else if same(parentOf(url), parent) {
			list = append(list, url)
		} else if item != nil {
			list = append(list, item)
		}
	}
	return list
}

func same(a, b map[string]any) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// sampling pairs the fields of generation_config.json with the keys, behind "general.sampling.", that
// llama.cpp takes its defaults from.
var sampling = []struct {
	field, key string
	whole      bool // an int32, not a float32
}{
	{"top_k", "top_k", true}, {"top_p", "top_p", false}, {"min_p", "min_p", false}, {"temperature", "temp", false},
	{"repetition_penalty", "penalty_repeat", false},
}

// readSampling makes keys of a generation_config.json; one that cannot be read says nothing.
func readSampling(generation []byte, m *Meta) {
	var fields map[string]any
	if err := json.Unmarshal(generation, &fields); err != nil {
		return
	}
	for _, s := range sampling {
		v, ok := fields[s.field].(float64)
		switch {
		case !ok:
		case !s.whole:
			m.Provenance = append(m.Provenance, gguf.Entry("general.sampling."+s.key, float32(v)))
		case v == math.Trunc(v) && math.Abs(v) < math.MaxInt32:
			m.Provenance = append(m.Provenance, gguf.Entry("general.sampling."+s.key, int32(v)))
		}
	}
}

// addSampling adds to the fields of a generation_config.json what the keys of a GGUF file say.
func addSampling(fields map[string]any, provenance []gguf.KV) {
	for _, s := range sampling {
		for _, kv := range provenance {
			if kv.Key != "general.sampling."+s.key {
				continue
			}
			switch v := kv.Value.(type) {
			case int32:
				fields[s.field] = v
			case float32:
				fields[s.field] = v
			default:
				continue
			}
			fields["do_sample"] = true
		}
	}
}
