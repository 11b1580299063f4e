package kernel

import "math"

// This file holds root-mean-square normalisation and the gated activations:
// operations over the rows of a matrix.

// rowGrain is the number of rows of c elements worth handing to another thread.
func rowGrain(c int) int { return max(1, elemGrain/max(c, 1)) }

type normTask struct {
	y, x        Vec
	w, rstd     []float32
	c           int
	eps, offset float32
}

var normTasks freeList[normTask]

func (t *normTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for i := lo; i < hi; i++ {
		x, y := t.x.Read(&sc[0], i*t.c, (i+1)*t.c), t.y.Room(&sc[1], i*t.c, (i+1)*t.c)
		r := float32(1 / math.Sqrt(vecSumSquares(x)/float64(t.c)+float64(t.eps)))
		if t.rstd != nil {
			t.rstd[i] = r
		}
		vecNorm(y, x, t.w, r, t.offset)
		t.y.Write(i*t.c, y)
	}
}

// RMSNorm sets each row of y (rows, c) to x·r∘(w + wOffset) with
// r = 1/√(mean x² + eps). w is (c); wOffset is 0, or 1 for the Gemma family,
// which stores w − 1. rstd (rows) receives r for the backward; it may be nil.
// y may be x.
func RMSNorm(y, x Vec, w []float32, rows, c int, eps float32, rstd []float32, wOffset float32) {
	checkLen("RMSNorm", "y", y.Len(), rows*c)
	checkLen("RMSNorm", "x", x.Len(), rows*c)
	checkLen("RMSNorm", "w", len(w), c)
	if rstd != nil {
		checkLen("RMSNorm", "rstd", len(rstd), rows)
	}
	t := normTasks.get()
	*t = normTask{y: y, x: x, w: w, rstd: rstd, c: c, eps: eps, offset: wOffset}
	Parallel(rows, rowGrain(c), t)
	*t = normTask{}
	normTasks.put(t)
}

type normBackTask struct {
	dx, dy, x Vec
	w, rstd   []float32
	c         int
	offset    float32
	acc       bool
}

var normBackTasks freeList[normBackTask]

func (t *normBackTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for i := lo; i < hi; i++ {
		from, to, r := i*t.c, (i+1)*t.c, t.rstd[i]
		dy, x := t.dy.Read(&sc[0], from, to), t.x.Read(&sc[1], from, to)
		k := r * r * r * vecNormDot(dy, x, t.w, t.offset) / float32(t.c)
		var dx []float32
		if t.acc {
			dx = t.dx.Read(&sc[2], from, to)
			vecNormBackAdd(dx, dy, x, t.w, r, k, t.offset)
		} else {
			dx = t.dx.Room(&sc[2], from, to)
			vecNormBack(dx, dy, x, t.w, r, k, t.offset)
		}
		t.dx.Write(from, dx)
	}
}

// normGainTask sums the gradient of the gain over the rows, column by column:
// the order of a column's sum is that of the rows, whoever computes it.
type normGainTask struct {
	dw, rstd []float32
	dy, x    Vec
	rows, c  int
}

var normGainTasks freeList[normGainTask]

func (t *normGainTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for i := range t.rows {
		o := i * t.c
		vecMulAxpy(t.dw[lo:hi], t.dy.Read(&sc[0], o+lo, o+hi), t.x.Read(&sc[1], o+lo, o+hi), t.rstd[i])
	}
}

// RMSNormBackward is the gradient of RMSNorm: dx (rows, c) is set, or added to
// when acc, and dw (c) is added to unless it is nil (a frozen gain). x, w, rstd
// and wOffset are those of the forward. Without acc, dx may be dy unless dw is
// wanted.
func RMSNormBackward(dx, dy, x Vec, w, rstd []float32, rows, c int, wOffset float32, acc bool, dw []float32) {
	checkLen("RMSNormBackward", "dx", dx.Len(), rows*c)
	checkLen("RMSNormBackward", "dy", dy.Len(), rows*c)
	checkLen("RMSNormBackward", "x", x.Len(), rows*c)
	checkLen("RMSNormBackward", "w", len(w), c)
	checkLen("RMSNormBackward", "rstd", len(rstd), rows)
	if dw != nil {
		checkLen("RMSNormBackward", "dw", len(dw), c)
		t := normGainTasks.get()
		*t = normGainTask{dw, rstd, dy, x, rows, c}
		Parallel(c, 64, t)
		*t = normGainTask{}
		normGainTasks.put(t)
	}
	t := normBackTasks.get()
	*t = normBackTask{dx, dy, x, w, rstd, c, wOffset, acc}
	Parallel(rows, rowGrain(c), t)
	*t = normBackTask{}
	normBackTasks.put(t)
}

// Act is the activation of a gated linear unit.
type Act uint8

const (
	// SiLU is x·σ(x), also called swish: SwiGLU.
	SiLU Act = iota
	// GELUTanh is GELU in its tanh form, PyTorch's approximate="tanh": GeGLU.
	GELUTanh
)

// coefficients of the argument of the sigmoid, c1·x + c3·x³ (see gate).
func (a Act) coefficients() (c1, c3 float32) {
	if a == GELUTanh {
		c := 2 * math.Sqrt(2/math.Pi)
		return float32(c), float32(0.044715 * c)
	}
	return 1, 0
}

type gluTask struct {
	y, dgate, dup, dy, gate, up Vec
	c1, c3                      float32
	backward                    bool
	half                        bool // all of it is bfloat16
}

var gluTasks freeList[gluTask]

func (t *gluTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for ; lo < hi; lo += widenPiece {
		t.piece(sc, lo, min(lo+widenPiece, hi))
	}
}

func (t *gluTask) piece(sc *rowScratch, lo, hi int) {
	if t.half && t.pieceHalf(lo, hi) {
		return
	}
	gate, up := t.gate.Read(&sc[0], lo, hi), t.up.Read(&sc[1], lo, hi)
	if !t.backward {
		y := t.y.Room(&sc[2], lo, hi)
		vecGLU(y, gate, up, t.c1, t.c3)
		t.y.Write(lo, y)
		return
	}
	dgate, dup := t.dgate.Room(&sc[3], lo, hi), t.dup.Room(&sc[4], lo, hi)
	vecGLUBack(dgate, dup, t.dy.Read(&sc[2], lo, hi), gate, up, t.c1, t.c3)
	t.dgate.Write(lo, dgate)
	t.dup.Write(lo, dup)
}

// pieceHalf does a piece of which all is bfloat16, where there is a kernel for it.
func (t *gluTask) pieceHalf(lo, hi int) bool {
	of := func(v Vec) []byte { return v.BF16[2*lo : 2*hi] }
	if t.backward {
		return gluBackHalf(of(t.dgate), of(t.dup), of(t.dy), of(t.gate), of(t.up), t.c1, t.c3)
	}
	return gluHalf(of(t.y), of(t.gate), of(t.up), t.c1, t.c3)
}

// GLU sets y = act(gate) ∘ up, elementwise: SwiGLU with SiLU, GeGLU with
// GELUTanh. y may be gate or up.
func GLU(act Act, y, gate, up Vec) {
	n := y.Len()
	checkLen("GLU", "gate", gate.Len(), n)
	checkLen("GLU", "up", up.Len(), n)
	t := gluTasks.get()
	t.y, t.gate, t.up, t.backward = y, gate, up, false
	t.half = y.Half() && gate.Half() && up.Half()
	t.c1, t.c3 = act.coefficients()
	Parallel(n, elemGrain/4, t)
	*t = gluTask{}
	gluTasks.put(t)
}

// GLUBackward is the gradient of GLU: dgate = dy∘up∘act′(gate) and
// dup = dy∘act(gate). dgate may be gate, or dup may be up, or either may be dy,
// as long as dgate and dup differ.
func GLUBackward(act Act, dgate, dup, dy, gate, up Vec) {
	n := dy.Len()
	checkLen("GLUBackward", "dgate", dgate.Len(), n)
	checkLen("GLUBackward", "dup", dup.Len(), n)
	checkLen("GLUBackward", "gate", gate.Len(), n)
	checkLen("GLUBackward", "up", up.Len(), n)
	t := gluTasks.get()
	t.dgate, t.dup, t.dy, t.gate, t.up, t.backward = dgate, dup, dy, gate, up, true
	t.half = dgate.Half() && dup.Half() && dy.Half() && gate.Half() && up.Half()
	t.c1, t.c3 = act.coefficients()
	Parallel(n, elemGrain/4, t)
	*t = gluTask{}
	gluTasks.put(t)
}
