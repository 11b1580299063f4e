package autograd

import (
	"slices"
	"testing"

	"github.com/graftml/graft/internal/kernel"
)

// TestKeepLogits: gradients are the same bits where logits are kept, and right.
func TestKeepLogits(t *testing.T) {
	for _, spec := range []kernel.LogitSpec{{}, {Scale: 1.7, Softcap: 3}} {
		b := newBench()
		b.g.Head(b.weight("head", vocab, 6, 0.5, 0), spec, b.g.Linear(b.weight("W", 6, 6, 0.5, 0), nil, b.embed(6)))
		run := func(keep bool) (bits []float32, bytes int64) {
			tape := NewTape(&b.g, Training)
			tape.KeepLogits(keep)
			for _, w := range b.weights {
				clear(w.Grad)
			}
			tape.Forward(b.batch, Mode{LossOnly: true}) // nothing to keep
			tape.Forward(b.batch, Mode{})
			nll, _ := tape.NLL()
			bits = slices.Clone(nll)
			tape.Backward(b.random(len(nll), 0, 1))
			for _, w := range b.weights {
				bits = append(bits, w.Grad...)
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
