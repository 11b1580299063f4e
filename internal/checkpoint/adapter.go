package checkpoint

import (
	"strings"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/model"
)

// This file says what adapters have to know of a model.

// Base says which parameters a model has.
func Base(c *model.Config) (adapters.Base, error) {
	params, err := model.Inventory(c)
	if err != nil {
		return adapters.Base{}, err
	}
	linears, table, head, err := products(c)
	if err != nil {
		return adapters.Base{}, err
	}
	b := adapters.Base{Table: table.Module, Head: head.Module, Tied: head.Tied != ""}
	shapes := map[string][]int{head.Module + ".weight": {head.Out, head.In}}
	for _, p := range params {
		shapes[p.Name] = p.Shape
	}
	modules := map[string]model.Linear{}
	for _, l := range append(linears, table, head) {
		modules[l.Module] = l
	}
	b.Shape = func(name string) ([]int, bool) {
		shape, ok := shapes[name]
		return shape, ok
	}
	b.Linear = func(module string) (out, in int, ok bool) {
		l, ok := modules[module]
		return l.Out, l.In, ok
	}
	return b, nil
}

func products(c *model.Config) (linears []model.Linear, table, head model.Linear, err error) {
	if linears, err = model.Targets(c); err == nil {
		table, head, err = model.Ends(c)
	}
	return linears, table, head, err
}

// GGUFNames says what a model's products are called in GGUF, and how their rows lie there.
func GGUFNames(c *model.Config) (adapters.GGUFNames, error) {
	linears, table, head, err := products(c)
	if err != nil {
		return adapters.GGUFNames{}, err
	}
	n := adapters.GGUFNames{Arch: c.GGUFArch(), Name: c.GGUFName}
	rows := map[string]int{}
	for _, l := range append(linears, table, head) {
		n.Modules = append(n.Modules, l.Module)
		rows[l.Module] = l.Out
	}
	n.Rows = func(module string) int { return rows[module] }
	n.Row = func(weight string, row, rows int) int {
		heads := c.RowHeads(weight)
		if heads == 0 {
			return row
		}
		if rows%(2*heads) != 0 { // not of this model
			return -1
		}
		return ggufRow(row, rows/heads)
	}
	n.Fused = func(name string) []string {
		rest, in := strings.CutPrefix(name, "blk.")
		layer, ok := strings.CutSuffix(rest, ".attn_qkv.weight")
		if !in || !ok {
			return nil
		}
		var out []string
		for _, part := range []string{"q_proj", "k_proj", "v_proj"} {
			module := "model.layers." + layer + ".self_attn." + part
			if rows[module] == 0 {
				return nil
			}
			out = append(out, module)
		}
		return out
	}
	return n, nil
}

// Localize gives what an adapter names the names it has in a model: one trained on a model of several
// parts names them by their paths there.
func Localize(c *model.Config, a *adapters.Adapter) {
	for i := range a.Pairs {
		a.Pairs[i].Module = c.Module(a.Pairs[i].Module)
	}
	for i := range a.Rows {
		a.Rows[i].Module = c.Module(a.Rows[i].Module)
	}
	for i := range a.Whole {
		a.Whole[i].Name = c.Module(a.Whole[i].Name)
	}
}

// OpenAdapter reads an adapter in any form that needs no more than its base's configuration: PEFT's, MLX's
// or llama.cpp's.
func OpenAdapter(path string, c *model.Config) (*adapters.Adapter, error) {
	if adapters.IsGGUF(path) {
		names, err := GGUFNames(c)
		if err != nil {
			return nil, err
		}
		return adapters.ReadGGUF(path, names)
	}
	a, err := adapters.Open(path)
	if err != nil {
		return nil, err
	}
	Localize(c, a)
	return a, nil
}
