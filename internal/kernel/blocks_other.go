//go:build !amd64 || purego

package kernel

func decodeQ8_0Blocks(_ []float32, _ []byte) bool  { return false }
func decodeQ4_0Blocks(_ []float32, _ []byte) bool  { return false }
func decodeQ4_1Blocks(_ []float32, _ []byte) bool  { return false }
func decodeQ5_0Blocks(_ []float32, _ []byte) bool  { return false }
func decodeQ5_1Blocks(_ []float32, _ []byte) bool  { return false }
func decodeIQ4NLBlocks(_ []float32, _ []byte) bool { return false }
func decodeIQ4XSBlocks(_ []float32, _ []byte) bool { return false }
func decodeQ2KBlocks(_ []float32, _ []byte) bool   { return false }
func decodeQ3KBlocks(_ []float32, _ []byte) bool   { return false }
func decodeQ4KBlocks(_ []float32, _ []byte) bool   { return false }
func decodeQ5KBlocks(_ []float32, _ []byte) bool   { return false }
func decodeQ6KBlocks(_ []float32, _ []byte) bool   { return false }
