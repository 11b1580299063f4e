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
		kernel.PackFive(dst[2:], func(i int) byte { return g.code(r, i, -16, 15) })
	})
}

func weightedQ5_1(dst []byte, src, importance []float32) {
	weightedBlocks(dst, src, importance, 24, fitAffine(31), func(dst []byte, g *group, r int) {
		putHalf(dst, g.fit.Scale[r])
		putHalf(dst[2:], -g.fit.Min[r])
		kernel.PackFive(dst[4:], func(i int) byte { return g.code(r, i, 0, 31) })
	})
}

// nearestIQ4 is the place in iq4Values of the value nearest to v, the higher of two as near.
func nearestIQ4(v float32) byte {
	if v <= iq4Values[0] {
		return 0
	}
	if v >= iq4Values[15] {
		return 15
	}
	low, high := 0, 15
	for high-low > 1 {
		if mid := (low + high) / 2; v < iq4Values[mid] {
			high = mid
		} else {
			low = mid
		}
	}
	if v-iq4Values[low] < iq4Values[high]-v {
		return byte(low)
	}
	return byte(high)
}

// fitIQ4 is the scale of a run of 32 values coded by iq4Values.
func fitIQ4(x, w []float32) float32 {
	largest := kernel.Peak(x)
	if magnitude(largest) < 1e-15 {
		return 0
	}
	sums := func(inverse float32) (qx, qq float32) {
		for i, v := range x {
			q := iq4Values[nearestIQ4(inverse*v)]
			qx += float32(float32(w[i]*q) * v)
			qq += float32(float32(w[i]*q) * q)
		}
		return qx, qq
	}
	var scale float32
	qx, qq := sums(1 / (-largest / iq4Values[0]))
	if qq > 0 {
		scale = qx / qq
	}
	best := scale * qx
	for s := -7; s <= 7; s++ {
		qx, qq := sums((float32(s) + iq4Values[0]) / largest)
		if qq > 0 && float32(qx*qx) > float32(best*qq) {
			scale = qx / qq
			best = scale * qx
		}
	}
	return scale
}

// weighIQ4 fills in the weights of a run: with importance as weigh does, else squares.
func weighIQ4(weights, values, importance []float32, sigma2 float32) {
	if importance != nil {
		weigh(weights, values, importance, sigma2)
		return
	}
	for i, v := range values {
		weights[i] = v * v
	}
}

// at is the importance of n columns from one on, nil if there is none.
func at(importance []float32, column, n int) []float32 {
	if importance == nil {
		return nil
	}
	column %= len(importance)
	return importance[column : column+n]
}

func encodeIQ4NL(dst []byte, src, importance []float32) {
	var weights [32]float32
	for column := 0; column < len(src); column += 32 {
		x := src[column : column+32]
		weighIQ4(weights[:], x, at(importance, column, 32), squares(x)*(2./32))
		scale := fitIQ4(x, weights[:])
		inverse := reciprocal(scale)
		putHalf(dst, scale)
		putFour(dst[2:18], func(i int) byte { return nearestIQ4(inverse * x[i]) })
		dst = dst[18:]
	}
}

func encodeIQ4XS(dst []byte, src, importance []float32) {
	var weights [32]float32
	var scales [8]float32
	for column := 0; column < len(src); column += 256 {
		x := src[column : column+256]
		sigma2 := squares(x) * (2. / 256)
		for j := range scales {
			run := x[32*j:][:32]
			weighIQ4(weights[:], run, at(importance, column+32*j, 32), sigma2)
			scales[j] = fitIQ4(run, weights[:])
		}
		d := -kernel.Peak(scales[:]) / 32
		inverse := reciprocal(d)
		putHalf(dst, d)
		clear(dst[4:8])
		var high uint16
		for j, s := range scales {
			l := max(-32, min(31, kernel.Nearest(inverse*s)))
			step := reciprocal(d * float32(l))
			run := x[32*j:][:32]
			putFour(dst[8+16*j:][:16], func(i int) byte { return nearestIQ4(step * run[i]) })
			code := l + 32
			dst[4+j/2] |= byte(code&15) << (4 * (j % 2))
			high |= uint16(code>>4) << (2 * j)
		}
		binary.LittleEndian.PutUint16(dst[2:], high)
		dst = dst[136:]
	}
}
