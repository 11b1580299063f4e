package kernel

// This file holds what treats every column of a matrix with a number of its own, as an
// adapter that scales the features of a product does, and the tables of adapters on
// embeddings, which are read by columns.

// columnTask is ScaleColumns on a range of rows.
type columnTask struct {
	dst, x    Vec
	cols      int
	gain, add []float32
}

var columnTasks freeList[columnTask]

func (t *columnTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for i := lo; i < hi; i++ {
		a, b := i*t.cols, (i+1)*t.cols
		x := t.x.Read(&sc[0], a, b)
		y := t.dst.Room(&sc[1], a, b)
		switch {
		case t.gain != nil:
			vecMul(y, x, t.gain)
		case len(y) > 0 && &y[0] != &x[0]:
			copy(y, x)
		}
		if t.add != nil {
			vecAdd(y, y, t.add)
		}
		t.dst.Write(a, y)
	}
}

// ScaleColumns sets each row of dst (rows, cols) to that of x times gain (cols), plus add
// (cols). Nil is 1 and 0; one of them is there. dst may be x.
func ScaleColumns(dst, x Vec, rows int, gain, add []float32) {
	cols := max(len(gain), len(add))
	checkLen("ScaleColumns", "dst", dst.Len(), rows*cols)
	checkLen("ScaleColumns", "x", x.Len(), rows*cols)
	t := columnTasks.get()
	*t = columnTask{dst, x, cols, gain, add}
	Parallel(rows, rowGrain(cols), t)
	*t = columnTask{}
	columnTasks.put(t)
}

// columnDotTask adds up products over all rows, of a range of columns.
type columnDotTask struct {
	dst  []float32
	a, b Vec
	rows int
}

var columnDotTasks freeList[columnDotTask]

func (t *columnDotTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	cols := len(t.dst)
	for i := range t.rows {
		a := t.a.Read(&sc[0], i*cols+lo, i*cols+hi)
		if t.b.Len() == 0 {
			vecAdd(t.dst[lo:hi], t.dst[lo:hi], a)
			continue
		}
		vecMulAxpy(t.dst[lo:hi], a, t.b.Read(&sc[1], i*cols+lo, i*cols+hi), 1)
	}
}

// ColumnDots adds the sum over the rows of a∘b to dst (cols); a and b are (rows, cols). An
// empty b is 1 everywhere.
func ColumnDots(dst []float32, a, b Vec, rows int) {
	checkLen("ColumnDots", "a", a.Len(), rows*len(dst))
	if b.Len() > 0 {
		checkLen("ColumnDots", "b", b.Len(), rows*len(dst))
	}
	t := columnDotTasks.get()
	*t = columnDotTask{dst, a, b, rows}
	Parallel(len(dst), columnGrain(rows), t)
	*t = columnDotTask{}
	columnDotTasks.put(t)
}

// columnGrain is the number of columns worth handing to a thread: whole vectors, so that
// where ranges begin changes no bit.
func columnGrain(rows int) int { return roundUp(max(elemGrain/max(rows, 1), 1), 64) }

// subtractTask is dst = a − b on a range of values.
type subtractTask struct{ dst, a, b Vec }

var subtractTasks freeList[subtractTask]

func (t *subtractTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	for ; lo < hi; lo += widenPiece {
		end := min(lo+widenPiece, hi)
		a, b, y := t.a.Read(&sc[0], lo, end), t.b.Read(&sc[1], lo, end), t.dst.Room(&sc[2], lo, end)
		for i := range y {
			y[i] = a[i] - b[i]
		}
		t.dst.Write(lo, y)
	}
}

// Subtract sets dst = a − b; dst may be one of them.
func Subtract(dst, a, b Vec) {
	checkLen("Subtract", "a", a.Len(), dst.Len())
	checkLen("Subtract", "b", b.Len(), dst.Len())
	t := subtractTasks.get()
	*t = subtractTask{dst, a, b}
	Parallel(dst.Len(), elemGrain, t)
	*t = subtractTask{}
	subtractTasks.put(t)
}

// GatherColumns sets row i of dst (len(ids), n) to column ids[i] of a (n, v). Every id
// must lie in [0, v).
func GatherColumns(dst, a []float32, n, v int, ids []int32) {
	checkLen("GatherColumns", "dst", len(dst), len(ids)*n)
	checkLen("GatherColumns", "a", len(a), n*v)
	checkIDs("GatherColumns", ids, v)
	for i, id := range ids {
		for r := range n {
			dst[i*n+r] = a[r*v+int(id)]
		}
	}
}

// ScatterColumns is the gradient of GatherColumns: row i of dy (len(ids), n) is added to
// column ids[i] of da (n, v).
func ScatterColumns(da, dy []float32, n, v int, ids []int32) {
	checkLen("ScatterColumns", "da", len(da), n*v)
	checkLen("ScatterColumns", "dy", len(dy), len(ids)*n)
	checkIDs("ScatterColumns", ids, v)
	for i, id := range ids {
		for r := range n {
			da[r*v+int(id)] += dy[i*n+r]
		}
	}
}

// Transpose sets dst (cols, rows) to the transpose of x (rows, cols).
func Transpose(dst, x []float32, rows, cols int) {
	checkLen("Transpose", "x", len(x), rows*cols)
	checkLen("Transpose", "dst", len(dst), rows*cols)
	transpose(dst, rows, x, cols, rows, cols)
}
