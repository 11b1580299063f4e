//go:build amd64 && !purego

package kernel

// The assembly, written by _asm/vec, does in each lane what the plain Go of fit.go does for a
// run, in its order. AVX2 has eight lanes: it is called for either half. bytes is 64 times the values of a
// run, work scratch memory.

//go:noescape
func fitAffineAVX2(f, x, w *float32, bytes int, tries *float32, n int, work *float32, top float32, absolute int32, low, high int32)

//go:noescape
func fitAffineAVX512(f, x, w *float32, bytes int, tries *float32, n int, work *float32, top float32, absolute int32, low, high int32)

//go:noescape
func fitSymmetricAVX2(f, x, w *float32, bytes int, tries *float32, n int, work *float32, low, high int32)

//go:noescape
func fitSymmetricAVX512(f, x, w *float32, bytes int, tries *float32, n int, work *float32, low, high int32)

//go:noescape
func fitDescentAVX2(scale *float32, q *byte, x *float32, bytes int, work *float32, low, high int32)

//go:noescape
func fitDescentAVX512(scale *float32, q *byte, x *float32, bytes int, work *float32, low, high int32)

//go:noescape
func runCodesAVX2(q *byte, x *float32, bytes int, plus, over *float32, low, high int32)

//go:noescape
func runCodesAVX512(q *byte, x *float32, bytes int, plus, over *float32, low, high int32)

//go:noescape
func fitTableAVX2(scale, x, w *float32, bytes int, tries *float32, n int, work, table *float32)

//go:noescape
func fitTableAVX512(scale, x, w *float32, bytes int, tries *float32, n int, work, table *float32)

//go:noescape
func tableCodesAVX2(q *byte, x *float32, bytes int, inverse, table *float32)

//go:noescape
func tableCodesAVX512(q *byte, x *float32, bytes int, inverse, table *float32)

// fitWork is the scratch memory of a search: 16 vectors, and one for each value of a run.
type fitWork [(16 + maxRun) * Runs]float32

func fitAffineLanes(f *Fit, x, w []float32, s AffineSearch) bool {
	if impl < avx2 || s.Steps < 0 || s.Steps >= maxTries {
		return false
	}
	var work fitWork
	var tries [maxTries]float32
	n, absolute := len(s.tries(&tries)), int32(0)
	if s.Absolute {
		absolute = 1
	}
	if impl >= avx512 {
		fitAffineAVX512(&f.Scale[0], &x[0], &w[0], 4*len(x), &tries[0], n, &work[0], float32(s.Top), absolute, 0, int32(s.Top))
		return true
	}
	for h := 0; h < Runs; h += 8 {
		fitAffineAVX2(&f.Scale[h], &x[h], &w[h], 4*len(x), &tries[0], n, &work[0], float32(s.Top), absolute, 0, int32(s.Top))
	}
	return true
}

func fitSymmetricLanes(f *Fit, x, w []float32, top int) bool {
	if impl < avx2 {
		return false
	}
	var work fitWork
	tries := symmetricTries(top)
	n, low, high := len(tries)-1, int32(-top), int32(top-1)
	if impl >= avx512 {
		fitSymmetricAVX512(&f.Scale[0], &x[0], &w[0], 4*len(x), &tries[0], n, &work[0], low, high)
		return true
	}
	for h := 0; h < Runs; h += 8 {
		fitSymmetricAVX2(&f.Scale[h], &x[h], &w[h], 4*len(x), &tries[0], n, &work[0], low, high)
	}
	return true
}

func fitDescentLanes(f *Fit, q []byte, x []float32, top int) bool {
	if impl < avx2 {
		return false
	}
	var work fitWork
	low, high := int32(-top), int32(top-1)
	if impl >= avx512 {
		fitDescentAVX512(&f.Scale[0], &q[0], &x[0], 4*len(x), &work[0], low, high)
		return true
	}
	for h := 0; h < Runs; h += 8 {
		fitDescentAVX2(&f.Scale[h], &q[h], &x[h], 4*len(x), &work[0], low, high)
	}
	return true
}

func runCodesLanes(q []byte, x []float32, plus, over *[Runs]float32, low, high int) bool {
	if impl < avx2 {
		return false
	}
	if impl >= avx512 {
		runCodesAVX512(&q[0], &x[0], 4*len(x), &plus[0], &over[0], int32(low), int32(high))
		return true
	}
	for h := 0; h < Runs; h += 8 {
		runCodesAVX2(&q[h], &x[h], 4*len(x), &plus[h], &over[h], int32(low), int32(high))
	}
	return true
}

func fitTableLanes(f *Fit, x, w []float32, table *[16]float32) bool {
	if impl < avx2 {
		return false
	}
	var work fitWork
	tries := tableTries(table)
	if impl >= avx512 {
		fitTableAVX512(&f.Scale[0], &x[0], &w[0], 4*len(x), &tries[0], len(tries), &work[0], &table[0])
		return true
	}
	for h := 0; h < Runs; h += 8 {
		fitTableAVX2(&f.Scale[h], &x[h], &w[h], 4*len(x), &tries[0], len(tries), &work[0], &table[0])
	}
	return true
}

func tableCodesLanes(q []byte, x []float32, inverse *[Runs]float32, table *[16]float32) bool {
	if impl < avx2 {
		return false
	}
	if impl >= avx512 {
		tableCodesAVX512(&q[0], &x[0], 4*len(x), &inverse[0], &table[0])
		return true
	}
	for h := 0; h < Runs; h += 8 {
		tableCodesAVX2(&q[h], &x[h], 4*len(x), &inverse[h], &table[0])
	}
	return true
}
