package adapters

// Adding adapters up, in the ways of PEFT's add_weighted_adapter.

import (
	"fmt"
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
	// Base reads the base, which is needed only where parameters or rows replace its own with weights that do
	// not sum to 1. The adapters must fit it.
	Base ReadRows
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
//     which takes the base unless the weights of those who have one sum to 1;
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
	if err := combineWhole(out, list, o.Base); err != nil {
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
	report := &CombineReport{Modules: []ModuleReport{}}
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
