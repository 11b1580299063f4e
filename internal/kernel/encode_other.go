//go:build !amd64 || purego

package kernel

func encodeQ8_0Blocks(_ []byte, _ []float32) bool { return false }
func encodeQ4_0Blocks(_ []byte, _ []float32) bool { return false }
func encodeQ4_1Blocks(_ []byte, _ []float32) bool { return false }
func encodeQ5_0Blocks(_ []byte, _ []float32) bool { return false }
func encodeQ5_1Blocks(_ []byte, _ []float32) bool { return false }
