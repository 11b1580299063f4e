package adapters

// What a runtime cannot hold, as plain LoRA that comes near it.

import (
	"context"
	"fmt"
)

// Approximate returns an adapter of plain pairs that comes near one that is more on a base: DoRA, tables and
// products trained whole, token rows. Each weight that is changed by more than one pair gets the best pair
// of the given rank for what it is changed by; the report says what that misses. Other pairs stay. The
// error wraps [ErrUnsupported] where a vector is changed (norms, biases), which no pair can do.
func (a *Adapter) Approximate(ctx context.Context, b Base, read ReadRows, rank int, progress func(done, total int64)) (*Adapter, []ModuleReport, error) {
	out, report, err := a.approximate(ctx, b, read, rank, progress)
	if err != nil {
		return nil, nil, fmt.Errorf("adapters: approximating %q: %w", a.Name, err)
	}
	return out, report, nil
}

func (a *Adapter) approximate(ctx context.Context, b Base, read ReadRows, rank int, progress func(done, total int64)) (*Adapter, []ModuleReport, error) {
	c, err := NewChange(b, read, a)
	if err != nil {
		return nil, nil, err
	}
	out := *a
	out.Pairs, out.Whole, out.Rows = nil, nil, nil
	out.Config.TieWeights = false // both are named
	var names []string
	for _, name := range c.Names() {
		p := c.params[name]
		if len(p.pairs) == 1 && p.whole == nil && len(p.rows) == 0 && p.pairs[0].Magnitude == nil && p.pairs[0].Bias == nil {
			out.Pairs = append(out.Pairs, *p.pairs[0].Pair)
			continue
		}
		if shape, _ := b.Shape(name); len(shape) != 2 {
			return nil, nil, fmt.Errorf("%w: %q changes, a vector, which no pair can do; merge the adapter into its base (graft merge)", ErrUnsupported, name)
		}
		names = append(names, name)
	}
	var modules []ModuleReport
	if len(names) > 0 {
		own := b.Untied(read)
		tuned := func(name string, lo, hi int, dst []float32) error {
			err := own(name, lo, hi, dst)
			if err == nil {
				c.Apply(name, lo, hi, dst)
			}
			return err
		}
		found, report, err := Extract(ctx, b.asProducts(), names, own, tuned, ExtractOptions{Rank: rank, Progress: progress})
		if err != nil {
			return nil, nil, err
		}
		for _, p := range found.Pairs {
			if p.Module == b.Table { // found as a product of its rows
				p = p.mirror(b.Table)
				p.Table = true
			}
			out.Pairs = append(out.Pairs, p)
		}
		modules = report.Modules
	}
	if len(out.Pairs) == 0 {
		return nil, nil, fmt.Errorf("%w: it changes nothing", ErrFormat)
	}
	SortPairs(out.Pairs)
	setDefaults(&out)
	return &out, modules, nil
}

// asProducts is the base with its table as a product of as many features as the table has rows.
func (b Base) asProducts() Base {
	out := b
	out.Table = ""
	out.Linear = func(module string) (n, in int, ok bool) {
		if n, in, ok = b.Linear(module); ok && module == b.Table {
			n, in = in, n
		}
		return n, in, ok
	}
	return out
}
