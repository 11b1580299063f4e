//go:build !amd64 || purego

package kernel

func decodeQ8_0Blocks(_ []float32, _ []byte) bool { return false }
func decodeQ4_0Blocks(_ []float32, _ []byte) bool { return false }
func decodeQ4_1Blocks(_ []float32, _ []byte) bool { return false }
