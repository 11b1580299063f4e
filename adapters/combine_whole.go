package adapters

// What of a combination is not pairs: parameters and rows that replace the base's, and the
// configuration.

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/graftml/graft/internal/kernel"
)

// replacement is one adapter's values for something that replaces the base's, and their weight.
type replacement struct {
	values []float32
	weight float64
	name   string // of the adapter
}

// mean returns Σ wᵢ·xᵢ + (1 − Σ wᵢ)·x₀: what replaces x₀ of the base by x changes it by x − x₀. Without a
// base, which is read by base, the weights must sum to 1.
func mean(what string, parts []replacement, base func(dst []float32) error) ([]float32, error) {
	rest := 1.0
	for _, p := range parts {
		rest -= p.weight
	}
	if math.Abs(rest) < 1e-6 {
		rest = 0
	}
	if rest != 0 && base == nil {
		return nil, fmt.Errorf("%w: %s is replaced as a whole by %q, and the weights of those that replace it sum to %g: that depends on the base; give the base (--base), or weights that sum to 1",
			ErrUnsupported, what, parts[0].name, 1-rest)
	}
	if len(parts) == 1 && rest == 0 {
		return parts[0].values, nil
	}
	out := make([]float32, len(parts[0].values))
	if rest != 0 {
		if err := base(out); err != nil {
			return nil, err
		}
		kernel.Scale(out, out, float32(rest))
	}
	for _, p := range parts {
		kernel.AddScaled(out, p.values, float32(p.weight))
	}
	return out, nil
}

// combineWhole sets out's Whole and Rows.
func combineWhole(out *Adapter, list []Weighted, base ReadRows) error {
	if err := checkKinds(list); err != nil {
		return err
	}
	shapes, wholes := map[string]*Tensor{}, map[string][]replacement{}
	tables, widths := map[string]map[int][]replacement{}, map[string]int{}
	for _, w := range list {
		a := w.Adapter
		for i := range a.Whole {
			t := &a.Whole[i]
			if q := shapes[t.Name]; q != nil && !slices.Equal(q.Shape, t.Shape) {
				return fmt.Errorf("%w: %q is %v in %q, but %v in another; they are of different bases", ErrMismatch, t.Name, t.Shape, a.Name, q.Shape)
			}
			shapes[t.Name] = t
			wholes[t.Name] = append(wholes[t.Name], replacement{t.Data, w.Weight, a.Name})
		}
		for i := range a.Rows {
			r := &a.Rows[i]
			if err := r.validate(); err != nil {
				return fmt.Errorf("%q: %w", a.Name, err)
			}
			if width := widths[r.Module]; width != 0 && width != r.Width {
				return fmt.Errorf("%w: rows of %q have %d values in %q, but %d in another; they are of different bases", ErrMismatch, r.Module, r.Width, a.Name, width)
			}
			widths[r.Module] = r.Width
			if tables[r.Module] == nil {
				tables[r.Module] = map[int][]replacement{}
			}
			for k, index := range r.Indices {
				tables[r.Module][index] = append(tables[r.Module][index], replacement{r.Data[k*r.Width : (k+1)*r.Width], w.Weight, a.Name})
			}
		}
	}
	for _, name := range sortedKeys(wholes) {
		data, err := mean(name, wholes[name], rowReader(base, name, 0, shapes[name].Shape[0]))
		if err != nil {
			return err
		}
		out.Whole = append(out.Whole, Tensor{Name: name, Shape: shapes[name].Shape, Data: data})
	}
	for _, module := range sortedKeys(tables) {
		rows := TokenRows{Module: module, Width: widths[module], Indices: sortedKeys(tables[module])}
		for _, index := range rows.Indices {
			data, err := mean(fmt.Sprintf("row %d of %s", index, module), tables[module][index],
				rowReader(base, module+".weight", index, index+1))
			if err != nil {
				return err
			}
			rows.Data = append(rows.Data, data...)
		}
		out.Rows = append(out.Rows, rows)
	}
	return nil
}

// rowReader reads rows of one parameter of the base, nil where there is no base.
func rowReader(base ReadRows, name string, lo, hi int) func(dst []float32) error {
	if base == nil {
		return nil
	}
	return func(dst []float32) error { return base(name, lo, hi, dst) }
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// checkKinds refuses a weight that one adapter replaces, or rows of which it does, and another changes by
// a pair or replaces otherwise: the order in which that happens is not said anywhere.
func checkKinds(list []Weighted) error {
	type kind struct {
		what string
		by   int
	}
	kinds := map[string][]kind{}
	see := func(module, what string, by int) error {
		for _, k := range kinds[module] {
			if k.what != what && k.by != by {
				return fmt.Errorf("%w: %q has %s for %q, and %q has %s; merge both into the base (graft merge) and take the difference (graft adapter extract)",
					ErrUnsupported, list[k.by].Adapter.Name, k.what, module, list[by].Adapter.Name, what)
			}
		}
		kinds[module] = append(kinds[module], kind{what, by})
		return nil
	}
	for n, w := range list {
		a := w.Adapter
		for i := range a.Pairs {
			if err := see(a.Pairs[i].Module, "a pair of matrices", n); err != nil {
				return err
			}
		}
		for i := range a.Whole {
			if module, ok := strings.CutSuffix(a.Whole[i].Name, ".weight"); ok {
				if err := see(module, "a whole weight", n); err != nil {
					return err
				}
			}
		}
		for i := range a.Rows {
			if err := see(a.Rows[i].Module, "rows of its own", n); err != nil {
				return err
			}
		}
	}
	return nil
}

// combineConfig sets the name and the configuration of a combination.
func combineConfig(out *Adapter, list []Weighted) error {
	first := list[0].Adapter
	out.Name, out.Config = first.Name, first.Config
	c := &out.Config
	if len(list) == 1 && slices.EqualFunc(out.Pairs, first.Pairs, func(p, q Pair) bool { return p.R == q.R && &p.A[0] == &q.A[0] }) {
		c.Alpha *= list[0].Weight
		return nil
	}
	c.RSLoRA = false
	for _, w := range list[1:] {
		o := &w.Adapter.Config
		out.Name += "+" + w.Adapter.Name
		c.BaseModel, c.TaskType = cmp.Or(c.BaseModel, o.BaseModel), cmp.Or(c.TaskType, o.TaskType)
		c.Dropout = max(c.Dropout, o.Dropout)
		if o.BaseHash != c.BaseHash { // trained on different weights: of which the sum is for, nobody knows
			c.BaseHash = ""
		}
		if o.TieWeights != c.TieWeights && (first.beyondBlocks() || w.Adapter.beyondBlocks()) {
			return fmt.Errorf("%w: %q and %q do not agree on ensure_weight_tying, which says whether what they do to the embedding table is for the head too", ErrUnsupported, first.Name, w.Adapter.Name)
		}
		c.TieWeights = c.TieWeights || o.TieWeights
		// A short list that stands for modules of one adapter may name more in the other's.
		if !slices.Equal(o.TargetModules, c.TargetModules) {
			c.TargetModules = nil
		}
	}
	setDefaults(out)
	return nil
}

// beyondBlocks reports whether the adapter changes a table, or something as a whole.
func (a *Adapter) beyondBlocks() bool {
	return len(a.Whole)+len(a.Rows) > 0 || slices.ContainsFunc(a.Pairs, func(p Pair) bool { return p.Table })
}

// setDefaults makes the commonest rank and scale of the pairs those of the configuration.
func setDefaults(a *Adapter) {
	type key struct {
		r     int
		scale float64
	}
	counts, best := map[key]int{}, key{}
	for i := range a.Pairs {
		k := key{a.Pairs[i].R, a.Pairs[i].Scale}
		if counts[k]++; counts[k] > counts[best] {
			best = k
		}
	}
	if len(a.Pairs) > 0 {
		a.Config.R, a.Config.Alpha = best.r, a.Config.alpha(best.r, best.scale)
	}
}
