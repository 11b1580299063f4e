package checkpoint

import "math"

// What Write tells while it runs and when it is done.

func (w *writing) progress(values int64) {
	done := w.done.Add(values)
	if w.o.Progress != nil {
		w.o.Progress(done, w.total)
	}
}

func (t *target) addError(lo int, want, got []float32) {
	var e, v float64
	for i, x := range want {
		d := float64(x) - float64(got[i])
		e += d * d
		v += float64(x) * float64(x)
	}
	t.mu.Lock()
	t.err2[lo], t.val2[lo] = e, v
	t.mu.Unlock()
}

func (w *writing) report() []Written {
	out := make([]Written, len(w.tensors))
	for i, t := range w.tensors {
		n := t.Shape[0] * t.cols
		out[i] = Written{t.Name, t.Shape, t.from, t.Codec, t.packedBytes + t.rowBytes*int64(t.Shape[0]), t.copied, math.Sqrt(total(t.err2) / float64(n)), math.Sqrt(total(t.val2) / float64(n))}
	}
	return out
}

// total adds up in order of rows.
func total(sums map[int]float64) float64 {
	var s float64
	for _, lo := range sortedKeys(sums) {
		s += sums[lo]
	}
	return s
}
