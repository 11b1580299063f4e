package dataset

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
)

// This file deals examples out. Everything is a function of the options and the number of the epoch,
// so that a run resumes from two counters.

// BatchOptions says how examples are put together.
type BatchOptions struct {
	// Size is the number of sequences of a batch.
	Size int
	// Pack fills each sequence with as many examples as fit into MaxLength tokens. The examples of a
	// sequence do not attend to each other, and positions count from 0 in each.
	Pack      bool
	MaxLength int
	// Shuffle deals the examples out in another order each epoch. Without packing, examples of like
	// length are then put into the same batch, so that batches take like times.
	Shuffle bool
	Seed    uint64
}

// Batches deals examples out.
type Batches struct {
	lengths []int
	o       BatchOptions
}

// NewBatches prepares to deal out examples of the given lengths. It fails with ErrEmpty without
// examples and with ErrFormat on options that make no batch.
func NewBatches(lengths []int, o BatchOptions) (*Batches, error) {
	if len(lengths) == 0 {
		return nil, fmt.Errorf("dataset: making batches: %w", ErrEmpty)
	}
	if o.Size < 1 {
		return nil, fmt.Errorf("dataset: making batches: %w: %d sequences a batch", ErrFormat, o.Size)
	}
	if longest := slices.Max(lengths); o.Pack && longest > o.MaxLength {
		return nil, fmt.Errorf("dataset: making batches: %w: an example of %d tokens in sequences of %d", ErrFormat, longest, o.MaxLength)
	}
	return &Batches{lengths, o}, nil
}

// bucket is the number of batches among whose examples lengths are sorted.
const bucket = 32

// Epoch lists the batches of an epoch, each as indexes of examples. Every example occurs once; the
// last batch may be smaller. The number of batches is the same in every epoch without packing, and
// with packing where shuffling is off.
func (b *Batches) Epoch(n int) [][]int {
	order := make([]int, len(b.lengths))
	for i := range order {
		order[i] = i
	}
	rng := newShuffler(b.o.Seed, uint64(n))
	if b.o.Shuffle {
		rng.shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	if b.o.Pack {
		return b.pack(order, rng)
	}
	if b.o.Shuffle && b.o.Size > 1 {
		for lo := 0; lo < len(order); lo += bucket * b.o.Size {
			part := order[lo:min(lo+bucket*b.o.Size, len(order))]
			slices.SortStableFunc(part, func(i, j int) int { return cmp.Compare(b.lengths[j], b.lengths[i]) })
		}
	}
	batches := slices.Collect(slices.Chunk(order, b.o.Size))
	if b.o.Shuffle {
		rng.shuffle(len(batches), func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
	}
	return batches
}

// pack fills sequences by best fit, the longest example first: each goes where it leaves the least
// room. Examples of equal length keep their order.
func (b *Batches) pack(order []int, rng *shuffler) [][]int {
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(b.lengths[j], b.lengths[i]) })
	var sequences [][]int
	open := make([][]int, b.o.MaxLength+1) // by room left: sequences with exactly that much
	for _, i := range order {
		n := b.lengths[i]
		room := n
		for room <= b.o.MaxLength && len(open[room]) == 0 {
			room++
		}
		if room > b.o.MaxLength {
			open[b.o.MaxLength-n] = append(open[b.o.MaxLength-n], len(sequences))
			sequences = append(sequences, []int{i})
			continue
		}
		last := len(open[room]) - 1
		s := open[room][last]
		open[room] = open[room][:last]
		open[room-n] = append(open[room-n], s)
		sequences[s] = append(sequences[s], i)
	}
	if b.o.Shuffle {
		rng.shuffle(len(sequences), func(i, j int) { sequences[i], sequences[j] = sequences[j], sequences[i] })
	}
	var batches [][]int
	for group := range slices.Chunk(sequences, b.o.Size) {
		batches = append(batches, slices.Concat(group...))
	}
	return batches
}

// Split divides n examples into those to train on and those held out, which are the given fraction,
// at least one. Which ones is decided by the seed. Both lists are in order. It fails with ErrEmpty
// where one would be empty.
func Split(n int, fraction float64, seed uint64) (train, held []int, err error) {
	k := max(1, int(fraction*float64(n)+0.5))
	if k >= n {
		return nil, nil, fmt.Errorf("dataset: holding out %v of %d rows: %w to train on", fraction, n, ErrEmpty)
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	newShuffler(seed, 1<<63).shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	held, train = order[:k], order[k:]
	slices.Sort(held)
	slices.Sort(train)
	return train, held, nil
}

// shuffler draws permutations that no release of Go changes: PCG's stream is specified, and the
// rest is here.
type shuffler struct{ pcg *rand.PCG }

func newShuffler(seed, stream uint64) *shuffler { return &shuffler{rand.NewPCG(seed, stream)} }

// shuffle is Fisher and Yates's. The remainder's bias is below n/2⁶⁴.
func (s *shuffler) shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, int(s.pcg.Uint64()%uint64(i+1)))
	}
}
