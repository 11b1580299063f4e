package adapters

// Pairs on q, k and v of a base in which they are one tensor, as llama.cpp's converter joins them with
// --fuse-qkv. Its rows are those of the three, so a pair on it is cut by the rows of B, and three pairs are
// one with their A stacked and their B along a diagonal: the same products, of a higher rank.

import (
	"fmt"
	"slices"
	"strings"
)

// joint returns the joint tensor that a module's tensor is a part of, and the modules it is of; "" where
// it is written by itself.
func (n *GGUFNames) joint(module, name string) (joint string, parts []string) {
	if !n.FuseQKV {
		return "", nil
	}
	for _, stem := range []string{"attn_q.", "attn_k.", "attn_v."} {
		if before, after, ok := strings.Cut(name, stem); ok {
			joint = before + "attn_qkv." + after
		}
	}
	if parts = n.Fused(joint); !slices.Contains(parts, module) {
		return "", nil
	}
	return joint, parts
}

// join makes one pair of those of the parts of a joint tensor, of which some may be missing.
func (n *GGUFNames) join(joint string, parts []*ggufPair) (ggufPair, error) {
	first := parts[slices.IndexFunc(parts, func(p *ggufPair) bool { return p != nil })]
	same, rank, rows := true, 0, 0 // same: all do the same A, as they do when they were cut out of one pair
	outs := make([]int, len(parts))
	for i, module := range n.Fused(joint) {
		p := parts[i]
		if p == nil {
			same = false
			if outs[i] = n.Rows(module); outs[i] < 1 {
				return ggufPair{}, fmt.Errorf("%w: %q has no rows in the base", ErrMismatch, module)
			}
		} else {
			same = same && p.R == first.R && slices.Equal(p.A, first.A)
			outs[i], rank = p.Out, rank+p.R
		}
		rows += outs[i]
	}
	out := ggufPair{Pair{Module: joint, R: rank, In: first.In, Out: rows, Scale: first.Scale}}
	if same {
		out.R, out.A = first.R, first.A
	}
	if out.Scale == 0 {
		out.Scale = 1
	}
	out.B = make([]float32, rows*out.R)
	column, row := 0, 0
	for i, p := range parts {
		if p != nil {
			factor := float32(p.Scale / out.Scale)
			for k := range p.Out {
				for j, v := range p.B[k*p.R : (k+1)*p.R] {
					out.B[(row+k)*out.R+column+j] = v * factor
				}
			}
			if !same {
				out.A, column = append(out.A, p.A...), column+p.R
			}
		}
		row += outs[i]
	}
	return out, nil
}

// split cuts the pair on a joint tensor into those of its parts. Each has a copy of A.
func (n *GGUFNames) split(p *ggufPair) ([]Pair, error) {
	var out []Pair
	row := 0
	for _, module := range n.Fused(p.Module) {
		rows := n.Rows(module)
		if rows > p.Out-row {
			break
		}
		part := Pair{Module: module, R: p.R, In: p.In, Out: rows, Scale: p.Scale, A: slices.Clone(p.A), B: p.B[row*p.R : (row+rows)*p.R]}
		row += rows
		if slices.ContainsFunc(part.B, func(v float32) bool { return v != 0 }) {
			out = append(out, part)
		}
	}
	if row != p.Out || len(out) == 0 {
		return nil, fmt.Errorf("%w: %q has %d rows there, which are not those of %s", ErrMismatch, p.Module, p.Out, strings.Join(n.Fused(p.Module), ", "))
	}
	return out, nil
}
