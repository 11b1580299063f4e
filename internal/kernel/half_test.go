package kernel

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// halfEdges are float32 bits where the conversions branch or round.
func halfEdges() []uint32 {
	edges := []uint32{
		0, 1, 0x7fffff, 0x800000, 0x33000000, 0x33000001, 0x33800000, 0x387fc000, 0x387fe000, 0x387fdfff, 0x38800000,
		0x3f801000, 0x3f803000, 0x3f800fff, 0x3f801001, 0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, 0x7f7fffff,
		0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff, 0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001,
		0x7f7f7fff, 0x7f7f8000, 0x7f80ffff, 0x00008000, 0x00018000,
	}
	for _, b := range edges {
		edges = append(edges, b|0x80000000)
	}
	return edges
}

// TestHalfRounding checks the scalar conversions against their definition:
// the nearest representable number, ties to the even code.
func TestHalfRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	bits := halfEdges()
	for range 20000 {
		bits = append(bits, rng.Uint32(), 0x33000000+rng.Uint32N(0x15000000)) // all floats, and the range of halves
	}
	for _, b := range bits {
		v := math.Float32frombits(b)
		sign := uint16(b >> 16 & 0x8000)
		if v != v {
			if got := F16Bits(v); got != sign|0x7e00 {
				t.Fatalf("F16Bits(NaN %08x) = %04x", b, got)
			}
			if got := BF16Bits(v); got != uint16(b>>16)|64 {
				t.Fatalf("BF16Bits(NaN %08x) = %04x", b, got)
			}
			continue
		}
		checkNearest(t, "F16", v, F16Bits(v), 0x7c00, F16Value)
		checkNearest(t, "BF16", v, BF16Bits(v), 0x7f80, BF16Value)
	}
}

// checkNearest fails unless got is the code nearest to v among its neighbours,
// taking the code after the largest finite one for a finite step further.
func checkNearest(t *testing.T, name string, v float32, got, inf uint16, value func(uint16) float32) {
	t.Helper()
	if got>>15 != uint16(math.Float32bits(v)>>31) {
		t.Fatalf("%s(%g) = %04x: the sign is lost", name, v, got)
	}
	code := got & 0x7fff
	exact := func(c uint16) float64 {
		if c == inf {
			return 2*float64(value(inf-1)) - float64(value(inf-2))
		}
		return float64(value(c))
	}
	x := math.Abs(float64(v))
	if code == inf && x >= exact(inf) {
		return
	}
	d := math.Abs(exact(code) - x)
	for _, c := range []uint16{code - 1, code + 1} {
		if c > inf { // past infinity, or below zero
			continue
		}
		if e := math.Abs(exact(c) - x); e < d || e == d && code%2 == 1 {
			t.Fatalf("%s(%g) = %04x, but %04x is nearer or even", name, v, code, c)
		}
	}
}

func TestHalfWidening(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		if v := F16Value(h); v == v && F16Bits(v) != h {
			t.Fatalf("F16 %04x reads as %g and writes as %04x", h, v, F16Bits(v))
		}
		if v := BF16Value(h); v == v && BF16Bits(v) != h {
			t.Fatalf("BF16 %04x reads as %g and writes as %04x", h, v, BF16Bits(v))
		}
	}
	for h, want := range map[uint16]float64{0x3c00: 1, 0xc000: -2, 0x0001: 0x1p-24, 0x7bff: 65504, 0x0400: 0x1p-14, 0x3555: 0.333251953125} {
		if got := F16Value(h); float64(got) != want {
			t.Errorf("F16Value(%04x) = %g, want %g", h, got, want)
		}
	}
}

// TestHalfSlices runs every implementation over all lengths to 67 and over
// all codes, between guard bytes, against the scalar conversions.
func TestHalfSlices(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		edges := halfEdges()
		for n := range 68 {
			x := make([]float32, n)
			h := make([]byte, 2*n)
			for i := range x {
				b := rng.Uint32()
				if i%3 == 0 {
					b = edges[rng.IntN(len(edges))]
				}
				x[i] = math.Float32frombits(b)
				binary.LittleEndian.PutUint16(h[2*i:], uint16(rng.Uint32()))
			}
			checkHalves(t, x, h)
		}
		h := make([]byte, 1<<17)
		for i := range 1 << 16 {
			binary.LittleEndian.PutUint16(h[2*i:], uint16(i))
		}
		checkHalves(t, make([]float32, 1<<16), h)
	})
}

func checkHalves(t *testing.T, x []float32, h []byte) {
	t.Helper()
	const guard = 0xa5
	type narrow struct {
		name string
		run  func([]byte, []float32)
		one  func(float32) uint16
	}
	for _, f := range []narrow{{"F32ToF16", F32ToF16, F16Bits}, {"F32ToBF16", F32ToBF16, BF16Bits}} {
		out := bytes.Repeat([]byte{guard}, len(h)+64)
		f.run(out[32:32+len(h)], x)
		for i, v := range x {
			if got := binary.LittleEndian.Uint16(out[32+2*i:]); got != f.one(v) {
				t.Fatalf("%s of %d values: %d is %04x, want %04x", f.name, len(x), i, got, f.one(v))
			}
		}
		if !bytes.Equal(out[:32], bytes.Repeat([]byte{guard}, 32)) || !bytes.Equal(out[32+len(h):], out[:32]) {
			t.Fatalf("%s of %d values wrote outside its output", f.name, len(x))
		}
	}
	type widen struct {
		name string
		run  func([]float32, []byte)
		one  func(uint16) float32
	}
	for _, f := range []widen{{"F16ToF32", F16ToF32, F16Value}, {"BF16ToF32", BF16ToF32, BF16Value}} {
		out := make([]float32, len(x)+32)
		for i := range out {
			out[i] = 1234.5
		}
		f.run(out[16:16+len(x)], h)
		for i := range out {
			want := float32(1234.5)
			if i >= 16 && i < 16+len(x) {
				want = f.one(binary.LittleEndian.Uint16(h[2*(i-16):]))
			}
			if math.Float32bits(out[i]) != math.Float32bits(want) {
				t.Fatalf("%s of %d values: %d is %x, want %x", f.name, len(x), i-16, math.Float32bits(out[i]), math.Float32bits(want))
			}
		}
	}
}

func TestRoundHalf(t *testing.T) {
	x := make([]float32, 600)
	for i := range x {
		x[i] = float32(i)*0.37 - 100
	}
	f, b := append([]float32(nil), x...), append([]float32(nil), x...)
	RoundF16(f)
	RoundBF16(b)
	for i, v := range x {
		if f[i] != F16Value(F16Bits(v)) || b[i] != BF16Value(BF16Bits(v)) {
			t.Fatalf("%d: %g rounds to %g (F16) and %g (BF16)", i, v, f[i], b[i])
		}
	}
}
