// Command randommodel writes a llama checkpoint of a published shape with random weights in NF4, for
// measurements at sizes for which no checkpoint is at hand. See sevenb.py.
//
//	go run ./testdata/bench/randommodel -shape 7b -o FOLDER
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/graftml/graft/internal/testmodel"
)

func main() {
	shape := flag.String("shape", "7b", "135m, 1b or 7b")
	out := flag.String("o", "", "new `folder`")
	seed := flag.Uint64("seed", 1, "of the weights")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := write(ctx, *shape, *out, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "randommodel:", err)
		os.Exit(1)
	}
}

func write(ctx context.Context, shape, out string, seed uint64) error {
	c, err := testmodel.Shape(shape)
	if err != nil {
		return err
	}
	var tenths atomic.Int64
	return testmodel.WriteNF4(ctx, out, c, seed, func(done, total int64) {
		if n := 10 * done / total; n > tenths.Swap(n) {
			fmt.Fprintf(os.Stderr, "randommodel: %d0 %% of %d million values\n", n, total/1e6)
		}
	})
}
