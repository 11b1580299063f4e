package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/graftml/graft/safetensors"
)

// This file keeps the state of a run on disk, from which it goes on.

const (
	stateDir  = "state"
	stateFile = "state.safetensors"
	stateForm = "graft training state 1"
)

// state is everything that the rest of a run depends on, besides the recipe and the data.
type state struct {
	step     int
	cursor   cursor
	pass     uint64 // training passes so far, which dropout masks depend on
	tokens   int64
	best     [][]float32 // parameters at the best evaluation, nil before the first
	bestLoss float64
	bestStep int
	worse    int      // evaluations since the best
	first    float64  // the first evaluation's loss, NaN where there was none
	last     float64  // the last evaluation's loss
	stopped  bool     // early stopping has ended the run
	pending  *metrics // of the last step, whose evaluation and line of metrics are to be done
}

// saved is the part of a state that is not tensors.
type saved struct {
	Step, Epoch, Next int
	Pass              uint64
	Tokens            int64
	BestLoss          *float64
	BestStep, Worse   int
	First, Last       *float64
	Stopped           bool
	Pending           *metrics
	Data              string // fingerprint
}

// fingerprint identifies encoded data.
func fingerprint(train, eval objective) string {
	h := sha256.New()
	train.digest(h)
	h.Write([]byte("eval"))
	if eval != nil {
		eval.digest(h)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// finite returns nil for what JSON cannot write.
func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

func orNaN(x *float64) float64 {
	if x == nil {
		return math.NaN()
	}
	return *x
}

// save replaces the state on disk. The file is written under another name and renamed, so that a run
// killed at any moment leaves a whole one.
func (r *run) save() error {
	dir := filepath.Join(r.recipe.Out, stateDir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("train: saving state: %w", err)
	}
	s := &r.state
	info, err := json.Marshal(saved{s.step, s.cursor.epoch, s.cursor.next, s.pass, s.tokens, finite(s.bestLoss),
		s.bestStep, s.worse, finite(s.first), finite(s.last), s.stopped, s.pending, r.fingerprint})
	if err != nil {
		return fmt.Errorf("train: saving state: %w", err)
	}
	var specs []safetensors.Spec
	var values [][]float32 // of each spec
	add := func(kind, name string, v []float32) {
		specs = append(specs, safetensors.Spec{Name: kind + "/" + name, DType: safetensors.F32, Shape: []int{len(v)}})
		values = append(values, v)
	}
	for i, p := range r.optimizer.params {
		add("value", p.Name, p.Value)
		add("first moment", p.Name, r.optimizer.m[i])
		add("second moment", p.Name, r.optimizer.v[i])
		if s.best != nil {
			add("best value", p.Name, s.best[i])
		}
	}
	meta := map[string]string{"format": stateForm, "recipe": string(r.recipe.YAML()), "state": string(info)}
	if err := writeTensors(filepath.Join(dir, stateFile), specs, values, meta); err != nil {
		return fmt.Errorf("train: saving state: %w", err)
	}
	r.tell(Event{Kind: Saved, Step: s.step, Total: r.total})
	return nil
}

// writeTensors writes float32 tensors without a second copy of more than one of them in memory.
func writeTensors(path string, specs []safetensors.Spec, values [][]float32, meta map[string]string) error {
	layout, err := safetensors.Plan(specs, meta)
	if err != nil {
		return err
	}
	w, err := safetensors.Create(path, layout)
	if err != nil {
		return err
	}
	defer w.Close()
	var raw []byte
	for i, v := range values {
		raw = raw[:0]
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		if err := w.WriteAt(specs[i].Name, raw, 0); err != nil {
			return err
		}
	}
	return w.Commit()
}

// restorable are the keys that may differ between a run and its resumption: they change no number.
var restorable = []string{"out", "threads", "remat", "memory", "save_steps", "logging_steps"}

// restore reads the state on disk. It reports false where there is none, and fails with ErrState where
// it belongs to another run.
func (r *run) restore() (bool, error) {
	path := filepath.Join(r.recipe.Out, stateDir, stateFile)
	f, err := safetensors.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("train: resuming: %w: %w", ErrState, err)
	}
	defer f.Close()
	if err := r.restoreFrom(f); err != nil {
		return false, fmt.Errorf("train: resuming from %q: %w: %w", path, ErrState, err)
	}
	return true, nil
}

func (r *run) restoreFrom(f *safetensors.File) error {
	meta := f.Metadata()
	if meta["format"] != stateForm {
		return fmt.Errorf("its format is %q, not %q; it was written by another version", meta["format"], stateForm)
	}
	before, err := ParseRecipe([]byte(meta["recipe"]))
	if err != nil {
		return err
	}
	if key, was, is := before.changed(r.recipe, restorable...); key != "" {
		return fmt.Errorf("%s was %s and is now %s; resume with the recipe of the run, or start anew", key, was, is)
	}
	var info saved
	if err := json.Unmarshal([]byte(meta["state"]), &info); err != nil {
		return fmt.Errorf("its counters: %w", err)
	}
	if info.Data != r.fingerprint {
		return fmt.Errorf("the data are not those of the run; restore the files, or start anew")
	}
	if info.Step < 0 || info.Step > r.total || info.Epoch < 0 || info.Next < 0 {
		return fmt.Errorf("step %d, epoch %d and batch %d are not of this run", info.Step, info.Epoch, info.Next)
	}
	r.state = state{step: info.Step, cursor: cursor{epoch: info.Epoch, next: info.Next}, pass: info.Pass, tokens: info.Tokens,
		bestLoss: orNaN(info.BestLoss), bestStep: info.BestStep, worse: info.Worse, first: orNaN(info.First), last: orNaN(info.Last),
		stopped: info.Stopped, pending: info.Pending}
	for i, p := range r.optimizer.params {
		for _, t := range []struct {
			kind string
			dst  []float32
		}{{"value", p.Value}, {"first moment", r.optimizer.m[i]}, {"second moment", r.optimizer.v[i]}} {
			if err := readTensor(f, t.kind+"/"+p.Name, t.dst); err != nil {
				return err
			}
		}
		if _, ok := f.Tensor("best value/" + p.Name); ok {
			v := make([]float32, len(p.Value))
			if err := readTensor(f, "best value/"+p.Name, v); err != nil {
				return err
			}
			r.state.best = append(r.state.best, v)
		}
	}
	if n := len(r.state.best); n != 0 && n != len(r.optimizer.params) {
		return fmt.Errorf("%d of %d best values are there", n, len(r.optimizer.params))
	}
	return nil
}

func readTensor(f *safetensors.File, name string, dst []float32) error {
	t, ok := f.Tensor(name)
	if !ok || t.DType != safetensors.F32 || t.Size() != int64(4*len(dst)) {
		return fmt.Errorf("tensor %q is missing or has another size", name)
	}
	raw := make([]byte, 4*len(dst))
	if err := f.ReadAt(t, raw, 0); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return nil
}

// cursor is a place in the data: batches are a function of the epoch, so two counters are enough.
type cursor struct {
	epoch, next int
	batches     [][]int // of the epoch, made when first asked for
}
