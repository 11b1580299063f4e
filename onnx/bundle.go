package onnx

// The adapters of a bundle: its manifest, and the changes to it.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gofrs/flock"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/wholefile"
)

const (
	manifestVersion = 1
	maxManifest     = 64 << 20
	maxAdapterFile  = 1<<31 - 1
	lockPatience    = 10 * time.Second // how long a change waits for another process's
)

// Slot is a place for an adapter in the graph: two inputs at one product, y = (x·Wᵀ + (x·A)·B) ⊙ gain. At
// the embedding table x is the one-hot row of a token.
type Slot struct {
	Module string `json:"module"`        // path of the module, as Hugging Face names it
	A      string `json:"a"`             // input (In, r)
	B      string `json:"b"`             // input (r, Out), the scale multiplied in
	Gain   string `json:"gain,omitzero"` // input (Out) or one value for all; "" where there is none
	In     int    `json:"in"`
	Out    int    `json:"out"`
}

// Figures say how far a model is from the one it was made from, over the tokens of a text.
type Figures struct {
	Tokens       int     `json:"tokens"`
	MaxDiff      float64 `json:"max_logit_difference"`
	MeanKL       float64 `json:"mean_kl"`       // nats a token
	Top1         float64 `json:"top1"`          // share of tokens with the same most likely next one
	NLL          float64 `json:"nll"`           // mean, nats a token
	ReferenceNLL float64 `json:"reference_nll"` // of the model it was made from
}

// Entry is an adapter of a bundle.
type Entry struct {
	Name       string   `json:"name"`
	File       string   `json:"file"` // in the bundle: "adapters/NAME.onnx_adapter"
	SHA256     string   `json:"sha256"`
	Modules    int      `json:"modules"`    // products that it adapts
	Parameters int      `json:"parameters"` // values in its matrices
	Verified   *Figures `json:"verified,omitzero"`
}

// manifest is graft_bundle.json.
type manifest struct {
	Version    int      `json:"version"`
	BaseSHA256 string   `json:"base_sha256"` // of the base's float32 values, in the order of the data file
	Default    string   `json:"default"`     // the adapter of requests that name none; "" is the bare base
	Verified   *Figures `json:"verified,omitzero"`
	Adapters   []Entry  `json:"adapters"`
	Slots      []Slot   `json:"slots"`
	LongAfter  int      `json:"long_after,omitzero"` // see Bundle.LongAfter
	Tied       bool     `json:"tied,omitzero"`       // the head of the model shares its table
	Source     string   `json:"source,omitzero"`     // see Options.Source
}

// names is what an adapter may be called: something that is a file's name on every system.
var names = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$`)

func fileOf(name string) string { return adapterDir + "/" + name + ".onnx_adapter" }

// parseManifest reads and checks graft_bundle.json. The error wraps ErrFormat.
func parseManifest(data []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, manifestFile, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("%w: %s has version %d; this program knows %d", ErrFormat, manifestFile, m.Version, manifestVersion)
	}
	seen := map[string]bool{}
	for _, e := range m.Adapters {
		switch {
		case !names.MatchString(e.Name):
			return nil, fmt.Errorf("%w: %s: adapter name %q", ErrFormat, manifestFile, e.Name)
		case e.File != fileOf(e.Name):
			return nil, fmt.Errorf("%w: %s: adapter %q lies in %q, not in %q", ErrFormat, manifestFile, e.Name, e.File, fileOf(e.Name))
		case seen[e.Name]:
			return nil, fmt.Errorf("%w: %s: adapter %q is there twice", ErrFormat, manifestFile, e.Name)
		}
		seen[e.Name] = true
	}
	if m.LongAfter < 0 {
		return nil, fmt.Errorf("%w: %s: long_after is %d", ErrFormat, manifestFile, m.LongAfter)
	}
	if m.Default != "" && !seen[m.Default] {
		return nil, fmt.Errorf("%w: %s: the default adapter %q is not in the list", ErrFormat, manifestFile, m.Default)
	}
	taken := map[string]bool{}
	for _, s := range m.Slots {
		if s.Module == "" || s.A == "" || s.B == "" || s.In < 1 || s.Out < 1 || s.A == s.B || taken[s.A] || taken[s.B] {
			return nil, fmt.Errorf("%w: %s: slot of %q", ErrFormat, manifestFile, s.Module)
		}
		if s.Gain != "" && (taken[s.Gain] || s.Gain == s.A || s.Gain == s.B) {
			return nil, fmt.Errorf("%w: %s: slot of %q", ErrFormat, manifestFile, s.Module)
		}
		taken[s.A], taken[s.B], taken[s.Gain] = true, true, s.Gain != ""
	}
	return &m, nil
}

// write replaces the manifest in folder dir.
func (m *manifest) write(dir string) error {
	data, err := indented(m)
	if err != nil {
		return err
	}
	return wholefile.WriteFile(filepath.Join(dir, manifestFile), data)
}

// Bundle is an exported model with its adapters. Its methods may be called from several goroutines
// and processes at once.
type Bundle struct {
	dir string
	mu  sync.Mutex
	m   *manifest
	raw []byte // what m was read from
}

// OpenBundle opens the bundle in folder dir. Only its manifest is read.
func OpenBundle(dir string) (*Bundle, error) {
	b := &Bundle{dir: dir}
	if _, err := b.Reload(); err != nil {
		return nil, err
	}
	return b, nil
}

// LongAfter returns the number of tokens past which the graph rotates a sequence by frequencies of its
// own, or 0 where there is but one set. The graph takes the length of the attention mask for that of
// the sequence; a cache made below that length is of no use above it.
func (b *Bundle) LongAfter() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m.LongAfter
}

// Reload reads the manifest again where it was replaced since, by this process or another, and
// reports whether it was.
func (b *Bundle) Reload() (changed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reload()
}

// reload does the work of Reload; the caller holds b.mu.
func (b *Bundle) reload() (bool, error) {
	f, err := os.Open(filepath.Join(b.dir, manifestFile))
	if err != nil {
		if _, statErr := os.Stat(filepath.Join(b.dir, modelFile)); errors.Is(err, fs.ErrNotExist) && statErr == nil {
			return false, fmt.Errorf("onnx: opening bundle %q: %w: it has a %s, but no %s; export it again", b.dir, ErrFormat, modelFile, manifestFile)
		}
		return false, fmt.Errorf("onnx: opening bundle %q: %w", b.dir, err)
	}
	defer f.Close()
	// The bytes are compared: within a tick of the clock two changes can leave the same number, time and size.
	data, err := wholefile.ReadAll(f, maxManifest, ErrFormat)
	if err == nil && b.m != nil && bytes.Equal(data, b.raw) {
		return false, nil
	}
	if err == nil {
		var m *manifest
		if m, err = parseManifest(data); err == nil {
			b.m, b.raw = m, data
			return true, nil
		}
	}
	return false, fmt.Errorf("onnx: opening bundle %q: %w", b.dir, err)
}

// Dir returns the bundle's folder.
func (b *Bundle) Dir() string { return b.dir }

// state returns the manifest as last read. It is replaced, never changed.
func (b *Bundle) state() *manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m
}

// ModelFile returns the path of the graph.
func (b *Bundle) ModelFile() string { return filepath.Join(b.dir, modelFile) }

// BaseSHA256 returns the hash of the base's float32 values: the same for the same model, whatever file it was exported from.
func (b *Bundle) BaseSHA256() string { return b.state().BaseSHA256 }

// Source returns what [Options] said identifies the weights that the bundle was made from, "" if nothing.
func (b *Bundle) Source() string { return b.state().Source }

// Slots returns the places for adapters in the graph, in its order.
func (b *Bundle) Slots() []Slot { return slices.Clone(b.state().Slots) }

// Adapters returns the adapters by name.
func (b *Bundle) Adapters() []Entry { return slices.Clone(b.state().Adapters) }

// Default returns the adapter of requests that name none, "" for the bare base.
func (b *Bundle) Default() string { return b.state().Default }

// Verified returns the figures recorded for an adapter, or with "" for the base; nil if none are.
func (b *Bundle) Verified(name string) *Figures {
	m := b.state()
	if name == "" {
		return m.Verified
	}
	if i := m.index(name); i >= 0 {
		return m.Adapters[i].Verified
	}
	return nil
}

func (m *manifest) index(name string) int {
	return slices.IndexFunc(m.Adapters, func(e Entry) bool { return e.Name == name })
}

// find is index, with an error that lists what there is.
func (m *manifest) find(name string) (int, error) {
	if i := m.index(name); i >= 0 {
		return i, nil
	}
	have := "the bundle has none"
	if len(m.Adapters) > 0 {
		var list []string
		for _, e := range m.Adapters {
			list = append(list, e.Name)
		}
		have = "the bundle has " + strings.Join(list, ", ")
	}
	return -1, fmt.Errorf("%w; %s", ErrNoAdapter, have)
}

// change takes the lock, reads the manifest as it is now, lets edit make a new one, and replaces it.
func (b *Bundle) change(doing string, edit func(m *manifest) error) (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("onnx: %s bundle %q: %w", doing, b.dir, err)
		}
	}()
	lock := flock.New(filepath.Join(b.dir, lockFile))
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	if ok, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil || !ok {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("another process has been changing it for %v; try again when it is done", lockPatience)
		}
		return err
	}
	defer lock.Unlock()
	if _, err := b.reload(); err != nil {
		return err
	}
	m := *b.m
	m.Adapters = slices.Clone(m.Adapters)
	if err := edit(&m); err != nil {
		return err
	}
	if err := m.write(b.dir); err != nil {
		return err
	}
	b.dropOld()
	_, err = b.reload()
	return err
}

// Add puts an adapter into the bundle under the given name, or puts it in the place of the one that
// has the name. Names are letters, digits, '.', '_' and '-'. Gains are those of DoRA, see
// [adapters.Adapter.Gains]. An adapter that does not fit the graph's slots is refused with an error that
// wraps [adapters.ErrMismatch].
func (b *Bundle) Add(name string, a *adapters.Adapter, gains map[string][]float32) error {
	if !names.MatchString(name) {
		return fmt.Errorf("onnx: adding to bundle %q: adapter name %q: names are letters, digits, '.', '_' and '-', and do not begin with '.'", b.dir, name)
	}
	return b.change(fmt.Sprintf("adding %q to", name), func(m *manifest) error {
		slots := bySlotModule(m.Slots)
		a, err := m.resolve(a)
		if err != nil {
			return err
		}
		tensors, err := a.ONNXTensors(func(module string) (adapters.ONNXSlot, bool) {
			s := slots[module]
			return adapters.ONNXSlot{A: s.A, B: s.B, Gain: s.Gain}, s.Module != ""
		}, gains)
		if err != nil {
			return fmt.Errorf("%w (the bundle has %d slots for adapters)", err, len(m.Slots))
		}
		data, err := adapters.EncodeONNX(tensors)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(b.dir, adapterDir), 0o777); err != nil {
			return err
		}
		if i := m.index(name); i >= 0 {
			if err := b.keepOld(m.Adapters[i]); err != nil {
				return err
			}
		}
		if err := wholefile.WriteFile(filepath.Join(b.dir, fileOf(name)), data); err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		e := Entry{Name: name, File: fileOf(name), SHA256: hex.EncodeToString(sum[:]), Modules: len(a.Pairs), Parameters: a.Parameters()}
		if i := m.index(name); i >= 0 {
			m.Adapters[i] = e
			return nil
		}
		m.Adapters = append(m.Adapters, e)
		slices.SortFunc(m.Adapters, func(x, y Entry) int { return strings.Compare(x.Name, y.Name) })
		return nil
	})
}

// resolve checks an adapter against the slots. What has none passes here: making tensors of it says so.
func (m *manifest) resolve(a *adapters.Adapter) (*adapters.Adapter, error) {
	slots := bySlotModule(m.Slots)
	return a.Resolve(adapters.Base{Table: tableModule, Head: headModule, Tied: m.Tied,
		Linear: func(module string) (out, in int, ok bool) {
			if s := slots[module]; s.Module != "" {
				return s.Out, s.In, true
			}
			if p := a.Pair(module); p != nil && (module == tableModule || module == headModule) {
				return p.Out, p.In, true
			}
			return 0, 0, false
		},
		Shape: func(name string) ([]int, bool) {
			if w := a.WholeOf(name); w != nil {
				return w.Shape, true
			}
			if r := a.TokenRows(strings.TrimSuffix(name, ".weight")); r != nil {
				return []int{slices.Max(r.Indices) + 1, r.Width}, true
			}
			return nil, false
		}})
}

// What every family calls its table and its head.
const (
	tableModule = "model.embed_tokens"
	headModule  = "lm_head"
)

// oldFile is where the file of an adapter that is being replaced stays until the manifest names the new one:
// a reader of the manifest as it was, now or after a crash in between, finds it there.
func oldFile(e Entry) string {
	return adapterDir + "/." + e.Name + "." + e.SHA256[:min(16, len(e.SHA256))] + ".old"
}

// keepOld puts the file of an adapter aside, under a second name.
func (b *Bundle) keepOld(e Entry) error {
	from, to := filepath.Join(b.dir, e.File), filepath.Join(b.dir, oldFile(e))
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !e.is(data) {
		return nil // damaged: replacing it mends that
	}
	if err != nil {
		return err
	}
	return wholefile.WriteFile(to, data)
}

// dropOld removes what keepOld and interrupted changes left.
func (b *Bundle) dropOld() {
	left, _ := filepath.Glob(filepath.Join(b.dir, adapterDir, ".*.old"))
	for _, path := range left {
		os.Remove(path)
	}
}

// is reports whether data is the adapter's file.
func (e *Entry) is(data []byte) bool {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]) == e.SHA256
}

func bySlotModule(slots []Slot) map[string]Slot {
	m := make(map[string]Slot, len(slots))
	for _, s := range slots {
		m[s.Module] = s
	}
	return m
}

// Remove takes an adapter out of the bundle. The error wraps [ErrInUse], and nothing changes, where it is
// the default. States that have it keep it.
func (b *Bundle) Remove(name string) error {
	err := b.change(fmt.Sprintf("removing %q from", name), func(m *manifest) error {
		i, err := m.find(name)
		if err != nil {
			return err
		}
		if m.Default == name {
			return fmt.Errorf("%w: requests that name no adapter get it; make another the default first, or the bare base (graft adapter swap BUNDLE none)", ErrInUse)
		}
		m.Adapters = slices.Delete(m.Adapters, i, i+1)
		return nil
	})
	if err != nil {
		return err
	}
	// The manifest no longer names the file. One that another process added again since is spared.
	return b.change(fmt.Sprintf("removing %q from", name), func(m *manifest) error {
		if m.index(name) >= 0 {
			return nil
		}
		if err := os.Remove(filepath.Join(b.dir, fileOf(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// SetDefault makes an adapter, or with "" the bare base, what requests get that name none.
func (b *Bundle) SetDefault(name string) error {
	return b.change(fmt.Sprintf("swapping to %q in", name), func(m *manifest) error {
		if name != "" {
			if _, err := m.find(name); err != nil {
				return err
			}
		}
		m.Default = name
		return nil
	})
}

// Record stores figures in the manifest: those of an adapter, or with "" those of the base.
func (b *Bundle) Record(name string, f Figures) error {
	return b.change("recording figures in", func(m *manifest) error {
		if name == "" {
			m.Verified = &f
			return nil
		}
		i, err := m.find(name)
		if err == nil {
			m.Adapters[i].Verified = &f
		}
		return err
	})
}

// Tensors reads an adapter of the bundle as the graph inputs that it fills, in the order of the
// slots, and checks it against its hash and the slots.
func (b *Bundle) Tensors(name string) ([]adapters.Tensor, error) {
	tensors, _, err := b.Load(name)
	return tensors, err
}

// Load is [Bundle.Tensors] that also returns the SHA-256 of the file that they were read from.
func (b *Bundle) Load(name string) (tensors []adapters.Tensor, sha256 string, err error) {
	if tensors, sha256, err = b.load(name); err != nil {
		return nil, "", fmt.Errorf("onnx: reading adapter %q of bundle %q: %w", name, b.dir, err)
	}
	return tensors, sha256, nil
}

func (b *Bundle) load(name string) ([]adapters.Tensor, string, error) {
	// Another process may replace file and manifest between the two reads: then the file that the
	// manifest means is under its other name, or the next look sees both new.
	for try := 0; ; try++ {
		m := b.state()
		i, err := m.find(name)
		if err != nil {
			return nil, "", err
		}
		e := m.Adapters[i]
		data, err := wholefile.ReadFile(filepath.Join(b.dir, fileOf(name)), maxAdapterFile, ErrFormat)
		if err == nil && !e.is(data) {
			old, oldErr := wholefile.ReadFile(filepath.Join(b.dir, oldFile(e)), maxAdapterFile, ErrFormat)
			if data = old; oldErr != nil || !e.is(old) {
				err = fmt.Errorf("%w: %s is not the file that was added; add it again", ErrFormat, fileOf(name))
			}
		}
		if err == nil {
			tensors, err := adapters.DecodeONNX(data)
			if err == nil {
				tensors, err = arrange(tensors, m.Slots)
			}
			return tensors, e.SHA256, err
		}
		if try == 5 {
			return nil, "", err
		}
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
		if _, err := b.Reload(); err != nil {
			return nil, "", err
		}
	}
}

// arrange puts tensors in the order of the slots and checks that they fill them, both or none.
func arrange(tensors []adapters.Tensor, slots []Slot) ([]adapters.Tensor, error) {
	byName := make(map[string]adapters.Tensor, len(tensors))
	for _, t := range tensors {
		byName[t.Name] = t
	}
	out := make([]adapters.Tensor, 0, len(tensors))
	for _, s := range slots {
		a, okA := byName[s.A]
		b, okB := byName[s.B]
		if !okA && !okB {
			continue
		}
		if okA != okB || len(a.Shape) != 2 || len(b.Shape) != 2 || a.Shape[0] != s.In || b.Shape[1] != s.Out || a.Shape[1] != b.Shape[0] {
			return nil, fmt.Errorf("%w: the slot of %q takes (%d, r) and (r, %d), and the adapter has %v and %v", ErrFormat, s.Module, s.In, s.Out, a.Shape, b.Shape)
		}
		out = append(out, a, b)
		if g, ok := byName[s.Gain]; ok && s.Gain != "" {
			if !slices.Equal(g.Shape, []int{s.Out}) {
				return nil, fmt.Errorf("%w: the slot of %q takes %d gains, and the adapter has %v", ErrFormat, s.Module, s.Out, g.Shape)
			}
			out = append(out, g)
		}
	}
	if len(out) != len(tensors) {
		return nil, fmt.Errorf("%w: the adapter has %d tensors, of which %d are inputs of the graph", ErrFormat, len(tensors), len(out))
	}
	return out, nil
}

// Adapter reads an adapter of the bundle as pairs of matrices again. Their scales, which are
// multiplied into the file's matrices, are 1. The error wraps [adapters.ErrUnsupported] for DoRA, of
// which the file has the gains for one base and not the magnitudes.
func (b *Bundle) Adapter(name string) (*adapters.Adapter, error) {
	tensors, err := b.Tensors(name)
	if err != nil {
		return nil, err
	}
	return FromTensors(name, tensors, b.state().Slots)
}

// FromTensors makes an adapter of the tensors of an .onnx_adapter file for the given slots; see
// [Bundle.Adapter].
func FromTensors(name string, tensors []adapters.Tensor, slots []Slot) (*adapters.Adapter, error) {
	tensors, err := arrange(tensors, slots)
	if err != nil {
		return nil, fmt.Errorf("onnx: reading adapter %q: %w", name, err)
	}
	a := &adapters.Adapter{Name: name}
	byName := map[string]adapters.Tensor{}
	for _, t := range tensors {
		byName[t.Name] = t
	}
	for _, s := range slots {
		ta, ok := byName[s.A]
		if !ok {
			continue
		}
		if _, ok := byName[s.Gain]; ok && s.Gain != "" {
			return nil, fmt.Errorf("onnx: reading adapter %q: %w: it has the gains of DoRA on %q for one base, and its magnitudes are not in it; use the adapter that it was made from", name, adapters.ErrUnsupported, s.Module)
		}
		tb := byName[s.B]
		in, r, out := ta.Shape[0], ta.Shape[1], tb.Shape[1]
		p := adapters.Pair{Module: s.Module, Table: s.Module == tableModule, R: r, In: in, Out: out, Scale: 1, A: make([]float32, r*in), B: make([]float32, out*r)}
		turn(p.A, ta.Data, in, r)
		turn(p.B, tb.Data, r, out)
		a.Pairs = append(a.Pairs, p)
	}
	if len(a.Pairs) > 0 {
		a.Config.R = a.Pairs[0].R
		a.Config.Alpha = float64(a.Config.R)
	}
	adapters.SortPairs(a.Pairs)
	return a, nil
}

// SlotsOf returns the slots that [Export] gives a model for every product, its table and its head, as it
// names them.
func SlotsOf(config []byte) ([]Slot, error) {
	c, err := model.ParseConfig(config)
	if err != nil {
		return nil, err
	}
	b, err := buildGraph(c, func(string) bool { return true }, true)
	if err != nil {
		return nil, err
	}
	return b.slots, nil
}
