package evaluate_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/graftml/graft/train/evaluate"
)

// uniform gives every one of n tokens the same probability.
type uniform int

func (u uniform) ScoreText(tokens []int32, window int, progress func(int) error) (sum float64, count int, err error) {
	for done := 0; done < len(tokens); {
		piece := tokens[done:min(done+window, len(tokens))]
		sum += float64(len(piece)-1) * math.Log(float64(u))
		count += len(piece) - 1
		done += len(piece)
		if err := progress(done); err != nil {
			return 0, 0, err
		}
	}
	return sum, count, nil
}

func ExamplePerplexity() {
	tokens := make([]int32, 100)
	r, err := evaluate.Perplexity(context.Background(), uniform(50), tokens, evaluate.Options{Context: 32, MaxTokens: 64})
	fmt.Printf("%.1f over %d tokens, %v\n", r.Perplexity, r.Tokens, err)
	// Output: 50.0 over 64 tokens, <nil>
}

func TestPerplexityRefuses(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	for _, c := range []struct {
		tokens int
		o      evaluate.Options
	}{{1, evaluate.Options{Context: 8}}, {9, evaluate.Options{Context: 1}}, {9, evaluate.Options{Context: 8, MaxTokens: 1}}} {
		if _, err := evaluate.Perplexity(ctx, uniform(3), make([]int32, c.tokens), c.o); !errors.Is(err, evaluate.ErrText) {
			t.Errorf("%d tokens, %+v: error %v, want ErrText", c.tokens, c.o, err)
		}
	}
	cancel()
	if _, err := evaluate.Perplexity(ctx, uniform(3), make([]int32, 9), evaluate.Options{Context: 4}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	if _, err := evaluate.Perplexity(context.Background(), uniform(0), make([]int32, 9), evaluate.Options{Context: 4}); err == nil {
		t.Error("an infinite score is no error")
	}
}

func TestPerplexityProgress(t *testing.T) {
	var seen []int
	_, err := evaluate.Perplexity(context.Background(), uniform(3), make([]int32, 10), evaluate.Options{Context: 4,
		Progress: func(done, total int) { seen = append(seen, done, total) }})
	if err != nil || fmt.Sprint(seen) != "[4 10 8 10 10 10]" {
		t.Errorf("progress %v, error %v", seen, err)
	}
}
