package kernel

import (
	"fmt"
	"testing"

	"github.com/graftml/graft/internal/testspeed"
)

// This file holds the benchmarks of everything but the products by a dense or decoded
// weight (matmul_bench_test.go). What passes over its operands once reports GB/s and
// the fraction of what memory did right before; attention and the head GFLOP/s and the
// fraction of the micro-kernel's. Operands are larger than the caches. GRAFT_KERNEL
// chooses the implementation, as everywhere.

// many returns n values that repeat.
func many(n int) []float32 {
	x := make([]float32, n)
	for at := copy(x, normal(seeded(6), min(n, 1<<12))); at < n; {
		at += copy(x[at:], x[:at])
	}
	return x
}

// benchmarkBytes measures f, which has to move so many bytes, on one thread or, where it
// has several, on one and on all.
func benchmarkBytes(b *testing.B, name string, bytes int, parallel bool, f func()) {
	run := func(b *testing.B) {
		threads := 1
		if parallel {
			threads = Threads()
		}
		peak := testspeed.Memory(threads)
		for b.Loop() {
			f()
		}
		testspeed.ReportBytes(b, bytes, peak)
	}
	if parallel {
		forThreads(b, name, func() func(b *testing.B) { return run })
	} else {
		b.Run(name, run)
	}
}

// benchmarkFlops measures f, which needs so many floating-point operations.
func benchmarkFlops(flops float64, peakOf func() float64, f func()) func(b *testing.B) {
	return func(b *testing.B) {
		peak := peakOf()
		for b.Loop() {
			f()
		}
		testspeed.ReportFlops(b, flops, peak)
	}
}

// BenchmarkMemory is the other peak, beside BenchmarkPeak.
func BenchmarkMemory(b *testing.B) {
	forThreads(b, "peak", func() func(b *testing.B) {
		return func(b *testing.B) {
			best := 0.0
			for b.Loop() {
				best = max(best, testspeed.Memory(Threads()))
			}
			b.ReportMetric(best, "GB/s")
		}
	})
}

// BenchmarkRows is what a block does beside products and attention, on 4096 rows of
// SmolLM2-135M's gated unit, or of its stream and heads.
func BenchmarkRows(b *testing.B) {
	const rows, inner, heads, dim = 4096, 1536, 27, 64
	const n, c = rows * inner, heads * dim
	x := [5][]float32{many(n), many(n), many(n), many(n), many(n)}
	y, rstd, positions, ids := many(rows*c), make([]float32, rows), make([]int32, rows), make([]int32, rows)
	for i := range positions {
		positions[i], ids[i] = int32(i%1024), int32(i*37%rows)
	}
	cos, sin, w := many(1024*dim/2), many(1024*dim/2), many(inner)
	RMSNorm(F32Vec(x[0]), F32Vec(x[1]), w, rows, inner, 1e-5, rstd, 0)
	table := &Matrix{N: rows, K: inner, F32: x[3]}
	for _, f := range []struct {
		name   string
		passes int // over n values, read or written
		run    func()
	}{
		{"add", 3, func() { Add(x[0], x[1], x[2]) }},
		{"multiply", 3, func() { Multiply(x[0], x[1], x[2]) }},
		{"addscaled", 3, func() { AddScaled(x[0], x[1], 1e-3) }},
		{"scale", 2, func() { Scale(x[0], x[1], 0.5) }},
		{"exp", 2, func() { Exp(x[0], x[1]) }},
		{"rmsnorm", 2, func() { RMSNorm(F32Vec(x[0]), F32Vec(x[1]), w, rows, inner, 1e-5, rstd, 0) }},
		{"rmsnorm-backward", 3, func() { RMSNormBackward(F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]), w, rstd, rows, inner, 0, false, nil) }},
		{"swiglu", 3, func() { GLU(SiLU, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2])) }},
		{"swiglu-backward", 5, func() { GLUBackward(SiLU, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]), F32Vec(x[3]), F32Vec(x[4])) }},
		{"geglu", 3, func() { GLU(GELUTanh, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2])) }},
		{"geglu-backward", 5, func() { GLUBackward(GELUTanh, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]), F32Vec(x[3]), F32Vec(x[4])) }},
		{"dropout", 2, func() { Dropout(F32Vec(x[0]), F32Vec(x[1]), 0.1, 7) }},
		{"embed", 2, func() { EmbedRows(x[0], table, ids) }},
		{"embed-backward", 3, func() { EmbedBackward(x[0], x[1], ids, inner) }},
	} {
		benchmarkBytes(b, f.name, 4*n*f.passes, true, f.run)
	}
	benchmarkBytes(b, "rope", 2*4*len(y), true, func() { Rope(F32Vec(y), rows, heads, dim, positions, cos, sin, dim, false) })
	benchmarkBytes(b, "sumsquares", 4*n, false, func() { SumSquares(x[1]) })
	benchmarkBytes(b, "dot", 2*4*n, false, func() { Dot(x[1], x[2]) })
	benchmarkBytes(b, "logsumexp", 4*n, false, func() { LogSumExp(x[1]) })
	benchmarkBytes(b, "argmax", 4*n, false, func() { ArgMax(x[1]) })
}

func BenchmarkAdamW(b *testing.B) {
	const n = 1 << 23
	p, g, m, v := many(n), many(n), make([]float32, n), make([]float32, n)
	benchmarkBytes(b, "step", 7*4*n, true, func() { AdamW(p, g, m, v, 1e-4, 0.9, 0.999, 1e-8, 0.01, 10) })
}

// BenchmarkCode4 is NF4 in blocks of 64 on one thread.
func BenchmarkCode4(b *testing.B) {
	const n = 1 << 23
	x, q, absmax := many(n), make([]byte, n/2), make([]float32, n/64)
	Encode4(q, absmax, x, 64, testBook)
	benchmarkBytes(b, "encode", 4*n+n/2+n/16, false, func() { Encode4(q, absmax, x, 64, testBook) })
	benchmarkBytes(b, "decode", 4*n+n/2+n/16, false, func() { Decode4(x, q, absmax, 0, 64, testBook) })
}

func BenchmarkHalf(b *testing.B) {
	const n = 1 << 24
	x, h := many(n), make([]byte, 2*n)
	for _, f := range []struct {
		name   string
		passes int // bytes a value
		run    func()
	}{
		{"F16ToF32", 6, func() { F16ToF32(x, h) }}, {"F32ToF16", 6, func() { F32ToF16(h, x) }},
		{"BF16ToF32", 6, func() { BF16ToF32(x, h) }}, {"F32ToBF16", 6, func() { F32ToBF16(h, x) }},
		{"RoundF16", 8, func() { RoundF16(x) }}, {"RoundBF16", 8, func() { RoundBF16(x) }},
	} {
		benchmarkBytes(b, f.name, f.passes*n, false, f.run)
	}
}

// BenchmarkAttention is a layer of SmolLM2-135M on 1024 tokens. Operations are those that
// causal attention needs: 2 products forward, 5 backward.
func BenchmarkAttention(b *testing.B) {
	spec := AttentionSpec{Heads: 9, KVHeads: 3, HeadDim: 64, Scale: 0.125}
	q, k, v := many(1024*576), many(1024*192), many(1024*192)
	out, lse := make([]float32, len(q)), make([]float32, 1024*9)
	dq, dk, dv := make([]float32, len(q)), make([]float32, len(k)), make([]float32, len(k))
	hq, hk, hv, hout := halfVec(q), halfVec(k), halfVec(v), halfVec(out)
	hdq, hdk, hdv := halfVec(dq), halfVec(dk), halfVec(dv)
	for _, length := range []int{256, 1024} {
		seq := []int32{0}
		for at := length; at <= 1024; at += length {
			seq = append(seq, int32(at))
		}
		pairs := float64(1024/length) * float64(length) * float64(length+1) / 2
		flops := 2 * pairs * float64(spec.Heads*spec.HeadDim)
		for _, f := range []struct {
			name     string
			products float64
			peak     func() float64
			run      func()
		}{
			{"forward", 2, flopPeak, func() { Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(v), seq, spec) }},
			{"backward", 5, flopPeak, func() {
				AttentionBackward(F32Vec(dq), F32Vec(dk), F32Vec(dv), F32Vec(q), F32Vec(q), F32Vec(k), F32Vec(v), F32Vec(out), lse, seq, spec)
			}},
			{"forward-bf16", 2, halfPeak, func() { Attention(hout, lse, hq, hk, hv, seq, spec) }},
			{"backward-bf16", 5, halfPeak, func() { AttentionBackward(hdq, hdk, hdv, hq, hq, hk, hv, hout, lse, seq, spec) }},
		} {
			forThreads(b, fmt.Sprintf("%s/%dx%d", f.name, len(seq)-1, length), func() func(b *testing.B) {
				Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(v), seq, spec)
				return benchmarkFlops(f.products*flops, f.peak, f.run)
			})
		}
	}
}

// BenchmarkWindow is a sliding layer of Gemma 3 1B on 4096 tokens, and one like it that caps its scores
// as Gemma 2 does. Operations are those that queries need of the keys they see.
func BenchmarkWindow(b *testing.B) {
	const rows, window, d = 4096, 512, 256
	q, k, v := many(rows*4*d), many(rows*d), many(rows*d)
	out, lse := make([]float32, len(q)), make([]float32, rows*4)
	dq, dk, dv := make([]float32, len(q)), make([]float32, len(k)), make([]float32, len(k))
	hq, hk, hv, hout := halfVec(q), halfVec(k), halfVec(v), halfVec(out)
	hdq, hdk, hdv := halfVec(dq), halfVec(dk), halfVec(dv)
	seq := []int32{0, rows}
	flops := 2 * (float64(window)*(window+1)/2 + (rows-window)*window) * 4 * d
	for _, softcap := range []float32{0, 50} {
		spec := AttentionSpec{Heads: 4, KVHeads: 1, HeadDim: d, Scale: 0.0625, Window: window, Softcap: softcap}
		for _, f := range []struct {
			name     string
			products float64
			peak     func() float64
			run      func()
		}{
			{"forward", 2, flopPeak, func() { Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(v), seq, spec) }},
			{"backward", 5, flopPeak, func() {
				AttentionBackward(F32Vec(dq), F32Vec(dk), F32Vec(dv), F32Vec(q), F32Vec(q), F32Vec(k), F32Vec(v), F32Vec(out), lse, seq, spec)
			}},
			{"forward-bf16", 2, halfPeak, func() { Attention(hout, lse, hq, hk, hv, seq, spec) }},
			{"backward-bf16", 5, halfPeak, func() { AttentionBackward(hdq, hdk, hdv, hq, hq, hk, hv, hout, lse, seq, spec) }},
		} {
			forThreads(b, fmt.Sprintf("%s/softcap%v", f.name, softcap), func() func(b *testing.B) {
				Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(v), seq, spec)
				return benchmarkFlops(f.products*flops, f.peak, f.run)
			})
		}
	}
}

// BenchmarkAttentionCached is one token after 2047 in a layer of a 7B llama, whose keys and
// values come from memory.
func BenchmarkAttentionCached(b *testing.B) {
	spec := AttentionSpec{Heads: 32, KVHeads: 32, HeadDim: 128, Scale: 0.0884}
	q, out := many(4096), make([]float32, 4096)
	k, v := many(2048*4096), many(2048*4096)
	benchmarkBytes(b, "7b", 2*4*2048*4096, true, func() { AttentionCached(out, q, k, v, 1, 2047, 2048, spec) })
}

// BenchmarkCrossEntropy is the head with its loss on 1024 rows of SmolLM2-135M: products
// and softmax together, of which the products count.
func BenchmarkCrossEntropy(b *testing.B) {
	const rows, c, vocab = 1024, 576, 49152
	r := seeded(8)
	w := normal(r, vocab*c)
	head, half := &Matrix{N: vocab, K: c, F32: w}, &Matrix{N: vocab, K: c, BF16: make([]byte, 2*vocab*c), Half: true}
	F32ToBF16(half.BF16, w)
	h, dh, dhead, loss, lse := normal(r, rows*c), make([]float32, rows*c), make([]float32, vocab*c), make([]float32, rows), make([]float32, rows)
	Scale(h, h, 0.02)
	targets := make([]int32, rows)
	CrossEntropy(loss, lse, nil, nil, F32Vec(h), head, LogitSpec{}, targets)
	for _, f := range []struct {
		name     string
		products float64
		peak     func() float64
		run      func()
	}{
		{"loss", 1, flopPeak, func() { CrossEntropy(loss, nil, nil, nil, F32Vec(h), head, LogitSpec{}, targets) }},
		{"input", 2, flopPeak, func() { CrossEntropy(loss, nil, dh, nil, F32Vec(h), head, LogitSpec{}, targets) }},
		{"input-bf16", 2, halfPeak, func() { CrossEntropy(loss, nil, dh, nil, halfVec(h), half, LogitSpec{}, targets) }},
		{"head", 2, flopPeak, func() { HeadGradient(dhead, nil, F32Vec(h), head, LogitSpec{}, targets, lse, loss) }},
	} {
		forThreads(b, f.name, func() func(b *testing.B) { return benchmarkFlops(f.products*2*rows*c*vocab, f.peak, f.run) })
	}
}
