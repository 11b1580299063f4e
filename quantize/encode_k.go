package quantize

import (
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// This file encodes ggml's super-blocks: Q2_K to Q6_K. Sub-blocks are runs of 16 or 32
// values, of which package kernel fits sixteen at once; the scales it finds are then
// quantized themselves, and the codes made anew for what is left of them. With the
// importance of each column, errors are weighed by it, and more is tried.

// A group is sixteen runs of values in work, in the two orders they are needed in.
type group struct {
	n            int          // values a run: 16 or 32
	values       [512]float32 // run r at n·r
	weights      [512]float32 // of the errors, likewise
	x, w         [512]float32 // value i of run r at 16·i + r
	fit          kernel.Fit
	codes, found [512]byte // as x
	plus         [kernel.Runs]float32
	over         [kernel.Runs]float32
}

// fill takes the next runs of src, of which the last group may have fewer than sixteen: the
// others are zeros. It returns how many values it took.
func (g *group) fill(src []float32) int {
	n := copy(g.values[:kernel.Runs*g.n], src)
	clear(g.values[n:])
	clear(g.weights[n:])
	return n
}

func (g *group) run(r int) (values, weights []float32) {
	return g.values[g.n*r:][:g.n], g.weights[g.n*r:][:g.n]
}

// lanes lays values and weights out as the kernels take them.
func (g *group) lanes() {
	n := kernel.Runs * g.n
	kernel.ToLanes(g.x[:n], g.values[:n], g.n)
	kernel.ToLanes(g.w[:n], g.weights[:n], g.n)
}

// encode makes the codes of all runs: (x + plus) / over, from low to high, less low. A run whose
// step came out as 0 keeps the codes that were found with its scale, which are found, or where that is
// nil follow from the fit.
func (g *group) encode(low, high int, found []byte) {
	n := kernel.Runs * g.n
	kernel.RunCodes(g.codes[:n], g.x[:n], &g.plus, &g.over, low, high)
	for r, d := range g.over {
		if d != 0 {
			continue
		}
		for i := range g.n {
			code := byte(0)
			if found != nil {
				code = found[kernel.Runs*i+r]
			} else if g.fit.Inverse[r] != 0 {
				code = byte(g.fit.Code(r, g.x[kernel.Runs*i+r], low, high) - low)
			}
			g.codes[kernel.Runs*i+r] = code
		}
	}
}

// squares is the sum of the squares of x.
func squares(x []float32) float32 {
	var s float32
	for _, v := range x {
		s += float32(v * v)
	}
	return s
}

func root(v float32) float32 { return float32(math.Sqrt(float64(v))) }

// weigh sets the weight of every value to its column's importance times a mean of the size of
// its neighbours and its own: sigma2 is the neighbours' mean square.
func weigh(weights, values, importance []float32, sigma2 float32) {
	for i, v := range values {
		weights[i] = importance[i] * root(sigma2+float32(v*v))
	}
}

// sum adds up in order.
func sum(x []float32) float32 {
	var s float32
	for _, v := range x {
		s += v
	}
	return s
}

// affineK is a format of super-blocks whose sub-blocks have a scale and a minimum.
type affineK struct {
	run    int     // values a sub-block
	levels float32 // the largest code of a scale or minimum
	sigma  float32 // how many times the mean square counts in weights with importance
	plain  kernel.AffineSearch
	size   int // bytes of a super-block
	// weights are those without importance.
	weights func(weights, values []float32)
	// pack stores a super-block: the codes of its scales and minimums, d and dmin, and its
	// values' codes, which begin at codes[0] and have a sub-block every lane.
	pack func(dst []byte, scales, mins []byte, d, dmin uint16, codes []byte)
}

var (
	q2k = affineK{16, 15, 1, kernel.AffineSearch{Top: 3, First: -0.5, Step: 0.1, Steps: 15, Absolute: true}, 84, magnitudes, packQ2K}
	q4k = affineK{32, 63, 2, kernel.AffineSearch{Top: 15, First: -1, Step: 0.1, Steps: 20}, 144, aboveMean, packQ4K}
	q5k = affineK{32, 63, 2, kernel.AffineSearch{Top: 31, First: -0.5, Step: 0.1, Steps: 15}, 176, aboveMean, packQ5K}
)

// weighted is the search with importance.
func weighted(top int) kernel.AffineSearch {
	return kernel.AffineSearch{Top: top, First: -0.9, Step: 0.05, Steps: 36}
}

func magnitudes(weights, values []float32) {
	for i, v := range values {
		weights[i] = magnitude(v)
	}
}

func aboveMean(weights, values []float32) {
	mean := root(squares(values) / float32(len(values)))
	for i, v := range values {
		weights[i] = mean + magnitude(v)
	}
}

func (k *affineK) encode(dst []byte, src, importance []float32) {
	g := &group{n: k.run}
	per := 256 / k.run // sub-blocks of a super-block
	search := k.plain
	if importance != nil {
		search = weighted(search.Top)
	}
	for column := 0; len(src) > 0; {
		n := g.fill(src)
		k.weigh(g, n, importance, column)
		g.lanes()
		kernel.FitAffine(&g.fit, g.x[:16*k.run], g.w[:16*k.run], search)
		var scales, mins [kernel.Runs]byte
		var d, dmin [kernel.Runs]uint16
		for b := 0; b < n/k.run; b += per {
			s, m := g.fit.Scale[b:b+per], g.fit.Min[b:b+per]
			if importance == nil {
				d[b], dmin[b] = k.steps(scales[b:], s), k.steps(mins[b:], m)
			} else {
				var total [16]float32
				for j := range per {
					_, w := g.run(b + j)
					total[j] = sum(w)
				}
				d[b] = kernel.F16Bits(positiveCodes(scales[b:b+per], s, total[:per], int(k.levels)))
				dmin[b] = kernel.F16Bits(positiveCodes(mins[b:b+per], m, total[:per], int(k.levels)))
			}
			for j := b; j < b+per; j++ {
				g.over[j] = kernel.F16Value(d[b]) * float32(scales[j])
				g.plus[j] = kernel.F16Value(dmin[b]) * float32(mins[j])
			}
		}
		g.encode(0, search.Top, nil)
		for b := 0; b < n/k.run; b += per {
			k.pack(dst[:k.size], scales[b:], mins[b:], d[b], dmin[b], g.codes[b:])
			dst = dst[k.size:]
		}
		src = src[n:]
		if importance != nil {
			column = (column + n) % len(importance)
		}
	}
}

// weigh fills in the weights of the n values taken, the first of which is of a column.
func (k *affineK) weigh(g *group, n int, importance []float32, column int) {
	if importance == nil {
		for r := range n / k.run {
			values, weights := g.run(r)
			k.weights(weights, values)
		}
		return
	}
	weighSuper(g.weights[:n], g.values[:n], importance, column, k.sigma)
}

// weighSuper weighs whole super-blocks, each by its own mean square times sigma.
func weighSuper(weights, values, importance []float32, column int, sigma float32) {
	for b := 0; b < len(values); b += 256 {
		x := values[b : b+256]
		weigh(weights[b:b+256], x, importance[column:column+256], sigma*squares(x)/256)
		column = (column + 256) % len(importance)
	}
}

// steps quantizes the scales or minimums of a super-block, none of them negative, and returns
// their step as a half.
func (k *affineK) steps(codes []byte, scales []float32) uint16 {
	var top float32
	for _, s := range scales {
		if s > top {
			top = s
		}
	}
	if !(top > 0) {
		return 0
	}
	inverse := k.levels / top
	for j, s := range scales {
		codes[j] = byte(min(int(k.levels), int(byte(kernel.Nearest(inverse*s)))))
	}
	return kernel.F16Bits(top / k.levels)
}

// positiveCodes finds codes from 0 to top for the values of x, none of them negative, and the
// scale that goes with them: first the best of nine scales, then code after code is moved as
// long as that loses less.
func positiveCodes(codes []byte, x, w []float32, top int) float32 {
	var peak float32
	for _, v := range x {
		if v > peak {
			peak = v
		}
	}
	if peak < 1e-15 {
		clear(codes)
		return 0
	}
	loss := func(inverse float32) float32 {
		scale := 1 / inverse
		var s float32
		for i, v := range x {
			d := v - float32(scale*float32(min(top, kernel.Nearest(inverse*v))))
			s += float32(float32(w[i]*d) * d)
		}
		return s
	}
	inverse := float32(top) / peak
	best := loss(inverse)
	for s := -4; s <= 4; s++ {
		if s == 0 {
			continue
		}
		try := (float32(0.1*float32(s)) + float32(top)) / peak
		if l := loss(try); l < best {
			best, inverse = l, try
		}
	}
	var lx, ll float32
	for i, v := range x {
		codes[i] = byte(min(top, kernel.Nearest(inverse*v)))
		l := float32(codes[i])
		lx += float32(float32(w[i]*v) * l)
		ll += float32(float32(w[i]*l) * l)
	}
	for changed, turn := true, 0; changed && turn < 5; turn++ {
		changed = false
		for i, v := range x {
			l := float32(codes[i])
			lxNow := lx - float32(float32(w[i]*v)*l)
			llNow := ll - float32(float32(w[i]*l)*l)
			if !(lxNow > 0 && llNow > 0) {
				continue
			}
			code := min(top, kernel.Nearest(float32(v*llNow)/lxNow))
			if code == int(codes[i]) {
				continue
			}
			l = float32(code)
			lxNow += float32(float32(w[i]*v) * l)
			llNow += float32(float32(w[i]*l) * l)
			if float32(float32(lxNow*lxNow)*ll) > float32(float32(lx*lx)*llNow) {
				codes[i], lx, ll, changed = byte(code), lxNow, llNow, true
			}
		}
	}
	if ll > 0 {
		return lx / ll
	}
	return 0
}

// code is value i of sub-block j among codes that begin at the first sub-block of a
// super-block.
func laneCode(codes []byte, j, i int) byte { return codes[kernel.Runs*i+j] }

func packQ2K(dst []byte, scales, mins []byte, d, dmin uint16, codes []byte) {
	for j := range 16 {
		dst[j] = scales[j] | mins[j]<<4
	}
	packTwoBits(dst[16:80], func(j, i int) byte { return laneCode(codes, j, i) })
	putHalfBits(dst[80:], d)
	putHalfBits(dst[82:], dmin)
}

func putHalfBits(dst []byte, v uint16) { dst[0], dst[1] = byte(v), byte(v>>8) }

// packTwoBits stores codes of two bits, of sub-blocks j of 16 values i: byte l of a half holds
// values l, l+32, l+64 and l+96 of it.
func packTwoBits(dst []byte, code func(j, i int) byte) {
	for h := range 2 {
		for l := range 32 {
			j, i := 8*h+l/16, l%16
			dst[32*h+l] = code(j, i) | code(j+2, i)<<2 | code(j+4, i)<<4 | code(j+6, i)<<6
		}
	}
}

// putScaleMins packs eight 6-bit scales and minimums into 12 bytes; scaleMin reads them.
func putScaleMins(dst []byte, scales, mins []byte) {
	for j := range 4 {
		dst[j] = scales[j] | scales[j+4]>>4<<6
		dst[j+4] = mins[j] | mins[j+4]>>4<<6
		dst[j+8] = scales[j+4]&15 | mins[j+4]&15<<4
	}
}

func packQ4K(dst []byte, scales, mins []byte, d, dmin uint16, codes []byte) {
	putHalfBits(dst, d)
	putHalfBits(dst[2:], dmin)
	putScaleMins(dst[4:16], scales, mins)
	for j := 0; j < 8; j += 2 {
		for i := range 32 {
			dst[16+16*j+i] = laneCode(codes, j, i) | laneCode(codes, j+1, i)<<4
		}
	}
}

func packQ5K(dst []byte, scales, mins []byte, d, dmin uint16, codes []byte) {
	putHalfBits(dst, d)
	putHalfBits(dst[2:], dmin)
	putScaleMins(dst[4:16], scales, mins)
	for i := range 32 {
		var high byte
		for j := 0; j < 8; j += 2 {
			a, b := laneCode(codes, j, i), laneCode(codes, j+1, i)
			dst[48+16*j+i] = a&15 | b&15<<4
			high |= a>>4<<j | b>>4<<(j+1)
		}
		dst[16+i] = high
	}
}

// encodeQ6K: sub-blocks of 16 with a scale of either sign and codes about 0.
func encodeQ6K(dst []byte, src, importance []float32) {
	g := &group{n: 16}
	for column := 0; len(src) > 0; dst, src = dst[210:], src[256:] {
		g.fill(src[:256])
		if importance == nil {
			for i, v := range g.values[:256] {
				g.weights[i] = v * v
			}
		} else {
			copy(g.weights[:256], importance[column:])
			column = (column + 256) % len(importance)
		}
		g.lanes()
		kernel.FitSymmetric(&g.fit, g.x[:256], g.w[:256], 32)
		largest := peak(g.fit.Scale[:])
		if magnitude(largest) < 1e-15 {
			clear(dst[:210])
			continue
		}
		inverse := -128 / largest
		d := kernel.F16Bits(1 / inverse)
		for j, s := range g.fit.Scale {
			code := int8(min(127, kernel.Nearest(inverse*s)))
			dst[192+j] = byte(code)
			g.over[j] = kernel.F16Value(d) * float32(code)
		}
		putHalfBits(dst[208:], d)
		g.encode(-32, 31, nil)
		for h := range 2 {
			ql, qh := dst[64*h:], dst[128+32*h:]
			for l := range 32 {
				j, i := 8*h+l/16, l%16
				a, b, c, e := laneCode(g.codes[:], j, i), laneCode(g.codes[:], j+2, i), laneCode(g.codes[:], j+4, i), laneCode(g.codes[:], j+6, i)
				ql[l], ql[l+32] = a&15|c&15<<4, b&15|e&15<<4
				qh[l] = a>>4 | b>>4<<2 | c>>4<<4 | e>>4<<6
			}
		}
	}
}
