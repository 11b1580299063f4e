package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// testBook is a codebook whose ascending order is not that of its codes and
// which holds an equal pair, like FP4.
var testBook = NewCodebook(
	[16]float32{0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 0, -0.1, -0.2, -0.3, -0.4, -0.6, -0.8, -1},
	[16]byte{15, 14, 13, 12, 11, 10, 9, 0, 8, 1, 2, 3, 4, 5, 6, 7},
)

// slowCode is the rule of code, counted out.
func slowCode(c *Codebook, s float32) byte {
	n := 0
	for _, b := range c.bounds {
		if b < s {
			n++
		}
	}
	return c.order[n]
}

func TestCodebookCode(t *testing.T) {
	try := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1e-40, -1e-40}
	for _, b := range testBook.bounds {
		try = append(try, b, math.Nextafter32(b, 2), math.Nextafter32(b, -2))
	}
	for _, s := range try {
		if got, want := testBook.code(s), slowCode(testBook, s); got != want {
			t.Errorf("code(%g) = %d, want %d", s, got, want)
		}
	}
}

// TestEncode4 runs every implementation on lengths 0 to 67 and around block
// edges, with zero, denormal, tied and non-finite values, between guard bytes.
func TestEncode4(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, blockSize := range []int{32, 64, 96, 256} {
			for n := range 68 {
				checkEncode4(t, rng, n, blockSize)
			}
			for _, n := range []int{3 * blockSize, 5*blockSize - 1, 5*blockSize + 1, 1031} {
				checkEncode4(t, rng, n, blockSize)
			}
		}
	})
}

func checkEncode4(t *testing.T, rng *rand.Rand, n, blockSize int) {
	t.Helper()
	src := make([]float32, n)
	for i := range src {
		src[i] = float32(rng.NormFloat64())
		switch b := i / blockSize; {
		case b%5 == 1:
			src[i] = 0
		case b%5 == 2:
			src[i] *= 1e-39
		case b%5 == 3 && i%7 == 0:
			src[i] = float32(rng.IntN(21)-10) / 20
		}
	}
	blocks := (n + blockSize - 1) / blockSize
	const guard = 0x5a
	dst := bytes.Repeat([]byte{guard}, (n+1)/2+64)
	absmax := make([]float32, blocks+2)
	absmax[0], absmax[blocks+1] = -7, -7
	Encode4(dst[32:32+(n+1)/2], absmax[1:1+blocks], src, blockSize, testBook)
	for i := range 32 {
		if dst[i] != guard || dst[32+(n+1)/2+i] != guard || absmax[0] != -7 || absmax[blocks+1] != -7 {
			t.Fatalf("%d values in blocks of %d: wrote outside its outputs", n, blockSize)
		}
	}
	for b := range blocks {
		x := src[b*blockSize : min(n, (b+1)*blockSize)]
		var m float32
		for _, v := range x {
			m = max(m, float32(math.Abs(float64(v))))
		}
		clamped := max(m, 1e-38)
		if len(x) < blockSize {
			m = clamped
		}
		if absmax[1+b] != m {
			t.Fatalf("%d values in blocks of %d: absmax %d is %g, want %g", n, blockSize, b, absmax[1+b], m)
		}
		inv := 1 / clamped
		for i, v := range x {
			s := v * inv
			if len(x) < blockSize {
				s = v / clamped
			}
			at := b*blockSize + i
			got := dst[32+at/2] >> (4 * (1 - at%2)) & 15
			if want := slowCode(testBook, s); got != want {
				t.Fatalf("%d values in blocks of %d: code %d is %d, want %d (%g of %g)", n, blockSize, at, got, want, v, m)
			}
		}
	}
	if n%2 == 1 && dst[32+n/2]&15 != slowCode(testBook, 0) {
		t.Fatalf("%d values: filled up with code %d", n, dst[32+n/2]&15)
	}
}

func TestEncode4NonFinite(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(math.NaN(), -1)} {
			for _, at := range []int{0, 17, 63, 64, 70} {
				src := make([]float32, 71)
				src[at] = float32(v)
				absmax := make([]float32, 2)
				Encode4(make([]byte, 36), absmax, src, 64, testBook)
				if m := float64(absmax[at/64]); !math.IsNaN(m) && !math.IsInf(m, 0) {
					t.Errorf("%g at %d gives absmax %g", v, at, m)
				}
			}
		}
	})
}

// TestDecode4 decodes every piece [skip, skip+n) of a few blocks and compares
// with the definition, bit for bit, between guard values.
func TestDecode4(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, blockSize := range []int{32, 64, 96} {
			src := make([]byte, 3*blockSize/2)
			for i := range src {
				src[i] = byte(rng.Uint32())
			}
			absmax := []float32{0.731, 1e-38, 0x1p-130}
			for _, skip := range []int{0, 1, 2, 31, blockSize - 1} {
				for n := 0; n <= 2*blockSize+1; n++ {
					dst := make([]float32, n+32)
					for i := range dst {
						dst[i] = 99
					}
					Decode4(dst[16:16+n], src, absmax, skip, blockSize, testBook)
					for i, got := range dst {
						want := float32(99)
						if at := skip + i - 16; i >= 16 && i < 16+n {
							want = testBook.Values[src[at/2]>>(4*(1-at%2))&15] * absmax[at/blockSize]
						}
						if math.Float32bits(got) != math.Float32bits(want) {
							t.Fatalf("blocks of %d, codes [%d, %d): %d is %g, want %g", blockSize, skip, skip+n, i-16, got, want)
						}
					}
				}
			}
		}
	})
}

// TestDot4: rows multiplied as they are stored give the bits of rows that are decoded first.
func TestDot4(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, blockSize := range []int{32, 64, 96, 256} {
		for _, blocks := range []int{1, 2, 9} {
			for _, rows := range []int{0, 1, 5, 66} {
				width := blocks * blockSize
				src, absmax, x := make([]byte, rows*width/2), make([]float32, rows*blocks), make([]float32, width)
				for i := range src {
					src[i] = byte(rng.Uint32())
				}
				for i := range absmax {
					absmax[i] = rng.Float32()
				}
				for i := range x {
					x[i] = float32(rng.NormFloat64())
				}
				forEachImpl(t, func(t *testing.T) {
					decoded, want := make([]float32, rows*width), make([]float32, rows)
					if rows > 0 {
						Decode4(decoded, src, absmax, 0, blockSize, testBook)
						dot(want, x, decoded, width)
					}
					got, check := guarded(t, rows, 1)
					Dot4(got, x, src, absmax, blockSize, testBook)
					if !slices.Equal(got, want) {
						t.Fatalf("%d rows of %d blocks of %d: %v, want %v", rows, blocks, blockSize, got, want)
					}
					check()
				})
			}
		}
	}
}

func TestCode4Panics(t *testing.T) {
	for name, f := range map[string]func(){
		"short dst":    func() { Encode4(make([]byte, 31), make([]float32, 1), make([]float32, 64), 64, testBook) },
		"short absmax": func() { Encode4(make([]byte, 33), make([]float32, 1), make([]float32, 65), 64, testBook) },
		"block of 48":  func() { Encode4(make([]byte, 24), make([]float32, 1), make([]float32, 48), 48, testBook) },
		"short src":    func() { Decode4(make([]float32, 64), make([]byte, 31), make([]float32, 1), 0, 64, testBook) },
		"skip a block": func() { Decode4(make([]float32, 64), make([]byte, 64), make([]float32, 2), 64, 64, testBook) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
