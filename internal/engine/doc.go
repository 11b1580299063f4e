// Package engine is a model in memory: it scores, generates and trains.
//
// # Basics
//
// [Load] reads a checkpoint into a [Model]: dense matrices, or 4-bit ones that stay packed
// and are decoded a few rows at a time inside each product. The architecture's definition is run once
// to record a graph (package autograd), and everything else replays it with memory of its own:
//
//   - A [State] generates and scores. It has a cache of keys and values and its own choice among the
//     adapters the model holds ([Model.AddAdapter]); changing it is changing a list, and a batch may have
//     a choice for each sequence ([Batch]).
//   - A [Session] trains an adapter in place ([Model.MakeAdapter]), or the weights themselves. It computes losses and log
//     probabilities and adds up gradients; the optimizer is the caller's. The reference model of
//     preference objectives is the same graph with the adapters left out.
//   - A [Planner] says what a Session will take in memory, from the model's shapes alone, and how many
//     blocks it has to compute again to fit in a limit.
//
// A Model is safe for concurrent use by any number of states; a State or a Session belongs to one
// goroutine. Training weights (not adapters) is for a model nobody else uses.
//
// An adapter is all that PEFT's LoRA can hold: pairs on products, on the embedding table and on the head,
// with DoRA or a bias, and parameters or rows of tables in place of the base's. The base itself never
// changes: what an adapter replaces is looked up instead.
//
// # Caveats
//
// DoRA divides by the lengths of the rows of W + s·B·A, of W as the model holds it, and takes them for
// constants in backward, as PEFT does. They are computed when an adapter is added, and before every pass
// of a Session. PyTorch's embeddings give the row of the padding token no gradient; here it is a token
// like any other.
//
// Everything is computed in float32 whatever the checkpoint's number type, unless [Options].BF16
// rounds the operands of products, and values between operations, to bfloat16. 4-bit weights are the
// table's value times the block's scale in float32, as bitsandbytes computes with float32
// activations; its backward rounds them to the checkpoint's type first, which this package does not.
// All results are the same bits for any number of threads.
package engine
