package kernel

import "testing"

// TestVectorsStayInside runs the primitives on slices that end, or begin, at a
// page that must not be touched: masked tails may not read past them either.
func TestVectorsStayInside(t *testing.T) {
	forEachImpl(t, func(t *testing.T) {
		for _, front := range []bool{false, true} {
			for _, n := range []int{1, 3, 7, 8, 9, 15, 16, 17, 33, 63, 67} {
				x := make([][]float32, 5)
				for i := range x {
					x[i] = fenced(t, n, front)
				}
				Add(x[0], x[1], x[2])
				Multiply(x[0], x[1], x[2])
				AddScaled(x[0], x[1], 2)
				Scale(x[0], x[1], 2)
				Exp(x[0], x[1])
				vecMulAxpy(x[0], x[1], x[2], 2)
				vecSubMul(x[0], x[1], 2)
				RMSNorm(F32Vec(x[0]), F32Vec(x[1]), x[2], 1, n, 1e-5, nil, 0)
				for _, acc := range []bool{false, true} {
					RMSNormBackward(F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]), x[3], []float32{1}, 1, n, 0, acc, x[4])
				}
				GLU(SiLU, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]))
				GLUBackward(SiLU, F32Vec(x[0]), F32Vec(x[1]), F32Vec(x[2]), F32Vec(x[3]), F32Vec(x[4]))
				vecRotate(x[0], x[1], x[2], x[3], 1)
				AdamW(x[0], x[1], x[2], x[3], 1e-3, 0.9, 0.99, 1e-8, 0.1, 1)
				clear(x[0])
				if s := vecExpSum(x[1], x[0], 0); s != float32(n) {
					t.Fatalf("Σ e⁰ of %d is %v", n, s)
				}
				if Dot(x[0], x[0]) != 0 || SumSquares(x[0]) != 0 || vecMax(x[0]) != 0 {
					t.Fatalf("n=%d: a reduction of zeros is not zero", n)
				}
			}
			for _, d := range []int{1, 8, 13} {
				q, k := fenced(t, 20*d, front), fenced(t, 20*d, front)
				out, lse := fenced(t, 20*d, front), fenced(t, 20, front)
				dq, dk, dv := fenced(t, 20*d, front), fenced(t, 20*d, front), fenced(t, 20*d, front)
				spec := AttentionSpec{Heads: 1, KVHeads: 1, HeadDim: d, Scale: 1}
				Attention(F32Vec(out), lse, F32Vec(q), F32Vec(k), F32Vec(k), []int32{0, 7, 20}, spec)
				AttentionBackward(F32Vec(dq), F32Vec(dk), F32Vec(dv), F32Vec(out), F32Vec(q), F32Vec(k), F32Vec(k), F32Vec(out), lse, []int32{0, 7, 20}, spec)
				AttentionCached(out, q, k, k, 20, 0, 20, spec)
				AttentionCached(out[:d], q[:d], k, k, 1, 19, 20, spec)
			}
		}
	})
}
