//go:build !amd64 || purego

package kernel

func fitAffineLanes(_ *Fit, _, _ []float32, _ AffineSearch) bool { return false }

func fitSymmetricLanes(_ *Fit, _, _ []float32, _ int) bool { return false }

func runCodesLanes(_ []byte, _ []float32, _, _ *[Runs]float32, _, _ int) bool { return false }

func fitDescentLanes(_ *Fit, _ []byte, _ []float32, _ int) bool { return false }
