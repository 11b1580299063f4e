package quantize

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestMixes: every tensor of models of many shapes gets the type that llama_model_quantize gives it.
func TestMixes(t *testing.T) {
	var golden struct {
		Letters   map[string]string
		FileTypes map[string]uint32 `json:"file_types"`
		Models    []struct {
			Arch                          string
			Layers, Heads, KV, Cols, Down int
			Untied                        bool
			Block                         []string
			Types                         map[string]string
		}
	}
	readGolden(t, "mixes.json", &golden)
	if len(golden.Models) < 6 || len(golden.FileTypes) != len(Mixes()) {
		t.Fatalf("%d models, %d mixes of %d", len(golden.Models), len(golden.FileTypes), len(Mixes()))
	}
	for _, g := range golden.Models {
		tensors := []MixTensor{{"token_embd.weight", []int{2, g.Cols}}}
		if g.Untied {
			tensors = append(tensors, MixTensor{"output.weight", []int{2, g.Cols}})
		}
		for i := range g.Layers {
			for _, b := range g.Block {
				shape := []int{2, g.Cols}
				if b == "ffn_down" {
					shape[1] = g.Down
				}
				tensors = append(tensors, MixTensor{fmt.Sprintf("blk.%d.%s.weight", i, b), shape})
			}
		}
		n := len(tensors)
		tensors = append(tensors, MixTensor{"output_norm.weight", []int{g.Cols}}, MixTensor{"blk.0.attn_q.bias", []int{g.Cols}}, MixTensor{"blk.0.attn_q_norm.weight", []int{2, g.Cols}})
		// Order does not matter.
		order := rand.New(rand.NewPCG(1, 2)).Perm(len(tensors))
		shuffled := make([]MixTensor, len(tensors))
		for i, at := range order {
			shuffled[at] = tensors[i]
		}
		for name, want := range g.Types {
			mix, err := LookupMix(strings.TrimSuffix(name, "+"))
			if err != nil {
				t.Fatal(err)
			}
			if mix.FileType() != golden.FileTypes[mix.Name()] {
				t.Errorf("%s has file type %d", name, mix.FileType())
			}
			types := mix.Types(MixModel{g.Arch, g.Layers, g.Heads, g.KV, strings.HasSuffix(name, "+")}, shuffled)
			for i, at := range order {
				got := types[at]
				switch {
				case i >= n && got != "":
					t.Errorf("%s: %q becomes %s", name, tensors[i].Name, got)
				case i < n && golden.Letters[got] != want[i:i+1]:
					t.Errorf("%s of a %s of %d layers: %q becomes %s, which is not %q of %v", name, g.Arch, g.Layers, tensors[i].Name, got, want[i:i+1], golden.Letters)
				}
			}
		}
	}
}

func TestLookupMix(t *testing.T) {
	if m, err := LookupMix("Q4_K"); err != nil || m.Name() != "Q4_K_M" {
		t.Errorf("Q4_K is %v, %v", m.Name(), err)
	}
	if _, err := LookupMix("Q7_K_M"); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "Q4_K_M") {
		t.Errorf("Q7_K_M: %v", err)
	}
}
