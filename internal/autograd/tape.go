package autograd

import (
	"fmt"
	"runtime/debug"
	"unsafe"

	"github.com/graftml/graft/internal/kernel"
)

// This file runs a graph: it binds buffers to the arena and walks the steps of the plan.

// Batch is the tokens of one pass: sequences one after the other, no padding.
type Batch struct {
	Tokens []int32 // (T), ids below the vocabulary's size
	// Seq holds where sequences begin, and T: sequence i is tokens [Seq[i], Seq[i+1]). No token
	// attends to another sequence, and positions count from 0 in each.
	Seq []int32
	// Targets (T) holds the token to predict at each place, or −1 where nothing is. Nil where no
	// loss is wanted.
	Targets []int32
	// Choices, unless nil, are those of the sequences, in place of the tape's adapters and weights.
	Choices []*Choice
}

// Tape runs a graph with memory of its own. The memory is planned when the graph or the adapters
// are known, grows with the largest batch seen, and is used again by every pass: a steady step
// allocates nothing. A Tape is not safe for concurrent use.
type Tape struct {
	graph    *Graph
	adapters [][]*LowRank // by place
	replaced map[*Weight]*Weight
	training bool
	half     bool // values are held in bfloat16 where the graph lets them be
	remat    int  // blocks that are computed again

	keepLogits bool // of the targets, where the head is trained

	plan  *plan
	arena []float32
	at    []int // buffer → first column now
	rows  int   // T of the pass

	batch     Batch
	positions []int32
	places    []int32 // rows of tables of angles that hold two sets, see ropeOp
	cache     *Cache
	runs      []run
	watch     func(place int, x kernel.Vec, rows int)
	off       bool // adapters are left out
	lossOnly  bool
	dropKey   uint64 // 0: no dropout
	ran       bool   // a forward pass that backward may follow

	nll, lse []float32 // (M) losses of the targets, and logarithms of their softmax sums
	targets  []int32   // (M) the targets themselves
	targetAt []int32   // (M) the token that each stands at
	coef     []float32 // (M) weights of the losses in what is differentiated

	kept kernel.Kept // what the products of one input, or of one gradient, read

	rowTargets []int32     // (M) the targets among rows that are trained by themselves
	hidden     [][]float32 // of adapters, where no plan has room for it
}

// Use is what a tape is for.
type Use int

// The uses of a tape.
const (
	Generating Use = iota // forward passes, with a cache or without; the only one that has logits
	Scoring               // forward passes for losses
	Training              // forward passes that backward may follow
)

// NewTape returns a tape for a finished graph.
func NewTape(g *Graph, use Use) *Tape {
	return &Tape{graph: g, adapters: make([][]*LowRank, g.HeadPlace()+1), training: use == Training, half: g.half && use != Generating}
}

// SetAdapters makes adapters the ones of a place. The tape keeps them and calls nothing of theirs
// but reads, and adds to their gradients. One of them may have a Gain, and then must be alone if its
// input is dropped, which the head's with a Gain never is.
func (t *Tape) SetAdapters(place int, adapters []*LowRank) {
	for _, l := range adapters {
		if l.Gain != nil && l.Dropout > 0 && t.training && (len(adapters) > 1 || place == t.graph.HeadPlace()) {
			panic("autograd: a gain and dropout on several adapters, or on the head")
		}
	}
	t.adapters[place] = adapters
	t.plan = nil
}

// Replace makes the tape use a weight in place of one of the graph's, but for passes without adapters.
func (t *Tape) Replace(old, by *Weight) {
	if t.replaced == nil {
		t.replaced = map[*Weight]*Weight{}
	}
	t.replaced[old] = by
	t.plan = nil
}

// Restore makes the tape use the graph's own weights again.
func (t *Tape) Restore() {
	t.replaced = nil
	t.plan = nil
}

// param is the weight that stands for one of the graph's.
func (t *Tape) param(w *Weight) *Weight {
	if by := t.replaced[w]; by != nil {
		return by
	}
	return w
}

// weight is that of the present pass.
func (c *call) weight(w *Weight) *Weight {
	if c.tape.off {
		return w
	}
	return c.tape.param(w)
}

// pairs are the adapters of a place in the present pass.
func (c *call) pairs(place int) []*LowRank {
	if c.tape.off {
		return nil
	}
	return c.tape.adapters[place]
}

// Watch has f called before every product inside blocks with its place and its input x (rows, in), which is
// valid during the call only. Nil ends that.
func (t *Tape) Watch(f func(place int, x kernel.Vec, rows int)) { t.watch = f }

// KeepLogits makes the tape keep the logits of all targets for the gradient of the head, where that or an
// adapter on it is trained, rather than make them twice: a product less, for as many values as there are
// targets times words. The bits are the same. With a gain on the head they are made twice all the same.
func (t *Tape) KeepLogits(keep bool) {
	t.keepLogits = keep
	t.plan = nil
}

// Mode says how a pass runs. The zero Mode is plain evaluation.
type Mode struct {
	NoAdapters bool // leave the adapters out: the reference model, which nothing is differentiated in
	LossOnly   bool // no backward pass follows, so that the head need not prepare one
	// DropKey chooses the dropout masks, which depend on it, the place and the element alone; 0
	// drops nothing.
	DropKey uint64
	// Cache holds the keys and values of what came before; the batch is then one sequence that
	// continues it. Only on tapes for generating.
	Cache *Cache
}

// largeArena is the number of values from which memory is worth collecting garbage for: 64 MB.
const largeArena = 1 << 24

// ensure plans where that is due and makes the arena large enough for rows tokens.
func (t *Tape) ensure(rows int) {
	if t.plan == nil {
		t.plan = newPlan(t, t.training)
		t.at = make([]int, t.plan.buffers)
	}
	if need := t.plan.columns * rows; need > len(t.arena) {
		t.arena = nil
		if need >= largeArena {
			debug.FreeOSMemory() // the old one goes back first, and what loading the model left behind
		}
		t.arena = aligned(need)
	}
	t.rows = rows
}

// aligned returns n zeros from a 64-byte boundary on.
func aligned(n int) []float32 {
	s := make([]float32, n+15)
	off := 0
	if r := uintptr(unsafe.Pointer(unsafe.SliceData(s))) % 64; r != 0 {
		off = int(64-r) / 4
	}
	return s[off : off+n : off+n]
}

// ActivationBytes returns the size of the arena for passes of rows tokens.
func (t *Tape) ActivationBytes(rows int) int64 {
	if t.plan == nil {
		t.ensure(0)
	}
	return 4 * int64(t.plan.columns) * int64(rows)
}

// Forward runs the graph on a batch. The slices of b must not change before Backward.
func (t *Tape) Forward(b Batch, m Mode) {
	n := len(b.Tokens)
	if len(b.Seq) < 2 || b.Seq[0] != 0 || int(b.Seq[len(b.Seq)-1]) != n || b.Targets != nil && len(b.Targets) != n || n == 0 {
		panic(fmt.Sprintf("autograd: batch of %d tokens, sequences %v, %d targets", n, b.Seq, len(b.Targets)))
	}
	if m.Cache != nil && (t.training || t.half || len(b.Seq) != 2) {
		panic(fmt.Sprintf("autograd: cached pass over %d sequences on a tape that trains (%v) or scores", len(b.Seq)-1, t.training))
	}
	t.ensure(n)
	t.batch, t.cache, t.off, t.dropKey = b, m.Cache, m.NoAdapters, m.DropKey
	t.lossOnly = m.LossOnly || m.NoAdapters || !t.training
	t.divide(b)
	if cap(t.positions) < n {
		t.positions = make([]int32, n)
	}
	t.positions = t.positions[:n]
	base := int32(0)
	if t.cache != nil {
		base = int32(t.cache.grow(n))
	}
	for s, start := range b.Seq[:len(b.Seq)-1] {
		for i := start; i < b.Seq[s+1]; i++ {
			t.positions[i] = base + i - start
		}
	}
	if !t.off {
		t.normalize()
	}
	t.run(t.plan.steps[:t.plan.split])
	if t.cache != nil {
		t.cache.length += n
	}
	t.ran = b.Targets != nil && !t.lossOnly
}

func (t *Tape) run(steps []step) {
	before := none // what the products before read, one after the other
	for i := range steps {
		s := &steps[i]
		for _, b := range s.binds {
			t.at[b.buffer] = b.column
		}
		c := &t.plan.calls[s.op]
		reads := none
		if o, ok := c.op.(*linearOp); ok && s.phase != backward {
			reads = o.ins[0]
		}
		if reads != before || reads == none {
			t.kept.Drop()
		}
		before = reads
		switch s.phase {
		case backward:
			c.op.backward(c)
		case resave:
			c.op.(resaver).resave(c)
		default:
			c.op.forward(c)
		}
	}
}

// data returns a buffer of the pass, (T, width).
func (t *Tape) data(buffer, width int) kernel.Vec {
	lo, n := t.at[buffer]*t.rows, t.rows*width
	if t.plan.half[buffer] {
		return kernel.HalfVec(t.arena[lo:lo+(n+1)/2], n)
	}
	return kernel.F32Vec(t.arena[lo : lo+n])
}

// call is one operation on one tape: where its operands lie.
type call struct {
	tape    *Tape
	op      op
	ins     []operand
	outs    []operand
	private []slot
	terms   []kernel.Term   // of a product, reused
	parts   []kernel.Matrix // of its matrices, reused

	bias, sums []float32          // rows of as many values as the operation makes, reused
	head       kernel.HeadAdapter // of the head, reused
	headRows   *rowsAdapter       // of rows of it
}

type operand struct {
	value, grad int // buffers
	width       int
	wants       bool // its gradient is to be computed
	add         bool // … and added to what is there
	shared      bool // … and is that of the output, already there
}

type slot struct {
	buffer
	id int
}

func (c *call) rows() int { return c.tape.rows }

func (c *call) in(k int) kernel.Vec { return c.tape.data(c.ins[k].value, c.ins[k].width) }

func (c *call) output(k int) kernel.Vec { return c.tape.data(c.outs[k].value, c.outs[k].width) }

// outGrad is the gradient of output k, complete.
func (c *call) outGrad(k int) kernel.Vec { return c.tape.data(c.outs[k].grad, c.outs[k].width) }

// inGrad is the gradient of input k, which the operation sets, or adds to where ins[k].add.
func (c *call) inGrad(k int) kernel.Vec { return c.tape.data(c.ins[k].grad, c.ins[k].width) }

func (c *call) own(k int) kernel.Vec { return c.tape.data(c.private[k].id, c.private[k].width) }
