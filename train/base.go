package train

import (
	"fmt"
	"maps"
	"math"
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
	m, err := engine.Load(c, engine.Options{Quant: r.quant(), AsStored: r.Method != "full", BF16: r.Compute == "bf16", Layout: engine.TrainingLayout(r.Method == "full")})
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
// recipe's keys are then those of that adapter. Frozen is what stands beside it in training, nil where
// nothing does.
func newAdapter(r *Recipe, m *engine.Model) (a, frozen *adapters.Adapter, err error) {
	if r.InitAdapter != "" {
		if a, err = initAdapter(r, m.Config()); err != nil {
			return nil, nil, err
		}
	} else {
		d, err := r.design(m.Config())
		if err != nil {
			return nil, nil, err
		}
		if a, err = m.MakeAdapter(d.AdapterOptions); err != nil {
			return nil, nil, fmt.Errorf("train: %w", err)
		}
		a.Config.R, a.Config.Alpha, a.Config.RSLoRA, a.Config.TargetModules = r.R, r.LoraAlpha, r.UseRSLoRA, d.targets
		if r.takes() {
			frozen = taken(a)
		}
	}
	a.Config.Dropout, a.Config.TaskType = r.LoraDropout, "CAUSAL_LM"
	return a, frozen, nil
}

// taken is what a new adapter has taken out of the base: its pairs on products, the other way round. The
// base itself stays as it is, with these beside it.
func taken(a *adapters.Adapter) *adapters.Adapter {
	out := &adapters.Adapter{Name: "taken from the base"}
	for _, p := range a.Pairs {
		if !p.Table {
			p.A, p.B, p.Bias, p.Scale = slices.Clone(p.A), slices.Clone(p.B), nil, -p.Scale
			out.Pairs = append(out.Pairs, p)
		}
	}
	return out
}

// joined is an adapter and what was frozen beside it as one: s·B·A − s·B₀·A₀ = s·(B −B₀)·(A; A₀), twice the
// rank, exact on the base as it is.
func joined(a, frozen *adapters.Adapter) *adapters.Adapter {
	if frozen == nil {
		return a
	}
	out := *a
	out.Config.R, out.Config.Alpha, out.Config.RSLoRA = 2*a.Config.R, 2*a.Config.Alpha, false
	if a.Config.RSLoRA {
		out.Config.Alpha = 2 * math.Sqrt(float64(a.Config.R)) * a.Config.Alpha
	}
	out.Pairs = slices.Clone(a.Pairs)
	for i := range out.Pairs {
		p, f := &out.Pairs[i], frozen.Pair(out.Pairs[i].Module)
		if f == nil {
			continue
		}
		p.R, p.A, p.B = 2*p.R, slices.Concat(p.A, f.A), make([]float32, 0, 2*len(p.B))
		for row := range p.Out {
			p.B = append(p.B, a.Pairs[i].B[row*f.R:(row+1)*f.R]...)
			for _, v := range f.B[row*f.R : (row+1)*f.R] {
				p.B = append(p.B, -v)
			}
		}
	}
	return &out
}

// initAdapter reads the adapter to start from. What the recipe says about it must be so.
func initAdapter(r *Recipe, c *model.Config) (*adapters.Adapter, error) {
	a, err := checkpoint.OpenAdapter(r.InitAdapter, c)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	is := *r
	is.R, is.LoraAlpha, is.UseRSLoRA, is.EnsureWeightTying = a.Config.R, a.Config.Alpha, a.Config.RSLoRA, a.Config.TieWeights
	is.UseDoRA = slices.ContainsFunc(a.Pairs, func(p adapters.Pair) bool { return p.Magnitude != nil })
	is.LoraBias = slices.ContainsFunc(a.Pairs, func(p adapters.Pair) bool { return p.Bias != nil })
	for _, key := range []string{"r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "ensure_weight_tying"} {
		was, _ := r.field(key)
		f, _ := is.field(key)
		if r.given[key] && scalar(was) != scalar(f) {
			return nil, fmt.Errorf("train: checking recipe: %w: %s is %s, but that of init_adapter %q is %s; leave the key out", ErrRecipe, key, scalar(was), r.InitAdapter, scalar(f))
		}
	}
	for _, key := range []string{"exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "init_lora_weights", "bias", "modules_to_save", "trainable_token_indices"} {
		if !r.isDefault(key) {
			return nil, fmt.Errorf("train: checking recipe: %w: %s is for a new adapter, and init_adapter %q is one already; leave the key out", ErrRecipe, key, r.InitAdapter)
		}
	}
	if !r.given["target_modules"] {
		is.TargetModules = Targets{Modules: a.Config.TargetModules}
		if len(a.Config.TargetModules) == 0 {
			for i := range a.Pairs {
				is.TargetModules.Modules = append(is.TargetModules.Modules, a.Pairs[i].Module)
			}
		}
		if len(is.TargetModules.Modules) == 0 {
			is.TargetModules = r.TargetModules // it has no pairs
		}
	}
	*r = is
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
