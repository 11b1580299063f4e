package onnx

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/wholefile"
)

var (
	// ErrFormat is wrapped by errors about a bundle that is not what it claims to be.
	ErrFormat = errors.New("malformed bundle")
	// ErrUnsupported is wrapped by errors about a model that cannot be exported.
	ErrUnsupported = errors.New("unsupported for ONNX")
	// ErrInUse is wrapped by errors about an adapter that cannot go because it is the default.
	ErrInUse = errors.New("adapter is in use")
	// ErrNoAdapter is wrapped by errors about an adapter that a bundle does not have.
	ErrNoAdapter = errors.New("no such adapter")
)

// Files of a bundle.
const (
	modelFile    = "model.onnx"
	dataFile     = "model.onnx.data"
	genaiFile    = "genai_config.json"
	manifestFile = "graft_bundle.json"
	lockFile     = "graft_bundle.lock"
	adapterDir   = "adapters"
)

// Weights gives the parameters of a model under their Hugging Face names.
type Weights interface {
	// Rows decodes rows [lo, hi) of a tensor into dst, which holds (hi−lo)·columns values. The rows
	// of a vector (n) are its n values.
	Rows(name string, lo, hi int, dst []float32) error
}

// Options say what to export.
type Options struct {
	Config  []byte  // config.json of the model, as Hugging Face has it
	Weights Weights // all parameters that the configuration calls for

	// Targets names what gets a slot for adapters: paths of modules, last parts of paths ("q_proj",
	// "lm_head", "embed_tokens"), or "all-linear" for every product but the output head. Nil makes none.
	Targets []string
	// Gains gives every slot an input for the gains of DoRA, at the price of a product of values a module.
	Gains bool

	// Source identifies the weights, for those who add adapters that were computed from them. It is kept as
	// it is; see Bundle.Source.
	Source string

	// Files are written beside the model as they are: tokenizer.json, tokenizer_config.json,
	// special_tokens_map.json, chat_template.jinja. Names must be plain.
	Files map[string][]byte

	// Progress, where it is not nil, is called now and then with the bytes of weights written.
	Progress func(done, total int64)
}

// Export writes the model as a bundle in folder dir, which must not exist and appears only when all
// of it is there. Weights pass through in pieces, so that a model of any size takes bounded memory.
// The same model makes the same bytes. The error wraps [ErrUnsupported] for a model that the graph
// cannot express, and [fs.ErrExist] where dir is there already.
func Export(ctx context.Context, dir string, o Options) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("onnx: exporting to %q: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o777); err != nil {
		return fmt.Errorf("onnx: exporting to %q: %w", dir, err)
	}
	temp, err := wholefile.TempFolder(dir)
	if err != nil {
		return fmt.Errorf("onnx: exporting to %q: %w", dir, err)
	}
	defer os.RemoveAll(temp) // gone already where the rename worked
	if err = export(ctx, temp, &o); err == nil {
		err = wholefile.RenameFolder(temp, dir)
	}
	if err != nil {
		return fmt.Errorf("onnx: exporting to %q: %w", dir, err)
	}
	return nil
}

func export(ctx context.Context, dir string, o *Options) error {
	c, err := model.ParseConfig(o.Config)
	if err != nil {
		return err
	}
	adapts, err := matcher(c, o.Targets)
	if err != nil {
		return err
	}
	b, err := buildGraph(c, adapts, o.Gains)
	if err != nil {
		return err
	}
	total, err := b.place()
	if err != nil {
		return err
	}
	for name, data := range o.Files {
		if !plainName(name) || slices.Contains([]string{modelFile, dataFile, genaiFile, manifestFile, lockFile, adapterDir}, name) {
			return fmt.Errorf("file %q: not a name that a file beside the model can have", name)
		}
		if err := wholefile.WriteFile(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	w := &dataWriter{ctx: ctx, weights: o.Weights, progress: o.Progress, total: total, sum: sha256.New(), piece: pieceBytes / 4}
	if err := w.write(filepath.Join(dir, dataFile), b); err != nil {
		return err
	}
	encoded := encodeModel(&b.graph, dataFile)
	if len(encoded) > math.MaxInt32 {
		return fmt.Errorf("the graph alone takes %d bytes, more than ONNX allows: %w", len(encoded), ErrUnsupported)
	}
	if err := wholefile.WriteFile(filepath.Join(dir, modelFile), encoded); err != nil {
		return err
	}
	genai, err := genaiConfig(c)
	if err != nil {
		return err
	}
	if err := wholefile.WriteFile(filepath.Join(dir, genaiFile), genai); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, adapterDir), 0o777); err != nil {
		return err
	}
	m := &manifest{Version: manifestVersion, BaseSHA256: hex.EncodeToString(w.sum.Sum(nil)), Adapters: []Entry{}, Slots: b.slots, LongAfter: b.longAfter, Tied: c.Tied, Source: o.Source}
	return m.write(dir)
}

// matcher returns the predicate that Targets stand for. A name that fits no product is an error.
func matcher(c *model.Config, targets []string) (func(module string) bool, error) {
	linears, err := model.Targets(c)
	if err != nil {
		return nil, err
	}
	table, head, err := model.Ends(c)
	if err != nil {
		return nil, err
	}
	known, ends := []string{table.Module, head.Module}, []string{table.Module, head.Module}
	for _, p := range linears {
		known = append(known, p.Module)
	}
	chosen := map[string]bool{}
	for _, t := range targets {
		n := len(chosen)
		for _, module := range known {
			if module == t || strings.HasSuffix(module, "."+t) || t == "all-linear" && !slices.Contains(ends, module) {
				chosen[module] = true
			}
		}
		if len(chosen) == n && !slices.ContainsFunc(known, func(m string) bool { return chosen[m] && (m == t || strings.HasSuffix(m, "."+t)) }) {
			return nil, fmt.Errorf("target %q fits no linear product of the model; the last parts are those of %q", t, known[len(known)-1])
		}
	}
	return func(module string) bool { return chosen[module] }, nil
}

// place gives every external initializer its stretch of the data file, and returns the number of
// bytes of all of them. Large ones begin at a page, so that they can be mapped into memory.
func (b *builder) place() (total int64, err error) {
	const small, page, large = 64, 4096, 1 << 20
	end := int64(0)
	for i := range b.graph.initializers {
		t := &b.graph.initializers[i]
		if !t.external {
			continue
		}
		n, ok := t.byteSize()
		if !ok || n > math.MaxInt64/2-end {
			return 0, fmt.Errorf("tensor %q of shape %v is too large: %w", t.name, t.shape, ErrUnsupported)
		}
		align := int64(small)
		if n > large {
			align = page
		}
		t.offset, t.length = (end+align-1)/align*align, n
		end = t.offset + n
		total += n
	}
	return total, nil
}

// pieceBytes is how much of a tensor is in memory at a time, times two where it is transposed.
const pieceBytes = 32 << 20

// dataWriter fills the data file.
type dataWriter struct {
	ctx         context.Context
	weights     Weights
	progress    func(done, total int64)
	done, total int64
	piece       int       // values of a tensor that are in memory at a time
	sum         hash.Hash // over the float32 values of all parameters, in the order of the file
	file        *wholefile.File
	rows        []float32
	turned      []float32
	raw         []byte
}

func (w *dataWriter) write(path string, b *builder) (err error) {
	if w.file, err = wholefile.Create(path); err != nil {
		return err
	}
	defer w.file.Close()
	loads := b.loads
	for i := range b.graph.initializers {
		t := &b.graph.initializers[i]
		if !t.external {
			continue
		}
		if loads[0].table != nil {
			err = w.ropeTable(t.offset, &loads[0])
		} else {
			err = w.parameter(t.offset, &loads[0])
		}
		if err != nil {
			return err
		}
		loads = loads[1:]
	}
	return w.file.Commit()
}

// parameter writes one parameter at offset off, piece by piece.
func (w *dataWriter) parameter(off int64, l *load) error {
	step := min(l.rows, max(1, w.piece/l.cols))
	for lo := 0; lo < l.rows; lo += step {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n := min(step, l.rows-lo)
		w.rows = grow(w.rows, n*l.cols)
		if err := w.weights.Rows(l.weight, lo, lo+n, w.rows); err != nil {
			return err
		}
		for i, v := range w.rows {
			if v != v || math.IsInf(float64(v), 0) {
				return fmt.Errorf("tensor %q holds %v at row %d: the model is damaged", l.weight, v, lo+i/l.cols)
			}
		}
		w.encode(w.rows)
		w.sum.Write(w.raw)
		if l.offset != 0 {
			for i := range w.rows {
				w.rows[i] += l.offset
			}
			w.encode(w.rows)
		}
		var err error
		if l.transpose {
			err = w.writeTurned(off, lo, n, l)
		} else {
			_, err = w.file.WriteAt(w.raw, off+4*int64(lo)*int64(l.cols))
		}
		if err != nil {
			return err
		}
		w.advance(4 * int64(n) * int64(l.cols))
	}
	return nil
}

// writeTurned writes n rows from row lo on, which are in w.rows, as columns of the transpose
// (cols, rows): at once where they are all of it, in one stretch for each of its rows where not.
func (w *dataWriter) writeTurned(off int64, lo, n int, l *load) error {
	w.turned = grow(w.turned, n*l.cols)
	turn(w.turned, w.rows, n, l.cols)
	w.encode(w.turned)
	if n == l.rows {
		_, err := w.file.WriteAt(w.raw, off)
		return err
	}
	for c := range l.cols {
		at := off + 4*(int64(c)*int64(l.rows)+int64(lo))
		if _, err := w.file.WriteAt(w.raw[4*c*n:4*(c+1)*n], at); err != nil {
			return err
		}
	}
	return nil
}

// turn is dst (cols, rows) = src (rows, cols) transposed, in squares that stay in the cache.
func turn(dst, src []float32, rows, cols int) {
	const square = 32
	for r0 := 0; r0 < rows; r0 += square {
		for c0 := 0; c0 < cols; c0 += square {
			for r := r0; r < min(r0+square, rows); r++ {
				for c := c0; c < min(c0+square, cols); c++ {
					dst[c*rows+r] = src[r*cols+c]
				}
			}
		}
	}
}

// encode sets w.raw to the little-endian bytes of v.
func (w *dataWriter) encode(v []float32) {
	w.raw = grow(w.raw, 4*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint32(w.raw[4*i:], math.Float32bits(x))
	}
}

func (w *dataWriter) advance(n int64) {
	w.done += n
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
}

// grow returns a slice of n elements, with x's memory where that suffices.
func grow[T any](x []T, n int) []T {
	if cap(x) < n {
		return make([]T, n)
	}
	return x[:n]
}

// plainName reports whether a name is one of a file in the same folder, on any system.
func plainName(name string) bool {
	return name != "" && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\\:\x00") && filepath.IsLocal(name)
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
