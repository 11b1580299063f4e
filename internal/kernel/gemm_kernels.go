package kernel

// This file names the micro-kernels and chooses among them. A micro-kernel
// computes a small tile of C in registers: C (+)= alpha·sum over steps of a
// column of A times a row of B. The sum of one element runs over the steps in
// order, so all tiles of one implementation, and those of avx2 and avx512,
// give the same bits.

// tileShape is the size of a micro-kernel's tile of C.
type tileShape struct{ rows, cols int }

// The forms of micro-kernels: wide and narrow read A by rows (element (i, s)
// at i·lda + s) and B as a packed panel (s·cols + j); outer reads both by
// steps (A: s·lda + i, B: s·ldb + j).
type tileSet struct{ wide, narrow, outer tileShape }

var tileSets = [...]tileSet{
	generic: {tileShape{4, 4}, tileShape{4, 4}, tileShape{4, 4}},
	avx2:    {tileShape{6, 16}, tileShape{6, 16}, tileShape{4, 24}},
	avx512:  {tileShape{14, 32}, tileShape{24, 16}, tileShape{8, 48}},
}

// shortPairs is the tile of few rows of a product in pairs: those of a rank.
var shortPairs = tileShape{8, 32}

// maxTileRows bounds tileShape.rows, as padding of packed strips.
const maxTileRows = 24

// panelShape is the tile for the panel that begins cols columns before the end
// of the matrix: the narrow one if it holds what is left.
func panelShape(cols int) tileShape {
	set := &tileSets[impl]
	if cols <= set.narrow.cols {
		return set.narrow
	}
	return set.wide
}

// paddedCols is the number of columns of all panels together.
func paddedCols(cols int) int {
	wide := tileSets[impl].wide.cols
	full := cols / wide * wide
	if full < cols {
		full += panelShape(cols - full).cols
	}
	return full
}

// transposeBlock is the side of the squares that transposeBlocks works on.
func transposeBlock() int {
	if impl == avx512 {
		return 16
	}
	return 8
}

// genericRowTile is the reference of wide and narrow tiles.
func genericRowTile(steps int, a []float32, lda int, b []float32, c []float32, ldc int, alpha float32, acc bool) {
	var t [4][4]float32
	a0, a1, a2, a3 := a[:steps], a[lda:lda+steps], a[2*lda:2*lda+steps], a[3*lda:3*lda+steps]
	for s := range steps {
		addOuter(&t, a0[s], a1[s], a2[s], a3[s], (*[4]float32)(b[4*s:]))
	}
	storeGeneric(&t, c, ldc, alpha, acc)
}

// genericLaidTile is the reference of wide and narrow tiles of an A in panels.
func genericLaidTile(steps int, a []float32, lda int, b []float32, c []float32, ldc int, alpha float32, acc bool) {
	var t [4][4]float32
	for s := range steps {
		x := a[s/4*lda+s%4:]
		addOuter(&t, x[0], x[4], x[8], x[12], (*[4]float32)(b[4*s:]))
	}
	storeGeneric(&t, c, ldc, alpha, acc)
}

// genericOuterTile is the reference of outer tiles.
func genericOuterTile(steps int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, alpha float32, acc bool) {
	var t [4][4]float32
	for s := range steps {
		x := (*[4]float32)(a[s*lda:])
		addOuter(&t, x[0], x[1], x[2], x[3], (*[4]float32)(b[s*ldb:]))
	}
	storeGeneric(&t, c, ldc, alpha, acc)
}

// addOuter adds the outer product of a column of A and a row of B.
func addOuter(t *[4][4]float32, a0, a1, a2, a3 float32, b *[4]float32) {
	for j, v := range b {
		t[0][j] += a0 * v
		t[1][j] += a1 * v
		t[2][j] += a2 * v
		t[3][j] += a3 * v
	}
}

func storeGeneric(t *[4][4]float32, c []float32, ldc int, alpha float32, acc bool) {
	for i := range t {
		row := c[i*ldc : i*ldc+4]
		for j, v := range t[i] {
			// The conversion keeps the product rounded on its own, as storeTile needs it.
			v = float32(alpha * v)
			if acc {
				v += row[j]
			}
			row[j] = v
		}
	}
}

// genericDot is the reference of dot: out[r] = x · row r of w, for each row,
// in 32 partial sums.
func genericDot(out, x, w []float32, ldw int) {
	for r := range out {
		var lanes [32]float32
		row := w[r*ldw : r*ldw+len(x)]
		k := 0
		for ; k+32 <= len(x); k += 32 {
			u, v := (*[32]float32)(x[k:]), (*[32]float32)(row[k:])
			for l := range lanes {
				lanes[l] += u[l] * v[l]
			}
		}
		for l, v := range x[k:] {
			lanes[l] += v * row[k+l]
		}
		for width := 16; width > 0; width /= 2 {
			for l := range width {
				lanes[l] += lanes[l+width]
			}
		}
		out[r] = lanes[0]
	}
}
