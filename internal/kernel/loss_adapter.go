package kernel

import "fmt"

// This file holds what an adapter makes of a head's logits, and its gradients.

// HeadAdapter makes (h·headᵀ + Σ terms)∘Gain + Bias of a head's products (P, V).
type HeadAdapter struct {
	Terms []Term    // for the rows of the call: each H (P, R) and W (V, R)
	Gain  []float32 // (V); nil is 1
	Bias  []float32 // (V); nil is 0

	// What HeadGradient adds to; nil where it is not wanted.
	GradW              [][]float32 // of each term (V, R)
	GradGain, GradBias []float32
	// GradH is set to the gradient in each H.
	GradH [][]float32
}

// check panics where sizes contradict each other; a may be nil.
func (a *HeadAdapter) check(op string, p, vocab int) {
	if a == nil {
		return
	}
	for i := range a.Terms {
		t := &a.Terms[i]
		t.check(op, p, vocab, t.W.K, t.W.N)
	}
	for _, v := range [][]float32{a.Gain, a.Bias, a.GradGain, a.GradBias} {
		if v != nil && len(v) != vocab {
			panic(fmt.Sprintf("kernel: %s: an adapter has %d values for %d words", op, len(v), vocab))
		}
	}
}

// adapt makes l.adapter what the spec's is on rows [lo, hi) of the call and words [v0, v0+n).
func (l *logits) adapt(lo, hi, v0, n int) {
	a := l.spec.Adapter
	l.adapter.Gain, l.adapter.Bias, l.adapter.Terms = nil, nil, l.adapter.Terms[:0]
	if a == nil {
		return
	}
	if len(l.words) < len(a.Terms) {
		l.words = make([]Matrix, len(a.Terms))
	}
	for k, t := range a.Terms {
		r := t.W.K
		l.words[k] = t.W.Rows(v0, v0+n)
		l.adapter.Terms = append(l.adapter.Terms, Term{H: t.H[lo*r : hi*r], W: &l.words[k], Scale: t.Scale * l.spec.scale()})
	}
	if a.Gain != nil {
		l.adapter.Gain = a.Gain[v0 : v0+n]
	}
	if a.Bias != nil {
		l.adapter.Bias = a.Bias[v0 : v0+n]
	}
}

// forget drops what a call was given.
func (l *logits) forget() {
	l.x, l.targets, l.piece, l.spec = nil, nil, Matrix{}, LogitSpec{}
	clear(l.words)
	clear(l.adapter.Terms)
	l.adapter = HeadAdapter{Terms: l.adapter.Terms[:0]}
}

// adapterGradients adds what the gradients of the present logits give, rows [lo, hi) of the call, to
// those of an adapter, and makes them gradients of the products.
func (t *headTask) adapterGradients(a *HeadAdapter, lo, hi int) {
	rows, scale := hi-lo, t.spec.scale()
	if a.GradBias != nil {
		t.sumColumns(rows, columnSums)
		vecAxpy(a.GradBias[t.v0:t.v0+t.n], t.sums, scale)
	}
	if a.GradGain != nil {
		t.sumColumns(rows, columnProducts)
		vecAdd(a.GradGain[t.v0:t.v0+t.n], a.GradGain[t.v0:t.v0+t.n], t.sums)
	}
	if t.adapter.Gain != nil {
		t.phase = gains
		Parallel(rows, 1, t)
	}
	t.phase = logitGradients
	for k := range t.adapter.Terms {
		term := &t.adapter.Terms[k]
		r := term.W.K
		if a.GradW != nil && a.GradW[k] != nil {
			WeightGradient(a.GradW[k][t.v0*r:(t.v0+t.n)*r], r, F32Vec(t.x), t.stride, F32Vec(term.H), r, rows, t.n, r, term.Scale, true)
		}
		if a.GradH != nil && a.GradH[k] != nil {
			backward("HeadGradient", F32Vec(a.GradH[k][lo*r:hi*r]), r, F32Vec(t.x), t.stride, rows, term.W, term.Scale, t.v0 > 0, nil)
		}
	}
}

// The phases of a headTask on the logits of some rows and words.
type headPhase int

const (
	logitGradients headPhase = iota // rows: logits become gradients
	columnSums                      // columns: gradients are added up
	columnProducts                  // columns: times the products before a gain
	gains                           // rows: gradients are multiplied by the gain
)

// sumColumns adds up the present gradients over the rows.
func (t *headTask) sumColumns(rows int, phase headPhase) {
	t.sums, t.rows, t.phase = grow(t.sums, t.n), rows, phase
	clear(t.sums)
	Parallel(t.n, columnGrain(rows), t)
}

// adapted does the other phases.
func (t *headTask) adapted(lo, hi int) {
	switch t.phase {
	case gains:
		for i := lo; i < hi; i++ {
			vecMul(t.row(i), t.row(i), t.adapter.Gain)
		}
	case columnSums:
		for i := range t.rows {
			vecAdd(t.sums[lo:hi], t.sums[lo:hi], t.row(i)[lo:hi])
		}
	case columnProducts:
		for i := range t.rows {
			vecMulAxpy(t.sums[lo:hi], t.row(i)[lo:hi], t.plain[i*t.n+lo:i*t.n+hi], 1)
		}
	}
}
