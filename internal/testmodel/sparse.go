package testmodel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/safetensors"
)

// Tall returns a llama as wide as models of 70 billion parameters with few layers, each about a
// gigabyte of bfloat16, and the vocabulary of [TokenizerFiles].
func Tall(layers int) (*model.Config, error) { return shaped(8192, 17920, layers, 64, 8) }

// Low returns one that is a hundredth of it.
func Low(layers int) (*model.Config, error) { return shaped(1024, 1536, layers, 8, 2) }

func shaped(hidden, intermediate, layers, heads, kvHeads int) (*model.Config, error) {
	return model.ParseConfig(fmt.Appendf(nil, `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":%d,"intermediate_size":%d,
"num_hidden_layers":%d,"num_attention_heads":%d,"num_key_value_heads":%d,"vocab_size":300,"max_position_embeddings":4096,"rms_norm_eps":1e-05,
"hidden_act":"silu","rope_theta":10000.0,"bos_token_id":1,"eos_token_id":2,"tie_word_embeddings":true,"dtype":"bfloat16"}`,
		hidden, intermediate, layers, heads, kvHeads))
}

// WriteSparse writes a model of zeros in bfloat16, real headers over files with holes: it takes no
// room on a disk whose file system knows holes, and is as large as any to who reads it. A path that
// ends in .gguf makes that, another a folder with shards of at most maxBytes.
func WriteSparse(path string, c *model.Config, maxBytes int64) error {
	params, err := model.Inventory(c)
	if err != nil {
		return err
	}
	if strings.HasSuffix(path, ".gguf") {
		return writeSparseGGUF(path, c, params)
	}
	var specs []safetensors.Spec
	for _, p := range params {
		specs = append(specs, safetensors.Spec{Name: p.Name, DType: safetensors.BF16, Shape: p.Shape})
	}
	shards, err := safetensors.PlanShards(specs, maxBytes, "model", map[string]string{"format": "pt"})
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		return fmt.Errorf("testmodel: writing a sparse model: %w", err)
	}
	files := TokenizerFiles()
	if index := shards.Index(); index != nil {
		files["model.safetensors.index.json"] = index
	}
	if files["config.json"], err = c.JSON(nil); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(path, name), data, 0o666); err != nil {
			return fmt.Errorf("testmodel: writing a sparse model: %w", err)
		}
	}
	for _, s := range shards.Files {
		if err := writeHoles(filepath.Join(path, s.Name), s.Layout.Header, s.Layout.Size); err != nil {
			return err
		}
	}
	return nil
}

func writeSparseGGUF(path string, c *model.Config, params []model.Param) error {
	keys, err := metadata(c)
	if err != nil {
		return err
	}
	var specs []gguf.Spec
	for _, p := range params {
		name, ok := c.GGUFName(p.Name)
		if !ok {
			return fmt.Errorf("testmodel: writing %q: it has no GGUF name", p.Name)
		}
		spec := gguf.Spec{Name: name, Type: gguf.F32, Dims: []int64{int64(p.Shape[0])}}
		if len(p.Shape) == 2 {
			spec.Type, spec.Dims = gguf.BF16, []int64{int64(p.Shape[1]), int64(p.Shape[0])}
		}
		specs = append(specs, spec)
	}
	layout, err := gguf.Plan(keys, specs)
	if err != nil {
		return err
	}
	return writeHoles(path, layout.Header, layout.Size)
}

// metadata returns the keys of a GGUF file of a shape with the vocabulary of [TokenizerFiles]: those
// that are written for a small model, with the numbers of the shape.
func metadata(c *model.Config) ([]gguf.KV, error) {
	small, err := Named("llama")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "testmodel")
	if err != nil {
		return nil, fmt.Errorf("testmodel: making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "small.gguf")
	if err := small.WriteFolder(dir); err != nil {
		return nil, err
	}
	for name, data := range TokenizerFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return nil, fmt.Errorf("testmodel: writing a sparse model: %w", err)
		}
	}
	m, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if _, err := checkpoint.Write(context.Background(), m, path, checkpoint.Options{Form: checkpoint.GGUF}); err != nil {
		return nil, err
	}
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	shape := map[string]any{}
	for _, k := range c.GGUFKeys() {
		shape[k.Name] = k.Value
	}
	keys := f.KVs()
	for i, kv := range keys {
		switch v := shape[kv.Key].(type) {
		case uint32:
			keys[i] = gguf.Entry(kv.Key, v)
		case float32:
			keys[i] = gguf.Entry(kv.Key, v)
		}
	}
	return keys, nil
}

// writeHoles writes a file that is zeros behind its header.
func writeHoles(path string, header []byte, size int64) error {
	err := os.WriteFile(path, header, 0o666)
	if err == nil {
		err = os.Truncate(path, size)
	}
	if err != nil {
		return fmt.Errorf("testmodel: writing a sparse model: %w", err)
	}
	return nil
}
