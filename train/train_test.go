package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/graftml/graft/adapters"
	"github.com/graftml/graft/internal/chat"
	"github.com/graftml/graft/internal/kernel"
	"github.com/graftml/graft/internal/testmodel"
)

// newModel writes a tiny llama with a tokenizer of bytes and returns its folder.
func newModel(t testing.TB) string {
	t.Helper()
	m, err := testmodel.Named("llama")
	if err != nil {
		t.Fatal(err)
	}
	return writeModel(t, m)
}

// writeModel writes a model with a tokenizer of bytes and returns its folder.
func writeModel(t testing.TB, m *testmodel.Model) string {
	t.Helper()
	dir := t.TempDir()
	if err := m.WriteFolder(dir); err != nil {
		t.Fatal(err)
	}
	// Byte-level BPE spells byte b as the b-th of these: itself where it prints, else 256 and on.
	vocab, next := map[string]int{}, rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r, next = next, next+1
		}
		vocab[string(r)] = b
	}
	var added []map[string]any
	for i, s := range []string{"<|im_start|>", "<|im_end|>"} {
		added = append(added, map[string]any{"id": 256 + i, "content": s, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
		vocab[s] = 256 + i
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	chatml, _ := chat.Builtin("chatml")
	for name, v := range map[string]any{
		"tokenizer.json": map[string]any{
			"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil, "pre_tokenizer": byteLevel,
			"post_processor": nil, "decoder": byteLevel,
			"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
				"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []string{}},
		},
		"tokenizer_config.json": map[string]any{"eos_token": "<|im_end|>", "chat_template": chatml.Source()},
	} {
		data, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// write puts a file into a folder of its own and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// colours is a data set of n conversations that one rule explains.
func colours(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"messages": [{"role": "user", "content": "item %d%s"}, {"role": "assistant", "content": "red %s"}]}`+"\n", i, strings.Repeat(".", i%7), strings.Repeat("!", i%3))
	}
	return b.String()
}

// recipeFor makes a recipe of keys and values.
func recipeFor(t testing.TB, model string, sets ...string) Recipe {
	t.Helper()
	common := []string{"model=" + model, "max_length=96", "learning_rate=1e-2", "batch_size=2", "seed=3"}
	if !slices.Contains(sets, "method=full") {
		common = append(common, "r=4")
	}
	r, err := LoadRecipe("", append(common, sets...)...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRun(t testing.TB, r Recipe, o Options) *Result {
	t.Helper()
	result, err := Run(context.Background(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func read(t testing.TB, parts ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func adapterBytes(t testing.TB, out string) []byte {
	return read(t, out, "adapter_model.safetensors")
}

// resultBytes are those of the adapter or of the model that a run has written.
func resultBytes(t testing.TB, out string) []byte {
	if _, err := os.Stat(filepath.Join(out, "config.json")); err == nil {
		return read(t, out, "model.safetensors")
	}
	return adapterBytes(t, out)
}

func lines(t testing.TB, out string) (list []metrics) {
	t.Helper()
	if err := eachMetrics(out, func(m *metrics, _ []byte) { list = append(list, *m) }); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestLossFalls(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	var events []Event
	r := recipeFor(t, newModel(t), "data="+write(t, "d.jsonl", colours(40)), "out="+out, "holdout=0.2", "epochs=3", "eval_steps=10",
		"lora_dropout=0.1", "warmup_steps=2", "method=qlora")
	result := mustRun(t, r, Options{Progress: func(e Event) { events = append(events, e) }})
	if !(result.BestEval < 0.5*result.FirstEval) || result.Steps != 48 {
		t.Errorf("held-out loss %v before and %v after %d steps", result.FirstEval, result.BestEval, result.Steps)
	}
	for _, name := range outputs {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	list := lines(t, out)
	if len(list) != 49 || list[0].Step != 0 || list[0].EvalLoss == nil || list[10].EvalPerplexity == nil || list[11].EvalLoss != nil || list[48].EvalLoss == nil {
		t.Errorf("%d lines of metrics", len(list))
	}
	for i, m := range list[1:] {
		if m.Step != i+1 || m.Loss == nil || m.LR == nil || m.GradNorm == nil || m.Tokens < m.TargetTokens || m.TargetTokens == 0 || m.TokensPerSecond == nil {
			t.Fatalf("line %d: %+v", i+1, m)
		}
	}
	if p := *list[10].EvalPerplexity; math.Abs(p-math.Exp(*list[10].EvalLoss)) > 1e-9 {
		t.Errorf("perplexity %v of loss %v", p, *list[10].EvalLoss)
	}
	if got := *list[1].LR; got != 0 || *list[3].LR != 1e-2 {
		t.Errorf("rates %v and %v in steps 1 and 3", got, *list[3].LR)
	}
	kinds := map[Kind]int{}
	for _, e := range events {
		kinds[e.Kind]++
	}
	if kinds[Step] != 48 || kinds[Evaluated] != 6 || kinds[Saved] == 0 || kinds[Note] == 0 {
		t.Errorf("events %v", kinds)
	}
	a, err := adapters.ReadPEFT(out)
	if err != nil || a.Config.R != 4 || a.Config.Alpha != 8 || a.Config.Dropout != 0.1 || strings.Join(a.Config.TargetModules, " ") != "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj" {
		t.Errorf("adapter %+v, %v", a.Config, err)
	}
	if again, err := LoadRecipe(filepath.Join(out, recipeFile)); err != nil || again.Seed != 3 || again.Method != "qlora" {
		t.Errorf("recipe %+v, %v", again, err)
	}
	if svg := read(t, out, plotFile); !bytes.Contains(svg, []byte("<svg")) {
		t.Error("loss.svg is no SVG")
	}
	if card := string(read(t, out, cardFile)); !strings.HasPrefix(card, "---\nbase_model: ") || !strings.Contains(card, "held-out loss after") {
		t.Errorf("card:\n%s", card)
	}
}

const preferences = `{"prompt": "say", "chosen": " yes", "rejected": " no"}
{"prompt": "and", "chosen": " more", "rejected": " lesser"}
{"prompt": "but", "chosen": " yes", "rejected": " now"}
`

func TestPreferences(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	data := write(t, "p.jsonl", preferences)
	r := recipeFor(t, newModel(t), "data="+data, "eval_data="+data, "out="+out, "objective=dpo", "max_steps=12", "learning_rate=1e-2", "lr_scheduler=constant")
	result := mustRun(t, r, Options{})
	if math.Abs(result.FirstEval-math.Ln2) > 1e-6 {
		t.Errorf("loss of an adapter that does nothing: %v, want ln 2", result.FirstEval)
	}
	list := lines(t, out)
	if m := list[12]; m.Margins == nil || !(*m.Margins > 0) || *m.Accuracies != 1 || m.EvalMargins == nil || m.EvalPerplexity != nil || !(result.LastEval < 0.5) {
		t.Errorf("%+v, held-out loss %v", m, result.LastEval)
	}
	if m := list[1].rewards; math.Abs(*m.Margins-(*m.Chosen-*m.Rejected)) > 1e-9 || m.LogpsChosen == nil {
		t.Errorf("%+v", m)
	}
}

// However an effective batch is divided into passes, the step is the same but for rounding.
func TestAccumulation(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(24))
	losses := func(sets ...string) (out []float64) {
		dir := filepath.Join(t.TempDir(), "run")
		mustRun(t, recipeFor(t, model, append(sets, "data="+data, "out="+dir, "shuffle=false", "max_steps=5")...), Options{})
		for _, m := range lines(t, dir) {
			out = append(out, *m.Loss, *m.GradNorm)
		}
		return out
	}
	want := losses("batch_size=8")
	for _, sets := range [][]string{{"batch_size=2", "gradient_accumulation_steps=4"}, {"batch_size=1", "gradient_accumulation_steps=8"}} {
		for i, got := range losses(sets...) {
			if math.Abs(got-want[i]) > 2e-4*want[i] {
				t.Errorf("%v: figure %d is %v, want %v", sets, i, got, want[i])
			}
		}
	}
}

// Examples that share a sequence do not see each other.
func TestPackedIsApart(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(8))
	first := func(sets ...string) *metrics {
		dir := filepath.Join(t.TempDir(), "run")
		mustRun(t, recipeFor(t, model, append(sets, "data="+data, "out="+dir, "max_steps=1", "batch_size=8")...), Options{})
		return &lines(t, dir)[0]
	}
	plain, packed := first("packing=none"), first("packing=examples", "max_length=128")
	if d := math.Abs(*plain.Loss - *packed.Loss); d > 1e-5 || plain.Tokens != packed.Tokens {
		t.Errorf("packed %v on %d tokens, apart %v on %d", *packed.Loss, packed.Tokens, *plain.Loss, plain.Tokens)
	}
}

func TestStream(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	text := strings.Repeat("the quick brown fox ", 60) // 1200 bytes, as many tokens
	mustRun(t, recipeFor(t, newModel(t), "data="+write(t, "d.txt", text), "out="+out, "packing=stream", "max_length=100", "batch_size=2", "epochs=1"), Options{})
	list := lines(t, out)
	if len(list) != 6 || list[0].Tokens != 200 || list[0].TargetTokens != 198 {
		t.Errorf("%d steps, the first of %d tokens with %d targets", len(list), list[0].Tokens, list[0].TargetTokens)
	}
}

// TestComputeBF16: a run in bfloat16 follows that in float32, and threads change nothing in it.
func TestComputeBF16(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(40))
	for _, method := range []string{"lora", "qlora"} {
		run := func(compute string, threads int) (list []metrics, adapter []byte) {
			out := filepath.Join(t.TempDir(), "run")
			r := recipeFor(t, model, "data="+data, "out="+out, "max_steps=12", "method="+method, "learning_rate=2e-3", "compute="+compute)
			r.Threads = threads
			mustRun(t, r, Options{})
			return lines(t, out), adapterBytes(t, out)
		}
		exact, apart := run("f32", 0)
		got, first := run("bf16", 1)
		for i, m := range got {
			want := *exact[i].Loss
			if d := math.Abs(*m.Loss-want) / want; !(d < 0.02) {
				t.Errorf("%s: loss %v in step %d, in float32 %v", method, *m.Loss, m.Step, want)
			}
		}
		if bytes.Equal(first, apart) {
			t.Errorf("%s: bf16 and f32 give the same adapter", method)
		}
		for _, threads := range []int{2, 3} {
			if _, again := run("bf16", threads); !bytes.Equal(again, first) {
				t.Errorf("%s: %d threads give another adapter", method, threads)
			}
		}
	}
}

func TestEarlyStopping(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	data := write(t, "d.jsonl", colours(12))
	r := recipeFor(t, newModel(t), "data="+data, "out="+out, "eval_data="+write(t, "e.jsonl", `{"text": "something else"}`), "max_steps=60",
		"eval_steps=2", "early_stopping=2", "learning_rate=0.05", "lr_scheduler=constant")
	result := mustRun(t, r, Options{})
	if !result.Stopped || result.Steps >= 60 || result.BestStep != result.Steps-4 {
		t.Errorf("%+v", result)
	}
	// The adapter is the best one's: evaluated again before a first step, it has that loss.
	again := filepath.Join(t.TempDir(), "again")
	r = recipeFor(t, r.Model, "data="+data, "out="+again, "eval_data="+r.EvalData[0], "max_steps=1", "init_adapter="+out)
	if got := mustRun(t, r, Options{}).FirstEval; math.Abs(got-result.BestEval) > 1e-6 {
		t.Errorf("the adapter written has loss %v, the best was %v", got, result.BestEval)
	}
}

// resumable is the recipe of the tests of interruption: every part of the state matters to it.
func resumable(t testing.TB, method, model, data, out string) Recipe {
	variant := map[string][]string{
		"variants": {"use_dora=true", "modules_to_save=[norm]", "trainable_token_indices=[100, 101, 33]", "target_modules=[q_proj, down_proj, embed_tokens]", "loraplus_lr_ratio=4"},
		"pissa":    {"init_lora_weights=pissa", "use_rslora=true", "rank_pattern={v_proj: 2}"},
	}[method]
	if variant != nil {
		method = "lora"
	}
	sets := append(variant, "method="+method, "data="+data, "out="+out, "holdout=0.2", "max_steps=40", "eval_steps=4", "save_steps=3",
		"weight_decay=0.01", "lr_scheduler=cosine", "gradient_accumulation_steps=3", "packing=examples", "batch_size=1", "max_length=128")
	if method != "full" {
		sets = append(sets, "lora_dropout=0.2")
	}
	return recipeFor(t, model, sets...)
}

// eachMethod runs a test for training adapters, of several kinds, and for training models.
func eachMethod(t *testing.T, test func(t *testing.T, method string)) {
	for _, method := range []string{"lora", "full", "variants", "pissa"} {
		t.Run(method, func(t *testing.T) { test(t, method) })
	}
}

func TestSameBytesOnAnyThreads(t *testing.T) { eachMethod(t, testSameBytesOnAnyThreads) }

func testSameBytesOnAnyThreads(t *testing.T, method string) {
	model, data := newModel(t), write(t, "d.jsonl", colours(30))
	var want []byte
	for _, n := range []int{1, 2, 5} {
		out := filepath.Join(t.TempDir(), "run")
		r := resumable(t, method, model, data, out)
		r.Threads = n
		old := runtime.GOMAXPROCS(min(n, 2))
		mustRun(t, r, Options{})
		runtime.GOMAXPROCS(old)
		if got := resultBytes(t, out); want == nil {
			want = got
		} else if !bytes.Equal(got, want) {
			t.Errorf("%d threads give another result", n)
		}
	}
	if kernel.Threads() < 1 {
		t.Error("the number of threads was not set back")
	}
}

// TestMain runs a recipe in place of the tests where TestKilled starts it again as a child.
func TestMain(m *testing.M) {
	if path := os.Getenv("GRAFT_TEST_RECIPE"); path != "" {
		r, err := LoadRecipe(path)
		if err == nil {
			_, err = Run(context.Background(), r, Options{Resume: true, Progress: func(e Event) {
				if e.Kind == Step {
					fmt.Println(e.Step)
				}
			}})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestKilled(t *testing.T) { eachMethod(t, testKilled) }

func testKilled(t *testing.T, method string) {
	model, data := newModel(t), write(t, "d.jsonl", colours(30))
	whole := filepath.Join(t.TempDir(), "whole")
	r := resumable(t, method, model, data, whole)
	mustRun(t, r, Options{})

	killed := filepath.Join(t.TempDir(), "killed")
	r = resumable(t, method, model, data, killed)
	path := write(t, "r.yaml", string(r.YAML()))
	deaths := 0
	for at := 1; ; at = at*5 + 3 { // the number of steps a child may do before it is killed
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "GRAFT_TEST_RECIPE="+path)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for steps := 0; steps < at; steps++ {
			var step int
			if _, err := fmt.Fscanln(stdout, &step); err != nil {
				break
			}
		}
		time.Sleep(time.Duration(time.Now().UnixNano()%5) * time.Millisecond)
		cmd.Process.Kill()
		io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err == nil {
			break
		}
		if !strings.Contains(cmd.ProcessState.String(), "killed") {
			t.Fatalf("child: %v: %s", cmd.ProcessState, &stderr)
		}
		deaths++
	}
	if deaths < 2 {
		t.Errorf("killed %d times only", deaths)
	}
	mustRun(t, r, Options{Resume: true}) // the last child may have died behind its last step
	if !bytes.Equal(resultBytes(t, killed), resultBytes(t, whole)) {
		t.Errorf("killed %d times, the result is another", deaths)
	}
	sameMetrics(t, killed, whole)
	for _, dir := range []string{killed, filepath.Join(killed, stateDir)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("%s is left", e.Name())
			}
		}
	}
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".state.safetensors-1", ".metrics.jsonl77", ".best-3.safetensors.7.tmp", ".keep", "metrics.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tidy(dir)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != ".keep" || left[1].Name() != "metrics.jsonl" {
		t.Errorf("left %v, %v", left, err)
	}
}

// sameMetrics compares all figures but the speed.
func sameMetrics(t *testing.T, a, b string) {
	t.Helper()
	x, y := lines(t, a), lines(t, b)
	for i := range x {
		x[i].TokensPerSecond = nil
	}
	for i := range y {
		y[i].TokensPerSecond = nil
	}
	p, _ := json.Marshal(x)
	q, _ := json.Marshal(y)
	if !bytes.Equal(p, q) {
		t.Errorf("metrics differ:\n%s\n%s", p, q)
	}
}

// cancelAfter cancels a context when it has been asked for its error so many times.
type cancelAfter struct {
	context.Context
	left *int
}

func (c cancelAfter) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCancelled(t *testing.T) { eachMethod(t, testCancelled) }

func testCancelled(t *testing.T, method string) {
	model, data := newModel(t), write(t, "d.jsonl", colours(30))
	whole := filepath.Join(t.TempDir(), "whole")
	mustRun(t, resumable(t, method, model, data, whole), Options{})
	out := filepath.Join(t.TempDir(), "cancelled")
	for round, pass := 0, 2; ; round, pass = round+1, pass+7 { // within steps and within evaluations
		left := pass
		_, err := Run(cancelAfter{context.Background(), &left}, resumable(t, method, model, data, out), Options{Resume: round > 0})
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(out, stateDir, stateFile)); err != nil {
			t.Fatalf("after pass %d: %v", pass, err)
		}
		for _, name := range []string{"adapter_model.safetensors", "config.json"} {
			if _, err := os.Stat(filepath.Join(out, name)); err == nil {
				t.Fatalf("a cancelled run has written %s", name)
			}
		}
	}
	if !bytes.Equal(resultBytes(t, out), resultBytes(t, whole)) {
		t.Error("cancelled and resumed, the result is another")
	}
	sameMetrics(t, out, whole)
}

func TestOutExists(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(8))
	out := filepath.Join(t.TempDir(), "run")
	r := recipeFor(t, model, "data="+data, "out="+out, "max_steps=2")
	mustRun(t, r, Options{})
	before := adapterBytes(t, out)
	if _, err := Run(context.Background(), r, Options{}); !errors.Is(err, ErrExists) {
		t.Errorf("second run: %v", err)
	}
	for _, c := range []struct{ set, want string }{{"learning_rate=0.5", "learning_rate was 0.01 and is now 0.5"}, {"max_steps=3", "max_steps was 2 and is now 3"}} {
		changed := recipeFor(t, model, "data="+data, "out="+out, "max_steps=2", c.set)
		if _, err := Run(context.Background(), changed, Options{Resume: true}); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.set, err)
		}
	}
	// A finished run resumes to the same results.
	mustRun(t, r, Options{Resume: true})
	if !bytes.Equal(before, adapterBytes(t, out)) || len(lines(t, out)) != 2 {
		t.Error("resuming a finished run changed it")
	}
	if err := os.WriteFile(data, []byte(colours(9)), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), r, Options{Resume: true}); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "data are not those") {
		t.Errorf("changed data: %v", err)
	}
	mustRun(t, r, Options{Force: true})
	if err := os.WriteFile(filepath.Join(out, stateDir, stateFile), []byte("torn"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(context.Background(), r, Options{Resume: true}); !errors.Is(err, ErrState) {
		t.Errorf("damaged state: %v", err)
	}
	other := recipeFor(t, model, "data="+data, "out="+filepath.Dir(data), "max_steps=2")
	if _, err := Run(context.Background(), other, Options{Resume: true}); !errors.Is(err, ErrState) {
		t.Errorf("a folder that holds no run: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(8))
	for _, c := range []struct {
		name string
		sets []string
		want string
	}{
		{"no model", []string{"model=/nowhere/model.gguf"}, "model: stat"},
		{"no data", []string{"data=/nowhere/data.jsonl"}, "data: stat"},
		{"too long", []string{"max_length=129"}, "max_length 129 is more than the model's context of 128"},
		{"no such module", []string{"target_modules=[q_proj, w_proj]"}, `no product of the model is called "w_proj"; it has down_proj`},
		{"nothing matches", []string{"target_modules=q_proj"}, `expression "q_proj" matches none`},
		{"no expression", []string{"target_modules=("}, "is not a regular expression"},
		{"no template", []string{"chat_template=nonsense"}, `chat_template "nonsense" is neither`},
		{"preferences for sft", []string{"data=" + write(t, "p.jsonl", preferences)}, "objective dpo takes"},
		{"conversations for dpo", []string{"objective=dpo"}, "preferences have the fields chosen and rejected"},
		{"bad row", []string{"data=" + write(t, "b.jsonl", colours(1)+`{"messages": 3}`)}, "line 2"},
		{"row beyond the context", []string{"data=" + write(t, "l.jsonl", `{"text": "`+strings.Repeat("long ", 40)+`"}`)}, `line 1: malformed data: it has 201 tokens, more than the model's context of 128`},
		{"all held out", []string{"holdout=0.99"}, "lower holdout"},
		{"stream of rows", []string{"packing=stream"}, "a stream needs a plain text file"},
		{"short stream", []string{"packing=stream", "data=" + write(t, "s.txt", "short")}, "5 tokens make no row"},
		{"diverging", []string{"learning_rate=1e30", "max_grad_norm=0", "max_steps=9"}, "training diverged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			_, err := Run(context.Background(), recipeFor(t, model, append([]string{"data=" + data, "out=" + out}, c.sets...)...), Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(out, "adapter_model.safetensors")); err == nil {
				t.Error("an adapter was written")
			}
			if _, err := os.Stat(out); err == nil && c.name != "diverging" {
				t.Error("the output was begun")
			}
		})
	}
}

func TestInitAdapter(t *testing.T) {
	model, data := newModel(t), write(t, "d.jsonl", colours(8))
	first := filepath.Join(t.TempDir(), "first")
	mustRun(t, recipeFor(t, model, "data="+data, "out="+first, "max_steps=3", "lora_alpha=12", "target_modules=[q_proj, v_proj]"), Options{})
	second := filepath.Join(t.TempDir(), "second")
	r, err := LoadRecipe("", "model="+model, "data="+data, "out="+second, "max_steps=1", "learning_rate=0", "init_adapter="+first)
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, r, Options{})
	if !bytes.Equal(adapterBytes(t, first), adapterBytes(t, second)) {
		t.Error("a rate of 0 changes the adapter")
	}
	a, err := adapters.ReadPEFT(second)
	if err != nil || a.Config.Alpha != 12 || a.Config.R != 4 || strings.Join(a.Config.TargetModules, " ") != "q_proj v_proj" {
		t.Errorf("%+v, %v", a.Config, err)
	}
	for _, set := range []string{"r=8", "lora_alpha=3"} {
		r, _ := LoadRecipe("", "model="+model, "data="+data, "out="+second+"x", "init_adapter="+first, set)
		if _, err := Run(context.Background(), r, Options{}); !errors.Is(err, ErrRecipe) {
			t.Errorf("%s: %v", set, err)
		}
	}
}
