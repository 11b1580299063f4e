package train

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/checkpoint"
	"github.com/graftml/graft/internal/engine"
	"github.com/graftml/graft/internal/testmodel"
)

// several is a recipe of three adapters with little in common.
func several(t *testing.T, model, out string) Recipe {
	t.Helper()
	one, two := write(t, "one.jsonl", colours(20)), write(t, "two.jsonl", preferences)
	return recipeFor(t, model, "out="+out, "max_steps=8", "save_steps=2", "data="+one, `adapters=[{name: plain, lora_dropout: 0.1, holdout: 0.2},
		{name: dora, r: 2, use_dora: true, seed: 9, target_modules: [q_proj, down_proj], rank_pattern: {q_proj: 3}, modules_to_save: [norm]},
		{name: liked, objective: dpo, data: [`+two+`], init_lora_weights: pissa, lora_alpha: 3}]`)
}

// TestSeveralAreEachAlone: on one base, one after the other, each adapter becomes what it becomes alone.
func TestSeveralAreEachAlone(t *testing.T) {
	model := newModel(t)
	out, alone := filepath.Join(t.TempDir(), "all"), t.TempDir()
	recipe := several(t, model, out)
	told := map[string]int{}
	result := mustRun(t, recipe, Options{Progress: func(e Event) { told[e.Adapter]++ }})
	if len(result.Each) != 3 || result.Steps != 24 || result.Out != out || told["plain"] < 8 || told["dora"] < 8 || told["liked"] < 8 || told[""] != 0 {
		t.Errorf("%+v, events %v", result, told)
	}
	for _, one := range recipe.Adapters {
		sub, err := recipe.sub(one)
		if err != nil {
			t.Fatal(err)
		}
		sub.Out = filepath.Join(alone, one.Name)
		mustRun(t, sub, Options{})
		if !bytes.Equal(adapterBytes(t, filepath.Join(out, one.Name)), adapterBytes(t, sub.Out)) {
			t.Errorf("%s is another adapter alone", one.Name)
		}
		for _, name := range outputs {
			if _, err := os.Stat(filepath.Join(out, one.Name, name)); err != nil {
				t.Error(err)
			}
		}
	}
	// What is written says the same once more.
	again, err := LoadRecipe(filepath.Join(out, recipeFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Validate(); err != nil {
		t.Error(err)
	}
	a, _ := recipe.parts()
	b, _ := again.parts()
	for i := range a {
		if key, was, is := a[i].changed(&b[i]); key != "" {
			t.Errorf("%s: written and read, %s changes from %s to %s", recipe.Adapters[i].Name, key, was, is)
		}
	}
	if _, err := Run(context.Background(), recipe, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("a second run: %v", err)
	}
}

// TestSeveralResume: stopped now and then, all adapters become the same; one that is added to the list is
// trained beside those that are there.
func TestSeveralResume(t *testing.T) {
	model := newModel(t)
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "cut")
	mustRun(t, several(t, model, whole), Options{})
	recipe := several(t, model, out)
	all := recipe.Adapters
	recipe.Adapters = all[:2]
	stops := 0
	for at := 3; ; at += 2 {
		ctx, cancel := context.WithCancel(context.Background())
		steps := 0
		_, err := Run(ctx, recipe, Options{Resume: stops > 0, Progress: func(e Event) {
			if e.Kind == Step {
				if steps++; steps == at {
					cancel()
				}
			}
		}})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `adapter "`) {
			t.Fatal(err)
		}
		stops++
	}
	recipe.Adapters = all
	mustRun(t, recipe, Options{Resume: true})
	for _, one := range all {
		if !bytes.Equal(adapterBytes(t, filepath.Join(out, one.Name)), adapterBytes(t, filepath.Join(whole, one.Name))) {
			t.Errorf("%s is another adapter after %d stops", one.Name, stops)
		}
	}
	if stops < 2 {
		t.Errorf("stopped %d times only", stops)
	}
}

// TestContinueAnyAdapter: a run goes on from what another left, whatever is in it, and alone in what it
// began with.
func TestContinueAnyAdapter(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(20))
	for name, sets := range map[string][]string{
		"patterns": {"use_rslora=true", "rank_pattern={q_proj: 2}", "alpha_pattern={v_proj: 5}", "target_modules=[q_proj, v_proj]"},
		"dora":     {"use_dora=true", "target_modules=[q_proj, embed_tokens]", "modules_to_save=[norm]"},
		"rows":     {"trainable_token_indices=[100, 33, 101]", "lora_bias=true"},
		"tied":     {"target_modules=[q_proj, embed_tokens]", "ensure_weight_tying=true"},
		"pissa":    {"init_lora_weights=pissa"},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
			common := []string{"data=" + data, "eval_data=" + data, "lr_scheduler=constant"}
			one := mustRun(t, recipeFor(t, model, append(append(sets, common...), "out="+first, "max_steps=6")...), Options{})
			var notes []string
			r, err := LoadRecipe("", append(common, "model="+model, "max_length=96", "learning_rate=1e-2", "batch_size=2", "out="+second, "init_adapter="+first, "max_steps=6")...)
			if err != nil {
				t.Fatal(err)
			}
			two := mustRun(t, r, Options{Progress: func(e Event) { notes = append(notes, e.Text) }})
			if d := math.Abs(two.FirstEval - one.BestEval); d > 1e-5 {
				t.Errorf("it goes on from loss %v, not %v", two.FirstEval, one.BestEval)
			}
			if !(two.BestEval < 0.9*one.BestEval) {
				t.Errorf("loss %v, then %v", one.BestEval, two.BestEval)
			}
			if strings.Contains(strings.Join(notes, "\n"), "warning") {
				t.Errorf("warned of its own base: %q", notes)
			}
			a, errA := adapters.ReadPEFT(first)
			b, errB := adapters.ReadPEFT(second)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			if len(a.Pairs) != len(b.Pairs) || len(a.Whole) != len(b.Whole) || len(a.Rows) != len(b.Rows) || a.Config.RSLoRA != b.Config.RSLoRA ||
				a.Config.TieWeights != b.Config.TieWeights || a.Config.R != b.Config.R || a.Config.BaseHash != b.Config.BaseHash {
				t.Errorf("%+v became %+v", a.Config, b.Config)
			}
			for i := range a.Pairs {
				if p, q := &a.Pairs[i], &b.Pairs[i]; p.R != q.R || p.Scale != q.Scale || (p.Magnitude == nil) != (q.Magnitude == nil) || (p.Bias == nil) != (q.Bias == nil) {
					t.Errorf("%s: rank %d and scale %v became %d and %v", p.Module, p.R, p.Scale, q.R, q.Scale)
				}
			}
		})
	}
}

// TestOtherBaseIsTold: going on from another base's adapter is told, and so is one's own once more.
func TestOtherBaseIsTold(t *testing.T) {
	base, data := newModel(t), write(t, "d.jsonl", colours(8))
	first := filepath.Join(t.TempDir(), "first")
	mustRun(t, recipeFor(t, base, "data="+data, "out="+first, "max_steps=1"), Options{})
	m, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	table := m.Tensor("model.embed_tokens.weight")
	table[0] += 1
	other := writeModel(t, m)
	for model, want := range map[string]int{base: 0, other: 1} {
		told := 0
		r := recipeFor(t, model, "data="+data, "out="+filepath.Join(t.TempDir(), "next"), "max_steps=1", "init_adapter="+first)
		mustRun(t, r, Options{Progress: func(e Event) {
			if strings.Contains(e.Text, "warning: adapter") && strings.Contains(e.Text, base) && strings.Contains(e.Text, other) {
				told++
			}
		}})
		if told != want {
			t.Errorf("%s: told %d times", model, told)
		}
	}
}

// TestReferenceIsTheBase: the reference of preferences is the base as it was, whatever the adapter
// replaces or takes out of it.
func TestReferenceIsTheBase(t *testing.T) {
	dir := newModel(t)
	c, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := engine.Load(c, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tokens := testmodel.Tokens("reference", 12, 256)
	b := engine.Batch{Tokens: tokens, Targets: append(append([]int32{}, tokens[1:]...), -1), Seq: []int32{0, 12}}
	var want []float32
	for _, sets := range [][]string{{}, {"modules_to_save=[lm_head, norm]"}, {"init_lora_weights=pissa"}, {"trainable_token_indices=[3, 4]", "use_dora=true"}} {
		r := recipeFor(t, dir, append(sets, "data=d", "out=o")...)
		r.resolve()
		a, frozen, err := newAdapter(&r, m)
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewSession(engine.SessionOptions{Adapter: a, Frozen: frozen})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range s.Params() {
			for i := range p.Value {
				p.Value[i] += 0.1
			}
		}
		got, err := s.ReferenceLogProbs(b)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = append(want, got...)
			if changed, _ := s.LogProbs(b); relative(changed, want) < 1e-3 {
				t.Error("the adapter changes nothing")
			}
			continue
		}
		if relative(got, want) != 0 {
			t.Errorf("%v: the reference is %.2g apart from the base", sets, relative(got, want))
		}
	}
}

// TestPlanOfVariants: a plan counts what an adapter is made of, and of several the one that takes most.
func TestPlanOfVariants(t *testing.T) {
	model := newModel(t)
	plan := func(sets ...string) (adapter, gradients int64) {
		t.Helper()
		p, err := PlanMemory(recipeFor(t, model, sets...), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range p.Parts {
			switch part.Name {
			case "adapter":
				adapter = part.Bytes
			case "gradients":
				gradients = part.Bytes
			}
		}
		return adapter, gradients
	}
	a, g := plan()
	if fa, fg := plan("init_lora_weights=pissa"); fa != 2*a || fg != g {
		t.Errorf("pissa: %d bytes and gradients of %d, plain %d and %d", fa, fg, a, g)
	}
	c, err := testmodel.Config("llama")
	if err != nil {
		t.Fatal(err)
	}
	whole := 4 * int64(c.Vocab) * int64(c.Hidden)
	if wa, wg := plan("modules_to_save=lm_head"); wa != a+whole || wg != g+whole {
		t.Errorf("lm_head saved: %d bytes and gradients of %d, plain %d and %d", wa, wg, a, g)
	}
	if sa, sg := plan("adapters=[{name: a, r: 1}, {name: b, r: 8}, {name: c}]"); sa != 2*a || sg != 2*g {
		t.Errorf("several: %d bytes and gradients of %d, of rank 4 %d and %d", sa, sg, a, g)
	}
	if half, _ := plan("rank_pattern={.*: 2}"); 2*half != a {
		t.Errorf("half the rank: %d bytes, the whole %d", half, a)
	}
}
