//go:build !amd64 || purego

package kernel

// pause would tell the processor that the caller polls; plain Go cannot.
func pause() {}
