package autograd

import (
	"fmt"

	"github.com/graftml/graft/internal/kernel"
)

// headOp is the last product and the loss on it. Logits exist for a chunk of rows at a time, and
// only for rows that have a target:
//
//	nll[i] = −log softmax(spec(x[i]·Wᵀ))[target[i]]        x is (M, C), W is (V, C)
//
// The gradient of each nll in x is made in the same pass over the logits. A loss is a weighted sum of
// the nll, so backward only multiplies rows by their weights, whatever the objective made of them.
// Adapters on the head change the product before spec does. What comes through their terms, and all
// gradients of what is trained here, take the logits again.
type headOp struct {
	node
	weight *Weight // (V, C)
	spec   kernel.LogitSpec
}

// Head records the last operation: the product that makes logits, and what is done to them. It makes no value: Forward leaves
// the loss of each target (Tape.NLL), and Tape.Logits computes logits where they are wanted.
func (g *Graph) Head(weight *Weight, spec kernel.LogitSpec, x Var) {
	g.want("head", x, weight.Matrix.K)
	o := &headOp{node: node{ins: []Var{x}}, weight: weight, spec: spec}
	g.head = o
	g.add(o)
}

func (o *headOp) trained(t *Tape) bool {
	return t.param(o.weight).trained() || anyTrained(t.adapters[t.graph.HeadPlace()])
}

func (o *headOp) reads(*Tape) []Var { return nil }

// The private buffers of the head, and behind them those of each adapter.
const (
	targetRows  = iota // the rows that have a target (M, C)
	targetGrads        // the gradients of their nll (M, C)
	keptLogits         // (M, V), of width 0 where they are made again
	headPairs
)

// The private buffers of one adapter on the head, of the rows that have a target.
const (
	headHidden     = iota // drop(x)·Aᵀ (M, r)
	headHiddenGrad        // (M, r)
	headDropped           // drop(x) (M, C), of width 0 without dropout
	headDroppedAgain
	perHeadPair
)

func (o *headOp) private(t *Tape) []buffer {
	c, list := o.weight.Matrix.K, t.adapters[t.graph.HeadPlace()]
	out := []buffer{{c, forwardScratch, o.ins[0]}}
	if t.training {
		out = append(out, buffer{c, saved, none})
		if o.again(t) { // the rows are wanted again
			out[targetRows].life = saved
			logits := 0
			if t.keepLogits && (t.param(o.weight).Grad != nil || len(list) > 0) && gainOf(list) == nil {
				logits = o.weight.Matrix.N
			}
			out = append(out, buffer{logits, saved, none})
		}
	}
	for _, l := range list {
		for len(out) < headPairs { // without training
			out = append(out, buffer{0, forwardScratch, none})
		}
		keep, drop := forwardScratch, 0
		if t.training {
			keep = saved
			if l.Dropout > 0 {
				drop = c
			}
		}
		out = append(out, buffer{l.A.N, keep, none}, buffer{l.A.N, backwardScratch, none},
			buffer{drop, forwardScratch, o.ins[0]}, buffer{drop, backwardScratch, o.ins[0]})
	}
	return out
}

// again reports whether backward makes logits again.
func (o *headOp) again(t *Tape) bool {
	return t.param(o.weight).trained() || len(t.adapters[t.graph.HeadPlace()]) > 0
}

func (o *headOp) forward(c *call) {
	t, w := c.tape, &c.weight(o.weight).Matrix
	t.nll, t.targetAt, t.targets = t.nll[:0], t.targetAt[:0], t.targets[:0]
	if t.batch.Targets == nil {
		return
	}
	hidden, rows := c.in(0), c.own(targetRows)
	for i, target := range t.batch.Targets {
		if target >= 0 {
			k := len(t.targets)
			kernel.Copy(rows.Slice(k*w.K, (k+1)*w.K), hidden.Slice(i*w.K, (i+1)*w.K))
			t.targets, t.targetAt, t.nll = append(t.targets, target), append(t.targetAt, int32(i)), append(t.nll, 0)
		}
	}
	var grads, kept []float32
	m := len(t.targets)
	if !t.lossOnly {
		grads, kept = c.own(targetGrads).F32[:m*w.K], o.kept(c)
	}
	if cap(t.lse) < m {
		t.lse = make([]float32, m)
	}
	t.lse = t.lse[:m]
	if len(t.runs) > 0 {
		o.forwardMixed(c, rows.Slice(0, m*w.K))
		return
	}
	list := c.pairs(t.graph.HeadPlace())
	for k, l := range list {
		in, own := rows.Slice(0, m*w.K), headPairs+k*perHeadPair
		if c.drops(l) {
			d := c.own(own+headDropped).Slice(0, m*w.K)
			c.drop(t.graph.HeadPlace(), k, l, d, in)
			in = d
		}
		kernel.Linear(c.own(own+headHidden).Slice(0, m*l.A.N), in, m, &l.A, false, nil)
	}
	spec := o.adapted(c, list, func(k, r int) []float32 { return c.own(headPairs + k*perHeadPair + headHidden).F32[:m*r] })
	kernel.CrossEntropy(t.nll, t.lse, grads, kept, rows.Slice(0, m*w.K), w, spec, t.targets)
}

// adapted is what is done to the products of rows of which hidden gives x·Aᵀ of each adapter.
func (o *headOp) adapted(c *call, list []*LowRank, hidden func(k, r int) []float32) kernel.LogitSpec {
	spec := o.spec
	if len(list) == 0 {
		return spec
	}
	c.terms = c.terms[:0]
	for k, l := range list {
		c.terms = append(c.terms, kernel.Term{H: hidden(k, l.A.N), W: &l.B, Scale: l.Scale})
	}
	c.head = kernel.HeadAdapter{Terms: c.terms, Bias: c.addBiases(nil, list, o.weight.Matrix.N), GradW: c.head.GradW[:0], GradH: c.head.GradH[:0]}
	if g := gainOf(list); g != nil {
		c.head.Gain = g.Values
	}
	spec.Adapter = &c.head
	return spec
}

// kept is where the logits of the targets stay for backward, nil where they are made again.
func (o *headOp) kept(c *call) []float32 {
	if len(c.private) <= keptLogits || c.private[keptLogits].width == 0 {
		return nil
	}
	return c.own(keptLogits).F32[:len(c.tape.targets)*o.weight.Matrix.N]
}

func (o *headOp) backward(c *call) {
	t, w := c.tape, c.weight(o.weight)
	k, m, list := w.Matrix.K, len(t.targets), c.pairs(t.graph.HeadPlace())
	if w.Grad != nil || len(list) > 0 {
		// Forward did not know the coefficients.
		spec := o.wanted(c, list)
		kernel.HeadGradient(w.Grad, o.kept(c), c.own(targetRows).Slice(0, m*k), &w.Matrix, spec, t.targets, t.lse, t.coef)
		o.afterwards(c, list)
	}
	if w.Rows != nil {
		o.backwardRows(c, w.Rows, list)
	}
	wants := c.ins[0].wants
	for i, l := range list {
		own := headPairs + i*perHeadPair
		du, x := c.own(own+headHiddenGrad).Slice(0, m*l.A.N), c.own(targetRows).Slice(0, m*k)
		if !l.trained() {
			continue
		}
		if c.drops(l) {
			d := c.own(own+headDroppedAgain).Slice(0, m*k)
			c.drop(t.graph.HeadPlace(), i, l, d, x)
			x = d
		}
		kernel.WeightGradient(l.GradA, k, du, l.A.N, x, k, m, l.A.N, k, 1, true)
	}
	if !wants {
		return
	}
	grads, dx := c.own(targetGrads).F32, c.inGrad(0).F32
	clear(dx)
	for i, row := range t.targetAt {
		kernel.Scale(dx[int(row)*k:][:k], grads[i*k:][:k], t.coef[i])
	}
	for i, l := range list {
		own := headPairs + i*perHeadPair
		// What the pair gives goes where the gradients of the nll were, which nobody reads again.
		d := kernel.F32Vec(grads[:m*k])
		kernel.LinearBackward(d, c.own(own+headHiddenGrad).Slice(0, m*l.A.N), m, &l.A, false, nil)
		if c.drops(l) {
			c.drop(t.graph.HeadPlace(), i, l, d, d)
		}
		for j, row := range t.targetAt {
			to := dx[int(row)*k:][:k]
			kernel.Add(to, to, grads[j*k:][:k])
		}
	}
}

// wanted is adapted with what backward wants of it.
func (o *headOp) wanted(c *call, list []*LowRank) kernel.LogitSpec {
	m := len(c.tape.targets)
	spec := o.adapted(c, list, func(k, r int) []float32 { return c.own(headPairs + k*perHeadPair + headHidden).F32[:m*r] })
	for k, l := range list {
		c.head.GradW = append(c.head.GradW, l.GradB)
		c.head.GradH = append(c.head.GradH, c.own(headPairs + k*perHeadPair + headHiddenGrad).F32[:m*l.A.N])
		if l.GradBias != nil || l.Gain != nil && l.Gain.Grad != nil {
			c.sums = zeros(c.sums, o.weight.Matrix.N)
		}
		if l.GradBias != nil {
			c.head.GradBias = c.sums
		}
		if l.Gain != nil && l.Gain.Grad != nil {
			c.head.GradGain = c.sums
		}
	}
	return spec
}

// afterwards adds what HeadGradient left in sums to gradients of adapters.
func (o *headOp) afterwards(c *call, list []*LowRank) {
	for _, l := range list {
		switch {
		case l.GradBias != nil:
			kernel.AddScaled(l.GradBias, c.sums, l.Scale)
		case l.Gain != nil && l.Gain.Grad != nil:
			l.Gain.add(c.sums, 0)
		}
	}
}

// backwardRows adds to the gradient of rows of the head that are trained by themselves. Their logits
// alone are made again.
func (o *headOp) backwardRows(c *call, rows *Rows, list []*LowRank) {
	t, k := c.tape, rows.Matrix.K
	t.rowTargets = t.rowTargets[:0]
	for _, target := range t.targets {
		at, ok := rows.Index[target]
		if !ok {
			at = -1
		}
		t.rowTargets = append(t.rowTargets, at)
	}
	spec := o.spec
	if len(list) > 0 {
		spec.Adapter = o.adaptedRows(c, rows, list)
	}
	kernel.HeadGradient(rows.Grad, nil, c.own(targetRows).Slice(0, len(t.targets)*k), &rows.Matrix, spec, t.rowTargets, t.lse, t.coef)
}

// rowsAdapter is what adapters do to the products of some rows of the head. Its memory is used again.
type rowsAdapter struct {
	kernel.HeadAdapter
	picked [][]float32
	parts  []kernel.Matrix
}

// adaptedRows is what adapters do to the products of rows of the head.
func (o *headOp) adaptedRows(c *call, rows *Rows, list []*LowRank) *kernel.HeadAdapter {
	if c.headRows == nil {
		c.headRows = &rowsAdapter{}
	}
	a, n := c.headRows, 0
	pick := func(from []float32, width int) []float32 {
		if n == len(a.picked) {
			a.picked = append(a.picked, nil)
		}
		out := zeros(a.picked[n], rows.Matrix.N*width)
		for row, at := range rows.Index {
			copy(out[int(at)*width:(int(at)+1)*width], from[int(row)*width:])
		}
		a.picked[n] = out
		n++
		return out
	}
	a.Terms, a.parts, a.Gain, a.Bias = a.Terms[:0], a.parts[:0], nil, nil
	for i, l := range list {
		r := l.A.N
		a.parts = append(a.parts, kernel.Matrix{N: rows.Matrix.N, K: r, F32: pick(l.B.F32, r), Half: l.B.Half})
		a.Terms = append(a.Terms, kernel.Term{H: c.own(headPairs + i*perHeadPair + headHidden).F32[:len(c.tape.targets)*r], W: &a.parts[i], Scale: l.Scale})
	}
	if g := gainOf(list); g != nil {
		a.Gain = pick(g.Values, 1)
	}
	if bias := c.addBiases(nil, list, o.weight.Matrix.N); bias != nil {
		a.Bias = pick(bias, 1)
	}
	return &a.HeadAdapter
}

// NLL returns the negative log likelihoods of the targets of the last Forward, in the order of the
// tokens that have one, and the token each stands at. The slices are valid until the next Forward.
func (t *Tape) NLL() (nll []float32, at []int32) { return t.nll, t.targetAt }

// Logits computes the logits (hi−lo, vocabulary) of tokens [lo, hi) of the last Forward, which must
// have run on a tape for generating.
func (t *Tape) Logits(dst []float32, lo, hi int) {
	o := t.graph.head
	c := &t.plan.calls[len(t.plan.calls)-1]
	if t.training || t.half || lo < 0 || hi > t.rows || lo > hi {
		panic(fmt.Sprintf("autograd: logits of tokens [%d, %d) of %d on a tape that trains (%v) or scores", lo, hi, t.rows, t.training))
	}
	k, vocab := o.weight.Matrix.K, o.weight.Matrix.N
	for lo < hi {
		w, list, end := c.weight(o.weight), c.pairs(t.graph.HeadPlace()), hi
		if r := t.runOf(lo); r != nil {
			w, list, end = r.weight(o.weight), r.pairs(t.graph.HeadPlace()), min(hi, r.hi)
		}
		x, n := c.in(0).Slice(lo*k, end*k), end-lo
		kernel.Logits(dst[:n*vocab], x, n, &w.Matrix, o.adaptedRun(c, list, x, n))
		dst, lo = dst[n*vocab:], end
	}
}

// Backward adds the gradient of Σ coef[i]·nll[i] to every trained parameter; coef has one value for
// each target of the last Forward, which must have run with targets.
func (t *Tape) Backward(coef []float32) {
	if !t.ran || len(coef) != len(t.nll) {
		panic(fmt.Sprintf("autograd: backward with %d coefficients for %d targets, after a forward pass to differentiate: %v", len(coef), len(t.nll), t.ran))
	}
	t.coef = coef
	t.run(t.plan.steps[t.plan.split:])
	t.ran = false
}
