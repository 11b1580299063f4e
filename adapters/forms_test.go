package adapters

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The model of these tests: two layers, whose q and k have their rows in another order in GGUF.
const (
	testTable = "model.embed_tokens"
	testHead  = "lm_head"
)

// testShapes are (out, in) by the last part of a module.
var testShapes = map[string][2]int{
	"q_proj": {8, 6}, "k_proj": {4, 6}, "v_proj": {4, 6}, "down_proj": {6, 10}, "embed_tokens": {6, 20}, "lm_head": {20, 6},
}

var testStems = map[string]string{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "mlp.down_proj": "ffn_down"}

func testModules() []string {
	var out []string
	for layer := range 2 {
		for module := range testStems {
			out = append(out, fmt.Sprintf("model.layers.%d.%s", layer, module))
		}
	}
	slices.Sort(out)
	return append(out, testTable, testHead)
}

func testBase(tied bool) Base {
	return Base{Table: testTable, Head: testHead, Tied: tied,
		Linear: func(module string) (out, in int, ok bool) {
			if !slices.Contains(testModules(), module) {
				return 0, 0, false
			}
			s := testShapes[lastPart(module)]
			return s[0], s[1], true
		},
		Shape: func(name string) ([]int, bool) {
			module, ok := strings.CutSuffix(name, ".weight")
			s, known := testShapes[lastPart(module)]
			switch {
			case name == "model.norm.weight":
				return []int{6}, true
			case !ok || !known || !slices.Contains(testModules(), module):
				return nil, false
			case module == testTable:
				return []int{s[1], s[0]}, true
			}
			return []int{s[0], s[1]}, true
		}}
}

// testNames says how that model is in GGUF: rows of q and k go two by two.
func testNames() GGUFNames {
	return GGUFNames{Arch: "llama", Modules: testModules(),
		Name: func(weight string) (string, bool) {
			module := strings.TrimSuffix(weight, ".weight")
			inner, layer := mlxKey(module)
			switch {
			case module == testTable:
				return "token_embd.weight", true
			case module == testHead:
				return "output.weight", true
			case testStems[inner] == "":
				return "", false
			}
			return fmt.Sprintf("blk.%d.%s.weight", layer, testStems[inner]), true
		},
		Row: func(weight string, row, rows int) int {
			if !strings.HasSuffix(weight, "q_proj.weight") && !strings.HasSuffix(weight, "k_proj.weight") {
				return row
			}
			if rows%4 != 0 {
				return -1
			}
			return row/4*4 + 2*(row%2) + row%4/2
		},
		Rows: func(module string) int { return testShapes[lastPart(module)][0] },
		Fused: func(name string) []string {
			var layer int
			if n, _ := fmt.Sscanf(name, "blk.%d.attn_qkv.weight", &layer); n != 1 || layer > 1 || name != fmt.Sprintf("blk.%d.attn_qkv.weight", layer) {
				return nil
			}
			var out []string
			for _, part := range []string{"q_proj", "k_proj", "v_proj"} {
				out = append(out, fmt.Sprintf("model.layers.%d.self_attn.%s", layer, part))
			}
			return out
		}}
}

// testAdapter has pairs of rank r and scale s on modules whose path ends in one of the given.
func testAdapter(seed uint64, r int, s float64, ends ...string) *Adapter {
	rng := rand.New(rand.NewPCG(seed, 7))
	a := &Adapter{Name: "test", Config: Config{TaskType: "CAUSAL_LM"}}
	fill := func(n int) []float32 {
		out := make([]float32, n)
		for i := range out {
			out[i] = rng.Float32() - 0.5
		}
		return out
	}
	for _, m := range testModules() {
		if !slices.ContainsFunc(ends, func(end string) bool { return strings.HasSuffix(m, end) }) {
			continue
		}
		shape := testShapes[lastPart(m)]
		a.Pairs = append(a.Pairs, Pair{Module: m, Table: m == testTable, R: r, Out: shape[0], In: shape[1], Scale: s, A: fill(r * shape[1]), B: fill(r * shape[0])})
	}
	SortPairs(a.Pairs)
	setDefaults(a)
	return a
}

// variants of adapters, with the forms that hold them.
func testVariants() map[string]*Adapter {
	mixed := testAdapter(3, 4, 2, "q_proj", "down_proj")
	other := testAdapter(4, 2, 0.75, "k_proj", "v_proj")
	mixed.Pairs = append(mixed.Pairs, other.Pairs...)
	SortPairs(mixed.Pairs)
	stable := testAdapter(5, 3, 6/math.Sqrt(3), "q_proj", "v_proj")
	stable.Config = Config{R: 3, Alpha: 6, RSLoRA: true, TaskType: "CAUSAL_LM"}
	dora := testAdapter(6, 2, 1.5, "q_proj", "down_proj")
	for i := range dora.Pairs {
		dora.Pairs[i].Magnitude = slices.Repeat([]float32{1.25}, dora.Pairs[i].Out)
	}
	off := testAdapter(8, 2, 1, "q_proj")
	off.Pairs[0].Scale = 0
	noted := testAdapter(9, 2, 1, "v_proj")
	noted.Config.Notes = map[string]string{"adapter.lora.task_name": "rhymes", "adapter.lora.prompt_prefix": "In verse: "}
	noted.Config.BaseHash = strings.Repeat("ab", 32)
	return map[string]*Adapter{
		"plain": testAdapter(1, 4, 2, "proj"), "one": testAdapter(2, 1, 16, "down_proj"), "mixed": mixed, "rslora": stable, "dora": dora,
		"table": testAdapter(7, 2, 4, "q_proj", "embed_tokens", "lm_head"), "off": off, "noted": noted,
		"negative": testAdapter(10, 2, -0.5, "q_proj", "k_proj"),
	}
}

// form writes an adapter and reads it again.
type form struct {
	name  string
	holds func(variant string) bool
	pass  func(dir string, a *Adapter) (*Adapter, error)
}

func testForms() []form {
	all := func(string) bool { return true }
	return []form{
		{"peft", all, func(dir string, a *Adapter) (*Adapter, error) {
			if err := WritePEFT(dir, a); err != nil {
				return nil, err
			}
			return Open(dir)
		}},
		{"mlx", all, func(dir string, a *Adapter) (*Adapter, error) {
			if err := WriteMLX(dir, a, testBase(false)); err != nil {
				return nil, err
			}
			return Open(dir)
		}},
		{"gguf", func(variant string) bool { return variant != "dora" }, func(dir string, a *Adapter) (*Adapter, error) {
			path := dir + ".gguf"
			if err := WriteGGUF(path, a, testBase(false), testNames(), "F32"); err != nil {
				return nil, err
			}
			return ReadGGUF(path, testNames())
		}},
	}
}

// TestForms takes every variant through every pair of forms and back.
func TestForms(t *testing.T) {
	for name, a := range testVariants() {
		for _, first := range testForms() {
			for _, second := range testForms() {
				if !first.holds(name) || !second.holds(name) {
					continue
				}
				t.Run(name+"/"+first.name+"/"+second.name, func(t *testing.T) {
					dir := t.TempDir()
					got := a
					for i, f := range []form{first, second, first} {
						var err error
						if got, err = f.pass(filepath.Join(dir, fmt.Sprint(i)), got); err != nil {
							t.Fatal(err)
						}
					}
					compareAdapters(t, got, a)
				})
			}
		}
	}
}

// compareAdapters compares what two adapters do. Where nothing was folded into B, its bits are the same.
func compareAdapters(t *testing.T, got, want *Adapter) {
	t.Helper()
	if len(got.Pairs) != len(want.Pairs) {
		t.Fatalf("%d pairs, want %d", len(got.Pairs), len(want.Pairs))
	}
	if d := cmp.Diff(want.Config.Notes, got.Config.Notes); d != "" || got.Config.BaseHash != want.Config.BaseHash {
		t.Errorf("hash %q, want %q; notes (-want +got):\n%s", got.Config.BaseHash, want.Config.BaseHash, d)
	}
	for i := range want.Pairs {
		p, q := &got.Pairs[i], &want.Pairs[i]
		if p.Module != q.Module || p.Table != q.Table || !slices.Equal(p.Magnitude, q.Magnitude) {
			t.Fatalf("pair of %q, want that of %q", p.Module, q.Module)
		}
		if math.Abs(p.Scale/q.Scale-1) < 1e-6 && p.R == q.R && (!slices.Equal(p.A, q.A) || !slices.Equal(p.B, q.B)) {
			t.Errorf("%q has other values at the same scale %v", p.Module, p.Scale)
		}
		g, w := delta(p), delta(q)
		for k := range w {
			if math.Abs(g[k]-w[k]) > 1e-6*math.Abs(q.Scale) {
				t.Fatalf("value %d of the change of %q is %v, want %v", k, p.Module, g[k], w[k])
			}
		}
	}
}

// TestUniformScales says that B is not touched where one number says all scales, whichever way it is put.
func TestUniformScales(t *testing.T) {
	a := testVariants()["rslora"]
	path := filepath.Join(t.TempDir(), "a.gguf")
	if err := WriteGGUF(path, a, testBase(false), testNames(), "F32"); err != nil {
		t.Fatal(err)
	}
	got, err := ReadGGUF(path, testNames())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Pairs[0].B, a.Pairs[0].B) {
		t.Error("B has other values")
	}
}

// TestRefused says which adapters a form cannot hold, and that the error names a way around.
func TestRefused(t *testing.T) {
	whole := testAdapter(1, 2, 1, "q_proj")
	whole.Whole = []Tensor{{"model.norm.weight", []int{6}, make([]float32, 6)}}
	rows := testAdapter(1, 2, 1, "q_proj")
	rows.Rows = []TokenRows{{Module: testTable, Indices: []int{3}, Width: 6, Data: make([]float32, 6)}}
	bias := testAdapter(1, 2, 1, "q_proj")
	bias.Pairs[0].Bias = make([]float32, 8)
	half := testVariants()["dora"]
	half.Pairs[0].Magnitude = nil
	stranger := testAdapter(1, 2, 1, "q_proj")
	stranger.Pairs[0].Module = "model.layers.7.self_attn.q_proj"
	wide := testAdapter(1, 2, 1, "q_proj")
	wide.Pairs[0].In, wide.Pairs[0].A = 7, make([]float32, 14)
	for name, c := range map[string]struct {
		a         *Adapter
		tied      bool
		gguf, mlx string // what the error says, "" where the form holds it
	}{
		"whole":      {whole, false, `modules_to_save.*graft merge BASE ADAPTER -o OUT\)$`, "one or the other.*graft merge"},
		"rows":       {rows, false, "trainable_token_indices.*graft merge", "trainable_token_indices.*graft merge"},
		"bias":       {bias, false, "lora_bias.*graft merge", "lora_bias.*graft merge"},
		"dora":       {testVariants()["dora"], false, "magnitudes.*graft merge.*--approximate", ""},
		"half dora":  {half, false, "magnitudes", "one kind is for all"},
		"tied table": {testAdapter(1, 2, 1, "embed_tokens"), true, "aborts.*graft merge.*gguf", "changes both.*graft merge"},
		"tied head":  {testAdapter(1, 2, 1, "lm_head"), true, "does not load it.*graft merge.*gguf", "graft merge"},
		"stranger":   {stranger, false, "another model", "another model"},
		"wide":       {wide, false, `A \(2, 7\).*\(8, 6\)`, `A \(2, 7\).*\(8, 6\)`},
		"nothing":    {&Adapter{}, false, "changes nothing", "changes nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			wantError(t, WriteGGUF(filepath.Join(dir, "a.gguf"), c.a, testBase(c.tied), testNames(), "F32"), c.gguf)
			wantError(t, WriteMLX(filepath.Join(dir, "a"), c.a, testBase(c.tied)), c.mlx)
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 && c.gguf != "" && c.mlx != "" {
				t.Errorf("%v is there", left)
			}
		})
	}
	huge := testAdapter(1, 2, 1, "q_proj")
	huge.Pairs[0].B[3] = 1e6
	wantError(t, WriteGGUF(filepath.Join(t.TempDir(), "a.gguf"), huge, testBase(false), testNames(), "F16"), "F16 does not reach.*F32 or BF16")
}

// wantError checks an error against parts of its text, in their order.
func wantError(t *testing.T, err error, parts string) {
	t.Helper()
	switch {
	case parts == "" && err != nil:
		t.Errorf("error %v", err)
	case parts == "":
	case err == nil:
		t.Errorf("no error, want one that says %q", parts)
	case !matches(parts, err.Error()):
		t.Errorf("error %q, want one that says %q", err, parts)
	case !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMismatch):
		t.Errorf("error %q is of no kind", err)
	}
}

func matches(parts, text string) bool { return regexp.MustCompile(parts).MatchString(text) }
