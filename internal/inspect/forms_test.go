package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// whole checks what holds of every sound model: each tensor has a place and a size, and together they
// are the bytes of the files, whether or not tensors were asked for.
func whole(t *testing.T, path string) *Report {
	t.Helper()
	plain := look(t, path, Options{})
	r := look(t, path, Options{Check: true, Stats: true, Tensors: true})
	for _, f := range r.Errors() {
		t.Errorf("%s: %v", path, f)
	}
	var sum int64
	for _, x := range r.Tensors {
		if x.Bytes <= 0 || x.Offset <= 0 || x.Stats == nil || x.Stats.Values != int64(elements(x.Shape)) {
			t.Errorf("%s: tensor %+v", path, x)
		}
		sum += x.Bytes
	}
	if sum != r.Bytes || plain.Bytes != r.Bytes || plain.Parameters != r.Parameters || len(plain.Tensors) != len(r.Tensors) {
		t.Errorf("%s: tensors of %d bytes, %d in all, and %d without being asked", path, sum, r.Bytes, plain.Bytes)
	}
	return r
}

// storedFolder is a tiny llama whose first block's q_proj and down_proj are stored as in a golden file.
func storedFolder(t *testing.T, kind, name string) string {
	t.Helper()
	dir := folder(t, "llama")
	goldens := filepath.Join("..", "..", "testdata", "golden", kind)
	var cases map[string]struct{ Config map[string]any }
	data, err := os.ReadFile(filepath.Join(goldens, kind+".json"))
	if err == nil {
		err = json.Unmarshal(data, &cases)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(goldens, name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	places := map[string]string{"q_proj": "model.layers.0.self_attn.q_proj.", "down_proj": "model.layers.0.mlp.down_proj."}
	tensorsOf(func(l map[string]*safetensors.TensorData) {
		for _, place := range places {
			delete(l, place+"weight")
		}
		for _, s := range f.Tensors() {
			module, rest, _ := strings.Cut(s.Name, ".")
			d := &safetensors.TensorData{Spec: safetensors.Spec{Name: places[module] + rest, DType: s.DType, Shape: s.Shape}, Data: make([]byte, s.Size())}
			if err := f.ReadAt(s, d.Data, 0); err != nil {
				t.Fatal(err)
			}
			l[d.Name] = d
		}
	})(t, dir)
	set("config.json", "quantization_config", cases[name].Config)(t, dir)
	return dir
}

// TestStored: weights as other tools store them, in 8 bits with scales and in words, are measured as what
// they stand for, and their bytes are those of codes and scales.
func TestStored(t *testing.T) {
	for _, kind := range []string{"eight", "packed"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "golden", kind, "*.safetensors"))
		if err != nil || len(files) < 4 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			dir := storedFolder(t, kind, strings.TrimSuffix(filepath.Base(file), ".safetensors"))
			r := whole(t, dir)
			c, err := checkpoint.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"} {
				x := tensor(t, r, name)
				v := make([]float32, elements(x.Shape))
				if err := c.Rows(name, 0, x.Shape[0], v); err != nil {
					t.Fatal(err)
				}
				near(t, file+" "+name, x.Stats, v)
				if size := int64(4 * len(v)); x.Bytes >= size/2 {
					t.Errorf("%s: %s takes %d bytes, as float32 %d", file, name, x.Bytes, size)
				}
			}
			// Its values in another form are the same.
			plain := filepath.Join(t.TempDir(), "plain")
			if _, err := checkpoint.Write(context.Background(), c, plain, checkpoint.Options{Form: checkpoint.Safetensors, Type: "f32"}); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if e := look(t, plain, Options{Against: dir}).TotalError; e == nil || !e.Identical {
				t.Errorf("%s: written in float32 it has an error of %+v", file, e)
			}
		}
	}
}

func tensor(t *testing.T, r *Report, name string) *Tensor {
	t.Helper()
	i := slices.IndexFunc(r.Tensors, func(x Tensor) bool { return x.Name == name })
	if i < 0 {
		t.Fatalf("%s: no tensor %s", r.Path, name)
	}
	return &r.Tensors[i]
}

// near compares figures with those of a plain pass.
func near(t *testing.T, what string, s *Stats, v []float32) {
	t.Helper()
	var sum, square float64
	lo, hi, zeros := math.Inf(1), math.Inf(-1), int64(0)
	for _, x := range v {
		f := float64(x)
		sum, square, lo, hi = sum+f, square+f*f, min(lo, f), max(hi, f)
		if f == 0 {
			zeros++
		}
	}
	n := float64(len(v))
	mean := sum / n
	std := math.Sqrt(max(0, square/n-mean*mean))
	if s == nil || s.Values != int64(len(v)) || s.Min != lo || s.Max != hi || s.Zeros != zeros || math.Abs(s.Mean-mean) > 1e-9*(1+math.Abs(mean)) || math.Abs(s.Std-std) > 1e-6*(1+std) {
		t.Errorf("%s: %+v, want %v to %v, mean %v, deviation %v, %d zeros", what, s, lo, hi, mean, std, zeros)
	}
}

// TestWritten: every form that is written is described, 4-bit weights with their tables, a folder that
// keeps blocks, and a model in parts whichever of them is named.
func TestWritten(t *testing.T) {
	c, err := checkpoint.Open(folder(t, "llama"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	put := func(from *checkpoint.Checkpoint, name string, o checkpoint.Options) string {
		path := filepath.Join(t.TempDir(), name)
		if _, err := checkpoint.Write(context.Background(), from, path, o); err != nil {
			t.Fatal(name, err)
		}
		return path
	}
	for _, o := range []checkpoint.Options{
		{Form: checkpoint.Safetensors, Type: "bf16"}, {Form: checkpoint.Safetensors, Type: "nf4"}, {Form: checkpoint.Safetensors, Type: "fp4"},
		{Form: checkpoint.Safetensors, Type: "nf4", FourBit: quantize.Options4{Double: true}}, {Form: checkpoint.Safetensors, ShardSize: 100_000},
	} {
		r := whole(t, put(c, "folder", o))
		if (len(r.Files) > 1) != (o.ShardSize > 0) || (r.Tensors[3].File != "") != (o.ShardSize > 0) {
			t.Errorf("%+v: files %v, a tensor in %q", o, r.Files, r.Tensors[3].File)
		}
	}
	q := put(c, "q.gguf", checkpoint.Options{Form: checkpoint.GGUF, Type: "q4_0"})
	whole(t, q)
	blocks, err := checkpoint.Open(q)
	if err != nil {
		t.Fatal(err)
	}
	defer blocks.Close()
	kept := put(blocks, "kept", checkpoint.Options{Form: checkpoint.Safetensors})
	if _, err := os.Stat(filepath.Join(kept, checkpoint.BlocksFile)); err != nil {
		t.Fatal(err)
	}
	whole(t, kept)
	if e := look(t, kept, Options{Against: q}).TotalError; e == nil || !e.Identical || e.Relative != 0 || e.SNR != nil || e.Cosine != 1 {
		t.Errorf("kept blocks: %+v", e)
	}
	first := put(c, "m.gguf", checkpoint.Options{Form: checkpoint.GGUF, ShardSize: 100_000})
	parts, err := filepath.Glob(filepath.Join(filepath.Dir(first), "*.gguf"))
	if err != nil || len(parts) < 3 {
		t.Fatal(parts, err)
	}
	for _, part := range parts {
		r := whole(t, part)
		if len(r.Files) != len(parts) || r.Parameters != look(t, q, Options{}).Parameters {
			t.Errorf("%s: %d files of %d, %d parameters", part, len(r.Files), len(parts), r.Parameters)
		}
		if e := look(t, part, Options{Against: q}).TotalError; e == nil || e.Identical || e.Relative < 0.01 || e.Relative > 0.2 {
			t.Errorf("%s against 4 bits: %+v", part, e)
		}
	}
	// A part that is missing or another model's is an error that names it.
	if err := os.Remove(parts[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Path(context.Background(), parts[0], Options{}); err == nil || !strings.Contains(err.Error(), filepath.Base(parts[1])) {
		t.Errorf("a part less: %v", err)
	}
}

// TestReadOnlyTypes: tensors of every type of ggml's that is decoded are measured, those that can only be
// read among them, in files of an architecture that nobody knows too.
func TestReadOnlyTypes(t *testing.T) {
	var tensors []gguf.TensorData
	want := map[string][]float32{}
	for id := range uint32(64) {
		typ := gguf.Type(id)
		codec, err := quantize.Lookup(typ.String())
		if err != nil {
			continue
		}
		elems, size := codec.Block()
		const rows = 3
		data := make([]byte, rows*512/elems*size)
		for i := range data {
			data[i] = byte(i*37+i/11) & 0x3f // scales of float16 are finite
		}
		v := make([]float32, rows*512)
		codec.Decode(v, data)
		name := fmt.Sprintf("blk.0.%s.weight", typ)
		want[name] = v
		tensors = append(tensors, gguf.TensorData{Spec: gguf.Spec{Name: name, Type: typ, Dims: []int64{512, rows}}, Data: data})
	}
	if len(tensors) < 25 {
		t.Fatalf("only %d types", len(tensors))
	}
	path := filepath.Join(t.TempDir(), "types.gguf")
	if err := gguf.Write(path, []gguf.KV{gguf.Entry("general.architecture", "unheard-of")}, tensors); err != nil {
		t.Fatal(err)
	}
	r := look(t, path, Options{Check: true, Stats: true, Against: path})
	for _, x := range r.Tensors {
		near(t, x.Name, x.Stats, want[x.Name])
		if x.Error == nil || !x.Error.Identical {
			t.Errorf("%s differs from itself: %+v", x.Name, x.Error)
		}
	}
	if len(r.Tensors) != len(want) || found(r, Warning, "unsupported") == nil {
		t.Errorf("%d tensors of %d, %v", len(r.Tensors), len(want), r.Findings)
	}
}

// TestSeveralParts: a text model inside one that sees is described; what belongs to the rest of it is
// listed, and counts for nothing.
func TestSeveralParts(t *testing.T) {
	dir := folder(t, "gemma3")
	plain := whole(t, dir)
	jsonFile("config.json", func(m map[string]any) {
		text := map[string]any{}
		for k, v := range m {
			text[k] = v
			delete(m, k)
		}
		m["model_type"], m["text_config"], m["vision_config"] = "gemma3", text, map[string]any{"hidden_size": 8}
		m["architectures"], m["eos_token_id"], m["dtype"] = []string{"Gemma3ForConditionalGeneration"}, 2, "float32"
	})(t, dir)
	tensorsOf(func(l map[string]*safetensors.TensorData) {
		for name, x := range maps.Clone(l) {
			delete(l, name)
			x.Name = "language_model." + name
			l[x.Name] = x
		}
		x := *l["language_model.model.norm.weight"]
		x.Name = "vision_tower.norm.weight"
		l[x.Name] = &x
	})(t, dir)
	r := whole(t, dir)
	if r.Parameters != plain.Parameters || len(r.Tensors) != len(plain.Tensors)+1 || tensor(t, r, "model.norm.weight").Stored != "language_model.model.norm.weight" {
		t.Errorf("%d parameters of %d, %d tensors of %d", r.Parameters, plain.Parameters, len(r.Tensors), len(plain.Tensors))
	}
	for _, f := range r.Findings {
		if f.Severity != Note {
			t.Errorf("said of a sound model: %v", f)
		}
	}
	tensorsOf(func(l map[string]*safetensors.TensorData) {
		delete(l, "language_model.model.layers.0.mlp.up_proj.weight")
		x := *l["language_model.model.norm.weight"]
		x.Name = "language_model.model.more.weight"
		l[x.Name] = &x
	})(t, dir)
	r = look(t, dir, Options{Check: true})
	if missing := found(r, Error, "tensor-missing"); missing == nil || !strings.Contains(missing.Place, "layers.0.mlp.up_proj") {
		t.Errorf("a tensor less: %v", r.Findings)
	}
	for _, f := range r.Errors() {
		if f.Code == "tensor-extra" && !strings.Contains(f.Place, "more.weight") {
			t.Errorf("found: %v", f)
		}
	}
}

// TestProcessors: figures of tensors in several pieces are those of a plain pass, and the report is the
// same whatever the number of processors.
func TestProcessors(t *testing.T) {
	const rows, cols = 1100, 1931 // two pieces and a bit
	a, b := testmodel.Draw("a", rows*cols), testmodel.Draw("b", rows*cols)
	for i := range b {
		b[i] = a[i] + b[i]/64
	}
	nan, inf := 1_500_000, 2_000_001
	b[nan], b[inf], b[7] = float32(math.NaN()), float32(math.Inf(1)), 0
	file := func(v []float32) string {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		data := make([]byte, 4*len(v))
		codec, err := quantize.Lookup("F32")
		if err != nil {
			t.Fatal(err)
		}
		codec.(quantize.Encoder).Encode(data, v)
		if err := safetensors.Write(path, []safetensors.TensorData{{Spec: safetensors.Spec{Name: "x", DType: safetensors.F32, Shape: []int{rows, cols}}, Data: data}}, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pa, pb := file(a), file(b)
	var first string
	for _, procs := range []int{1, 2, 5} {
		was := runtime.GOMAXPROCS(procs)
		r := look(t, pb, Options{Check: true, Stats: true, Against: pa})
		runtime.GOMAXPROCS(was)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(text)
		} else if first != string(text) {
			t.Errorf("on %d processors:\n%s\non one:\n%s", procs, text, first)
		}
		f := found(r, Error, "not-finite")
		if f == nil || !strings.Contains(f.Message, fmt.Sprintf("row %d, column %d is NaN; 2 of", nan/cols, nan%cols)) {
			t.Errorf("%d processors: %v", procs, r.Findings)
		}
	}
	r := look(t, pb, Options{Stats: true, Against: pa})
	s, e := r.Tensors[0].Stats, r.Tensors[0].Error
	if s.NaN != 1 || s.Inf != 1 || e.NotFinite != 2 {
		t.Errorf("%+v, %+v", s, e)
	}
	finite := slices.DeleteFunc(slices.Clone(b), func(v float32) bool { return v-v != 0 })
	s.Values -= 2
	near(t, "two pieces", s, finite)
	var dd, aa, bb, ab, largest float64
	at, worst, worstRow := 0, 0.0, 0
	rowD, rowA := make([]float64, rows), make([]float64, rows)
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		d := y - x
		if d-d != 0 {
			continue
		}
		dd, aa, bb, ab = dd+d*d, aa+x*x, bb+y*y, ab+x*y
		rowD[i/cols], rowA[i/cols] = rowD[i/cols]+d*d, rowA[i/cols]+x*x
		if math.Abs(d) > largest {
			largest, at = math.Abs(d), i
		}
	}
	for i := range rows {
		if w := math.Sqrt(rowD[i] / rowA[i]); w > worst {
			worst, worstRow = w, i
		}
	}
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"RMSE", e.RMSE, math.Sqrt(dd / (rows*cols - 2))}, {"relative", e.Relative, math.Sqrt(dd / aa)}, {"SNR", *e.SNR, 10 * math.Log10(aa/dd)},
		{"cosine", e.Cosine, ab / math.Sqrt(aa*bb)}, {"largest", e.Max, largest}, {"row", float64(e.MaxRow), float64(at / cols)}, {"column", float64(e.MaxColumn), float64(at % cols)},
		{"worst row", float64(e.Worst[0].Row), float64(worstRow)}, {"its error", e.Worst[0].Error, worst},
	} {
		if math.Abs(c.got-c.want) > 1e-9*(1+math.Abs(c.want)) {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
}
