package kernel

import (
	"fmt"
	"math"
)

// This file holds weights in bfloat16 that lie in memory as products read them, so that
// a frozen weight is brought into panels once and not in every product.

// A Layout is the order in which the values of a weight in bfloat16 lie.
type Layout int

const (
	// ByRows is the order of checkpoints. Products bring it into panels themselves.
	ByRows Layout = iota
	// ForForward is the order in which the forward product takes a weight:
	// [row/32][term/2][32 rows][2 terms].
	ForForward
	// ForBackward is the order in which the input gradient takes it, from which the
	// forward product makes its own sooner than from rows: [column/32][row/2][32 columns][2 rows].
	ForBackward
)

// PanelRows is the number of rows of which SetRows takes multiples.
const PanelRows = tileSide

// laid is a weight in panels, filled up with zeros to multiples of 32.
type laid struct {
	layout Layout
	n      int       // rows
	words  []float32 // of two values
	steps  int       // of a panel, of 32 words each
}

// NewHalf makes an (n, k) Matrix of zeros that is Half and in bfloat16, for SetRows to
// fill. It lies as asked where products in bfloat16 have a use for that now and the sizes
// fill whole panels, by rows otherwise; values and results are the same.
func NewHalf(n, k int, layout Layout) Matrix {
	w := Matrix{N: n, K: k, Half: true}
	panels, steps := layout.panels(n, k)
	if panels == 0 {
		w.BF16 = make([]byte, 2*n*k)
		return w
	}
	var words []float32
	w.laid = &laid{layout, n, growAligned(&words, panels*steps*tileSide), steps}
	return w
}

// panels is how many panels NewHalf makes, and the steps of each; none where rows stay rows.
func (l Layout) panels(n, k int) (panels, steps int) {
	switch {
	case halfNow() == widened:
	case l == ForForward && n%tileSide == 0:
		return n / tileSide, roundUp(k, tileSide) / 2
	case l == ForBackward && k%tileSide == 0:
		return k / tileSide, roundUp(n, tileSide) / 2
	}
	return 0, 0
}

// HalfBytes is the memory of what NewHalf makes.
func HalfBytes(n, k int, layout Layout) int64 {
	if panels, steps := layout.panels(n, k); panels > 0 {
		return 4 * tileSide * int64(panels) * int64(steps)
	}
	return 2 * int64(n) * int64(k)
}

// SetRows rounds x, whole rows, to rows from lo on of a matrix that NewHalf made. Both are
// multiples of PanelRows, but for those up to the last. Calls for other rows may run at once.
func (w *Matrix) SetRows(lo int, x []float32) {
	rows := len(x) / max(w.K, 1)
	if lo < 0 || rows*w.K != len(x) || lo+rows > w.N {
		panic(fmt.Sprintf("kernel: SetRows: %d values from row %d on of a (%d, %d) matrix", len(x), lo, w.N, w.K))
	}
	if w.laid == nil {
		F32ToBF16(w.BF16[2*lo*w.K:2*(lo+rows)*w.K], x)
		return
	}
	if lo%tileSide != 0 || rows%tileSide != 0 && lo+rows < w.N {
		panic(fmt.Sprintf("kernel: SetRows: rows [%d, %d) of %d in panels of %d", lo, lo+rows, w.N, tileSide))
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	source := Matrix{N: rows, K: w.K, F32: x}
	for r := 0; r < rows; r += tileSide {
		words, stride := source.halfRows(ws, r, min(rows, r+tileSide), tileSide, tileSide, 1)
		l, at := w.laid, lo+r
		if l.layout == ForForward {
			transpose(l.words[at*l.steps:], tileSide, words, stride, tileSide, stride)
		} else {
			interleave(l.words[at/2*tileSide:], words, stride, tileSide/2, stride/(tileSide/2), l.steps*tileSide)
		}
	}
}

// lies reports whether whole panels of such a layout hold w and nothing else.
func (w *Matrix) lies(layout Layout) bool {
	return w.laid != nil && w.laid.layout == layout && w.base%tileSide == 0 && (w.N%tileSide == 0 || w.base+w.N == w.laid.n)
}

// widen writes row i to dst as float32.
func (l *laid) widen(dst []float32, i int) {
	if l.layout == ForForward {
		words := l.words[i/tileSide*l.steps*tileSide+i%tileSide:]
		for j := range dst {
			word := math.Float32bits(words[j/2*tileSide])
			dst[j] = math.Float32frombits(word << (16 * (^j & 1)) &^ 0xffff)
		}
		return
	}
	up := 16 * (^i & 1)
	for j := 0; j < len(dst); j += tileSide {
		words := (*[tileSide]float32)(l.words[(j/tileSide*l.steps+i/2)*tileSide:])
		for k, word := range words {
			dst[j+k] = math.Float32frombits(math.Float32bits(word) << up &^ 0xffff)
		}
	}
}

// row writes row i to dst in bfloat16.
func (l *laid) row(ws *workspace, dst []byte, i int) {
	wide := growAligned(&ws.rowsBuf, len(dst)/2)
	l.widen(wide, i)
	F32ToBF16(dst, wide)
}

// columns brings rows [lo, lo+32) of a weight that lies ForBackward into a panel of the
// forward product.
func (l *laid) columns(dst []float32, lo, k int) {
	src := l.words[lo/2*tileSide:]
	_, _ = dst[k/2*tileSide-1], src[(k/tileSide-1)*l.steps*tileSide+tileSide*tileSide/2-1]
	pairColumns(&dst[0], &src[0], k/tileSide, l.steps*tileSide)
}
