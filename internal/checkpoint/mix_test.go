package checkpoint_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/imatrix"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testfile"
	"github.com/graftml/graft/internal/testmodel"
)

// bell is the values that testdata/golden/quantize/make.py draws: sums of three words of 24 bits.
func bell(seed uint64, n int) []float32 {
	x := make([]float32, n)
	at := uint64(0)
	word := func() int64 {
		at++
		z := seed + at*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return int64((z^z>>31)>>32) & 0xffffff
	}
	for i := range x {
		x[i] = float32(math.Ldexp(float64(word()+word()+word()-3<<23), -24))
	}
	return x
}

// filled is a source whose matrices hold given values.
type filled struct {
	checkpoint.Source
	values map[string][]float32
}

func (f *filled) Rows(name string, lo, hi int, dst []float32) error {
	v := f.values[name]
	if v == nil {
		return f.Source.Rows(name, lo, hi, dst)
	}
	cols := len(dst) / max(1, hi-lo)
	copy(dst, v[lo*cols:hi*cols])
	return nil
}

// whole is the model that make.py quantizes, by llama_model_quantize.
type whole struct {
	Model struct{ Layers, Hidden, Heads, KV, FF, Vocab int }
	Names []string
	Cases map[string][][2]string // type and the beginning of the SHA-256 of each matrix
}

func (w *whole) open(t *testing.T) (*checkpoint.Checkpoint, *imatrix.Matrix) {
	m := w.Model
	c, err := model.ParseConfig(fmt.Appendf(nil, `{"model_type":"llama","hidden_size":%d,"intermediate_size":%d,"num_hidden_layers":%d,"num_attention_heads":%d,
"num_key_value_heads":%d,"vocab_size":%d,"max_position_embeddings":64,"tie_word_embeddings":true}`, m.Hidden, m.FF, m.Layers, m.Heads, m.KV, m.Vocab))
	if err != nil {
		t.Fatal(err)
	}
	tiny := folder(t, "llama") // its tokenizer
	drawn, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f := &filled{drawn, map[string][]float32{}}
	importance := &imatrix.Matrix{Entries: map[string]imatrix.Entry{}, Datasets: []string{"text"}, Chunks: 3}
	for _, tensor := range drawn.Tensors() {
		name, _ := c.GGUFName(tensor.Name)
		for i, n := range w.Names {
			if n != name {
				continue
			}
			f.values[tensor.Name] = bell(uint64(i), tensor.Shape[0]*tensor.Shape[1])
			var layer int
			if _, err := fmt.Sscanf(name, "blk.%d.", &layer); err == nil && layer%2 == 0 {
				mean := bell(uint64(100+i), tensor.Shape[1])
				for j, v := range mean {
					mean[j] = float32(math.Abs(float64(v)))
				}
				importance.Entries[name] = imatrix.Entry{Mean: mean}
			}
		}
	}
	if len(f.values) != len(w.Names) {
		t.Fatalf("%d matrices of %d", len(f.values), len(w.Names))
	}
	tiny.Source = f
	return tiny, importance
}

// TestMixes: a model becomes, tensor by tensor and byte by byte, what llama_model_quantize makes of it.
func TestMixes(t *testing.T) {
	var golden whole
	testfile.ReadJSON(t, "../../testdata/golden/quantize/whole.json", &golden)
	if len(golden.Cases) < 10 || len(golden.Names) < 50 {
		t.Fatalf("%d cases of %d tensors", len(golden.Cases), len(golden.Names))
	}
	c, importance := golden.open(t)
	for name, want := range golden.Cases {
		typ, weighted := strings.CutSuffix(name, "+")
		out := filepath.Join(t.TempDir(), "out.gguf")
		o := checkpoint.Options{Form: checkpoint.GGUF, Type: strings.ToLower(typ)}
		if weighted {
			o.Importance, o.ImportanceFile = importance, "im.gguf"
		}
		if _, err := checkpoint.Write(context.Background(), c, out, o); err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range golden.Names {
			tensor, _ := f.Tensor(n)
			data := make([]byte, tensor.Size)
			if err := f.ReadAt(tensor, data, 0); err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(data); tensor.Type.String() != want[i][0] || hex.EncodeToString(sum[:8]) != want[i][1] {
				t.Errorf("%s: tensor %q is %v, want %s, or has other bytes", name, n, tensor.Type, want[i][0])
			}
		}
		if file, ok, _ := gguf.Value[string](f, "quantize.imatrix.file"); ok != weighted || weighted && file != "im.gguf" {
			t.Errorf("%s: the importance matrix's file is %q", name, file)
		}
		if n, ok, _ := gguf.Value[uint32](f, "quantize.imatrix.entries_count"); ok != weighted || weighted && int(n) != len(importance.Entries) {
			t.Errorf("%s: the importance matrix has %d entries", name, n)
		}
		if _, ok, _ := gguf.Value[uint32](f, "general.file_type"); !ok {
			t.Errorf("%s: no file type", name)
		}
		f.Close()
	}
}

func TestImportanceOfAnotherModel(t *testing.T) {
	a := folder(t, "llama")
	other := func(name string) *imatrix.Matrix {
		return &imatrix.Matrix{Entries: map[string]imatrix.Entry{name: {Mean: make([]float32, 3)}}}
	}
	for _, c := range []struct {
		o    checkpoint.Options
		want string
	}{
		{checkpoint.Options{Form: checkpoint.GGUF, Type: "q4_0", Importance: other("blk.1.attn_k.weight")}, `3 columns for "blk.1.attn_k.weight", not 64`},
		{checkpoint.Options{Type: "nf4", Importance: other("x")}, "write a .gguf"},
		{checkpoint.Options{Form: checkpoint.GGUF, Type: "q4_0", Importance: other("token_embd.weight")}, ""},
	} {
		_, err := checkpoint.Write(context.Background(), a, filepath.Join(t.TempDir(), "out"), c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
