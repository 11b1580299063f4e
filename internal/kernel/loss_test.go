package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// lossRef is the loss of each row, its logits' gradient with coefficient coef,
// and from it dh and dhead, in float64.
func lossRef(h, head []float32, spec LogitSpec, targets []int32, coef []float32, c, vocab int) (loss, dh, dhead []float64) {
	dh, dhead = make([]float64, len(h)), make([]float64, len(head))
	for i, target := range targets {
		x, m := make([]float64, vocab), math.Inf(-1)
		for v := range x {
			for j := range c {
				x[v] += float64(h[i*c+j]) * float64(head[v*c+j])
			}
			if spec.Scale != 0 {
				x[v] *= float64(spec.Scale)
			}
			if limit := float64(spec.Softcap); limit != 0 {
				x[v] = limit * math.Tanh(x[v]/limit)
			}
			m = max(m, x[v])
		}
		sum := 0.0
		for _, s := range x {
			sum += math.Exp(s - m)
		}
		loss = append(loss, m+math.Log(sum)-x[target])
		for v := range x {
			g := math.Exp(x[v]-m) / sum
			if v == int(target) {
				g--
			}
			if spec.Scale != 0 {
				g *= float64(spec.Scale)
			}
			if limit := float64(spec.Softcap); limit != 0 {
				g *= 1 - x[v]/limit*x[v]/limit
			}
			for j := range c {
				dh[i*c+j] += float64(coef[i]) * g * float64(head[v*c+j])
				dhead[v*c+j] += float64(coef[i]) * g * float64(h[i*c+j])
			}
		}
	}
	return loss, dh, dhead
}

// TestCrossEntropy compares with float64 over row counts around the chunk, for
// a dense and a decoded head, with and without weights and gradients.
func TestCrossEntropy(t *testing.T) {
	for i, x := range []struct {
		p    int
		spec LogitSpec
	}{{p: 0}, {p: 1}, {p: 3}, {p: 130}, {p: lossRows + 5}, {130, LogitSpec{Scale: 0.3}}, {3, LogitSpec{Softcap: 2}}, {lossRows + 5, LogitSpec{Scale: 1.7, Softcap: 1.5}}} {
		p, spec := x.p, x.spec
		const c, vocab, scale = 10, 3100, 0.25 // two pieces of the vocabulary for the longest
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		h, w, weight := randoms(rng, p*c, 1), randoms(rng, vocab*c, 1), randoms(rng, p, 1)
		targets, coef := make([]int32, p), make([]float32, p)
		for i := range targets {
			targets[i] = int32(rng.IntN(vocab))
			coef[i] = weight[i] * scale
		}
		loss64, dh64, dhead64 := lossRef(h, w, spec, targets, coef, c, vocab)
		wantLoss, wantDh, wantDhead := narrow(loss64), narrow(dh64), narrow(dhead64)
		twice := make([]float32, len(wantDhead))
		Scale(twice, wantDhead, 2)
		dense := &Matrix{N: vocab, K: c, F32: w}
		decoded := &Matrix{N: vocab, K: c, Decode: func(dst []float32, lo, hi int) { copy(dst, w[lo*c:hi*c]) }}
		forEachImpl(t, func(t *testing.T) {
			heads := []*Matrix{dense, decoded}
			if p > lossRows && spec.Softcap != 0 {
				heads = heads[:1] // a tanh of each logit is slow, and the softcap above had both
			}
			for _, head := range heads {
				loss, checkLoss := guarded(t, p, 1)
				dh, checkDh := guarded(t, p*c, 2)
				dhead := make([]float32, vocab*c)
				CrossEntropy(loss, nil, nil, nil, F32Vec(h), head, spec, targets)
				near(t, "loss alone", loss, wantLoss, 2e-6)
				lse := make([]float32, p)
				CrossEntropy(loss, lse, dh, nil, F32Vec(h), head, spec, targets)
				near(t, "loss", loss, wantLoss, 2e-6)
				for i := range coef {
					Scale(dh[i*c:(i+1)*c], dh[i*c:(i+1)*c], coef[i])
				}
				near(t, "dh", dh, wantDh, 2e-6)
				HeadGradient(dhead, nil, F32Vec(h), head, spec, targets, lse, coef)
				near(t, "dhead", dhead, wantDhead, 5e-6)
				HeadGradient(dhead, nil, F32Vec(h), head, spec, targets, lse, coef)
				near(t, "dhead of both calls", dhead, twice, 5e-6) // it is added to
				keptLogits(t, h, head, spec, targets, lse, coef, loss, dhead)
				checkLoss()
				checkDh()
			}
		})
	}
}

// keptLogits: with logits that were kept, results are the same bits.
func keptLogits(t *testing.T, h []float32, head *Matrix, spec LogitSpec, targets []int32, lse, coef, loss, twice []float32) {
	t.Helper()
	p, vocab := len(targets), head.N
	kept, checkKept := guarded(t, p*vocab, 1)
	dh, keptDh := make([]float32, len(h)), make([]float32, len(h))
	keptLoss, keptLse, dhead := make([]float32, p), make([]float32, p), make([]float32, len(twice))
	CrossEntropy(loss, lse, dh, nil, F32Vec(h), head, spec, targets)
	for range 2 {
		CrossEntropy(keptLoss, keptLse, keptDh, kept, F32Vec(h), head, spec, targets)
		HeadGradient(dhead, kept, F32Vec(h), head, spec, targets, keptLse, coef)
	}
	checkKept()
	sameBits(t, "loss with kept logits", keptLoss, loss)
	sameBits(t, "lse with kept logits", keptLse, lse)
	sameBits(t, "dh with kept logits", keptDh, dh)
	sameBits(t, "dhead with kept logits", dhead, twice)
}

// TestLogits: logits are those of the reference, whatever is done to the products.
func TestLogits(t *testing.T) {
	const p, c, vocab = 7, 12, 310
	rng := rand.New(rand.NewPCG(5, 5))
	h, w := randoms(rng, p*c, 1), randoms(rng, vocab*c, 1)
	for _, spec := range []LogitSpec{{}, {Scale: 0.3}, {Scale: 1.7, Softcap: 2}} {
		want := make([]float32, p*vocab)
		for i := range want {
			x := 0.0
			for j := range c {
				x += float64(h[i/vocab*c+j]) * float64(w[i%vocab*c+j])
			}
			x *= float64(spec.scale())
			if limit := float64(spec.Softcap); limit != 0 {
				x = limit * math.Tanh(x/limit)
			}
			want[i] = float32(x)
		}
		forEachImpl(t, func(t *testing.T) {
			got, check := guarded(t, p*vocab, 3)
			Logits(got, F32Vec(h), p, &Matrix{N: vocab, K: c, F32: w}, spec)
			check()
			near(t, "logits", got, want, 2e-6)
		})
	}
}

// TestCrossEntropyDifference: dh is the slope of the float64 loss.
func TestCrossEntropyDifference(t *testing.T) {
	const p, c, vocab, step = 3, 5, 40, 1e-3
	spec := LogitSpec{Scale: 0.7, Softcap: 1.2}
	rng := rand.New(rand.NewPCG(2, 2))
	h, w, ones := randoms(rng, p*c, 1), randoms(rng, vocab*c, 1), []float32{1, 1, 1}
	targets := []int32{7, 0, 39}
	dh, loss := make([]float32, p*c), make([]float32, p)
	CrossEntropy(loss, nil, dh, nil, F32Vec(h), &Matrix{N: vocab, K: c, F32: w}, spec, targets)
	for i := range h {
		at := func(v float32) float64 {
			old := h[i]
			h[i] = v
			defer func() { h[i] = old }()
			l, _, _ := lossRef(h, w, spec, targets, ones, c, vocab)
			return l[i/c]
		}
		up, down := h[i]+step, h[i]-step
		if d := (at(up) - at(down)) / float64(up-down); math.Abs(d-float64(dh[i])) > 1e-5 {
			t.Fatalf("dh[%d] = %v, finite difference %v", i, dh[i], d)
		}
	}
}

// TestCrossEntropyExtremes: huge logits give finite losses, and a NaN stays in
// its row.
func TestCrossEntropyExtremes(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		const vocab = 70
		head := &Matrix{N: vocab, K: 1, F32: make([]float32, vocab)}
		for i := range head.F32 {
			head.F32[i] = float32(i)
		}
		h, loss, dh := []float32{1e6, float32(math.NaN()), -1e30}, make([]float32, 3), make([]float32, 3)
		CrossEntropy(loss, nil, dh, nil, F32Vec(h), head, LogitSpec{}, []int32{vocab - 1, 0, 0})
		if loss[0] != 0 || dh[0] != 0 || loss[1] == loss[1] || dh[1] == dh[1] || loss[2] != 0 || dh[2] != 0 {
			t.Fatalf("loss %v, dh %v", loss, dh)
		}
	})
}

// TestCrossEntropyGolden compares with PyTorch.
func TestCrossEntropyGolden(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		h, w, weight, targets := values(11, 9*16), values(12, 310*16), values(13, 9), make([]int32, 9)
		Scale(w, w, 4)
		for i := range targets {
			targets[i] = int32(i * 167 % 310)
		}
		loss, lse, dh, dhead := make([]float32, 9), make([]float32, 9), make([]float32, 9*16), make([]float32, 310*16)
		head := &Matrix{N: 310, K: 16, F32: w}
		CrossEntropy(loss, lse, dh, nil, F32Vec(h), head, LogitSpec{}, targets)
		Scale(weight, weight, 0.125)
		for i := range weight {
			Scale(dh[i*16:(i+1)*16], dh[i*16:(i+1)*16], weight[i])
		}
		HeadGradient(dhead, nil, F32Vec(h), head, LogitSpec{}, targets, lse, weight)
		near(t, "nll", loss, golden(t, "loss/nll"), 1e-6)
		near(t, "dh", dh, golden(t, "loss/dh"), 1e-6)
		near(t, "dhead", dhead, golden(t, "loss/dhead"), 1e-6)
	})
}
