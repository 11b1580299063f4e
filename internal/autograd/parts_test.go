package autograd

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// over reads a weight with the rows in place of its own.
func (r *Rows) over(w *Weight) func(dst []float32, lo, hi int) {
	return func(dst []float32, lo, hi int) {
		copy(dst, w.Matrix.F32[lo*w.Matrix.K:hi*w.Matrix.K])
		for row, at := range r.Index {
			if int(row) >= lo && int(row) < hi {
				copy(dst[(int(row)-lo)*w.Matrix.K:][:w.Matrix.K], r.Matrix.F32[int(at)*w.Matrix.K:])
			}
		}
	}
}

func (b *bench) trainRows(w *Weight, rows ...int32) {
	k := w.Matrix.K
	r := &Rows{Index: map[int32]int32{}, Matrix: kernel.Matrix{N: len(rows), K: k, F32: b.random(len(rows)*k, 0.5, 0)}, Grad: make([]float32, len(rows)*k)}
	for i, row := range rows {
		r.Index[row] = int32(i)
	}
	w.Grad = nil
	b.rows = map[*Weight]*Rows{w: r}
}

// ends builds table, product, head, all frozen, and returns the places of adapters on the three.
func ends(b *bench, spec kernel.LogitSpec, tied bool) (table, product, head int) {
	w := b.weight("table", vocab, 6, 0.7, 0)
	x := b.g.Embed(w)
	b.g.Block(x)
	x = b.g.Add(x, b.g.Linear(b.weight("W", 6, 6, 0.4, 0), b.weight("bias", 1, 6, 0.3, 0), x))
	b.g.Block(x)
	x = b.g.RMSNorm(b.weight("gain", 1, 6, 0.3, 1), 1e-3, 0, x)
	if !tied {
		w = b.weight("head", vocab, 6, 0.5, 0)
	}
	b.g.Head(w, spec, x)
	for _, w := range b.weights {
		w.Grad = nil
	}
	return b.g.TablePlace(), 0, b.g.HeadPlace()
}

var specs = []kernel.LogitSpec{{}, {Scale: 0.6}, {Scale: 1.7, Softcap: 3}}

func TestLowRankOnEnds(t *testing.T) {
	for _, spec := range specs {
		for _, dropout := range []float32{0, 0.3} {
			b := newBench()
			table, product, head := ends(b, spec, true)
			b.remat = 1
			at, on := b.lowRank(vocab, 6, 3, true), b.lowRank(6, vocab, 2, true)
			mid := b.lowRank(6, 6, 2, true)
			on.Dropout, mid.Dropout = dropout, dropout
			b.check(t, map[int][]*LowRank{table: {at}, product: {mid}, head: {on}}, Mode{DropKey: 5})
		}
	}
}

// TestFrozenHeadPair passes a gradient through a pair that is not trained itself.
func TestFrozenHeadPair(t *testing.T) {
	b := newBench()
	_, product, head := ends(b, kernel.LogitSpec{Softcap: 2}, false)
	b.check(t, map[int][]*LowRank{product: {b.lowRank(6, 6, 2, true)}, head: {b.lowRank(6, vocab, 2, false)}}, Mode{})
}

func TestPairBias(t *testing.T) {
	for _, spec := range specs {
		b := newBench()
		_, product, head := ends(b, spec, false)
		list := map[int][]*LowRank{product: {b.lowRank(6, 6, 2, true), b.lowRank(6, 6, 3, true)}, head: {b.lowRank(6, vocab, 2, true)}}
		for _, pairs := range list {
			for _, l := range pairs {
				l.Bias, l.GradBias = b.random(l.B.N, 0.5, 0), make([]float32, l.B.N)
			}
		}
		b.check(t, list, Mode{})
	}
}

// TestTokenRows trains rows of a table that is the head, too, where the head has a pair, and where not.
func TestTokenRows(t *testing.T) {
	for _, spec := range specs {
		for _, pair := range []bool{false, true} {
			b := newBench()
			table, _, head := ends(b, spec, true)
			b.trainRows(b.weights[0], 5, 1, 10)
			list := map[int][]*LowRank{}
			if pair {
				l := b.lowRank(6, vocab, 2, true)
				l.Bias, l.GradBias = b.random(vocab, 0.5, 0), make([]float32, vocab)
				list[head], list[table] = []*LowRank{l}, []*LowRank{b.lowRank(vocab, 6, 2, true)}
			}
			b.check(t, list, Mode{})
		}
	}
}

// TestReplaced trains weights that stand for the graph's own, which stay frozen and are what a pass
// without adapters takes.
func TestReplaced(t *testing.T) {
	b := newBench()
	ends(b, kernel.LogitSpec{}, false)
	own := slices.Clone(b.weights)
	tape := NewTape(&b.g, Training)
	for _, w := range own {
		by := &Weight{Name: w.Name, Matrix: w.Matrix, Grad: make([]float32, len(w.Matrix.F32))}
		by.Matrix.F32 = b.random(len(w.Matrix.F32), 0.5, 0.5)
		tape.Replace(w, by)
	}
	losses := func(m Mode) []float32 {
		tape.Forward(b.batch, m)
		nll, _ := tape.NLL()
		return slices.Clone(nll)
	}
	got, off := losses(Mode{}), losses(Mode{NoAdapters: true})
	other := NewTape(&b.g, Scoring)
	other.Forward(b.batch, Mode{})
	if want, _ := other.NLL(); !slices.Equal(off, want) || slices.Equal(got, off) {
		t.Errorf("losses %v with replaced weights, %v without them, and %v of the graph's own", got, off, want)
	}
	tape.Forward(b.batch, Mode{})
	coef := make([]float32, len(got))
	coef[0] = 1
	tape.Backward(coef)
	for _, w := range own {
		by := tape.param(w)
		if kernel.SumSquares(by.Grad) == 0 || w.Grad != nil {
			t.Errorf("%s: the gradient is zero, or the graph's own weight has one", w.Name)
		}
		i := 0
		for by.Grad[i] == 0 {
			i++
		}
		const h = 2e-3
		at := func(h float32) float64 {
			by.Matrix.F32[i] += h
			defer func() { by.Matrix.F32[i] -= h }()
			return float64(losses(Mode{})[0])
		}
		if slope := (at(h) - at(-h)) / (2 * h); math.Abs(slope-float64(by.Grad[i])) > 2e-3 {
			t.Errorf("%s: slope %v, gradient %v", w.Name, slope, by.Grad[i])
		}
	}
	tape.Restore()
	if !slices.Equal(losses(Mode{}), off) {
		t.Error("the graph's own weights are not back")
	}
}

// gained makes an adapter with DoRA.
func (b *bench) gained(in, out, r int) *LowRank {
	l := b.lowRank(in, out, r, true)
	l.Gain = &Gain{Magnitude: b.random(out, 0.3, 1.2), Grad: make([]float32, out)}
	return l
}

// TestGain compares a product with DoRA, and every gradient, with the computation that PEFT writes
// down, in float64: with masks and without, cut into values and whole.
func TestGain(t *testing.T) {
	for _, dropout := range []float32{0, 0.4} {
		for _, split := range []bool{false, true} {
			t.Run(fmt.Sprint(dropout, split), func(t *testing.T) {
				for _, impl := range kernel.Impls() {
					restore, err := kernel.SetImpl(impl)
					if err != nil {
						t.Fatal(err)
					}
					checkGain(t, dropout, split)
					restore()
				}
			})
		}
	}
}

func checkGain(t *testing.T, dropout float32, split bool) {
	const in, out, r, scale = 6, 9, 3, 1.5
	b := newBench()
	x := b.embed(in)
	w, bias := b.weight("W", out, in, 0.4, 0), b.weight("bias", 1, out, 0.5, 0)
	y := b.g.Linear(w, bias, x)
	w.Grad = nil
	if split {
		parts := b.g.Split(y, 2, 4, 3)
		var sum Var
		for i, p := range parts {
			z := b.g.Linear(b.weight(fmt.Sprint("V", i), 5, b.g.Width(p), 0.4, 0), nil, p)
			if i == 0 {
				sum = z
			} else {
				sum = b.g.Add(sum, z)
			}
		}
		b.head(sum)
	} else {
		b.head(b.g.Linear(b.weight("V", 5, out, 0.4, 0), nil, y))
	}
	l := b.gained(in, out, r)
	l.Dropout = dropout
	tape := NewTape(&b.g, Training)
	tape.SetAdapters(0, []*LowRank{l})
	mode := Mode{DropKey: 9}
	tape.Forward(b.batch, mode)
	nll, _ := tape.NLL()
	coef := make([]float32, len(nll))
	for i := range coef {
		coef[i] = float32(i) - 1.5
	}
	tape.Backward(coef)

	norms := slices.Clone(l.Gain.norm)
	for i := range out {
		sum := 0.0
		for j := range in {
			v := float64(w.Matrix.F32[i*in+j])
			for k := range r {
				v += scale * float64(l.B.F32[i*r+k]) * float64(l.A.F32[k*in+j])
			}
			sum += v * v
		}
		if math.Abs(math.Sqrt(sum)-float64(norms[i])) > 1e-6*math.Sqrt(sum) {
			t.Errorf("row %d has length %v, want %v", i, norms[i], math.Sqrt(sum))
		}
	}
	// y = x·Wᵀ + b + (g−1)∘(drop(x)·Wᵀ) + g∘s·(drop(x)·Aᵀ)·Bᵀ
	tokens := b.batch.Tokens
	xs, mask := make([]float32, len(tokens)*in), make([]float32, len(tokens)*in)
	forward := func() []float64 {
		kernel.EmbedRows(xs, &b.weights[0].Matrix, tokens)
		for i := range mask {
			mask[i] = 1
		}
		if dropout > 0 {
			c := &call{tape: tape}
			c.drop(0, 0, l, kernel.F32Vec(mask), kernel.F32Vec(mask))
		}
		ys := make([]float64, len(tokens)*out)
		for i := range tokens {
			for o := range out {
				var plain, masked, low float64
				for j := range in {
					v, m := float64(xs[i*in+j]), float64(mask[i*in+j])
					plain += v * float64(w.Matrix.F32[o*in+j])
					masked += v * m * float64(w.Matrix.F32[o*in+j])
					for k := range r {
						low += v * m * float64(l.A.F32[k*in+j]) * float64(l.B.F32[o*r+k])
					}
				}
				g := float64(l.Gain.Magnitude[o]) / float64(norms[o])
				ys[i*out+o] = plain + float64(bias.Matrix.F32[o]) + (g-1)*masked + g*scale*low
			}
		}
		return ys
	}
	want := forward()
	tape.Forward(b.batch, mode)
	c, at := &tape.plan.calls[1], 0
	for k := range c.outs { // the values of the product, which the products behind it keep
		n := c.outs[k].width
		got := c.output(k).F32
		for i := range tokens {
			for o := range n {
				if d := math.Abs(float64(got[i*n+o]) - want[i*out+at+o]); d > 1e-5 {
					t.Errorf("token %d feature %d: %v, want %v", i, at+o, got[i*n+o], want[i*out+at+o])
				}
			}
		}
		at += n
	}
	// Slopes of the loss, the lengths held as PEFT holds them.
	magnitudes := l.Gain.Grad
	l.Gain.Grad = nil // the tape leaves the gain as it is
	loss := func() float64 {
		for i, m := range l.Gain.Magnitude {
			l.Gain.Values[i], l.Gain.rest[i] = m/norms[i], m/norms[i]-1
		}
		tape.Forward(b.batch, mode)
		nll, _ := tape.NLL()
		sum := 0.0
		for i, v := range nll {
			sum += float64(coef[i]) * float64(v)
		}
		return sum
	}
	for name, p := range map[string][2][]float32{"A": {l.A.F32, l.GradA}, "B": {l.B.F32, l.GradB}, "m": {l.Gain.Magnitude, magnitudes},
		"table": {b.weights[0].Matrix.F32, b.weights[0].Grad}, "bias": {bias.Matrix.F32, bias.Grad}} {
		value, grad := p[0], slices.Clone(p[1])
		length := math.Sqrt(kernel.SumSquares(grad))
		before := slices.Clone(value)
		along := func(h float64) float64 {
			kernel.AddScaled(value, grad, float32(h/length))
			v := loss()
			copy(value, before)
			return v
		}
		const h = 4e-3
		slope := (8*(along(h)-along(-h)) - (along(2*h) - along(-2*h))) / (12 * h)
		if !(math.Abs(slope-length) < 3e-3*length+2e-4) || length < 1e-4 {
			t.Errorf("%s: slope %.6g along a gradient of length %.6g", name, slope, length)
		}
	}
}

// TestGainOnEnds compares DoRA on the table and on the head with the same adapter as a weight of its
// own, W' = diag(g)·(W + s·B·A): the losses, and the gradient in what lies below.
func TestGainOnEnds(t *testing.T) {
	for _, spec := range specs {
		b := newBench()
		table, product, head := ends(b, spec, false)
		mid := b.lowRank(6, 6, 2, true)
		low, high := b.gained(vocab, 6, 3), b.gained(6, vocab, 2)
		run := func(lists map[int][]*LowRank, replaced map[*Weight]*Weight) ([]float32, []float32) {
			tape := NewTape(&b.g, Training)
			for place, list := range lists {
				tape.SetAdapters(place, list)
			}
			for old, by := range replaced {
				tape.Replace(old, by)
			}
			clear(mid.GradA)
			tape.Forward(b.batch, Mode{})
			nll, _ := tape.NLL()
			coef := make([]float32, len(nll))
			for i := range coef {
				coef[i] = float32(i) - 1.5
			}
			tape.Backward(coef)
			return slices.Clone(nll), slices.Clone(mid.GradA)
		}
		nll, grad := run(map[int][]*LowRank{table: {low}, product: {mid}, head: {high}}, nil)
		changed := func(w *Weight, l *LowRank, transposed bool) *Weight {
			n, k := w.Matrix.N, w.Matrix.K
			out := slices.Clone(w.Matrix.F32)
			for i := range n {
				for j := range k {
					v, row, col := float64(out[i*k+j]), i, j
					if transposed {
						row, col = j, i
					}
					for r := range l.A.N {
						v += float64(l.Scale) * float64(l.B.F32[row*l.A.N+r]) * float64(l.A.F32[r*l.A.K+col])
					}
					out[i*k+j] = float32(v * float64(l.Gain.Values[row]))
				}
			}
			return &Weight{Matrix: kernel.Matrix{N: n, K: k, F32: out}}
		}
		own := b.weights
		want, wantGrad := run(map[int][]*LowRank{product: {mid}}, map[*Weight]*Weight{own[0]: changed(own[0], low, true), own[4]: changed(own[4], high, false)})
		for i := range want {
			if math.Abs(float64(nll[i]-want[i])) > 1e-5*math.Abs(float64(want[i]))+1e-5 {
				t.Errorf("loss %d is %v, want %v", i, nll[i], want[i])
			}
		}
		scale := math.Sqrt(kernel.SumSquares(wantGrad))
		kernel.Add(grad, grad, scaledBy(wantGrad, -1))
		if d := math.Sqrt(kernel.SumSquares(grad)); !(d < 1e-4*scale) {
			t.Errorf("the gradient below is apart by %v of %v", d, scale)
		}
	}
}

func scaledBy(x []float32, s float32) []float32 {
	out := make([]float32, len(x))
	kernel.Scale(out, x, s)
	return out
}
