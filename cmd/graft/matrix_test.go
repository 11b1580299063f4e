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

// refused says which cells are refused, and the way around that the error names.
func refused(variant, base, column string) (way string) {
	tied := base == "llama" || base == "gemma3" || base == "qwen2"
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.HasPrefix(variant, p) })
	}
	switch column {
	case asGGUF, backToPEFT:
		if has("dora", "save", "bias", "lora_bias") || tied && has("table", "head", "both", "one", "rows") {
			return "merge"
		}
	case asMLX:
		if has("save", "bias", "lora_bias", "dora_ends") || tied && has("table", "head", "both") {
			return "merge"
		}
	case asONNX:
		if has("save", "bias", "lora_bias") {
			return "merge"
		}
	case mergedHF, mergedGGUF:
		if variant == "lora_bias_none" {
			return "unmerged"
		}
	}
	return ""
}

func TestMatrix(t *testing.T) {
	var golden struct {
		Bases    map[string]map[string]any `json:"bases"`
		Variants map[string]struct {
			Base   string  `json:"base"`
			Tokens []int32 `json:"tokens"`
		} `json:"variants"`
	}
	testfile.ReadJSON(t, filepath.Join(matrixDir, "matrix.json"), &golden)
	if len(golden.Variants) < 30 {
		t.Fatalf("%d variants", len(golden.Variants))
	}
	logits, err := safetensors.Open(filepath.Join(matrixDir, "logits.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer logits.Close()
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
		for _, column := range columns {
			t.Run(name+"/"+column, func(t *testing.T) {
				way, out := refused(name, v.Base, column), filepath.Join(t.TempDir(), "out")
				var got []float32
				switch column {
				case beside:
					got = runWith(t, base, adapter, v.Tokens)
				case asPEFT, asMLX:
					to := map[string]string{asPEFT: "peft", asMLX: "mlx"}[column]
					if graft(t, way, "adapter", "convert", adapter, "--base", base, "--to", to, "-o", out) {
						got = runWith(t, base, out, v.Tokens)
					}
				case asGGUF, backToPEFT:
					if !graft(t, way, "adapter", "convert", adapter, "--base", base, "-o", out+".gguf") {
						break
					}
					if column == asGGUF {
						got = runWith(t, base, out+".gguf", v.Tokens)
						break
					}
					graft(t, "", "adapter", "convert", out+".gguf", "--base", base, "-o", out)
					got = runWith(t, base, out, v.Tokens)
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
						got = runWith(t, out, "", v.Tokens)
					}
				}
				if (got == nil) != (way != "") {
					t.Fatalf("it computes: %v, refused with %q is wanted", got != nil, way)
				}
				worst := 0.0
				for i := range got {
					worst = max(worst, math.Abs(float64(got[i]-want[i])))
				}
				if worst > 1e-4 || len(got) != 0 && len(got) != len(want) {
					t.Errorf("logits differ by %g from PEFT's", worst)
				}
			})
		}
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

// runWith returns the logits behind the last 4 tokens.
func runWith(t *testing.T, base, adapter string, tokens []int32) []float32 {
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
	if adapter != "" {
		a, err := openAdapter(adapter, m.Config())
		if err == nil {
			err = loaded.AddAdapter("a", a)
		}
		if err == nil {
			err = state.Use(engine.Use{Name: "a"})
		}
		if err != nil {
			t.Fatal(err)
		}
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
