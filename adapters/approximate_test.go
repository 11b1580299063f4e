package adapters

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

// At full rank an approximation is what it stands for, on every kind of weight; below it its error is the
// one reported.
func TestApproximate(t *testing.T) {
	b := newTiny(false)
	plain := b.pair(1, "lm_head", 2, false)
	a := &Adapter{Name: "a", Pairs: []Pair{b.pair(2, "q", 3, true), plain}, Whole: []Tensor{{"embed_tokens.weight", []int{11, 6}, slices.Clone(b.params["lm_head.weight"])}}}
	want, err := NewChange(b.base(), b.rows, a)
	if err != nil {
		t.Fatal(err)
	}
	for _, rank := range []int{2, 6} {
		got, report, err := a.Approximate(context.Background(), b.base(), b.rows, rank, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Whole)+len(got.Rows) != 0 || len(got.Pairs) != 3 || len(report) != 2 {
			t.Fatalf("%d pairs, %d reports", len(got.Pairs), len(report))
		}
		if d, _ := Distance(&Adapter{Pairs: []Pair{plain}}, &Adapter{Pairs: []Pair{*got.Pair("lm_head")}}); d != 0 {
			t.Errorf("the plain pair changed by %v", d)
		}
		c, err := NewChange(b.base(), b.rows, got)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report {
			name := r.Module + ".weight"
			x, y, own := b.apply(want, name, 100), b.apply(c, name, 100), b.params[name]
			var missing, all float64
			for i := range x {
				missing += math.Pow(float64(x[i]-y[i]), 2)
				all += math.Pow(float64(x[i]-own[i]), 2)
			}
			lost := math.Sqrt(missing / all)
			if math.Abs(lost-r.Residual) > 1e-3 || rank == 6 && lost > 1e-5 || rank == 2 && lost < 0.01 {
				t.Errorf("rank %d, %s: %v is lost, reported is %v", rank, r.Module, lost, r.Residual)
			}
		}
	}
	norm := &Adapter{Name: "n", Whole: []Tensor{{"norm.weight", []int{6}, make([]float32, 6)}}}
	if _, _, err := norm.Approximate(context.Background(), b.base(), b.rows, 2, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a norm: error %v", err)
	}
}

func TestDistance(t *testing.T) {
	b := newTiny(false)
	p := b.pair(1, "q", 2, true)
	p.Scale = 2
	a := &Adapter{Pairs: []Pair{p, b.pair(2, "embed_tokens", 1, false)}, Rows: []TokenRows{{"lm_head", []int{3}, 2, []float32{1, 2}}}, Whole: []Tensor{{"norm.weight", []int{2}, []float32{1, 2}}}}
	if d, where := Distance(a, a); d != 0 || where != "" {
		t.Errorf("from itself: %v in %q", d, where)
	}
	same := *a
	same.Pairs = slices.Clone(a.Pairs)
	same.Pairs[0] = *widened(&p, 5)
	same.Pairs[0].B = scaledBy(same.Pairs[0].B, 2)
	same.Pairs[0].Scale = 1
	if d, where := Distance(a, &same); d > 1e-12 {
		t.Errorf("of a higher rank and another scale: %v in %q", d, where)
	}
	for what, change := range map[string]func(*Adapter){
		"q":            func(x *Adapter) { x.Pairs[0].B = slices.Clone(p.B); x.Pairs[0].B[1] += 0.01 },
		"embed_tokens": func(x *Adapter) { x.Pairs = x.Pairs[:1] },
		"lm_head":      func(x *Adapter) { x.Rows = []TokenRows{{"lm_head", []int{3}, 2, []float32{1, 2.1}}} },
		"norm.weight":  func(x *Adapter) { x.Whole = nil },
	} {
		other := *a
		other.Pairs = slices.Clone(a.Pairs)
		change(&other)
		if d, where := Distance(a, &other); !(d > 1e-4) || where != what {
			t.Errorf("%s: %v in %q", what, d, where)
		}
	}
}
