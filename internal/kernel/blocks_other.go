//go:build !amd64 || purego

package kernel

func decodeBlocks(Format, []float32, []byte, int) bool { return false }

func dotBlocks(Format, []float32, []float32, []byte, int) bool { return false }
