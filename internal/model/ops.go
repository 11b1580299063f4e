package model

// Ops is the set of operations architectures are written in. V is what one interpreter computes
// with: a width, an activation, the name of a graph edge.
//
// Activations are (T, C): T tokens, C features. A batch is a flat run of tokens, so an operation
// works row by row, except Attention, whose interpreter knows where one sequence ends.
type Ops[V any] interface {
	// Embed looks rows of the table up: tokens (T) → (T, p.Out).
	Embed(p Linear, tokens V) V
	// Block marks the start of decoder block i, whose only input is x. It returns x, and lets an
	// interpreter cut there (recomputation, names of nodes).
	Block(i int, x V) V
	// Linear is y = x·Wᵀ (+ b): x (T, p.In) → (T, p.Out).
	Linear(p Linear, x V) V
	// Split cuts the columns of x (T, Σwidths), which a Linear made and nothing else reads, into
	// parts of the given widths, in order: products whose weights a checkpoint keeps in one matrix.
	Split(x V, widths ...int) []V
	// Scale is x·by.
	Scale(by float64, x V) V
	// RMSNorm is x / sqrt(mean(x²) + ε) · w over rows of p.Width features. Where x is wider than
	// p.Width, each group of p.Width features is a row of its own (a norm over each head).
	RMSNorm(p Norm, x V) V
	// Rope rotates the heads of x (T, r.Heads·r.HeadDim) by their positions. Which of two sets of
	// frequencies a table with Long uses is a matter of each sequence's length: see RopeTable.
	Rope(r Rope, x V) V
	// Attention is causal grouped-query attention: q (T, Heads·HeadDim), k and v
	// (T, KVHeads·HeadDim) → (T, Heads·HeadDim).
	Attention(a Attention, q, k, v V) V
	// Gated is act(gate) ⊙ up.
	Gated(act Activation, gate, up V) V
	// Add is a + b, a being the residual stream.
	Add(a, b V) V
	// Head is the last product, hidden states (T, p.In) → logits (T, p.Out). An interpreter that
	// needs logits at some positions only (a loss) may return the hidden states and compute later.
	Head(p Head, x V) V
}

// Linear names the parameters of a product or a table: a weight (Out, In) and, with Bias, a bias
// (Out). For an embedding Out is the width of a row and In the number of rows: the table itself is
// (In, Out), as Hugging Face stores it.
type Linear struct {
	Module  string // path of the module; the weight is Module + ".weight"
	In, Out int
	Bias    bool
	Tied    string // module whose weight this one shares, "" where it owns its own
}

// Weight returns the name under which the weight is stored, which for a tied head is the table's.
func (p Linear) Weight() string {
	if p.Tied != "" {
		return p.Tied + ".weight"
	}
	return p.Module + ".weight"
}

// Head is the last product and what is done to its logits: x·Wᵀ times Scale, then, with Softcap c,
// c·tanh(logit/c).
type Head struct {
	Linear
	Scale   float64 // 0 is 1
	Softcap float64 // 0: none
}

// Norm names the gain of a root-mean-square norm (Zhang and Sennrich 2019): a vector (Width).
type Norm struct {
	Module string
	Width  int
	Eps    float64
	Offset bool // the gain is stored less one (Gemma): x/rms · (1 + w)
}

// Weight returns the name of the gain.
func (p Norm) Weight() string { return p.Module + ".weight" }

// Rope says how Rope rotates: HeadDim features a head, of which pair i is features i and
// i + len(Table.InvFreq). The features past the last pair stay as they are.
type Rope struct {
	Layer          int
	Heads, HeadDim int
	Table          *RopeTable
}

// Attention says how scores are made and which keys are seen.
type Attention struct {
	Layer                   int
	Heads, KVHeads, HeadDim int
	Scale                   float64 // multiplies q·k
	Window                  int     // keys seen, the own position included; 0 sees all before
	Softcap                 float64 // scaled scores s become c·tanh(s/c) (Gemma 2); 0: none
}

// Activation is the non-linearity of a gated unit.
type Activation string

// The activations, under Hugging Face's names.
const (
	// SiLU is x·σ(x) (Elfwing et al. 2017).
	SiLU Activation = "silu"
	// GELUTanh is x·Φ(x) with the tanh approximation of Φ (Hendrycks and Gimpel 2016).
	GELUTanh Activation = "gelu_pytorch_tanh"
)

// Forward runs the architecture's definition under an interpreter: tokens → logits.
func Forward[V any](c *Config, o Ops[V], tokens V) (V, error) {
	switch c.Arch {
	case "llama", "mistral", "smollm3":
		return llamaForward(c, o, tokens), nil
	case "qwen2":
		return qwen2Forward(c, o, tokens), nil
	case "qwen3":
		return qwen3Forward(c, o, tokens), nil
	case "gemma2":
		return gemma2Forward(c, o, tokens), nil
	case "gemma3_text":
		return gemma3Forward(c, o, tokens), nil
	case "granite":
		return graniteForward(c, o, tokens), nil
	case "olmo2", "olmo3":
		return olmo2Forward(c, o, tokens), nil
	case "phi3":
		return phi3Forward(c, o, tokens), nil
	}
	var none V
	return none, unknownArch(c.Arch)
}
