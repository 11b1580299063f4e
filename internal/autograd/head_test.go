package autograd

import (
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// TestKeepLogits: gradients are the same bits where logits are kept, for a head that is trained and for
// a pair on one.
func TestKeepLogits(t *testing.T) {
	for i, spec := range []kernel.LogitSpec{{}, {Scale: 1.7, Softcap: 3}, {}, {Scale: 1.7, Softcap: 3}} {
		b := newBench()
		w := b.weight("head", vocab, 6, 0.5, 0)
		b.g.Head(w, spec, b.g.Linear(b.weight("W", 6, 6, 0.5, 0), nil, b.embed(6)))
		var pairs []*LowRank
		if i >= 2 {
			w.Grad = nil
			pairs = []*LowRank{b.lowRank(6, vocab, 2, true)}
			pairs[0].Bias, pairs[0].GradBias = b.random(vocab, 1, 0), make([]float32, vocab)
		}
		run := func(keep bool) (bits []float32, bytes int64) {
			tape := NewTape(&b.g, Training)
			tape.KeepLogits(keep)
			tape.SetAdapters(b.g.HeadPlace(), pairs)
			for _, w := range b.weights {
				clear(w.Grad)
			}
			for _, l := range pairs {
				clear(l.GradA)
				clear(l.GradB)
				clear(l.GradBias)
			}
			tape.Forward(b.batch, Mode{LossOnly: true}) // nothing to keep
			tape.Forward(b.batch, Mode{})
			nll, _ := tape.NLL()
			bits = slices.Clone(nll)
			tape.Backward(b.random(len(nll), 0, 1))
			for _, w := range b.weights {
				bits = append(bits, w.Grad...)
			}
			for _, l := range pairs {
				bits = slices.Concat(bits, l.GradA, l.GradB, l.GradBias)
			}
			return bits, tape.ActivationBytes(len(b.batch.Tokens))
		}
		want, small := run(false)
		got, large := run(true)
		if !slices.Equal(got, want) {
			t.Error("kept logits give other bits")
		}
		if large <= small {
			t.Errorf("%d bytes with logits kept, %d without: none are", large, small)
		}
	}
}
