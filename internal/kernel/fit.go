package kernel

import (
	"fmt"
	"math"
)

// This file holds the searches behind ggml's quantizers: for a run of 8 to 32 values, the
// scale (and minimum) whose codes lose least. Sixteen runs are searched at once, one a lane
// of a vector: each lane does the operations of the reference in the reference's order, so
// that the result has its bits. Value i of run r is at 16·i + r. Every product, sum and
// quotient is one float32 rounding in the order written; the explicit conversions keep the
// compiler from fusing them.

const (
	// Runs is how many runs a search takes.
	Runs = 16

	maxRun   = 32 // values a run
	maxTries = 64 // inverse scales an AffineSearch may try
)

// A Fit is what a search found for each of the runs. A run whose values are all the same (for
// FitAffine: the same and not positive) has scale 0, and its codes are 0.
type Fit struct {
	Scale [Runs]float32
	Min   [Runs]float32 // what the smallest code stands for, negated: never negative
	// Inverse and From are those that the codes were made with: code = Inverse·(x − From), to
	// the nearest. They are not exactly 1/Scale and −Min.
	Inverse, From [Runs]float32
}

// An AffineSearch says what FitAffine tries: the inverse scales (First + Step·s + Top) / range
// for s from 0 to Steps.
type AffineSearch struct {
	Top         int // the largest code; the smallest is 0
	First, Step float32
	Steps       int
	Absolute    bool // weigh the error itself, not its square
}

// tries are the numerators of a search's inverse scales.
func (s AffineSearch) tries(room *[maxTries]float32) []float32 {
	for i := range s.Steps + 1 {
		room[i] = float32(s.First+float32(s.Step*float32(i))) + float32(s.Top)
	}
	return room[:s.Steps+1]
}

// symmetricTries are those of FitSymmetric.
func symmetricTries(top int) (tries [19]float32) {
	n := 0
	tries[0] = -float32(top)
	for i := -9; i <= 9; i++ {
		if i != 0 {
			n++
			tries[n] = -(float32(top) + float32(0.1*float32(i)))
		}
	}
	return tries
}

// ToLanes lays sixteen runs of n values, one after the other in src, out as the searches take
// them.
func ToLanes(dst, src []float32, n int) {
	checkRuns("ToLanes", len(dst), len(src))
	vecTranspose(dst, Runs, src, n, Runs, n)
}

// FitAffine searches scale and minimum of runs whose values are scale·code − min, with
// weights w. x and w hold len(x)/16 values a run. It panics unless that is a whole number up to
// 32, and s has at most 64 steps.
func FitAffine(f *Fit, x, w []float32, s AffineSearch) {
	checkRuns("FitAffine", len(x), len(w))
	if !fitAffineLanes(f, x, w, s) {
		fitAffineGeneric(f, x, w, s)
	}
}

// FitSymmetric searches the scale of runs whose values are scale·code with codes from −top to
// top−1, with weights w.
func FitSymmetric(f *Fit, x, w []float32, top int) {
	checkRuns("FitSymmetric", len(x), len(w))
	if !fitSymmetricLanes(f, x, w, top) {
		fitSymmetricGeneric(f, x, w, top)
	}
}

// FitDescent searches scale and codes of runs as FitSymmetric does, with each value's square for its
// weight, by moving code after code. It writes the codes, plus top, to q; those of a run of
// zeros are 0.
func FitDescent(f *Fit, q []byte, x []float32, top int) {
	checkRuns("FitDescent", len(x), len(q))
	if !fitDescentLanes(f, q, x, top) {
		fitDescentGeneric(f, q, x, top)
	}
}

// RunCodes writes code = (x + plus) / over to the nearest, clamped to [low, high], less low,
// for every value. plus and over are those of the runs.
func RunCodes(q []byte, x []float32, plus, over *[Runs]float32, low, high int) {
	checkRuns("RunCodes", len(x), len(q))
	if !runCodesLanes(q, x, plus, over, low, high) {
		runCodesGeneric(q, x, plus, over, low, high)
	}
}

func checkRuns(op string, values, others int) {
	if values == 0 || values%Runs != 0 || values > maxRun*Runs || others != values {
		panic(fmt.Sprintf("kernel: %s of %d values and %d: need as many of both, a multiple of %d up to %d", op, values, others, Runs, maxRun*Runs))
	}
}

// Nearest is v to the nearest whole number, halves to the even one, for |v| < 2²². Beyond
// that it is what ggml's sum with 1.5·2²³ leaves in the mantissa.
func Nearest(v float32) int { return int(math.Float32bits(v+12582912)&0x7fffff) - 0x400000 }

// Code is the code of v in run r, by Inverse and From, clamped to [low, high].
func (f *Fit) Code(r int, v float32, low, high int) int {
	return max(low, min(high, Nearest(f.Inverse[r]*(v-f.From[r]))))
}

func runCodesGeneric(q []byte, x []float32, plus, over *[Runs]float32, low, high int) {
	for at := 0; at < len(x); at += Runs {
		for r, v := range x[at : at+Runs] {
			q[at+r] = byte(max(low, min(high, Nearest((v+plus[r])/over[r]))) - low)
		}
	}
}

// lane copies run r out of lanes.
func lane(dst *[maxRun]float32, x []float32, r int) []float32 {
	run := dst[:len(x)/Runs]
	for i := range run {
		run[i] = x[Runs*i+r]
	}
	return run
}

func fitAffineGeneric(f *Fit, x, w []float32, s AffineSearch) {
	var xs, ws [maxRun]float32
	for r := range Runs {
		f.Scale[r], f.Min[r], f.Inverse[r], f.From[r] = affineRun(lane(&xs, x, r), lane(&ws, w, r), s)
	}
}

// affineRun is FitAffine for one run.
func affineRun(x, w []float32, s AffineSearch) (scale, minimum, inverse, from float32) {
	low, high := x[0], x[0]
	sumW, sumX := w[0], float32(w[0]*x[0])
	for i, v := range x[1:] {
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
		sumW += w[i+1]
		sumX += float32(w[i+1] * v)
	}
	if low > 0 {
		low = 0
	}
	if high == low {
		return 0, -low, 0, 0
	}
	top := float32(s.Top)
	inverse = top / (high - low)
	scale, from = 1/inverse, low
	code := func(v float32) float32 {
		return float32(max(0, min(s.Top, Nearest(inverse*(v-low)))))
	}
	loss := func(scale, low float32, l, v, w float32) float32 {
		d := float32(float32(scale*l)+low) - v
		if s.Absolute {
			return w * magnitude(d)
		}
		return w * float32(d*d)
	}
	var best float32
	for i, v := range x {
		best += loss(scale, low, code(v), v, w[i])
	}
	bestInverse := inverse
	var codes [maxRun]float32
	var room [maxTries]float32
	for _, try := range s.tries(&room) {
		inverse = try / (high - low)
		var sumL, sumLL, sumXL float32
		for i, v := range x {
			l := code(v)
			codes[i] = l
			wl := float32(w[i] * l)
			sumL += wl
			sumLL += float32(wl * l)
			sumXL += float32(wl * v)
		}
		det := float32(sumW*sumLL) - float32(sumL*sumL)
		if !(det > 0) {
			continue
		}
		newScale := (float32(sumW*sumXL) - float32(sumX*sumL)) / det
		newLow := (float32(sumLL*sumX) - float32(sumL*sumXL)) / det
		if newLow > 0 {
			newLow, newScale = 0, sumXL/sumLL
		}
		var now float32
		for i, v := range x {
			now += loss(newScale, newLow, codes[i], v, w[i])
		}
		if now < best {
			// Codes of later steps are counted from the minimum found here.
			best, bestInverse, from = now, inverse, low
			scale, low = newScale, newLow
		}
	}
	return scale, -low, bestInverse, from
}

func magnitude(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// tiny is the magnitude below which ggml takes a run for zeros.
const tiny = 1e-15

func fitSymmetricGeneric(f *Fit, x, w []float32, top int) {
	var xs, ws [maxRun]float32
	for r := range Runs {
		f.Scale[r], f.Inverse[r] = SymmetricRun(lane(&xs, x, r), lane(&ws, w, r), top)
		f.Min[r], f.From[r] = 0, 0
	}
}

// SymmetricRun is FitSymmetric for a single run: the scale, and what the codes were made
// with.
func SymmetricRun(x, w []float32, top int) (scale, inverse float32) {
	var peak, size float32
	for _, v := range x {
		if a := magnitude(v); a > size {
			size, peak = a, v
		}
	}
	if size < tiny {
		return 0, 0
	}
	sums := func(inverse float32) (lx, ll float32) {
		for i, v := range x {
			l := float32(max(-top, min(top-1, Nearest(inverse*v))))
			lx += float32(float32(w[i]*v) * l)
			ll += float32(float32(w[i]*l) * l)
		}
		return lx, ll
	}
	tries := symmetricTries(top)
	inverse = tries[0] / peak
	lx, ll := sums(inverse)
	if ll != 0 {
		scale = lx / ll
	}
	best := scale * lx
	for _, try := range tries[1:] {
		lx, ll := sums(try / peak)
		if ll > 0 && float32(lx*lx) > float32(best*ll) {
			scale, inverse = lx/ll, try/peak
			best = scale * lx
		}
	}
	return scale, inverse
}

func fitDescentGeneric(f *Fit, q []byte, x []float32, top int) {
	var xs [maxRun]float32
	var codes [maxRun]int8
	for r := range Runs {
		f.Scale[r] = descentRun(&codes, lane(&xs, x, r), top)
		for i := range len(x) / Runs {
			q[Runs*i+r] = byte(codes[i])
		}
	}
}

// descentRun is FitDescent for one run.
func descentRun(codes *[maxRun]int8, x []float32, top int) (scale float32) {
	var peak, size float32
	for _, v := range x {
		if a := magnitude(v); a > size {
			size, peak = a, v
		}
	}
	if size < tiny {
		clear(codes[:])
		return 0
	}
	inverse := -float32(top) / peak
	var lx, ll float32
	add := func(lx, ll *float32, v, l, sign float32) {
		w := float32(v * v)
		*lx += float32(sign * float32(float32(w*v)*l))
		*ll += float32(sign * float32(float32(w*l)*l))
	}
	for i, v := range x {
		l := max(-top, min(top-1, Nearest(inverse*v)))
		codes[i] = int8(l)
		add(&lx, &ll, v, float32(l), 1)
	}
	for changed, turn := true, 0; changed && turn < 5; turn++ {
		changed = false
		for i, v := range x {
			lxNow, llNow := lx, ll
			add(&lxNow, &llNow, v, float32(codes[i]), -1)
			if !(lxNow > 0) {
				continue
			}
			l := max(-top, min(top-1, Nearest(float32(v*llNow)/lxNow)))
			if l == int(codes[i]) {
				continue
			}
			add(&lxNow, &llNow, v, float32(l), 1)
			if llNow > 0 && float32(float32(lxNow*lxNow)*ll) > float32(float32(lx*lx)*llNow) {
				codes[i], lx, ll, changed = int8(l), lxNow, llNow, true
			}
		}
	}
	for i := range x {
		codes[i] += int8(top)
	}
	if ll > 0 {
		return lx / ll
	}
	return 0
}
