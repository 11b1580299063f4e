//go:build cgo

package ort

import (
	"testing"

	"github.com/graftml/graft/internal/model"
	"github.com/graftml/graft/internal/testmodel"
)

// long is a test model with room for many tokens.
func long(t *testing.T) *model.Config {
	c := *config(t, "llama")
	c.Context = 1024
	data, err := c.JSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := model.ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCacheGrows evaluates a sequence while its cache grows, and with one that is large from the start.
func TestCacheGrows(t *testing.T) {
	s := session(t, export(t, long(t)))
	tokens := testmodel.Tokens("long", 700, s.Vocab())
	growing, ready := state(t, s, ""), state(t, s, "")
	if err := ready.cache.reserve(s.shape, 0, 1024); err != nil {
		t.Fatal(err)
	}
	want := logits(t, ready, tokens, len(tokens))
	if d := maxDiff(logits(t, growing, tokens[:500], 100), want[:500*s.Vocab()]); d > 1e-4 {
		t.Errorf("logits differ by %v", d)
	}
	if d := maxDiff(logits(t, growing, tokens[500:], 1), want[500*s.Vocab():]); d > 1e-4 {
		t.Errorf("token by token, logits differ by %v", d)
	}
	if growing.cache.size != 1024 {
		t.Errorf("a cache of %d places for %d tokens", growing.cache.size, len(tokens))
	}
}
