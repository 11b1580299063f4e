package quantize

import "fmt"

// This file decodes rows of a 4-bit tensor whose codes stay on disk: its scales are a few hundredths
// of its size.

// Load4Scales is [Load4] without the codes: get is not asked for them, but told how many bytes of them
// there are. Packed is nil in what it returns, which [Tensor4.CodesOf] and [Tensor4.DecodeRowsFrom] do
// without.
func Load4Scales(name string, codes int64, get func(name string) (dtype string, shape []int, data []byte, ok bool, err error)) (*Tensor4, error) {
	l := loader4{name: name, get: get, codes: &codes}
	t, err := l.load()
	if err != nil {
		return nil, fmt.Errorf("quantize: loading the scales of 4-bit tensor %q: %w", name, err)
	}
	return t, nil
}

// CodesOf returns which bytes of the packed codes DecodeRowsFrom needs for rows lo to hi (not included):
// n bytes from off on.
func (t *Tensor4) CodesOf(lo, hi int) (off int64, n int) {
	first := t.windowStart(lo)
	return int64(first / 2), (hi*t.Cols() - first + 1) / 2
}

// windowStart returns the first value of the block, or block of blocks, that row lo begins in.
func (t *Tensor4) windowStart(lo int) int {
	unit := t.BlockSize
	if t.Double() {
		unit *= t.NestedBlockSize
	}
	return lo * t.Cols() / unit * unit
}

// DecodeRowsFrom is [Tensor4.DecodeRowsRounded] of a tensor without codes: codes are the bytes that
// CodesOf names.
func (t *Tensor4) DecodeRowsFrom(dst []float32, codes []byte, lo, hi int) {
	first := t.windowStart(lo)
	block := first / t.BlockSize
	part := *t
	part.Packed, part.Shape = codes, []int{hi*t.Cols() - first, 1}
	if t.Double() {
		part.Codes, part.NestedAbsmax = t.Codes[block:], t.NestedAbsmax[block/t.NestedBlockSize:]
	} else {
		part.Absmax = t.Absmax[block:]
	}
	from := lo*t.Cols() - first
	part.DecodeRowsRounded(dst, from, from+len(dst))
}
