package quantize

import (
	"encoding/binary"
	"math"
	"math/bits"
	"sync"

	"github.com/graftml/graft/internal/kernel"
)

// This file holds ggml's formats below four bits a value that choose from a table: IQ1 to IQ3 take
// four or eight neighbouring magnitudes at once from a grid (iq_grids.go), TQ holds one of three
// values, Q1_0 one of two, Q2_0 one of four. They can only be read.

// evenSigns are the signs of eight values, of which seven bits are stored: the eighth makes the
// number of those below zero even.
func evenSigns(s uint32) byte { return byte(s&127) | byte(bits.OnesCount32(s&127)&1)<<7 }

// signed writes values of a grid times scale, negated where signs has a bit.
func signed(dst, values []float32, scale float32, signs byte) {
	_ = dst[len(values)-1]
	for i, v := range values {
		// The sign bit alone changes, as multiplying by −1 would.
		dst[i] = math.Float32frombits(math.Float32bits(scale*v) ^ uint32(signs>>i&1)<<31)
	}
}

// grid8 makes the values of entries of 8 digits in base 3, each an index in levels, one entry after
// the other.
func grid8(entries []uint16, levels [3]float32) func() []float32 {
	return sync.OnceValue(func() []float32 {
		var x []float32
		for _, e := range entries {
			for range 8 {
				x, e = append(x, levels[e%3]), e/3
			}
		}
		return x
	})
}

// grid4 makes those of entries of 4 digits in base 8.
func grid4(entries []uint16, levels [8]float32) func() []float32 {
	return sync.OnceValue(func() []float32 {
		var x []float32
		for _, e := range entries {
			for range 4 {
				x, e = append(x, levels[e%8]), e/8
			}
		}
		return x
	})
}

var (
	iq2Levels  = [3]float32{8, 25, 43}
	iq3xLevels = [8]float32{4, 12, 20, 28, 36, 44, 52, 62}
	iq3sLevels = [8]float32{1, 3, 5, 7, 9, 11, 13, 15}

	iq2xxsValues, iq2xsValues = grid8(iq2xxsGrid[:], iq2Levels), grid8(iq2xsGrid[:], iq2Levels)
	iq2sValues                = grid8(iq2sGrid[:], iq2Levels)
	iq3xxsValues, iq3sValues  = grid4(iq3xxsGrid[:], iq3xLevels), grid4(iq3sGrid[:], iq3sLevels)
	// The values of IQ1 are −1, 0 and 1, moved by an eighth up, or down.
	iq1Up, iq1Down = grid8(iq1Grid[:], [3]float32{-0.875, 0.125, 1.125}), grid8(iq1Grid[:], [3]float32{-1.125, -0.125, 0.875})
)

// decodeIQ2XXS: for each 32 values four grid bytes and a word, 4 × 7 bits of signs below 4 bits of
// scale.
func decodeIQ2XXS(dst []float32, src []byte) {
	grid := iq2xxsValues()
	for ; len(dst) > 0; dst, src = dst[256:], src[66:] {
		d := half(src)
		for j := range 8 {
			q := src[2+8*j:][:8]
			word := binary.LittleEndian.Uint32(q[4:])
			scale := d * (0.5 + float32(word>>28)) * 0.25
			for k := range 4 {
				signed(dst[32*j+8*k:], grid[8*int(q[k]):][:8], scale, evenSigns(word>>(7*k)))
			}
		}
	}
}

// decodeIQ2XS: for each 8 values 9 bits of grid below 7 of signs; a scale of 4 bits for each 16.
func decodeIQ2XS(dst []float32, src []byte) {
	grid := iq2xsValues()
	for ; len(dst) > 0; dst, src = dst[256:], src[74:] {
		d, qs, scales := half(src), src[2:66], src[66:74]
		for j := range 32 {
			q := binary.LittleEndian.Uint16(qs[2*j:])
			scale := d * (0.5 + float32(scales[j/4]>>(j/2%2*4)&15)) * 0.25
			signed(dst[8*j:], grid[8*int(q&511):][:8], scale, evenSigns(uint32(q>>9)))
		}
	}
}

// decodeIQ2S: 8 bits of grid, a byte of signs and 2 more bits of grid for each 8 values.
func decodeIQ2S(dst []float32, src []byte) {
	grid := iq2sValues()
	for ; len(dst) > 0; dst, src = dst[256:], src[82:] {
		d, qs, signs, high, scales := half(src), src[2:34], src[34:66], src[66:74], src[74:82]
		for j := range 32 {
			at := int(qs[j]) | int(high[j/4]>>(j%4*2)&3)<<8
			scale := d * (0.5 + float32(scales[j/4]>>(j/2%2*4)&15)) * 0.25
			signed(dst[8*j:], grid[8*at:][:8], scale, signs[j])
		}
	}
}

// decodeIQ3XXS: a grid byte for each 4 values, then for each 32 a word as in IQ2_XXS.
func decodeIQ3XXS(dst []float32, src []byte) {
	grid := iq3xxsValues()
	for ; len(dst) > 0; dst, src = dst[256:], src[98:] {
		d, qs, words := half(src), src[2:66], src[66:98]
		for j := range 8 {
			word := binary.LittleEndian.Uint32(words[4*j:])
			scale := d * (0.5 + float32(word>>28)) * 0.5
			for k := range 4 {
				s := evenSigns(word >> (7 * k))
				signed(dst[32*j+8*k:], grid[4*int(qs[8*j+2*k]):][:4], scale, s)
				signed(dst[32*j+8*k+4:], grid[4*int(qs[8*j+2*k+1]):][:4], scale, s>>4)
			}
		}
	}
}

// decodeIQ3S: 9 bits of grid and 4 of signs for each 4 values, 4 bits of scale for each 32.
func decodeIQ3S(dst []float32, src []byte) {
	grid := iq3sValues()
	for ; len(dst) > 0; dst, src = dst[256:], src[110:] {
		d, qs, high, signs, scales := half(src), src[2:66], src[66:74], src[74:106], src[106:110]
		for j := range 64 {
			at := int(qs[j]) | int(high[j/8]>>(j%8)&1)<<8
			scale := d * float32(1+2*int(scales[j/16]>>(j/8%2*4)&15))
			signed(dst[4*j:], grid[4*at:][:4], scale, signs[j/2]>>(j%2*4))
		}
	}
}

// decodeIQ1S: 11 bits of grid for each 8 values; for each 32 a scale of 3 bits and the sign of the
// eighth.
func decodeIQ1S(dst []float32, src []byte) {
	grids := [2][]float32{iq1Up(), iq1Down()}
	for ; len(dst) > 0; dst, src = dst[256:], src[50:] {
		d, qs, high := half(src), src[2:34], src[34:50]
		for j := range 8 {
			h := binary.LittleEndian.Uint16(high[2*j:])
			scale := d * float32(2*(h>>12&7)+1)
			for k := range 4 {
				at := int(qs[4*j+k]) | int(h>>(3*k)&7)<<8
				signed(dst[32*j+8*k:], grids[h>>15][8*at:][:8], scale, 0)
			}
		}
	}
}

// decodeIQ1M: as IQ1_S, with the sign of the eighth for each 8 values and a scale for each 16; the
// four upper bits of the scales' words make the half-precision scale of all.
func decodeIQ1M(dst []float32, src []byte) {
	grids := [2][]float32{iq1Up(), iq1Down()}
	for ; len(dst) > 0; dst, src = dst[256:], src[56:] {
		qs, high := src[:32], src[32:48]
		var words [4]uint16
		var all uint16
		for i := range words {
			words[i] = binary.LittleEndian.Uint16(src[48+2*i:])
			all |= words[i] >> 12 << (4 * i)
		}
		d := kernel.F16Value(all)
		for j := range 32 {
			h := high[j/2] >> (j % 2 * 4)
			scale := d * float32(2*(words[j/8]>>(j/2%4*3)&7)+1)
			signed(dst[8*j:], grids[h>>3&1][8*(int(qs[j])|int(h&7)<<8):][:8], scale, 0)
		}
	}
}

// decodeTQ1: five values a byte in base 3, the number scaled so that multiplying by 3 moves the
// next digit out at the top; four in the last four bytes.
func decodeTQ1(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[54:] {
		d, at := half(src[52:]), 0
		for _, run := range [3]struct{ from, bytes, digits int }{{0, 32, 5}, {32, 16, 5}, {48, 4, 4}} {
			power := byte(1)
			for range run.digits {
				for _, q := range src[run.from:][:run.bytes] {
					dst[at] = d * float32(int(uint16(q*power)*3>>8)-1)
					at++
				}
				power *= 3
			}
		}
	}
}

// decodeTQ2: four values a byte, 32 bytes apart in the order of values.
func decodeTQ2(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[66:] {
		d := half(src[64:])
		for i := range 256 {
			dst[i] = d * float32(int(src[i/128*32+i%32]>>(i/32%4*2)&3)-1)
		}
	}
}

func decodeQ1_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[128:], src[18:] {
		d := half(src)
		either := [2]float32{-d, d}
		for i := range 128 {
			dst[i] = either[src[2+i/8]>>(i%8)&1]
		}
	}
}

func decodeQ2_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[64:], src[18:] {
		d := half(src)
		for i := range 64 {
			dst[i] = float32(int(src[2+i/4]>>(i%4*2)&3)-1) * d
		}
	}
}

// decodeNVFP4: 16 values to a scale, an E4M3 number whose sign counts for nothing; the values are
// those of MXFP4. NaN is 0 to ggml, but with the sign bit a number.
func decodeNVFP4(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[64:], src[36:] {
		for j, s := range src[:4] {
			d := 0.5 * kernel.E4M3(s&127) // the table holds doubles
			switch s {
			case 0x7f:
				d = 0
			case 0xff:
				d = 240
			}
			x := dst[16*j:][:16]
			for i, q := range src[4+8*j:][:8] {
				x[i] = kernel.MXFP4Values[q&15] * d
				x[i+8] = kernel.MXFP4Values[q>>4] * d
			}
		}
	}
}
