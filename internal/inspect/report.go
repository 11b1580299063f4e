package inspect

import (
	"fmt"
	"slices"
)

// Options say how much is read.
type Options struct {
	Tensors bool   // say where each tensor lies
	Check   bool   // read everything and report what is wrong
	Stats   bool   // read every value and measure each tensor
	Against string // path of a model to compare each tensor with; "" for none
	Model   string // path of the model whose tokenizer and template measure training data; "" for none
	// Progress, unless nil, is told the values read and those there are. It is called from several
	// goroutines.
	Progress func(done, total int64)
}

// Report is what [Path] found. Its JSON form is for scripts: keys are added, never renamed.
type Report struct {
	Kind          string         `json:"kind"` // model, tensors, adapter, bundle or dataset
	Path          string         `json:"path"`
	Form          string         `json:"form"` // gguf, safetensors, peft, mlx, onnx_adapter, onnx, or the form of rows
	Files         []string       `json:"files,omitempty"`
	Arch          string         `json:"architecture,omitempty"`
	Name          string         `json:"name,omitempty"`
	License       string         `json:"license,omitempty"`
	Parameters    int64          `json:"parameters,omitempty"`      // a shared table counts once
	Bytes         int64          `json:"bytes,omitempty"`           // of the tensors
	BitsPerWeight float64        `json:"bits_per_weight,omitempty"` // 8·bytes / parameters
	Layers        int            `json:"layers,omitempty"`
	Hidden        int            `json:"hidden_size,omitempty"`
	Intermediate  int            `json:"intermediate_size,omitempty"`
	Heads         int            `json:"heads,omitempty"`
	KVHeads       int            `json:"kv_heads,omitempty"`
	HeadDim       int            `json:"head_dim,omitempty"`
	Context       int            `json:"context,omitempty"`
	Rope          string         `json:"rope,omitempty"`
	Vocab         int            `json:"vocabulary,omitempty"` // rows of the embedding table
	Tokenizer     string         `json:"tokenizer,omitempty"`  // its kind as the files call it
	Tokens        int            `json:"tokens,omitempty"`     // of the tokenizer, where it was read
	BOS           *int           `json:"bos_token_id,omitempty"`
	EOS           []int          `json:"eos_token_ids,omitempty"`
	Tied          bool           `json:"tied_embeddings,omitempty"`
	Template      bool           `json:"chat_template,omitempty"`
	Types         map[string]int `json:"types,omitempty"` // tensors by number type

	Rank        int            `json:"r,omitempty"`
	Alpha       float64        `json:"lora_alpha,omitempty"`
	Targets     []string       `json:"target_modules,omitempty"`
	Modules     map[string]int `json:"modules,omitempty"` // adapted products by the last part of their path
	DoRA        bool           `json:"use_dora,omitempty"`
	Also        []string       `json:"replaced,omitempty"` // parameters that an adapter replaces, and rows
	BaseModel   string         `json:"base_model,omitempty"`
	Adapters    []string       `json:"adapters,omitempty"` // of a bundle
	Default     string         `json:"default_adapter,omitempty"`
	Data        *Data          `json:"data,omitempty"`
	Total       *Stats         `json:"stats,omitempty"` // of all tensors together
	TotalError  *Difference    `json:"error,omitempty"` // of all tensors together
	Tensors     []Tensor       `json:"tensors,omitempty"`
	Checked     bool           `json:"checked,omitempty"`
	Findings    []Finding      `json:"findings,omitempty"`
	NotCompared []string       `json:"not_compared,omitempty"` // tensors that only one of the two has
}

// Tensor is one tensor of a model or an adapter.
type Tensor struct {
	Name   string      `json:"name"` // under its Hugging Face name where the model is known
	Shape  []int       `json:"shape"`
	Type   string      `json:"type"`
	Bytes  int64       `json:"bytes,omitempty"`
	File   string      `json:"file,omitempty"`      // where there are several
	Offset int64       `json:"offset,omitempty"`    // of its first byte in the file
	Stored string      `json:"stored_as,omitempty"` // name in the file, where it is another
	Stats  *Stats      `json:"stats,omitempty"`
	Error  *Difference `json:"error,omitempty"`
}

// Severity says what a finding means for a reader.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the file is wrong, or cannot be used as it is
	Warning Severity = "warning" // it works, but probably not as its author meant
	Note    Severity = "note"    // worth knowing
)

// Finding is one thing that --check found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`            // stable name of the kind of finding: "tensor-missing"
	Place    string   `json:"place,omitempty"` // tensor, key or file
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // what to do
}

func (f Finding) String() string {
	if f.Place == "" {
		return f.Message
	}
	return f.Place + ": " + f.Message
}

// Errors returns the findings that are errors.
func (r *Report) Errors() []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.Severity == Error {
			list = append(list, f)
		}
	}
	return list
}

func (r *Report) find(s Severity, code, place, fix, format string, a ...any) {
	r.Findings = append(r.Findings, Finding{s, code, place, fmt.Sprintf(format, a...), fix})
}

// sortFindings puts errors first and keeps the order otherwise.
func (r *Report) sortFindings() {
	rank := map[Severity]int{Error: 0, Warning: 1, Note: 2}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
}
