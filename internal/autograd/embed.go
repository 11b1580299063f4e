package autograd

import "github.com/graftml/graft/internal/kernel"

// embedOp is a lookup in a table with the adapters that stand on it:
//
//	y[t] = (E[token] + Σ s·(A[:, token]ᵀ·Bᵀ))∘gain        (T) → (T, C), E is (V, C)
type embedOp struct {
	node
	table *Weight // (V, C)
}

// Embed records a lookup of the batch's tokens in a table (vocabulary, width).
func (g *Graph) Embed(table *Weight) Var {
	o := &embedOp{table: table}
	g.table = table
	g.makes(&o.node, table.Matrix.K)
	return g.add(o)
}

func (o *embedOp) trained(t *Tape) bool {
	return t.param(o.table).trained() || anyTrained(t.adapters[t.graph.TablePlace()])
}

func (o *embedOp) reads(*Tape) []Var { return nil }

// The private buffers of one adapter on a table.
const (
	columns     = iota // of A, one for each token (T, r)
	columnsGrad        // their gradients (T, r)
	perTablePair
)

// private: the buffers of each adapter, then, with a gain, the lookup before it or the gradient of that.
func (o *embedOp) private(t *Tape) (out []buffer) {
	list := t.adapters[t.graph.TablePlace()]
	for _, l := range list {
		keep := forwardScratch
		if t.training {
			keep = saved
		}
		out = append(out, buffer{l.A.N, keep, none}, buffer{l.A.N, backwardScratch, none})
	}
	if gainOf(list) != nil && t.training {
		out = append(out, buffer{o.table.Matrix.K, backwardScratch, none})
	}
	return out
}

func (o *embedOp) forward(c *call) {
	if len(c.tape.runs) > 0 {
		o.forwardMixed(c)
		return
	}
	list := c.pairs(c.tape.graph.TablePlace())
	for k, l := range list {
		kernel.GatherColumns(c.own(k*perTablePair+columns).F32, l.A.F32, l.A.N, l.A.K, c.tape.batch.Tokens)
	}
	y := c.output(0)
	o.lookUp(c, y.F32, list)
	if g := gainOf(list); g != nil {
		kernel.ScaleColumns(y, y, c.rows(), g.Values, nil)
	}
}

// lookUp makes what is there before a gain.
func (o *embedOp) lookUp(c *call, y []float32, list []*LowRank) {
	width := c.outs[0].width
	kernel.EmbedRows(y, &c.weight(o.table).Matrix, c.tape.batch.Tokens)
	for k, l := range list {
		kernel.ScaledMulT(y, width, c.own(k*perTablePair+columns).F32, l.A.N, c.rows(), &l.B, l.Scale, true)
	}
}

func (o *embedOp) backward(c *call) {
	dy, width, rows, tokens := c.outGrad(0), c.outs[0].width, c.rows(), c.tape.batch.Tokens
	list := c.pairs(c.tape.graph.TablePlace())
	if g := gainOf(list); g != nil {
		z := c.own(len(list) * perTablePair)
		if g.Grad != nil {
			o.lookUp(c, z.F32, list)
			g.backward(c, dy, z, 0, width)
		}
		kernel.ScaleColumns(z, dy, rows, g.Values, nil)
		dy = z
	}
	for k, l := range list {
		if !l.trained() {
			continue
		}
		r, du := l.A.N, c.own(k*perTablePair+columnsGrad)
		kernel.ScaledMul(du.F32, r, dy.F32, width, rows, &l.B, l.Scale, false)
		kernel.ScatterColumns(l.GradA, du.F32, r, l.A.K, tokens)
		kernel.WeightGradient(l.GradB, r, dy, width, c.own(k*perTablePair+columns), r, rows, width, r, l.Scale, true)
	}
	w := c.weight(o.table)
	if w.Grad != nil {
		kernel.EmbedBackward(w.Grad, dy.F32, tokens, width)
	}
	if w.Rows == nil {
		return
	}
	for i, token := range tokens {
		if k, ok := w.Rows.Index[token]; ok {
			row := w.Rows.Grad[int(k)*width:][:width]
			kernel.Add(row, row, dy.F32[i*width:(i+1)*width])
		}
	}
}
