package train

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// planFor returns the plan that a run makes.
func planFor(t *testing.T, r Recipe) *Plan {
	t.Helper()
	var plan *Plan
	r.Out = filepath.Join(t.TempDir(), "run")
	mustRun(t, r, Options{Planned: func(p *Plan) { plan = p }})
	return plan
}

// TestMemory: a run that must fit computes as few blocks again as that takes, writes the same bytes, and
// may be resumed within another limit; one that cannot fit is refused before anything is written.
func TestMemory(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(30))
	out := filepath.Join(t.TempDir(), "free")
	// More memory in activations than the noise of what the test process holds.
	base := []string{"data=" + data, "batch_size=30", "r=2", "max_steps=2", "lora_dropout=0.2"}
	recipe := func(sets ...string) Recipe { return recipeFor(t, model, append(slices.Clone(base), sets...)...) }
	free := recipe("out=" + out)
	mustRun(t, free, Options{})

	none, all := planFor(t, free), planFor(t, recipe("remat=block"))
	if none.RematBlocks != 0 || all.RematBlocks != 1 || none.Blocks != 1 || none.Total <= all.Total {
		t.Fatalf("blocks computed again: %+v without a limit, %+v with remat block", none, all)
	}
	between := "memory=" + strconv.FormatInt((none.Total+all.Total)/2, 10)
	tight := recipe("out="+filepath.Join(t.TempDir(), "tight"), between)
	var plan *Plan
	mustRun(t, tight, Options{Planned: func(p *Plan) { plan = p }})
	if plan.RematBlocks != 1 || !plan.Fits() {
		t.Errorf("within %s: %+v", between, plan)
	}
	if !bytes.Equal(adapterBytes(t, out), adapterBytes(t, tight.Out)) {
		t.Error("computing blocks again changes the adapter")
	}
	tight.Memory, tight.Remat = "2GB", "none"
	mustRun(t, tight, Options{Resume: true})

	for _, c := range []struct{ set, want string }{
		{"remat=auto", "with 1 of 2 blocks computed again"}, {"remat=none", "with remat none, more than memory \"1MB\"; lower batch_size (and raise gradient_accumulation_steps) or max_length, or use remat auto, method qlora, compute bf16"},
	} {
		r := recipe("out="+filepath.Join(t.TempDir(), "refused"), "memory=1MB", c.set)
		if _, err := Run(context.Background(), r, Options{}); !errors.Is(err, ErrRecipe) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.set, err, c.want)
		}
		if _, err := os.Stat(r.Out); err == nil {
			t.Error("the output was begun")
		}
	}
}

// TestKeptLogits: full training within a limit keeps its logits where that fits, to the same bytes.
func TestKeptLogits(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(8))
	run := func(sets ...string) ([]byte, *Plan) {
		var plan *Plan
		out := filepath.Join(t.TempDir(), "run")
		r := recipeFor(t, model, append([]string{"method=full", "data=" + data, "batch_size=4", "max_steps=2", "out=" + out}, sets...)...)
		mustRun(t, r, Options{Planned: func(p *Plan) { plan = p }})
		return read(t, out, "model.safetensors"), plan
	}
	want, free := run()
	got, roomy := run("memory=10GB")
	if free.KeepLogits || !roomy.KeepLogits || roomy.Total <= free.Total {
		t.Errorf("without a limit %+v, with room %+v", free, roomy)
	}
	if !bytes.Equal(got, want) {
		t.Error("keeping logits changes the model")
	}
	if _, again := run("memory=10GB", "remat=block"); again.KeepLogits {
		t.Errorf("blocks are computed again to save memory: %+v", again)
	}
}

// TestLargestBatch: a run is planned for the longest examples that may meet, in training or evaluation.
func TestLargestBatch(t *testing.T) {
	model := newModel(t)
	text := func(lengths ...int) string {
		var b strings.Builder
		for _, n := range lengths {
			b.WriteString(`{"text": "` + strings.Repeat("x", n-1) + `"}` + "\n") // and the end of the text
		}
		return b.String()
	}
	data := write(t, "d.jsonl", text(5, 40, 8, 31, 9))
	for _, c := range []struct {
		sets []string
		want []int
	}{
		{nil, []int{40, 31}},
		{[]string{"batch_size=3"}, []int{40, 31, 9}},
		{[]string{"batch_size=9"}, []int{40, 31, 9, 8, 5}},
		{[]string{"eval_data=" + write(t, "e.jsonl", text(50, 33, 2))}, []int{50, 33}},
		{[]string{"packing=examples", "max_length=45"}, []int{45, 45}},
		{[]string{"packing=examples", "max_length=60"}, []int{60, 33}},
	} {
		r := recipeFor(t, model, append([]string{"data=" + data, "max_steps=1"}, c.sets...)...)
		if got := planFor(t, r).Lengths; !slices.Equal(got, c.want) {
			t.Errorf("%v: sequences of %v tokens, want %v", c.sets, got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "900": 900, "900MB": 900e6, " 1.5 gb": 15e8, "2TB": 2e12, "7b": 7, "3 kB": 3000} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"GB", "-1GB", "0", "1e30TB", "NaN", "inf", "five"} {
		if _, err := ParseSize(text); err == nil {
			t.Errorf("%q is a size", text)
		}
	}
}
