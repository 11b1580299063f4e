package kernel

import "testing"

// TestScratch: what is said to be kept is what is kept after a call.
func TestScratch(t *testing.T) {
	spec := AttentionSpec{Heads: 4, KVHeads: 2, HeadDim: 24, Scale: 1}
	lengths, rows := []int{100, 7, 96}, 203
	seq := []int32{0, 100, 107, 203}
	forwardTasks.free, backwardTasks.free = nil, nil
	wide, narrow := make([]float32, rows*4*24), make([]float32, rows*2*24)
	lse := make([]float32, 4*rows)
	Attention(wide, lse, wide, narrow, narrow, seq, spec)
	AttentionBackward(make([]float32, len(wide)), make([]float32, len(narrow)), make([]float32, len(narrow)), wide, wide, narrow, narrow, wide, lse, seq, spec)
	f, b := forwardTasks.get(), backwardTasks.get()
	kept := 0
	for _, x := range [][]float32{f.keyT, f.valRow, b.keyT, b.valRow, b.valT, b.keyRows, b.dkPart, b.dvPart} {
		kept += 4 * cap(x)
	}
	if got := AttentionScratch(spec, lengths); got != int64(kept) {
		t.Errorf("attention: %d bytes are said, %d are kept", got, kept)
	}

	const p, vocab, width = 300, 1000, 16
	lossTasks.free = nil
	head := Matrix{N: vocab, K: width, F32: make([]float32, vocab*width)}
	CrossEntropy(make([]float32, p), nil, nil, make([]float32, p*width), &head, make([]int32, p), nil, LossSpec{GradScale: 1})
	if got, kept := CrossEntropyScratch(p, vocab), 4*cap(lossTasks.get().logits); got != int64(kept) {
		t.Errorf("cross-entropy: %d bytes are said, %d are kept", got, kept)
	}

	for _, s := range [][3]int{{rows, 3000, 700}, {rows, 700, 3000}, {rows, 40, 90}, {100, 3000, 700}, {100, 700, 3000}, {7, 40, 90}} {
		rows, n, k := s[0], s[1], s[2]
		for _, half := range []bool{false, true} {
			w := Matrix{N: n, K: k, F32: make([]float32, n*k)}
			if half {
				w = Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}
			}
			x, y := make([]float32, rows*k), make([]float32, rows*n)
			products.free, workspaces.free = nil, nil
			MulT(y, n, x, k, rows, &w, false)
			Mul(x, k, y, n, rows, &w, false)
			kept := 0
			for _, p := range products.free {
				kept += 4 * (cap(p.scratch) + cap(p.decoded) + cap(p.rounded))
			}
			said := ProductScratch(rows, n, k, Held{Dense: !half, Half: half})
			if half {
				said += RoundedScratch(rows, n, k)
			}
			// The workers' share is an upper bound: few products use all of it. Panels of pairs take half.
			if slack := int64(kept) + 4*int64(Threads())*int64(100*k+200*1024); said < int64(kept) || said > slack && !(half && AMX()) {
				t.Errorf("product of %d rows with (%d, %d), half %v: %d bytes are said, %d are kept", rows, n, k, half, said, kept)
			}
		}
	}
}
