//go:build !amd64 || purego

package kernel

// The functions of this file report how many leading values they converted:
// without assembly none, the generic loop does them all.

func f16ToF32Blocks(dst []float32, src []byte) int  { return 0 }
func f32ToF16Blocks(dst []byte, src []float32) int  { return 0 }
func bf16ToF32Blocks(dst []float32, src []byte) int { return 0 }
func f32ToBF16Blocks(dst []byte, src []float32) int { return 0 }

func gluHalf(_, _, _ []byte, _, _ float32) bool { return false }

func gluBackHalf(_, _, _, _, _ []byte, _, _ float32) bool { return false }
