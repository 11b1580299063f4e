package kernel

import (
	"fmt"
	"math"
)

// This file holds weights that lie in memory as products read them, so that a frozen weight
// is brought into panels once and not in every product.

// A Layout is the order in which the values of a weight lie.
type Layout int

const (
	// ByRows is the order of checkpoints. Products bring it into panels themselves.
	ByRows Layout = iota
	// ForForward is the order in which the forward product takes a weight, of so many rows a
	// panel: [row/cols][term][cols rows], in bfloat16 [row/32][term/2][32 rows][2 terms].
	ForForward
	// ForBackward is the order in which the input gradient takes it, from which the forward
	// product makes its own as soon as from rows: [column/cols][row][cols columns], in
	// bfloat16 [column/32][row/2][32 columns][2 rows].
	ForBackward
)

// PanelRows is the number of rows of which SetRows takes multiples.
const PanelRows = tileSide

// laid is a weight in panels.
type laid struct {
	layout Layout
	half   bool // in bfloat16, filled up with zeros to multiples of 32 both ways
	n      int  // rows
	words  []float32
	steps  int // of a panel
	cols   int // words of a step
}

// NewMatrix makes an (n, k) Matrix of zeros, for SetRows to fill: in bfloat16, and Half, or in
// float32. It lies as asked where the sizes fill whole panels and products have a use for it
// as they are computed now, and by rows otherwise; values and results are the same.
func NewMatrix(n, k int, half bool, layout Layout) Matrix {
	w := Matrix{N: n, K: k, Half: half}
	panels, steps, cols := layout.panels(n, k, half)
	switch {
	case panels > 0:
		var words []float32
		w.laid = &laid{layout, half, n, growAligned(&words, panels*steps*cols), steps, cols}
	case half:
		w.BF16 = make([]byte, 2*n*k)
	default:
		w.F32 = make([]float32, n*k)
	}
	return w
}

// MatrixBytes is the memory of what NewMatrix makes.
func MatrixBytes(n, k int, half bool, layout Layout) int64 {
	panels, steps, cols := layout.panels(n, k, half)
	switch {
	case panels > 0:
		return 4 * int64(panels) * int64(steps) * int64(cols)
	case half:
		return 2 * int64(n) * int64(k)
	}
	return 4 * int64(n) * int64(k)
}

// panels is how many panels NewMatrix makes, the steps of each and the words of a step. There
// are none where rows stay rows.
func (l Layout) panels(n, k int, half bool) (panels, steps, cols int) {
	cols = panelCols(half)
	stepsOf := func(terms int) int {
		if half {
			return roundUp(terms, tileSide) / 2
		}
		return terms
	}
	switch {
	case half && halfNow() == widened:
	case l == ForForward && n%cols == 0:
		return n / cols, stepsOf(k), cols
	case l == ForBackward && k%cols == 0:
		return k / cols, stepsOf(n), cols
	}
	return 0, 0, 0
}

// panelCols is the width of the panels that products take now.
func panelCols(half bool) int {
	if half {
		return tileSide
	}
	return tileSets[impl].wide.cols
}

// SetRows sets rows from lo on of a matrix that NewMatrix made to x, whole rows, rounded where
// it is in bfloat16. Both are multiples of PanelRows, but for rows up to the last. Calls for other
// rows may run at once.
func (w *Matrix) SetRows(lo int, x []float32) {
	rows := len(x) / max(w.K, 1)
	if lo < 0 || rows*w.K != len(x) || lo+rows > w.N {
		panic(fmt.Sprintf("kernel: SetRows: %d values from row %d on of a (%d, %d) matrix", len(x), lo, w.N, w.K))
	}
	switch {
	case w.F32 != nil:
		copy(w.F32[lo*w.K:], x)
		return
	case w.laid == nil:
		F32ToBF16(w.BF16[2*lo*w.K:2*(lo+rows)*w.K], x)
		return
	}
	if lo%PanelRows != 0 || rows%PanelRows != 0 && lo+rows < w.N {
		panic(fmt.Sprintf("kernel: SetRows: rows [%d, %d) of %d in panels of %d", lo, lo+rows, w.N, PanelRows))
	}
	ws := workspaces.get()
	defer workspaces.put(ws)
	source := Matrix{N: rows, K: w.K, F32: x}
	for r := 0; r < rows; r += PanelRows {
		n := min(rows-r, PanelRows)
		if w.laid.half {
			words, stride := source.halfRows(ws, r, r+n, PanelRows, tileSide, 1)
			w.laid.set(lo+r, words, stride, PanelRows)
		} else {
			w.laid.set(lo+r, x[r*w.K:], w.K, n)
		}
	}
}

// set sets rows of x, whose words lie at a stride that is their number, from row lo on.
func (l *laid) set(lo int, x []float32, stride, rows int) {
	switch {
	case l.layout == ForForward:
		for r := 0; r < rows; r += l.cols {
			transpose(l.words[(lo+r)*l.steps:], l.cols, x[r*stride:], stride, l.cols, stride)
		}
	case l.half:
		interleave(l.words[lo/2*l.cols:], x, stride, rows/2, stride/(tileSide/2), l.steps*l.cols)
	default:
		for c := 0; c < stride; c += l.cols {
			panel := l.words[c*l.steps+lo*l.cols:]
			for r := range rows {
				copy(panel[r*l.cols:(r+1)*l.cols], x[r*stride+c:])
			}
		}
	}
}

// lies reports whether products that are computed in bfloat16, or in float32, read w where it
// lies, whole panels of such a layout.
func (w *Matrix) lies(layout Layout, half bool) bool {
	l := w.laid
	if l == nil || l.layout != layout || l.half != half || l.cols != panelCols(half) {
		return false
	}
	if layout == ForBackward && !half {
		return true
	}
	return w.base%l.cols == 0 && (w.N%l.cols == 0 || w.base+w.N == l.n)
}

// widen writes rows [lo, hi) to dst (hi−lo, k) as float32.
func (l *laid) widen(dst []float32, k, lo, hi int) {
	switch {
	case l.layout == ForBackward && l.half:
		for i := lo; i < hi; i++ {
			row, up := dst[(i-lo)*k:(i-lo+1)*k], 16*(^i&1)
			for j := 0; j < k; j += tileSide {
				words := (*[tileSide]float32)(l.words[j*l.steps+i/2*tileSide:])
				for c, word := range words {
					row[j+c] = math.Float32frombits(math.Float32bits(word) << up &^ 0xffff)
				}
			}
		}
	case l.layout == ForBackward:
		for j := 0; j < k; j += l.cols {
			panel := l.words[j*l.steps+lo*l.cols:]
			for i := range hi - lo {
				copy(dst[i*k+j:i*k+j+l.cols], panel[i*l.cols:])
			}
		}
	case l.half:
		for i := lo; i < hi; i++ {
			row, words := dst[(i-lo)*k:(i-lo+1)*k], l.words[i/tileSide*l.steps*tileSide+i%tileSide:]
			for j := range row {
				row[j] = math.Float32frombits(math.Float32bits(words[j/2*tileSide]) << (16 * (^j & 1)) &^ 0xffff)
			}
		}
	default:
		for i := lo; i < hi; {
			n := min(l.cols-i%l.cols, hi-i)
			transpose(dst[(i-lo)*k:], k, l.words[i/l.cols*l.steps*l.cols+i%l.cols:], l.cols, k, n)
			i += n
		}
	}
}

// row writes row i, of k values, to dst in bfloat16.
func (l *laid) row(ws *workspace, dst []byte, i int) {
	wide := growAligned(&ws.rowsBuf, len(dst)/2)
	l.widen(wide, len(wide), i, i+1)
	F32ToBF16(dst, wide)
}

// columns brings rows [lo, lo+n) of k values of a weight that lies ForBackward into a panel of the
// forward product, of so many columns; all of them in bfloat16.
func (l *laid) columns(dst []float32, cols, lo, n, k int) {
	if l.half {
		src := l.words[lo/2*tileSide:]
		_, _ = dst[k/2*tileSide-1], src[(k/tileSide-1)*l.steps*tileSide+tileSide*tileSide/2-1]
		pairColumns(&dst[0], &src[0], k/tileSide, l.steps*tileSide)
		return
	}
	for j := 0; j < k; j += l.cols {
		transpose(dst[j*cols:], cols, l.words[j*l.steps+lo*l.cols:], l.cols, n, l.cols)
	}
}
