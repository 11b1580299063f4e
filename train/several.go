package train

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/wholefile"
)

// This file is several adapters on one base: what their recipes are, and what is done for all at once.

// parts are the recipes of the adapters, resolved: the recipe itself where it lists none.
func (r *Recipe) parts() ([]Recipe, error) {
	if len(r.Adapters) == 0 {
		one := *r
		one.resolve()
		return []Recipe{one}, nil
	}
	var out []Recipe
	for _, one := range r.Adapters {
		sub, err := r.sub(one)
		if err != nil {
			return nil, fmt.Errorf("train: checking recipe: %w: adapters: %q: %w", ErrRecipe, one.Name, err)
		}
		sub.resolve()
		out = append(out, sub)
	}
	return out, nil
}

// validateAdapters checks each of several adapters' recipes.
func (r *Recipe) validateAdapters() error {
	seen := map[string]bool{}
	for i, one := range r.Adapters {
		name := one.Name
		switch {
		case name == "":
			return fmt.Errorf("adapters: entry %d has no name", i+1)
		case name != filepath.Base(name) || name == "." || name == ".." || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") || name == recipeFile:
			return fmt.Errorf("adapters: the name %q cannot be that of a folder in out", clip(name))
		case seen[strings.ToLower(name)]:
			return fmt.Errorf("adapters: two have the name %q", name)
		}
		seen[strings.ToLower(name)] = true
		for _, key := range sharedKeys {
			if _, ok := one.Keys[key]; ok {
				return fmt.Errorf("adapters: %q has a %s of its own, and all are trained on one base, in one run; set it for all", name, key)
			}
		}
		sub, err := r.sub(one)
		if err != nil {
			return fmt.Errorf("adapters: %q: %w", name, err)
		}
		if sub.Method == "full" {
			return fmt.Errorf("adapters: method full trains the model itself; use lora or qlora")
		}
		if err := sub.validate(); err != nil {
			return fmt.Errorf("adapters: %q: %w", name, err)
		}
	}
	return nil
}

// sharedKeys are those that all adapters of a run have in common.
var sharedKeys = []string{"model", "out", "method", "quant_type", "double_quant", "compute", "threads", "memory"}

// sub is the recipe of one of several adapters.
func (r *Recipe) sub(one AdapterRecipe) (Recipe, error) {
	out := *r
	out.Adapters, out.given = nil, map[string]bool{}
	for key := range r.given {
		out.given[key] = key != "adapters"
	}
	if r.Out != "" {
		out.Out = filepath.Join(r.Out, one.Name)
	}
	for key, text := range one.Keys {
		f, err := out.field(key)
		if err != nil {
			return out, err
		}
		n, err := parseValue(text)
		if err == nil {
			err = setNode(f, n)
		}
		if err != nil {
			return out, fmt.Errorf("%s %w", key, err)
		}
		out.given[key] = true
	}
	return out, nil
}

// openSeveral makes the folder that the folders of several adapters are in.
func (r *Recipe) openSeveral() error {
	err := os.MkdirAll(r.Out, 0o777)
	if err == nil {
		err = wholefile.WriteFile(filepath.Join(r.Out, recipeFile), r.brief())
	}
	if err != nil {
		return fmt.Errorf("train: making %q: %w", r.Out, err)
	}
	return nil
}

// prepareAll prepares runs on one base and returns the largest plan.
func prepareAll(ctx context.Context, runs []*run, base *checkpoint.Checkpoint) (largest *Plan, err error) {
	for _, r := range runs {
		r.base = base
		if err := r.prepare(ctx); err != nil {
			return nil, r.named(err)
		}
	}
	// The data of all is there before any is planned.
	for _, r := range runs {
		if r.plan, err = r.planMemory(); err != nil {
			return nil, r.named(err)
		}
		if largest == nil || r.plan.Total > largest.Total {
			largest = r.plan
		}
	}
	return largest, nil
}

// named says which of several adapters an error is about.
func (r *run) named(err error) error {
	if r.name == "" {
		return err
	}
	return fmt.Errorf("adapter %q: %w", r.name, err)
}
