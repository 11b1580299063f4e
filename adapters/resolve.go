package adapters

// What an adapter means for a given base: which parameters it changes where the head of the base
// shares its embedding table.

import (
	"fmt"
	"slices"
)

// Base is what has to be known of a model to say what an adapter changes.
type Base struct {
	Table string // module of the embedding table: "model.embed_tokens"
	Head  string // module of the output head: "lm_head"
	Tied  bool   // the head has no weight of its own but the table
	// Linear returns the features that a module's product makes and takes, for the table the width of a
	// row and the number of rows, and false where the base has no such product.
	Linear func(module string) (out, in int, ok bool)
	// Shape returns the shape of a parameter by its full name, false where the base has none of that
	// name. The weight of a tied head has one.
	Shape func(name string) (shape []int, ok bool)
}

// Untied returns read for a base whose head has a weight of its own: where it shares the table, its rows are
// those of the table.
func (b Base) Untied(read ReadRows) ReadRows {
	if !b.Tied {
		return read
	}
	return func(name string, lo, hi int, dst []float32) error {
		if name == b.Head+".weight" {
			name = b.Table + ".weight"
		}
		return read(name, lo, hi, dst)
	}
}

// Resolve returns the adapter as it acts on a base, each change under the name of what it changes, as
// PEFT computes it. On a base whose head shares the table, the table and the head then are two: what
// names one changes that one alone, but for trained rows of the table, which PEFT gives to both, and
// for everything where TieWeights is set. The error wraps [ErrMismatch] and names the first module that
// does not fit. The result shares memory with a.
func (a *Adapter) Resolve(b Base) (*Adapter, error) {
	if err := a.fits(b); err != nil {
		return nil, fmt.Errorf("adapters: checking %q: %w", a.Name, err)
	}
	if !b.Tied {
		return a, nil
	}
	out := *a
	if a.TokenRows(b.Table) != nil && a.TokenRows(b.Head) == nil {
		rows := *a.TokenRows(b.Table)
		rows.Module = b.Head
		out.Rows = append(slices.Clone(a.Rows), rows)
	}
	if !a.Config.TieWeights {
		return &out, nil
	}
	if p := a.Pair(b.Table); p != nil && a.Pair(b.Head) == nil {
		if p.Magnitude != nil || p.Bias != nil {
			return nil, fmt.Errorf("adapters: checking %q: %w: ensure_weight_tying with DoRA or a bias on %q has no meaning for the head", a.Name, ErrUnsupported, b.Table)
		}
		out.Pairs = append(slices.Clone(a.Pairs), p.mirror(b.Head))
		SortPairs(out.Pairs)
	}
	if w := a.WholeOf(b.Table + ".weight"); w != nil && a.WholeOf(b.Head+".weight") == nil {
		head := *w
		head.Name = b.Head + ".weight"
		out.Whole = append(slices.Clone(a.Whole), head)
	}
	return &out, nil
}

// mirror returns what makes the same of a head that shares the table as p makes of the table.
func (p *Pair) mirror(head string) Pair {
	return Pair{Module: head, R: p.R, In: p.Out, Out: p.In, Scale: p.Scale, A: transpose(p.B, p.Out, p.R), B: transpose(p.A, p.R, p.In)}
}

// withoutMirror returns the adapter without what it says of the head that it says of the table too: some
// tools save both.
func (a *Adapter) withoutMirror(b Base) *Adapter {
	out := *a
	out.Pairs = slices.DeleteFunc(slices.Clone(a.Pairs), func(p Pair) bool {
		t := a.Pair(b.Table)
		if p.Module != b.Head || t == nil {
			return false
		}
		m := t.mirror(b.Head)
		return m.Scale == p.Scale && slices.Equal(m.A, p.A) && slices.Equal(m.B, p.B)
	})
	out.Whole = slices.DeleteFunc(slices.Clone(a.Whole), func(w Tensor) bool {
		t := a.WholeOf(b.Table + ".weight")
		return w.Name == b.Head+".weight" && t != nil && slices.Equal(t.Data, w.Data)
	})
	return &out
}

// fits checks every part against the base.
func (a *Adapter) fits(b Base) error {
	if len(a.Pairs)+len(a.Whole)+len(a.Rows) == 0 {
		return fmt.Errorf("%w: it changes nothing", ErrFormat)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		if err := p.validate(); err != nil {
			return err
		}
		out, in, ok := b.Linear(p.Module)
		switch {
		case !ok:
			return fmt.Errorf("%w: it adapts %q, which the base does not have as a linear product; was it trained on another model?", ErrMismatch, p.Module)
		case p.Table != (p.Module == b.Table):
			return fmt.Errorf("%w: it adapts %q as a table: %v, but the table of the base is %q", ErrMismatch, p.Module, p.Table, b.Table)
		case out != p.Out || in != p.In:
			return fmt.Errorf("%w: %q has A (%d, %d) and B (%d, %d) there, but the base's weight is (%d, %d), not (%d, %d)",
				ErrMismatch, p.Module, p.R, p.In, p.Out, p.R, out, in, p.Out, p.In)
		}
	}
	for i := range a.Whole {
		t := &a.Whole[i]
		shape, ok := b.Shape(t.Name)
		if !ok {
			return fmt.Errorf("%w: it replaces %q, which the base does not have; was it trained on another model?", ErrMismatch, t.Name)
		}
		if !slices.Equal(shape, t.Shape) {
			return fmt.Errorf("%w: it replaces %q by a tensor of shape %v, but the base's is %v", ErrMismatch, t.Name, t.Shape, shape)
		}
	}
	for i := range a.Rows {
		r := &a.Rows[i]
		if err := r.validate(); err != nil {
			return err
		}
		shape, ok := b.Shape(r.Module + ".weight")
		if !ok || len(shape) != 2 {
			return fmt.Errorf("%w: it replaces rows of %q, which the base does not have", ErrMismatch, r.Module)
		}
		if last := slices.Max(r.Indices); shape[1] != r.Width || last >= shape[0] {
			return fmt.Errorf("%w: it replaces row %d of %q by one of %d values, but the base's table is %v; were tokens added to the base it was trained on?", ErrMismatch, last, r.Module, r.Width, shape)
		}
	}
	return nil
}

func (r *TokenRows) validate() error {
	if len(r.Indices) == 0 || r.Width < 1 || len(r.Data) != len(r.Indices)*r.Width {
		return fmt.Errorf("%w: %d rows of %d values of %q in %d values", ErrFormat, len(r.Indices), r.Width, r.Module, len(r.Data))
	}
	seen := make(map[int]bool, len(r.Indices))
	for _, i := range r.Indices {
		if i < 0 || seen[i] {
			return fmt.Errorf("%w: row %d of %q is negative or named twice", ErrFormat, i, r.Module)
		}
		seen[i] = true
	}
	return nil
}

// TokenRows returns the replaced rows of a table, nil where there are none.
func (a *Adapter) TokenRows(module string) *TokenRows {
	for i := range a.Rows {
		if a.Rows[i].Module == module {
			return &a.Rows[i]
		}
	}
	return nil
}

// WholeOf returns what replaces a parameter, nil where nothing does.
func (a *Adapter) WholeOf(name string) *Tensor {
	for i := range a.Whole {
		if a.Whole[i].Name == name {
			return &a.Whole[i]
		}
	}
	return nil
}
