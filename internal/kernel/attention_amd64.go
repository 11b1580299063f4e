//go:build amd64 && !purego

package kernel

// The functions on rows of a tile of scores, (n, kTile), of AVX-512; query i sees the keys
// [lo+i, hi+i), cut to the tile. What the plain forms beside them do, see
// forwardTask.softmax and backwardTask.slopes.

// Scores times scale become weights relative to the largest so far, of which sum and o, (n,
// width), are made of.
//
//go:noescape
func softmaxRows(s, o, largest, sum *float32, n, lo, hi, width int, scale float32)

// The same with the weights rounded to bfloat16, in p, AVX512-BF16.
//
//go:noescape
func softmaxRowsHalf(s, o, largest, sum *float32, n, lo, hi, width int, scale float32, p *float32)

// Scores times scale become probabilities and dp the gradient of the scores, times slope.
//
//go:noescape
func slopeRows(s, dp, lse, delta *float32, n, lo, hi int, scale, slope float32)

// The same with both rounded to bfloat16, in p and ds, AVX512-BF16.
//
//go:noescape
func slopeRowsHalf(s, dp, lse, delta *float32, n, lo, hi int, scale, slope float32, p, ds *float32)
