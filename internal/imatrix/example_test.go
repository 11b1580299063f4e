package imatrix_test

import (
	"fmt"

	"github.com/graftml/graft/internal/imatrix"
)

func ExampleRead() {
	m, err := imatrix.Read("../../testdata/golden/imatrix/experts.gguf")
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Entries["blk.0.attn_q.weight"].Mean)
	// Output: [1 0 2.5 0.033333335]
}
