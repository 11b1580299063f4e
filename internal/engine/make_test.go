package engine

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/quantize"
)

// TestNewAdapterChangesNothing: whatever a new adapter holds, over weights of every kind, the model is
// the same before it is trained.
func TestNewAdapterChangesNothing(t *testing.T) {
	src, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	for name, load := range map[string]Options{"float32": {}, "nf4": {Quant: &quantize.Options4{Double: true}}, "bf16": {BF16: true}} {
		m, err := Load(src, load)
		if err != nil {
			t.Fatal(err)
		}
		b := someBatch(m, 14, 5)
		s := m.NewState()
		scores, err := s.Score(b)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(scores)
		for _, o := range []AdapterOptions{
			{Modules: modules(3, q0, down0, table, head), DoRA: true},
			{Modules: modules(3, q0, table, head), Bias: true},
			{Whole: []string{"lm_head.weight", table + ".weight", "model.norm.weight", q0 + ".weight"}},
			{Rows: map[string][]int{table: {5, 2, 11}}, Modules: modules(1, head)},
			{Modules: modules(2, table), TieWeights: true},
		} {
			a, err := m.MakeAdapter(o)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.AddAdapter("a", a); err != nil {
				t.Fatal(err)
			}
			if err := s.Use(Use{Name: "a"}); err != nil {
				t.Fatal(err)
			}
			got, err := s.Score(b)
			if err != nil {
				t.Fatal(err)
			}
			tol := 1e-6
			if load.BF16 {
				tol = 5e-3 // a gain of nearly one moves what is rounded
			}
			if load.Quant != nil && slices.Contains(o.Whole, q0+".weight") {
				tol = 1e-6 // the copy is of what 4 bits hold
			}
			if d := apart(got, want); !(d < tol) {
				t.Errorf("%s, %+v: losses apart by %v", name, o, d)
			}
		}
	}
}

// TestTableInit: PEFT's reset_lora_parameters makes A of a table zero and B standard normal.
func TestTableInit(t *testing.T) {
	m := named(t, "llama")
	a, err := m.MakeAdapter(AdapterOptions{Modules: modules(32, table), Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	p := a.Pair(table)
	var sum, square float64
	for _, v := range p.B {
		sum += float64(v)
		square += float64(v) * float64(v)
	}
	n := float64(len(p.B))
	if mean, deviation := sum/n, math.Sqrt(square/n); math.Abs(mean) > 4/math.Sqrt(n) || math.Abs(deviation-1) > 4/math.Sqrt(2*n) {
		t.Errorf("mean %v and deviation %v of %v values", mean, deviation, n)
	}
	if slices.ContainsFunc(p.A, func(v float32) bool { return v != 0 }) || !p.Table {
		t.Error("A is not zero, or the pair no table's")
	}
}

func TestMakeAdapterRefuses(t *testing.T) {
	m := named(t, "llama")
	for want, o := range map[string]AdapterOptions{
		"model.norm":            {Modules: modules(2, "model.norm")},
		"model.nothing":         {Whole: []string{"model.nothing"}},
		"row 100000":            {Rows: map[string][]int{table: {100000}}},
		"row -1":                {Rows: map[string][]int{table: {-1}}},
		"named twice":           {Rows: map[string][]int{table: {1, 1}}},
		"rows of other modules": {Rows: map[string][]int{q0: {1}}},
		"changes nothing":       {},
	} {
		if _, err := m.MakeAdapter(o); !errors.Is(err, ErrAdapter) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one about %q", o, err, want)
		}
	}
	for want, o := range map[string]AdapterOptions{
		"a pair and is trained as a whole":       {Modules: modules(2, q0), Whole: []string{q0 + ".weight"}},
		"trained rows and is trained as a whole": {Rows: map[string][]int{table: {1}}, Whole: []string{table + ".weight"}},
		"set dropout to 0":                       {Modules: modules(2, head), DoRA: true},
	} {
		a, err := m.MakeAdapter(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.NewSession(SessionOptions{Adapter: a, Dropout: 0.1}); !errors.Is(err, ErrAdapter) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one about %q", o, err, want)
		}
	}
	both := adapters.Adapter{Pairs: []adapters.Pair{{Module: q0, R: 1, In: 64, Out: 64, A: make([]float32, 64), B: make([]float32, 64), Scale: 1,
		Bias: make([]float32, 64), Magnitude: make([]float32, 64)}}}
	if err := m.AddAdapter("both", &both); !errors.Is(err, ErrAdapter) {
		t.Errorf("DoRA with a bias: %v", err)
	}
	s, err := m.NewSession(SessionOptions{Adapter: drawn(t, m, "x", AdapterOptions{Modules: modules(2, q0)})})
	if err != nil {
		t.Fatal(err)
	}
	b := someBatch(m, 4)
	b.Uses = [][]Use{nil}
	if _, _, err := s.Loss(b); !errors.Is(err, ErrBatch) {
		t.Errorf("choices in training: %v", err)
	}
}
