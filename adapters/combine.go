package adapters

// Adding adapters up, in the ways of PEFT's add_weighted_adapter.

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/graftml/graft/internal/kernel"
)

// Methods lists the ways in which [Combine] adds adapters up.
func Methods() []string {
	return []string{"svd", "cat", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd",
		"magnitude_prune", "magnitude_prune_svd"}
}

// Weighted is an adapter and how much of it to take; a negative weight takes it away.
type Weighted struct {
	Adapter *Adapter
	Weight  float64
}

// CombineOptions says how adapters are added up. With wᵢ the weights and sᵢ·Bᵢ·Aᵢ the changes:
//
//	cat                 the sum Σ wᵢ·sᵢ·Bᵢ·Aᵢ itself, its rank the sum of ranks
//	svd                 its best approximation of a rank
//	linear              A is Σ ±√|wᵢsᵢ|·Aᵢ, B is Σ √|wᵢsᵢ|·Bᵢ: products of one adapter's A with another's B come in
//	magnitude_prune     linear, after all but the largest values of each matrix became zero
//	dare_linear         linear, after values at random became zero and the others grew as much
//	ties                as magnitude_prune, but of each value only those of the sign that prevails, averaged
//	dare_ties           as dare_linear, with the vote of ties
//	…_svd               the same of the changes sᵢ·Bᵢ·Aᵢ in place of A and B, then the best approximation of a rank
type CombineOptions struct {
	// Method is one of [Methods]; "" is svd, as in PEFT.
	Method string
	// Rank of what svd and the _svd methods make, of a module that allows no such rank the highest; 0 is
	// the largest rank that a module has in any of the adapters.
	Rank int
	// Density is the share of values that the sparsifying methods keep, in (0, 1].
	Density float64
	// MajoritySign is how ties votes: "total" (or ""), by the sum of values, or "frequency", by their number.
	MajoritySign string
	// Seed decides which values DARE keeps.
	Seed uint64
	// Report asks for singular values and what costs time besides: CombineReport.Overlaps, and how far
	// linear is from the sum.
	Report bool
}

// ModuleReport says how well a pair of matrices stands for what it is to do.
type ModuleReport struct {
	Module string `json:"module"`
	Rank   int    `json:"rank"`
	// Residual is what is missing, as a share of the change in the Frobenius norm.
	Residual float64 `json:"residual"`
	// Values are singular values of the change, descending, at least as many as the rank.
	Values []float64 `json:"singular_values,omitempty"`
}

// CombineReport says what [Combine] did.
type CombineReport struct {
	// Modules has the pairs that svd and the _svd methods approximate, and with CombineOptions.Report those
	// of linear, measured against the weighted sum of the changes.
	Modules  []ModuleReport `json:"modules"`
	Overlaps []Overlap      `json:"overlaps,omitempty"`
}

// method is a method taken apart.
type method struct {
	name                string
	cat, svd, plain     bool // plain: no pruning
	random, vote, dense bool // dense: of changes and not of A and B
}

func (o *CombineOptions) method() (m method, err error) {
	m.name = o.Method
	if m.name == "" {
		m.name = "svd"
	}
	if !slices.Contains(Methods(), m.name) {
		return m, fmt.Errorf("there is no method %q; choose one of %s", m.name, strings.Join(Methods(), ", "))
	}
	kind, dense := strings.CutSuffix(m.name, "_svd")
	m.cat, m.svd = kind == "cat", kind == "svd" || dense
	m.plain, m.dense = kind == "cat" || kind == "svd" || kind == "linear", dense
	m.random, m.vote = strings.HasPrefix(kind, "dare"), strings.HasSuffix(kind, "ties")
	switch {
	case m.plain && o.Density != 0:
		return m, fmt.Errorf("%s prunes nothing, so it has no density", m.name)
	case !m.plain && !(o.Density > 0 && o.Density <= 1):
		return m, fmt.Errorf("density is %v; %s wants the share of values to keep, above 0 and up to 1", o.Density, m.name)
	case !m.svd && o.Rank != 0:
		return m, fmt.Errorf("%s has no rank to choose; use svd, or ties_svd and its like", m.name)
	case o.Rank < 0:
		return m, fmt.Errorf("rank is %d; want 1 or more", o.Rank)
	case o.MajoritySign != "" && o.MajoritySign != "total" && o.MajoritySign != "frequency":
		return m, fmt.Errorf("majority sign method %q: choose total or frequency", o.MajoritySign)
	case o.MajoritySign != "" && !m.vote:
		return m, fmt.Errorf("%s has no vote on signs, so it has no majority sign method", m.name)
	}
	return m, nil
}

// Combine adds adapters up, with PEFT's meaning of every method, over the union of their modules. Neither
// the base nor, but for the _svd methods, a matrix of a weight's size is needed. A change that one
// adapter alone makes stays the matrices it is, its scale times the weight, unless it is pruned or its
// rank is cut: one adapter of weight 1 is itself.
//
// It is right where add_weighted_adapter (PEFT 0.21) is not, without a word from it:
//   - of rsLoRA the result there is √r times as strong, as it keeps use_rslora and sets alpha to the rank;
//   - rank_pattern is dropped there: what linear and its kin make of such adapters cannot be loaded again,
//     and adapters of which a module's ranks differ cannot be added up; here missing rows of A and columns
//     of B are zeros, which take no part in pruning;
//   - lora_bias is lost there; here biases are added up, Σ wᵢ·sᵢ·biasᵢ, by every method;
//   - DoRA's magnitudes are lost there. They cannot be added up without the base: here the pair of a
//     module that no other adapter changes is kept whole, and any other case is refused;
//   - modules_to_save are those of the base again there, and an adapter with trainable_token_indices does
//     not load beside another. Here both are combined as the differences from the base that they are,
//     which takes no base where the weights of those who have one sum to 1, and is refused otherwise;
//   - layers_to_transform and exclude_modules of the first adapter silence the others there;
//   - a single adapter is never pruned or cut there, whatever the method says.
//
// The error wraps [ErrMismatch] where the adapters are not of one base, and [ErrUnsupported] where
// matrices cannot say the sum.
func Combine(list []Weighted, o CombineOptions) (*Adapter, *CombineReport, error) {
	a, r, err := combine(list, o)
	if err != nil {
		return nil, nil, fmt.Errorf("adapters: combining: %w", err)
	}
	return a, r, nil
}

func combine(list []Weighted, o CombineOptions) (*Adapter, *CombineReport, error) {
	m, err := o.method()
	if err != nil {
		return nil, nil, err
	}
	if err := checkList(list); err != nil {
		return nil, nil, err
	}
	modules, err := gatherShares(list)
	if err != nil {
		return nil, nil, err
	}
	if err := checkRank(o.Rank, modules, m.dense); err != nil {
		return nil, nil, err
	}
	out := &Adapter{Pairs: make([]Pair, len(modules))}
	if err := combineWhole(out, list); err != nil {
		return nil, nil, err
	}
	reports := make([]*ModuleReport, len(modules))
	dense := 0
	for _, s := range modules {
		dense = max(dense, 4*(len(s)+1)*s[0].Out*s[0].In)
	}
	err = eachModule(len(modules), m.dense && dense*kernel.Threads() > maxDense, func(i int) (err error) {
		out.Pairs[i], reports[i], err = modules[i].combine(&o, m)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := combineConfig(out, list); err != nil {
		return nil, nil, err
	}
	report := &CombineReport{}
	for _, r := range reports {
		if r != nil {
			report.Modules = append(report.Modules, *r)
		}
	}
	if o.Report {
		report.Overlaps = overlaps(modules)
	}
	return out, report, nil
}

// checkList checks what does not depend on the method.
func checkList(list []Weighted) error {
	if len(list) == 0 {
		return fmt.Errorf("%w: there are no adapters", ErrFormat)
	}
	for i, w := range list {
		if w.Weight-w.Weight != 0 {
			return fmt.Errorf("the weight of %q is %v", w.Adapter.Name, w.Weight)
		}
		if w.Adapter.empty() {
			return fmt.Errorf("%w: %q changes nothing", ErrFormat, w.Adapter.Name)
		}
		for _, v := range list[:i] {
			if v.Adapter == w.Adapter || sameValues(v.Adapter, w.Adapter) {
				return fmt.Errorf("%q and %q are the same adapter; name it once, with the sum of the weights", v.Adapter.Name, w.Adapter.Name)
			}
		}
	}
	return nil
}

func (a *Adapter) empty() bool { return len(a.Pairs)+len(a.Whole)+len(a.Rows) == 0 }

// sameValues reports whether two adapters hold the same numbers.
func sameValues(a, b *Adapter) bool {
	return slices.EqualFunc(a.Pairs, b.Pairs, func(p, q Pair) bool {
		return p.Module == q.Module && p.Scale == q.Scale && slices.Equal(p.A, q.A) && slices.Equal(p.B, q.B) &&
			slices.Equal(p.Bias, q.Bias) && slices.Equal(p.Magnitude, q.Magnitude)
	}) && slices.EqualFunc(a.Whole, b.Whole, func(p, q Tensor) bool {
		return p.Name == q.Name && slices.Equal(p.Data, q.Data)
	}) && slices.EqualFunc(a.Rows, b.Rows, func(p, q TokenRows) bool {
		return p.Module == q.Module && slices.Equal(p.Indices, q.Indices) && slices.Equal(p.Data, q.Data)
	})
}

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

// checkRank refuses a rank that no module can have.
func checkRank(rank int, modules []shares, dense bool) error {
	most, where := 0, ""
	for _, s := range modules {
		if m := s.most(dense); m > most {
			most, where = m, s[0].Module
		}
	}
	if rank > most && len(modules) > 0 {
		return fmt.Errorf("rank %d is above %d, the most that any module can have, which is %q", rank, most, where)
	}
	return nil
}

// maxDense is how many bytes of dense changes may be at hand at a time before modules go one by one.
const maxDense = 256 << 20

// eachModule runs f for every module, on all cores at once unless each takes a large matrix, when the
// work inside is shared out instead. The first error, by module, is returned.
func eachModule(n int, oneByOne bool, f func(i int) error) error {
	errs := make([]error, n)
	run := task(func(lo, hi int) {
		for i := lo; i < hi; i++ {
			errs[i] = f(i)
		}
	})
	if oneByOne {
		run.Run(0, n)
	} else {
		kernel.Parallel(n, 1, run)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
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
