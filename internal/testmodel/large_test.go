package testmodel

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
)

// TestUniform: any part of a sequence has the values that the whole has there, with the mean and the
// deviation of a fresh model.
func TestUniform(t *testing.T) {
	whole := make([]float32, 1<<16)
	uniform(whole, 7, 0)
	for _, lo := range []int{0, 1, 3, 4, 1001} {
		for _, n := range []int{0, 1, 2, 5, 63, 64} {
			part := make([]float32, n)
			uniform(part, 7, lo)
			if !slices.Equal(part, whole[lo:lo+n]) {
				t.Fatalf("elements [%d, %d) differ from those of the whole", lo, lo+n)
			}
		}
	}
	var sum, squares float64
	for _, v := range whole {
		sum, squares = sum+float64(v), squares+float64(v)*float64(v)
	}
	n := float64(len(whole))
	if mean, dev := sum/n, math.Sqrt(squares/n); math.Abs(mean) > 3e-4 || math.Abs(dev-0.02) > 3e-4 {
		t.Errorf("mean %g, deviation %g", mean, dev)
	}
}

// TestWriteNF4 reads a written model back: 4-bit products near the values drawn, everything else equal
// but for bfloat16.
func TestWriteNF4(t *testing.T) {
	c, err := Config("llama-mha-untied")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "m")
	if err := WriteNF4(t.Context(), dir, c, 1, nil); err != nil {
		t.Fatal(err)
	}
	m, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Tokenizer(); err != nil {
		t.Error(err)
	}
	packed := 0
	for _, tensor := range m.Tensors() {
		n, limit := 1, 1.3e-4 // half a step of bfloat16 above 1/32
		for _, d := range tensor.Shape {
			n *= d
		}
		if tensor.Codec == "NF4" {
			packed++
			limit = 0.006 // half the widest step of NF4, with a largest value of 0.0346
		}
		got, want := make([]float32, n), make([]float32, n)
		if err := m.Rows(tensor.Name, 0, tensor.Shape[0], got); err != nil {
			t.Fatal(err)
		}
		uniform(want, hash(tensor.Name)^mix(1), 0)
		for i := range want {
			if len(tensor.Shape) == 1 {
				want[i] = 1
			}
			if d := math.Abs(float64(got[i]) - float64(want[i])); d > limit {
				t.Fatalf("%s: value %d is %g, drawn was %g", tensor.Name, i, got[i], want[i])
			}
		}
	}
	if packed != 14 {
		t.Errorf("%d matrices in NF4, want 14", packed)
	}
}

func TestShape(t *testing.T) {
	for name, want := range map[string]int64{"135m": 134515008, "1b": 1100048384, "7b": 6738415616} {
		c, err := Shape(name)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := c.Parameters(); err != nil || n != want {
			t.Errorf("%s has %d values, want %d (%v)", name, n, want, err)
		}
	}
	if _, err := Shape("2b"); err == nil {
		t.Error("an unknown shape is accepted")
	}
}
