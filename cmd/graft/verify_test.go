package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/safetensors"
)

// graftRun runs the command in this process and returns what it prints, and its error.
func graftRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	was := stdout
	stdout = &results{w: &out}
	defer func() { stdout = was }()
	err := rootCommand().Run(context.Background(), append([]string{"graft"}, args...))
	return out.String(), err
}

// modelFolder writes a tiny random model with a tokenizer.
func modelFolder(t *testing.T, name string) string {
	t.Helper()
	m, err := testmodel.Named(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := m.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	for file, data := range testmodel.TokenizerFiles() {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestVerifyArchitectures: of every family a folder and the GGUF file made from it are the same model, a
// tensor of it that changes sign is found in the weights, and without looking at them in what it computes.
func TestVerifyArchitectures(t *testing.T) {
	for _, name := range testmodel.Names() {
		dir := modelFolder(t, name)
		c, err := checkpoint.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "m.gguf")
		if _, err := checkpoint.Write(context.Background(), c, file, checkpoint.Options{Form: checkpoint.GGUF}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		vocab := c.Config().Vocab
		c.Close()
		text, err := graftRun(t, "verify", dir, file, "--max-tokens", "40", "--json")
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		var r comparison
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		if !r.Passed || !r.SameTokens || r.Adversarial.Same != r.Adversarial.Texts || r.Top1 != 1 || r.MeanKL > 1e-9 || r.Tokens != 40 || r.Vocabulary != vocab ||
			r.NLL <= 0 || r.Weights == nil || r.Weights.Error > 1e-6 {
			t.Errorf("%s: %s", name, text)
		}
		list, err := graftRun(t, "inspect", file, "--tensors", "--stats", "--against", dir, "--json")
		if err != nil || !strings.Contains(list, `"identical": true`) {
			t.Errorf("%s: %v\n%s", name, err, list)
		}

		weight := "model.layers.0.mlp.down_proj.weight"
		negateTensor(t, filepath.Join(dir, "model.safetensors"), weight)
		text, err = graftRun(t, "verify", dir, file, "--max-tokens", "40")
		if err == nil || !strings.Contains(err.Error(), weight) {
			t.Errorf("%s: a tensor of another sign: %v\n%s", name, err, text)
		}
		text, err = graftRun(t, "verify", dir, file, "--max-tokens", "40", "--max-kl", "1e-7")
		if err == nil || !strings.Contains(err.Error(), "past the limit of 1e-07") {
			t.Errorf("%s: a tensor of another sign, by its effect: %v\n%s", name, err, text)
		}
	}
}

func negateTensor(t *testing.T, path, name string) {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(f.Tensors(), func(s safetensors.Tensor) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("%s has no %s", path, name)
	}
	s := f.Tensors()[i]
	at := f.DataOffset() + s.Begin
	f.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for k := at + 3; k < at+s.Size(); k += 4 {
		data[k] ^= 0x80
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestMalformed: the files of the malformed corpus, in the place of a model, are refused by verify and by
// inspect with errors of their class that name the file, whichever of the two models is at fault.
func TestMalformed(t *testing.T) {
	sound := modelFolder(t, "llama")
	config, err := os.ReadFile(filepath.Join(sound, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]map[string]error{
		"gguf":        {"format": gguf.ErrFormat, "unsupported": gguf.ErrUnsupported},
		"safetensors": {"format": safetensors.ErrFormat},
	}
	n := 0
	for kind, class := range classes {
		corpus := filepath.Join("..", "..", "testdata", "malformed", kind)
		expected, err := os.ReadFile(filepath.Join(corpus, "expected.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(expected)) {
			fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			data, err := os.ReadFile(filepath.Join(corpus, fields[0]+".bin"))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			path, file := filepath.Join(dir, "model.gguf"), "model.gguf"
			if kind == "safetensors" {
				path, file = dir, "model.safetensors"
				if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
				t.Fatal(err)
			}
			n++
			for _, args := range [][]string{{"verify", sound, path}, {"verify", path, sound}, {"verify", path, sound, "--max-kl", "1"}, {"inspect", path, "--check", "--stats"}} {
				_, err := graftRun(t, args...)
				switch want := class[fields[1]]; {
				case err == nil && (args[0] == "verify" || kind == "safetensors"): // nothing of the corpus is this model
					t.Errorf("%s %s, %v: no error", kind, fields[0], args)
				case fields[1] == "ok" || err != nil && errors.Is(err, want) && strings.Contains(err.Error(), file):
				case want != nil:
					t.Errorf("%s %s, %v: %v, want %v and the file's name", kind, fields[0], args, err, want)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d files", n)
	}
}
