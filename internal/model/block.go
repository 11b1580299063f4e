package model

import "fmt"

// layer is one decoder block on the way through an interpreter: the parts that families put
// together in their definitions. Modules go by the name inside the block.
type layer[V any] struct {
	c *Config
	o Ops[V]
	i int
}

func (l layer[V]) module(name string) string { return fmt.Sprintf("model.layers.%d.%s", l.i, name) }

func (l layer[V]) linear(name string, in, out int, bias bool, x V) V {
	return l.o.Linear(Linear{Module: l.module(name), In: in, Out: out, Bias: bias}, x)
}

// norm is over rows of width features of x.
func (l layer[V]) norm(name string, width int, x V) V {
	return l.o.RMSNorm(Norm{Module: l.module(name), Width: width, Eps: l.c.RMSEps, Offset: l.c.architecture().offset}, x)
}

// query, key and value are the products of attention on x.
func (l layer[V]) query(bias bool, x V) V {
	return l.linear("self_attn.q_proj", l.c.Hidden, l.c.Heads*l.c.HeadDim, bias, x)
}

func (l layer[V]) key(bias bool, x V) V {
	return l.linear("self_attn.k_proj", l.c.Hidden, l.c.KVHeads*l.c.HeadDim, bias, x)
}

func (l layer[V]) value(bias bool, x V) V {
	return l.linear("self_attn.v_proj", l.c.Hidden, l.c.KVHeads*l.c.HeadDim, bias, x)
}

// attend rotates q and k, where the layer has positions, and makes attention's output of them and v.
func (l layer[V]) attend(bias bool, q, k, v V) V {
	c := l.c
	if c.NoRope == nil || !c.NoRope[l.i] {
		q = l.o.Rope(Rope{Layer: l.i, Heads: c.Heads, HeadDim: c.HeadDim, Table: c.rope(l.i)}, q)
		k = l.o.Rope(Rope{Layer: l.i, Heads: c.KVHeads, HeadDim: c.HeadDim, Table: c.rope(l.i)}, k)
	}
	h := l.o.Attention(Attention{Layer: l.i, Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: c.attentionScale(),
		Window: c.window(l.i), Softcap: c.AttnSoftcap}, q, k, v)
	return l.linear("self_attn.o_proj", c.Heads*c.HeadDim, c.Hidden, bias, h)
}

// mlp is the gated unit.
func (l layer[V]) mlp(x V) V {
	c := l.c
	gate := l.linear("mlp.gate_proj", c.Hidden, c.Intermediate, c.MLPBias, x)
	up := l.linear("mlp.up_proj", c.Hidden, c.Intermediate, c.MLPBias, x)
	return l.linear("mlp.down_proj", c.Intermediate, c.Hidden, c.MLPBias, l.o.Gated(c.Act, gate, up))
}

// decode is what all families share: embedding, blocks, the last norm and the head. block gets the
// residual stream and returns it.
func decode[V any](c *Config, o Ops[V], tokens V, block func(l layer[V], x V) V) V {
	x := o.Embed(Linear{Module: "model.embed_tokens", In: c.Vocab, Out: c.Hidden}, tokens)
	if c.EmbeddingScale != 0 && c.EmbeddingScale != 1 {
		x = o.Scale(c.EmbeddingScale, x)
	}
	for i := range c.Layers {
		x = block(layer[V]{c, o, i}, o.Block(i, x))
	}
	head := Head{Linear: Linear{Module: "lm_head", In: c.Hidden, Out: c.Vocab}, Softcap: c.FinalSoftcap}
	if c.Tied {
		head.Tied = "model.embed_tokens"
	}
	if c.LogitsDivisor != 0 {
		head.Scale = 1 / c.LogitsDivisor
	}
	return o.Head(head, o.RMSNorm(Norm{Module: "model.norm", Width: c.Hidden, Eps: c.RMSEps, Offset: c.architecture().offset}, x))
}
