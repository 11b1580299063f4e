package train

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/quantize"
)

// This file plans memory: what a run takes, and how many blocks are computed again so that it fits.

// Plan is what a run holds in memory at its peak. Sizes are bytes.
type Plan struct {
	Parts   []Part // in the order in which a plan is read
	Total   int64
	Lengths []int // tokens of each sequence of the largest batch

	Blocks      int   // of the model that can be computed again
	RematBlocks int   // of these, that are
	KeepLogits  bool  // the head's are kept rather than made twice
	Limit       int64 // the recipe's memory, 0 where it sets none
}

// Part is a part of a plan: weights, adapter, gradients, optimizer, activations, logits, scratch and
// program, which is an estimate of everything else.
type Part struct {
	Name  string
	Bytes int64
}

// Fits reports whether the run fits in the recipe's memory.
func (p *Plan) Fits() bool { return p.Limit == 0 || p.Total <= p.Limit }

// PlanMemory plans the run of a recipe whose batches are full, loading nothing; of one with several
// adapters that of the adapter that takes most. The model is described by config, the text of a
// config.json; where that is nil, by the recipe's model. The recipe needs neither data nor out.
func PlanMemory(r Recipe, config []byte) (*Plan, error) {
	var c *model.Config
	var o engine.MemoryOptions
	if config != nil {
		var err error
		if c, err = model.ParseConfig(config); err != nil {
			return nil, fmt.Errorf("train: planning memory: %w", err)
		}
	} else {
		m, err := checkpoint.Open(r.Model)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		c = m.Config()
		if o, err = storedAs(m); err != nil {
			return nil, err
		}
	}
	parts, err := r.parts()
	if err != nil {
		return nil, err
	}
	var largest *Plan
	for i := range parts {
		p, err := parts[i].planFull(c, o)
		if err != nil {
			return nil, err
		}
		if largest == nil || p.Total > largest.Total {
			largest = p
		}
	}
	return largest, nil
}

// planFull plans a run whose batches are full.
func (r *Recipe) planFull(c *model.Config, o engine.MemoryOptions) (*Plan, error) {
	if err := r.limitLength(c.Context); err != nil {
		return nil, err
	}
	n := r.BatchSize
	if r.Objective == "dpo" {
		n *= 2 // chosen and rejected answers run together
	}
	o.Lengths = slices.Repeat([]int{r.MaxLength}, n)
	return r.plan(c, o)
}

// limitLength keeps max_length within the model's context.
func (r *Recipe) limitLength(context int) error {
	if !r.given["max_length"] {
		r.MaxLength = min(r.MaxLength, context)
	}
	if r.MaxLength > context {
		return fmt.Errorf("train: checking recipe: %w: max_length %d is more than the model's context of %d", ErrRecipe, r.MaxLength, context)
	}
	return nil
}

// plan plans a run, of which o says what the recipe does not.
func (r *Recipe) plan(c *model.Config, o engine.MemoryOptions) (*Plan, error) {
	limit, err := ParseSize(r.Memory)
	if err != nil {
		return nil, fmt.Errorf("train: checking recipe: %w: memory: %w", ErrRecipe, err)
	}
	o.Full, o.Quant, o.Dropout, o.BF16 = r.Method == "full", r.quant(), r.LoraDropout > 0, r.Compute == "bf16"
	if !o.Full {
		if err := r.describe(c, &o); err != nil {
			return nil, err
		}
	}
	planner, err := engine.NewPlanner(c, o)
	if err != nil {
		return nil, err
	}
	p := &Plan{Lengths: o.Lengths, Blocks: planner.Blocks(), Limit: limit}
	switch r.Remat {
	case "block":
		p.RematBlocks = p.Blocks
	case "auto":
		p.RematBlocks, _ = planner.Fit(limit)
	}
	m := planner.Memory(p.RematBlocks)
	if o.Full && p.RematBlocks == 0 && limit > 0 {
		planner.KeepLogits(true)
		if kept := planner.Memory(0); kept.Total() <= limit {
			m, p.KeepLogits = kept, true
		}
	}
	p.Total = m.Total()
	for _, part := range m.Parts() {
		p.Parts = append(p.Parts, Part(part))
	}
	return p, nil
}

// describe tells a planner what adapter the recipe makes or starts from.
func (r *Recipe) describe(c *model.Config, o *engine.MemoryOptions) error {
	o.Ranks, o.Rows = map[string]int{}, map[string]int{}
	if r.InitAdapter == "" {
		d, err := r.design(c)
		if err != nil {
			return err
		}
		for _, m := range d.Modules {
			o.Ranks[m.Module] = m.R
		}
		for module, rows := range d.Rows {
			o.Rows[module] = len(rows)
		}
		o.DoRA, o.Bias, o.Whole, o.TieWeights, o.Frozen = d.DoRA, d.Bias, d.Whole, d.TieWeights, r.takes()
		return nil
	}
	a, err := initAdapter(r, c)
	if err != nil {
		return err
	}
	base, err := checkpoint.Base(c)
	if err == nil {
		_, err = a.Resolve(base)
	}
	if err != nil {
		return fmt.Errorf("train: planning memory: %w", err)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		o.Ranks[p.Module] = p.R
		o.DoRA, o.Bias = o.DoRA || p.Magnitude != nil, o.Bias || p.Bias != nil
	}
	for i := range a.Whole {
		o.Whole = append(o.Whole, a.Whole[i].Name)
	}
	for i := range a.Rows {
		o.Rows[a.Rows[i].Module] = len(a.Rows[i].Indices)
	}
	o.TieWeights = a.Config.TieWeights
	return nil
}

// storedAs says how a model holds its tensors.
func storedAs(m *checkpoint.Checkpoint) (o engine.MemoryOptions, err error) {
	// Absent keys mean what they mean to transformers.
	var stored struct {
		Double bool `json:"bnb_4bit_use_double_quant"`
	}
	if q := m.Config().Key("quantization_config"); q != nil {
		if err := json.Unmarshal(q, &stored); err != nil {
			return o, fmt.Errorf("train: planning memory: %q: reading quantization_config: %w", m.Path, err)
		}
	}
	packed, codecs := map[string]*quantize.Options4{}, map[string]string{}
	for _, t := range m.Tensors() {
		codecs[t.Name] = t.Codec
		if t.Codec == "NF4" || t.Codec == "FP4" {
			packed[t.Name] = &quantize.Options4{Double: stored.Double}
		}
	}
	o.Stored = func(name string) *quantize.Options4 { return packed[name] }
	o.Codec = func(name string) string { return codecs[name] }
	return o, nil
}

// planMemory plans the run for the batches that there are, before weights are read. It fails with
// ErrRecipe where that is more than the recipe's memory.
func (r *run) planMemory() (*Plan, error) {
	o, err := storedAs(r.base)
	if err != nil {
		return nil, err
	}
	runtime.GC()
	var heap runtime.MemStats
	runtime.ReadMemStats(&heap)
	o.Lengths, o.Held = r.largestBatch(), int64(heap.HeapInuse)
	p, err := r.recipe.plan(r.base.Config(), o)
	if err != nil {
		return nil, err
	}
	if !p.Fits() {
		return nil, fmt.Errorf("train: planning memory: %w: the run takes %s%s, more than memory %q; lower batch_size (and raise gradient_accumulation_steps) or max_length%s",
			ErrRecipe, megabytes(p.Total), r.recipe.though(p, r.base.Config().Layers), r.recipe.Memory, r.recipe.frugal())
	}
	if p.Limit > 0 || p.RematBlocks > 0 {
		logits := ""
		if p.KeepLogits {
			logits = " and logits kept"
		}
		r.note(fmt.Sprintf("%s planned, with %d of %d blocks computed again%s", megabytes(p.Total), p.RematBlocks, r.base.Config().Layers, logits))
	}
	return p, nil
}

// though says what has been done about a run that does not fit.
func (r *Recipe) though(p *Plan, blocks int) string {
	if r.Remat == "none" {
		return " with remat none"
	}
	return fmt.Sprintf(" with %d of %d blocks computed again", p.RematBlocks, blocks)
}

// frugal lists the other keys that make a run smaller.
func (r *Recipe) frugal() string {
	var ways []string
	if r.Remat == "none" {
		ways = append(ways, "remat auto")
	}
	if r.Method != "qlora" {
		ways = append(ways, "method qlora")
	}
	if r.Compute != "bf16" && r.Method != "full" {
		ways = append(ways, "compute bf16")
	}
	if len(ways) == 0 {
		return ""
	}
	return ", or use " + strings.Join(ways, ", ")
}

// largestBatch returns the lengths of the sequences of the largest batch of any epoch.
func (r *run) largestBatch() []int {
	largest := sequences(r.train, longest(r.train, r.recipe.BatchSize))
	if r.recipe.Packing == "examples" {
		// How well examples pack differs between epochs: at the worst sequences are full.
		all := 0
		for _, n := range r.train.lengths() {
			all += n
		}
		largest = nil
		for left := min(all, r.recipe.BatchSize*r.recipe.MaxLength); left > 0; left -= r.recipe.MaxLength {
			largest = append(largest, min(left, r.recipe.MaxLength))
		}
	}
	if r.eval == nil {
		return largest
	}
	if held := sequences(r.eval, longest(r.eval, r.recipe.BatchSize)); sum(held) > sum(largest) {
		return held
	}
	return largest
}

// longest returns the n longest examples.
func longest(data objective, n int) []int {
	lengths := data.lengths()
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(lengths[j], lengths[i]) })
	return order[:min(n, len(order))]
}

// sequences returns the lengths of the sequences that a batch is laid out in.
func sequences(data objective, batch []int) (out []int) {
	seq := data.lay(batch).Seq
	for i := range seq[1:] {
		out = append(out, int(seq[i+1]-seq[i]))
	}
	return out
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// ParseSize reads "5GB", "500MB" or a number of bytes, in decimal units as Hugging Face has them; "" is
// 0.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	unit := int64(1)
	upper := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range []struct {
		suffix string
		n      int64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}} {
		if rest, ok := strings.CutSuffix(upper, u.suffix); ok {
			upper, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	f, err := strconv.ParseFloat(upper, 64)
	if err != nil || !(f > 0) || f*float64(unit) > 1e18 {
		return 0, fmt.Errorf("size %q: write a number and B, KB, MB, GB or TB", s)
	}
	return int64(f * float64(unit)), nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
