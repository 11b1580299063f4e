package ort

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/graftml/graft/internal/testmodel"
	"github.com/graftml/graft/onnx"
)

// TestSwapsUnderLoad swaps the default fifty times, adds, replaces and removes adapters, while requests run
// that name an adapter or take the default: every answer is exactly what the adapter gives that the request
// was made with. GRAFT_SWAP_BUNDLE names a bundle with adapters to run it on instead of a tiny one; nothing
// but its default changes, and that is set back.
func TestSwapsUnderLoad(t *testing.T) {
	const swaps, workers = 50, 4
	dir := os.Getenv("GRAFT_SWAP_BUNDLE")
	var b *onnx.Bundle
	if dir == "" {
		b = export(t, config(t, "llama"))
		a := drawn(b)
		if err := errors.Join(b.Add("one", a, nil), b.Add("two", a.Scaled(-1), nil), b.Add("three", a.Scaled(0.5), nil), b.Add("guest", a.Scaled(2), nil)); err != nil {
			t.Fatal(err)
		}
	} else {
		var err error
		if b, err = onnx.OpenBundle(dir); err != nil {
			t.Fatal(err)
		}
		was := b.Default()
		t.Cleanup(func() {
			if err := b.SetDefault(was); err != nil {
				t.Error(err)
			}
		})
	}
	s := session(t, b)
	var lasting []string // adapters that stay
	for _, e := range b.Adapters() {
		if e.Name != "guest" {
			lasting = append(lasting, e.Name)
		}
	}
	tokens := testmodel.Tokens("load", 12, s.Vocab())
	answer := func(st *State) []float32 {
		var all []float32
		for part := range slices.Chunk(tokens, 5) { // a prompt, then more: states live through swaps
			if err := st.EvalEach(part, func(_ int, l []float32) error { all = append(all, l...); return nil }); err != nil {
				t.Error(err)
			}
		}
		return all
	}
	want := map[string][]float32{}
	for _, name := range append([]string{"", "guest"}, lasting...) {
		st, err := s.NewState(name)
		if errors.Is(err, onnx.ErrNoAdapter) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want[name] = answer(st)
		st.Close()
	}
	for name, x := range want {
		if name != "" && maxDiff(x, want[""]) == 0 {
			t.Fatalf("adapter %q changes nothing", name)
		}
	}

	var done atomic.Bool
	var asked, gone atomic.Int64
	var requests sync.WaitGroup
	for w := range workers {
		requests.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 9))
			for i := 0; !done.Load() || i < 20; i++ {
				var st *State
				var err error
				name := "the default"
				switch k := rng.IntN(len(lasting) + 3); {
				case k < len(lasting):
					name = lasting[k]
					st, err = s.NewState(name)
				case k == len(lasting):
					name = ""
					st, err = s.NewState(name)
				case k == len(lasting)+1 && dir == "":
					name = "guest" // comes and goes
					if st, err = s.NewState(name); errors.Is(err, onnx.ErrNoAdapter) {
						gone.Add(1)
						continue
					}
				default:
					st, err = s.NewDefaultState()
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if name != "the default" && st.Adapter() != name {
					t.Errorf("asked for %q, got %q", name, st.Adapter())
				}
				if got := answer(st); !slices.Equal(got, want[st.Adapter()]) {
					t.Errorf("%s (%q): another answer than alone, by %v", name, st.Adapter(), maxDiff(got, want[st.Adapter()]))
				}
				st.Close()
				asked.Add(1)
			}
		})
	}
	other, err := onnx.OpenBundle(b.Dir()) // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	var a = drawn(b)
	for i := range swaps {
		next := lasting[i%len(lasting)]
		if i%7 == 6 {
			next = ""
		}
		if err := other.SetDefault(next); err != nil {
			t.Fatal(err)
		}
		st, err := s.NewDefaultState()
		if err != nil || st.Adapter() != next {
			t.Fatalf("swap %d to %q: a new state has %q, error %v", i, next, st.Adapter(), err)
		}
		if got := answer(st); !slices.Equal(got, want[next]) {
			t.Errorf("swap %d to %q: another answer than alone", i, next)
		}
		st.Close()
		if dir != "" {
			continue
		}
		if i%5 == 2 {
			err = other.Remove("guest")
		} else if i%5 == 4 {
			err = other.Add("guest", a.Scaled(2), nil)
		}
		if err != nil {
			t.Fatal(fmt.Errorf("swap %d: %w", i, err))
		}
	}
	done.Store(true)
	requests.Wait()
	t.Logf("%d swaps, %d answers, %d requests for an adapter that was not there", swaps, asked.Load(), gone.Load())
}
