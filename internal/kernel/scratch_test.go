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
	if got := AttentionScratch(spec, lengths, false); got != int64(kept) {
		t.Errorf("attention: %d bytes are said, %d are kept", got, kept)
	}

	const p, vocab, width = 300, 1000, 16
	lossTasks.free = nil
	head := Matrix{N: vocab, K: width, F32: make([]float32, vocab*width)}
	CrossEntropy(make([]float32, p), nil, nil, nil, F32Vec(make([]float32, p*width)), &head, LogitSpec{}, make([]int32, p))
	if got, kept := CrossEntropyScratch(p, vocab), 4*cap(lossTasks.get().scratch); got != int64(kept) {
		t.Errorf("cross-entropy: %d bytes are said, %d are kept", got, kept)
	}
}

func TestProductScratch(t *testing.T) {
	forEachHalf(t, func(t *testing.T) {
		for _, s := range [][3]int{{203, 3000, 700}, {203, 700, 3000}, {203, 40, 90}, {100, 3000, 700}, {100, 700, 3000}, {7, 40, 90}} {
			rows, n, k := s[0], s[1], s[2]
			if slow(rows, n, k) {
				continue
			}
			for _, half := range []bool{false, true} {
				w := Matrix{N: n, K: k, F32: make([]float32, n*k)}
				x, y := F32Vec(make([]float32, rows*k)), F32Vec(make([]float32, rows*n))
				if half {
					w = Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}
					x, y = halfVec(x.F32), halfVec(y.F32)
				}
				products.free, workspaces.free = nil, nil
				Linear(y, x, rows, &w, false, nil)
				LinearBackward(x, y, rows, &w, false, nil)
				kept := 0
				for _, p := range products.free {
					kept += 4 * (cap(p.scratch) + cap(p.decoded) + cap(p.rounded) + cap(p.sums) + cap(p.widened))
					for _, s := range p.parts[:cap(p.parts)] {
						kept += 4 * cap(s.copied)
					}
				}
				said := ProductScratch(rows, n, k, Held{Dense: !half, Half: half})
				if half {
					said += RoundedScratch(rows, n, k)
				}
				if half {
					var k2 Kept
					Linear(y, x.Keeping(&k2), rows, &w, false, nil)
					LinearBackward(x, y.Keeping(&k2), rows, &w, false, nil)
					if said := KeptScratch(rows, n, k); said > 4*int64(cap(k2.tiles)) || said+64 < 4*int64(cap(k2.tiles)) {
						t.Errorf("operands of %d rows with (%d, %d): %d bytes are said, %d are kept", rows, n, k, said, 4*cap(k2.tiles))
					}
				}
				// The workers' share is an upper bound: few products use all of it.
				if slack := int64(kept) + 4*int64(Threads())*int64(100*k+400*1024); said < int64(kept) || said > slack {
					t.Errorf("product of %d rows with (%d, %d), half %v: %d bytes are said, %d are kept", rows, n, k, half, said, kept)
				}
			}
		}
	})
}
