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
	Attention(F32Vec(wide), lse, F32Vec(wide), F32Vec(narrow), F32Vec(narrow), seq, spec)
	AttentionBackward(F32Vec(make([]float32, len(wide))), F32Vec(make([]float32, len(narrow))), F32Vec(make([]float32, len(narrow))), F32Vec(wide), F32Vec(wide), F32Vec(narrow), F32Vec(narrow), F32Vec(wide), lse, seq, spec)
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
	CrossEntropy(make([]float32, p), nil, nil, F32Vec(make([]float32, p*width)), &head, make([]int32, p))
	if got, kept := CrossEntropyScratch(p, vocab), 4*cap(lossTasks.get().x); got != int64(kept) {
		t.Errorf("cross-entropy: %d bytes are said, %d are kept", got, kept)
	}

	for _, s := range [][2]int{{3000, 700}, {700, 3000}, {40, 90}} {
		n, k := s[0], s[1]
		w := Matrix{N: n, K: k, F32: make([]float32, n*k)}
		x, y := make([]float32, rows*k), make([]float32, rows*n)
		products.free, workspaces.free = nil, nil
		MulT(y, n, x, k, rows, &w, false)
		Mul(x, k, y, n, rows, &w, false)
		kept := 0
		for _, p := range products.free {
			kept += 4 * cap(p.scratch)
		}
		// The workers' share is an upper bound: few products use all of it.
		if got := ProductScratch(n, k); got < int64(kept) || got > int64(kept)+4*int64(Threads())*int64(100*k+200*1024) {
			t.Errorf("product with (%d, %d): %d bytes are said, %d are kept", n, k, got, kept)
		}
	}
}
