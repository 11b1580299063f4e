package train

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/safetensors"
)

// This file keeps the state of a run on disk, from which it goes on.

const (
	stateDir  = "state"
	stateFile = "state.safetensors"
	stateForm = "graft training state 2"
)

// state is everything that the rest of a run depends on, besides the recipe and the data.
type state struct {
	step     int
	cursor   cursor
	pass     uint64 // training passes so far, which dropout masks depend on
	tokens   int64
	bestLoss float64  // of the best evaluation after the first step, NaN before one
	bestStep int      // its step, whose parameters bestFile holds; 0 before
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
	var file tensorFile
	for i, p := range r.optimizer.params {
		file.add("value/"+p.Name, p.Value)
		file.add("first moment/"+p.Name, r.optimizer.m[i])
		file.add("second moment/"+p.Name, r.optimizer.v[i])
	}
	err = r.eachFrozen(func(name string, v []float32) error {
		file.add(name, v)
		return nil
	})
	if err != nil {
		return fmt.Errorf("train: saving state: %w", err)
	}
	meta := map[string]string{"format": stateForm, "recipe": string(r.recipe.YAML()), "state": string(info)}
	if err := file.write(filepath.Join(dir, stateFile), meta); err != nil {
		return fmt.Errorf("train: saving state: %w", err)
	}
	r.savedBest = s.bestStep
	r.sweepBest()
	r.tell(Event{Kind: Saved, Step: s.step, Total: r.total})
	return nil
}

// bestPrefix begins the names of files with the parameters of an evaluation.
const bestPrefix = "best-"

func (r *run) bestFile(step int) string {
	return filepath.Join(r.recipe.Out, stateDir, fmt.Sprintf("%s%d.safetensors", bestPrefix, step))
}

// keepBest writes the parameters as they are: a copy on disk, since one in memory would add a quarter
// to what full training takes. The file has the step in its name, so that the state on disk, of an
// earlier step, keeps the one that it names until the next is saved.
func (r *run) keepBest() error {
	path := r.bestFile(r.state.step)
	var file tensorFile
	for _, p := range r.optimizer.params {
		file.add(p.Name, p.Value)
	}
	err := os.MkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		err = file.write(path, nil)
	}
	if err != nil {
		return fmt.Errorf("train: keeping the parameters of step %d: %w", r.state.step, err)
	}
	return nil
}

// sweepBest removes kept parameters that neither this state nor the one on disk names.
func (r *run) sweepBest() {
	dir := filepath.Join(r.recipe.Out, stateDir)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), bestPrefix) && path != r.bestFile(r.state.bestStep) && path != r.bestFile(r.savedBest) {
			os.Remove(path) // if not, it only takes room
		}
	}
}

// eachBest visits every parameter with the file that has its best values.
func (r *run) eachBest(visit func(f *tensorReader, p engine.Param) error) error {
	f, err := safetensors.Open(r.bestFile(r.state.bestStep))
	if err != nil {
		return err
	}
	defer f.Close()
	reader := &tensorReader{File: f}
	for _, p := range r.optimizer.params {
		if err := visit(reader, p); err != nil {
			return err
		}
	}
	return nil
}

// eachFrozen visits the matrices that stand frozen beside the trained ones. They are part of a state: a
// run may go on where singular vectors come out another way in the last bit.
func (r *run) eachFrozen(visit func(name string, v []float32) error) error {
	if r.frozen == nil {
		return nil
	}
	for i := range r.frozen.Pairs {
		p := &r.frozen.Pairs[i]
		if err := errors.Join(visit("frozen/"+p.Module+".lora_A", p.A), visit("frozen/"+p.Module+".lora_B", p.B)); err != nil {
			return err
		}
	}
	return nil
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
	if info.Step < 0 || info.Step > r.total || info.Epoch < 0 || info.Next < 0 || info.BestStep < 0 || info.BestStep > info.Step {
		return fmt.Errorf("step %d, epoch %d and batch %d are not of this run", info.Step, info.Epoch, info.Next)
	}
	r.state = state{step: info.Step, cursor: cursor{epoch: info.Epoch, next: info.Next}, pass: info.Pass, tokens: info.Tokens,
		bestLoss: orNaN(info.BestLoss), bestStep: info.BestStep, worse: info.Worse, first: orNaN(info.First), last: orNaN(info.Last),
		stopped: info.Stopped, pending: info.Pending}
	reader := &tensorReader{File: f}
	for i, p := range r.optimizer.params {
		for _, t := range []struct {
			kind string
			dst  []float32
		}{{"value", p.Value}, {"first moment", r.optimizer.m[i]}, {"second moment", r.optimizer.v[i]}} {
			if err := reader.read(t.kind+"/"+p.Name, t.dst); err != nil {
				return err
			}
		}
	}
	if err := r.eachFrozen(reader.read); err != nil {
		return err
	}
	r.savedBest = info.BestStep
	if info.BestStep == 0 {
		return nil
	}
	return r.eachBest(func(f *tensorReader, p engine.Param) error {
		_, err := f.find(p.Name, len(p.Value))
		return err
	})
}

// cursor is a place in the data: batches are a function of the epoch, so two counters are enough.
type cursor struct {
	epoch, next int
	batches     [][]int // of the epoch, made when first asked for
}
