package autograd

import (
	"math"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// angles turns by a few distinct frequencies.
func angles(half int) *Angles {
	return NewAngles(half, 0, func(cos, sin []float32) {
		for i := range cos {
			a := float64(i/half) / float64(1+i%half)
			cos[i], sin[i] = float32(math.Cos(a)), float32(math.Sin(a))
		}
	})
}

func TestRope(t *testing.T) {
	b := newBench()
	x := b.g.Linear(b.weight("W", 8, 6, 0.6, 0), nil, b.embed(6))
	b.head(b.g.Rope(2, 4, angles(2), x))
	b.check(t, nil, Mode{})
}

// TestRopePart rotates a part of each head, of longer sequences by angles of their own, cosines and
// sines lengthened.
func TestRopePart(t *testing.T) {
	b := newBench()
	x := b.g.Linear(b.weight("W", 16, 6, 0.6, 0), nil, b.embed(6))
	b.head(b.g.Rope(2, 8, stretched(2, 3), x))
	b.check(t, nil, Mode{})
}

// stretched are angles with rows of their own for sequences of more than original tokens.
func stretched(half, original int) *Angles {
	return NewAngles(half, original, func(cos, sin []float32) {
		for i := range cos {
			a := float64(i/half) / float64(1+i%half)
			if row := i / half; row >= original {
				a = float64(row-original) / float64(3+i%half)
			}
			cos[i], sin[i] = 1.2*float32(math.Cos(a)), 1.2*float32(math.Sin(a))
		}
	})
}

// TestRopeChoice: a sequence of a packed batch is rotated as if it were alone, and a cached one as if
// it ran at once, by the angles that its own length calls for.
func TestRopeChoice(t *testing.T) {
	b := newBench()
	table := b.weight("embed", vocab, 8, 1, 0)
	g := &Graph{}
	x := g.Rope(1, 8, stretched(3, 3), g.Embed(table))
	g.Head(b.weight("head", vocab, 8, 0.5, 0), kernel.LogitSpec{}, x)
	logits := func(tape *Tape, batch Batch, mode Mode) []float32 {
		tape.Forward(batch, mode)
		out := make([]float32, len(batch.Tokens)*vocab)
		tape.Logits(out, 0, len(batch.Tokens))
		return out
	}
	same := func(x, y []float32) bool { // products of few rows are summed in another order
		return slices.EqualFunc(x, y, func(u, v float32) bool { return math.Abs(float64(u-v)) < 1e-5 })
	}
	tape := NewTape(g, Generating)
	packed := logits(tape, b.batch, Mode{})
	for s := range 3 {
		lo, hi := b.batch.Seq[s], b.batch.Seq[s+1]
		alone := logits(NewTape(g, Generating), Batch{Tokens: b.batch.Tokens[lo:hi], Seq: []int32{0, hi - lo}}, Mode{})
		if !same(alone, packed[int(lo)*vocab:int(hi)*vocab]) {
			t.Errorf("sequence %d is rotated otherwise in a batch", s)
		}
	}
	short := logits(tape, Batch{Tokens: []int32{3, 1, 4}, Seq: []int32{0, 3}}, Mode{})
	if same(short[2*vocab:], packed[2*vocab:3*vocab]) {
		t.Error("a short and a long sequence are rotated alike")
	}
	// The whole is longer than 3 tokens, of which the cache must know before the third.
	cache := g.NewCache()
	if !cache.Reach(4) {
		t.Error("an empty cache does not take a long sequence")
	}
	cached := logits(tape, Batch{Tokens: []int32{3, 1}, Seq: []int32{0, 2}}, Mode{Cache: cache})
	cached = append(cached, logits(tape, Batch{Tokens: []int32{4, 1}, Seq: []int32{0, 2}}, Mode{Cache: cache})...)
	if !same(cached, packed[:4*vocab]) {
		t.Error("a cached sequence is rotated otherwise")
	}
}

// TestReach: a cache forgets what was rotated for another length.
func TestReach(t *testing.T) {
	g := &Graph{}
	g.Rope(1, 8, stretched(3, 3), g.Embed(newBench().weight("embed", vocab, 8, 1, 0)))
	c := g.NewCache()
	for _, step := range []struct {
		length, reach int
		fits          bool
	}{{0, 2, true}, {2, 3, true}, {3, 4, false}, {0, 4, true}, {4, 5, true}, {2, 3, false}, {0, 9, true}} {
		c.length = step.length
		if got := c.Reach(step.reach); got != step.fits || !got && c.length != 0 {
			t.Errorf("%d tokens, of %d to be: fits %v, %d left", step.length, step.reach, got, c.length)
		}
	}
}
