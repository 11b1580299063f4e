package autograd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// These tests compare every gradient with finite differences of the loss. Each builds the smallest
// graph around one operation, trains everything below it, and looks along the gradient of each
// parameter: the slope there must be the gradient's squared length. (One direction checks all
// entries, and keeps float32's noise far below the slope.) Then a second, random direction.

type bench struct {
	g       Graph
	weights []*Weight
	rng     *rand.Rand
	batch   Batch
	remat   int
	rows    map[*Weight]*Rows
}

const vocab = 11

func newBench() *bench {
	b := &bench{rng: rand.New(rand.NewPCG(1, 2))}
	// Three sequences, one of a single token; two places without a target.
	b.batch = Batch{
		Tokens:  []int32{3, 1, 4, 1, 5, 9, 2, 6, 5},
		Seq:     []int32{0, 4, 5, 9},
		Targets: []int32{1, 4, -1, 7, 0, 2, 6, 5, -1},
	}
	return b
}

// weight makes a trained parameter.
func (b *bench) weight(name string, n, k int, scale, offset float32) *Weight {
	w := &Weight{Name: name, Matrix: kernel.Matrix{N: n, K: k, F32: b.random(n*k, scale, offset)}, Grad: make([]float32, n*k)}
	b.weights = append(b.weights, w)
	return w
}

func (b *bench) random(n int, scale, offset float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = offset + scale*float32(b.rng.NormFloat64())
	}
	return x
}

func (b *bench) embed(width int) Var { return b.g.Embed(b.weight("embed", vocab, width, 1, 0)) }

func (b *bench) head(x Var) {
	b.g.Head(b.weight("head", vocab, b.g.Width(x), 0.5, 0), kernel.LogitSpec{}, x)
}

// check compares gradients with finite differences, on every implementation of the kernels.
func (b *bench) check(t *testing.T, adapters map[int][]*LowRank, mode Mode) {
	t.Helper()
	for _, impl := range kernel.Impls() {
		restore, err := kernel.SetImpl(impl)
		if err != nil {
			t.Fatal(err)
		}
		b.checkOnce(t, impl, adapters, mode)
		restore()
	}
}

func (b *bench) checkOnce(t *testing.T, impl string, adapters map[int][]*LowRank, mode Mode) {
	t.Helper()
	tape := NewTape(&b.g, Training)
	tape.SetRemat(b.remat)
	for _, w := range b.weights { // weights of which rows are trained, in place of what they are copies of
		if r := b.rows[w]; r != nil {
			by := &Weight{Name: w.Name, Matrix: kernel.Matrix{N: w.Matrix.N, K: w.Matrix.K, Decode: r.over(w)}, Rows: r}
			tape.Replace(w, by)
		}
	}
	type param struct {
		name        string
		value, grad []float32
	}
	var params []param
	for _, w := range b.weights {
		if w.Grad != nil {
			params = append(params, param{w.Name, w.Matrix.F32, w.Grad})
		}
	}
	for _, r := range b.rows {
		params = append(params, param{"rows", r.Matrix.F32, r.Grad})
	}
	for place, list := range adapters {
		tape.SetAdapters(place, list)
		for i, l := range list {
			if l.GradA != nil {
				params = append(params, param{fmt.Sprintf("A%d.%d", place, i), l.A.F32, l.GradA}, param{fmt.Sprintf("B%d.%d", place, i), l.B.F32, l.GradB})
			}
			if l.GradBias != nil {
				params = append(params, param{fmt.Sprintf("bias%d.%d", place, i), l.Bias, l.GradBias})
			}
			if l.Gain != nil && l.Gain.Grad != nil {
				params = append(params, param{fmt.Sprintf("magnitude%d.%d", place, i), l.Gain.Magnitude, l.Gain.Grad})
			}
		}
	}
	var coef []float32
	loss := func() float64 {
		tape.Forward(b.batch, mode)
		nll, _ := tape.NLL()
		if coef == nil {
			for range nll {
				coef = append(coef, float32(b.rng.NormFloat64()))
			}
		}
		sum := 0.0
		for i, v := range nll {
			sum += float64(coef[i]) * float64(v)
		}
		return sum
	}
	for _, p := range params {
		clear(p.grad)
	}
	loss()
	tape.Backward(coef)
	for _, p := range params {
		grad := slices.Clone(p.grad)
		norm := math.Sqrt(kernel.SumSquares(grad))
		if norm < 1e-4 {
			t.Errorf("%s: gradient of %s is nearly zero, which proves nothing", impl, p.name)
			continue
		}
		for _, random := range []bool{false, true} {
			direction := slices.Clone(grad)
			if random {
				for i := range direction {
					direction[i] = float32(b.rng.NormFloat64())
				}
			}
			length, want := math.Sqrt(kernel.SumSquares(direction)), 0.0
			for i, d := range direction {
				want += float64(d) / length * float64(grad[i])
			}
			h := 4e-3
			value := slices.Clone(p.value)
			at := func(h float64) float64 {
				kernel.AddScaled(p.value, direction, float32(h/length))
				v := loss()
				copy(p.value, value)
				return v
			}
			slope := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
			if math.Abs(slope-want) > 3e-3*norm+2e-4 {
				t.Errorf("%s: %s: slope %.6g, gradient says %.6g (its length is %.4g)", impl, p.name, slope, want, norm)
			}
		}
	}
}

func TestEmbedAndHead(t *testing.T) {
	b := newBench()
	b.head(b.embed(6))
	b.check(t, nil, Mode{})
}

// TestTied trains one matrix that is both the table and the head.
func TestTied(t *testing.T) {
	b := newBench()
	w := b.weight("tied", vocab, 6, 0.7, 0)
	b.g.Head(w, kernel.LogitSpec{}, b.g.Embed(w))
	b.check(t, nil, Mode{})
}

func TestRMSNorm(t *testing.T) {
	for _, width := range []int{12, 4} { // the whole row, and groups of it
		for _, offset := range []float32{0, 1} {
			b := newBench()
			b.head(b.g.RMSNorm(b.weight("gain", 1, width, 0.3, 1-offset), 1e-3, offset, b.embed(12)))
			b.check(t, nil, Mode{})
		}
	}
}

// TestHead: logits with a factor, a cap, and both.
func TestHead(t *testing.T) {
	for _, spec := range []kernel.LogitSpec{{Scale: 0.6}, {Softcap: 2}, {Scale: 1.7, Softcap: 3}} {
		b := newBench()
		b.g.Head(b.weight("head", vocab, 6, 0.5, 0), spec, b.embed(6))
		b.check(t, nil, Mode{})
	}
}

// TestScale: factors on a table's rows, on a product that goes into a sum, on what attention makes, on
// a norm, and one on another.
func TestScale(t *testing.T) {
	b := newBench()
	x := b.g.Scale(1.5, b.embed(6))
	x = b.g.Add(x, b.g.Scale(0.4, b.g.Scale(0.7, b.g.Linear(b.weight("W", 6, 6, 0.5, 0), nil, x))))
	q, k, v := b.g.Linear(b.weight("q", 4, 6, 0.6, 0), nil, x), b.g.Linear(b.weight("k", 4, 6, 0.6, 0), nil, x), b.g.Linear(b.weight("v", 4, 6, 0.6, 0), nil, x)
	y := b.g.Scale(0.8, b.g.Attention(kernel.AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: 4, Scale: 0.5}, q, k, v))
	x = b.g.Add(x, b.g.Linear(b.weight("o", 6, 4, 0.6, 0), nil, y))
	x = b.g.Add(b.g.Scale(2, b.g.RMSNorm(b.weight("gain", 1, 6, 0.3, 1), 1e-3, 0, x)), x)
	b.head(b.g.Linear(b.weight("V", 7, 6, 0.4, 0), nil, b.g.Scale(0.9, b.g.RMSNorm(b.weight("gain2", 1, 6, 0.3, 1), 1e-3, 0, x))))
	b.check(t, nil, Mode{})
}

func TestLinear(t *testing.T) {
	b := newBench()
	x := b.embed(6)
	y := b.g.Linear(b.weight("W", 9, 6, 0.4, 0), b.weight("bias", 1, 9, 0.5, 0), x)
	b.head(b.g.Linear(b.weight("V", 7, 9, 0.4, 0), nil, y))
	b.check(t, nil, Mode{})
}

// lowRank makes an adapter.
func (b *bench) lowRank(in, out, r int, trained bool) *LowRank {
	l := &LowRank{
		A:     kernel.Matrix{N: r, K: in, F32: b.random(r*in, 0.5, 0)},
		B:     kernel.Matrix{N: out, K: r, F32: b.random(out*r, 0.5, 0)},
		Scale: 1.5,
	}
	if trained {
		l.GradA, l.GradB = make([]float32, r*in), make([]float32, out*r)
	}
	return l
}

func TestLowRank(t *testing.T) {
	for _, dropout := range []float32{0, 0.3} {
		b := newBench()
		x := b.embed(6)
		y := b.g.Linear(b.weight("W", 9, 6, 0.4, 0), nil, x)
		y = b.g.Linear(b.weight("V", 7, 9, 0.4, 0), nil, y)
		b.head(y)
		// Two at one place, of which one is frozen, and one above.
		first, frozen, second := b.lowRank(6, 9, 3, true), b.lowRank(6, 9, 2, false), b.lowRank(9, 7, 2, true)
		first.Dropout, second.Dropout = dropout, dropout
		b.check(t, map[int][]*LowRank{0: {first, frozen}, 1: {second}}, Mode{DropKey: 77})
	}
}

// TestOnlyAdapters freezes everything else, so that the gradient passes through frozen weights.
func TestOnlyAdapters(t *testing.T) {
	b := newBench()
	x := b.embed(6)
	y := b.g.Linear(b.weight("W", 9, 6, 0.4, 0), nil, x)
	y = b.g.Linear(b.weight("V", 7, 9, 0.4, 0), nil, y)
	b.head(y)
	for _, w := range b.weights {
		w.Grad = nil
	}
	b.check(t, map[int][]*LowRank{0: {b.lowRank(6, 9, 3, true)}}, Mode{})
}

// TestAdd checks sums whose operands have other users before and after, among them sums of sums,
// where gradients share buffers or must not.
func TestAdd(t *testing.T) {
	linear := func(b *bench, name string, x Var) Var {
		return b.g.Linear(b.weight(name, 6, 6, 0.5, 0), nil, x)
	}
	for name, build := range map[string]func(b *bench, x Var) Var{
		"residual": func(b *bench, x Var) Var { return b.g.Add(x, linear(b, "W", x)) },
		"residuals": func(b *bench, x Var) Var {
			x = b.g.Add(x, linear(b, "W", x))
			return b.g.Add(x, linear(b, "V", linear(b, "U", x)))
		},
		"swapped": func(b *bench, x Var) Var { return b.g.Add(linear(b, "W", x), x) },
		"sum of sums": func(b *bench, x Var) Var {
			u, v := linear(b, "U", x), linear(b, "V", x)
			return b.g.Add(b.g.Add(x, u), b.g.Add(u, v))
		},
		"second made first": func(b *bench, x Var) Var {
			v := linear(b, "V", x)
			return b.g.Add(linear(b, "W", x), v)
		},
		"first used after the second is made": func(b *bench, x Var) Var {
			v := linear(b, "V", x)
			y := b.g.Add(x, v)
			return b.g.Add(y, linear(b, "W", x))
		},
		"second is a residual": func(b *bench, x Var) Var {
			a, c := linear(b, "W", x), linear(b, "U", x)
			return b.g.Add(a, b.g.Add(c, linear(b, "V", c)))
		},
		"first is a residual made later": func(b *bench, x Var) Var {
			second, c := linear(b, "W", x), linear(b, "U", x)
			return b.g.Add(b.g.Add(c, linear(b, "V", c)), second)
		},
		"first used between": func(b *bench, x Var) Var {
			v := linear(b, "V", x)
			w := linear(b, "W", x)
			return b.g.Add(b.g.Add(x, v), linear(b, "T", w))
		},
		"itself": func(b *bench, x Var) Var { x = linear(b, "W", x); return b.g.Add(x, x) },
		"chain on the right": func(b *bench, x Var) Var {
			v := b.g.Add(linear(b, "V", x), linear(b, "U", x))
			w := linear(b, "W", v)
			return b.g.Add(b.g.Add(x, w), linear(b, "T", x))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench()
			b.head(build(b, b.embed(6)))
			b.check(t, nil, Mode{})
		})
	}
}

func TestGated(t *testing.T) {
	for _, act := range []kernel.Act{kernel.SiLU, kernel.GELUTanh} {
		b := newBench()
		x := b.embed(6)
		b.head(b.g.Gated(act, b.g.Linear(b.weight("gate", 9, 6, 0.6, 0), nil, x), b.g.Linear(b.weight("up", 9, 6, 0.6, 0), nil, x)))
		b.check(t, nil, Mode{})
	}
}

func TestAttention(t *testing.T) {
	for _, window := range []int{0, 2} {
		for _, softcap := range []float32{0, 0.8} {
			b := newBench()
			x := b.embed(6)
			a := angles(2)
			q := b.g.Rope(4, 4, a, b.g.Linear(b.weight("q", 16, 6, 0.6, 0), nil, x))
			k := b.g.Rope(2, 4, a, b.g.Linear(b.weight("k", 8, 6, 0.6, 0), nil, x))
			v := b.g.Linear(b.weight("v", 8, 6, 0.6, 0), nil, x)
			b.head(b.g.Attention(kernel.AttentionSpec{Heads: 4, KVHeads: 2, HeadDim: 4, Scale: 0.5, Window: window, Softcap: softcap}, q, k, v))
			b.check(t, nil, Mode{})
		}
	}
}

// TestFrozenOperand trains one operand of joint operations only.
func TestFrozenOperand(t *testing.T) {
	b := newBench()
	x := b.embed(6)
	g := b.g.RMSNorm(b.weight("gain", 1, 6, 0.3, 1), 1e-3, 0, x)
	q := b.g.Linear(b.weight("q", 4, 6, 0.6, 0), nil, g)
	k := b.g.Linear(b.weight("k", 4, 6, 0.6, 0), nil, x)
	v := b.g.Linear(b.weight("v", 4, 6, 0.6, 0), nil, x)
	y := b.g.Attention(kernel.AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: 4, Scale: 0.5}, q, k, v)
	b.head(b.g.Gated(kernel.SiLU, b.g.Linear(b.weight("gate", 9, 6, 0.6, 0), nil, x), b.g.Linear(b.weight("up", 9, 4, 0.6, 0), nil, y)))
	for _, w := range b.weights {
		if w.Name != "gain" && w.Name != "v" {
			w.Grad = nil
		}
	}
	b.check(t, nil, Mode{})
}
