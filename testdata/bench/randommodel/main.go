// Command randommodel writes a llama checkpoint of a published shape with random weights in NF4, for
// measurements at sizes for which no checkpoint is at hand (see sevenb.py), or one of zeros in bfloat16
// of so many gigabytes that takes no room on the disk (see large.py).
//
//	go run ./testdata/bench/randommodel -shape 7b -o FOLDER
//	go run ./testdata/bench/randommodel -sparse 40 -o FOLDER-OR-FILE.gguf
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
	sparse := flag.Int("sparse", 0, "gigabytes of zeros")
	out := flag.String("o", "", "new `folder`, or with -sparse a new file ending in .gguf")
	seed := flag.Uint64("seed", 1, "of the weights")
	flag.Parse()
	if *out == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := error(nil)
	if *sparse > 0 {
		err = writeSparse(*out, *sparse)
	} else {
		err = write(ctx, *shape, *out, *seed)
	}
	if err != nil {
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

func writeSparse(out string, gigabytes int) error {
	c, err := testmodel.Tall(gigabytes)
	if err != nil {
		return err
	}
	return testmodel.WriteSparse(out, c, 5e9)
}
