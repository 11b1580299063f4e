package testmodel

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/safetensors"
)

// TestDraw pins the generator: the golden files depend on every bit of it. The values are those of
// the Python twin.
func TestDraw(t *testing.T) {
	want := []float32{-0.9026243686676025, -0.7243598699569702, -0.19588613510131836, 0.28121423721313477, -0.10833215713500977}
	if got := Draw("model.norm.weight", len(want)); !slices.Equal(got, want) {
		t.Errorf("drew %v, want %v", got, want)
	}
	for _, id := range Tokens("x", 1000, 7) {
		if id < 0 || id >= 7 {
			t.Fatalf("token %d is not below 7", id)
		}
	}
}

func floats(b []byte) []float32 {
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}

// TestFiles writes every model in both forms and finds each tensor again, in GGUF under the other
// name and with the rows of q and k in the other order.
func TestFiles(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			m, err := Named(name)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := m.WriteFolder(dir); err != nil {
				t.Fatal(err)
			}
			if err := m.WriteGGUF(filepath.Join(dir, "m.gguf")); err != nil {
				t.Fatal(err)
			}
			st, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			gg, err := gguf.Open(filepath.Join(dir, "m.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			defer gg.Close()
			if len(st.Tensors()) != len(m.Tensors()) {
				t.Errorf("%d tensors in the folder, want %d", len(st.Tensors()), len(m.Tensors()))
			}
			for _, p := range m.Tensors() {
				values := make([]float32, len(m.Tensor(p.Name)))
				if err := m.Rows(p.Name, 0, p.Shape[0], values); err != nil {
					t.Fatal(err)
				}
				s, _ := st.Tensor(p.Name)
				b := make([]byte, s.Size())
				if err := st.ReadAt(s, b, 0); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(floats(b), values) {
					t.Errorf("%s in the folder differs", p.Name)
				}
				ggufName, _ := m.Config().GGUFName(p.Name)
				g, ok := gg.Tensor(ggufName)
				if !ok {
					t.Fatalf("%s is not in the GGUF file", ggufName)
				}
				b = make([]byte, 4*g.Elements())
				if err := gg.ReadAt(g, b, 0); err != nil {
					t.Fatal(err)
				}
				if heads := m.Config().RowHeads(p.Name); heads > 0 {
					cols, d := len(values)/p.Shape[0], p.Shape[0]/heads
					// Feature 1 of head 0 in halves is feature 2 in pairs.
					if got := floats(b)[2*cols : 3*cols]; !slices.Equal(got, values[cols:2*cols]) {
						t.Errorf("row 2 of %s is not row 1", ggufName)
					}
					if got := floats(b)[cols : 2*cols]; !slices.Equal(got, values[d/2*cols:(d/2+1)*cols]) {
						t.Errorf("row 1 of %s is not row %d", ggufName, d/2)
					}
				} else if by := m.Config().Offset(p.Name); by != 0 {
					if got := floats(b); got[1]-by != values[1] || got[1] == values[1] {
						t.Errorf("%s has %v where the folder has %v, want %v more", ggufName, got[1], values[1], by)
					}
				} else if !slices.Equal(floats(b), values) {
					t.Errorf("%s differs", ggufName)
				}
			}
		})
	}
}

func TestConfigsDiffer(t *testing.T) {
	for _, name := range Names() {
		c, err := Config(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := model.Inventory(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Config("nobody"); err == nil {
		t.Error("an unknown name is accepted")
	}
}
