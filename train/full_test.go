package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
	"github.com/graftml/graft/safetensors"
)

// TestFullEqualsTransformers follows transformers' Trainer through steps with warm-up, clipping and
// decay, and compares every parameter of the model it leaves; see testdata/golden/gradient/make.py.
func TestFullEqualsTransformers(t *testing.T) {
	for _, name := range []string{"steps", "steps_untied"} {
		t.Run(name, func(t *testing.T) {
			var g struct {
				Config        json.RawMessage
				Text          string
				Length, Batch int
				Recipe        map[string]json.Number
				Losses, Norms []float64
			}
			dir := filepath.Join("..", "testdata", "golden", "gradient")
			if err := json.Unmarshal(read(t, dir, name+".json"), &g); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "run")
			r := recipeFor(t, writeModel(t, testModel(t, g.Config)), "method=full", "data="+write(t, "text.txt", g.Text), "out="+out, "packing=stream")
			r.MaxLength, r.BatchSize = g.Length, g.Batch
			for key, value := range g.Recipe {
				if err := r.Set(key + "=" + value.String()); err != nil {
					t.Fatal(err)
				}
			}
			mustRun(t, r, Options{})
			for i, m := range lines(t, out) {
				if d := math.Abs(*m.Loss/g.Losses[i] - 1); !(d < 1e-5) {
					t.Errorf("step %d: loss %v, want %v", i+1, *m.Loss, g.Losses[i])
				}
				if d := math.Abs(*m.GradNorm/g.Norms[i] - 1); !(d < 1e-4) {
					t.Errorf("step %d: norm %v, want %v", i+1, *m.GradNorm, g.Norms[i])
				}
			}
			want, err := safetensors.Open(filepath.Join(dir, name+".safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			reader, got := &tensorReader{File: want}, tensorsOf(t, out)
			if len(got) != len(want.Tensors()) {
				t.Errorf("%d parameters, want %d", len(got), len(want.Tensors()))
			}
			for _, w := range want.Tensors() {
				v := make([]float32, w.Size()/4)
				if err := reader.read(w.Name, v); err != nil {
					t.Fatal(err)
				}
				// Where a gradient is about 0, as some of this bias's are, AdamW makes a step of its rounding.
				if d := apart(got[w.Name], v); !(d < 1e-4) && !strings.HasSuffix(w.Name, "k_proj.bias") {
					t.Errorf("%s is %.2g apart", w.Name, d)
				}
			}
		})
	}
}

// apart is the largest difference over the largest value.
func apart(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, top float64
	for i, w := range want {
		diff, top = max(diff, math.Abs(float64(got[i]-w))), max(top, math.Abs(float64(w)))
	}
	return diff / top
}

func testModel(t *testing.T, config []byte) *testmodel.Model {
	t.Helper()
	c, err := model.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// tensorsOf reads all parameters of a model.
func tensorsOf(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	c, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string][]float32{}
	for _, p := range c.Tensors() {
		if p.Codec != "F32" {
			t.Errorf("%s is %s", p.Name, p.Codec)
		}
		n := p.Shape[0]
		if len(p.Shape) == 2 {
			n *= p.Shape[1]
		}
		out[p.Name] = make([]float32, n)
		if err := c.Rows(p.Name, 0, p.Shape[0], out[p.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestFull(t *testing.T) {
	data := write(t, "d.jsonl", colours(40))
	for _, name := range []string{"llama", "llama-mha-untied", "llama-bias"} {
		t.Run(name, func(t *testing.T) {
			m, err := testmodel.Named(name)
			if err != nil {
				t.Fatal(err)
			}
			base := writeModel(t, m)
			for file, text := range map[string]string{"README.md": "---\nlicense: mit\nlanguage: [de]\n---\nThe base.\n", "LICENSE": "MIT"} {
				if err := os.WriteFile(filepath.Join(base, file), []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			out := filepath.Join(t.TempDir(), "run")
			r := recipeFor(t, base, "method=full", "data="+data, "out="+out, "holdout=0.2", "max_steps=30", "eval_steps=10", "learning_rate=3e-3")
			result := mustRun(t, r, Options{})
			if !(result.BestEval < 0.7*result.FirstEval) {
				t.Errorf("held-out loss %v before and %v after", result.FirstEval, result.BestEval)
			}
			values := 0
			for name, v := range tensorsOf(t, out) {
				values += len(v)
				if apart(v, m.Tensor(name)) == 0 {
					t.Errorf("%s was not trained", name)
				}
			}
			if result.Trained != values {
				t.Errorf("%d values trained, %d written", result.Trained, values)
			}
			for _, file := range []string{"tokenizer.json", "tokenizer_config.json", "LICENSE"} {
				if !bytes.Equal(read(t, out, file), read(t, base, file)) {
					t.Errorf("%s was changed", file)
				}
			}
			if card := string(read(t, out, cardFile)); !strings.Contains(card, "license: mit\n") || !strings.Contains(card, "library_name: transformers") || strings.Contains(card, "adapter") {
				t.Errorf("card:\n%s", card)
			}
			if config := string(read(t, out, "config.json")); !strings.Contains(config, `"dtype": "float32"`) {
				t.Errorf("configuration:\n%s", config)
			}
			if text := string(read(t, out, recipeFile)); strings.Contains(text, "lora_alpha") || strings.Contains(text, "\nr:") {
				t.Errorf("recipe:\n%s", text)
			}
			if entries, err := os.ReadDir(filepath.Join(out, stateDir)); err != nil || len(entries) != 2 {
				t.Errorf("state holds %v, %v", entries, err) // and the best parameters
			}
			// The model is the best one: evaluated again before a first step, it has that loss. The recipe
			// that the run has written runs.
			again, err := LoadRecipe(filepath.Join(out, recipeFile), "model="+out, "out="+filepath.Join(t.TempDir(), "again"), "max_steps=1")
			if err != nil {
				t.Fatal(err)
			}
			if got := mustRun(t, again, Options{}).FirstEval; math.Abs(got-result.BestEval) > 1e-6 {
				t.Errorf("the model written has loss %v, the best was %v", got, result.BestEval)
			}
		})
	}
}

// A GGUF file trains to the same folder as the folder it was made from.
func TestFullFromGGUF(t *testing.T) {
	folder, data := newModel(t), write(t, "d.jsonl", colours(8))
	file := filepath.Join(t.TempDir(), "model.gguf")
	c, err := checkpoint.Open(folder)
	if err == nil {
		defer c.Close()
		_, err = checkpoint.Write(context.Background(), c, file, checkpoint.Options{Form: checkpoint.GGUF})
	}
	if err != nil {
		t.Fatal(err)
	}
	var results [][]byte
	for _, base := range []string{folder, file} {
		out := filepath.Join(t.TempDir(), "run")
		mustRun(t, recipeFor(t, base, "method=full", "data="+data, "out="+out, "max_steps=3"), Options{})
		results = append(results, resultBytes(t, out))
		if _, err := os.Stat(filepath.Join(out, "tokenizer.json")); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(results[0], results[1]) {
		t.Error("the models differ")
	}
}

func TestFullRefuses(t *testing.T) {
	folder, data := newModel(t), write(t, "d.jsonl", colours(8))
	packed := filepath.Join(t.TempDir(), "nf4")
	c, err := checkpoint.Open(folder)
	if err == nil {
		defer c.Close()
		_, err = checkpoint.Write(context.Background(), c, packed, checkpoint.Options{Form: checkpoint.Safetensors, Type: "nf4", FourBit: quantize.Options4{Double: true}})
	}
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "run")
	_, err = Run(context.Background(), recipeFor(t, packed, "method=full", "data="+data, "out="+out), Options{})
	if !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), "in NF4") || !strings.Contains(err.Error(), "graft convert") {
		t.Errorf("4-bit model: %v", err)
	}
	before := read(t, folder, "model.safetensors")
	for _, o := range []Options{{}, {Force: true}, {Resume: true}} {
		_, err = Run(context.Background(), recipeFor(t, folder, "method=full", "data="+data, "out="+folder), o)
		if !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), "is the model itself") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if !bytes.Equal(before, read(t, folder, "model.safetensors")) {
		t.Error("the model was replaced")
	}
}

// What a forced run replaces does not stay beside its results.
func TestReplaced(t *testing.T) {
	folder, data := newModel(t), write(t, "d.jsonl", colours(8))
	out := filepath.Join(t.TempDir(), "run")
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(out, name))
		return err == nil
	}
	for _, method := range []string{"full", "lora", "full"} {
		mustRun(t, recipeFor(t, folder, "method="+method, "data="+data, "out="+out, "max_steps=2"), Options{Force: true})
		if model := exists("config.json") && exists("model.safetensors") && exists("tokenizer.json"); model != (method == "full") || exists("adapter_config.json") == model {
			t.Errorf("after %s: a model: %v", method, model)
		}
	}
	before := resultBytes(t, out)
	mustRun(t, recipeFor(t, folder, "method=full", "data="+data, "out="+out, "max_steps=2"), Options{Resume: true})
	if !bytes.Equal(before, resultBytes(t, out)) {
		t.Error("resuming a finished run changed it")
	}
}

// The best parameters on disk belong to the state: without them, or with others, it is no state.
func TestBestFile(t *testing.T) {
	folder, data := newModel(t), write(t, "d.jsonl", colours(12))
	out := filepath.Join(t.TempDir(), "run")
	r := recipeFor(t, folder, "method=full", "data="+data, "out="+out, "holdout=0.3", "max_steps=4", "eval_steps=1", "learning_rate=1e-4", "lr_scheduler=constant")
	result := mustRun(t, r, Options{})
	best := filepath.Join(out, stateDir, "best-4.safetensors")
	if result.BestStep != 4 {
		t.Fatalf("the best step is %d", result.BestStep)
	}
	// A later one, of a run that was killed before it saved its state, does no harm.
	stray := filepath.Join(out, stateDir, "best-5.safetensors")
	if err := os.WriteFile(stray, []byte("torn"), 0o666); err != nil {
		t.Fatal(err)
	}
	unfinished := filepath.Join(out, stateDir, ".model.7.tmp")
	if err := os.Mkdir(unfinished, 0o777); err != nil {
		t.Fatal(err)
	}
	before := resultBytes(t, out)
	mustRun(t, r, Options{Resume: true})
	if _, err := os.Stat(unfinished); err == nil {
		t.Error("an unfinished model stays")
	}
	if _, err := os.Stat(stray); err == nil || !bytes.Equal(before, resultBytes(t, out)) {
		t.Error("parameters of no state stay")
	}
	for _, damage := range []func() error{
		func() error { return os.WriteFile(best, []byte("torn"), 0o666) },
		func() error { return os.Remove(best) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := Run(context.Background(), r, Options{Resume: true}); !errors.Is(err, ErrState) {
			t.Errorf("damaged best parameters: %v", err)
		}
	}
}
