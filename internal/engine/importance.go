package engine

import (
	"fmt"

	"github.com/graftml/graft/internal/imatrix"
	"github.com/graftml/graft/internal/kernel"
)

// Importance runs a text through the model in windows of so many tokens and returns the importance
// matrix of the products inside blocks: the squares of their inputs, added up. As llama.cpp has it,
// each window begins with bos, unless that is negative, in place of its first token, and what is left behind the last whole window does not
// count; a text shorter than a window is one. Progress, unless nil, is called with the tokens done; its
// error ends the run. It fails with ErrBatch on a window the model cannot take, and on a text without
// tokens.
func (m *Model) Importance(tokens []int32, window int, bos int32, progress func(done, total int) error) (*imatrix.Matrix, error) {
	if window < 1 || window > m.config.Context {
		return nil, fmt.Errorf("engine: computing importance: %w: windows of %d tokens; the model takes 1 to %d", ErrBatch, window, m.config.Context)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("engine: computing importance: %w: the text has no tokens", ErrBatch)
	}
	window = min(window, len(tokens))
	tokens = tokens[:len(tokens)/window*window]
	sums, rows := make([][]float64, len(m.linears)), 0
	for place, l := range m.linears {
		sums[place] = make([]float64, l.In)
	}
	var wide []float32 // a copy in float32 of inputs in bfloat16
	s := m.NewState()
	s.scorer.Watch(func(place int, x kernel.Vec, n int) {
		sum := sums[place]
		values := x.F32
		if x.Half() {
			wide = resize(wide, n*len(sum))
			kernel.Copy(kernel.F32Vec(wide), x)
			values = wide
		}
		for ; len(values) >= len(sum); values = values[len(sum):] {
			for i, v := range values[:len(sum)] {
				sum[i] += float64(v) * float64(v)
			}
		}
	})
	for done := 0; done < len(tokens); done += window {
		piece := append([]int32(nil), tokens[done:done+window]...)
		if bos >= 0 {
			piece[0] = bos
		}
		targets := make([]int32, window)
		for i := range targets {
			targets[i] = -1
		}
		// One target, for a pass without any computes nothing.
		targets[0] = piece[0]
		if _, err := s.Score(Batch{Tokens: piece, Seq: []int32{0, int32(window)}, Targets: targets}); err != nil {
			return nil, fmt.Errorf("engine: computing importance: %w", err)
		}
		rows += window
		if progress != nil {
			if err := progress(done+window, len(tokens)); err != nil {
				return nil, err
			}
		}
	}
	out := &imatrix.Matrix{Entries: map[string]imatrix.Entry{}, Chunks: len(tokens) / window, ChunkSize: window}
	for place, l := range m.linears {
		name, ok := m.config.GGUFName(l.Weight())
		if !ok {
			return nil, fmt.Errorf("engine: computing importance: %w: %q has no name in GGUF", ErrModel, l.Weight())
		}
		e := imatrix.Entry{Count: float64(rows)}
		for _, v := range sums[place] {
			e.Sums = append(e.Sums, float32(v))
			e.Mean = append(e.Mean, float32(v)/float32(rows))
		}
		out.Entries[name] = e
	}
	return out, nil
}
