package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/tokenizer"
)

// Fit describes an adapter and reports what is wrong with it and whether it fits a model. Open reads it
// for that model, in whatever form it is.
func Fit(ctx context.Context, path string, m *checkpoint.Checkpoint, open func() (*adapters.Adapter, error), o Options) (*Report, error) {
	o.Check = true
	r, err := Path(ctx, path, o)
	if err != nil {
		return nil, err
	}
	if r.Kind != "adapter" {
		return nil, fmt.Errorf("inspect: %q is no adapter but a %s", path, r.Kind)
	}
	b, err := checkpoint.Base(m.Config())
	if err != nil {
		return nil, err
	}
	a, err := open()
	if err != nil {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == "refused" || f.Code == "unsupported" }) {
			r.find(Error, "refused", "", "use the adapter on the model that it was trained on", "it cannot be opened for this base: %v", err)
		}
		return r, nil
	}
	r.fit(a, b)
	if len(r.Errors()) > 0 {
		return r, nil
	}
	r.ties(a, b, m)
	other, err := m.SameBase(path, a)
	if err != nil {
		return nil, err
	}
	if other != "" {
		r.find(Warning, "adapter-other-base", "", "use it on the model that it was trained on", "%s", other)
	}
	return r, r.addedTokens(path, m)
}

// fit checks every part of an adapter by itself, so that all that is wrong is found.
func (r *Report) fit(a *adapters.Adapter, b adapters.Base) {
	one := func(part adapters.Adapter, place string) {
		part.Name = a.Name
		if _, err := part.Resolve(b); err != nil {
			code := "adapter-shape"
			if errors.Is(err, adapters.ErrMismatch) && strings.Contains(err.Error(), "does not have") {
				code = "adapter-module"
			}
			r.find(Error, code, place, "use the adapter on the model that it was trained on", "%v", err)
		}
	}
	for i := range a.Pairs {
		one(adapters.Adapter{Pairs: a.Pairs[i : i+1]}, a.Pairs[i].Module)
	}
	for i := range a.Whole {
		one(adapters.Adapter{Whole: a.Whole[i : i+1]}, a.Whole[i].Name)
	}
	for i := range a.Rows {
		one(adapters.Adapter{Rows: a.Rows[i : i+1]}, a.Rows[i].Module)
	}
}

// ties says what an adapter makes of a head that shares the table, and what a list of its modules names that
// it does not adapt.
func (r *Report) ties(a *adapters.Adapter, b adapters.Base, m *checkpoint.Checkpoint) {
	change, err := adapters.NewChange(b, m.Rows, a)
	if err != nil {
		r.find(Warning, "adapter-merge", "", "use it unmerged", "it cannot be merged: %v", err)
		return
	}
	if change.Unties() {
		r.find(Warning, "adapter-unties", b.Head, "merge it (graft merge), which gives the head a weight of its own; llama.cpp cannot load such an adapter beside its base",
			"the base has one table for the embedding and the head, and the adapter changes them differently")
	}
	for _, name := range a.Config.TargetModules {
		if !slices.ContainsFunc(a.Pairs, func(p adapters.Pair) bool { return p.Module == name || strings.HasSuffix(p.Module, "."+name) }) {
			r.find(Warning, "adapter-target-missing", name, "it may have been cut short", "target_modules names it, but no matrix of the adapter is for it")
		}
	}
}

// addedTokens compares the tokenizer that lies in an adapter's folder with the base's.
func (r *Report) addedTokens(path string, m *checkpoint.Checkpoint) error {
	data, err := os.ReadFile(filepath.Join(path, "tokenizer.json"))
	if err != nil {
		return nil // none, or no folder
	}
	own, err := tokenizer.ParseJSON(data)
	if err != nil {
		r.find(Warning, "adapter-tokenizer", "tokenizer.json", "", "it cannot be read: %v", err)
		return nil
	}
	theirs, err := m.Tokenizer()
	if errors.Is(err, checkpoint.ErrNoTokenizer) {
		return nil
	}
	if err != nil {
		return err
	}
	for id := int32(0); ; id++ {
		x, ok := own.Token(id)
		if !ok {
			break
		}
		if y, ok := theirs.Token(id); !ok || x != y {
			what := fmt.Sprintf("the base has %q there", y)
			if !ok {
				what = "the base has no such token"
			}
			r.find(Warning, "adapter-tokens", "tokenizer.json", "give the base the adapter's tokenizer, and a table of as many rows", "token %d is %q in the adapter's tokenizer, and %s", id, x, what)
			break
		}
	}
	return nil
}
