package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// attentionRef is attention and its gradient in float64, by definition.
type attentionRef struct {
	AttentionSpec
	seq        []int32
	q, k, v    []float64
	out, lse   []float64
	dq, dk, dv []float64
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// each calls f for every query row and head with the key rows it sees.
func (r *attentionRef) each(f func(i, h, lo, hi int)) {
	for s := range len(r.seq) - 1 {
		for i := int(r.seq[s]); i < int(r.seq[s+1]); i++ {
			lo := int(r.seq[s])
			if r.Window > 0 {
				lo = max(lo, i-r.Window+1)
			}
			for h := range r.Heads {
				f(i, h, lo, i+1)
			}
		}
	}
}

// probabilities are the softmax weights of query i of head h.
func (r *attentionRef) probabilities(i, h, lo, hi int) (p []float64, lse float64) {
	d, g := r.HeadDim, h/(r.Heads/r.KVHeads)
	m := math.Inf(-1)
	for j := lo; j < hi; j++ {
		s := 0.0
		for x := range d {
			s += r.q[(i*r.Heads+h)*d+x] * r.k[(j*r.KVHeads+g)*d+x]
		}
		s *= float64(r.Scale)
		if c := float64(r.Softcap); c != 0 {
			s = c * math.Tanh(s/c)
		}
		p = append(p, s)
		m = max(m, p[len(p)-1])
	}
	sum := 0.0
	for _, s := range p {
		sum += math.Exp(s - m)
	}
	lse = m + math.Log(sum)
	for j := range p {
		p[j] = math.Exp(p[j] - lse)
	}
	return p, lse
}

func (r *attentionRef) forward() {
	rows := int(r.seq[len(r.seq)-1])
	r.out, r.lse = make([]float64, len(r.q)), make([]float64, rows*r.Heads)
	r.each(func(i, h, lo, hi int) {
		p, lse := r.probabilities(i, h, lo, hi)
		r.lse[h*rows+i] = lse
		for j := lo; j < hi; j++ {
			for x := range r.HeadDim {
				r.out[(i*r.Heads+h)*r.HeadDim+x] += p[j-lo] * r.v[(j*r.KVHeads+h/(r.Heads/r.KVHeads))*r.HeadDim+x]
			}
		}
	})
}

func (r *attentionRef) backward(dout []float64) {
	d := r.HeadDim
	r.dq, r.dk, r.dv = make([]float64, len(r.q)), make([]float64, len(r.k)), make([]float64, len(r.v))
	r.each(func(i, h, lo, hi int) {
		p, lse := r.probabilities(i, h, lo, hi)
		at, g := (i*r.Heads+h)*d, h/(r.Heads/r.KVHeads)
		dp, mean := make([]float64, len(p)), 0.0
		for j := range p {
			kv := ((lo+j)*r.KVHeads + g) * d
			for x := range d {
				dp[j] += dout[at+x] * r.v[kv+x]
				r.dv[kv+x] += p[j] * dout[at+x]
			}
			mean += p[j] * dp[j]
		}
		for j := range p {
			kv, ds := ((lo+j)*r.KVHeads+g)*d, p[j]*(dp[j]-mean)*float64(r.Scale)
			if c := float64(r.Softcap); c != 0 {
				t := (math.Log(p[j]) + lse) / c
				ds *= 1 - t*t
			}
			for x := range d {
				r.dq[at+x] += ds * r.k[kv+x]
				r.dk[kv+x] += ds * r.q[at+x]
			}
		}
	})
}

// TestAttentionReference: the reference's gradient is that of its own forward.
func TestAttentionReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, softcap := range []float32{0, 1.5} {
		attentionReference(t, rng, AttentionSpec{Heads: 4, KVHeads: 2, HeadDim: 3, Scale: 0.7, Window: 4, Softcap: softcap})
	}
}

func attentionReference(t *testing.T, rng *rand.Rand, spec AttentionSpec) {
	r := attentionRef{AttentionSpec: spec, seq: []int32{0, 6, 6, 9}}
	r.q, r.k, r.v = widen(randoms(rng, 9*12, 1)), widen(randoms(rng, 9*6, 1)), widen(randoms(rng, 9*6, 1))
	dout := widen(randoms(rng, 9*12, 1))
	r.backward(dout)
	value := func() float64 {
		r.forward()
		s := 0.0
		for i := range dout {
			s += dout[i] * r.out[i]
		}
		return s
	}
	for name, pair := range map[string][2][]float64{"q": {r.q, r.dq}, "k": {r.k, r.dk}, "v": {r.v, r.dv}} {
		for i := range pair[0] {
			const h = 1e-5
			old := pair[0][i]
			pair[0][i] = old + h
			up := value()
			pair[0][i] = old - h
			down := value()
			pair[0][i] = old
			if d := (up - down) / (2 * h); math.Abs(d-pair[1][i]) > 1e-8 {
				t.Fatalf("d%s[%d] = %v, finite difference %v", name, i, pair[1][i], d)
			}
		}
	}
}

// TestAttention compares forward and backward with the reference over shapes
// that cross every tile edge, with guard bands around every output.
func TestAttention(t *testing.T) {
	cases := []struct {
		spec    AttentionSpec
		lengths []int
	}{
		{AttentionSpec{1, 1, 1, 1, 0, 0}, []int{1, 2, 0, 3}},
		{AttentionSpec{4, 2, 8, 0.5, 0, 0}, []int{47, 48, 49}},
		{AttentionSpec{3, 1, 64, 0.125, 0, 0}, []int{97, 1, 150}},
		{AttentionSpec{2, 2, 20, 0.3, 0, 0}, []int{5, 193}},
		{AttentionSpec{2, 1, 80, 0.1, 30, 0}, []int{200, 29, 31}},
		{AttentionSpec{2, 1, 16, 0.3, 1, 0}, []int{120}},
		{AttentionSpec{2, 1, 128, 0.1, 97, 0}, []int{230}},
		{AttentionSpec{6, 2, 7, 0.4, 0, 0}, []int{6, 12, 95, 96}},
		{AttentionSpec{4, 2, 40, 0.2, 0, 2}, []int{97, 1, 150}},
		{AttentionSpec{4, 1, 24, 0.3, 60, 1.5}, []int{200, 59, 60, 61}},
		{AttentionSpec{2, 2, 16, 0.3, 10, 0}, []int{500}}, // most tiles lie before the window
	}
	for i, c := range cases {
		rng := rand.New(rand.NewPCG(2, uint64(i)))
		seq := []int32{0}
		for _, n := range c.lengths {
			seq = append(seq, seq[len(seq)-1]+int32(n))
		}
		rows := int(seq[len(seq)-1])
		nq, nk := rows*c.spec.Heads*c.spec.HeadDim, rows*c.spec.KVHeads*c.spec.HeadDim
		q, k, v, dout := randoms(rng, nq, 2), randoms(rng, nk, 1), randoms(rng, nk, 1), randoms(rng, nq, 1)
		r := attentionRef{AttentionSpec: c.spec, seq: seq, q: widen(q), k: widen(k), v: widen(v)}
		r.forward()
		r.backward(widen(dout))
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			forEachImpl(t, func(t *testing.T) {
				var outs [5][]float32
				for j, n := range [...]int{nq, rows * c.spec.Heads, nq, nk, nk} {
					var check func()
					outs[j], check = guarded(t, n, j)
					defer check()
				}
				Attention(F32Vec(outs[0]), outs[1], F32Vec(q), F32Vec(k), F32Vec(v), seq, c.spec)
				AttentionBackward(F32Vec(outs[2]), F32Vec(outs[3]), F32Vec(outs[4]), F32Vec(dout), F32Vec(q), F32Vec(k), F32Vec(v), F32Vec(outs[0]), outs[1], seq, c.spec)
				near(t, "out", outs[0], narrow(r.out), 2e-6)
				near(t, "lse", outs[1], narrow(r.lse), 2e-6)
				near(t, "dq", outs[2], narrow(r.dq), 1e-5)
				near(t, "dk", outs[3], narrow(r.dk), 1e-5)
				near(t, "dv", outs[4], narrow(r.dv), 1e-5)
				inPlace := append([]float32(nil), q...)
				Attention(F32Vec(inPlace), nil, F32Vec(inPlace), F32Vec(k), F32Vec(v), seq, c.spec)
				near(t, "in place", inPlace, outs[0], 0)
			})
		})
	}
}

// TestAttentionHalf compares attention of bfloat16 with the reference on the same values.
func TestAttentionHalf(t *testing.T) {
	cases := []struct {
		spec    AttentionSpec
		lengths []int
	}{
		{AttentionSpec{1, 1, 32, 0.2, 0, 0}, []int{1, 2, 0, 3}},
		{AttentionSpec{4, 2, 32, 0.2, 0, 0}, []int{47, 48, 49, 95, 96, 97}},
		{AttentionSpec{3, 1, 64, 0.125, 0, 0}, []int{97, 1, 150, 9}},
		{AttentionSpec{2, 2, 96, 0.1, 30, 0}, []int{200, 29, 31}},
		{AttentionSpec{2, 1, 64, 0.125, 1, 0}, []int{120, 7}},
		{AttentionSpec{2, 1, 128, 0.09, 97, 0}, []int{230}},
		{AttentionSpec{2, 1, 80, 0.1, 0, 0}, []int{150}}, // not in pairs
		{AttentionSpec{4, 2, 64, 0.125, 0, 2}, []int{97, 1, 150, 9}},
		{AttentionSpec{2, 1, 32, 0.2, 40, 1.5}, []int{200, 39, 40, 41}},
		{AttentionSpec{2, 2, 32, 0.2, 10, 0}, []int{400}},
	}
	for i, c := range cases {
		rng := rand.New(rand.NewPCG(3, uint64(i)))
		seq := []int32{0}
		for _, n := range c.lengths {
			seq = append(seq, seq[len(seq)-1]+int32(n))
		}
		rows := int(seq[len(seq)-1])
		nq, nk := rows*c.spec.Heads*c.spec.HeadDim, rows*c.spec.KVHeads*c.spec.HeadDim
		q, k, v, dout := rounded(randoms(rng, nq, 2)), rounded(randoms(rng, nk, 1)), rounded(randoms(rng, nk, 1)), rounded(randoms(rng, nq, 1))
		r := attentionRef{AttentionSpec: c.spec, seq: seq, q: widen(q), k: widen(k), v: widen(v)}
		r.forward()
		r.backward(widen(dout))
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			forEachHalf(t, func(t *testing.T) {
				out, lse := halfVec(make([]float32, nq)), make([]float32, rows*c.spec.Heads)
				dq, dk, dv := halfVec(make([]float32, nq)), halfVec(make([]float32, nk)), halfVec(make([]float32, nk))
				for range 2 { // the second time on what the first left in scratch memory
					Attention(out, lse, halfVec(q), halfVec(k), halfVec(v), seq, c.spec)
					AttentionBackward(dq, dk, dv, halfVec(dout), halfVec(q), halfVec(k), halfVec(v), out, lse, seq, c.spec)
				}
				near(t, "lse", lse, narrow(r.lse), 3e-6)
				for _, x := range []struct {
					name string
					got  Vec
					want []float64
				}{{"out", out, r.out}, {"dq", dq, r.dq}, {"dk", dk, r.dk}, {"dv", dv, r.dv}} {
					e, size, got := 0.0, 0.0, x.got.values32()
					for i, w := range x.want {
						size = max(size, math.Abs(w))
						e = max(e, math.Abs(float64(got[i])-w))
					}
					if !(e <= 0.012*size+0.02) { // where gradients cancel, the rounding of out shows
						t.Errorf("%s is apart by %g, its largest value is %g", x.name, e, size)
					}
				}
			})
		})
	}
}

// TestAttentionGolden compares with PyTorch's scaled_dot_product_attention.
func TestAttentionGolden(t *testing.T) {
	cases := map[string]struct {
		spec AttentionSpec
		seq  []int32
	}{
		"packed": {AttentionSpec{4, 2, 8, 0.3, 0, 0}, []int32{0, 5, 66, 67, 80}},
		"window": {AttentionSpec{3, 1, 5, 0.3, 9, 0}, []int32{0, 70}},
	}
	forEachImpl(t, func(t *testing.T) {
		for name, c := range cases {
			rows := int(c.seq[len(c.seq)-1])
			nq, nk := rows*c.spec.Heads*c.spec.HeadDim, rows*c.spec.KVHeads*c.spec.HeadDim
			q, k, v, dout := values(1, nq), values(2, nk), values(3, nk), values(4, nq)
			for _, x := range [][]float32{q, k, v} {
				Scale(x, x, 3)
			}
			out, lse := make([]float32, nq), make([]float32, rows*c.spec.Heads)
			dq, dk, dv := make([]float32, nq), make([]float32, nk), make([]float32, nk)
			Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(v), c.seq, c.spec)
			AttentionBackward(F32Vec(dq), F32Vec(dk), F32Vec(dv), F32Vec(dout), F32Vec(q), F32Vec(k), F32Vec(v), F32Vec(out), lse, c.seq, c.spec)
			for part, got := range map[string][]float32{"out": out, "dq": dq, "dk": dk, "dv": dv} {
				near(t, name+" "+part, got, golden(t, "attention/"+name+"/"+part), 2e-6)
			}
		}
	})
}

// TestAttentionCached: new rows against a cache give what the whole sequence
// gives at once, for chunks of every path.
func TestAttentionCached(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for i, window := range []int{0, 1, 33} {
			rng := rand.New(rand.NewPCG(3, 3))
			const rows, capacity = 230, 250
			spec := AttentionSpec{Heads: 6, KVHeads: 2, HeadDim: 24, Scale: 0.2, Window: window, Softcap: float32(i) * 0.7}
			q, k, v := randoms(rng, rows*144, 1), randoms(rng, rows*48, 1), randoms(rng, rows*48, 1)
			want := make([]float32, len(q))
			Attention(F32Vec(want), nil, F32Vec(q), F32Vec(k), F32Vec(v), []int32{0, rows}, spec)
			kc, vc := make([]float32, 2*capacity*24), make([]float32, 2*capacity*24)
			for i := range kc {
				kc[i], vc[i] = canary, canary // unused rows must not matter
			}
			for r := range rows {
				for h := range 2 {
					copy(kc[(h*capacity+r)*24:][:24], k[r*48+h*24:])
					copy(vc[(h*capacity+r)*24:][:24], v[r*48+h*24:])
				}
			}
			past := 0
			for _, n := range []int{1, 3, 60, 1, 7, 8, 100, 50} {
				out, check := guarded(t, n*144, 1)
				AttentionCached(out, q[past*144:(past+n)*144], kc, vc, n, past, capacity, spec)
				check()
				near(t, fmt.Sprintf("window %d, %d rows after %d", window, n, past), out, want[past*144:(past+n)*144], 2e-6)
				past += n
			}
			if past != rows {
				t.Fatal("rows left over")
			}
		}
	})
}

// TestWeigh: weighted sums of rows are those of one row after the other, bit for bit, of any width.
func TestWeigh(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 5))
		for _, cols := range []int{0, 1, 7, 8, 16, 24, 64, 72, 80, 128, 200, 256} {
			for _, n := range []int{0, 1, 2, 33, 300} {
				ld := cols + n%3
				v, w, want := randoms(rng, n*ld+cols, 1), randoms(rng, n, 1), make([]float32, cols)
				for j, s := range w {
					vecAxpy(want, v[j*ld:][:cols], s)
				}
				out, check := guarded(t, cols, 1)
				vecWeigh(out, v[:max(0, (n-1)*ld+cols)], ld, w)
				check()
				if !slices.Equal(out, want) {
					t.Fatalf("%d rows of %d: %v, want %v", n, cols, out, want)
				}
			}
		}
	})
}

// TestAttentionNaN: a NaN reaches the queries that see it and no others.
func TestAttentionNaN(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		const rows, at = 130, 50
		for _, window := range []int{0, 30} {
			rng := rand.New(rand.NewPCG(4, 4))
			spec := AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: 16, Scale: 0.25, Window: window}
			q, k, v, out := randoms(rng, rows*16, 1), randoms(rng, rows*16, 1), randoms(rng, rows*16, 1), make([]float32, rows*16)
			k[at*16+3] = float32(math.NaN())
			Attention(F32Vec(out), nil, F32Vec(q), F32Vec(k), F32Vec(v), []int32{0, 120, rows}, spec)
			for i := range rows {
				bad := out[i*16] != out[i*16]
				if want := i >= at && i < 120 && (window == 0 || i < at+window); bad != want {
					t.Fatalf("window %d, row %d: NaN %v, want %v", window, i, bad, want)
				}
			}
		}
	})
}

// TestRowsOfScores: the rows that one call computes are those computed one by one, wherever the tile
// lies from the queries and whatever lies in the keys that are not seen.
func TestRowsOfScores(t *testing.T) {
	if maxImpl < avx512 {
		t.Skip("no AVX-512")
	}
	defer setHalf(pairs)()
	rng := rand.New(rand.NewPCG(5, 5))
	for _, level := range []halfLevel{widened, pairs} {
		for _, c := range [][4]int{{0, 48, 0, 0}, {0, 1, 0, 0}, {96, 30, 0, 0}, {96, 48, 96, 0}, {144, 48, 96, 0}, {480, 17, 96, 0}, {480, 48, 384, 60}, {480, 48, 480, 60}, {480, 48, 480, 1}, {100, 48, 96, 3}} {
			first := c[2]
			spec := AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: 32, Scale: 0.3, Window: c[3]}
			b := block{span: &span{n: c[0] + c[1]}, first: c[0], n: c[1]}
			scores, dp := randoms(rng, qRows*kTile, 9), randoms(rng, qRows*kTile, 1)
			for i := range b.n {
				lo, hi := b.visible(i, first, spec.Window)
				for j := range kTile {
					if j < lo || j >= hi {
						scores[i*kTile+j], dp[i*kTile+j] = float32(math.NaN()), float32(math.Inf(1))
					}
				}
			}
			o, sum, largest := randoms(rng, qRows*32, 1), randoms(rng, qRows, 1), randoms(rng, qRows, 3)
			lse, delta := randoms(rng, qRows, 9), randoms(rng, qRows, 1)
			run := func(impl string) (all []float32) {
				restore, err := SetImpl(impl)
				if err != nil {
					t.Fatal(err)
				}
				defer restore()
				clone := func(x []float32) []float32 { return append([]float32(nil), x...) }
				values := func(x []float32) []float32 {
					if level == widened {
						return x
					}
					return HalfVec(x, 2*len(x)).values32()
				}
				f := forwardTask{plan: plan{spec: spec, padded: 32, level: level}}
				fs := &forwardScratch{s: clone(scores), o: clone(o), p: make([]float32, qRows*kPairs)}
				copy(fs.max[:], largest)
				copy(fs.sum[:], sum)
				f.softmax(fs, &b, first, 0.7)
				weights := fs.s[:b.n*kTile]
				if level != widened {
					weights = fs.p[:b.n*kPairs]
				}
				all = append(append(append(values(weights), fs.o[:b.n*32]...), fs.max[:b.n]...), fs.sum[:b.n]...)
				back := backwardTask{plan: f.plan, lse: clone(lse)}
				bs := &backwardScratch{p: clone(scores), dp: clone(dp), words: make([]float32, qRows*kPairs), slopes: make([]float32, qRows*kPairs)}
				copy(bs.delta[:], delta)
				back.lse = append(make([]float32, b.first), back.lse...)
				back.slopes(bs, &b, 0, first, 0.7, 0.3)
				p, ds := bs.p[:b.n*kTile], bs.dp[:b.n*kTile]
				if level != widened {
					p, ds = bs.words[:b.n*kPairs], bs.slopes[:b.n*kPairs]
				}
				return append(append(all, values(p)...), values(ds)...)
			}
			got, want := run("avx512"), run("avx2")
			limit := 2e-6
			if level != widened {
				limit = 0.008 // a step of bfloat16
			}
			for i, w := range want {
				if d := math.Abs(float64(got[i] - w)); !(d <= limit*math.Max(math.Abs(float64(w)), 1e-3)) {
					t.Fatalf("%v, case %v: value %d is %g, row by row %g", level, c, i, got[i], w)
				}
			}
		}
	}
}
