package quantize

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

func TestLookup(t *testing.T) {
	if _, err := Lookup("Q9_9"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Q9_9: %v", err)
	}
	if _, err := LookupEncoder("Q9_9"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("writing Q9_9: %v", err)
	}
	for _, name := range Names() {
		c, err := Lookup(name)
		if err != nil || c.Name() != name {
			t.Fatalf("%s: %v, %v", name, c, err)
		}
		e, err := LookupEncoder(name)
		if CanEncode(c) != (err == nil) || err == nil && e.Name() != name || err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: can encode %v, but %v", name, CanEncode(c), err)
		}
	}
	for _, name := range []string{"F32", "F16", "BF16", "Q8_0"} {
		if _, err := LookupEncoder(name); err != nil {
			t.Error(err)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int
		want int
	}{{"F32", 3, 12}, {"Q8_0", 64, 68}, {"Q4_K", 512, 288}, {"Q6_K", 0, 0}, {"Q8_0", 33, -1}, {"F16", -2, -1}, {"F64", math.MaxInt/8 + 1, -1}} {
		codec, err := Lookup(c.name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Size(codec, c.n)
		if (c.want < 0) != errors.Is(err, ErrFormat) || err == nil && got != c.want {
			t.Errorf("%d values of %s take %d bytes, %v; want %d", c.n, c.name, got, err, c.want)
		}
	}
}

func TestCodecPanics(t *testing.T) {
	for _, name := range Names() {
		c, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		elems, size := c.Block()
		for what, f := range map[string]func(){
			"short source":      func() { c.Decode(make([]float32, elems), make([]byte, size-1)) },
			"long source":       func() { c.Decode(make([]float32, elems), make([]byte, size+1)) },
			"short destination": func() { c.Decode(make([]float32, elems-1), make([]byte, size)) },
			"encoding": func() {
				if e, ok := c.(Encoder); ok {
					e.Encode(make([]byte, size), make([]float32, elems+1))
				}
				panic("only decodes")
			},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s, %s: no panic", name, what)
					}
				}()
				f()
			}()
		}
	}
}

// TestF32Order: the portable loops do what the copy does.
func TestF32Order(t *testing.T) {
	x := normal(2, 33)
	fast, slow := make([]byte, 4*len(x)), make([]byte, 4*len(x))
	encodeF32(fast, x)
	was := littleEndian
	defer func() { littleEndian = was }()
	littleEndian = false
	encodeF32(slow, x)
	y := make([]float32, len(x))
	decodeF32(y, slow)
	if !bytes.Equal(fast, slow) || !slices.Equal(x, y) {
		t.Fatalf("%x, %x", fast, slow)
	}
}

// TestEncodeExtremes: encoders take any float32 without a panic.
func TestEncodeExtremes(t *testing.T) {
	extremes := []float32{
		float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32,
		math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 0, float32(math.Copysign(0, -1)), 1e-39,
	}
	for _, name := range Names() {
		e, err := LookupEncoder(name)
		if err != nil {
			continue
		}
		elems, size := e.Block()
		for i, v := range extremes {
			src := make([]float32, max(32, elems))
			dst := make([]byte, len(src)/elems*size)
			importance := make([]float32, len(src))
			for j := range src {
				src[j] = v
				if j%2 == 1 {
					src[j] = extremes[(i+j)%len(extremes)]
				}
			}
			e.Encode(dst, src)
			e.Decode(make([]float32, len(src)), dst)
			for j := range importance {
				importance[j] = float32(j % 3)
			}
			e.EncodeWeighted(dst, src, importance)
			e.Decode(src, dst)
		}
	}
}

// FuzzCodecs decodes arbitrary bytes in every format. What an encoder makes of
// the decoded values, if they are finite, must decode near them: within half a
// step of its grid, and half a step of the scale's own rounding.
func FuzzCodecs(f *testing.F) {
	for i, name := range Names() {
		c, _ := Lookup(name)
		_, size := c.Block()
		b := make([]byte, 2*size)
		for j, w := range goldenBits(uint64(i), len(b)) {
			b[j] = byte(w) & 0xbf
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		names := Names()
		c, err := Lookup(names[int(which)%len(names)])
		if err != nil {
			t.Fatal(err)
		}
		elems, size := c.Block()
		blocks := min(len(b)/size, 64)
		x := make([]float32, blocks*elems)
		c.Decode(x, b[:blocks*size])
		for len(x)%32 != 0 {
			x = append(x, 0)
		}
		for _, name := range []string{"F32", "BF16", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"} {
			checkNear(t, name, x)
		}
	})
}

func checkNear(t *testing.T, name string, x []float32) {
	t.Helper()
	e, err := LookupEncoder(name)
	if err != nil {
		t.Fatal(err)
	}
	size, err := Size(e, len(x))
	if err != nil {
		t.Fatal(err)
	}
	b, y := make([]byte, size), make([]float32, len(x))
	e.Encode(b, x)
	e.Decode(y, b)
	// The largest error in units of the block's range.
	unit := map[string]float64{"F32": 0, "BF16": 1. / 256, "F16": 1. / 2048, "Q8_0": 0.5 / 127, "Q4_0": 1. / 8, "Q4_1": 0.5 / 15, "Q5_0": 1. / 16, "Q5_1": 0.5 / 31}[name]
	for at := 0; at < len(x); at += 32 {
		var top, low, high float64
		usable := true
		for i, v := range x[at : at+32] {
			v := float64(v)
			// Scales are halves: past their range a block cannot be stored.
			usable = usable && math.Abs(v) < 60000 && (v == 0 || math.Abs(v) > 0.1)
			top = max(top, math.Abs(v))
			if i == 0 {
				low, high = v, v
			}
			low, high = min(low, v), max(high, v)
		}
		if !usable {
			continue
		}
		span := top
		if name == "Q4_1" || name == "Q5_1" {
			span = high - low
		}
		if span > 0 && span < 0.1 {
			continue // a scale in the subnormals of half precision
		}
		most := span*unit + (top+span)/1000
		if name == "F32" {
			most = 0
		}
		for i, v := range x[at : at+32] {
			if d := math.Abs(float64(y[at+i]) - float64(v)); !(d <= most) {
				t.Fatalf("%s: %g comes back as %g in a block of [%g, %g]", name, v, y[at+i], low, high)
			}
		}
	}
}

// FuzzEncode encodes arbitrary finite values in every format, without importance and with it. All implementations
// must make the same bytes, and what they stand for is finite and not much larger than the largest value.
func FuzzEncode(f *testing.F) {
	for i, kind := range []string{"plain", "bell", "outliers", "flat", "zeros"} {
		f.Add(uint8(3*i), i%2 == 1, floatBytes(goldenValues(uint64(i), 300, kind, nil)))
	}
	f.Fuzz(func(t *testing.T, which uint8, weighted bool, b []byte) {
		names := Names()
		e, err := LookupEncoder(names[int(which)%len(names)])
		if err != nil {
			t.Skip()
		}
		elems, size := e.Block()
		x := make([]float32, min(len(b)/4, 2048))
		decodeF32(x, b[:4*len(x)])
		var top float64
		for i, v := range x {
			if v-v != 0 {
				x[i] = 0
			}
			top = max(top, math.Abs(float64(x[i])))
		}
		for len(x) == 0 || len(x)%elems != 0 {
			x = append(x, 0)
		}
		var importance []float32
		if weighted {
			for i := range x {
				importance = append(importance, magnitude(x[(7*i+3)%len(x)]))
			}
			if top > 1e18 { // no mean of squares is
				t.Skip()
			}
		}
		want := make([]byte, len(x)/elems*size)
		e.EncodeWeighted(want, x, importance)
		restore, err := kernel.SetImpl("generic")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		e.EncodeWeighted(got, x, importance)
		restore()
		if !bytes.Equal(got, want) {
			t.Fatalf("%s: %s makes %x of %v, plain Go %x", e.Name(), kernel.Impl(), want, x, got)
		}
		e.Decode(x, got)
		for i, v := range x {
			if top < 60000 && !(math.Abs(float64(v)) <= 2.1*top+1e-4) {
				t.Fatalf("%s: value %d decodes to %v, though all are within %v", e.Name(), i, v, top)
			}
		}
	})
}
