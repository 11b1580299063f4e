//go:build !amd64 || purego

package kernel

func (f blockFormat) assembly(_ []float32, _ []byte, _ int) bool { return false }
