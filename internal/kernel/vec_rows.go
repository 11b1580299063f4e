package kernel

import (
	"fmt"
	"math"
)

// This file holds rotary position embedding, the rows of an embedding table,
// and what sampling needs of one row of logits.

type ropeTask struct {
	x                    Vec
	cos, sin             []float32
	positions            []int32
	heads, headDim, half int
	sign                 float32
}

var ropeTasks freeList[ropeTask]

func (t *ropeTask) Run(lo, hi int) {
	sc := rowScratches.get()
	defer rowScratches.put(sc)
	width := t.heads * t.headDim
	for i := lo; i < hi; i++ {
		row := t.x.Read(&sc[0], i*width, (i+1)*width)
		at := int(t.positions[i]) * t.half
		cos, sin := t.cos[at:at+t.half], t.sin[at:at+t.half]
		for h := range t.heads {
			x := row[h*t.headDim:]
			vecRotate(x[:t.half], x[t.half:2*t.half], cos, sin, t.sign)
		}
		t.x.Write(i*width, row)
	}
}

// Rope turns x (rows, heads·headDim) in place by rotary position embedding in
// Hugging Face's rotate-half layout: of each head, the pair (j, j + rot/2) for
// j < rot/2 is turned by the angle of row i's position; the elements from rot
// on stay. cos and sin are (maxPos, rot/2) tables, positions is (rows). inverse
// turns the other way, which is the gradient.
func Rope(x Vec, rows, heads, headDim int, positions []int32, cos, sin []float32, rot int, inverse bool) {
	checkLen("Rope", "x", x.Len(), rows*heads*headDim)
	checkLen("Rope", "positions", len(positions), rows)
	checkLen("Rope", "sin", len(sin), len(cos))
	if rot%2 != 0 || rot > headDim || rot < 0 {
		panic(fmt.Sprintf("kernel: Rope: rot %d of headDim %d", rot, headDim))
	}
	if rot == 0 {
		return
	}
	t := ropeTasks.get()
	*t = ropeTask{x, cos, sin, positions, heads, headDim, rot / 2, 1}
	if inverse {
		t.sign = -1
	}
	Parallel(rows, rowGrain(heads*headDim), t)
	*t = ropeTask{}
	ropeTasks.put(t)
}

type embedTask struct {
	dst   []float32
	table *Matrix
	ids   []int32
}

var embedTasks freeList[embedTask]

func (t *embedTask) Run(lo, hi int) {
	c := t.table.K
	for i := lo; i < hi; i++ {
		id := int(t.ids[i])
		row := t.dst[i*c : (i+1)*c]
		t.table.widen(row, id, id+1)
		if t.table.Half {
			RoundBF16(row)
		}
	}
}

// EmbedRows gathers rows of table (N, K): dst (len(ids), K) row i is row ids[i], in
// values that bfloat16 holds where the table is Half.
// Every id must lie in [0, N).
func EmbedRows(dst []float32, table *Matrix, ids []int32) {
	table.check("EmbedRows")
	checkLen("EmbedRows", "dst", len(dst), len(ids)*table.K)
	checkIDs("EmbedRows", ids, table.N)
	t := embedTasks.get()
	*t = embedTask{dst, table, ids}
	Parallel(len(ids), rowGrain(table.K), t)
	*t = embedTask{}
	embedTasks.put(t)
}

func checkIDs(op string, ids []int32, n int) {
	for i, id := range ids {
		if id < 0 || int(id) >= n {
			panic(fmt.Sprintf("kernel: %s: id %d at %d, the table has %d rows", op, id, i, n))
		}
	}
}

// embedBackTask adds a range of columns of all rows in their order, so that
// equal ids never meet in two threads.
type embedBackTask struct {
	dtable, dy []float32
	ids        []int32
	c          int
}

var embedBackTasks freeList[embedBackTask]

func (t *embedBackTask) Run(lo, hi int) {
	for i, id := range t.ids {
		vecAdd(t.dtable[int(id)*t.c+lo:int(id)*t.c+hi], t.dtable[int(id)*t.c+lo:int(id)*t.c+hi], t.dy[i*t.c+lo:i*t.c+hi])
	}
}

// EmbedBackward is the gradient of EmbedRows for a dense table: row ids[i] of
// dtable (N, c) gets row i of dy (len(ids), c) added, in the order of the ids.
func EmbedBackward(dtable, dy []float32, ids []int32, c int) {
	checkLen("EmbedBackward", "dy", len(dy), len(ids)*c)
	checkIDs("EmbedBackward", ids, len(dtable)/max(c, 1))
	t := embedBackTasks.get()
	*t = embedBackTask{dtable, dy, ids, c}
	Parallel(c, 64, t)
	*t = embedBackTask{}
	embedBackTasks.put(t)
}

// expBlock is the length over which exponentials are summed in float32; the
// sums of blocks are added in float64.
const expBlock = 1024

// LogSumExp is log Σ eˣ over one row, which is not empty: what is taken from a
// logit to make it a log probability.
func LogSumExp(x []float32) float64 {
	var block [expBlock]float32 // the exponentials pass through it
	m, sum := vecMax(x), 0.0
	for i := 0; i < len(x); i += expBlock {
		part := x[i:min(i+expBlock, len(x))]
		sum += float64(vecExpSum(block[:len(part)], part, m))
	}
	return float64(m) + math.Log(sum)
}

// ArgMax is the index of the largest element, the first among equals; a NaN
// is never the largest. It is −1 when x has no element to choose.
func ArgMax(x []float32) int {
	best := -1
	for i, v := range x {
		if v == v && (best < 0 || v > x[best]) {
			best = i
		}
	}
	return best
}

// TopK writes the indices of the len(index) largest elements of x to index,
// largest first and, among equals, the smaller index first; NaN counts as −∞.
// It returns how many there are: min(len(index), len(x)).
func TopK(index []int32, x []float32) int {
	before := func(a, b int32) bool { // a ranks before b
		va, vb := x[a], x[b]
		if va != va {
			va = float32(math.Inf(-1))
		}
		if vb != vb {
			vb = float32(math.Inf(-1))
		}
		return va > vb || va == vb && a < b
	}
	k := min(len(index), len(x))
	h := index[:k] // a heap with the last in rank at the top
	down := func(i, n int) {
		for {
			c := 2*i + 1
			if c >= n {
				return
			}
			if c+1 < n && before(h[c], h[c+1]) {
				c++
			}
			if before(h[c], h[i]) {
				return
			}
			h[i], h[c] = h[c], h[i]
			i = c
		}
	}
	for i := range h {
		h[i] = int32(i)
	}
	for i := k/2 - 1; i >= 0; i-- {
		down(i, k)
	}
	for i := k; i < len(x) && k > 0; i++ {
		if before(int32(i), h[0]) {
			h[0] = int32(i)
			down(0, k)
		}
	}
	for n := k - 1; n > 0; n-- {
		h[0], h[n] = h[n], h[0]
		down(0, n)
	}
	return k
}
