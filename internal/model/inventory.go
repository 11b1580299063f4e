package model

// Kind says what a parameter is for.
type Kind int

// The kinds of parameters.
const (
	KindEmbedding Kind = iota // a table (vocabulary, width)
	KindLinear                // the weight of a product inside a block (out, in)
	KindBias                  // a vector (out)
	KindNorm                  // the gain of a norm (width)
	KindHead                  // the weight of the output head (vocabulary, width)
)

// Param is one parameter of a model, under its Hugging Face name.
type Param struct {
	Name  string
	Shape []int
	Kind  Kind
}

// Elements returns the number of values.
func (p Param) Elements() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Inventory lists the parameters of a model in the order the computation meets them. A tied head
// owns none, so it is not listed.
func Inventory(c *Config) ([]Param, error) {
	var inv inventory
	if _, err := Forward(c, &inv, 0); err != nil {
		return nil, err
	}
	return inv.params, nil
}

// Targets lists the products an adapter can stand on, the output head aside: what PEFT calls
// "all-linear".
func Targets(c *Config) ([]Linear, error) {
	var inv inventory
	if _, err := Forward(c, &inv, 0); err != nil {
		return nil, err
	}
	return inv.linears, nil
}

// Ends returns the embedding table and the output head of a model. Where the head shares the table's
// weight it says so.
func Ends(c *Config) (table, head Linear, err error) {
	var inv inventory
	_, err = Forward(c, &inv, 0)
	return inv.table, inv.head, err
}

// inventory is the interpreter whose values are widths.
type inventory struct {
	params      []Param
	linears     []Linear
	table, head Linear
}

func (v *inventory) add(name string, kind Kind, shape ...int) {
	v.params = append(v.params, Param{name, shape, kind})
}

func (v *inventory) product(p Linear, kind Kind) int {
	if p.Tied == "" {
		v.add(p.Weight(), kind, p.Out, p.In)
	}
	if p.Bias {
		v.add(p.Module+".bias", KindBias, p.Out)
	}
	return p.Out
}

func (v *inventory) Embed(p Linear, _ int) int {
	v.table = p
	v.add(p.Weight(), KindEmbedding, p.In, p.Out)
	return p.Out
}

func (v *inventory) Linear(p Linear, _ int) int {
	v.linears = append(v.linears, p)
	return v.product(p, KindLinear)
}

func (v *inventory) Head(p Head, _ int) int {
	v.head = p.Linear
	return v.product(p.Linear, KindHead)
}

func (v *inventory) RMSNorm(p Norm, x int) int {
	v.add(p.Weight(), KindNorm, p.Width)
	return x
}

func (v *inventory) Split(_ int, widths ...int) []int       { return widths }
func (v *inventory) Scale(_ float64, x int) int             { return x }
func (v *inventory) Block(_ int, x int) int                 { return x }
func (v *inventory) Rope(_ Rope, x int) int                 { return x }
func (v *inventory) Attention(_ Attention, q, _, _ int) int { return q }
func (v *inventory) Gated(_ Activation, gate, _ int) int    { return gate }
func (v *inventory) Add(a, _ int) int                       { return a }
