package kernel

import (
	"fmt"
	"math"
)

//go:generate go run ./_asm/vec .

// This file holds the elementwise operations and the reductions over a whole
// vector. All take slices of equal length and panic on others. dst may be the
// same slice as an input, never one shifted against it.

// elemGrain is the number of elements worth handing to another thread: about
// 4 µs of work from memory.
const elemGrain = 1 << 14

// elemTask is one elementwise operation over a range of elements.
type elemTask struct {
	op        elemOp
	dst, a, b []float32
	s         float32
}

type elemOp uint8

const (
	opAdd elemOp = iota
	opMultiply
	opAddScaled
	opScale
	opExp
)

var elemTasks freeList[elemTask]

func (t *elemTask) Run(lo, hi int) {
	dst, a := t.dst[lo:hi], t.a[lo:hi]
	switch t.op {
	case opAdd:
		vecAdd(dst, a, t.b[lo:hi])
	case opMultiply:
		vecMul(dst, a, t.b[lo:hi])
	case opAddScaled:
		vecAxpy(dst, a, t.s)
	case opScale:
		vecScale(dst, a, t.s)
	case opExp:
		vecExp(dst, a)
	}
}

func runElem(op elemOp, dst, a, b []float32, s float32) {
	t := elemTasks.get()
	*t = elemTask{op, dst, a, b, s}
	Parallel(len(dst), elemGrain, t)
	*t = elemTask{}
	elemTasks.put(t)
}

// checkLen panics unless a length is what the shapes of op demand.
func checkLen(op, name string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("kernel: %s: %s has %d elements, want %d", op, name, got, want))
	}
}

// Add sets dst = a + b.
func Add(dst, a, b []float32) {
	checkLen("Add", "a", len(a), len(dst))
	checkLen("Add", "b", len(b), len(dst))
	runElem(opAdd, dst, a, b, 0)
}

// Multiply sets dst = a ∘ b, the elementwise product.
func Multiply(dst, a, b []float32) {
	checkLen("Multiply", "a", len(a), len(dst))
	checkLen("Multiply", "b", len(b), len(dst))
	runElem(opMultiply, dst, a, b, 0)
}

// AddScaled sets dst = dst + s·x.
func AddScaled(dst, x []float32, s float32) {
	checkLen("AddScaled", "x", len(x), len(dst))
	runElem(opAddScaled, dst, x, nil, s)
}

// Scale sets dst = s·x.
func Scale(dst, x []float32, s float32) {
	checkLen("Scale", "x", len(x), len(dst))
	runElem(opScale, dst, x, nil, s)
}

// Exp sets dst = eˣ, within 2 ulp of the exact value over the whole range,
// denormal results included; e^−∞ = 0, e^∞ = ∞, e^NaN = NaN.
func Exp(dst, x []float32) {
	checkLen("Exp", "x", len(x), len(dst))
	runElem(opExp, dst, x, nil, 0)
}

// Dot is Σ aᵢ·bᵢ in float32, in an order that depends on the length and the
// implementation only.
func Dot(a, b []float32) float32 {
	checkLen("Dot", "b", len(b), len(a))
	return vecDot(a, b)
}

// sumBlock is the number of elements of one partial sum, so that the order of
// a parallel sum does not depend on who computes it.
const sumBlock = 1 << 14

// sumTask computes the partial sums of blocks.
type sumTask struct {
	x        []float32
	partials []float64
}

var sumTasks freeList[sumTask]

func (t *sumTask) Run(lo, hi int) {
	for i := lo; i < hi; i++ {
		t.partials[i] = vecSumSquares(t.x[i*sumBlock : min((i+1)*sumBlock, len(t.x))])
	}
}

// SumSquares is Σ xᵢ² in float64, in an order that depends on the length and
// the implementation only: the square of a gradient's norm.
func SumSquares(x []float32) float64 {
	blocks := ceilDiv(len(x), sumBlock)
	t := sumTasks.get()
	t.x, t.partials = x, grow(t.partials, blocks)
	Parallel(blocks, 1, t)
	sum := 0.0
	for _, p := range t.partials {
		sum += p
	}
	t.x = nil
	sumTasks.put(t)
	return sum
}

// grow is s with length n, its contents undefined; it allocates only when the
// capacity of s does not suffice.
func grow[E any](s []E, n int) []E {
	if cap(s) < n {
		return make([]E, n)
	}
	return s[:n]
}

// exp32 is eˣ rounded from float64: x = k·ln 2 + r with |r| ≤ ln 2 / 2, and a
// Taylor polynomial whose remainder, r⁸/8!, is below 2⁻²⁷.
func exp32(x float32) float32 {
	switch {
	case x > 88.8:
		return float32(math.Inf(1))
	case x < -104:
		return 0
	case x != x:
		return x
	}
	v := float64(x)
	k := math.Floor(v*math.Log2E + 0.5)
	r := v - k*math.Ln2
	p := 1 + r*(1+r*(1./2+r*(1./6+r*(1./24+r*(1./120+r*(1./720+r*(1./5040)))))))
	return float32(p * math.Float64frombits(uint64(int64(k)+1023)<<52))
}
