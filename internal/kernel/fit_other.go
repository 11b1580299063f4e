//go:build !amd64 || purego

package kernel

func fitAffineLanes(_ *Fit, _, _ []float32, _ AffineSearch) bool { return false }

func fitSymmetricLanes(_ *Fit, _, _ []float32, _ int) bool { return false }

func runCodesLanes(_ []byte, _ []float32, _, _ *[Runs]float32, _, _ int) bool { return false }

func fitDescentLanes(_ *Fit, _ []byte, _ []float32, _ int) bool { return false }

func fitTableLanes(_ *Fit, _, _ []float32, _ *[16]float32) bool { return false }

func tableCodesLanes(_ []byte, _ []float32, _ *[Runs]float32, _ *[16]float32) bool { return false }
