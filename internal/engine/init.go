package engine

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/graftml/graft/adapters"
)

// This file fills new pairs, as PEFT's init_lora_weights says.

// CheckInit reports a value of AdapterOptions.Init that is not known.
func CheckInit(init string) error {
	if n, ok := strings.CutPrefix(init, "pissa_niter_"); ok {
		if k, err := strconv.Atoi(n); err == nil && k >= 1 && k <= 1000 {
			return nil
		}
	}
	switch init {
	case "", "true", "false", "gaussian", "orthogonal", "pissa", "olora":
		return nil
	}
	return fmt.Errorf("%q: this version has true, false, gaussian, orthogonal, pissa, pissa_niter_N and olora", init)
}

// InitTakes reports whether pairs filled so begin with a part of the weight itself, which then is to be
// taken out of it; see SessionOptions.Frozen.
func InitTakes(init string) bool { return strings.HasPrefix(init, "pissa") || init == "olora" }

// fill gives a pair its first values. Those of a table are PEFT's default but with "false".
func (m *Model) fill(p *adapters.Pair, place int, all AdapterOptions) error {
	rng := newRandom(all.Seed, p.Module)
	normal := func(x []float32, deviation float64) {
		for i := range x {
			x[i] = float32(rng.normal() * deviation)
		}
	}
	uniform := func(x []float32, bound float64) {
		for i := range x {
			x[i] = float32((2*rng.float64() - 1) * bound)
		}
	}
	switch {
	case p.Table:
		normal(p.B, 1)
		if all.Init == "false" {
			normal(p.A, 1)
		}
	case all.Init == "gaussian":
		normal(p.A, 1/float64(p.R))
	case all.Init == "orthogonal":
		return orthogonal(p, &rng)
	case InitTakes(all.Init):
		if all.DoRA {
			return fmt.Errorf("%q begins with DoRA and with %s: choose one", p.Module, all.Init)
		}
		return m.take(p, place, all.Init)
	default:
		uniform(p.A, 1/math.Sqrt(float64(p.In)))
		if all.Init == "false" { // as torch fills every linear layer
			uniform(p.B, 1/math.Sqrt(float64(p.R)))
		}
	}
	return nil
}

// orthogonal makes B·A zero with neither of them: the rows of A and the columns of B lie in spaces that
// are orthogonal, spanned by alternate rows of an orthogonal matrix.
func orthogonal(p *adapters.Pair, rng *random) error {
	r := p.R
	if r%2 != 0 {
		return fmt.Errorf("orthogonal start of %q: rank %d is odd, and half of the directions are A's", p.Module, r)
	}
	q := adapters.RandomOrthogonal(r, rng.normal) // (r, r)
	mix := func(n, first int, put func(i, j int, v float32)) {
		for i := range n {
			sum := make([]float64, r)
			for k := first; k < r; k += 2 {
				x := rng.normal() / 10
				for j := range sum {
					sum[j] += x * q[k*r+j]
				}
			}
			for j, v := range sum {
				put(i, j, float32(v))
			}
		}
	}
	mix(p.In, 0, func(i, j int, v float32) { p.A[j*p.In+i] = v })
	mix(p.Out, 1, func(i, j int, v float32) { p.B[i*r+j] = v })
	return nil
}

// take makes the pair the leading part of the weight it stands on.
func (m *Model) take(p *adapters.Pair, place int, init string) (err error) {
	if place == m.graph.HeadPlace() {
		return fmt.Errorf("%q begins with %s, which is for products inside blocks; leave it out of the targets, or choose orthogonal", p.Module, init)
	}
	w := make([]float32, p.Out*p.In)
	readExact(&m.at(place).Matrix, w, 0, p.Out)
	if init == "olora" {
		p.B, p.A, err = adapters.Leading(w, p.Out, p.In, p.R)
		return err
	}
	iterations := 0
	if n, ok := strings.CutPrefix(init, "pissa_niter_"); ok {
		if iterations, err = strconv.Atoi(n); err != nil {
			return err
		}
	}
	p.B, p.A, err = adapters.Principal(w, p.Out, p.In, p.R, p.Scale, iterations)
	return err
}
