package adapters

// Adding up what several adapters do to one module.

import (
	"fmt"
	"math"
	"slices"

	"github.com/graftml/graft/internal/kernel"
)

// share is one adapter's part in a module.
type share struct {
	*Pair
	weight  float64
	adapter int // its place in the list
	name    string
}

// shares are all parts in a module, in the order of the list.
type shares []share

// gatherShares sorts the pairs of all adapters by module and checks that they are of one shape.
func gatherShares(list []Weighted) ([]shares, error) {
	places := map[string]int{}
	var modules []shares
	for n, w := range list {
		for i := range w.Adapter.Pairs {
			p := &w.Adapter.Pairs[i]
			if err := p.validate(); err != nil {
				return nil, fmt.Errorf("%q: %w", w.Adapter.Name, err)
			}
			s := share{p, w.Weight, n, w.Adapter.Name}
			at, ok := places[p.Module]
			if !ok {
				places[p.Module] = len(modules)
				modules = append(modules, shares{s})
				continue
			}
			switch q := modules[at][len(modules[at])-1]; {
			case q.adapter == n:
				return nil, fmt.Errorf("%w: %q has two pairs for %q", ErrFormat, w.Adapter.Name, p.Module)
			case p.In != q.In || p.Out != q.Out || p.Table != q.Table:
				return nil, fmt.Errorf("%w: %q of %q is (%d, %d), of %q (%d, %d); they are of different bases", ErrMismatch,
					p.Module, q.name, q.Out, q.In, w.Adapter.Name, p.Out, p.In)
			}
			modules[at] = append(modules[at], s)
		}
	}
	slices.SortFunc(modules, func(a, b shares) int { return compareModules(a[0].Module, b[0].Module) })
	return modules, nil
}

// most is the highest rank that a combination can need.
func (s shares) most(dense bool) int {
	full := min(s[0].Out, s[0].In)
	if dense {
		return full
	}
	sum := 0
	for _, p := range s {
		sum += p.R
	}
	return min(sum, full)
}

// combine makes the pair of a module, and a report where there is something to report.
func (s shares) combine(o *CombineOptions, m method) (Pair, *ModuleReport, error) {
	rank := 0
	for _, p := range s {
		rank = max(rank, p.R)
	}
	if o.Rank > 0 {
		rank = o.Rank
	}
	rank = min(rank, s.most(m.dense))
	if len(s) == 1 && (m.plain || o.Density == 1) && (!m.svd || rank >= s[0].R) {
		p := *s[0].Pair
		p.Scale *= s[0].weight
		if o.Report || m.svd {
			return p, &ModuleReport{Module: p.Module, Rank: p.R}, nil
		}
		return p, nil, nil
	}
	for _, q := range s {
		if q.Magnitude != nil && len(s) > 1 {
			return Pair{}, nil, fmt.Errorf("%w: %q has DoRA on %q, which %q changes too: what the two do together depends on the base; merge them into it (graft merge) and take the difference (graft adapter extract)",
				ErrUnsupported, q.name, q.Module, s.other(q.adapter))
		}
		if q.Magnitude != nil {
			return Pair{}, nil, fmt.Errorf("%w: %q has DoRA on %q, whose lengths are of the pair as it was trained; %s would change the pair: use cat, or merge it into its base (graft merge) and take the difference (graft adapter extract)",
				ErrUnsupported, q.name, q.Module, m.name)
		}
	}
	p := Pair{Module: s[0].Module, Table: s[0].Table, In: s[0].In, Out: s[0].Out, Scale: 1}
	var report *ModuleReport
	var err error
	switch {
	case m.cat:
		p.A, p.B, p.R = s.stack()
	case m.dense:
		report, err = s.denseSVD(&p, rank, o, m)
	case m.svd:
		a, b, r := s.stack()
		report, err = lowRank(&p, a, b, r, rank, o.Report)
	default:
		s.factorwise(&p, o, m)
		if m.name == "linear" && o.Report {
			report, err = s.crossTerms(&p)
		}
	}
	p.Bias = s.bias()
	return p, report, err
}

// other names an adapter of the module that is not the given one.
func (s shares) other(adapter int) string {
	for _, p := range s {
		if p.adapter != adapter {
			return p.name
		}
	}
	return ""
}

// stack lays the factors beside each other: A is the Aᵢ with wᵢ·sᵢ in them, as in PEFT's cat.
func (s shares) stack() (a, b []float32, r int) {
	for _, p := range s {
		r += p.R
	}
	in, out := s[0].In, s[0].Out
	a, b = make([]float32, r*in), make([]float32, out*r)
	at := 0
	for _, p := range s {
		kernel.Scale(a[at*in:(at+p.R)*in], p.A, float32(p.weight*p.Scale))
		for o := range out {
			copy(b[o*r+at:], p.B[o*p.R:(o+1)*p.R])
		}
		at += p.R
	}
	return a, b, r
}

// lowRank sets the pair to the best approximation of B·A of a rank.
func lowRank(p *Pair, a, b []float32, r, rank int, values bool) (*ModuleReport, error) {
	d, err := factorSpectrum(b, a, p.Out, p.In, r)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", p.Module, err)
	}
	p.R = rank
	p.B, p.A = d.truncate(rank, b, a, p.Out, p.In)
	report := &ModuleReport{Module: p.Module, Rank: rank, Residual: d.residual(rank)}
	if values {
		report.Values = d.values
	}
	return report, nil
}

// crossTerms measures how far linear's product is from the sum of the changes.
func (s shares) crossTerms(p *Pair) (*ModuleReport, error) {
	a, b, r := s.stack()
	sum, err := factorSpectrum(b, a, p.Out, p.In, r)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", p.Module, err)
	}
	less := share{p, -1, 0, ""}
	a, b, r = append(slices.Clone(s), less).stack()
	far, err := factorSpectrum(b, a, p.Out, p.In, r)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", p.Module, err)
	}
	report := &ModuleReport{Module: p.Module, Rank: p.R, Values: sum.values}
	if sum.energy > 0 {
		report.Residual = math.Sqrt(far.energy / sum.energy)
	}
	return report, nil
}

// factorwise combines A with A and B with B. The root of wᵢ·sᵢ goes to each, its sign to A.
func (s shares) factorwise(p *Pair, o *CombineOptions, m method) {
	for _, q := range s {
		p.R = max(p.R, q.R)
	}
	var as, bs [][]float32
	var wa, wb []float32
	for _, q := range s {
		a, b := slices.Clone(q.A), slices.Clone(q.B)
		if m.random {
			pruneRandom(a, o.Density, maskKey(o.Seed, q.A, q.B, partOfA))
			pruneRandom(b, o.Density, maskKey(o.Seed, q.A, q.B, partOfB))
		} else if !m.plain {
			pruneMagnitude(a, o.Density)
			pruneMagnitude(b, o.Density)
		}
		as = append(as, append(a, make([]float32, (p.R-q.R)*p.In)...))
		bs = append(bs, widen(b, p.Out, q.R, p.R))
		w := q.weight * q.Scale
		root := float32(math.Sqrt(math.Abs(w)))
		wb = append(wb, root)
		wa = append(wa, float32(math.Copysign(float64(root), w)))
	}
	if m.vote {
		p.A, p.B = elect(as, wa, o.MajoritySign == "frequency"), elect(bs, wb, o.MajoritySign == "frequency")
		return
	}
	p.A, p.B = weightedSum(as, wa), weightedSum(bs, wb)
}

// widen puts zeros at the end of every row.
func widen(x []float32, rows, from, to int) []float32 {
	if from == to {
		return x
	}
	out := make([]float32, rows*to)
	for i := range rows {
		copy(out[i*to:], x[i*from:(i+1)*from])
	}
	return out
}

// denseSVD combines the changes themselves and sets the pair to the best approximation of a rank.
func (s shares) denseSVD(p *Pair, rank int, o *CombineOptions, m method) (*ModuleReport, error) {
	var changes [][]float32
	var weights []float32
	for _, q := range s {
		d := make([]float32, p.Out*p.In)
		kernel.ScaledMul(d, p.In, q.B, q.R, p.Out, &kernel.Matrix{N: q.R, K: p.In, F32: q.A}, float32(q.Scale), false)
		if m.random {
			pruneRandom(d, o.Density, maskKey(o.Seed, q.A, q.B, partOfChange))
		} else {
			pruneMagnitude(d, o.Density)
		}
		changes, weights = append(changes, d), append(weights, float32(q.weight))
		if !m.vote && len(changes) == 2 { // a running sum: two matrices at a time
			changes, weights = [][]float32{weightedSum(changes, weights)}, []float32{1}
		}
	}
	var d []float32
	if m.vote {
		d = elect(changes, weights, o.MajoritySign == "frequency")
	} else {
		d = weightedSum(changes, weights)
	}
	f, err := denseSpectrum(d, p.Out, p.In, rank, matched)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", p.Module, err)
	}
	p.R = rank
	p.B, p.A = f.truncate(rank, p.Out, p.In)
	report := &ModuleReport{Module: p.Module, Rank: rank, Residual: subtract(d, p.B, p.A, p.Out, p.In, rank, f.energy)}
	if o.Report {
		report.Values = f.values
	}
	return report, nil
}

// bias is Σ wᵢ·sᵢ·biasᵢ, for a pair of scale 1.
func (s shares) bias() []float32 {
	var out []float32
	for _, p := range s {
		if p.Bias == nil {
			continue
		}
		if out == nil {
			out = make([]float32, p.Out)
		}
		kernel.AddScaled(out, p.Bias, float32(p.weight*p.Scale))
	}
	return out
}
