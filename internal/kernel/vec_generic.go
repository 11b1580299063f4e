package kernel

import "math"

// This file holds the plain Go form of every vector primitive: the reference
// the assembly is tested against, and what runs where there is none. The
// primitives work on one vector in the calling goroutine; lengths have been
// checked. vec_amd64.go and vec_other.go choose the form.

func vecAddGeneric(dst, a, b []float32) {
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func vecMulGeneric(dst, a, b []float32) {
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

// vecAxpyGeneric: dst += s·x.
func vecAxpyGeneric(dst, x []float32, s float32) {
	for i := range dst {
		dst[i] += s * x[i]
	}
}

// vecWeighGeneric: out = w·V, V (len(w), len(out)) with rows ld values apart.
func vecWeighGeneric(out, v []float32, ld int, w []float32) {
	clear(out)
	for j, s := range w {
		vecAxpy(out, v[j*ld:][:len(out)], s)
	}
}

// vecScaleGeneric: dst = s·x.
func vecScaleGeneric(dst, x []float32, s float32) {
	for i := range dst {
		dst[i] = s * x[i]
	}
}

// vecMulAxpyGeneric: dst += s·a∘b.
func vecMulAxpyGeneric(dst, a, b []float32, s float32) {
	for i := range dst {
		dst[i] += s * a[i] * b[i]
	}
}

// vecSubMulGeneric: dst = dst∘(x − s).
func vecSubMulGeneric(dst, x []float32, s float32) {
	for i := range dst {
		dst[i] *= x[i] - s
	}
}

// vecDotGeneric sums in four lanes, as a long single chain of float32 sums
// would lose digits.
func vecDotGeneric(a, b []float32) float32 {
	var s [4]float32
	for i := range a {
		s[i&3] += a[i] * b[i]
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func vecSumSquaresGeneric(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// vecMaxGeneric is the largest element; of NaN it says nothing.
func vecMaxGeneric(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

func vecExpGeneric(dst, x []float32) {
	for i, v := range x {
		dst[i] = exp32(v)
	}
}

// vecExpSumGeneric: dst = exp(x − s); returns Σ dst.
func vecExpSumGeneric(dst, x []float32, s float32) float32 {
	sum := 0.0
	for i, v := range x {
		dst[i] = exp32(v - s)
		sum += float64(dst[i])
	}
	return float32(sum)
}

// vecSoftcapGeneric: dst = c·tanh(x/c).
func vecSoftcapGeneric(dst, x []float32, c float32) {
	for i, v := range x {
		dst[i] = c * float32(math.Tanh(float64(v/c)))
	}
}

// vecSoftcapBackGeneric: dst = (dst − s)∘(1 − (x/c)²), x being capped: the second factor
// is the derivative there.
func vecSoftcapBackGeneric(dst, x []float32, c, s float32) {
	for i, v := range x {
		t := v / c
		dst[i] = (dst[i] - s) * (1 - t*t)
	}
}

// vecNormGeneric: y = (x·r)∘(w + off).
func vecNormGeneric(y, x, w []float32, r, off float32) {
	for i := range y {
		y[i] = x[i] * r * (w[i] + off)
	}
}

// vecNormDotGeneric: Σ dy∘(w + off)∘x.
func vecNormDotGeneric(dy, x, w []float32, off float32) float32 {
	sum := 0.0
	for i := range dy {
		sum += float64(dy[i] * (w[i] + off) * x[i])
	}
	return float32(sum)
}

// vecNormBackGeneric: dx = r·dy∘(w + off) − k·x.
func vecNormBackGeneric(dx, dy, x, w []float32, r, k, off float32) {
	for i := range dx {
		dx[i] = r*dy[i]*(w[i]+off) - k*x[i]
	}
}

// vecNormBackAddGeneric: dx += r·dy∘(w + off) − k·x.
func vecNormBackAddGeneric(dx, dy, x, w []float32, r, k, off float32) {
	for i := range dx {
		dx[i] += r*dy[i]*(w[i]+off) - k*x[i]
	}
}

// gate is x·σ(a(x)) and its derivative, with a(x) = x for SiLU and
// a(x) = 2√(2/π)·(x + 0.044715·x³) for GELU in its tanh form, since
// (1 + tanh z)/2 = σ(2z).
func gate(x, c1, c3 float32) (y, dy float32) {
	s := 1 / (1 + exp32(-x*(c1+c3*x*x)))
	return x * s, s + x*s*(1-s)*(c1+3*c3*x*x)
}

// vecGLUGeneric: y = act(g)∘u.
func vecGLUGeneric(y, g, u []float32, c1, c3 float32) {
	for i := range y {
		a := g[i] / (1 + exp32(-g[i]*(c1+c3*g[i]*g[i])))
		y[i] = a * u[i]
	}
}

// vecGLUBackGeneric: dg = dy∘u∘act′(g), du = dy∘act(g).
func vecGLUBackGeneric(dg, du, dy, g, u []float32, c1, c3 float32) {
	for i := range dg {
		a, d := gate(g[i], c1, c3)
		dy, u := dy[i], u[i]
		du[i] = dy * a
		dg[i] = dy * u * d
	}
}

// vecRotateGeneric turns the pairs (a, b) by angles whose cosine and sine are
// given, the sine times sign.
func vecRotateGeneric(a, b, cos, sin []float32, sign float32) {
	for i := range a {
		s := sin[i] * sign
		a[i], b[i] = a[i]*cos[i]-b[i]*s, b[i]*cos[i]+a[i]*s
	}
}

// adamWGeneric does one AdamW update of p with the scalars of k (see AdamW).
func adamWGeneric(p, g, m, v []float32, k *adamWScalars) {
	for i := range p {
		w := p[i] * k.decay
		m[i] += k.oneMinusBeta1 * (g[i] - m[i])
		v[i] = float32(v[i]*k.beta2) + float32(k.oneMinusBeta2*g[i])*g[i]
		denom := float32(math.Sqrt(float64(v[i])))/k.bias2 + k.eps
		p[i] = w + float32(k.step*m[i])/denom
	}
}

// tileRows is the height of the product tile of attention.
const tileRows = 6

// tileGeneric: C (6, cols) (+)= A (6, steps)·B (steps, cols), with A's element
// (i, k) at a[i·ai + k·ak] and rows of B and C at strides bs and cs; cols is a
// multiple of 16, at most 64.
func tileGeneric(steps int, a []float32, ai, ak int, b []float32, bs int, c []float32, cs, cols int, acc bool) {
	for i := range tileRows {
		row := c[i*cs : i*cs+cols]
		if !acc {
			clear(row)
		}
		for k := range steps {
			vecAxpyGeneric(row, b[k*bs:k*bs+cols], a[i*ai+k*ak])
		}
	}
}

// vecTransposeGeneric: dst (d, n), rows at stride ds, is the transpose of src
// (n, d), rows at stride ss.
func vecTransposeGeneric(dst []float32, ds int, src []float32, ss, n, d int) {
	for i := range n {
		for j, v := range src[i*ss : i*ss+d] {
			dst[j*ds+i] = v
		}
	}
}
