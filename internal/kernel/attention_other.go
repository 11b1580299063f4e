//go:build !amd64 || purego

package kernel

// Rows of scores are plain Go in this build.

func softmaxRows(_, _, _, _ *float32, _, _, _, _ int, _ float32) {}

func softmaxRowsHalf(_, _, _, _ *float32, _, _, _, _ int, _ float32, _ *float32) {}

func slopeRows(_, _, _, _ *float32, _, _, _ int, _, _ float32) {}

func slopeRowsHalf(_, _, _, _ *float32, _, _, _ int, _, _ float32, _, _ *float32) {}
