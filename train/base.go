package train

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// This file makes what is trained: the model in memory and, unless it is trained itself, an adapter on
// it.

// loadBase reads the model, quantized for qlora, to compute as the recipe says. Frozen weights stay as
// they are stored where that is smaller.
func loadBase(r *Recipe, c *checkpoint.Checkpoint) (*engine.Model, error) {
	m, err := engine.Load(c, engine.Options{Quant: r.quant(), AsStored: r.Method != "full", BF16: r.Compute == "bf16"})
	if err != nil {
		return nil, fmt.Errorf("loading %q: %w", c.Path, err)
	}
	return m, nil
}

// quant says how products are quantized, nil where they are not.
func (r *Recipe) quant() *quantize.Options4 {
	if r.Method != "qlora" {
		return nil
	}
	return &quantize.Options4{Type: r.QuantType, Double: r.DoubleQuant}
}

// newAdapter makes the adapter that the recipe describes, or reads the one it starts from; the
// recipe's keys are then those of that adapter.
func newAdapter(r *Recipe, m *engine.Model) (*adapters.Adapter, error) {
	a, err := makeAdapter(r, m)
	if err != nil {
		return nil, err
	}
	a.Config.Dropout, a.Config.BaseModel, a.Config.TaskType = r.LoraDropout, r.Model, "CAUSAL_LM"
	return a, nil
}

func makeAdapter(r *Recipe, m *engine.Model) (*adapters.Adapter, error) {
	if r.InitAdapter != "" {
		return initAdapter(r)
	}
	modules, err := chooseModules(r.TargetModules, m.Targets())
	if err != nil {
		return nil, fmt.Errorf("train: checking recipe: %w: target_modules: %w", ErrRecipe, err)
	}
	a, err := m.NewAdapter(modules, r.R, r.LoraAlpha/float64(r.R), uint64(r.Seed))
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	a.Config.Alpha = r.LoraAlpha
	a.Config.TargetModules = shortNames(modules, m.Targets())
	return a, nil
}

// initAdapter reads the adapter to start from. What the recipe says about it must be so.
func initAdapter(r *Recipe) (*adapters.Adapter, error) {
	a, err := adapters.ReadPEFT(r.InitAdapter)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if r.given["r"] && r.R != a.Config.R {
		return nil, fmt.Errorf("train: checking recipe: %w: r is %d, but init_adapter %q has rank %d", ErrRecipe, r.R, r.InitAdapter, a.Config.R)
	}
	if r.given["lora_alpha"] && r.LoraAlpha != a.Config.Alpha {
		return nil, fmt.Errorf("train: checking recipe: %w: lora_alpha is %v, but init_adapter %q has %v", ErrRecipe, r.LoraAlpha, r.InitAdapter, a.Config.Alpha)
	}
	r.R, r.LoraAlpha = a.Config.R, a.Config.Alpha
	if !r.given["target_modules"] {
		r.TargetModules = Targets{Modules: a.Config.TargetModules}
		if len(a.Config.TargetModules) == 0 {
			for i := range a.Pairs {
				r.TargetModules.Modules = append(r.TargetModules.Modules, a.Pairs[i].Module)
			}
		}
	}
	return a, nil
}

// chooseModules resolves target_modules as PEFT does: a string is a regular expression for whole
// paths, an entry of a list a path or its last parts.
func chooseModules(t Targets, all []model.Linear) ([]string, error) {
	var out []string
	if len(t.Modules) == 0 {
		match := func(string) bool { return true }
		if t.Pattern != "all-linear" {
			re, err := regexp.Compile(`^(?:` + t.Pattern + `)$`)
			if err != nil {
				return nil, fmt.Errorf("%q is not a regular expression: %w", t.Pattern, err)
			}
			match = re.MatchString
		}
		for _, l := range all {
			if match(l.Module) {
				out = append(out, l.Module)
			}
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("expression %q matches none of the model's paths (%q, …); a list of names is written [%s]",
				t.Pattern, all[0].Module, strings.Join(lastParts(all), ", "))
		}
		return out, nil
	}
	for _, name := range t.Modules {
		if !slices.ContainsFunc(all, func(l model.Linear) bool { return names(name, l.Module) }) {
			return nil, fmt.Errorf("no product of the model is called %q; it has %s", name, strings.Join(lastParts(all), ", "))
		}
	}
	for _, l := range all {
		if slices.ContainsFunc(t.Modules, func(name string) bool { return names(name, l.Module) }) {
			out = append(out, l.Module)
		}
	}
	return out, nil
}

// names reports whether a name stands for a module.
func names(name, module string) bool {
	return name == module || strings.HasSuffix(module, "."+name)
}

func lastPart(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }

// lastParts lists the last parts of all paths, sorted.
func lastParts(all []model.Linear) []string {
	set := map[string]bool{}
	for _, l := range all {
		set[lastPart(l.Module)] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// shortNames lists the last parts of the chosen paths where these stand for the chosen modules and no
// others, and the paths otherwise.
func shortNames(chosen []string, all []model.Linear) []string {
	set := map[string]bool{}
	for _, m := range chosen {
		set[lastPart(m)] = true
	}
	n := 0
	for _, l := range all {
		if set[lastPart(l.Module)] {
			n++
		}
	}
	if n != len(chosen) {
		return slices.Clone(chosen)
	}
	return slices.Sorted(maps.Keys(set))
}
