package train

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
)

// This file resolves what a recipe says of an adapter against a model: which modules, of what rank and
// scale, and what is trained beside them.

// validateVariants reports what contradicts itself whatever the model.
func (r *Recipe) validateVariants() error {
	if err := engine.CheckInit(string(r.InitLoraWeights)); err != nil {
		return fmt.Errorf("init_lora_weights %w", err)
	}
	expression := len(r.TargetModules.Modules) == 0 && r.TargetModules.Pattern != "all-linear"
	switch {
	case r.UseDoRA && r.LoraBias:
		return fmt.Errorf("use_dora and lora_bias exclude each other, in PEFT too")
	case r.UseDoRA && r.takes():
		return fmt.Errorf("use_dora and init_lora_weights %s exclude each other: DoRA begins with the lengths of the whole weight's rows", r.InitLoraWeights)
	case len(r.LayersToTransform) > 0 && expression:
		return fmt.Errorf("layers_to_transform: the expression in target_modules says itself which layers; use one of the two")
	case len(r.LayersPattern) > 0 && len(r.LayersToTransform) == 0:
		return fmt.Errorf("layers_pattern says where layers_to_transform count; set that, too")
	case r.LoraplusLREmbedding > 0 && r.LoraplusLRRatio == 0:
		return fmt.Errorf("loraplus_lr_embedding goes with loraplus_lr_ratio; set that, too")
	}
	for _, p := range r.RankPattern {
		if p.Value < 1 || p.Value > 256 || p.Value != math.Trunc(p.Value) {
			return fmt.Errorf("rank_pattern: the rank of %q is %s, not a whole number from 1 to 256", p.Expression, digits(p.Value))
		}
	}
	return nil
}

// takes reports whether the pairs begin with a part of the base.
func (r *Recipe) takes() bool { return engine.InitTakes(string(r.InitLoraWeights)) }

// design says what adapter a recipe makes.
type design struct {
	engine.AdapterOptions
	targets []string // of the file: last parts of paths where these are enough
}

// designer resolves a recipe against a model.
type designer struct {
	*Recipe
	linears     []model.Linear
	table, head model.Linear
	base        adapters.Base
	params      []model.Param
}

// design resolves the keys. The error wraps ErrRecipe and names the key.
func (r *Recipe) design(c *model.Config) (*design, error) {
	d := &designer{Recipe: r}
	var err error
	if d.linears, err = model.Targets(c); err == nil {
		d.table, d.head, err = model.Ends(c)
	}
	if err == nil {
		d.params, err = model.Inventory(c)
	}
	if err == nil {
		d.base, err = checkpoint.Base(c)
	}
	if err != nil {
		return nil, fmt.Errorf("train: checking the adapter: %w", err)
	}
	out, err := d.resolve()
	if err != nil {
		return nil, fmt.Errorf("train: checking recipe: %w: %w", ErrRecipe, err)
	}
	return out, nil
}

func (d *designer) resolve() (*design, error) {
	out := &design{AdapterOptions: engine.AdapterOptions{DoRA: d.UseDoRA, Bias: d.LoraBias, TieWeights: d.EnsureWeightTying,
		Init: string(d.InitLoraWeights), Seed: uint64(d.Seed)}}
	if d.EnsureWeightTying && !d.base.Tied {
		return nil, fmt.Errorf("ensure_weight_tying: the head of this model has a weight of its own; leave the key out")
	}
	saved, err := d.saved()
	if err != nil {
		return nil, err
	}
	modules, err := d.modules(saved)
	if err != nil {
		return nil, err
	}
	if out.Modules, err = d.ranks(modules); err != nil {
		return nil, err
	}
	if out.Rows, err = d.rows(saved); err != nil {
		return nil, err
	}
	biases, err := d.biases(modules)
	if err != nil {
		return nil, err
	}
	out.Whole = slices.Compact(slices.Sorted(slices.Values(slices.Concat(saved, biases))))
	out.targets = shortNames(modules, d.all())
	return out, nil
}

// all lists everything that can be a target.
func (d *designer) all() []model.Linear { return append(slices.Clone(d.linears), d.table, d.head) }

// modules are the targets, without those excluded and those in parameters trained whole.
func (d *designer) modules(saved []string) ([]string, error) {
	candidates := d.all()
	if d.TargetModules.Pattern == "all-linear" && len(d.TargetModules.Modules) == 0 {
		candidates = d.linears
	}
	modules, err := chooseModules(d.TargetModules, candidates)
	if err != nil {
		return nil, fmt.Errorf("target_modules: %w", err)
	}
	if modules, err = d.exclude(modules); err != nil {
		return nil, err
	}
	if modules, err = d.inLayers(modules); err != nil {
		return nil, err
	}
	for _, name := range d.TargetModules.Modules {
		if i := slices.IndexFunc(modules, func(m string) bool { return names(name, m) && slices.Contains(saved, m+".weight") }); i >= 0 {
			return nil, fmt.Errorf("target_modules and modules_to_save both name %q; it gets a pair or is trained whole", modules[i])
		}
	}
	modules = slices.DeleteFunc(modules, func(m string) bool { return slices.Contains(saved, m+".weight") })
	if len(modules) == 0 {
		return nil, fmt.Errorf("target_modules: exclude_modules, layers_to_transform and modules_to_save leave none of them")
	}
	return modules, nil
}

// exclude takes what exclude_modules names out of the targets.
func (d *designer) exclude(modules []string) ([]string, error) {
	x := d.ExcludeModules
	match := func(name, module string) bool { return names(name, module) }
	list := x.Modules
	if len(list) == 0 && x.Pattern != "" {
		re, err := regexp.Compile(`^(?:` + x.Pattern + `)$`)
		if err != nil {
			return nil, fmt.Errorf("exclude_modules: %q is not a regular expression: %w", x.Pattern, err)
		}
		list, match = []string{x.Pattern}, func(_, module string) bool { return re.MatchString(module) }
	}
	for _, name := range list {
		n := len(modules)
		if modules = slices.DeleteFunc(modules, func(m string) bool { return match(name, m) }); len(modules) == n {
			return nil, fmt.Errorf("exclude_modules: %q names none of the targets", name)
		}
	}
	return modules, nil
}

// firstNumber finds the first number among the parts of a path that has a name before it.
var firstNumber = regexp.MustCompile(`^.*?\.[^.]*\.(\d+)\.`)

// inLayers leaves the targets in the blocks that layers_to_transform lists.
func (d *designer) inLayers(modules []string) ([]string, error) {
	if len(d.LayersToTransform) == 0 {
		return modules, nil
	}
	finds := []*regexp.Regexp{firstNumber}
	if len(d.LayersPattern) > 0 {
		finds = nil
	}
	for _, p := range d.LayersPattern {
		re, err := regexp.Compile(`(?:^|^.*?\.)(?:` + p + `)\.(\d+)\.`)
		if err != nil {
			return nil, fmt.Errorf("layers_pattern: %q is not a regular expression: %w", p, err)
		}
		finds = append(finds, re)
	}
	layer := func(module string) string {
		for _, re := range finds {
			if m := re.FindStringSubmatch(module); m != nil {
				return m[len(m)-1]
			}
		}
		return ""
	}
	for _, l := range d.LayersToTransform {
		if !slices.ContainsFunc(modules, func(m string) bool { return layer(m) == fmt.Sprint(l) }) {
			return nil, fmt.Errorf("layers_to_transform: no target is in layer %d", l)
		}
	}
	return slices.DeleteFunc(modules, func(m string) bool {
		return !slices.ContainsFunc(d.LayersToTransform, func(l int) bool { return layer(m) == fmt.Sprint(l) })
	}), nil
}

// ranks gives every module its rank and scale.
func (d *designer) ranks(modules []string) ([]engine.ModuleOptions, error) {
	ranked, scaled := make([]bool, len(d.RankPattern)), make([]bool, len(d.AlphaPattern))
	var out []engine.ModuleOptions
	for _, m := range modules {
		rank, err := d.RankPattern.choose(m, float64(d.R), ranked)
		if err != nil {
			return nil, fmt.Errorf("rank_pattern: %w", err)
		}
		alpha, err := d.AlphaPattern.choose(m, d.LoraAlpha, scaled)
		if err != nil {
			return nil, fmt.Errorf("alpha_pattern: %w", err)
		}
		scale := alpha / rank
		if d.UseRSLoRA {
			scale = alpha / math.Sqrt(rank)
		}
		n := int(rank)
		outs, ins, _ := d.base.Linear(m)
		most := max(outs, ins)
		if d.takes() && m != d.table.Module {
			most = min(outs, ins)
		}
		switch {
		case n > most:
			return nil, fmt.Errorf("r: rank %d of %q, whose weight is (%d, %d); at most %d", n, m, outs, ins, most)
		case m == d.table.Module && d.LoraBias:
			return nil, fmt.Errorf("lora_bias: a pair on the embedding table %q has none, in PEFT neither", m)
		case m == d.head.Module && d.takes():
			return nil, fmt.Errorf("init_lora_weights %s is for products inside blocks, not for %q; leave that out of target_modules, or use true", d.InitLoraWeights, m)
		case m == d.head.Module && d.UseDoRA && d.LoraDropout > 0:
			return nil, fmt.Errorf("lora_dropout: the head %q cannot have DoRA and dropout; use 0, or leave it out of target_modules", m)
		case d.InitLoraWeights == "orthogonal" && n%2 == 1 && m != d.table.Module:
			return nil, fmt.Errorf("init_lora_weights orthogonal needs even ranks, and that of %q is %d", m, n)
		}
		out = append(out, engine.ModuleOptions{Module: m, R: n, Scale: scale})
	}
	for i, used := range ranked {
		if !used {
			return nil, fmt.Errorf("rank_pattern: %q is the first to match none of the targets", d.RankPattern[i].Expression)
		}
	}
	for i, used := range scaled {
		if !used {
			return nil, fmt.Errorf("alpha_pattern: %q is the first to match none of the targets", d.AlphaPattern[i].Expression)
		}
	}
	return out, nil
}

// saved lists the parameters of the modules that modules_to_save names: by the ends of their paths or of
// that of a module around them, whole parts or not, as PEFT has it.
func (d *designer) saved() ([]string, error) {
	all := make([]string, 0, len(d.params)+1)
	for _, p := range d.params {
		all = append(all, p.Name)
	}
	if d.base.Tied {
		all = append(all, d.head.Module+".weight")
	}
	var out []string
	for _, name := range d.ModulesToSave {
		found := false
		for _, p := range all {
			for module := parent(p); module != ""; module = parent(module) {
				if name != "" && strings.HasSuffix(module, name) {
					out, found = append(out, p), true
					break
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("modules_to_save: no module of the model is called %q", name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// parent is the path that a path stands in, "" at the top.
func parent(path string) string { return path[:max(0, strings.LastIndexByte(path, '.'))] }

// rows lists the rows of tables that are trained by themselves.
func (d *designer) rows(saved []string) (map[string][]int, error) {
	out := map[string][]int{}
	for name, list := range d.TrainableTokenIndices {
		l := d.table
		switch {
		case name == "" || names(name, d.table.Module):
		case names(name, d.head.Module):
			l = d.head
		default:
			return nil, fmt.Errorf("trainable_token_indices: %q is neither the embedding table %q nor the head %q", name, d.table.Module, d.head.Module)
		}
		vocab := max(d.table.In, d.head.Out)
		for i, row := range list {
			switch {
			case row < 0 || row >= vocab:
				return nil, fmt.Errorf("trainable_token_indices: token %d of %q, whose vocabulary has %d", row, l.Module, vocab)
			case slices.Contains(list[:i], row):
				return nil, fmt.Errorf("trainable_token_indices: token %d stands there twice", row)
			}
		}
		if slices.Contains(saved, l.Module+".weight") {
			return nil, fmt.Errorf("trainable_token_indices and modules_to_save both name %q; all its rows are trained, or some", l.Module)
		}
		out[l.Module] = list
	}
	return out, nil
}

// biases lists the biases of the model that are trained.
func (d *designer) biases(modules []string) (out []string, err error) {
	if d.Bias == "none" {
		return nil, nil
	}
	for _, p := range d.params {
		module, ok := strings.CutSuffix(p.Name, ".bias")
		if ok && (d.Bias == "all" || slices.Contains(modules, module)) {
			out = append(out, p.Name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("bias %s: there is no such bias in the model; use none", d.Bias)
	}
	return out, nil
}
