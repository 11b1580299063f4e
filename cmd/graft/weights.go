package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/inspect"
	"github.com/graftml/graft/quantize"
)

// tensorError is how far a tensor of B is from A's. A text shows what a model does with its weights,
// but not a row it never reads, nor a damage that drowns in the rounding to 4 bits.
type tensorError struct {
	Name  string  `json:"name"`
	Row   int     `json:"row"`            // of the largest error
	Error float64 `json:"relative_error"` // of the row: ‖b−a‖ / ‖a‖, but for rows much smaller than the others
	Limit float64 `json:"limit"`          // what rounding to B's type explains
	// NotFinite tells that the row holds NaN or an infinity, in one of the two.
	NotFinite bool `json:"not_finite,omitempty"`
}

func (e tensorError) passed() bool { return !e.NotFinite && e.Error <= e.Limit }

func (e tensorError) String() string {
	if e.Name == "" {
		return "none"
	}
	if e.NotFinite {
		return fmt.Sprintf("not finite in row %d of %s", e.Row, e.Name)
	}
	return fmt.Sprintf("%.3g in row %d of %s (limit %.3g)", e.Error, e.Row, e.Name, e.Limit)
}

// compareWeights compares the tensors of two models, adapters merged, and returns the one that is
// furthest past its limit, or else nearest to it.
func compareWeights(ctx context.Context, a, b origin) (*tensorError, error) {
	ma, err := a.merged()
	if err != nil {
		return nil, err
	}
	defer ma.Close()
	mb, err := b.merged()
	if err != nil {
		return nil, err
	}
	defer mb.Close()
	limits, err := weightLimits(ma, mb, len(a.adapters) == 0 && a.round == nil)
	if err != nil {
		return nil, err
	}
	bar := newProgress("comparing tensors")
	tensors, err := inspect.Compare(ctx, ma, mb, func(t checkpoint.Tensor) float64 { return limits[t.Name].floor }, bar.update)
	bar.finish()
	if err != nil {
		return nil, err
	}
	worst := &tensorError{Limit: storage{codec: "F32"}.weightLimit()}
	for _, t := range tensors {
		e := tensorError{Name: t.Name, Limit: limits[t.Name].error}
		switch {
		case t.Error.NotFinite > 0:
			e.Row, e.NotFinite = t.Error.FirstNotFinite/max(1, t.Shape[len(t.Shape)-1]), true
		case len(t.Error.Worst) > 0:
			e.Row, e.Error = t.Error.Worst[0].Row, t.Error.Worst[0].Error
		}
		if worst.NotFinite {
			continue
		}
		if e.NotFinite || e.Error/e.Limit > worst.Error/worst.Limit {
			worst = &e
		}
	}
	return worst, nil
}

// tensorLimit is what may be between a tensor and the one it was made from.
type tensorLimit struct {
	error float64 // relative error of a row
	floor float64 // see inspect.Compare
}

// weightLimits are the limits of b's tensors, where they are made from a's. Same tells that one of the
// same type must be the same.
func weightLimits(a, b *checkpoint.Checkpoint, same bool) (map[string]tensorLimit, error) {
	was := map[string]storage{}
	for _, t := range a.Tensors() {
		var err error
		if was[t.Name], err = storageOf(a, t); err != nil {
			return nil, err
		}
	}
	limits := map[string]tensorLimit{}
	for _, t := range b.Tensors() {
		is, err := storageOf(b, t)
		if err != nil {
			return nil, err
		}
		// A row of very small weights pays for the others: in a block it shares with its neighbour, in
		// scales of float16, in scales quantized together.
		l := tensorLimit{is.weightLimit(), 0.04}
		if cols := t.Shape[len(t.Shape)-1]; is.block > 0 && cols%is.block != 0 {
			l.floor = 1
		}
		if was[t.Name] == is && same {
			l.error = storage{codec: "F32"}.weightLimit()
		}
		limits[t.Name] = l
	}
	return limits, nil
}

// origin is a model that runs, is compared or is made into another.
type origin struct {
	path     string
	adapters []string           // on it, as arguments name them
	round    *quantize.Options4 // the products inside its blocks are rounded to 4 bits first
}

// open opens the model without its adapters.
func (o origin) open() (*checkpoint.Checkpoint, error) {
	m, err := openCheckpoint(o.path)
	if err != nil || o.round == nil {
		return m, err
	}
	r, err := checkpoint.Rounded(m, *o.round)
	if err != nil {
		m.Close()
		return nil, err
	}
	return r, nil
}

// merged opens the model with its adapters in its weights.
func (o origin) merged() (*checkpoint.Checkpoint, error) {
	m, err := o.open()
	if err != nil || len(o.adapters) == 0 {
		return m, err
	}
	merged, err := mergeInto(m, o.adapters)
	if err != nil {
		m.Close()
		return nil, err
	}
	return merged, nil
}

// storage is how the numbers of a tensor are kept.
type storage struct {
	codec  string
	block  int  // weights a scale, of the 4-bit codecs
	double bool // their scales are quantized too
}

func storageOf(m *checkpoint.Checkpoint, t checkpoint.Tensor) (storage, error) {
	s := storage{codec: t.Codec}
	q, err := m.Scales4(t.Name)
	if q != nil {
		s.block, s.double = q.BlockSize, q.Double()
	}
	return s, err
}

// weightLimit is the relative error of a row that rounding can explain: about twice what it does to
// the weights of published models, and below 1, which a row of zeros has.
func (s storage) weightLimit() float64 {
	switch s.codec {
	case "F32", "F64":
		return 1e-5
	case "F16":
		return 1e-3
	case "BF16":
		return 5e-3
	case "Q8_0":
		return 0.02
	}
	if s.block > 64 {
		return 0.95 // one large weight coarsens a whole block
	}
	for _, coarse := range []string{"IQ1", "IQ2", "TQ", "GPTQ2", "INT2"} {
		if strings.HasPrefix(s.codec, coarse) {
			return 0.98 // two bits and fewer: rows of llama.cpp's own are off by up to 0.95
		}
	}
	return 0.5
}

// klLimit is the mean divergence, in nats a token, that rounding can explain.
func (s storage) klLimit() float64 {
	switch s.codec {
	case "F32", "F64", "":
		return sameLimit
	case "F16":
		return 1e-3
	case "BF16":
		return 0.01
	case "Q8_0":
		return 0.02
	}
	return 1
}
