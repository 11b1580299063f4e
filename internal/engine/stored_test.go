package engine

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// encoded is a checkpoint whose matrices are in one number format.
type encoded struct {
	checkpoint.Source
	codec quantize.Encoder
	raw   map[string][]byte
	rows  map[string]int // bytes of a row
}

func newEncoded(t *testing.T, src checkpoint.Source, codec string) *encoded {
	t.Helper()
	c, err := quantize.LookupEncoder(codec)
	if err != nil {
		t.Fatal(err)
	}
	e := &encoded{src, c, map[string][]byte{}, map[string]int{}}
	for _, s := range src.Tensors() {
		if len(s.Shape) != 2 {
			continue
		}
		row, err := quantize.Size(c, s.Shape[1])
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float32, s.Shape[0]*s.Shape[1])
		if err := src.Rows(s.Name, 0, s.Shape[0], x); err != nil {
			t.Fatal(err)
		}
		e.raw[s.Name], e.rows[s.Name] = make([]byte, row*s.Shape[0]), row
		c.Encode(e.raw[s.Name], x)
	}
	return e
}

func (e *encoded) Tensors() (out []checkpoint.Tensor) {
	for _, t := range e.Source.Tensors() {
		if e.raw[t.Name] != nil {
			t.Codec = e.codec.Name()
		}
		out = append(out, t)
	}
	return out
}

func (e *encoded) Rows(name string, lo, hi int, dst []float32) error {
	if e.raw[name] == nil {
		return e.Source.Rows(name, lo, hi, dst)
	}
	e.codec.Decode(dst, e.raw[name][lo*e.rows[name]:hi*e.rows[name]])
	return nil
}

func (e *encoded) RawRows(name string, lo, hi int, dst []byte) (bool, error) {
	if e.raw[name] == nil {
		return false, nil
	}
	copy(dst, e.raw[name][lo*e.rows[name]:hi*e.rows[name]])
	return true, nil
}

// TestAsStored: weights that stay as they are stored give the same losses and gradients, bit for bit,
// with DoRA, on the ends and in rows too, and are not also there in float32.
func TestAsStored(t *testing.T) {
	c, err := model.ParseConfig([]byte(`{"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":131,"max_position_embeddings":256,"tie_word_embeddings":true}`))
	if err != nil {
		t.Fatal(err)
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, codec := range []string{"Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16", "F32"} {
		for _, bf16 := range []bool{false, true} {
			e := newEncoded(t, src, codec)
			run := func(asStored bool) (float64, []Param) {
				m, err := Load(e, Options{AsStored: asStored, BF16: bf16})
				if err != nil {
					t.Fatal(err)
				}
				for name, w := range m.weights {
					held := asStored && StoredBytes(codec, []int{w.Matrix.N, w.Matrix.K}, bf16) > 0 && e.raw[name] != nil
					if dense := w.Matrix.F32 != nil || bf16 && w.Matrix.BF16 != nil; held == dense {
						t.Errorf("%s, bf16 %v: %s is dense %v, to be held as stored %v", codec, bf16, name, dense, held)
					}
				}
				s := newSession(t, m, 0, 4)
				for _, p := range s.Params() {
					copy(p.Value, testmodel.Weights(p.Name, model.KindLinear, len(p.Value)))
				}
				sum, n, err := s.Loss(someBatch(m, 40, 9))
				if err != nil {
					t.Fatal(err)
				}
				s.Backward(1 / n)
				if bf16 { // the lengths that DoRA divides by are of what is held, which is rounded where it is dense
					return sum, s.Params()
				}
				parts := drawn(t, m, "parts", AdapterOptions{Modules: modules(2, q0, table, head), DoRA: true, Rows: map[string][]int{table: {5, 3}}})
				more, err := m.NewSession(SessionOptions{Adapter: parts})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := more.Loss(someBatch(m, 40, 9)); err != nil {
					t.Fatal(err)
				}
				more.Backward(1 / n)
				return sum, append(s.Params(), more.Params()...)
			}
			want, exact := run(false)
			got, params := run(true)
			if got != want {
				t.Errorf("%s, bf16 %v: loss %v, dense %v", codec, bf16, got, want)
			}
			for i, p := range params {
				for k, v := range p.Grad {
					if math.Float32bits(v) != math.Float32bits(exact[i].Grad[k]) {
						t.Fatalf("%s, bf16 %v: gradient %d of %s is %v, dense %v", codec, bf16, k, p.Name, v, exact[i].Grad[k])
					}
				}
			}
		}
	}
}

// TestStoredGenerates: a token at a time, weights as they are stored and those quantized on loading give the
// logits of decoded ones, bit for bit, and are not decoded for it.
func TestStoredGenerates(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	logits := func(m *Model) []float32 {
		s := m.NewState()
		var out []float32
		for _, token := range []int32{3, 1, 4, 1, 5} {
			l, err := s.Eval([]int32{token})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, l...)
		}
		return out
	}
	for _, codec := range []string{"Q8_0", "Q4_0", "F16", "BF16", "NF4"} {
		e, o := checkpoint.Source(src), Options{AsStored: true}
		if codec == "NF4" {
			o.Quant = &quantize.Options4{Double: true}
		} else {
			e = newEncoded(t, src, codec)
		}
		m, err := Load(e, o)
		if err != nil {
			t.Fatal(err)
		}
		with := 0
		for _, w := range m.weights {
			if w.Matrix.Dot != nil || w.Matrix.BF16 != nil {
				with++
			}
		}
		if with < 7*m.Config().Layers {
			t.Errorf("%s: %d weights are multiplied as they are stored", codec, with)
		}
		got := logits(m)
		for _, w := range m.weights {
			if w := &w.Matrix; w.F32 == nil {
				x := make([]float32, w.N*w.K)
				w.Read(x, 0, w.N)
				w.F32 = x
			}
		}
		if want := logits(m); !slices.Equal(got, want) {
			t.Errorf("%s: logits are not those of the decoded weights", codec)
		}
	}
}

// TestAsStoredIsSound: what is held as stored is looked through like everything else.
func TestAsStoredIsSound(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	e := newEncoded(t, src, "BF16")
	const name = "model.layers.0.mlp.down_proj.weight"
	e.raw[name][7], e.raw[name][6] = 0x7f, 0xc0 // value 3 is NaN
	_, err = Load(e, Options{AsStored: true})
	if !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "column 3") {
		t.Fatalf("error %v, want ErrModel that names %s and column 3", err, name)
	}
}

// TestOpenedStaysPacked: a model in NF4 that is opened from disk is trained and run on the codes it is
// stored with, not on a copy in float32.
func TestOpenedStaysPacked(t *testing.T) {
	c, err := model.ParseConfig([]byte(`{"model_type":"llama","hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,
"num_attention_heads":4,"num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":256,"tie_word_embeddings":true}`))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "nf4")
	if err := testmodel.WriteNF4(context.Background(), dir, c, 1, nil); err != nil {
		t.Fatal(err)
	}
	src, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, o := range []Options{{}, {AsStored: true}, {Quant: &quantize.Options4{Double: true}}, {BF16: true}} {
		m, err := Load(src, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.params {
			if w := m.weights[p.Name].Matrix; p.Kind == model.KindLinear && (w.F32 != nil || w.BF16 != nil || w.Decode == nil) {
				t.Errorf("%+v: %s is not held in its codes", o, p.Name)
			}
		}
	}
}
