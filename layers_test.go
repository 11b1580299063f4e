// Package graft_test holds the tests about the tree as a whole.
package graft_test

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/graftml/graft/"

// layers lists, for every package, the packages of this module it may import. A leaf may import
// none. The commands may import everything, and nobody imports them.
var layers = map[string][]string{
	"internal/wholefile": {}, // below the leaves that touch files: the standard library only

	"safetensors":        {"internal/wholefile"},
	"gguf":               {"internal/wholefile"},
	"internal/kernel":    {"internal/kernel/amxemulator"}, // with the build tag of that name
	"internal/model":     {},
	"internal/tokenizer": {},
	"internal/chat":      {},
	"internal/hub":       {"internal/wholefile"},

	"internal/kernel/amxemulator": {},

	"quantize":            {"internal/kernel"},
	"adapters":            {"safetensors", "gguf", "quantize", "internal/kernel", "internal/wholefile"},
	"internal/autograd":   {"internal/kernel"},
	"internal/imatrix":    {"gguf", "internal/wholefile"},
	"internal/checkpoint": {"safetensors", "gguf", "quantize", "adapters", "internal/imatrix", "internal/model", "internal/tokenizer", "internal/wholefile"},
	"internal/engine": {"internal/autograd", "internal/kernel", "quantize", "internal/model",
		"internal/checkpoint", "internal/imatrix", "adapters"},
	"internal/testfile":  {},
	"internal/testhub":   {},
	"internal/testspeed": {},
	"internal/testmodel": {"safetensors", "gguf", "quantize", "internal/model", "internal/checkpoint", "internal/tokenizer"},

	"testdata/bench/randommodel": {"internal/testmodel"},

	"onnx":     {"internal/model", "internal/checkpoint", "adapters", "quantize", "internal/wholefile"},
	"onnx/ort": {"onnx", "adapters", "internal/model", "internal/kernel"},

	"internal/inspect": {"safetensors", "gguf", "quantize", "adapters", "onnx", "internal/model", "internal/checkpoint", "internal/tokenizer",
		"internal/chat", "internal/kernel", "internal/wholefile", "train/dataset"},

	"train/dataset":  {"internal/tokenizer", "internal/chat"},
	"train/evaluate": {"internal/engine", "internal/kernel", "internal/tokenizer", "internal/chat", "internal/checkpoint"},
	"train": {"train/dataset", "train/evaluate", "internal/engine", "internal/autograd", "internal/checkpoint",
		"internal/chat", "internal/tokenizer", "internal/model", "internal/kernel", "internal/wholefile", "adapters", "quantize", "safetensors"},
}

// tests may also use what makes test models and reads test files.
var testsMayUse = map[string]bool{"internal/testfile": true, "internal/testmodel": true, "internal/testspeed": true, "internal/testhub": true, "safetensors": true, "gguf": true, "internal/checkpoint": true}

func TestLayers(t *testing.T) {
	seen := map[string]bool{}
	eachGoFile(t, func(path string) {
		pkg := filepath.ToSlash(filepath.Dir(path))
		if pkg == "." || strings.HasPrefix(pkg, "cmd/") {
			return
		}
		allowed, known := layers[pkg]
		if !known {
			t.Errorf("%s: package %q has no place in the layers; give it one in layers_test.go", path, pkg)
			return
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			target, ours := strings.CutPrefix(imported, module)
			if !ours || target == pkg || slices.Contains(allowed, target) {
				continue
			}
			if strings.HasSuffix(path, "_test.go") && testsMayUse[target] {
				continue
			}
			t.Errorf("%s imports %s, which is above it or beside it", path, target)
		}
	})
	for pkg := range layers {
		if !seen[pkg] {
			t.Errorf("package %s is in the layers but not in the tree", pkg)
		}
	}
}

// TestBudget keeps files readable: a file holds one thing.
func TestBudget(t *testing.T) {
	const limit = 700
	eachGoFile(t, func(path string) {
		if strings.Contains(path, "_asm") {
			return
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			n++
		}
		if n > limit {
			t.Errorf("%s has %d lines, more than %d", path, n, limit)
		}
	})
}

func eachGoFile(t *testing.T, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "_asm" || d.Name() == "quickstart" || d.Name() == "testdata" && path != "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
