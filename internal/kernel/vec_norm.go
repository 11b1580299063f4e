package kernel

import "math"

// This file holds root-mean-square normalisation and the gated activations:
// operations over the rows of a matrix.

// rowGrain is the number of rows of c elements worth handing to another thread.
func rowGrain(c int) int { return max(1, elemGrain/max(c, 1)) }

type normTask struct {
	y, x, w, rstd []float32
	c             int
	eps, offset   float32
}

var normTasks freeList[normTask]

func (t *normTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		x := t.x[i*t.c : (i+1)*t.c]
		r := float32(1 / math.Sqrt(vecSumSquares(x)/float64(t.c)+float64(t.eps)))
		if t.rstd != nil {
			t.rstd[i] = r
		}
		vecNorm(t.y[i*t.c:(i+1)*t.c], x, t.w, r, t.offset)
	}
}

// RMSNorm sets each row of y (rows, c) to x·r∘(w + wOffset) with
// r = 1/√(mean x² + eps). w is (c); wOffset is 0, or 1 for the Gemma family,
// which stores w − 1. rstd (rows) receives r for the backward; it may be nil.
// y may be x.
func RMSNorm(y, x, w []float32, rows, c int, eps float32, rstd []float32, wOffset float32) {
	checkLen("RMSNorm", "y", len(y), rows*c)
	checkLen("RMSNorm", "x", len(x), rows*c)
	checkLen("RMSNorm", "w", len(w), c)
	if rstd != nil {
		checkLen("RMSNorm", "rstd", len(rstd), rows)
	}
	t := normTasks.get()
	*t = normTask{y, x, w, rstd, c, eps, wOffset}
	Parallel(rows, rowGrain(c), t)
	*t = normTask{}
	normTasks.put(t)
}

type normBackTask struct {
	dx, dy, x, w, rstd []float32
	c                  int
	offset             float32
	acc                bool
}

var normBackTasks freeList[normBackTask]

func (t *normBackTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		dy, x, r := t.dy[i*t.c:(i+1)*t.c], t.x[i*t.c:(i+1)*t.c], t.rstd[i]
		k := r * r * r * vecNormDot(dy, x, t.w, t.offset) / float32(t.c)
		if dx := t.dx[i*t.c : (i+1)*t.c]; t.acc {
			vecNormBackAdd(dx, dy, x, t.w, r, k, t.offset)
		} else {
			vecNormBack(dx, dy, x, t.w, r, k, t.offset)
		}
	}
}

// normGainTask sums the gradient of the gain over the rows, column by column:
// the order of a column's sum is that of the rows, whoever computes it.
type normGainTask struct {
	dw, dy, x, rstd []float32
	rows, c         int
}

var normGainTasks freeList[normGainTask]

func (t *normGainTask) Run(lo, hi int) {
	for i := range t.rows {
		o := i * t.c
		vecMulAxpy(t.dw[lo:hi], t.dy[o+lo:o+hi], t.x[o+lo:o+hi], t.rstd[i])
	}
}

// RMSNormBackward is the gradient of RMSNorm: dx (rows, c) is set, or added to
// when acc, and dw (c) is added to unless it is nil (a frozen gain). x, w, rstd
// and wOffset are those of the forward. Without acc, dx may be dy unless dw is
// wanted.
func RMSNormBackward(dx, dy, x, w, rstd []float32, rows, c int, wOffset float32, acc bool, dw []float32) {
	checkLen("RMSNormBackward", "dx", len(dx), rows*c)
	checkLen("RMSNormBackward", "dy", len(dy), rows*c)
	checkLen("RMSNormBackward", "x", len(x), rows*c)
	checkLen("RMSNormBackward", "w", len(w), c)
	checkLen("RMSNormBackward", "rstd", len(rstd), rows)
	if dw != nil {
		checkLen("RMSNormBackward", "dw", len(dw), c)
		t := normGainTasks.get()
		*t = normGainTask{dw, dy, x, rstd, rows, c}
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
	y, dgate, dup, dy, gate, up []float32
	c1, c3                      float32
}

var gluTasks freeList[gluTask]

func (t *gluTask) Run(lo, hi int) {
	if t.y != nil {
		vecGLU(t.y[lo:hi], t.gate[lo:hi], t.up[lo:hi], t.c1, t.c3)
		return
	}
	vecGLUBack(t.dgate[lo:hi], t.dup[lo:hi], t.dy[lo:hi], t.gate[lo:hi], t.up[lo:hi], t.c1, t.c3)
}

// GLU sets y = act(gate) ∘ up, elementwise: SwiGLU with SiLU, GeGLU with
// GELUTanh. y may be gate or up.
func GLU(act Act, y, gate, up []float32) {
	checkLen("GLU", "gate", len(gate), len(y))
	checkLen("GLU", "up", len(up), len(y))
	t := gluTasks.get()
	t.y, t.gate, t.up = y, gate, up
	t.c1, t.c3 = act.coefficients()
	Parallel(len(y), elemGrain/4, t)
	*t = gluTask{}
	gluTasks.put(t)
}

// GLUBackward is the gradient of GLU: dgate = dy∘up∘act′(gate) and
// dup = dy∘act(gate). dgate may be gate, or dup may be up, or either may be dy,
// as long as dgate and dup differ.
func GLUBackward(act Act, dgate, dup, dy, gate, up []float32) {
	n := len(dy)
	checkLen("GLUBackward", "dgate", len(dgate), n)
	checkLen("GLUBackward", "dup", len(dup), n)
	checkLen("GLUBackward", "gate", len(gate), n)
	checkLen("GLUBackward", "up", len(up), n)
	t := gluTasks.get()
	t.dgate, t.dup, t.dy, t.gate, t.up = dgate, dup, dy, gate, up
	t.c1, t.c3 = act.coefficients()
	Parallel(n, elemGrain/4, t)
	*t = gluTask{}
	gluTasks.put(t)
}

// SwiGLU sets y = silu(gate) ∘ up. y may be gate or up.
func SwiGLU(y, gate, up []float32) { GLU(SiLU, y, gate, up) }

// SwiGLUBackward is the gradient of SwiGLU; see GLUBackward.
func SwiGLUBackward(dgate, dup, dy, gate, up []float32) { GLUBackward(SiLU, dgate, dup, dy, gate, up) }
