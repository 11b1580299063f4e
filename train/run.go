package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/wholefile"
	"github.com/graftml/graft/train/dataset"
)

// This file is the one loop.

// Options says how a run goes, where it is not the recipe's matter.
type Options struct {
	// Progress, unless nil, is told how the run goes, from the goroutine that called Run.
	Progress func(Event)
	// Planned, unless nil, is told what the run will hold in memory, before weights are read. A process
	// that does nothing else may make the total Go's memory limit.
	Planned func(*Plan)
	// Resume goes on from the state in the recipe's out. Where a run was killed before it saved one,
	// it starts from the beginning.
	Resume bool
	// Force replaces the results of an earlier run in out.
	Force bool
}

// Kind is what an event tells of.
type Kind string

// The kinds of events.
const (
	Note      Kind = "note"      // Text is a line about the run
	Step      Kind = "step"      // a step is done; every logging_steps
	Evaluated Kind = "evaluated" // EvalLoss is known
	Saved     Kind = "saved"     // the state is on disk
)

// Event is how a run goes.
type Event struct {
	Kind            Kind
	Adapter         string // which of several adapters it is about; "" where there is one
	Text            string
	Step, Total     int // of optimizer steps
	Epoch           float64
	Loss            float64 // mean of the step
	LR              float64
	GradNorm        float64
	Tokens          int // of the step's sequences
	TokensPerSecond float64
	Left            time.Duration // estimate until the last step
	EvalLoss        float64
	EvalPerplexity  float64 // of sft; 0 otherwise
	Accuracy        float64 // of dpo: the part of pairs with the higher reward for the chosen answer
}

// Result is what a run came to.
type Result struct {
	Out       string
	Objective string
	Steps     int
	Tokens    int64 // of all sequences of all steps
	Loss      float64
	Stopped   bool          // early stopping ended it
	Elapsed   time.Duration // of this process
	Trained   int           // number of values
	Evaluated bool          // whether the following are known
	FirstEval float64       // loss before the first step
	LastEval  float64       // loss after the last step
	BestEval  float64       // lowest loss of an evaluation after the first step
	BestStep  int           // its step, whose parameters were written
	// Each has the results of several adapters, in order; of the fields above, Out, Steps, Tokens, Elapsed
	// and Trained then are of all together.
	Each []*Result
}

// run is a run under way.
type run struct {
	recipe    *Recipe
	options   Options
	base      *checkpoint.Checkpoint
	name      string            // of the adapter, where the run has several
	adapter   *adapters.Adapter // nil where the whole model is trained
	frozen    *adapters.Adapter // what stands beside it, nil where nothing does
	plan      *Plan
	session   *engine.Session
	optimizer *optimizer
	train     objective
	eval      objective // nil: no evaluation
	batches   *dataset.Batches
	total     int

	state       state
	savedBest   int // the bestStep of the state on disk, 0 where there is none
	fingerprint string
	metrics     *os.File
	loss        float64 // of the last step
	pace        float64 // seconds a step, smoothed
}

// Run does what a recipe says. It fails with ErrRecipe where that cannot be done, with ErrExists where
// out holds something and neither Force nor Resume is set, with ErrState where Resume finds another
// run's state, and with the context's error when that is cancelled, after saving a state.
//
// Several adapters are trained one after the other on one base in memory, each to the bytes of a run of
// its own. Resume takes up the one that was under way: those before it have their last step's state, and
// those after it none.
func Run(ctx context.Context, recipe Recipe, o Options) (*Result, error) {
	began := time.Now()
	if err := recipe.Validate(); err != nil {
		return nil, err
	}
	parts, err := recipe.parts()
	if err != nil {
		return nil, err
	}
	runs := make([]*run, len(parts))
	for i := range parts {
		if err := parts[i].checkPaths(); err != nil {
			return nil, err
		}
		if err := checkOut(&parts[i], o); err != nil {
			return nil, err
		}
		runs[i] = &run{recipe: &parts[i], options: o}
		if len(recipe.Adapters) > 0 {
			runs[i].name = recipe.Adapters[i].Name
		}
	}
	if threads := parts[0].Threads; threads > 0 {
		defer kernel.SetThreads(kernel.Threads())
		kernel.SetThreads(threads)
	}
	base, err := checkpoint.Open(parts[0].Model)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	largest, err := prepareAll(ctx, runs, base)
	if err != nil {
		return nil, err
	}
	if o.Planned != nil {
		o.Planned(largest)
	}
	m, err := loadBase(&parts[0], base)
	if err != nil {
		return nil, err
	}
	if len(recipe.Adapters) > 0 {
		if err := recipe.openSeveral(); err != nil {
			return nil, err
		}
	}
	all := &Result{Out: recipe.Out}
	for i, r := range runs {
		runs[i] = nil // so that the next has its memory
		began := time.Now()
		if err := r.start(m); err != nil {
			return nil, r.named(err)
		}
		if i == len(runs)-1 {
			m = nil // what full training releases, it would hold
		}
		result, err := r.run(ctx, began)
		if err != nil {
			return nil, r.named(err)
		}
		all.Each = append(all.Each, result)
		all.Steps, all.Tokens, all.Trained = all.Steps+result.Steps, all.Tokens+result.Tokens, all.Trained+result.Trained
	}
	all.Elapsed = time.Since(began)
	if len(recipe.Adapters) > 0 {
		return all, nil
	}
	all.Each[0].Elapsed = all.Elapsed
	return all.Each[0], nil
}

// run trains what is prepared, and writes it.
func (r *run) run(ctx context.Context, began time.Time) (*Result, error) {
	if err := r.open(); err != nil {
		return nil, err
	}
	defer r.metrics.Close()
	if err := r.loop(ctx); err != nil {
		return nil, err
	}
	result := r.result()
	result.Elapsed = time.Since(began)
	return result, r.finish(ctx, result)
}

func (r *run) note(text string) {
	r.tell(Event{Kind: Note, Text: text, Step: r.state.step, Total: r.total})
}

func (r *run) tell(e Event) {
	if e.Adapter = r.name; r.options.Progress != nil {
		r.options.Progress(e)
	}
}

// prepare reads what a plan needs. It writes nothing.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.recipe.Method == "full" {
		if err := checkBase(r.recipe, r.base); err != nil {
			return err
		}
	}
	if err := r.recipe.limitLength(r.base.Config().Context); err != nil {
		return err
	}
	if err := r.prepareData(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// start makes what is trained on a model in memory.
func (r *run) start(m *engine.Model) (err error) {
	o := engine.SessionOptions{Full: r.recipe.Method == "full", Remat: r.plan.RematBlocks, KeepLogits: r.plan.KeepLogits, Seed: uint64(r.recipe.Seed)}
	if !o.Full {
		if r.adapter, r.frozen, err = newAdapter(r.recipe, m); err != nil {
			return err
		}
		if err := r.identify(); err != nil {
			return err
		}
		o.Adapter, o.Frozen, o.Dropout = r.adapter, r.frozen, r.recipe.LoraDropout
	}
	if r.session, err = m.NewSession(o); err != nil {
		return err
	}
	r.optimizer = newOptimizer(r.session.Params())
	r.state = state{first: math.NaN(), last: math.NaN(), bestLoss: math.NaN()}
	if r.eval != nil {
		r.state.pending = &metrics{} // of step 0
	}
	if o.Full {
		r.note(fmt.Sprintf("%d steps; training all %d values of the model", r.total, r.optimizer.values()))
	} else {
		r.note(fmt.Sprintf("%d steps; training %d values in %d modules", r.total, r.optimizer.values(), len(r.adapter.Pairs)))
	}
	return nil
}

// identify puts down in the adapter what base it is trained on, and tells where it began on another.
func (r *run) identify() (err error) {
	if r.recipe.InitAdapter != "" {
		warning, err := r.base.SameBase(r.recipe.InitAdapter, r.adapter)
		if err != nil {
			return err
		}
		if warning != "" {
			r.note("warning: " + warning)
		}
	}
	r.adapter.Config.BaseModel = r.recipe.Model
	r.adapter.Config.BaseHash, err = checkpoint.Hash(r.base)
	return err
}

// prepareData reads, encodes and divides the data.
func (r *run) prepareData() error {
	e, err := newEncoder(r.recipe, r.base)
	if err != nil {
		return err
	}
	if r.train, err = load(r.recipe, e, r.recipe.Data, r.note); err != nil {
		return err
	}
	switch {
	case len(r.recipe.EvalData) > 0:
		if r.eval, err = load(r.recipe, e, r.recipe.EvalData, r.note); err != nil {
			return err
		}
	case r.recipe.Holdout > 0:
		if r.train, r.eval, err = split(r.recipe, r.train); err != nil {
			return err
		}
	}
	r.fingerprint = fingerprint(r.train, r.eval)
	if r.batches, err = dataset.NewBatches(r.train.lengths(), dataset.BatchOptions{Size: r.recipe.BatchSize, Pack: r.recipe.Packing == "examples",
		MaxLength: r.recipe.MaxLength, Shuffle: r.recipe.Shuffle, Seed: uint64(r.recipe.Seed)}); err != nil {
		return err
	}
	r.total = r.countSteps()
	return nil
}

// countSteps returns the number of steps of the whole run.
func (r *run) countSteps() int {
	if r.recipe.MaxSteps > 0 {
		return r.recipe.MaxSteps
	}
	accumulate := r.recipe.GradientAccumulationSteps
	steps := func(epoch int) int { return (len(r.batches.Epoch(epoch)) + accumulate - 1) / accumulate }
	whole, part := math.Modf(r.recipe.Epochs)
	if r.recipe.Packing != "examples" || !r.recipe.Shuffle {
		return max(1, int(math.Ceil(r.recipe.Epochs*float64(steps(0)))))
	}
	total := 0 // how well examples pack differs between epochs
	for e := range int(whole) {
		total += steps(e)
	}
	return max(1, total+int(math.Ceil(part*float64(steps(int(whole))))))
}

// open starts or resumes the run's folder.
func (r *run) open() error {
	resumed := false
	if r.options.Resume {
		var err error
		if resumed, err = r.restore(); err != nil {
			return err
		}
		if !resumed {
			r.note("there is no state to resume from; starting from the beginning")
		} else {
			r.note(fmt.Sprintf("resuming after step %d of %d", r.state.step, r.total))
		}
	}
	if !resumed {
		if err := clearOut(r.recipe); err != nil {
			return err
		}
		if err := os.MkdirAll(r.recipe.Out, 0o777); err != nil {
			return fmt.Errorf("train: making %q: %w", r.recipe.Out, err)
		}
	}
	tidy(r.recipe.Out)
	tidy(filepath.Join(r.recipe.Out, stateDir))
	r.sweepBest()
	if err := wholefile.WriteFile(filepath.Join(r.recipe.Out, recipeFile), r.recipe.YAML()); err != nil {
		return fmt.Errorf("train: writing recipe: %w", err)
	}
	r.session.SetPass(r.state.pass)
	written := r.state.step // the last step whose line is to be there
	if r.state.pending != nil {
		written--
	}
	var err error
	r.metrics, err = openMetrics(r.recipe.Out, !resumed, written)
	return err
}

// loop runs the steps that are left. A step is pending until its evaluation, where one is due, and
// its line of metrics are done.
func (r *run) loop(ctx context.Context) error {
	s := &r.state
	for {
		if s.pending != nil {
			if err := r.conclude(ctx); err != nil {
				return r.interrupted(err)
			}
		}
		if s.step >= r.total || s.stopped {
			return nil
		}
		m, err := r.step(ctx)
		if err != nil {
			return r.interrupted(err)
		}
		s.pending = m
	}
}

// conclude does what follows a step.
func (r *run) conclude(ctx context.Context) error {
	s := &r.state
	last := s.step == r.total
	every := func(n int) bool { return n > 0 && s.step%n == 0 }
	if r.eval != nil && (s.step == 0 || last || every(r.recipe.EvalSteps)) {
		if err := r.evaluate(ctx, s.pending); err != nil {
			return err
		}
	}
	if err := r.write(s.pending); err != nil {
		return err
	}
	s.pending = nil
	if last || s.stopped || every(r.recipe.SaveSteps) {
		return r.save()
	}
	return nil
}

// interrupted saves the state where cancelling ended the run.
func (r *run) interrupted(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		if saveErr := r.save(); saveErr != nil {
			return errors.Join(err, saveErr)
		}
	}
	return err
}

// take returns the batches of the next step, which do not run over the end of an epoch.
func (r *run) take() [][]int {
	c := &r.state.cursor
	if c.batches == nil {
		c.batches = r.batches.Epoch(c.epoch)
	}
	if c.next >= len(c.batches) {
		c.epoch, c.next = c.epoch+1, 0
		c.batches = r.batches.Epoch(c.epoch)
	}
	group := c.batches[c.next:min(c.next+r.recipe.GradientAccumulationSteps, len(c.batches))]
	c.next += len(group)
	return group
}

// step does one update. A step that is cancelled leaves the state as it was, but for gradients.
func (r *run) step(ctx context.Context) (*metrics, error) {
	began, before := time.Now(), r.state.cursor
	group := r.take()
	total := 0.0
	for _, batch := range group {
		total += r.train.weight(batch)
	}
	r.session.ZeroGrad()
	var f figures
	for _, batch := range group {
		err := ctx.Err()
		if err == nil {
			err = r.train.train(r.session, batch, total, &f)
		}
		if err != nil {
			r.state.cursor = before
			return nil, fmt.Errorf("train: step %d: %w", r.state.step+1, err)
		}
	}
	rate, norm, loss := r.recipe.rates(r.state.step, r.total), r.optimizer.norm(), f.mean()
	if math.IsNaN(loss+norm) || math.IsInf(loss+norm, 0) {
		return nil, fmt.Errorf("train: step %d: %w: the loss is %v and the gradient's norm %v; lower learning_rate or set max_grad_norm", r.state.step+1, ErrDiverged, loss, norm)
	}
	r.optimizer.clip(norm, r.recipe.MaxGradNorm)
	r.optimizer.update(r.recipe, rate, r.state.step+1)
	r.state.step++
	r.state.pass = r.session.Pass()
	r.state.tokens += int64(f.tokens)
	r.loss = loss

	took := time.Since(began).Seconds()
	speed := float64(f.tokens) / took
	if r.pace == 0 {
		r.pace = took
	}
	r.pace += 0.1 * (took - r.pace)
	m := &metrics{Step: r.state.step, Epoch: r.epoch(), Loss: &loss, LR: &rate.a, GradNorm: &norm, Tokens: f.tokens,
		TargetTokens: f.targets, TokensPerSecond: &speed, rewards: f.rewards()}
	if r.state.step%r.recipe.LoggingSteps == 0 || r.state.step == r.total {
		e := r.event(Step, m)
		e.Left = time.Duration(float64(r.total-r.state.step) * r.pace * float64(time.Second))
		r.tell(e)
	}
	return m, nil
}

// epoch is how many times the data has been seen.
func (r *run) epoch() float64 {
	c := &r.state.cursor
	if len(c.batches) == 0 {
		return float64(c.epoch)
	}
	return float64(c.epoch) + float64(c.next)/float64(len(c.batches))
}

func (r *run) event(kind Kind, m *metrics) Event {
	value := func(p *float64) float64 {
		if p == nil {
			return 0
		}
		return *p
	}
	e := Event{Kind: kind, Step: m.Step, Total: r.total, Epoch: m.Epoch, Loss: value(m.Loss), LR: value(m.LR), GradNorm: value(m.GradNorm),
		Tokens: m.Tokens, TokensPerSecond: value(m.TokensPerSecond), Accuracy: value(m.Accuracies)}
	if kind == Evaluated {
		e.EvalLoss, e.EvalPerplexity, e.Accuracy = value(m.EvalLoss), value(m.EvalPerplexity), value(m.EvalAccuracies)
	}
	return e
}

// evaluate measures on the data set aside, adds the figures to m, and keeps the best parameters.
func (r *run) evaluate(ctx context.Context, m *metrics) error {
	n := len(r.eval.lengths())
	indexes := make([]int, n)
	for i := range indexes {
		indexes[i] = i
	}
	var f figures
	for batch := range slices.Chunk(indexes, r.recipe.BatchSize) {
		err := ctx.Err()
		if err == nil {
			err = r.eval.evaluate(r.session, batch, &f)
		}
		if err != nil {
			return fmt.Errorf("train: evaluating after step %d: %w", r.state.step, err)
		}
	}
	loss := f.mean()
	m.EvalLoss = finite(loss)
	if f.pairs == 0 {
		m.EvalPerplexity = finite(math.Exp(loss))
	} else {
		w := f.rewards()
		m.evalRewards = evalRewards{w.Chosen, w.Rejected, w.Accuracies, w.Margins}
	}
	s := &r.state
	s.last = loss
	switch {
	case s.step == 0:
		s.first = loss
	case math.IsNaN(s.bestLoss) || loss < s.bestLoss:
		if err := r.keepBest(); err != nil {
			return err
		}
		s.bestLoss, s.bestStep, s.worse = loss, s.step, 0
		r.sweepBest()
	default:
		s.worse++
		s.stopped = r.recipe.EarlyStopping > 0 && s.worse >= r.recipe.EarlyStopping
	}
	r.tell(r.event(Evaluated, m))
	return nil
}
