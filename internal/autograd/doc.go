// Package autograd runs a recorded computation forward and backward in memory planned beforehand.
//
// # Basics
//
// A [Graph] is recorded once, by calling its methods in the order of the computation: values are
// [Var], parameters [Weight]. It says nothing about how many tokens there will be. A [Tape] runs it:
// [Tape.Forward] on a [Batch] of packed sequences, then, where losses were asked for ([Tape.NLL]),
// [Tape.Backward] with one coefficient for each of them. A loss is a weighted sum of token losses,
// so every objective is a choice of coefficients. Adapters ([LowRank]) stand at the places of
// products, of the table and of the head, are chosen for each tape, and can be left out of a pass, which
// makes the same weights the reference model. With them a tape may have weights in place of the graph's
// ([Tape.Replace]), and the sequences of a batch may have a choice each ([Batch.Choices]).
//
// # Design
//
// The forward and the backward computation of an operation stand next to each other: ops.go,
// embed.go, linear.go, gain.go, rope.go, attention.go, head.go. Who calls them when, and where their operands lie, is
// decided once by plan.go from what each operation says about itself:
//
//   - A gradient is computed only if it leads to something trained. Frozen weights have none, and
//     nothing below the lowest trained weight is differentiated.
//   - What backward reads is kept, what nobody reads is not, and what is cheap (norms, gated units)
//     is computed again. Buffers whose lives do not overlap share memory, so all gradients together
//     take a few buffers.
//   - A tape may be told to compute whole blocks again ([Graph.Block], [Tape.SetRemat]): of such a block
//     only the input survives the forward pass. When backward first reads a value of it, the steps that
//     make that value and what it takes run once more, with the same masks and so to the same bits;
//     steps that lead to nothing backward reads, such as a block's last product, do not. What is made
//     again has a second segment in the plan, so all blocks share the memory of one.
//   - The gradient of a sum is the gradient of its operands: no copy where none is needed.
//   - A product that is cut into several values ([Graph.Split]: q, k and v from one matrix) makes each of
//     them by its rows of the weight, so the whole takes no memory beside its parts.
//   - Memory is one arena of so many columns times the number of tokens. It grows when a batch is
//     larger than any before, and a steady step allocates nothing.
//
// Results are the same bits for any number of threads: the kernels split outputs, never sums, and
// dropout masks are a function of a key and the element's index.
//
// # Caveats
//
// Frequencies of rotation may depend on the length of a sequence ([NewAngles]). A cache must then know
// the length before the first token ([Cache.Reach]), for what it holds was rotated for it.
//
// Shapes that contradict each other are a mistake of the program and panic. Activations are float32, or bfloat16
// where the graph says so ([Graph.Half]) and no sum runs through them.
package autograd
