//go:build !amd64 || purego

package kernel

// Plain Go only: the levels above generic do not exist in this build.

func rowTile(_ tileShape, steps int, a []float32, lda int, b, _ []float32, c []float32, ldc int, alpha float32, acc bool) {
	genericRowTile(steps, a, lda, b, c, ldc, alpha, acc)
}

func laidTile(_ tileShape, steps int, a []float32, lda int, b []float32, c []float32, ldc int, alpha float32, acc bool) {
	genericLaidTile(steps, a, lda, b, c, ldc, alpha, acc)
}

func outerTile(steps int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, alpha float32, acc bool) {
	genericOuterTile(steps, a, lda, b, ldb, c, ldc, alpha, acc)
}

func dot(out, x, w []float32, ldw int) { genericDot(out, x, w, ldw) }

func transposeBlocks(_ []float32, _ int, _ []float32, _, _ int) {}

func pairTile(shape tileShape, steps int, a []float32, lda int, b, _ []float32, c []float32, ldc int, alpha float32, acc bool) {
	genericPairTile(shape, steps, a, lda, b, c, ldc, alpha, acc)
}

// Products in bfloat16 take the float32 kernels in this build.

func tileStrips(_ *[64]byte, _ *tileCall, _, _, _, _ *float32) {}

func roundStrip(_ *float32, _ *float32, _, _, _ int) {}

func copyStrip(_ *float32, _ *byte, _, _, _ int) {}

func pairRows(_, _ *float32, _, _, _, _ int) {}

func pairColumns(_, _ *float32, _, _ int) {}
