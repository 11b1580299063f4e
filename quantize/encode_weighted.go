package quantize

import (
	"encoding/binary"

	"github.com/graftml/graft/internal/kernel"
)

// This file encodes ggml's blocks of 32 values where the importance of each column is known, and IQ4_NL
// and IQ4_XS, whose search is of the same kind with and without.

// weightedBlocks encodes rows in blocks of 32, sixteen at once, each value weighed by its
// importance and the mean square of its whole row.
func weightedBlocks(dst []byte, src, importance []float32, size int, fit func(g *group), pack func(dst []byte, g *group, r int)) {
	cols := len(importance)
	g := &group{n: 32}
	var sigma2 float32
	for at := 0; at < len(src); {
		n := g.fill(src[at:])
		for r := range n / 32 {
			column := (at + 32*r) % cols
			if column == 0 {
				row := src[at+32*r:][:cols]
				sigma2 = squares(row) / float32(cols)
			}
			values, weights := g.run(r)
			weigh(weights, values, importance[column:column+32], sigma2)
		}
		g.lanes()
		fit(g)
		for r := range n / 32 {
			pack(dst[:size], g, r)
			dst = dst[size:]
		}
		at += n
	}
}

// fitSymmetric fits codes from −top to top−1; code is that of value i, plus top.
func fitSymmetric(top int) func(g *group) {
	return func(g *group) { kernel.FitSymmetric(&g.fit, g.x[:], g.w[:], top) }
}

func fitAffine(top int) func(g *group) {
	return func(g *group) { kernel.FitAffine(&g.fit, g.x[:], g.w[:], weighted(top)) }
}

// code is value i of run r, coded as its fit has it, less low. A run of zeros has codes 0.
func (g *group) code(r, i, low, high int) byte {
	if g.fit.Inverse[r] == 0 {
		return 0
	}
	return byte(g.fit.Code(r, g.values[32*r+i], low, high) - low)
}

// putFour stores 32 codes of 4 bits.
func putFour(dst []byte, code func(i int) byte) {
	for i := range 16 {
		dst[i] = code(i) | code(i+16)<<4
	}
}

func weightedQ4_0(dst []byte, src, importance []float32) {
	weightedBlocks(dst, src, importance, 18, fitSymmetric(8), func(dst []byte, g *group, r int) {
		putHalf(dst, g.fit.Scale[r])
		putFour(dst[2:], func(i int) byte { return g.code(r, i, -8, 7) })
	})
}

func weightedQ4_1(dst []byte, src, importance []float32) {
	weightedBlocks(dst, src, importance, 20, fitAffine(15), func(dst []byte, g *group, r int) {
		putHalf(dst, g.fit.Scale[r])
		putHalf(dst[2:], -g.fit.Min[r])
		putFour(dst[4:], func(i int) byte { return g.code(r, i, 0, 15) })
	})
}

func weightedQ5_0(dst []byte, src, importance []float32) {
	weightedBlocks(dst, src, importance, 22, fitSymmetric(16), func(dst []byte, g *group, r int) {
		putHalf(dst, g.fit.Scale[r])
		putFive(dst[2:], func(i int) byte { return g.code(r, i, -16, 15) })
	})
}

func weightedQ5_1(dst []byte, src, importance []float32) {
	weightedBlocks(dst, src, importance, 24, fitAffine(31), func(dst []byte, g *group, r int) {
		putHalf(dst, g.fit.Scale[r])
		putHalf(dst[2:], -g.fit.Min[r])
		putFive(dst[4:], func(i int) byte { return g.code(r, i, 0, 31) })
	})
}

// iq4 encodes runs of 32 values by kernel.IQ4Values.
type iq4 struct{ group }

// search weighs the first n values by their importance, or where there is none by their square, and finds
// the scales of their runs. A value's neighbours are the span values it lies among.
func (g *iq4) search(n, span int, importance []float32, column int) {
	for at := 0; at < n; at += span {
		x, w := g.values[at:at+span], g.weights[at:at+span]
		if importance != nil {
			weigh(w, x, importance[column:column+span], squares(x)*(2/float32(span)))
			column = (column + span) % len(importance)
			continue
		}
		for i, v := range x {
			w[i] = v * v
		}
	}
	g.lanes()
	kernel.FitTable(&g.fit, g.x[:], g.w[:], &kernel.IQ4Values)
}

// put stores the codes of run r.
func (g *iq4) put(dst []byte, r int) {
	putFour(dst[:16], func(i int) byte { return laneCode(g.codes[:], r, i) })
}

func encodeIQ4NL(dst []byte, src, importance []float32) {
	g := &iq4{group{n: 32}}
	for column := 0; len(src) > 0; {
		n := g.fill(src)
		g.search(n, 32, importance, column)
		for r, s := range g.fit.Scale {
			g.over[r] = reciprocal(s)
		}
		kernel.TableCodes(g.codes[:], g.x[:], &g.over, &kernel.IQ4Values)
		for r := range n / 32 {
			putHalf(dst, g.fit.Scale[r])
			g.put(dst[2:], r)
			dst = dst[18:]
		}
		src = src[n:]
		if importance != nil {
			column = (column + n) % len(importance)
		}
	}
}

func encodeIQ4XS(dst []byte, src, importance []float32) {
	g := &iq4{group{n: 32}}
	for column := 0; len(src) > 0; {
		n := g.fill(src)
		g.search(n, 256, importance, column)
		var steps [kernel.Runs]int // of the scales, from −32 to 31
		var d [kernel.Runs]float32
		for b := 0; b < n/32; b += 8 {
			scales := g.fit.Scale[b : b+8]
			d[b] = -peak(scales) / 32
			inverse := reciprocal(d[b])
			for j, s := range scales {
				steps[b+j] = max(-32, min(31, kernel.Nearest(inverse*s)))
				g.over[b+j] = reciprocal(d[b] * float32(steps[b+j]))
			}
		}
		kernel.TableCodes(g.codes[:], g.x[:], &g.over, &kernel.IQ4Values)
		for b := 0; b < n/32; b += 8 {
			putHalf(dst, d[b])
			clear(dst[4:8])
			var high uint16
			for j, s := range steps[b : b+8] {
				dst[4+j/2] |= byte(s+32) & 15 << (4 * (j % 2))
				high |= uint16(s+32) >> 4 << (2 * j)
				g.put(dst[8+16*j:], b+j)
			}
			binary.LittleEndian.PutUint16(dst[2:], high)
			dst = dst[136:]
		}
		src = src[n:]
		if importance != nil {
			column = (column + n) % len(importance)
		}
	}
}
