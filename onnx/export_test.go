package onnx

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// options are those of a test model, every product with a slot.
func options(t *testing.T, name string) (Options, *testmodel.Model) {
	t.Helper()
	m, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	config, err := m.Config().JSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Config: config, Weights: m, Targets: []string{"all-linear"}}, m
}

func mustExport(t *testing.T, o Options) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := Export(context.Background(), dir, o); err != nil {
		t.Fatal(err)
	}
	return dir
}

func hashFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// fields calls f for each field of a protocol buffer.
func fields(t *testing.T, b []byte, f func(n protowire.Number, v uint64, data []byte)) {
	t.Helper()
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		b = b[size:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var w uint32
			w, size = protowire.ConsumeFixed32(b)
			v = uint64(w)
		case protowire.BytesType:
			data, size = protowire.ConsumeBytes(b)
		}
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		f(n, v, data)
		b = b[size:]
	}
}

// external reads where the model file says that its tensors lie.
func external(t *testing.T, path string) map[string]initializer {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]initializer{}
	fields(t, file, func(n protowire.Number, _ uint64, g []byte) {
		if n != 7 { // graph
			return
		}
		fields(t, g, func(n protowire.Number, _ uint64, tensor []byte) {
			if n != 5 { // initializer
				return
			}
			var x initializer
			fields(t, tensor, func(n protowire.Number, v uint64, data []byte) {
				switch n {
				case 1:
					x.shape = append(x.shape, int(v))
				case 8:
					x.name = string(data)
				case 14:
					x.external = v == 1
				case 13:
					var entry [3]string
					fields(t, data, func(n protowire.Number, _ uint64, s []byte) { entry[n] = string(s) })
					switch v, _ := strconv.ParseInt(entry[2], 10, 64); entry[1] {
					case "offset":
						x.offset = v
					case "length":
						x.length = v
					}
				}
			})
			if x.external {
				found[x.name] = x
			}
		})
	})
	return found
}

// TestExportWeights reads every tensor of the data file where the graph says it is, and compares it
// with the model's.
func TestExportWeights(t *testing.T) {
	for _, name := range testmodel.Names() {
		o, m := options(t, name)
		if dim := m.Config().HeadDim; dim%16 != 0 {
			err := Export(context.Background(), filepath.Join(t.TempDir(), "bundle"), o)
			if want := "heads of " + strconv.Itoa(dim) + " features"; !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v", name, err)
			}
			continue
		}
		dir := mustExport(t, o)
		file, err := os.ReadFile(filepath.Join(dir, dataFile))
		if err != nil {
			t.Fatal(err)
		}
		b, err := buildGraph(m.Config(), func(string) bool { return true }, false)
		if err != nil {
			t.Fatal(err)
		}
		tensors := external(t, filepath.Join(dir, modelFile))
		if len(tensors) != len(b.loads) {
			t.Errorf("%s: %d tensors in the file, the graph has %d", name, len(tensors), len(b.loads))
		}
		covered := 0
		for _, l := range b.loads {
			x := tensors[l.name]
			if x.offset%64 != 0 || x.offset+x.length > int64(len(file)) {
				t.Fatalf("%s: %s lies at %d, %d bytes long, in a file of %d", name, l.name, x.offset, x.length, len(file))
			}
			if l.table != nil {
				continue
			}
			covered++
			want := m.Tensor(l.weight)
			if int(x.length) != 4*len(want) {
				t.Fatalf("%s: %s has %d bytes, %s %d values", name, l.name, x.length, l.weight, len(want))
			}
			for i, w := range want {
				at := i
				if l.transpose {
					at = i%l.cols*l.rows + i/l.cols
				}
				if got := math.Float32frombits(binary.LittleEndian.Uint32(file[int(x.offset)+4*at:])); got != w+l.offset {
					t.Fatalf("%s: %s value %d: %v, want %v", name, l.name, i, got, w)
				}
			}
		}
		if params := m.Tensors(); covered != len(params) {
			t.Errorf("%s: %d parameters exported of %d", name, covered, len(params))
		}
	}
}

// TestExportPieces writes tensors in pieces of a few rows and expects the same file.
func TestExportPieces(t *testing.T) {
	o, m := options(t, "llama-mha-untied")
	b, err := buildGraph(m.Config(), func(string) bool { return false }, false)
	if err != nil {
		t.Fatal(err)
	}
	total, err := b.place()
	if err != nil {
		t.Fatal(err)
	}
	var hashes []string
	for _, piece := range []int{1, 200, 1 << 20} {
		path := filepath.Join(t.TempDir(), dataFile)
		done := int64(0)
		w := &dataWriter{ctx: context.Background(), weights: o.Weights, total: total, sum: sha256.New(), piece: piece, progress: func(d, _ int64) { done = d }}
		if err := w.write(path, b); err != nil {
			t.Fatal(err)
		}
		if done != total {
			t.Errorf("pieces of %d: progress ended at %d of %d", piece, done, total)
		}
		hashes = append(hashes, hashFile(t, path)+hex.EncodeToString(w.sum.Sum(nil)))
	}
	if hashes[0] != hashes[2] || hashes[1] != hashes[2] {
		t.Errorf("the size of pieces changes the file: %v", hashes)
	}
}

// TestExportBytes pins the graph, which ONNX Runtime 1.32 was seen to run with the right results
// (onnx/ort checks them again where the library is there).
func TestExportBytes(t *testing.T) {
	o, _ := options(t, "llama")
	o.Files = map[string][]byte{"tokenizer.json": []byte("{}")}
	a, b := mustExport(t, o), mustExport(t, o)
	for _, name := range []string{modelFile, dataFile, genaiFile, manifestFile, "tokenizer.json"} {
		if hashFile(t, filepath.Join(a, name)) != hashFile(t, filepath.Join(b, name)) {
			t.Errorf("%s: two exports differ", name)
		}
	}
	if got, want := hashFile(t, filepath.Join(a, modelFile)), "6c14d49eeb37e2c9bfa4b14202825460d13a4e37c8eae68517c14b2a1f2ced97"; got != want {
		t.Errorf("hash of the graph %s, want %s", got, want)
	}
	entries, err := os.ReadDir(filepath.Dir(a))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the bundle lie %v, error %v", entries, err)
	}
}

func TestGenaiConfig(t *testing.T) {
	o, _ := options(t, "llama")
	data, err := os.ReadFile(filepath.Join(mustExport(t, o), genaiFile))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Model struct {
			Type    string `json:"type"`
			EOS     int    `json:"eos_token_id"`
			PAD     int    `json:"pad_token_id"`
			Vocab   int    `json:"vocab_size"`
			Decoder struct {
				Filename string            `json:"filename"`
				Heads    int               `json:"num_attention_heads"`
				KVHeads  int               `json:"num_key_value_heads"`
				Inputs   map[string]string `json:"inputs"`
			} `json:"decoder"`
		} `json:"model"`
		Search map[string]any `json:"search"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	d := c.Model.Decoder
	if c.Model.Type != "llama" || c.Model.EOS != 2 || c.Model.PAD != 2 || c.Model.Vocab != 300 || d.Filename != modelFile ||
		d.Heads != 4 || d.KVHeads != 2 || d.Inputs["past_key_names"] != "past_key_values.%d.key" || c.Search["max_length"] != 128.0 {
		t.Errorf("%s", data)
	}
}

func TestExportTargets(t *testing.T) {
	o, m := options(t, "llama")
	linears, err := model.Targets(m.Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		targets []string
		slots   int
	}{{nil, 0}, {[]string{"all-linear"}, len(linears)}, {[]string{"q_proj", "v_proj"}, 4}, {[]string{"model.layers.1.mlp.up_proj"}, 1},
		{[]string{"q_proj", "self_attn.q_proj"}, 2}, {[]string{"lm_head"}, 1}} {
		o.Targets = c.targets
		b, err := OpenBundle(mustExport(t, o))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(b.Slots()); n != c.slots {
			t.Errorf("%v: %d slots, want %d", c.targets, n, c.slots)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *Options, m *testmodel.Model)
		want   string
	}{
		"NaN": {func(_ *Options, m *testmodel.Model) {
			m.Tensor("model.layers.1.mlp.up_proj.weight")[70] = float32(math.NaN())
		}, `"model.layers.1.mlp.up_proj.weight" holds NaN at row 1`},
		"missing":   {func(_ *Options, m *testmodel.Model) { m.Remove("model.norm.weight") }, "model.norm.weight"},
		"target":    {func(o *Options, _ *testmodel.Model) { o.Targets = []string{"c_attn"} }, `target "c_attn" fits no linear product`},
		"file":      {func(o *Options, _ *testmodel.Model) { o.Files = map[string][]byte{"../x": nil} }, `file "../x"`},
		"own file":  {func(o *Options, _ *testmodel.Model) { o.Files = map[string][]byte{"model.onnx": nil} }, `file "model.onnx"`},
		"config":    {func(o *Options, _ *testmodel.Model) { o.Config = []byte(`{"model_type":"mamba"}`) }, `"mamba"`},
		"no config": {func(o *Options, _ *testmodel.Model) { o.Config = nil }, "configuration"},
	} {
		o, m := options(t, "llama")
		c.change(&o, m)
		parent := t.TempDir()
		err := Export(context.Background(), filepath.Join(parent, "out"), o)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if entries, _ := os.ReadDir(parent); len(entries) != 0 {
			t.Errorf("%s: %v is left behind", name, entries)
		}
	}
	o, _ := options(t, "llama")
	dir := mustExport(t, o)
	if err := Export(context.Background(), dir, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing folder: error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Export(ctx, filepath.Join(t.TempDir(), "out"), o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

// TestBuilderRefuses drives the interpreter with what no architecture of today asks for.
func TestBuilderRefuses(t *testing.T) {
	_, m := options(t, "llama")
	for name, drive := range map[string]func(b *builder){
		"rotating part": func(b *builder) {
			r := model.Rope{Heads: 1, HeadDim: 16, Table: &model.RopeTable{InvFreq: make([]float32, 6)}}
			b.Attention(model.Attention{Heads: 1, HeadDim: 16}, b.Rope(r, "q"), b.Rope(r, "k"), "v")
		},
		"activation": func(b *builder) { b.Gated("gelu", "g", "u") },
		"rotation": func(b *builder) {
			b.Rope(model.Rope{}, "q")
			b.Attention(model.Attention{Heads: 1, HeadDim: 2}, "q", "k", "v")
		},
	} {
		b := &builder{config: m.Config(), width: map[string]int{}, rotated: map[string]model.Rope{}, known: map[string]bool{}, tables: map[*model.RopeTable]*angles{}}
		drive(b)
		if !errors.Is(b.err, ErrUnsupported) {
			t.Errorf("%s: error %v", name, b.err)
		}
	}
}

func TestTurn(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {1, 70}, {70, 1}, {33, 65}, {64, 32}} {
		src := testmodel.Draw("turn", s[0]*s[1])
		dst, back := make([]float32, len(src)), make([]float32, len(src))
		turn(dst, src, s[0], s[1])
		if s[0] > 1 && s[1] > 1 && dst[1] != src[s[1]] {
			t.Errorf("%v: not transposed", s)
		}
		if turn(back, dst, s[1], s[0]); !slices.Equal(back, src) {
			t.Errorf("%v: twice is not the same", s)
		}
	}
}
