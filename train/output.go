package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
)

// This file is the folder of a run: what may be replaced in it, and what is written at the end.

const recipeFile = "recipe.yaml"

// outputs are the files of a run; full training adds those of a model.
var outputs = []string{"adapter_config.json", "adapter_model.safetensors", recipeFile, metricsFile, plotFile, cardFile, stateDir}

// checkOut reports an output that would be overwritten.
func checkOut(r *Recipe, o Options) error {
	entries, err := os.ReadDir(r.Out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("train: opening %q: %w", r.Out, err)
	}
	for _, in := range []struct{ key, path string }{{"model", r.Model}, {"init_adapter", r.InitAdapter}} {
		if in.path != "" && sameFile(in.path, r.Out) {
			return fmt.Errorf("train: checking recipe: %w: out %q is the %s itself; give another folder", ErrRecipe, r.Out, in.key)
		}
	}
	switch {
	case len(entries) == 0 || o.Force && !o.Resume:
		return nil
	case !o.Resume:
		return fmt.Errorf("train: writing %q: %w: resume the run in it, force it to be replaced, or choose another out", r.Out, ErrExists)
	}
	if _, err := os.Stat(filepath.Join(r.Out, recipeFile)); err != nil {
		return fmt.Errorf("train: resuming: %w: %q holds no run (it has no %s)", ErrState, r.Out, recipeFile)
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// clearOut removes the results of an earlier run. A model's files are results where the earlier run
// trained a model, or where this one does: beside an adapter they may be the user's.
func clearOut(r *Recipe) error {
	names := outputs
	before, err := LoadRecipe(filepath.Join(r.Out, recipeFile))
	if r.Method == "full" || err == nil && before.Method == "full" {
		names = slices.Concat(names, checkpoint.FolderNames())
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(r.Out, name)); err != nil {
			return fmt.Errorf("train: replacing %q: %w", r.Out, err)
		}
	}
	return nil
}

// tidy removes what a run that was killed has left of files it was writing: they have the name of an
// output behind a point, and more behind it. A model that was not yet moved to its place goes, too.
func tidy(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		unfinished := func(name string) bool { return strings.HasPrefix(e.Name(), "."+name) }
		switch {
		case e.Type().IsRegular() && (slices.ContainsFunc(outputs, unfinished) || unfinished(stateFile) || unfinished(bestPrefix)):
			os.Remove(filepath.Join(dir, e.Name())) // if not, it is only in the way
		case e.IsDir() && filepath.Base(dir) == stateDir && (e.Name() == modelDir || unfinished(modelDir)):
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

func (r *run) result() *Result {
	s := &r.state
	return &Result{Out: r.recipe.Out, Objective: r.recipe.Objective, Steps: s.step, Tokens: s.tokens, Loss: r.loss, Stopped: s.stopped, Trained: r.optimizer.values(),
		Evaluated: r.eval != nil, FirstEval: s.first, LastEval: s.last, BestEval: s.bestLoss, BestStep: s.bestStep}
}

// finish writes the results beside the state.
func (r *run) finish(ctx context.Context, result *Result) error {
	if r.adapter == nil {
		r.release()
	}
	if r.state.bestStep > 0 {
		if err := r.eachBest(func(f *tensorReader, p engine.Param) error { return f.read(p.Name, p.Value) }); err != nil {
			return fmt.Errorf("train: reading the parameters of step %d: %w", r.state.bestStep, err)
		}
	}
	if err := r.plot(); err != nil {
		return err
	}
	if err := r.card(result); err != nil {
		return err
	}
	if r.adapter == nil {
		return r.writeModel(ctx)
	}
	return adapters.WritePEFT(r.recipe.Out, joined(r.adapter, r.frozen))
}
