package onnx

// The interpreter that turns a model's definition into nodes: its values are the names of edges.

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/graftml/graft/internal/model"
)

// Names of the graph's inputs and outputs, as onnxruntime-genai and optimum use them.
const (
	inputIDs      = "input_ids"
	attentionMask = "attention_mask"
	logitsOutput  = "logits"
)

// builder implements model.Ops[string].
type builder struct {
	config *model.Config
	graph  graph
	adapts func(module string) bool // whether a product or the table gets a slot
	gains  bool                     // slots have an input for DoRA's gains
	slots  []Slot
	loads  []load // what fills the external initializers, in the order of the data file

	width   map[string]int        // features of an edge
	rotated map[string]model.Rope // edges that are to be rotated by the attention that reads them
	known   map[string]bool       // initializers that are there already
	tables  map[*model.RopeTable]*angles
	// longAfter is the length past which the graph uses a second set of frequencies, 0 where it has one.
	longAfter int
	at        string // prefix of nodes' names: "/model/layers.3"
	sums      int    // residual sums of the block
	err       error
}

// load says what the bytes of an external initializer are.
type load struct {
	name      string // of the initializer
	weight    string // of the parameter, under its Hugging Face name; "" for a table
	rows      int
	cols      int
	transpose bool    // stored (cols, rows)
	offset    float32 // added to every value
	table     *model.RopeTable
	sine      bool
}

// buildGraph runs the definition of the model and returns the graph, without the places of its external initializers.
func buildGraph(c *model.Config, adapts func(module string) bool, gains bool) (*builder, error) {
	b := &builder{config: c, adapts: adapts, gains: gains, width: map[string]int{}, rotated: map[string]model.Rope{},
		known: map[string]bool{}, tables: map[*model.RopeTable]*angles{}, at: "/model"}
	b.graph.name = "main_graph"
	batch, seq, total := symbol("batch_size"), symbol("sequence_length"), symbol("total_sequence_length")
	b.graph.inputs = []valueInfo{
		{inputIDs, int64Type, []dim{batch, seq}},
		{attentionMask, int64Type, []dim{batch, total}},
	}
	for i := range c.Layers {
		shape := []dim{batch, fixed(c.KVHeads), symbol("past_sequence_length"), fixed(c.HeadDim)}
		b.graph.inputs = append(b.graph.inputs, valueInfo{pastName(i, "key"), float32Type, shape}, valueInfo{pastName(i, "value"), float32Type, shape})
	}
	b.mask()
	out, err := model.Forward(c, b, inputIDs)
	if err == nil {
		err = b.err
	}
	if err != nil {
		return nil, err
	}
	// The head's output is the graph's: its last node writes to it.
	b.graph.nodes[len(b.graph.nodes)-1].outputs[0] = logitsOutput
	b.width[logitsOutput] = b.width[out]
	b.graph.outputs = []valueInfo{{logitsOutput, float32Type, []dim{batch, seq, fixed(b.width[out])}}}
	for i := range c.Layers {
		shape := []dim{batch, fixed(c.KVHeads), total, fixed(c.HeadDim)}
		b.graph.outputs = append(b.graph.outputs, valueInfo{presentName(i, "key"), float32Type, shape}, valueInfo{presentName(i, "value"), float32Type, shape})
	}
	for _, s := range b.slots {
		rank := symbol(s.Module + ".rank")
		b.graph.inputs = append(b.graph.inputs, valueInfo{s.A, float32Type, []dim{fixed(s.In), rank}}, valueInfo{s.B, float32Type, []dim{rank, fixed(s.Out)}})
		if s.Gain != "" { // one value for all features, or one for each
			b.graph.inputs = append(b.graph.inputs, valueInfo{s.Gain, float32Type, []dim{symbol(s.Module + ".gains")}})
		}
	}
	return b, nil
}

// totalNode makes the total as an int64.
const totalNode = "/model/attn_mask_reformat/Gather"

func pastName(layer int, part string) string {
	return fmt.Sprintf("past_key_values.%d.%s", layer, part)
}

func presentName(layer int, part string) string { return fmt.Sprintf("present.%d.%s", layer, part) }

// fail keeps the first error. The definition runs on, its result unused.
func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// emit adds a node with one output of the given width and returns the output's name.
func (b *builder) emit(n node, width int) string {
	if len(n.outputs) == 0 {
		n.outputs = []string{n.name + "/output_0"}
	}
	b.graph.nodes = append(b.graph.nodes, n)
	b.width[n.outputs[0]] = width
	return n.outputs[0]
}

// constant adds a small integer constant and returns its name; shape nil is a scalar.
func (b *builder) constant(shape []int, values ...int64) string {
	name := "/model/constants/INT64"
	if shape != nil {
		name += "/1D"
	}
	var raw []byte
	for _, v := range values {
		name += "/" + strconv.FormatInt(v, 10)
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	if !b.known[name] {
		b.known[name] = true
		b.graph.initializers = append(b.graph.initializers, initializer{name: name, elem: int64Type, shape: shape, raw: raw})
	}
	return name
}

// number adds a scalar and returns its name.
func (b *builder) number(v float64) string {
	x := float32(v)
	name := "/model/constants/FLOAT/" + strconv.FormatFloat(float64(x), 'g', -1, 32)
	if !b.known[name] {
		b.known[name] = true
		raw := binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))
		b.graph.initializers = append(b.graph.initializers, initializer{name: name, elem: float32Type, raw: raw})
	}
	return name
}

// mask makes the two lengths that GroupQueryAttention wants of the attention mask (B, total):
// seqlens_k (B), the place of the last token of each sequence, and the total as a scalar.
func (b *builder) mask() {
	at := "/model/attn_mask_reformat/"
	sum := b.emit(node{op: "ReduceSum", name: at + "ReduceSum", inputs: []string{attentionMask, b.constant([]int{1}, 1)}, attributes: []attribute{{"keepdims", 0}}}, 0)
	last := b.emit(node{op: "Sub", name: at + "Sub", inputs: []string{sum, b.constant([]int{1}, 1)}}, 0)
	b.emit(node{op: "Cast", name: at + "Cast_seqlens", inputs: []string{last}, outputs: []string{"seqlens_k"}, attributes: []attribute{{"to", int(int32Type)}}}, 0)
	shape := b.emit(node{op: "Shape", name: at + "Shape", inputs: []string{attentionMask}}, 0)
	total := b.emit(node{op: "Gather", name: totalNode, inputs: []string{shape, b.constant(nil, 1)}, attributes: []attribute{{"axis", 0}}}, 0)
	b.emit(node{op: "Cast", name: at + "Cast_total", inputs: []string{total}, outputs: []string{"total_sequence_length"}, attributes: []attribute{{"to", int(int32Type)}}}, 0)
}

// external adds an initializer whose bytes go to the data file, once.
func (b *builder) external(shape []int, l load) string {
	if !b.known[l.name] {
		b.known[l.name] = true
		b.graph.initializers = append(b.graph.initializers, initializer{name: l.name, elem: float32Type, shape: shape, external: true})
		b.loads = append(b.loads, l)
	}
	return l.name
}

// exportName is how onnxruntime-genai's exporter names a module.
func exportName(module string) string { return strings.Replace(module, ".self_attn.", ".attn.", 1) }

// nodeName is where a module's nodes stand: "/model/layers.0/attn/q_proj".
func nodeName(module string) string {
	return "/" + strings.ReplaceAll(strings.ReplaceAll(exportName(module), ".", "/"), "layers/", "layers.")
}

// Embed gathers rows of the table.
func (b *builder) Embed(p model.Linear, tokens string) string {
	table, at := b.table(p.Weight(), p.In, p.Out), nodeName(p.Module)
	y := b.emit(node{op: "Gather", name: at + "/Gather", inputs: []string{table, tokens}}, p.Out)
	if b.adapts(p.Module) {
		s := b.slot(p)
		low := b.emit(node{op: "Gather", name: at + "/lora_A/Gather", inputs: []string{s.A, tokens}}, 0)
		y = b.addSlot(s, y, low)
	}
	return y
}

// slot adds the inputs for the adapter of a module, which are empty where nobody fills them.
func (b *builder) slot(p model.Linear) Slot {
	s := Slot{Module: p.Module, A: slotName(p.Module, "lora_A.weight"), B: slotName(p.Module, "lora_B.weight"), In: p.In, Out: p.Out}
	b.graph.initializers = append(b.graph.initializers,
		initializer{name: s.A, elem: float32Type, shape: []int{p.In, 0}}, initializer{name: s.B, elem: float32Type, shape: []int{0, p.Out}})
	if b.gains {
		s.Gain = slotName(p.Module, "lora_gain")
		b.graph.initializers = append(b.graph.initializers,
			initializer{name: s.Gain, elem: float32Type, shape: []int{1}, raw: binary.LittleEndian.AppendUint32(nil, math.Float32bits(1))})
	}
	b.slots = append(b.slots, s)
	return s
}

// slotName is how an input of an adapter is called.
func slotName(module, part string) string { return exportName(module) + "." + part }

// addSlot emits (y + low·B) ⊙ gain.
func (b *builder) addSlot(s Slot, y, low string) string {
	at := nodeName(s.Module)
	delta := b.emit(node{op: "MatMul", name: at + "/lora_B/MatMul", inputs: []string{low, s.B}}, s.Out)
	y = b.emit(node{op: "Add", name: at + "/lora/Add", inputs: []string{y, delta}}, s.Out)
	if s.Gain != "" {
		y = b.emit(node{op: "Mul", name: at + "/lora_gain/Mul", inputs: []string{y, s.Gain}}, s.Out)
	}
	return y
}

// table is an embedding table (rows, cols), stored as it is.
func (b *builder) table(weight string, rows, cols int) string {
	return b.external([]int{rows, cols}, load{name: weight, weight: weight, rows: rows, cols: cols})
}

// Block names the nodes of a block.
func (b *builder) Block(i int, x string) string {
	b.at, b.sums = fmt.Sprintf("/model/layers.%d", i), 0
	return x
}

// Linear is MatMul with the weight transposed, then the slot, then the bias.
func (b *builder) Linear(p model.Linear, x string) string {
	weight := b.external([]int{p.In, p.Out}, load{name: exportName(p.Module) + ".MatMul.weight", weight: p.Weight(), rows: p.Out, cols: p.In, transpose: true})
	return b.finish(p, x, weight)
}

// Head is Linear, unless it shares the embedding table, which it then reads through a Transpose.
func (b *builder) Head(p model.Head, x string) string {
	b.at = ""
	var y string
	if p.Tied == "" {
		y = b.Linear(p.Linear, x)
	} else {
		table := b.table(p.Weight(), p.Out, p.In)
		weight := b.emit(node{op: "Transpose", name: nodeName(p.Module) + "/Transpose", inputs: []string{table}}, p.Out)
		y = b.finish(p.Linear, x, weight)
	}
	at := nodeName(p.Module)
	if p.Scale != 0 && p.Scale != 1 {
		y = b.emit(node{op: "Mul", name: at + "/scale/Mul", inputs: []string{y, b.number(p.Scale)}}, p.Out)
	}
	if p.Softcap != 0 {
		y = b.emit(node{op: "Div", name: at + "/softcap/Div", inputs: []string{y, b.number(p.Softcap)}}, p.Out)
		y = b.emit(node{op: "Tanh", name: at + "/softcap/Tanh", inputs: []string{y}}, p.Out)
		y = b.emit(node{op: "Mul", name: at + "/softcap/Mul", inputs: []string{y, b.number(p.Softcap)}}, p.Out)
	}
	return y
}

// Split is the operation of that name.
func (b *builder) Split(x string, widths ...int) []string {
	at := strings.TrimSuffix(x, "/output_0") + "/Split"
	n := node{op: "Split", name: at, attributes: []attribute{{"axis", -1}}}
	var sizes []int64
	for i, w := range widths {
		n.outputs = append(n.outputs, at+"/output_"+strconv.Itoa(i))
		b.width[n.outputs[i]] = w
		sizes = append(sizes, int64(w))
	}
	n.inputs = []string{x, b.constant([]int{len(widths)}, sizes...)}
	b.graph.nodes = append(b.graph.nodes, n)
	return n.outputs
}

// Scale is Mul by a constant.
func (b *builder) Scale(by float64, x string) string {
	return b.emit(node{op: "Mul", name: strings.TrimSuffix(x, "/output_0") + "/scale/Mul", inputs: []string{x, b.number(by)}}, b.width[x])
}

// finish emits y = x·weight + (x·A)·B + bias, weight being (in, out).
func (b *builder) finish(p model.Linear, x, weight string) string {
	at := nodeName(p.Module)
	y := b.emit(node{op: "MatMul", name: at + "/MatMul", inputs: []string{x, weight}}, p.Out)
	if b.adapts(p.Module) {
		s := b.slot(p)
		y = b.addSlot(s, y, b.emit(node{op: "MatMul", name: at + "/lora_A/MatMul", inputs: []string{x, s.A}}, 0))
	}
	if p.Bias {
		bias := b.external([]int{p.Out}, load{name: exportName(p.Module) + ".Add.bias", weight: p.Module + ".bias", rows: p.Out, cols: 1})
		y = b.emit(node{op: "Add", name: at + "/Add", inputs: []string{y, bias}}, p.Out)
	}
	return y
}

// RMSNorm is SimplifiedLayerNormalization over the last axis; where each head is a row of its own,
// between two reshapes.
func (b *builder) RMSNorm(p model.Norm, x string) string {
	name := exportName(p.Module)
	if p.Module == "model.norm" {
		name = fmt.Sprintf("model.layers.%d.final_norm_layernorm", b.config.Layers)
	}
	at := "/" + strings.ReplaceAll(strings.ReplaceAll(name, ".", "/"), "layers/", "layers.")
	l := load{name: name + ".weight", weight: p.Weight(), rows: p.Width, cols: 1}
	if p.Offset {
		l.offset = 1
	}
	gain := b.external([]int{p.Width}, l)
	width := b.width[x]
	if width != p.Width {
		x = b.emit(node{op: "Reshape", name: at + "/Reshape_heads", inputs: []string{x, b.constant([]int{4}, 0, 0, -1, int64(p.Width))}}, p.Width)
	}
	y := b.emit(node{op: "SimplifiedLayerNormalization", name: at + "/LayerNorm", inputs: []string{x, gain},
		attributes: []attribute{{"axis", -1}, {"epsilon", float32(p.Eps)}, {"stash_type", 1}}}, p.Width)
	if width != p.Width {
		y = b.emit(node{op: "Reshape", name: at + "/Reshape_flat", inputs: []string{y, b.constant([]int{3}, 0, 0, int64(width))}}, width)
	}
	return y
}

// Rope emits nothing: GroupQueryAttention rotates, by the places it knows from the cache.
func (b *builder) Rope(r model.Rope, x string) string {
	b.rotated[x] = r
	return x
}

// Attention is GroupQueryAttention with its cache. It rotates as many features of each head as the
// tables have columns twice.
func (b *builder) Attention(a model.Attention, q, k, v string) string {
	inputs := []string{q, k, v, pastName(a.Layer, "key"), pastName(a.Layer, "value"), "seqlens_k", "total_sequence_length"}
	rq, okQ := b.rotated[q]
	rk, okK := b.rotated[k]
	rotates := 0
	if okQ {
		rotates = 1
	}
	if okQ != okK || okQ && rq.Table != rk.Table {
		b.fail("layer %d: queries and keys are not rotated alike: %w", a.Layer, ErrUnsupported)
		return q
	}
	if multiple := 8 * (1 + rotates); a.HeadDim%multiple != 0 {
		b.fail("layer %d: heads of %d features, where ONNX Runtime's attention takes multiples of %d: %w", a.Layer, a.HeadDim, multiple, ErrUnsupported)
		return q
	}
	if okQ && len(rq.Table.InvFreq)%8 != 0 {
		b.fail("layer %d: %d features of a head rotate, where ONNX Runtime's attention takes multiples of 16: %w", a.Layer, 2*len(rq.Table.InvFreq), ErrUnsupported)
		return q
	}
	attributes := []attribute{{"num_heads", a.Heads}, {"kv_num_heads", a.KVHeads}, {"scale", float32(a.Scale)}, {"do_rotary", rotates}, {"rotary_interleaved", 0}, {"local_window_size", -1}}
	if a.Window > 0 {
		attributes[5].value = a.Window
	}
	if a.Softcap != 0 {
		attributes = append(attributes, attribute{"softcap", float32(a.Softcap)})
	}
	if okQ {
		cos, sin := b.ropeTables(rq.Table)
		inputs = append(inputs, cos, sin)
	}
	return b.emit(node{op: "GroupQueryAttention", domain: msDomain, name: b.at + "/attn/GroupQueryAttention", inputs: inputs,
		outputs:    []string{b.at + "/attn/GroupQueryAttention/output_0", presentName(a.Layer, "key"), presentName(a.Layer, "value")},
		attributes: attributes}, a.Heads*a.HeadDim)
}

// Gated is act(gate) ⊙ up: SiLU as x·σ(x), GELU with tanh as FastGelu.
func (b *builder) Gated(act model.Activation, gate, up string) string {
	at, w := b.at+"/mlp", b.width[up]
	var y string
	switch act {
	case model.SiLU:
		sigmoid := b.emit(node{op: "Sigmoid", name: at + "/act_fn/Sigmoid", inputs: []string{gate}}, w)
		y = b.emit(node{op: "Mul", name: at + "/act_fn/Mul", inputs: []string{gate, sigmoid}}, w)
	case model.GELUTanh:
		y = b.emit(node{op: "FastGelu", domain: msDomain, name: at + "/act_fn/FastGelu", inputs: []string{gate}}, w)
	default:
		b.fail("activation %q: %w", act, ErrUnsupported)
		return up
	}
	return b.emit(node{op: "Mul", name: at + "/Mul", inputs: []string{y, up}}, w)
}

// Add is the residual sum; a block has several, told apart by a number.
func (b *builder) Add(x, y string) string {
	b.sums++
	return b.emit(node{op: "Add", name: fmt.Sprintf("%s/residual_%d/Add", b.at, b.sums), inputs: []string{x, y}}, b.width[x])
}

// byteSize is the length of an external initializer, or false where a file cannot hold it.
func (t *initializer) byteSize() (int64, bool) {
	n := int64(4)
	for _, d := range t.shape {
		if d < 1 || n > math.MaxInt64/2/int64(d) {
			return 0, false
		}
		n *= int64(d)
	}
	return n, true
}
