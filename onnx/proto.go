package onnx

// The part of ONNX's protocol buffers that an exported graph needs, and its encoding. Field numbers
// are those of onnx.proto; the same graph makes the same bytes.

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Versions that onnxruntime-genai's exporter writes and that every runtime since 2024 loads.
const (
	irVersion    = 10
	opsetVersion = 21
	msDomain     = "com.microsoft" // of ONNX Runtime's own operators
)

// elemType is the number format of a tensor, in ONNX's numbering.
type elemType int

const (
	float32Type elemType = 1
	int32Type   elemType = 6
	int64Type   elemType = 7
)

// dim is one dimension of an input or output: a size, or a name for one that varies.
type dim struct {
	size int
	name string
}

func fixed(n int) dim        { return dim{size: n} }
func symbol(name string) dim { return dim{name: name} }

// valueInfo describes an input or output of the graph.
type valueInfo struct {
	name  string
	elem  elemType
	shape []dim
}

// attribute is a node's attribute; value is an int, a float32 or a string.
type attribute struct {
	name  string
	value any
}

type node struct {
	op, domain, name string
	inputs, outputs  []string
	attributes       []attribute
}

// initializer is a constant of the graph: bytes in the model file, or a stretch of the data file.
type initializer struct {
	name           string
	elem           elemType
	shape          []int
	raw            []byte // little-endian, where external is false
	external       bool
	offset, length int64 // in the data file
}

type graph struct {
	name            string
	nodes           []node
	initializers    []initializer
	inputs, outputs []valueInfo
}

// message is a protocol buffer being written.
type message []byte

func (m *message) int(field protowire.Number, v int64) {
	*m = protowire.AppendTag(*m, field, protowire.VarintType)
	*m = protowire.AppendVarint(*m, uint64(v))
}

func (m *message) float(field protowire.Number, v float32) {
	*m = protowire.AppendTag(*m, field, protowire.Fixed32Type)
	*m = protowire.AppendFixed32(*m, math.Float32bits(v))
}

func (m *message) string(field protowire.Number, v string) {
	*m = protowire.AppendTag(*m, field, protowire.BytesType)
	*m = protowire.AppendString(*m, v)
}

func (m *message) bytes(field protowire.Number, v []byte) {
	*m = protowire.AppendTag(*m, field, protowire.BytesType)
	*m = protowire.AppendBytes(*m, v)
}

// encodeModel returns a ModelProto. dataFile is where external initializers lie.
func encodeModel(g *graph, dataFile string) []byte {
	var m message
	m.int(1, irVersion)
	m.string(2, "graft")
	m.bytes(7, encodeGraph(g, dataFile))
	for _, set := range []struct {
		domain  string
		version int64
	}{{"", opsetVersion}, {msDomain, 1}} {
		var o message
		o.string(1, set.domain)
		o.int(2, set.version)
		m.bytes(8, o)
	}
	return m
}

func encodeGraph(g *graph, dataFile string) message {
	var m message
	for i := range g.nodes {
		m.bytes(1, encodeNode(&g.nodes[i]))
	}
	m.string(2, g.name)
	for i := range g.initializers {
		m.bytes(5, encodeInitializer(&g.initializers[i], dataFile))
	}
	for i := range g.inputs {
		m.bytes(11, encodeValueInfo(&g.inputs[i]))
	}
	for i := range g.outputs {
		m.bytes(12, encodeValueInfo(&g.outputs[i]))
	}
	return m
}

func encodeNode(n *node) message {
	var m message
	for _, name := range n.inputs {
		m.string(1, name)
	}
	for _, name := range n.outputs {
		m.string(2, name)
	}
	m.string(3, n.name)
	m.string(4, n.op)
	for _, a := range n.attributes {
		var am message
		am.string(1, a.name)
		switch v := a.value.(type) {
		case float32:
			am.float(2, v)
			am.int(20, 1)
		case int:
			am.int(3, int64(v))
			am.int(20, 2)
		case string:
			am.string(4, v)
			am.int(20, 3)
		}
		m.bytes(5, am)
	}
	if n.domain != "" {
		m.string(7, n.domain)
	}
	return m
}

func encodeInitializer(t *initializer, dataFile string) message {
	var m message
	for _, d := range t.shape {
		m.int(1, int64(d))
	}
	m.int(2, int64(t.elem))
	m.string(8, t.name)
	if !t.external {
		m.bytes(9, t.raw)
		return m
	}
	for _, entry := range [][2]string{{"location", dataFile}, {"offset", decimal(t.offset)}, {"length", decimal(t.length)}} {
		var e message
		e.string(1, entry[0])
		e.string(2, entry[1])
		m.bytes(13, e)
	}
	m.int(14, 1) // data_location: external
	return m
}

func encodeValueInfo(v *valueInfo) message {
	var shape message
	for _, d := range v.shape {
		var dm message
		if d.name != "" {
			dm.string(2, d.name)
		} else {
			dm.int(1, int64(d.size))
		}
		shape.bytes(1, dm)
	}
	var tensor message
	tensor.int(1, int64(v.elem))
	tensor.bytes(2, shape)
	var typ message
	typ.bytes(1, tensor)
	var m message
	m.string(1, v.name)
	m.bytes(2, typ)
	return m
}
