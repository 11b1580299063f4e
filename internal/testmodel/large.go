package testmodel

import (
	"context"
	"fmt"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// This file makes models too large for memory: their values are computed where they are read.

// shapes are published shapes of the llama family, for [Shape]: hidden, intermediate, layers, heads,
// heads of keys and values, vocabulary.
var shapes = map[string][6]int{
	"135m": {576, 1536, 30, 9, 3, 49152},
	"1b":   {2048, 5632, 22, 32, 4, 32000}, // TinyLlama
	"7b":   {4096, 11008, 32, 32, 32, 32000},
}

// Shape returns the configuration of a published shape, 135m, 1b or 7b, with the special tokens of
// [TokenizerFiles] and matrices in bfloat16.
func Shape(name string) (*model.Config, error) {
	s, ok := shapes[name]
	if !ok {
		return nil, fmt.Errorf("testmodel: shape %q: there are 135m, 1b and 7b", name)
	}
	return model.ParseConfig(fmt.Appendf(nil, `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":%d,"intermediate_size":%d,
"num_hidden_layers":%d,"num_attention_heads":%d,"num_key_value_heads":%d,"vocab_size":%d,"max_position_embeddings":4096,"rms_norm_eps":1e-05,
"hidden_act":"silu","rope_theta":10000.0,"bos_token_id":1,"eos_token_id":2,"tie_word_embeddings":%t,"dtype":"bfloat16"}`,
		s[0], s[1], s[2], s[3], s[4], s[5], name == "135m"))
}

// WriteNF4 writes a model with random weights to a new folder, products in NF4 with double
// quantization as bitsandbytes saves it, the rest in bfloat16, with the tokenizer of
// [TokenizerFiles]. Nothing is held in memory but what each processor works at. The weights of a
// matrix are uniform with a standard deviation of 0.02, gains are 1: an untrained model, whose loss
// is little above log(vocabulary). Progress, where set, is told values written and in all.
func WriteNF4(ctx context.Context, dir string, c *model.Config, seed uint64, progress func(done, total int64)) error {
	params, err := model.Inventory(c)
	if err != nil {
		return err
	}
	src := &drawn{config: c, seed: seed, params: map[string]model.Param{}}
	for _, p := range params {
		src.params[p.Name] = p
		src.tensors = append(src.tensors, checkpoint.Tensor{Name: p.Name, Shape: p.Shape, Codec: "BF16"})
	}
	m := &checkpoint.Checkpoint{Source: src, Form: checkpoint.Safetensors, Path: dir, Meta: checkpoint.Meta{Files: TokenizerFiles()}}
	_, err = checkpoint.Write(ctx, m, dir, checkpoint.Options{
		Form: checkpoint.Safetensors, Type: "nf4", FourBit: quantize.Options4{Double: true}, ShardSize: 4 << 30, Progress: progress,
	})
	return err
}

// drawn is a source whose values follow from the seed, the tensor's name and their place.
type drawn struct {
	config  *model.Config
	seed    uint64
	params  map[string]model.Param
	tensors []checkpoint.Tensor
}

func (d *drawn) Config() *model.Config { return d.config }

func (d *drawn) Tensors() []checkpoint.Tensor { return d.tensors }

func (d *drawn) Rows(name string, lo, hi int, dst []float32) error {
	p, ok := d.params[name]
	if !ok {
		return fmt.Errorf("testmodel: reading %q: the model has no such tensor", name)
	}
	if p.Kind == model.KindNorm {
		for i := range dst {
			dst[i] = 1
		}
		return nil
	}
	cols := p.Elements() / p.Shape[0]
	uniform(dst, hash(name)^mix(d.seed), lo*cols)
	return nil
}

// uniform fills dst with elements from on of the sequence of key: multiples of 2⁻¹⁵ in [−1, 1), times
// √3 · 0.02. Four elements are one hash of their place, so any part costs no more than its length.
func uniform(dst []float32, key uint64, from int) {
	const unit = 0.02 * 1.7320508 / (1 << 15)
	i := 0
	for ; i < len(dst) && (from+i)%4 != 0; i++ {
		dst[i] = float32(int16(hashed(key, (from+i)/4)>>((from+i)%4*16))) * unit
	}
	place := (from + i) / 4
	for ; i+4 <= len(dst); i += 4 {
		z, four := hashed(key, place), (*[4]float32)(dst[i:])
		four[0], four[1] = float32(int16(z))*unit, float32(int16(z>>16))*unit
		four[2], four[3] = float32(int16(z>>32))*unit, float32(int16(z>>48))*unit
		place++
	}
	for k := 0; i < len(dst); i, k = i+1, k+1 {
		dst[i] = float32(int16(hashed(key, place)>>(k*16))) * unit
	}
}
