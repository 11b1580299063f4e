//go:build linux && amd64 && cgo && !purego && amxemulator

package kernel

import (
	"fmt"
	"testing"

	"github.com/graftml/graft/internal/kernel/amxemulator"
)

// onAMX chooses AMX for a test that counts its instructions.
func onAMX(t testing.TB) {
	t.Helper()
	if err := amxemulator.Install(); err != nil {
		t.Skip(err)
	}
	restore, err := SetHalf(halfNames[tiles])
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(restore)
}

// counted is the instructions that f takes.
func counted(f func()) amxemulator.Count {
	before := amxemulator.Counts()
	f()
	return amxemulator.Counts().Sub(before)
}

// TestTileWork: a product takes the multiplications of its squares of C and no more, loads two
// tiles of each operand for four of them, and gives the tiles back after every configuration.
func TestTileWork(t *testing.T) {
	onAMX(t)
	for _, s := range [][3]int{{64, 64, 64}, {100, 70, 90}, {300, 600, 700}} {
		m, n, k := s[0], s[1], s[2]
		w, x, y := &Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}, halfVec(many(m*k)), halfVec(many(m*n))
		for name, f := range map[string]func(){
			"Linear":         func() { Linear(y, x, m, w, false, nil) },
			"LinearBackward": func() { LinearBackward(x, y, m, w, false, nil) },
		} {
			c := counted(f)
			if dots := uint64(4 * ceilDiv(m, tileSide) * ceilDiv(n, tileSide) * ceilDiv(k, tileSide)); c.Dot != dots {
				t.Errorf("%s of %v: %d TDPBF16PS, want %d", name, s, c.Dot, dots)
			}
			if c.Load+c.Zero != c.Dot+c.Store || c.Config != c.Release {
				t.Errorf("%s of %v: %+v", name, s, c)
			}
		}
	}
}

// BenchmarkTileWork counts the instructions of AMX in the products and the attention of a layer
// of SmolLM2-135M. tmul-busy is the share of cycles in which a core of Sapphire
// Rapids would multiply, were tileStrips all there is: 16 for TDPBF16PS, 8 for TILELOADD, which
// hide behind the products they feed, 16 for TILESTORED, 200 for LDTILECFG, 20 for TILERELEASE.
// needed is the multiplications asked for to those done.
func BenchmarkTileWork(b *testing.B) {
	run := func(name string, products float64, f func()) {
		b.Run(name, func(b *testing.B) {
			onAMX(b)
			var c amxemulator.Count
			for b.Loop() {
				c = counted(f)
			}
			b.ReportMetric(float64(c.Dot), "dots")
			b.ReportMetric(float64(c.Load), "loads")
			b.ReportMetric(float64(c.Store), "stores")
			b.ReportMetric(float64(c.Zero), "zeros")
			b.ReportMetric(float64(c.Config), "configs")
			squares := float64(c.Load) - float64(c.Dot) // loads of C, whatever it is added to
			ends := 8*squares + 16*float64(c.Store) + 200*float64(c.Config) + 20*float64(c.Release)
			b.ReportMetric(16*float64(c.Dot)/(16*float64(c.Dot)+ends), "tmul-busy")
			b.ReportMetric(products/(16*16*32*float64(c.Dot)), "needed")
		})
	}
	for _, s := range [][3]int{{1024, 576, 1536}, {1024, 1536, 576}, {1024, 576, 576}, {1024, 576, 192}} {
		m, k, n := s[0], s[1], s[2]
		w, x, y := &Matrix{N: n, K: k, BF16: make([]byte, 2*n*k), Half: true}, HalfVec(make([]float32, m*k/2), m*k), HalfVec(make([]float32, m*n/2), m*n)
		products := float64(m) * float64(n) * float64(k)
		run(fmt.Sprintf("forward/%d,%d→%d", m, k, n), products, func() { Linear(y, x, m, w, false, nil) })
		run(fmt.Sprintf("backward/%d,%d→%d", m, k, n), products, func() { LinearBackward(x, y, m, w, false, nil) })
	}
	spec := AttentionSpec{Heads: 9, KVHeads: 3, HeadDim: 64, Scale: 0.125}
	for _, s := range [][2]int{{4, 256}, {1, 1024}} {
		rows := s[0] * s[1]
		zeros := func(n int) Vec { return HalfVec(make([]float32, n/2), n) }
		q, out, dq, k, v, dk, dv := zeros(rows*576), zeros(rows*576), zeros(rows*576), zeros(rows*192), zeros(rows*192), zeros(rows*192), zeros(rows*192)
		lse, seq := make([]float32, rows*9), []int32{0}
		for at := s[1]; at <= rows; at += s[1] {
			seq = append(seq, int32(at))
		}
		pairs := float64(s[0]) * float64(s[1]) * float64(s[1]+1) / 2 * 576
		run(fmt.Sprintf("attention/%dx%d", s[0], s[1]), 2*pairs, func() { Attention(out, lse, q, k, v, seq, spec) })
		run(fmt.Sprintf("attention backward/%dx%d", s[0], s[1]), 5*pairs, func() { AttentionBackward(dq, dk, dv, out, q, k, v, out, lse, seq, spec) })
	}
}
