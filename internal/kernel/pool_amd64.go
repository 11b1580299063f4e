//go:build amd64 && !purego

package kernel

// pause tells the processor that the caller polls.
//
//go:noescape
func pause()
