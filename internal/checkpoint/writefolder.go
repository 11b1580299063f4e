package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// folder writes a Hugging Face folder.
func (w *writing) folder(out string) error {
	temp, err := wholefile.TempFolder(out)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	files, err := w.folderFiles()
	if err != nil {
		return err
	}
	index, err := w.tensorFiles(temp)
	if err != nil {
		return err
	}
	if index != nil {
		files["model.safetensors.index.json"] = index
	}
	for name, data := range files {
		path := filepath.Join(temp, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o777)
		if err == nil {
			err = wholefile.WriteFile(path, data)
		}
		if err != nil {
			return err
		}
	}
	return wholefile.RenameFolder(temp, out)
}

// tensorFiles writes the safetensors files and returns their index, nil where there is one file.
func (w *writing) tensorFiles(dir string) (index []byte, err error) {
	staged, err := newStage(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, staged.Close()) }()
	w.spool = staged
	if err := w.quantizeAll(staged); err != nil {
		return nil, err
	}
	if index, err = w.fillShards(dir, staged); err != nil {
		return nil, err
	}
	return index, w.writeBlocks(dir)
}

// planShards plans the safetensors files once 4-bit tensors are staged.
func (w *writing) planShards(staged *stage) (*safetensors.Shards, error) {
	var specs []safetensors.Spec
	var values int64
	for _, t := range w.tensors {
		values += int64(t.Shape[0]) * int64(t.cols)
		if t.fourBit != nil {
			for _, s := range staged.of(t.Name) {
				specs = append(specs, safetensors.Spec{Name: s.Name, DType: safetensors.DType(s.DType), Shape: s.Shape})
			}
			continue
		}
		specs = append(specs, safetensors.Spec{Name: t.Name, DType: safetensors.DType(t.Codec), Shape: t.Shape})
	}
	limit := w.o.ShardSize
	if limit <= 0 {
		limit = math.MaxInt64
	}
	shards, err := safetensors.PlanShards(specs, limit, "model", map[string]string{"format": "pt"})
	if err != nil {
		return nil, err
	}
	shards.TotalParameters = values
	return shards, nil
}

// fillShards writes every tensor into the planned files, and returns their index, nil where there is
// one file.
func (w *writing) fillShards(dir string, staged *stage) ([]byte, error) {
	shards, err := w.planShards(staged)
	if err != nil {
		return nil, err
	}
	owner, place := map[string]tensorWriter{}, map[string]int{}
	var open []tensorWriter
	for _, s := range shards.Files {
		file, err := safetensors.Create(filepath.Join(dir, s.Name), s.Layout)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		w.begin(file)
		open = append(open, file)
		for _, t := range s.Layout.Tensors {
			owner[t.Name], place[t.Name] = file, len(place)
		}
	}
	var tasks []*task
	for _, t := range w.tensors {
		if t.fourBit != nil {
			if err := staged.copyTo(t.Name, owner); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
			}
			continue
		}
		tasks = append(tasks, w.plain(t, t.Name, owner[t.Name], place[t.Name]))
	}
	if err := w.run(tasks); err != nil {
		return nil, err
	}
	for i, file := range open {
		if err := w.commit(file, shards.Files[i].Name); err != nil {
			return nil, err
		}
	}
	return shards.Index(), nil
}

// folderFiles makes the small files: the configuration, the tokenizer's, the rest as it came.
func (w *writing) folderFiles() (map[string][]byte, error) {
	files, err := w.c.FolderFiles()
	if err != nil {
		return nil, err
	}
	if files[cardFile] == nil {
		card, err := writeCard(&w.c.Meta)
		if err != nil {
			return nil, err
		}
		if card != nil {
			files[cardFile] = card
		}
	}
	config := *w.c.Config()
	extra := map[string]any{}
	for _, t := range w.tensors {
		if t.fourBit == nil && len(t.Shape) > 1 {
			config.DType = codecDType(t.Codec)
			break
		}
	}
	for _, t := range w.tensors {
		if t.fourBit == nil {
			continue
		}
		raw, err := quantize.Config4{Type: t.fourBit.Type, Double: t.fourBit.Double, ComputeDType: t.fourBit.DType, Storage: "uint8"}.JSON()
		if err != nil {
			return nil, err
		}
		extra["quantization_config"] = jsontext.Value(raw)
		break
	}
	files[configFile], err = config.JSON(extra)
	return files, err
}

// FolderFiles returns the small files of a Hugging Face folder but its config.json: as they came,
// or made from what a GGUF file says.
func (c *Checkpoint) FolderFiles() (map[string][]byte, error) {
	files := maps.Clone(c.Meta.Files)
	if files == nil {
		files = map[string][]byte{}
	}
	if files["tokenizer.json"] != nil || files["tokenizer.model"] != nil {
		return files, nil
	}
	return files, c.tokenizerFiles(files)
}

// tokenizerFiles makes a folder's tokenizer files for a model that came from GGUF.
func (c *Checkpoint) tokenizerFiles(files map[string][]byte) error {
	tok, err := c.Tokenizer()
	if err != nil {
		return err
	}
	if files["tokenizer.json"], err = tok.JSON(); err != nil {
		return err
	}
	m := c.Config()
	config := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false, "model_max_length": m.Context}
	generation := map[string]any{"_from_model_config": true}
	special := map[string]any{}
	for key, id := range map[string]int{"bos": m.BOS, "pad": m.PAD, "eos": first(m.EOS), "unk": int(tok.UNK())} {
		if id < 0 {
			continue
		}
		if text, ok := tok.Token(int32(id)); ok {
			config[key+"_token"], special[key+"_token"] = text, text
		}
		if key != "unk" {
			generation[key+"_token_id"] = id
		}
	}
	addSampling(generation, c.Meta.Provenance)
	if t := c.Meta.ChatTemplate; t != "" {
		config["chat_template"] = t // where transformers 4 looks
		files["chat_template.jinja"] = []byte(t)
	}
	maps.Copy(files, templateFiles(c.Meta.Provenance))
	for name, v := range map[string]any{"tokenizer_config.json": config, "generation_config.json": generation, "special_tokens_map.json": special} {
		if files[name], err = json.Marshal(v, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
			return err
		}
		files[name] = append(files[name], '\n')
	}
	return nil
}

func first(ids []int) int {
	if len(ids) == 0 {
		return -1
	}
	return ids[0]
}
