package autograd

import (
	"fmt"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds what is recorded: values, weights and operations. It computes nothing.

// Var is a value of a graph: activations (T, width) for any number of tokens T.
type Var int32

// Weight is a parameter of an operation: the matrix of a product, a table, a bias or the gain of a
// norm. Vectors are (1, n). A weight with a Grad is trained: every backward pass adds to it.
type Weight struct {
	Name   string
	Matrix kernel.Matrix
	Grad   []float32 // as many values as the weight; nil where it is frozen
	Rows   *Rows     // of a table or a head of which these rows alone are trained; nil otherwise
}

func (w *Weight) trained() bool { return w.Grad != nil || w.Rows != nil }

// Rows is rows of a matrix that are trained by themselves. The matrix they are in has their values, too.
// A table and a head that share them add to the same gradient.
type Rows struct {
	Matrix kernel.Matrix   // (n, K), dense
	Index  map[int32]int32 // row of the matrix they are in → row of these
	Grad   []float32       // (n, K)
}

// LowRank is an adapter of one product (Hu et al. 2021): y += Scale·((drop(x)·Aᵀ)·Bᵀ + Bias), and what
// is there is multiplied by Gain where that is not nil. On a table, x is the one-hot row of a token, so
// that A has a column for every word.
type LowRank struct {
	A, B    kernel.Matrix // (R, in) and (out, R), dense
	Bias    []float32     // (out), or nil
	Gain    *Gain         // of DoRA; one of those at a place may have it
	Scale   float32
	Dropout float32 // probability that a value of x is dropped while training, which a table's never are

	GradA, GradB, GradBias []float32 // as A, B and Bias; nil where the adapter is frozen
}

// Graph is a recorded computation, the same for every number of tokens. It is made once by calling
// its methods in the order of the computation, and must not change once a Tape stands on it; any
// number of tapes may then run it at the same time, each with memory of its own.
type Graph struct {
	values   []value
	ops      []op
	products []*Weight // of Linear operations so far
	table    *Weight   // of the embedding
	layers   int       // Attention operations so far
	blocks   []block
	head     *headOp
	half     bool
}

// TablePlace is the place of adapters on the embedding table. The products recorded by Linear are places
// from 0 on.
func (g *Graph) TablePlace() int { return len(g.products) }

// HeadPlace is the place of adapters on the head.
func (g *Graph) HeadPlace() int { return len(g.products) + 1 }

// at is the weight that adapters at a place change.
func (g *Graph) at(place int) *Weight {
	switch place {
	case g.TablePlace():
		return g.table
	case g.HeadPlace():
		return g.head.weight
	}
	return g.products[place]
}

// Half makes tapes that score and train hold values between operations in bfloat16, but for the residual stream
// and what the head makes: half the memory, and what products in bfloat16 read without rounding it
// first. Operations compute in float32 all the same.
func (g *Graph) Half() { g.half = true }

type value struct {
	width int
	store int // the buffer that holds it, shared by values that are computed in place
	from  int // the operation that makes it
	uses  []int
}

// node is what the plan asks of an operation.
type node struct {
	ins   []Var
	outs  []Var // one; none for the head, several for a product that Split cuts
	cheap bool  // computed again for the backward pass rather than kept
	joint bool  // backward computes the gradients of all inputs or none, and sets them
}

const none Var = -1

func (n *node) base() *node { return n }

// out is the value of an operation that makes one.
func (n *node) out() Var {
	if len(n.outs) == 0 {
		return none
	}
	return n.outs[0]
}

// op is an operation. Its forward and backward computation stand side by side in the file of its
// name; they find their operands through the call.
type op interface {
	base() *node
	// trained reports whether the operation has parameters that want a gradient.
	trained(t *Tape) bool
	// reads lists the values that backward reads, besides the gradient of its output.
	reads(t *Tape) []Var
	// private lists the buffers that the operation has for itself.
	private(t *Tape) []buffer
	forward(c *call)
	backward(c *call)
}

// buffer is memory of one operation, (T, width).
type buffer struct {
	width int
	life  life
	like  Var // the value whose type it has; none for float32
}

type life int

const (
	saved           life = iota // from forward to backward
	forwardScratch              // while forward runs
	backwardScratch             // while backward runs
)

func (g *Graph) value(width int) Var {
	g.values = append(g.values, value{width: width, store: len(g.values), from: len(g.ops)})
	return Var(len(g.values) - 1)
}

func (g *Graph) add(o op) Var {
	n := o.base()
	for _, v := range n.ins {
		g.values[v].uses = append(g.values[v].uses, len(g.ops))
	}
	g.ops = append(g.ops, o)
	return n.out()
}

// makes records the one value that an operation makes, (T, width).
func (g *Graph) makes(n *node, width int) { n.outs = []Var{g.value(width)} }

// inPlace records that an operation makes its value of its one operand where that lies. It is
// computed again where the operand is, which is then not kept either.
func (g *Graph) inPlace(n *node) {
	x := n.ins[0]
	g.makes(n, g.Width(x))
	g.values[n.out()].store = g.values[x].store
	n.cheap = g.ops[g.values[x].from].base().cheap
}

// wantAlone panics where a value has a user already.
func (g *Graph) wantAlone(op string, x Var) {
	if len(g.values[x].uses) > 0 {
		panic("autograd: " + op + " of a value that has another user")
	}
}

// Width returns the number of features of a value.
func (g *Graph) Width(v Var) int { return g.values[v].width }

func (g *Graph) want(op string, v Var, width int) {
	if w := g.values[v].width; w != width {
		panic(fmt.Sprintf("autograd: %s of %d features, but its operand has %d", op, width, w))
	}
}
