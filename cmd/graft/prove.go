package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/graftml/graft/gguf"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/onnx"
)

// manifest says what a written model is: where it came from, its files and how it was proved. A
// folder holds it as graft_manifest.json, a GGUF file has it beside it.
type manifest struct {
	Version  int               `json:"graft_manifest"`
	From     string            `json:"from"`
	Adapters []string          `json:"adapters,omitempty"`
	Types    map[string]int    `json:"types,omitempty"` // tensors by number type
	SHA256   map[string]string `json:"sha256"`
	Verified *onnx.Figures     `json:"verified,omitempty"`
}

const manifestName = "graft_manifest.json"

// manifestPath is where the manifest of a model lies.
func manifestPath(out string) string {
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		return filepath.Join(out, manifestName)
	}
	return gguf.FirstPart(out) + "." + manifestName
}

// proveWritten runs a written model against what it was made from, and leaves a manifest.
func proveWritten(ctx context.Context, c *cli.Command, from origin, out *output, report []checkpoint.Written, sums map[string]string) error {
	m := manifest{Version: 1, SHA256: sums, From: filepath.Base(filepath.Clean(from.path)), Types: map[string]int{}}
	for _, a := range from.adapters {
		m.Adapters = append(m.Adapters, filepath.Base(filepath.Clean(a)))
	}
	limit := sameLimit
	for _, t := range report {
		m.Types[t.Codec]++
		if len(t.Shape) > 1 && !t.Kept {
			limit = max(limit, storage{codec: t.Codec}.klLimit())
		}
	}
	if c.IsSet("max-kl") {
		limit = c.Float("max-kl")
	}
	if err := m.verify(ctx, c, from, out, limit); err != nil {
		return err
	}
	return m.save(out.path())
}

// sameTokens is how many tokens are run where both models hold the same numbers: then only what is
// around the weights can differ, and a few tokens show it as well as many.
const sameTokens = 32

// verify compares a written model with what it was made from and keeps the figures.
func (m *manifest) verify(ctx context.Context, c *cli.Command, from origin, out *output, limit float64) error {
	if c.Bool("no-verify") {
		return nil
	}
	weights, err := compareWeights(ctx, from, origin{path: out.path()})
	if err != nil {
		return fmt.Errorf("verifying %q: %w", out.name, err)
	}
	if !weights.passed() {
		r := comparison{SameTokens: true, Weights: weights}
		return notWritten(r.failure(from.path, out.name))
	}
	if need, free := runBytes(from.path, out.path()), freeMemory(); free > 0 && need > free/2 {
		say("compared every tensor of %s (largest error %s), but did not run it: that takes %s of memory, and %s are free", out.name, weights, size(need), size(free))
		return nil
	}
	tokens := 512
	if weights.Error == 0 {
		tokens = sameTokens
	}
	p := pair{a: from, b: origin{path: out.path()}, text: verifyText, most: tokens, limit: limit}
	r, err := p.compare(ctx, c)
	if errors.Is(err, checkpoint.ErrNoTokenizer) {
		say("not verified: %v", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("verifying %q: %w", out.name, err)
	}
	r.judge(weights)
	f := r.figures()
	m.Verified = &f
	if !r.Passed {
		return notWritten(r.failure(from.path, out.name))
	}
	say("verified %s: negative log likelihood %.6f, of the source %.6f; mean KL %.3g, largest logit difference %.3g, same most likely token %.1f %%",
		out.name, r.NLL, r.ReferenceNLL, r.MeanKL, r.MaxDiff, 100*r.Top1)
	return nil
}

// runBytes is about how much memory it takes to run both models at once.
func runBytes(paths ...string) int64 {
	var n int64
	for _, path := range paths {
		c, err := checkpoint.Open(path)
		if err != nil {
			return 0 // running it says what is wrong
		}
		defer c.Close()
		n += storedBytes(c)
	}
	return n
}

// storedBytes is about the memory of a model that is held as it is stored.
func storedBytes(m *checkpoint.Checkpoint) int64 {
	var n int64
	for _, t := range m.Tensors() {
		values := int64(1)
		for _, d := range t.Shape {
			values *= int64(d)
		}
		switch stored := engine.StoredBytes(t.Codec, t.Shape, false); {
		case t.Codec == "NF4" || t.Codec == "FP4":
			n += values * 9 / 16
		case stored > 0:
			n += stored
		default:
			n += 4 * values
		}
	}
	return n
}

// freeMemory is the memory that programs can still have, 0 where the system does not say.
func freeMemory() int64 {
	_, free := memory()
	return free
}

// notWritten says what became of an output that failed its proof.
func notWritten(err error) error {
	return fmt.Errorf("%w; nothing was written (--max-kl allows more, --no-verify does not ask)", err)
}

// write hashes a model's files and leaves the manifest with them.
func (m *manifest) write(out string) error {
	var err error
	if m.SHA256, err = hashes(out); err != nil {
		return err
	}
	return m.save(out)
}

// save leaves the manifest with a model whose files are hashed.
func (m *manifest) save(out string) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := wholefile.WriteFile(manifestPath(out), append(data, '\n')); err != nil {
		return fmt.Errorf("writing manifest: %w", err)
	}
	return nil
}

// hashes returns the SHA-256 of the files that hold a model's tensors.
func hashes(out string) (map[string]string, error) {
	var files []string
	if info, err := os.Stat(out); err != nil {
		return nil, err
	} else if !info.IsDir() {
		parts, err := gguf.OpenSet(out)
		if err != nil {
			return nil, err
		}
		defer parts.Close()
		files = parts.Paths()
	} else {
		for _, pattern := range []string{"*.safetensors", checkpoint.BlocksFile, "model.onnx", "model.onnx.data"} {
			found, err := filepath.Glob(filepath.Join(out, pattern))
			if err != nil {
				return nil, err
			}
			files = append(files, found...)
		}
	}
	sums := map[string]string{}
	for _, path := range files {
		sum, err := hashFile(path)
		if err != nil {
			return nil, err
		}
		sums[filepath.Base(path)] = sum
	}
	return sums, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %q: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// checkManifest compares a model's files with its manifest, where it has one.
func checkManifest(path string) error {
	data, err := os.ReadFile(manifestPath(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading manifest: %w", err)
	}
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("reading manifest %q: %w", manifestPath(path), err)
	}
	dir := filepath.Dir(manifestPath(path))
	for _, name := range sortedNames(m.SHA256) {
		if strings.ContainsAny(name, `/\`) {
			return fmt.Errorf("manifest %q: %q is not the name of a file beside it", manifestPath(path), name)
		}
		sum, err := hashFile(filepath.Join(dir, name))
		if err != nil {
			return notFound(err, fmt.Sprintf("%q lists it", manifestPath(path)))
		}
		if sum != m.SHA256[name] {
			return fmt.Errorf("%q is not the file that was written: its SHA-256 is %s…, the manifest says %s…; write it again", filepath.Join(dir, name), sum[:12], m.SHA256[name][:min(12, len(m.SHA256[name]))])
		}
	}
	return nil
}
