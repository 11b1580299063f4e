package kernel

import "math"

// This file decodes numbers of 8 bits that stand alone: int8, and the floating-point numbers of the Open
// Compute Project (OFP8, 2023) in the two forms that safetensors stores, E4M3 without infinities
// ("F8_E4M3") and E5M2 ("F8_E5M2").

// E4M3 is the value of one E4M3 number.
func E4M3(b byte) float32 { return e4m3Values[b] }

// e4m3 computes it: bias 7, no infinities, one NaN of either sign.
func e4m3(b byte) float32 {
	e, m := int(b>>3&15), float64(b&7)
	v := math.Ldexp(8+m, e-10)
	switch {
	case e == 15 && m == 7:
		v = math.NaN()
	case e == 0:
		v = math.Ldexp(m, -9)
	}
	return float32(math.Copysign(v, 0.5-float64(b>>7)))
}

// e5m2 is the value of an E5M2 number: the upper byte of a half-precision one.
func e5m2(b byte) float32 { return halfAt([]byte{0, b}) }

var e4m3Values, e5m2Values = table8(e4m3), table8(e5m2)

func table8(value func(byte) float32) *[256]float32 {
	var t [256]float32
	for i := range t {
		t[i] = value(byte(i))
	}
	return &t
}

func decodeI8Generic(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = float32(int8(b))
	}
}

func decodeF8_E4M3Generic(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = e4m3Values[b]
	}
}

func decodeF8_E5M2Generic(dst []float32, src []byte) {
	for i, b := range src {
		dst[i] = e5m2Values[b]
	}
}
