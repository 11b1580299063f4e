package kernel

import "encoding/binary"

// This file holds ggml's formats with super-blocks of 256 values: the scales
// (and minimums) of its sub-blocks are themselves small integers times one or
// two half-precision numbers. Value i of a super-block is at dst[i]; the
// products are taken as (d*scale)*q - (dmin*min), each rounded to float32.

func decodeQ2_KGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[84:] {
		scales, qs := src[:16], src[16:80]
		d, dmin := halfAt(src[80:]), halfAt(src[82:])
		for j, s := range scales { // 16 sub-blocks of 16 values
			sc, m := d*float32(s&15), dmin*float32(s>>4)
			shift := 2 * (j % 8 / 2)
			q := qs[32*(j/8)+16*(j%2):][:16]
			x := dst[16*j:][:16]
			for i := range x {
				x[i] = float32(sc*float32(q[i]>>shift&3)) - m
			}
		}
	}
}

func decodeQ3_KGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[110:] {
		hmask, qs, scales, d := src[:32], src[32:96], src[96:108], halfAt(src[108:])
		for j := range 16 { // sub-blocks of 16 values
			low := scales[j%8] >> (4 * (j / 8)) & 15
			high := scales[8+j%4] >> (2 * (j / 4)) & 3
			sc := d * float32(int(low|high<<4)-32)
			shift, bit := 2*(j%8/2), j/2
			q := qs[32*(j/8)+16*(j%2):][:16]
			h := hmask[16*(j%2):][:16]
			x := dst[16*j:][:16]
			for i := range x {
				// The third bit says that 4 is not to be taken off.
				x[i] = sc * float32(int(q[i]>>shift&3|h[i]>>bit&1<<2)-4)
			}
		}
	}
}

// scaleMin unpacks the 6-bit scale and minimum of sub-block j from the 12
// bytes that hold eight of each.
func scaleMin(s []byte, j int) (scale, minimum float32) {
	if j < 4 {
		return float32(s[j] & 63), float32(s[j+4] & 63)
	}
	return float32(s[j+4]&15 | s[j-4]>>6<<4), float32(s[j+4]>>4 | s[j]>>6<<4)
}

func decodeQ4_KGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[144:] {
		d, dmin, scales, qs := halfAt(src), halfAt(src[2:]), src[4:16], src[16:144]
		for j := range 8 { // sub-blocks of 32 values
			scale, minimum := scaleMin(scales, j)
			sc, m := d*scale, dmin*minimum
			shift := 4 * (j % 2)
			q := qs[32*(j/2):][:32]
			x := dst[32*j:][:32]
			for i := range x {
				x[i] = float32(sc*float32(q[i]>>shift&15)) - m
			}
		}
	}
}

func decodeQ5_KGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[176:] {
		d, dmin, scales, high, qs := halfAt(src), halfAt(src[2:]), src[4:16], src[16:48], src[48:176]
		for j := range 8 { // sub-blocks of 32 values
			scale, minimum := scaleMin(scales, j)
			sc, m := d*scale, dmin*minimum
			shift := 4 * (j % 2)
			q := qs[32*(j/2):][:32]
			x := dst[32*j:][:32]
			for i := range x {
				x[i] = float32(sc*float32(q[i]>>shift&15|high[i]>>j&1<<4)) - m
			}
		}
	}
}

func decodeQ6_KGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[210:] {
		ql, qh, scales, d := src[:128], src[128:192], src[192:208], halfAt(src[208:])
		for j := range 16 { // sub-blocks of 16 values
			sc := d * float32(int8(scales[j]))
			// Half H = j/8 of the super-block has four quarters of 32 values: 0 and
			// 1 in low nibbles, 2 and 3 in high ones.
			quarter, part := j%8/2, 16*(j%2)
			low := ql[64*(j/8)+32*(quarter%2)+part:][:16]
			high := qh[32*(j/8)+part:][:16]
			x := dst[16*j:][:16]
			for i := range x {
				q := low[i]>>(4*(quarter/2))&15 | high[i]>>(2*quarter)&3<<4
				x[i] = sc * float32(int(q)-32)
			}
		}
	}
}

func decodeIQ4_XSGeneric(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[256:], src[136:] {
		d, high, low, qs := halfAt(src), binary.LittleEndian.Uint16(src[2:]), src[4:8], src[8:136]
		for j := range 8 { // sub-blocks of 32 values
			scale := int(low[j/2]>>(4*(j%2))&15) | int(high>>(2*j)&3)<<4
			sc := d * float32(scale-32)
			x := dst[32*j:][:32]
			for i, q := range qs[16*j:][:16] {
				x[i] = sc * IQ4Values[q&15]
				x[i+16] = sc * IQ4Values[q>>4]
			}
		}
	}
}
