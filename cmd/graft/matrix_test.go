package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testfile"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/onnx/ort"
	"github.com/graftml/graft/safetensors"
)

// Every variant of adapters that PEFT saves, in every form there is: each cell either computes PEFT's
// logits or is refused with a way around. Here Graft runs what it wrote; what PEFT, llama.cpp, ONNX
// Runtime and MLX themselves compute with it says testdata/golden/adapters/matrix/runtimes.py.

const matrixDir = "../../testdata/golden/adapters/matrix"

// The columns.
const (
	beside     = "beside the base" // run as it is
	asPEFT     = "PEFT → PEFT"
	asGGUF     = "PEFT → GGUF"
	backToPEFT = "GGUF → PEFT"
	asMLX      = "PEFT → MLX"
	asONNX     = "PEFT → ONNX"
	mergedHF   = "merge to HF"
	mergedGGUF = "merge to GGUF"
)

var columns = []string{beside, asPEFT, asGGUF, backToPEFT, asMLX, asONNX, mergedHF, mergedGGUF}

// contents is what an adapter has beyond pairs on the products of blocks, by the names of its tensors.
type contents struct {
	whole, bias, magnitude, table, head, rows bool
	// tying (ensure_weight_tying) makes one change of the table's and the head's.
	tying bool
}

func contentsOf(t *testing.T, dir string) (c contents) {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(dir, "adapter_model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, ts := range f.Tensors() {
		module, part, lora := strings.Cut(ts.Name, ".lora_")
		switch {
		case strings.HasSuffix(ts.Name, ".base_layer.weight"): // a copy of the base's
		case strings.HasSuffix(ts.Name, ".trainable_tokens_delta"):
			c.rows = true
		case !lora:
			c.whole = true
		default:
			c.bias = c.bias || part == "B.bias"
			c.magnitude = c.magnitude || part == "magnitude_vector"
			c.table = c.table || strings.HasSuffix(module, ".embed_tokens")
			c.head = c.head || strings.HasSuffix(module, ".lm_head")
		}
	}
	var config struct {
		Tying bool `json:"ensure_weight_tying"`
	}
	testfile.ReadJSON(t, filepath.Join(dir, "adapter_config.json"), &config)
	c.tying = config.Tying
	return c
}

// refused says whether a column cannot hold an adapter, and the way around that the error then names.
func refused(c contents, base, column string) (way string) {
	tied := base == "llama" || base == "gemma3" || base == "qwen2"
	switch column {
	case asGGUF, backToPEFT:
		if c.whole || c.bias || c.magnitude || tied && (c.table || c.head || c.rows) {
			return "merge"
		}
	case asMLX:
		if c.whole || c.bias || c.magnitude && c.table || tied && (c.table || c.head) && !c.tying {
			return "merge"
		}
	case asONNX:
		if c.whole || c.bias {
			return "merge"
		}
	case mergedHF, mergedGGUF:
		if c.bias && base != "qwen2" { // no place for a bias
			return "unmerged"
		}
	}
	return ""
}

// matrixGolden is matrix.json.
type matrixGolden struct {
	Bases    map[string]map[string]any `json:"bases"`
	Variants map[string]struct {
		Base   string  `json:"base"`
		Tokens []int32 `json:"tokens"`
	} `json:"variants"`
	Together map[string][]use `json:"together"`
}

// use is an adapter and its scale.
type use struct {
	name  string
	scale float64
}

func (u *use) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&u.name, &u.scale})
}

func readMatrix(t *testing.T) (golden matrixGolden, logits *safetensors.File) {
	t.Helper()
	testfile.ReadJSON(t, filepath.Join(matrixDir, "matrix.json"), &golden)
	logits, err := safetensors.Open(filepath.Join(matrixDir, "logits.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { logits.Close() })
	return golden, logits
}

func TestMatrix(t *testing.T) {
	golden, logits := readMatrix(t)
	if len(golden.Variants) < 50 {
		t.Fatalf("%d variants", len(golden.Variants))
	}
	_, noORT := ort.FindLibrary("")
	bases := map[string]string{}
	root := t.TempDir()
	for name, v := range golden.Variants {
		if bases[v.Base] == "" {
			bases[v.Base] = filepath.Join(root, v.Base)
			writeBase(t, golden.Bases[v.Base], bases[v.Base])
			if noORT == nil {
				graft(t, "", "convert", bases[v.Base], "-o", bases[v.Base]+"-onnx", "--to", "onnx", "--no-verify", "--slots", "table,head,dora")
			}
		}
		want := goldenLogits(t, logits, name)
		base, adapter := bases[v.Base], filepath.Join(matrixDir, name)
		has := contentsOf(t, adapter)
		for _, column := range columns {
			t.Run(name+"/"+column, func(t *testing.T) {
				way, out := refused(has, v.Base, column), filepath.Join(t.TempDir(), "out")
				var got []float32
				switch column {
				case beside:
					got = runWith(t, base, v.Tokens, adapter)
				case asPEFT, asMLX:
					to := map[string]string{asPEFT: "peft", asMLX: "mlx"}[column]
					if graft(t, way, "adapter", "convert", adapter, "--base", base, "--to", to, "-o", out) {
						got = runWith(t, base, v.Tokens, out)
					}
				case asGGUF, backToPEFT:
					if !graft(t, way, "adapter", "convert", adapter, "--base", base, "-o", out+".gguf") {
						break
					}
					if column == asGGUF {
						got = runWith(t, base, v.Tokens, out+".gguf")
						break
					}
					graft(t, "", "adapter", "convert", out+".gguf", "--base", base, "-o", out)
					got = runWith(t, base, v.Tokens, out)
				case asONNX:
					if noORT != nil {
						t.Skip("ONNX Runtime is not there")
					}
					if graft(t, way, "adapter", "add", base+"-onnx", name+"="+adapter, "--base", base) {
						got = runBundle(t, base+"-onnx", name, v.Tokens)
					}
				case mergedHF, mergedGGUF:
					if column == mergedGGUF {
						out += ".gguf"
					}
					if graft(t, way, "merge", base, adapter, "-o", out, "--no-verify") {
						got = runWith(t, out, v.Tokens)
					}
				}
				if (got == nil) != (way != "") {
					t.Fatalf("it computes: %v, refused with %q is wanted", got != nil, way)
				}
				if got != nil {
					compareLogits(t, got, want)
				}
			})
		}
	}
}

// Several adapters at once, each with its scale: beside the base and merged, as PEFT computes them.
func TestMatrixTogether(t *testing.T) {
	golden, logits := readMatrix(t)
	if len(golden.Together) < 10 {
		t.Fatalf("%d lists", len(golden.Together))
	}
	for name, uses := range golden.Together {
		t.Run(name, func(t *testing.T) {
			v, root := golden.Variants[uses[0].name], t.TempDir()
			base, merged := filepath.Join(root, "base"), filepath.Join(root, "merged")
			writeBase(t, golden.Bases[v.Base], base)
			var args []string
			for _, u := range uses {
				args = append(args, fmt.Sprintf("%s:%g", filepath.Join(matrixDir, u.name), u.scale))
			}
			want := goldenLogits(t, logits, "together/"+name)
			compareLogits(t, runWith(t, base, v.Tokens, args...), want)
			graft(t, "", append([]string{"merge", base, "-o", merged, "--no-verify"}, args...)...)
			compareLogits(t, runWith(t, merged, v.Tokens), want)
		})
	}
}

func compareLogits(t *testing.T, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d logits, want %d", len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		worst = max(worst, math.Abs(float64(got[i]-want[i])))
	}
	if !(worst < 1e-4) {
		t.Errorf("logits differ by %g from PEFT's", worst)
	}
}

// graft runs a command. Where it is to be refused with a way around, it must be, and leave nothing; it
// reports whether it was done.
func graft(t *testing.T, way string, args ...string) bool {
	t.Helper()
	err := rootCommand().Run(context.Background(), append([]string{"graft"}, args...))
	if way == "" {
		if err != nil {
			t.Fatalf("graft %s: %v", strings.Join(args, " "), err)
		}
		return true
	}
	if err == nil || !strings.Contains(err.Error(), way) {
		t.Fatalf("graft %s: error %v, want one that says %q", strings.Join(args, " "), err, way)
	}
	if i := slices.Index(args, "-o"); i >= 0 {
		if _, err := os.Lstat(args[i+1]); err == nil {
			t.Errorf("%s is there", args[i+1])
		}
	}
	return false
}

func writeBase(t *testing.T, config map[string]any, dir string) {
	t.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := model.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	m, err := testmodel.New(c)
	if err == nil {
		err = os.Mkdir(dir, 0o777)
	}
	if err == nil {
		err = m.WriteFolder(dir)
	}
	for file, data := range testmodel.TokenizerFiles() {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), data, 0o666)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func goldenLogits(t *testing.T, f *safetensors.File, name string) []float32 {
	t.Helper()
	ts, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("no logits of %q", name)
	}
	raw := make([]byte, ts.Size())
	if err := f.ReadAt(ts, raw, 0); err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(raw)/4)
	for i := range out {
		out[i] = math.Float32frombits(uint32(raw[4*i]) | uint32(raw[4*i+1])<<8 | uint32(raw[4*i+2])<<16 | uint32(raw[4*i+3])<<24)
	}
	return out
}

// runWith returns the logits behind the last 4 tokens, with adapters beside the base.
func runWith(t *testing.T, base string, tokens []int32, adapterArgs ...string) []float32 {
	t.Helper()
	m, err := checkpoint.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	loaded, err := engine.Load(m, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	state := loaded.NewState()
	var uses []engine.Use
	for _, arg := range adapterArgs {
		a, err := openAdapter(arg, m.Config())
		if err == nil {
			err = loaded.AddAdapter(arg, a)
		}
		if err != nil {
			t.Fatal(err)
		}
		uses = append(uses, engine.Use{Name: arg})
	}
	if err := state.Use(uses...); err != nil {
		t.Fatal(err)
	}
	return lastLogits(t, state, tokens)
}

func runBundle(t *testing.T, dir, adapter string, tokens []int32) []float32 {
	t.Helper()
	s, err := ort.Open(dir, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	state, err := s.NewState(adapter)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	return lastLogits(t, state, tokens)
}

func lastLogits(t *testing.T, s interface {
	EvalEach(tokens []int32, each func(at int, logits []float32) error) error
}, tokens []int32) (out []float32) {
	t.Helper()
	err := s.EvalEach(tokens, func(at int, logits []float32) error {
		if at >= len(tokens)-4 {
			out = append(out, logits...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("running: %w", err))
	}
	return out
}
