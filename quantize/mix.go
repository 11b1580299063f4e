package quantize

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Mix is one of llama-quantize's file types: a rule that gives each tensor of a model the
// format that its place in the model deserves. Most are named after the format that most
// tensors get, Q4_K_M and the like after it and a size. The zero value is no mix.
type Mix struct {
	name string
	mixRule
}

type mixRule struct {
	fileType uint32
	base     string // what a tensor gets unless a rule below, or its shape, says otherwise
	// Other formats for the i-th of n tensors of a kind; "" is the base.
	value, down func(i, n int, m MixModel) string
	attnOut     string
}

// MixModel is what a mix needs to know of a model.
type MixModel struct {
	Arch           string // general.architecture
	Layers         int
	Heads, KVHeads int
	Importance     bool // there is an importance matrix
}

// MixTensor is a tensor by its name in GGUF, "blk.0.attn_v.weight", and its shape, rows first.
type MixTensor struct {
	Name  string
	Shape []int
}

func always(format string) func(int, int, MixModel) string {
	return func(int, int, MixModel) string { return format }
}

// first gives format to tensors before a share of all.
func first(share int, format string) func(int, int, MixModel) string {
	return func(i, n int, _ MixModel) string {
		if i < n/share {
			return format
		}
		return ""
	}
}

// spread gives format to the first and last eighth, and to every third between.
func spread(format string) func(int, int, MixModel) string {
	return func(i, n int, _ MixModel) string {
		if i < n/8 || i >= 7*n/8 || (i-n/8)%3 == 2 {
			return format
		}
		return ""
	}
}

// grouped gives one format where at least four query heads share a value head, else another.
func grouped(format, other string) func(int, int, MixModel) string {
	return func(_, _ int, m MixModel) string {
		if m.KVHeads > 0 && m.Heads/m.KVHeads >= 4 {
			return format
		}
		return other
	}
}

// ifImportance gives what rule does where there is an importance matrix, or where there is none.
func ifImportance(has bool, rule func(int, int, MixModel) string) func(int, int, MixModel) string {
	return func(i, n int, m MixModel) string {
		if m.Importance != has {
			return ""
		}
		return rule(i, n, m)
	}
}

var mixes = map[string]mixRule{
	"Q4_0":   {fileType: 2, base: "Q4_0", down: ifImportance(true, first(8, "Q4_1"))},
	"Q4_1":   {fileType: 3, base: "Q4_1"},
	"Q8_0":   {fileType: 7, base: "Q8_0"},
	"Q5_0":   {fileType: 8, base: "Q5_0", down: ifImportance(true, first(8, "Q5_1"))},
	"Q5_1":   {fileType: 9, base: "Q5_1"},
	"Q2_K":   {fileType: 10, base: "Q2_K", value: grouped("Q4_K", "Q3_K"), down: always("Q3_K"), attnOut: "Q3_K"},
	"Q3_K_S": {fileType: 11, base: "Q3_K"},
	"Q3_K_M": {fileType: 12, base: "Q3_K", attnOut: "Q4_K",
		value: func(i, _ int, _ MixModel) string {
			if i < 2 {
				return "Q5_K"
			}
			return "Q4_K"
		},
		down: func(i, n int, m MixModel) string { return cmp.Or(first(16, "Q5_K")(i, n, m), "Q4_K") }},
	"Q3_K_L": {fileType: 13, base: "Q3_K", value: always("Q5_K"), down: always("Q5_K"), attnOut: "Q5_K"},
	"Q4_K_S": {fileType: 14, base: "Q4_K", down: first(8, "Q5_K"),
		value: func(i, _ int, _ MixModel) string {
			if i < 4 {
				return "Q5_K"
			}
			return ""
		}},
	"Q4_K_M": {fileType: 15, base: "Q4_K", value: spread("Q6_K"), down: spread("Q6_K")},
	"Q5_K_S": {fileType: 16, base: "Q5_K"},
	"Q5_K_M": {fileType: 17, base: "Q5_K", value: spread("Q6_K"), down: spread("Q6_K")},
	"Q6_K":   {fileType: 18, base: "Q6_K"},
	"IQ4_NL": {fileType: 25, base: "IQ4_NL", value: grouped("Q5_K", ""), down: ifImportance(false, first(8, "Q5_K"))},
	"IQ4_XS": {fileType: 30, base: "IQ4_XS", value: grouped("Q5_K", ""), down: ifImportance(false, first(8, "Q5_K"))},
}

// aliases are llama-quantize's short names.
var aliases = map[string]string{"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

// LookupMix returns a mix by its name, as llama-quantize writes it: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0
// Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K IQ4_NL IQ4_XS, or Q3_K Q4_K Q5_K
// for those with M. Another name gives ErrUnsupported.
func LookupMix(name string) (Mix, error) {
	name = cmp.Or(aliases[name], name)
	rule, ok := mixes[name]
	if !ok {
		return Mix{}, fmt.Errorf("quantize: looking up mix %q: %w (there are %v)", name, ErrUnsupported, Mixes())
	}
	return Mix{name, rule}, nil
}

// Mixes lists the mixes that LookupMix knows, sorted.
func Mixes() []string { return slices.Sorted(maps.Keys(mixes)) }

// Name is the mix's name, such as "Q4_K_M".
func (m Mix) Name() string { return m.name }

// FileType is the number that stands for the mix in a GGUF file, under general.file_type.
func (m Mix) FileType() uint32 { return m.fileType }

// Types returns the format of each tensor of a model, or "" for one that no mix quantizes:
// vectors and norms. All tensors of the model must be among them, in any order: some formats
// go by a tensor's place among its like, and a model without "output.weight" has its embedding table in
// that role.
func (m Mix) Types(model MixModel, tensors []MixTensor) []string {
	order := make([]int, len(tensors))
	values, tied := 0, true
	for i, t := range tensors {
		order[i] = i
		if isValue(t.Name) {
			values++
		}
		tied = tied && t.Name != "output.weight"
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := tensors[a].Name, tensors[b].Name
		return cmp.Or(cmp.Compare(layerOf(x), layerOf(y)), cmp.Compare(x, y))
	})
	types := make([]string, len(tensors))
	value, down := 0, 0
	for _, i := range order {
		t := tensors[i]
		if !strings.HasSuffix(t.Name, "weight") || strings.Contains(t.Name, "_norm.weight") || len(t.Shape) < 2 || t.Shape[0] == 1 {
			continue
		}
		cols, format := t.Shape[1], ""
		switch {
		case t.Name == "output.weight" || tied && t.Name == "token_embd.weight":
			format = m.output(cols)
		case isValue(t.Name):
			if m.value != nil {
				format = m.value(value, values, model)
			}
			if format = cmp.Or(format, m.base); model.is70B() && (format == "Q3_K" || format == "Q4_K") {
				format = "Q5_K"
			}
			value++
		case strings.Contains(t.Name, "ffn_down"):
			if m.down != nil {
				format = m.down(down, model.Layers, model)
			}
			down++
		case strings.Contains(t.Name, "attn_output.weight"):
			format = m.attnOut
		}
		types[i] = fitting(cmp.Or(format, m.base), cols)
	}
	return types
}

// isValue: the tensors that hold attention's values.
func isValue(name string) bool {
	return strings.Contains(name, "attn_v.weight") || strings.Contains(name, "attn_qkv.weight") || strings.Contains(name, "attn_kv_b.weight")
}

// layerOf is the number of the block that a tensor is in, −1 outside of blocks.
func layerOf(name string) int {
	if rest, ok := strings.CutPrefix(name, "blk."); ok {
		if digits, _, ok := strings.Cut(rest, "."); ok {
			if n, err := strconv.Atoi(digits); err == nil {
				return n
			}
		}
	}
	return -1
}

// is70B: the models whose values are few and get more bits.
func (m MixModel) is70B() bool {
	return m.Layers == 80 && (m.Arch == "llama" && m.Heads != m.KVHeads || m.Arch == "qwen2" || m.Arch == "olmo")
}

// output is the format of the head.
func (m Mix) output(cols int) string {
	if m.base == "Q8_0" || cols%blockElems(m.base) != 0 {
		return "Q8_0"
	}
	return "Q6_K"
}

func blockElems(format string) int {
	elems, _ := codecs[format].Block()
	return elems
}

// fitting is a format, or the one that stands in for it where rows are not whole blocks.
func fitting(format string, cols int) string {
	if cols%blockElems(format) == 0 {
		return format
	}
	instead := map[string]string{"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}[format]
	if instead == "" || cols%blockElems(instead) != 0 {
		return "F16"
	}
	return instead
}
