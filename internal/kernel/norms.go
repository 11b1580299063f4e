package kernel

import "math"

// This file holds the lengths of the rows of a matrix that a low-rank pair changes, by
// which DoRA (Liu et al. 2024) divides. The changed matrix exists a few rows at a time,
// and squares are added in float64.

const (
	// normRows is how many rows of the matrix one goroutine holds at a time.
	normRows = 16
	// normValues is about how many values of it exist at a time where columns are measured.
	normValues = 1 << 18
)

// changed is W + Scale·left·right, W being (N, K), left (N, R) and right (R, K), and the
// part of the work on its lengths that runs at a time.
type changed struct {
	w, right Matrix
	left     []float32
	scale    float32
	lengths  []float32 // of rows

	rows     []float32 // rows [first, first+n), where columns are measured
	first, n int
	squares  []float64 // of columns
	summing  bool

	leftBuf, rightBuf []float32
}

var changes freeList[changed]

func (t *changed) set(w *Matrix, left, right []float32, r int, scale float32) {
	t.w, t.right, t.left, t.scale = *w, Matrix{N: r, K: w.K, F32: right}, left, scale
	t.w.Half = false
}

func (t *changed) release() {
	t.w, t.right, t.left, t.lengths = Matrix{}, Matrix{}, nil, nil
	changes.put(t)
}

// read makes rows [lo, hi).
func (t *changed) read(dst []float32, lo, hi int) {
	t.w.widen(dst, lo, hi)
	r := t.right.N
	ScaledMul(dst, t.w.K, t.left[lo*r:hi*r], r, hi-lo, &t.right, t.scale, true)
}

func (t *changed) Run(lo, hi int) {
	k := t.w.K
	switch {
	case t.summing: // columns [lo, hi)
		for i := range t.n {
			row := t.rows[i*k+lo : i*k+hi]
			for j, s := range t.squares[lo:hi] {
				t.squares[lo+j] = s + float64(row[j])*float64(row[j])
			}
		}
		return
	case t.lengths == nil: // rows [first+lo, first+hi)
		t.read(t.rows[lo*k:hi*k], t.first+lo, t.first+hi)
		return
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	for ; lo < hi; lo += normRows {
		end := min(lo+normRows, hi)
		rows := growAligned(&ws.rowsBuf, (end-lo)*k)
		t.read(rows, lo, end)
		for i := lo; i < end; i++ {
			t.lengths[i] = float32(math.Sqrt(vecSumSquares(rows[(i-lo)*k : (i-lo+1)*k])))
		}
	}
}

// RowNorms sets dst (N) to the lengths of the rows of w + scale·B·A: w is (N, K), a
// (R, K) and b (N, R). It takes w as it is, whatever products round it to.
func RowNorms(dst []float32, w *Matrix, a, b []float32, r int, scale float32) {
	const op = "RowNorms"
	w.check(op)
	checkLen(op, "dst", len(dst), w.N)
	checkLen(op, "a", len(a), r*w.K)
	checkLen(op, "b", len(b), w.N*r)
	t := changes.get()
	t.set(w, b, a, r, scale)
	t.lengths = dst
	Parallel(w.N, normRows, t)
	t.release()
}

// ColumnNorms sets dst (K) to the lengths of the columns of w + scale·(B·A)ᵀ, which are
// the rows of wᵀ + scale·B·A: w is a table (N, K), a (R, N) and b (K, R).
func ColumnNorms(dst []float32, w *Matrix, a, b []float32, r int, scale float32) {
	const op = "ColumnNorms"
	w.check(op)
	checkLen(op, "dst", len(dst), w.K)
	checkLen(op, "a", len(a), r*w.N)
	checkLen(op, "b", len(b), w.K*r)
	t := changes.get()
	t.leftBuf, t.rightBuf = grow(t.leftBuf, len(a)), grow(t.rightBuf, len(b))
	transpose(t.leftBuf, r, a, w.N, r, w.N)
	transpose(t.rightBuf, w.K, b, r, w.K, r)
	t.set(w, t.leftBuf, t.rightBuf, r, scale)
	if cap(t.squares) < w.K {
		t.squares = make([]float64, w.K)
	}
	t.squares = t.squares[:w.K]
	clear(t.squares)
	step := max(1, normValues/max(w.K, 1))
	t.rows = grow(t.rows, min(step, w.N)*w.K)
	for t.first = 0; t.first < w.N; t.first += step {
		t.n = min(step, w.N-t.first)
		t.summing = false
		Parallel(t.n, normRows, t)
		t.summing = true
		Parallel(w.K, 64, t)
	}
	t.summing = false
	for i, s := range t.squares {
		dst[i] = float32(math.Sqrt(s))
	}
	t.release()
}
