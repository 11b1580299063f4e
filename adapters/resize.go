package adapters

import (
	"fmt"
	"slices"
)

// checkCut checks how much of a change is to be kept, by rank or by energy or by both.
func checkCut(rank int, energy float64) error {
	switch {
	case rank < 0:
		return fmt.Errorf("rank is %d; want 1 or more", rank)
	case energy != 0 && !(energy > 0 && energy <= 1):
		return fmt.Errorf("energy is %v; want the share to keep, above 0 and up to 1", energy)
	case rank == 0 && energy == 0:
		return fmt.Errorf("neither a rank nor an energy is given")
	}
	return nil
}

// Resize lowers the ranks of an adapter, each pair to its best approximation: to rank, or to the
// smallest rank that keeps the share energy of the pair's squared Frobenius norm, in (0, 1]; of both, to
// the lower. A pair of no higher rank stays as it is, and a report has the singular values of every pair.
// Of DoRA the magnitudes stay, so that rows keep their lengths; the residual is that of the pair then.
func Resize(a *Adapter, rank int, energy float64) (*Adapter, []ModuleReport, error) {
	out, reports, err := resize(a, rank, energy)
	if err != nil {
		return nil, nil, fmt.Errorf("adapters: resizing %q: %w", a.Name, err)
	}
	return out, reports, nil
}

func resize(a *Adapter, rank int, energy float64) (*Adapter, []ModuleReport, error) {
	if err := checkCut(rank, energy); err != nil {
		return nil, nil, err
	}
	if len(a.Pairs) == 0 {
		return nil, nil, fmt.Errorf("%w: it has no pairs", ErrFormat)
	}
	highest := 0
	for i := range a.Pairs {
		if err := a.Pairs[i].validate(); err != nil {
			return nil, nil, err
		}
		highest = max(highest, a.Pairs[i].R)
	}
	if rank > highest {
		return nil, nil, fmt.Errorf("rank %d is above %d, the highest there is; a higher one would only hold zeros that do not train", rank, highest)
	}
	out := *a
	out.Pairs = slices.Clone(a.Pairs)
	reports := make([]ModuleReport, len(a.Pairs))
	err := eachModule(len(a.Pairs), false, func(i int) (err error) {
		reports[i], err = out.Pairs[i].resize(rank, energy)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	out.Config.RSLoRA = a.Config.RSLoRA && slices.EqualFunc(out.Pairs, a.Pairs, func(p, q Pair) bool { return p.R == q.R })
	setDefaults(&out)
	return &out, reports, nil
}

// resize lowers the rank of a pair, whose matrices are left as they are.
func (p *Pair) resize(rank int, energy float64) (ModuleReport, error) {
	one := shares{{Pair: p, weight: 1}}
	a, b, r := one.stack()
	d, err := factorSpectrum(b, a, p.Out, p.In, r)
	if err != nil {
		return ModuleReport{}, fmt.Errorf("%q: %w", p.Module, err)
	}
	if rank == 0 {
		rank = p.R
	}
	rank = min(rank, p.R)
	if energy > 0 {
		rank = d.rank(energy, rank)
	}
	report := ModuleReport{Module: p.Module, Rank: rank, Residual: d.residual(rank), Values: d.values}
	if rank == p.R {
		return report, nil
	}
	p.Bias = one.bias()
	p.B, p.A = d.truncate(rank, b, a, p.Out, p.In)
	p.R, p.Scale = rank, 1
	return report, nil
}
