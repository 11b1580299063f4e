package quantize

import "github.com/graftml/graft/internal/kernel"

// encodeQ3K: sub-blocks of 16 with a scale of 6 bits and either sign, and codes from −4 to 3.
func encodeQ3K(dst []byte, src, importance []float32) {
	g := &group{n: 16}
	for column := 0; len(src) > 0; dst, src = dst[110:], src[256:] {
		g.fill(src[:256])
		var scales [16]byte // plus 32
		var d uint16
		var found []byte
		if importance == nil {
			g.lanes()
			found = g.found[:256]
			kernel.FitDescent(&g.fit, found, g.x[:256], 4)
			d = q3Scales(&scales, &g.fit.Scale)
		} else {
			weighSuper(g.weights[:256], g.values[:256], importance, column, 2)
			column = (column + 256) % len(importance)
			g.lanes()
			kernel.FitSymmetric(&g.fit, g.x[:256], g.w[:256], 4)
			var total [16]float32
			for j := range total {
				_, w := g.run(j)
				total[j] = sum(w)
			}
			scale, inverse := kernel.SymmetricRun(g.fit.Scale[:], total[:], 32)
			d = kernel.F16Bits(scale)
			if inverse != 0 {
				for j, s := range g.fit.Scale {
					scales[j] = byte(max(-32, min(31, kernel.Nearest(inverse*s))) + 32)
				}
			}
		}
		for j, s := range scales {
			g.over[j] = kernel.F16Value(d) * float32(int(s)-32)
		}
		g.encode(-4, 3, found)
		packQ3K(dst[:110], &scales, d, g.codes[:256])
	}
}

// q3Scales quantizes scales by the largest of them, which becomes −32.
func q3Scales(codes *[16]byte, scales *[kernel.Runs]float32) uint16 {
	largest := peak(scales[:])
	if largest == 0 {
		return 0
	}
	inverse := -32 / largest
	for j, s := range scales {
		codes[j] = byte(max(-32, min(31, int(int8(kernel.Nearest(inverse*s))))) + 32)
	}
	return kernel.F16Bits(1 / inverse)
}

func packQ3K(dst []byte, scales *[16]byte, d uint16, codes []byte) {
	clear(dst[:32])
	for j := range 16 {
		for i := range 16 {
			dst[16*(j%2)+i] |= laneCode(codes, j, i) >> 2 << (j / 2)
		}
	}
	packTwoBits(dst[32:96], func(j, i int) byte { return laneCode(codes, j, i) & 3 })
	for j := range 8 {
		dst[96+j] = scales[j]&15 | scales[j+8]&15<<4
	}
	for j := range 4 {
		dst[104+j] = scales[j]>>4 | scales[j+4]>>4<<2 | scales[j+8]>>4<<4 | scales[j+12]>>4<<6
	}
	putHalfBits(dst[108:], d)
}
