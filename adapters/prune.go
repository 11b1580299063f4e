package adapters

// What the sparsifying ways of combining do to the values of one matrix: magnitude pruning, DARE's
// random pruning (Yu et al. 2024) and TIES's vote on signs (Yadav et al. 2023), as peft/utils/merge_utils.py.

import (
	"math"

	"github.com/graftml/graft/internal/kernel"
)

// pruneMagnitude sets all but the ⌊density·n⌋ values of largest magnitude to zero. Of equal ones the first stay.
func pruneMagnitude(x []float32, density float64) {
	keep := int(density * float64(len(x)))
	if density >= 1 || keep >= len(x) {
		return
	}
	bound, equal := magnitudeBound(x, keep)
	for i, v := range x {
		switch m := magnitude(v); {
		case m > bound:
		case m == bound && equal > 0:
			equal--
		default:
			x[i] = 0
		}
	}
}

// magnitude orders values as their absolute values do.
func magnitude(v float32) uint32 { return math.Float32bits(v) &^ (1 << 31) }

// magnitudeBound finds the keep-th largest magnitude of x, and how many of the values that equal it are
// among the keep largest, by counting the upper and then the lower half of their bits.
func magnitudeBound(x []float32, keep int) (bound uint32, equal int) {
	if keep == 0 {
		return math.MaxUint32, 0
	}
	counts := make([]int, 1<<16)
	find := func() uint32 {
		i := len(counts) - 1
		for ; counts[i] < keep; i-- {
			keep -= counts[i]
		}
		return uint32(i)
	}
	for _, v := range x {
		counts[magnitude(v)>>16]++
	}
	high := find()
	clear(counts)
	for _, v := range x {
		if m := magnitude(v); m>>16 == high {
			counts[m&0xffff]++
		}
	}
	low := find()
	return high<<16 | low, keep
}

// Parts of a pair that are pruned by themselves.
const (
	partOfA = iota
	partOfB
	partOfChange // the dense product
)

// maskKey is what the random mask of a part follows from: the seed and the values of both matrices, so
// that neither the order of adapters nor the number of threads changes it.
func maskKey(seed uint64, a, b []float32, part int) uint64 {
	h := mix(seed)
	for _, x := range [][]float32{a, b} {
		for _, v := range x {
			h = (h ^ uint64(math.Float32bits(v))) * 0x100000001b3
		}
		h = mix(h)
	}
	return mix(h + uint64(part))
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// pruneRandom keeps each value with probability density, divided by it, and sets the others to zero.
func pruneRandom(x []float32, density float64, key uint64) {
	if density >= 1 {
		return
	}
	each(x, func(x []float32, at int) {
		for i := range x {
			if float64(mix(key+uint64(at+i))>>11)/(1<<53) < density {
				x[i] /= float32(density)
			} else {
				x[i] = 0
			}
		}
	})
}

// weightedSum adds the tensors, each times its weight, into the first.
func weightedSum(tensors [][]float32, weights []float32) []float32 {
	sum := tensors[0]
	each(sum, func(sum []float32, at int) {
		kernel.Scale(sum, sum, weights[0])
		for t := 1; t < len(tensors); t++ {
			kernel.AddScaled(sum, tensors[t][at:at+len(sum)], weights[t])
		}
	})
	return sum
}

// elect is TIES's disjoint mean, into the first tensor: for every value the tensors vote on a sign, by
// their sum or, with frequency, by their number, and those of the sign that wins are averaged, each
// times its weight. As in PEFT, weights have no vote, a tie is for plus, and zeros are not counted.
func elect(tensors [][]float32, weights []float32, frequency bool) []float32 {
	out := tensors[0]
	each(out, func(out []float32, at int) {
		for i := range out {
			vote := float32(0)
			for _, t := range tensors {
				if v := t[at+i]; !frequency {
					vote += v
				} else if v != 0 {
					vote += float32(math.Copysign(1, float64(v)))
				}
			}
			sum, n := float32(0), float32(0)
			for k, t := range tensors {
				if v := t[at+i]; v > 0 && vote >= 0 || v < 0 && vote < 0 {
					sum += v * weights[k]
					n++
				}
			}
			out[i] = sum / max(n, 1)
		}
	})
	return out
}

// each runs f over pieces of x on all cores; at is where a piece begins.
func each(x []float32, f func(x []float32, at int)) {
	kernel.Parallel(len(x), 1<<15, task(func(lo, hi int) { f(x[lo:hi], lo) }))
}

// task makes a function a kernel.Task.
type task func(lo, hi int)

func (t task) Run(lo, hi int) { t(lo, hi) }
