package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// drawn makes an adapter whose values come from a name.
func drawn(t *testing.T, m *Model, name string, o AdapterOptions) *adapters.Adapter {
	t.Helper()
	a, err := m.MakeAdapter(o)
	if err != nil {
		t.Fatal(err)
	}
	a.Name = name
	fill := func(what string, x []float32, by float32) {
		kernel.AddScaled(x, testmodel.Weights(name+"."+what, model.KindLinear, len(x)), by)
	}
	for i := range a.Pairs {
		p := &a.Pairs[i]
		fill(p.Module+".A", p.A, 0.5)
		fill(p.Module+".B", p.B, 0.5)
		fill(p.Module+".bias", p.Bias, 1)
		fill(p.Module+".m", p.Magnitude, 1)
	}
	for i := range a.Whole {
		fill(a.Whole[i].Name, a.Whole[i].Data, 0.5)
	}
	for i := range a.Rows {
		fill(a.Rows[i].Module, a.Rows[i].Data, 1)
	}
	return a
}

func modules(r int, names ...string) (out []ModuleOptions) {
	for _, name := range names {
		out = append(out, ModuleOptions{name, r, 1.5})
	}
	return out
}

const (
	q0    = "model.layers.0.self_attn.q_proj"
	gate1 = "model.layers.1.mlp.gate_proj"
	up0   = "model.layers.0.mlp.up_proj"
	down0 = "model.layers.0.mlp.down_proj"
	table = "model.embed_tokens"
	head  = "lm_head"
)

// hold adds adapters to a model.
func hold(t *testing.T, m *Model, options map[string]AdapterOptions) {
	t.Helper()
	for name, o := range options {
		if err := m.AddAdapter(name, drawn(t, m, name, o)); err != nil {
			t.Fatal(err)
		}
	}
}

// kinds are adapters that differ in what they hold.
var kinds = map[string]AdapterOptions{
	"plain": {Modules: modules(3, q0, gate1, down0)},
	"dora":  {Modules: modules(2, q0, down0, table, head), DoRA: true},
	"ends":  {Modules: modules(4, table, head)},
	"bias":  {Modules: modules(2, q0, head), Bias: true},
	"whole": {Modules: modules(2, gate1), Whole: []string{"lm_head.weight", "model.norm.weight", "model.layers.1.mlp.up_proj.weight"}},
	"rows":  {Modules: modules(2, q0), Rows: map[string][]int{table: {3, 9, 40}}},
}

// TestMixedBatch: a batch whose sequences use different adapters gives what each gives alone.
func TestMixedBatch(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	for _, half := range []bool{false, true} {
		forEachImpl(t, func(t *testing.T) {
			m, err := Load(src, Options{BF16: half})
			if err != nil {
				t.Fatal(err)
			}
			hold(t, m, kinds)
			lists := [][]Use{{}, {{Name: "plain"}}, {{Name: "plain"}}}
			for _, name := range m.Adapters() {
				lists = append(lists, []Use{{Name: name}})
			}
			lists = append(lists, []Use{{"plain", 0.5}, {"dora", 2}}, nil, []Use{{Name: "rows"}})
			var seqs [][]int32
			for i := range lists {
				seqs = append(seqs, testmodel.Tokens(fmt.Sprint("mixed", i), 5+3*i%7, m.config.Vocab))
			}
			b := pack(seqs, all)
			b.Uses = lists
			s := m.NewState()
			got, err := s.Score(b)
			if err != nil {
				t.Fatal(err)
			}
			got = slices.Clone(got)
			logits, err := s.EvalBatch(Batch{Tokens: b.Tokens, Seq: b.Seq, Uses: b.Uses})
			if err != nil {
				t.Fatal(err)
			}
			logits = slices.Clone(logits)
			tol := 2e-6
			if half {
				tol = 1e-2 // sums are rounded to 8 bits before what an adapter adds, too
			}
			for i, uses := range lists {
				if err := s.Use(uses...); err != nil {
					t.Fatal(err)
				}
				scores, err := s.Score(pack(seqs[i:i+1], all))
				if err != nil {
					t.Fatal(err)
				}
				want := slices.Clone(scores)
				if d := apart(got[:len(want)], want); !(d < tol) {
					t.Errorf("sequence %d with %v: losses apart by %v", i, uses, d)
				}
				got = got[len(want):]
				last, err := s.Eval(seqs[i])
				if err != nil {
					t.Fatal(err)
				}
				if d := apart(logits[:len(last)], last); !(d < tol) {
					t.Errorf("sequence %d with %v: logits apart by %v", i, uses, d)
				}
				logits = logits[len(last):]
				if err := s.Use(); err != nil {
					t.Fatal(err)
				}
				if scores, err = s.Score(pack(seqs[i:i+1], all)); err != nil {
					t.Fatal(err)
				}
				if d := apart(scores, want); len(uses) > 0 && d < 1e-3 {
					t.Errorf("sequence %d: %v changes losses by %v", i, uses, d)
				}
			}
			b.Uses = b.Uses[1:]
			if _, err := s.Score(b); !errors.Is(err, ErrBatch) {
				t.Errorf("too few choices: %v", err)
			}
			b.Uses = append(b.Uses, []Use{{Name: "no such"}})
			if _, err := s.Score(b); !errors.Is(err, ErrAdapter) {
				t.Errorf("no such adapter: %v", err)
			}
		})
	}
}

// changed is a source as adapters change it.
type changed struct {
	checkpoint.Source
	change *adapters.Change
}

func (c changed) Rows(name string, lo, hi int, dst []float32) error {
	if err := c.Source.Rows(name, lo, hi, dst); err != nil {
		return err
	}
	c.change.Apply(name, lo, hi, dst)
	return nil
}

// TestTogether: adapters in use together, whole and scaled, give what the model gives into which they
// are merged.
func TestTogether(t *testing.T) {
	g := readGolden(t, "full_bias") // a head of its own, and biases for those of pairs to go to
	c, err := model.ParseConfig(g.Config)
	if err != nil {
		t.Fatal(err)
	}
	src, err := testmodel.New(c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	base, err := checkpoint.Base(c)
	if err != nil {
		t.Fatal(err)
	}
	options := map[string]AdapterOptions{
		"plain": {Modules: modules(3, q0, down0, table, head)},
		"dora":  {Modules: modules(2, q0, down0, table, head), DoRA: true},
		"more":  {Modules: modules(4, q0, up0, head, table), DoRA: true},
		"bias":  {Modules: modules(2, q0, up0), Bias: true},
		"rows":  {Rows: map[string][]int{table: {3, 9, 40}, head: {5}}, Whole: []string{"model.norm.weight", q0 + ".bias"}},
		"whole": {Whole: []string{"lm_head.weight", q0 + ".weight"}},
		"other": {Whole: []string{"lm_head.weight"}},
		"row":   {Rows: map[string][]int{table: {9}}},
	}
	hold(t, m, options)
	for _, uses := range [][]Use{
		{{Name: "plain"}}, {{Name: "dora"}}, {{Name: "rows"}}, {{Name: "whole"}}, {{Name: "bias"}},
		{{"dora", 0.5}}, {{"bias", 2}},
		{{Name: "dora"}, {Name: "more"}}, {{Name: "plain"}, {"dora", 0.7}, {"more", 1.2}, {Name: "bias"}},
		{{Name: "plain"}, {Name: "dora"}, {Name: "rows"}}, {{Name: "whole"}, {Name: "more"}, {Name: "bias"}},
	} {
		var list []*adapters.Adapter
		for _, u := range uses {
			a := drawn(t, m, u.Name, options[u.Name])
			for i := range a.Pairs {
				if u.Scale != 0 {
					a.Pairs[i].Scale *= u.Scale
				}
			}
			list = append(list, a)
		}
		change, err := adapters.NewChange(base, src.Rows, list...)
		if err != nil {
			t.Fatal(err)
		}
		merged, err := Load(changed{src, change}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		b := someBatch(m, 12, 7)
		want, err := merged.NewState().Score(b)
		if err != nil {
			t.Fatal(err)
		}
		s := m.NewState()
		if err := s.Use(uses...); err != nil {
			t.Fatal(err)
		}
		got, err := s.Score(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := apart(got, want); !(d < 1e-5) {
			t.Errorf("%v: losses apart by %v from those of the merged model", uses, d)
		}
	}
	for _, uses := range [][]Use{{{Name: "whole"}, {Name: "other"}}, {{Name: "rows"}, {Name: "row"}}} {
		if err := m.NewState().Use(uses...); !errors.Is(err, ErrAdapter) {
			t.Errorf("%v, which replace the same: %v", uses, err)
		}
	}
}

// TestSwapsUnderLoad: while adapters are added, replaced and removed, every answer is exactly that of an
// adapter that had the name, and one that is taken away fails by name only.
func TestSwapsUnderLoad(t *testing.T) {
	m := named(t, "llama")
	hold(t, m, kinds)
	b := someBatch(m, 9)
	answer := func(s *State, uses ...Use) ([]float32, error) {
		if err := s.Use(uses...); err != nil {
			return nil, err
		}
		nll, err := s.Score(b)
		if err != nil {
			return nil, err
		}
		nll = slices.Clone(nll)
		logits, err := s.Eval(b.Tokens)
		return slices.Concat(nll, logits), err
	}
	// Versions of one name, and what each answers.
	const versions, swaps = 3, 50
	var list []*adapters.Adapter
	var answers [][]float32
	for v := range versions {
		a := drawn(t, m, fmt.Sprint("version", v), AdapterOptions{Modules: modules(2, q0, table, head), DoRA: v%2 == 0, Whole: []string{"model.norm.weight"}})
		if err := m.AddAdapter("swapped", a); err != nil {
			t.Fatal(err)
		}
		got, err := answer(m.NewState(), Use{Name: "swapped"})
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(answers, func(a []float32) bool { return slices.Equal(a, got) }) {
			t.Fatal("two versions give the same answer")
		}
		list, answers = append(list, a), append(answers, got)
	}
	want, err := answer(m.NewState(), Use{Name: "ends"})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	stop, errs := make(chan struct{}), make(chan error, 4)
	for worker := range 4 {
		group.Go(func() {
			s := m.NewState()
			for i := worker; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if i%3 == 0 {
					if got, err := answer(s, Use{Name: "ends"}); err != nil || !slices.Equal(got, want) {
						errs <- fmt.Errorf("an adapter that stays: another answer, or %v", err)
						return
					}
					continue
				}
				got, err := answer(s, Use{Name: "swapped"})
				if errors.Is(err, ErrAdapter) {
					continue
				}
				if err != nil || !slices.ContainsFunc(answers, func(a []float32) bool { return slices.Equal(a, got) }) {
					errs <- fmt.Errorf("an adapter that is swapped: an answer of none, or %v", err)
					return
				}
				// The state keeps what it has chosen, whatever becomes of the name.
				if again, err := s.Score(b); err != nil || !slices.Equal(again, got[:len(again)]) {
					errs <- fmt.Errorf("a state that has chosen: another answer, or %v", err)
					return
				}
			}
		})
	}
	for i := range swaps {
		if err := m.AddAdapter("swapped", list[i%versions]); err != nil {
			t.Fatal(err)
		}
		got, err := answer(m.NewState(), Use{Name: "swapped"})
		if err != nil || !slices.Equal(got, answers[i%versions]) {
			t.Fatalf("swap %d: another answer than that of the adapter that was asked for, or %v", i, err)
		}
		if i%10 == 9 {
			if err := m.RemoveAdapter("swapped"); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	group.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
